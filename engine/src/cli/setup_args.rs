//! The command line of `steadfast node prepare` and `forget`, and of `steadfast cluster`, as people write it.

use super::args::PresetArg;
use super::format;
use crate::setup::cluster::config_file::{Fence, parse_fence};
use crate::setup::cluster::{self, invite};
use clap::{Args, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct PrepareArgs {
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// A time server for chrony, if it knows none; may be given again.
    #[arg(long = "time-server", value_name = "NAME")]
    pub(super) time_servers: Vec<String>,
    /// Do not wait for the clock.
    #[arg(long)]
    pub(super) no_wait: bool,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// Show what would be put back, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

#[derive(Debug, Args)]
pub(super) struct RootArgs {
    /// As if the machine were below this folder.
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub(super) root: PathBuf,
}

/// A node as people write it.
type Named = (String, Vec<IpAddr>);

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make a cluster of this machine alone. Safe to repeat.
    Init(Box<InitArgs>),
    /// Let one more machine in: prints a ticket and waits until the machine has joined.
    Invite(InviteArgs),
    /// Join a cluster by the ticket that `cluster invite` printed on a member.
    Join {
        /// The ticket.
        ticket: String,
        #[command(flatten)]
        root: RootArgs,
    },
    /// Check every requirement on every node; if none is red, begin, and show the first election.
    Activate {
        /// Only check.
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        root: RootArgs,
    },
    /// Switch high availability off for the whole cluster, until `cluster activate`.
    Deactivate {
        /// Why, for whoever wonders.
        #[arg(long, value_name = "TEXT", default_value = "deactivated by an operator")]
        reason: String,
        /// Do it without asking.
        #[arg(short, long)]
        yes: bool,
    },
    /// Empty a node, then take it out of the cluster on all nodes.
    RemoveNode {
        /// Its name.
        node: String,
        /// How long its VMs may take to move away: 90s, 30m, 2h.
        #[arg(long = "for", value_name = "TIME", value_parser = format::length, default_value = "10m")]
        limit: Duration,
        #[command(flatten)]
        root: RootArgs,
    },
    /// On a node that was removed: stop the agent and corosync, and take away keys and configuration.
    Leave {
        /// This node was removed, or its cluster is no more.
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        root: RootArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Name of the cluster.
    pub(super) name: String,
    /// This node: its name, and its own address on the cluster's network, or one on each of two networks.
    #[arg(long, value_name = "NAME=ADDRESS[,ADDRESS2]", value_parser = cluster::parse_member)]
    pub(super) node: Named,
    /// A directory on a shared file system, for the ledger.
    #[arg(long, value_name = "DIR", required_unless_present = "device", conflicts_with = "device")]
    pub(super) storage: Option<PathBuf>,
    /// Instead: a raw block device that all nodes see.
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<PathBuf>,
    /// The device again, to overwrite whatever is on it.
    #[arg(long, value_name = "DEVICE", requires = "device")]
    pub(super) force: Option<PathBuf>,
    /// Where disks of HA VMs lie; may be given again.
    #[arg(long = "images", value_name = "DIR")]
    pub(super) images: Vec<String>,
    /// Time-outs.
    #[arg(long, value_enum, default_value_t = PresetArg::Standard)]
    pub(super) preset: PresetArg,
    /// A single time-out, as [timing] has it, such as watchdog_ms=10000; may be given again.
    #[arg(long, value_name = "KEY=MS", value_parser = timing)]
    pub(super) timing: Vec<(String, u64)>,
    /// Corosync's token, if the preset's does not fit.
    #[arg(long, value_name = "MS")]
    pub(super) token: Option<u64>,
    /// An address on the VM network that always answers; give three.
    #[arg(long = "verify", value_name = "ADDRESS")]
    pub(super) verify: Vec<IpAddr>,
    /// A fence agent, also of a node that is yet to join; may be given again.
    #[arg(long, value_name = "NODE=AGENT,KEY=VALUE,...", value_parser = parse_fence)]
    pub(super) fence: Vec<Fence>,
    /// The nodes are virtual machines, and their host never pauses them: your word.
    #[arg(long)]
    pub(super) never_paused: bool,
    /// Watchdog device, if it is not the first real one.
    #[arg(long, value_name = "DEVICE")]
    pub(super) watchdog: Option<String>,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// The newcomer: its name and its addresses, as many as the others have.
    #[arg(value_name = "NAME=ADDRESS[,ADDRESS2]", value_parser = cluster::parse_member)]
    pub(super) node: Named,
    /// Wait so long: 90s, 30m. A ticket is good for 30 minutes at most.
    #[arg(long = "for", value_name = "TIME", value_parser = format::length, default_value = "30m")]
    pub(super) limit: Duration,
    /// Port to wait at.
    #[arg(long, default_value_t = invite::PORT)]
    pub(super) port: u16,
    /// Write the ticket into this file too (mode 0600), for scripts.
    #[arg(long, value_name = "FILE")]
    pub(super) ticket_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

/// `watchdog_ms=10000`.
fn timing(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("expected KEY=MILLISECONDS, got {text:?}");
    let (key, ms) = format::pair(text).map_err(|_| wrong())?;
    ms.parse().map(|ms| (key, ms)).map_err(|_| wrong())
}
