//! `steadfast node prepare` and `steadfast node forget`: what a machine needs before it can be a member.

mod firewall;
mod packages;
mod system;
#[cfg(test)]
mod tests;
mod time;
mod units;
pub(crate) mod watchdog;

use super::change::{self, Change};
use super::host::Host;
use super::journal::Journal;
use super::step::{self, Line, Plan, Step};
use super::tell::Tell;
use super::{JOINED, PREPARED};
use crate::hook::install;
use anyhow::{Result, bail, ensure};
use system::System;

pub use firewall::PORTS;

/// What the operator chooses.
#[derive(Debug, Clone)]
pub struct Options {
    /// Time servers to use, if chrony knows none.
    pub time_servers: Vec<String>,
    /// This program, where libvirt's hook finds it.
    pub program: String,
    /// How long the clock is waited for, in seconds.
    pub wait_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { time_servers: Vec::new(), program: "/usr/bin/steadfast".into(), wait_s: 30 }
    }
}

/// Everything that a machine needs, in order.
#[must_use]
pub fn plan(options: &Options) -> Plan<'_> {
    vec![
        Box::new(system::step),
        Box::new(folders),
        Box::new(|host| Ok(packages::step(host, System::of(host)?))),
        Box::new(|host| Ok(time::step(host, System::of(host)?, options))),
        Box::new(watchdog::step),
        Box::new(units::sleep),
        Box::new(|host| hook(host, &options.program)),
        Box::new(units::libvirt),
        Box::new(units::corosync),
        Box::new(units::agent),
        Box::new(firewall::step),
        Box::new(units::journal),
    ]
}

/// What would be done, without doing it.
///
/// # Errors
/// The machine cannot be looked at.
pub fn preview(host: &Host, options: &Options) -> Result<Vec<Line>> {
    step::preview(host, PREPARED, &plan(options))
}

/// Does it.
///
/// # Errors
/// A step failed, or the machine is not fit.
pub fn prepare(host: &Host, options: &Options, tell: &mut Tell) -> Result<Vec<Line>> {
    step::perform(host, PREPARED, &plan(options), tell)
}

/// Puts back what `prepare` changed; false if it changed nothing.
///
/// # Errors
/// The node is a member, guests run on it, or something cannot be put back: a repeat goes on there.
pub fn forget(host: &Host, dry_run: bool, mut tell: impl FnMut(&str)) -> Result<bool> {
    let journal = Journal::open(host, PREPARED)?;
    if journal.is_empty() {
        return Ok(false);
    }
    ensure!(
        !host.has(JOINED),
        "this node belongs to a cluster: run `steadfast cluster remove-node` for it on another member, or, if \
         no other is left, `steadfast cluster leave` here"
    );
    let guests = host.ask("virsh", &["list", "--name"]).out;
    let running: Vec<&str> =
        guests.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    if !running.is_empty() {
        bail!("guests run here: {}; move them away, or shut them down", running.join(", "));
    }
    if dry_run {
        journal.before().iter().rev().for_each(|before| tell(&before.words()));
        return Ok(true);
    }
    change::undo(host, journal, tell)?;
    Ok(true)
}

/// The watchdog to use: the first real one.
#[must_use]
pub fn best_watchdog(host: &Host) -> String {
    let first = watchdog::devices(host).into_iter().next();
    first.map_or_else(|| "/dev/watchdog".into(), |device| device.path)
}

fn folders(_: &Host) -> Result<Step> {
    let folder = |path: &str, mode| Change::Folder { path: path.into(), mode };
    Ok(Step::new("folders", "where configuration, policies, keys and state lie")
        .with(folder("/etc/steadfast", 0o755))
        .with(folder("/etc/steadfast/policies", 0o755))
        .with(folder("/etc/steadfast/pki", 0o700))
        .with(folder("/var/lib/steadfast", 0o755)))
}

/// libvirt asks the agent before it starts anything. While there is no agent and no list, everything may start.
fn hook(host: &Host, program: &str) -> Result<Step> {
    let script = install::standard_script(program);
    let path = format!("{}/{}", install::HOOKS, install::SCRIPT);
    let step = Step::new(
        "hook",
        "libvirt asks steadfastd before an HA VM starts here, whoever starts it; other VMs start as ever",
    );
    let foreign = host.text(&path).is_some_and(|text| !install::is_ours(&text));
    if foreign {
        let text = format!("{path} is not steadfast's");
        return Ok(step.say(crate::doctor::Check::red(
            "hook",
            text,
            "move it away, then try again",
        )));
    }
    let file = Change::File { path, bytes: script.into_bytes(), mode: 0o755 };
    Ok(step.with(file).then(&["systemctl", "try-restart", units::libvirt_service(host)]))
}
