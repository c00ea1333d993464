//! The HA agent.

use clap::Parser;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use steadfast_engine::config::Config;
use steadfast_engine::driver;

/// Keeps this node's HA VMs in one place, and restarts those of nodes that died.
#[derive(Debug, Parser)]
#[command(name = "steadfastd", version, about)]
struct Cli {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/steadfast/steadfast.toml")]
    config: PathBuf,
    /// Only check the configuration.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(problems) => {
            let _ = writeln!(std::io::stderr(), "{}:\n{problems}", cli.config.display());
            return ExitCode::from(if cli.check { 1 } else { 2 });
        }
    };
    if cli.check {
        return ExitCode::SUCCESS;
    }
    let flusher = driver::logging::start();
    let code = driver::run(config).unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "the agent cannot run");
        1
    });
    drop(flusher);
    ExitCode::from(code)
}
