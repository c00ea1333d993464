//! What the agent knows of itself and its cluster.

use super::Check;
use crate::config::Config;
use crate::virtualization;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use steadfast_core::bounds::Assumed;
use steadfast_core::config::Timing;
use steadfast_core::ledger::Disarm;
use steadfast_core::snapshot::{NodeView, Snapshot};
use steadfast_core::time::Millis;

/// What is not in a snapshot.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Timing that the machine runs with; its linter has passed.
    pub timing: Timing,
    /// W as the watchdog's driver says it.
    pub read_back: Option<Millis>,
    /// Where the pages lie.
    pub storage: String,
    /// What the agent has found by trying, by who found it.
    pub warnings: BTreeMap<&'static str, String>,
    /// What others were asked for: the policy, libvirt, corosync, telemetry.
    pub asked: Vec<Check>,
}

pub(super) fn checks(config: &Config, snapshot: &Snapshot, facts: &Facts) -> Vec<Check> {
    let mut all = vec![
        agent(snapshot),
        super::feature_level::check(snapshot),
        timing(&facts.timing),
        corosync(snapshot, &facts.timing),
        leader(snapshot),
        lease(snapshot),
        storage(snapshot, facts),
        watchdog(config, snapshot, facts),
        rule_4(config, snapshot),
        verification(config, snapshot),
    ];
    all.extend(fence_agents(config, snapshot));
    all
}

/// HA is switched off, and that is not put off.
fn off(snapshot: &Snapshot) -> Option<&Disarm> {
    snapshot.disarm.as_ref().filter(|disarm| !disarm.pending)
}

fn agent(snapshot: &Snapshot) -> Check {
    let node = &snapshot.node.name;
    match off(snapshot) {
        None => Check::green("agent", format!("runs on {node}")),
        Some(disarm) => {
            let text = format!("runs on {node}; HA is switched off: {}", disarm.reason);
            Check::yellow("agent", text, "steadfast arm, when that is over")
        }
    }
}

fn timing(timing: &Timing) -> Check {
    let Timing { beat, lease, stop, watchdog, membership, .. } = timing;
    let text = format!(
        "every inequality holds: beat {beat}, L {lease}, S {stop}, W {watchdog}, token + consensus {membership}"
    );
    Check::green("timing", text)
}

fn corosync(snapshot: &Snapshot, timing: &Timing) -> Check {
    let (seen, all) = (snapshot.view.len(), snapshot.nodes.len());
    let missing: Vec<&str> = snapshot
        .nodes
        .iter()
        .filter(|node| !snapshot.view.contains(&node.id))
        .map(|node| node.name.as_str())
        .collect();
    let text = format!(
        "{seen} of {all} nodes in view; a silent node is noticed within {}",
        timing.membership
    );
    let remedy = "see `corosync-cfgtool -s` here and on the missing nodes";
    if !snapshot.quorate {
        return Check::red("corosync", format!("{text}: no quorum, nothing is moved"), remedy);
    }
    if missing.is_empty() {
        return Check::green("corosync", text);
    }
    Check::yellow("corosync", format!("{text}; missing: {}", missing.join(", ")), remedy)
}

fn leader(snapshot: &Snapshot) -> Check {
    match &snapshot.leader {
        Some(leader) => {
            Check::green("leader", format!("{} leads, term {}", leader.name, snapshot.term))
        }
        None => {
            let why = &snapshot.election.reason;
            Check::yellow("leader", format!("nobody leads: {why}"), "see `steadfast status`")
        }
    }
}

fn lease(snapshot: &Snapshot) -> Check {
    let lease = &snapshot.lease;
    match lease.left {
        Some(left) => Check::green("lease", format!("good for {left}")),
        None if off(snapshot).is_some() => {
            Check::yellow("lease", "none is needed while HA is switched off", "")
        }
        None => {
            let remedy = "until it is good no HA VM is started here; see `steadfast status`";
            Check::red("lease", format!("none: {}", lease.text), remedy)
        }
    }
}

fn storage(snapshot: &Snapshot, facts: &Facts) -> Check {
    let (deadline, place) = (facts.timing.storage_deadline, &facts.storage);
    let latency = own(snapshot).map_or(Millis(0), |node| Millis(node.facts.storage_latency_ms));
    let Some(age) = snapshot.lease.storage_age.filter(|age| *age < facts.timing.lease) else {
        let text = format!("{place}: no complete cycle within a lease");
        return Check::red("storage", text, "see its mount or its paths on this node");
    };
    let text = format!(
        "{place}: the last cycle took {latency} and began {age} ago; the deadline is {deadline}"
    );
    if latency > deadline {
        return Check::red(
            "storage",
            text,
            "a quicker array, or a longer lease_ms and storage_deadline_ms",
        );
    }
    if latency > Assumed::WORKING_CYCLE {
        let assumed = Assumed::WORKING_CYCLE;
        let remedy = format!("the bounds assume {assumed}: failovers take longer than they say");
        return Check::yellow("storage", text, remedy);
    }
    Check::green("storage", text)
}

fn own(snapshot: &Snapshot) -> Option<&NodeView> {
    snapshot.nodes.iter().find(|node| node.id == snapshot.node.id)
}

fn watchdog(config: &Config, snapshot: &Snapshot, facts: &Facts) -> Check {
    let Some(device) = &config.watchdog else {
        let text = "none is configured: no HA VM is started here";
        return Check::red("watchdog", text, "set [watchdog] device");
    };
    let device = device.display();
    let configured = facts.timing.watchdog;
    if !snapshot.lease.armed && off(snapshot).is_some() {
        let text = format!("{device} is closed while HA is switched off");
        return Check::yellow("watchdog", text, "");
    }
    if !snapshot.lease.armed {
        let text = format!("{device} is not armed: {}", snapshot.lease.text);
        return Check::red("watchdog", text, "see the agent's log; only one process may hold it");
    }
    match facts.read_back {
        Some(said) => {
            let text = format!("{device} is armed; W is {configured}, the device says {said}");
            Check::green("watchdog", text)
        }
        None => {
            let text = format!("{device} is armed, and has not told its time-out yet");
            Check::yellow("watchdog", text, "ask again")
        }
    }
}

/// Time proves a node dead only if nothing can stop its clock and its watchdog for a while.
fn rule_4(config: &Config, snapshot: &Snapshot) -> Check {
    let name = "time rule";
    match (virtualization::evidence(), config.never_paused) {
        (None, _) => Check::green(name, "bare metal: nothing pauses this machine from outside"),
        (Some(found), true) => {
            let text = format!("a virtual machine ({found}); you state that it is never paused");
            Check::green(name, text)
        }
        (Some(found), false) => {
            let text = format!("refused: this is a virtual machine ({found}), which may be paused");
            let remedy = "a fence agent, or, if nobody ever pauses it, [run] never_paused = true";
            let fenced = config.fence.iter().any(|fence| fence.node == snapshot.node.name);
            if fenced { Check::yellow(name, text, remedy) } else { Check::red(name, text, remedy) }
        }
    }
}

fn verification(config: &Config, snapshot: &Snapshot) -> Check {
    let name = "verification IPs";
    let (count, quorum) = (config.verification.len(), config.verification_quorum);
    if count == 0 {
        let text = "none: a node whose network is dead is only called Excluded, nothing is moved";
        return Check::yellow(name, text, "set [verification] addresses");
    }
    let text = format!("{quorum} of {count} must answer");
    match own(snapshot).and_then(|node| node.verification) {
        Some(true) if count < 2 => {
            let remedy = "two more, so that one router's death isolates nobody";
            Check::yellow(name, format!("{text}, and it does"), remedy)
        }
        Some(true) => Check::green(name, format!("{text}, and they do")),
        Some(false) => {
            let remedy = "see this node's VM network, or correct [verification] addresses";
            Check::red(name, format!("{text}, and they do not"), remedy)
        }
        None => Check::yellow(name, format!("{text}; not asked yet"), "ask again in some seconds"),
    }
}

fn fence_agents(config: &Config, snapshot: &Snapshot) -> Vec<Check> {
    let name = "fence agents";
    let configured: Vec<&str> = config.fence.iter().map(|fence| fence.node.as_str()).collect();
    let bare: Vec<&str> = snapshot
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .filter(|node| !configured.contains(node))
        .collect();
    let mut all = vec![if bare.is_empty() {
        Check::green(name, format!("configured for {}", configured.join(", ")))
    } else {
        let text =
            format!("none for {}: a dead node's VMs wait for time as proof", bare.join(", "));
        Check::yellow(name, text, "add [[fence]] sections; see the bounds for what they are worth")
    }];
    let missing = config.fence.iter().filter(|fence| find(&fence.agent).is_none());
    all.extend(missing.map(|fence| {
        let text = format!("{} for {} is not installed here", fence.agent, fence.node);
        Check::red(name, text, "install the package of that agent (Debian: fence-agents)")
    }));
    all
}

/// Where a fence agent lies, as the system would find it.
fn find(agent: &str) -> Option<PathBuf> {
    if agent.contains('/') {
        return Some(PathBuf::from(agent)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(agent)).find(|p| p.exists());
    found.or_else(|| Some(Path::new("/usr/sbin").join(agent)).filter(|path| path.exists()))
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
