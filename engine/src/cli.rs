//! `steadfast`: the operator's commands.

mod bounds;
mod client;
mod doctor;
mod events;
mod explain;
mod format;
mod status;
mod storage;
mod vm;

use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

pub use client::{Client, Failure};

/// High availability for VMs on KVM.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, about)]
struct Cli {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/steadfast/api.sock")]
    socket: PathBuf,
    /// Print the agent's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cluster, nodes and VMs as this node sees them.
    Status,
    /// High availability of VMs.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Policies that decide.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Is this node set up so that the promises hold, and what may failures cost?
    ///
    /// Each check is green, yellow (works, could be better or quicker) or red (a promise does not hold), with what to do.
    /// Exit code: 0 all green, 1 something yellow, 2 something red.
    Doctor {
        /// Configuration file, read if no agent answers.
        #[arg(long, value_name = "FILE", default_value = "/etc/steadfast/steadfast.toml")]
        config: PathBuf,
    },
    /// Why a VM or a node is where and how it is.
    Explain {
        /// A VM or a node, by name or UUID.
        name: String,
    },
    /// Decisions of this node's agent.
    Events {
        /// Go on with what happens from now.
        #[arg(short, long)]
        follow: bool,
    },
    /// Status and decisions, live.
    Watch,
    /// Shared storage.
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// All VMs under high availability.
    List,
    /// Switch high availability on for a VM that is defined on this node.
    Enable(Enable),
    /// Switch it off; the VM is left as it is.
    Disable {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
struct Enable {
    /// Its libvirt name.
    name: String,
    /// Restart priority: 1000 starts first, 0 last.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(0..=1000))]
    priority: u16,
    /// A label for policies; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = format::pair)]
    labels: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// All policies, and which of them decide.
    List,
}

#[derive(Debug, Subcommand)]
enum StorageCommand {
    /// Prepare a shared directory for a cluster. Once, on one node.
    Init(Init),
}

#[derive(Debug, Args)]
struct Init {
    /// The directory, on the shared file system.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// A node: its corosync node id and name; give all of them.
    #[arg(long = "node", value_name = "ID=NAME", required = true, num_args = 1..,
          value_parser = storage::node)]
    nodes: Vec<(u32, String)>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration file.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Runs the command line; the exit code is 0 for success, 1 for failure, 2 for wrong usage or configuration, 3
/// when the agent cannot be reached. `doctor` has its own: 0 green, 1 yellow, 2 red.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                let _ = writeln!(std::io::stderr(), "steadfast: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(error.into()))?;
    let client = Client::new(&cli.socket);
    match &cli.command {
        Command::Storage(StorageCommand::Init(init)) => storage::init(init),
        Command::Config(ConfigCommand::Check { file }) => storage::check_config(file),
        command => runtime.block_on(ask(&client, command, cli.json)),
    }
}

async fn ask(client: &Client, command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Status => status::print(client, json).await,
        Command::Vm(VmCommand::List) => vm::list(client, json).await,
        Command::Vm(VmCommand::Enable(enable)) => vm::enable(client, enable, json).await,
        Command::Vm(VmCommand::Disable { name }) => vm::disable(client, name, json).await,
        Command::Policy(PolicyCommand::List) => vm::policies(client, json).await,
        Command::Doctor { config } => doctor::print(client, config, json).await,
        Command::Explain { name } => explain::print(client, name, json).await,
        Command::Events { follow } => events::print(client, *follow, json).await,
        Command::Watch => events::watch(client).await,
        Command::Storage(_) | Command::Config(_) => Ok(()),
    }
}

/// Prints to stdout. A reader that went away (`| head`) ends the command quietly.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::from_output)
}

fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Other(error.into()))?;
    say(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let line = "steadfast vm enable web --priority 900 --label rack=a --label tier=1 --json";
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Command::Vm(VmCommand::Enable(enable)) = cli.command else { panic!("not enable") };
        assert_eq!((enable.priority, enable.labels.len(), cli.json), (900, 2, true));
        let line = "steadfast storage init --directory /d --cluster c --node 1=n1 --node 2=n2";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        let line = "steadfast storage init --directory /d --cluster c --node 1=n1 2=n2";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
    }
}
