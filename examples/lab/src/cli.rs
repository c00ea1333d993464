//! The commands.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use steadfast_lab::failover::Role;
use steadfast_lab::faultfs::{self, Mode};
use steadfast_lab::faults::Cut;
use steadfast_lab::guard::Guard;
use steadfast_lab::lab::{Coefficient, Lab, Node, Options, Storage};
use steadfast_lab::{demo, init, measure, node, power, status, sys};

#[derive(Parser)]
#[command(name = "lab", about = "A cluster of real nodes on this machine, and every fault")]
struct Cli {
    /// Folder of the lab's files
    #[arg(long, global = true, env = "STEADFAST_LAB_RUN")]
    run: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start nodes, and the guests web, db, mail (HA) and scratch (without)
    Up {
        #[command(flatten)]
        options: UpOptions,
        /// Leave the lab as it is if it does not come up
        #[arg(long)]
        keep: bool,
    },
    /// What runs where
    Status,
    /// Cut a node's power: everything on it is gone at once
    Kill { node: Node },
    /// Stop every process of a node for some time
    Stall { node: Node, seconds: f64 },
    /// Take a node's network or storage away
    Cut {
        node: Node,
        what: Cut,
        /// What storage does then: hang, hang-disks, eio, ro, enospc or "delay MS"
        #[arg(long, default_value = "hang")]
        mode: Mode,
    },
    /// End every fault of a node
    Heal { node: Node },
    /// Power a node on
    Boot { node: Node },
    /// Let the power switches answer, or refuse like a dead BMC
    FenceAgent { state: Switch },
    /// Run a command in a node
    Exec {
        node: Node,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Start, stop or kill a node's agent alone
    Agent { node: Node, action: AgentAction },
    /// Define and start one more guest
    AddVm {
        name: String,
        node: Node,
        /// Enable HA for it
        #[arg(long)]
        ha: bool,
    },
    /// List the guests' processes; fails unless every HA guest has exactly one
    ProbeGuests,
    /// Kill a member, then the leader, and show what happens
    Demo {
        #[command(flatten)]
        options: UpOptions,
        /// Leave the lab up at the end
        #[arg(long)]
        keep: bool,
        /// How often
        #[arg(long, default_value_t = 1)]
        runs: usize,
    },
    /// Failover times and their median; uses the lab that is up, or one of its own
    Measure {
        #[arg(long)]
        what: Role,
        #[arg(long, default_value_t = 10)]
        runs: usize,
        #[command(flatten)]
        options: UpOptions,
    },
    /// Power everything off and remove the lab
    Down,
    #[command(hide = true)]
    NodeBoot { node: Node },
    #[command(hide = true)]
    NodeInit { node: Node },
    #[command(hide = true)]
    Power,
    #[command(hide = true)]
    Faultfs { backing: PathBuf, mountpoint: PathBuf, control: PathBuf },
}

#[derive(Args)]
struct UpOptions {
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Corosync's token time-out
    #[arg(long, default_value_t = 500)]
    token_ms: u32,
    /// Added to the token for each node above two: a number of ms, or `default`
    #[arg(long, default_value = "0")]
    token_coefficient: Coefficient,
    /// Whether the agents have a fence agent
    #[arg(long, default_value = "on")]
    fence_agent: Switch,
    /// The agents' timing preset
    #[arg(long, default_value = "standard")]
    preset: String,
    /// No guests
    #[arg(long)]
    bare: bool,
    /// No agents: corosync, libvirt and guests alone
    #[arg(long)]
    no_agent: bool,
    /// What the agents keep pages and ledger on
    #[arg(long, default_value = "directory")]
    storage: Storage,
    /// Folder of .wasm policies for every node
    #[arg(long, env = "STEADFAST_LAB_POLICIES")]
    policies: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AgentAction {
    Start,
    Stop,
    Kill,
    Restart,
}

pub fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Command::Faultfs { backing, mountpoint, control } = &cli.command {
        return faultfs::serve(backing, mountpoint, control);
    }
    let run = cli.run.context(
        "STEADFAST_LAB_RUN is not set: use examples/lab/lab, which sets it, or --run FOLDER",
    )?;
    match cli.command {
        Command::NodeBoot { node } => node::boot(&Lab::load(&run)?, node),
        Command::NodeInit { node } => init::run(&Lab::load(&run)?, node),
        Command::Power => power::serve(&Lab::load(&run)?),
        command => {
            sys::catch_interrupts()?;
            user_command(&run, command)
        }
    }
}

fn user_command(run: &Path, command: Command) -> Result<()> {
    match command {
        Command::Up { options, keep } => up(run, options, keep),
        Command::Demo { options, keep, runs } => run_demo(run, options, keep, runs),
        Command::Measure { what, runs, options } => run_measure(run, what, runs, options),
        Command::Down => {
            // Also without a state file: something may be left of a lab whose folder is gone.
            let lab = Lab::load(run).or_else(|_| new_lab(run, Options::default()))?;
            lab.down();
            Ok(())
        }
        command => on_running_lab(&Lab::load(run)?, command),
    }
}

fn on_running_lab(lab: &Lab, command: Command) -> Result<()> {
    match command {
        Command::Status => {
            sys::end_on_broken_pipe()?;
            status::print(lab)
        }
        Command::Kill { node } => lab.kill(node),
        Command::Stall { node, seconds } => {
            lab.stall(node, Duration::try_from_secs_f64(seconds).context("bad number of seconds")?)
        }
        Command::Cut { node, what, mode } => lab.cut(node, what, mode),
        Command::Heal { node } => lab.heal(node),
        Command::Boot { node } => lab.boot(node),
        Command::FenceAgent { state } => lab.set_power_switches(state == Switch::On),
        Command::Exec { node, command } => {
            let error = lab.command(node, &command[0])?.args(&command[1..]).exec();
            Err(error).context("cannot run nsenter")
        }
        Command::Agent { node, action } => {
            lab.check(node)?;
            match action {
                AgentAction::Start => lab.start_agent(node),
                AgentAction::Stop => lab.stop_agent(node),
                AgentAction::Kill => lab.kill_agent(node),
                AgentAction::Restart => lab.kill_agent(node).and_then(|()| lab.start_agent(node)),
            }
        }
        Command::AddVm { name, node, ha } => {
            lab.add_vm(&name, node)?;
            if ha { lab.enable_ha(&name, node) } else { Ok(()) }
        }
        Command::ProbeGuests => {
            sys::end_on_broken_pipe()?;
            for guest in lab.guests() {
                let console = lab.console(&guest.name, guest.node);
                let last = console.rsplit("GUEST-UP").next().unwrap_or_default().trim();
                let tail: String = last.chars().rev().take(20).collect();
                println!(
                    "{:<10} {} on {} pid {:<7} {tail}",
                    guest.name, guest.uuid, guest.node, guest.process.pid
                );
            }
            lab.check_single()
        }
        _ => bail!("this command does not need a running lab"),
    }
}

fn new_lab(run: &Path, options: Options) -> Result<Lab> {
    let program = std::env::current_exe()?;
    let programs = program.parent().context("this program has no folder")?;
    Lab::new(run, programs, options)
}

fn start(run: &Path, options: UpOptions) -> Result<Lab> {
    let bare = options.bare;
    let lab = new_lab(
        run,
        Options {
            nodes: options.nodes,
            token_ms: options.token_ms,
            token_coefficient: options.token_coefficient,
            fence_agent: options.fence_agent == Switch::On,
            preset: options.preset,
            bare,
            no_agent: options.no_agent,
            storage: options.storage,
            policies: options.policies,
            feature_level: None,
            configuration: String::new(),
        },
    )?;
    if Lab::load(run).is_ok() {
        println!("removing the lab that was here before");
    }
    println!("starting {} nodes", lab.options.nodes);
    lab.up()?;
    Ok(lab)
}

fn up(run: &Path, options: UpOptions, keep: bool) -> Result<()> {
    let lab = start(run, options)?;
    let guests = if lab.options.bare { Ok(()) } else { lab.create_guests() };
    if guests.is_err() && !keep {
        drop(Guard(lab));
        return guests.with_context(|| last_logs(run));
    }
    guests?;
    status::print(&lab)
}

fn last_logs(run: &Path) -> String {
    format!("the lab was removed; its logs are in {}", run.join("last-logs").display())
}

fn run_demo(run: &Path, options: UpOptions, keep: bool, runs: usize) -> Result<()> {
    let lab = Guard(start(run, options)?);
    let mut outcome = lab.create_guests();
    for _ in 0..runs {
        outcome = outcome.and_then(|()| demo::run(&lab));
    }
    if keep {
        // The owner asked for it: what is there stays there.
        std::mem::forget(lab);
        return outcome;
    }
    drop(lab);
    outcome.with_context(|| last_logs(run))
}

fn run_measure(run: &Path, what: Role, runs: usize, options: UpOptions) -> Result<()> {
    if let Ok(lab) = Lab::load(run) {
        println!("the lab that is up is used, with its options");
        return report(&lab, what, runs);
    }
    let lab = Guard(start(run, options)?);
    let outcome = lab.create_guests().and_then(|()| report(&lab, what, runs));
    drop(lab);
    outcome.with_context(|| last_logs(run))
}

fn report(lab: &Lab, what: Role, runs: usize) -> Result<()> {
    let results = measure::measure(lab, what, runs)?;
    for (number, result) in results.iter().enumerate() {
        println!("run {:>2}: {} {:>6} ms", number + 1, result.victim, result.ms);
    }
    let columns: Vec<_> = results
        .iter()
        .enumerate()
        .map(|(run, result)| (format!("run {}", run + 1), result))
        .collect();
    println!("{}", measure::table(&columns));
    if let Some(median) = measure::median(&results) {
        println!("failover {} median of {}: {median} ms", what.name(), results.len());
    }
    Ok(())
}
