//! HA-watch: the service that people look at.

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use steadfast_engine::driver::logging;
use steadfast_engine::watch::{self, Settings};

/// Follows clusters, keeps their history, serves the page, and sends alarms.
#[derive(Debug, Parser)]
#[command(name = "steadfast-watch", version, about)]
struct Cli {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/steadfast/watch.toml", global = true)]
    config: PathBuf,
    /// Only check the configuration: exit code 1 if something is wrong with it.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Alarms.
    Alarm {
        #[command(subcommand)]
        command: AlarmCommand,
    },
}

#[derive(Debug, Subcommand)]
enum AlarmCommand {
    /// Sends a test to every alarm of the settings, or to the one of this name: exit code 1 if one was not taken.
    Test {
        /// Name of the alarm.
        name: Option<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = match Settings::load(&cli.config) {
        Ok(settings) => settings,
        Err(problems) => {
            let _ = writeln!(std::io::stderr(), "{}:\n{problems}", cli.config.display());
            return ExitCode::from(if cli.check { 1 } else { 2 });
        }
    };
    match cli.command {
        _ if cli.check => ExitCode::SUCCESS,
        Some(Command::Alarm { command: AlarmCommand::Test { name } }) => test(&settings, name),
        None => run(settings),
    }
}

fn run(settings: Settings) -> ExitCode {
    let flusher = logging::start();
    let code = match watch::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "steadfast-watch cannot run");
            ExitCode::FAILURE
        }
    };
    drop(flusher);
    code
}

fn test(settings: &Settings, name: Option<String>) -> ExitCode {
    let outcomes = match watch::test_alarms(settings, name.as_deref()) {
        Ok(outcomes) => outcomes,
        Err(error) => vec![("the test".to_string(), Err(error))],
    };
    let (mut out, mut code) = (std::io::stdout(), ExitCode::SUCCESS);
    if outcomes.is_empty() {
        let _ = writeln!(out, "there is no such [[alarm]] in the configuration");
        return ExitCode::FAILURE;
    }
    for (receiver, outcome) in outcomes {
        let _ = match outcome {
            Ok(()) => writeln!(out, "{receiver}: taken"),
            Err(error) => {
                code = ExitCode::FAILURE;
                writeln!(out, "{receiver}: not taken: {error:#}")
            }
        };
    }
    code
}
