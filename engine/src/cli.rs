//! `steadfast`: the operator's commands.

mod args;
mod bounds;
mod client;
mod cluster;
mod cluster_setup;
mod demo;
mod doctor;
mod events;
mod explain;
mod format;
mod hook;
mod live;
mod manual;
mod may_stop;
mod node;
mod plan;
mod policy;
mod policy_bench;
mod policy_file;
mod policy_replay;
mod progress;
mod setup;
mod setup_args;
mod status;
mod storage;
mod telemetry;
mod top;
mod vm;

use args::{Cli, Command, ConfigCommand, NodeCommand, PolicyCommand, StorageCommand};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

pub use client::{Client, Failure};

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
    if let Command::Hook(hook) = &cli.command {
        // libvirt waits: nothing that takes time before it.
        return hook::run(hook);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(error.into()))?;
    let client = Client::new(&cli.socket);
    match &cli.command {
        Command::Demo(args) => demo::run(args, cli.json),
        Command::Completions { shell } => manual::complete(*shell),
        Command::Man { into } => manual::man(into.as_deref()),
        Command::Storage(StorageCommand::Init(init)) => storage::init(init),
        Command::Config(ConfigCommand::Check { file }) => storage::check_config(file),
        Command::Node(NodeCommand::Prepare(args)) => setup::prepare(args, cli.json),
        Command::Node(NodeCommand::Forget(args)) => setup::forget(args),
        Command::Policy(PolicyCommand::Inspect(file)) => policy_file::inspect(file, cli.json),
        Command::Policy(PolicyCommand::Check(file)) => policy_file::check(file, cli.json),
        Command::Policy(PolicyCommand::Run { file, question, kind }) => {
            policy_bench::run(file, question, *kind, cli.json)
        }
        Command::Policy(PolicyCommand::Bench(file)) => policy_bench::bench(file, cli.json),
        Command::Policy(PolicyCommand::Replay(args)) => policy_replay::replay(args, cli.json),
        Command::Policy(PolicyCommand::Diff(args)) => policy_replay::diff(args, cli.json),
        Command::Policy(PolicyCommand::New(new)) => policy::create(new),
        command => runtime.block_on(ask(&client, command, cli.json)),
    }
}

async fn ask(client: &Client, command: &Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Status => status::print(client, json).await,
        Command::Vm(command) => vm::run(client, command, json).await,
        Command::Node(command) => node::run(client, command, json).await,
        Command::Disarm { limit, reason } => cluster::disarm(client, *limit, reason, json).await,
        Command::Arm => cluster::arm(client, json).await,
        Command::Cluster(command) => cluster_setup::run(client, command, json).await,
        Command::Policy(command) => policy::run(client, command, json).await,
        Command::Doctor { config } => doctor::print(client, config, json).await,
        Command::Explain { name } => explain::print(client, name, json).await,
        Command::Events(args) => events::print(client, args, json).await,
        Command::Plan { node } => plan::print(client, node.as_deref(), json).await,
        Command::Top => top::run(client, json).await,
        // Need no agent, and are done already.
        Command::Completions { .. }
        | Command::Config(_)
        | Command::Demo(_)
        | Command::Hook(_)
        | Command::Man { .. }
        | Command::Storage(_) => Ok(()),
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
