//! The command line, as people write it.

use super::setup_args::{ClusterCommand, ForgetArgs, PrepareArgs};
use super::{format, manual, policy, storage};
use crate::demo::Script;
use crate::hook::install;
use crate::policy::Kind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ledger::{OnShutdown, default_budget};

/// High availability for VMs on KVM.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, about, after_help = manual::EXIT_CODES)]
pub(super) struct Cli {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/steadfast/api.sock")]
    pub(super) socket: PathBuf,
    /// Print the agent's answer as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Cluster, nodes and VMs as this node sees them.
    Status,
    /// High availability of VMs.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Nodes: maintenance, and those that come and go.
    #[command(subcommand)]
    Node(NodeCommand),
    /// The cluster: make it, let machines in, begin.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Switch high availability off for the whole cluster: nothing is started, stopped or fenced.
    Disarm {
        /// On again after this: 90s, 30m, 2h; without it, until `steadfast arm`.
        #[arg(long = "for", value_name = "TIME", value_parser = format::length)]
        limit: Option<Duration>,
        /// Why, for whoever wonders.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Switch high availability on again.
    Arm,
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
    Events(EventsArgs),
    /// What would happen if a node died now: which VMs start where, which wait, which have no place.
    Plan {
        /// Its name; without it, every node in one table.
        node: Option<String>,
    },
    /// Nodes, VMs and decisions, live. With `--json`, every state on a line of its own.
    Top,
    /// Print a script that lets a shell complete these commands, as in `steadfast completions bash > /etc/bash_completion.d/steadfast`.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man {
        /// Write one page a command into this folder instead, such as /usr/local/share/man/man1.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// A cluster in this process, to try: no root, no corosync, no libvirt. Nothing outside its own folder is touched.
    ///
    /// Commands are read from standard input: kill n2, boot n2, cut n2, join n2, stall n2, heal n2, stall, heal.
    Demo(DemoArgs),
    /// Shared storage.
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What libvirt's hook calls.
    #[command(hide = true)]
    Hook(Hook),
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) nodes: u32,
    /// VMs under HA. There is one more, without.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(super) vms: u32,
    /// Port of the page on 127.0.0.1; without it 8470, or a free one.
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// The agents' time-outs.
    #[arg(long, value_enum, default_value_t = PresetArg::Standard)]
    pub(super) preset: PresetArg,
    /// No node has a fence agent: only a node's own word, its watchdog and time prove it dead.
    #[arg(long)]
    pub(super) no_fencing: bool,
    /// What to do, and when, counted from when it is ready: kill:n2@5s,boot:n2@20s; standard input is not read then.
    #[arg(long, value_name = "SCRIPT")]
    pub(super) script: Option<Script>,
    /// End after this: 90s, 2m; without it, with Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = format::length)]
    pub(super) limit: Option<Duration>,
    /// Keep its files here; without it, in a temporary folder that is removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
    /// Begin with the modules of this folder; without it, with those that `policies/build` made in this checkout, if it did.
    #[arg(long, value_name = "DIR")]
    pub(super) policies: Option<PathBuf>,
    /// Write the agents' log here.
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
}

/// Time-outs.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PresetArg {
    /// Shortest.
    Fast,
    /// As usual.
    Standard,
    /// For slow storage.
    Calm,
}

#[derive(Debug, Subcommand)]
pub(super) enum VmCommand {
    /// All VMs under high availability.
    List,
    /// Switch high availability on for a VM that is defined on this node.
    Enable(Enable),
    /// Switch it off; the VM is left as it is.
    Disable {
        /// Its name.
        name: String,
    },
    /// Change its restart priority.
    Priority {
        /// Its name.
        name: String,
        /// 1000 starts first, 0 last.
        #[arg(value_parser = clap::value_parser!(u16).range(0..=1000))]
        priority: u16,
    },
    /// Let it run; forgives its failures.
    Start {
        /// Its name.
        name: String,
    },
    /// Shut it down and keep it off.
    Stop {
        /// Its name.
        name: String,
    },
    /// Move it live to another node.
    Migrate {
        /// Its name.
        name: String,
        /// The node to move it to.
        node: String,
    },
    /// Stop it and start it on another node.
    Relocate {
        /// Its name.
        name: String,
        /// The node to start it on.
        node: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Only those about this VM or node, by name or UUID.
    pub(super) about: Option<String>,
    /// Go on with what happens from now.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// How many of the past, at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(super) limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Enable {
    /// Its libvirt name.
    pub(super) name: String,
    /// Restart priority: 1000 starts first, 0 last.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(super) priority: u16,
    /// A label for policies; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = format::pair)]
    pub(super) labels: Vec<(String, String)>,
    /// A VM under high availability that must run before it is started; may be given again.
    #[arg(long, value_name = "VM")]
    pub(super) after: Vec<String>,
    /// Restarts on its node before it is relocated.
    #[arg(long, value_name = "N", default_value_t = default_budget())]
    pub(super) max_restarts: u32,
    /// Relocations after failed starts before it is given up.
    #[arg(long, value_name = "N", default_value_t = default_budget())]
    pub(super) max_relocations: u32,
    /// What to do when its guest shuts itself down.
    #[arg(long, value_enum, default_value = "restart")]
    pub(super) on_shutdown: WhenShutDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WhenShutDown {
    /// Start it again.
    Restart,
    /// Leave it off until somebody starts it.
    Stop,
}

impl From<WhenShutDown> for OnShutdown {
    fn from(wanted: WhenShutDown) -> Self {
        match wanted {
            WhenShutDown::Restart => Self::Restart,
            WhenShutDown::Stop => Self::Stop,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// All nodes.
    List,
    /// What this node's agent knows of its equipment, and what the risk policy makes of it.
    Telemetry,
    /// Empty a node, and use it again.
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// Make this machine fit to be a node: packages, clock, watchdog, libvirt's hook, firewall, journal. Safe to repeat.
    Prepare(PrepareArgs),
    /// Put back what `node prepare` changed on this machine.
    Forget(ForgetArgs),
    /// Take another node into the cluster. First let corosync on all nodes know it, and start its agent.
    Add {
        /// Its corosync node id and name.
        #[arg(value_name = "ID=NAME", value_parser = storage::node)]
        node: (u32, String),
    },
    /// Empty a node, then take it out of the cluster.
    Remove {
        /// Its name.
        node: String,
    },
    /// What would it cost to stop the agent on this node? Exit code 0: nothing; 1: what, and what to do first.
    MayStop,
    /// Let libvirt on this node ask steadfastd before a VM starts.
    InstallHook {
        /// The agent's configuration.
        #[arg(long, value_name = "FILE", default_value = "/etc/steadfast/steadfast.toml")]
        config: PathBuf,
        /// libvirt's folder of hooks.
        #[arg(long, value_name = "DIR", default_value = install::HOOKS)]
        hooks: PathBuf,
        /// This program, where the hook finds it; without it, where it is now.
        #[arg(long, value_name = "FILE")]
        program: Option<PathBuf>,
    },
    /// Take that hook away.
    RemoveHook {
        /// libvirt's folder of hooks.
        #[arg(long, value_name = "DIR", default_value = install::HOOKS)]
        hooks: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Maintenance {
    /// Move its VMs away, and place nothing there.
    Begin {
        /// Its name.
        node: String,
        /// Stop VMs that cannot move live, and start them elsewhere; otherwise they stay.
        #[arg(long)]
        restart: bool,
        /// Why, for whoever wonders.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Use it again; VMs that were moved off it return.
    End {
        /// Its name.
        node: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Hook {
    #[arg(long)]
    pub(super) socket: PathBuf,
    #[arg(long)]
    pub(super) list: PathBuf,
    #[arg(long)]
    pub(super) starts: PathBuf,
    pub(super) name: String,
    pub(super) operation: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// All policies, and which of them decide.
    List,
    /// One kind of policy: every generation, its stages, limits, calls, and what the nodes hold.
    Show {
        /// node_priority, placement or risk.
        #[arg(value_parser = policy::kind)]
        kind: Kind,
    },
    /// Let the generation before the active one decide on this node, until the folder says something else.
    Rollback {
        /// node_priority, placement or risk.
        #[arg(value_parser = policy::kind)]
        kind: Kind,
        /// Take a rollback back.
        #[arg(long)]
        undo: bool,
    },
    /// Ask a policy one question; nothing is decided.
    Evaluate {
        /// node_priority, placement or risk.
        #[arg(value_parser = policy::kind)]
        kind: Kind,
        /// The question: a JSON file, or - for standard input.
        question: PathBuf,
        /// A policy of the folder, by its name or its file's; without it whoever decides.
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// What a policy file says of itself. Needs no agent.
    Inspect(PolicyFile),
    /// Take a policy file through everything that an agent does before it may decide. Needs no agent; exit code 1: refused.
    Check(PolicyFile),
    /// Ask a policy file one question. Needs no agent; nothing is decided.
    Run {
        #[command(flatten)]
        file: PolicyFile,
        /// The question: a JSON file, or - for standard input.
        #[arg(long, value_name = "FILE")]
        question: PathBuf,
        /// node_priority, placement or risk, where the policy decides more than one.
        #[arg(long, value_parser = policy::kind)]
        kind: Option<Kind>,
    },
    /// What a policy file costs: sizes, fuel, memory and time against the limits, for clusters of several sizes. Needs no agent.
    Bench(PolicyFile),
    /// Ask the policies that took recorded decisions again: they must say the same to the byte. Needs no agent.
    Replay(PolicyReplay),
    /// What a policy would have decided otherwise than recorded. Needs no agent.
    Diff(PolicyDiff),
    /// Write a crate to begin a policy with: it builds, and keeps the laws, as it is. Needs no agent.
    New(NewPolicy),
}

#[derive(Debug, Args)]
pub(super) struct PolicyFile {
    /// The .wasm file; a .json of the same name beside it holds its parameters.
    pub(super) file: PathBuf,
    /// Configuration whose limits and keys count; without it the usual ones.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyReplay {
    /// The .wasm files of the policies that decided; the agent's own needs none.
    pub(super) files: Vec<PathBuf>,
    /// Recorded decisions: a file of JSON lines, or the state directory of an agent.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/steadfast")]
    pub(super) decisions: PathBuf,
    /// Configuration whose limits and keys count; without it the usual ones.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PolicyDiff {
    /// The candidate's .wasm file; a .json of the same name beside it holds its parameters.
    pub(super) file: PathBuf,
    /// Recorded decisions: a file of JSON lines, or the state directory of an agent.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/steadfast")]
    pub(super) decisions: PathBuf,
    /// Configuration whose limits and keys count; without it the usual ones.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct NewPolicy {
    /// Name of the policy: a-z, 0-9 and -, beginning with a letter.
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// What it decides: node_priority, placement or risk; several with commas.
    #[arg(long = "kind", value_name = "KIND", required = true, value_delimiter = ',', value_parser = policy::kind)]
    pub(super) kinds: Vec<Kind>,
    /// The folder `sdk` of a checkout of Steadfast; without it, the crate gets a copy of this program's own SDK.
    #[arg(long, value_name = "DIR")]
    pub(super) sdk: Option<PathBuf>,
    /// Make the crate's folder in this one.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) into: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Prepare a shared directory or block device for a cluster. Once, on one node.
    Init(Init),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// A raw block device that all nodes see: a LUN, best by its name in /dev/mapper or /dev/disk/by-id
    #[arg(
        value_name = "DEVICE",
        required_unless_present = "directory",
        conflicts_with = "directory"
    )]
    pub(super) device: Option<PathBuf>,
    /// Instead of a device: a directory on a shared file system.
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// The device again, to overwrite whatever is on it.
    #[arg(long, value_name = "DEVICE", conflicts_with = "directory")]
    pub(super) force: Option<PathBuf>,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: String,
    /// A node: its corosync node id and name; give all of them.
    #[arg(long = "node", value_name = "ID=NAME", required = true, num_args = 1..,
          value_parser = storage::node)]
    pub(super) nodes: Vec<(u32, String)>,
    /// Begin at an older feature level, if some nodes run an older release; it rises when all of them speak more.
    #[arg(long, value_name = "LEVEL",
          value_parser = clap::value_parser!(u16).range(..=i64::from(FeatureLevel::NEWEST.0)))]
    pub(super) feature_level: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration file.
    Check {
        /// The file.
        file: PathBuf,
    },
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
        let line =
            "steadfast vm enable app --after web --after db --max-restarts 1 --on-shutdown stop";
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Command::Vm(VmCommand::Enable(enable)) = cli.command else { panic!("not enable") };
        assert_eq!((enable.after.len(), enable.max_restarts, enable.max_relocations), (2, 1, 3));
        assert_eq!(OnShutdown::from(enable.on_shutdown), OnShutdown::Stop);
        let line = "steadfast disarm --for 30m --reason cables";
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Command::Disarm { limit, .. } = cli.command else { panic!("not disarm") };
        assert_eq!(limit, Some(Duration::from_secs(1_800)));
        for line in [
            "steadfast node maintenance begin n2 --restart --reason memory",
            "steadfast node maintenance end n2",
            "steadfast node add 4=n4",
            "steadfast node remove n4",
            "steadfast node telemetry",
            "steadfast vm migrate web n2",
            "steadfast hook --socket a --list b --starts c web prepare",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["steadfast", "disarm"]).is_err(), "a reason is asked for");
        let line = "steadfast storage init --directory /d --cluster c --node 1=n1 --node 2=n2";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        let line = "steadfast storage init --directory /d --cluster c --node 1=n1 2=n2";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        let line = "steadfast storage init /dev/x --force /dev/x --cluster c --node 1=n1 2=n2";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        for wrong in ["/dev/x --directory /d", "--directory /d --force /d", ""] {
            let line = format!("steadfast storage init {wrong} --cluster c --node 1=n1");
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{wrong}");
        }
    }
}
