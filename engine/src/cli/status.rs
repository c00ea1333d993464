//! `steadfast status`.

use super::client::{Client, Failure};
use super::format::{age, table};
use super::{say, say_json};
use crate::api::wire::StatusReport;
use crate::doctor::feature_level;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ledger::{Desired, Disarm};
use steadfast_core::proactive::Level;
use steadfast_core::snapshot::{NodeView, Snapshot, VmView};

pub(super) async fn print(client: &Client, json: bool) -> Result<(), Failure> {
    let report = client.status().await?;
    if json { say_json(&report) } else { say(&render(&report)) }
}

/// Everything on one screen.
pub(super) fn render(report: &StatusReport) -> String {
    let snapshot = &report.snapshot;
    let mut text = head(snapshot);
    for warning in &report.warnings {
        text.push_str(&format!("WARNING: {warning}\n"));
    }
    text.push('\n');
    text.push_str(&nodes(&snapshot.nodes));
    text.push('\n');
    text.push_str(&if snapshot.vms.is_empty() {
        "no VM is under high availability; try: steadfast vm enable NAME\n".into()
    } else {
        vms(&snapshot.vms)
    });
    text
}

fn head(snapshot: &Snapshot) -> String {
    let leader = match &snapshot.leader {
        Some(leader) => format!("leader {} (term {})", leader.name, snapshot.term),
        None => format!("no leader (term {}): {}", snapshot.term, snapshot.election.reason),
    };
    let quorum = if snapshot.quorate { "quorum" } else { "NO QUORUM" };
    let (seen, all) = (snapshot.view.len(), snapshot.nodes.len());
    let mut text = format!(
        "cluster {}, seen from {}: {leader}, {quorum} ({seen} of {all} nodes in view)\n",
        snapshot.cluster, snapshot.node.name
    );
    if let Some(disarm) = &snapshot.disarm {
        let state = if disarm.pending { "WILL BE" } else { "IS" };
        let until = until(disarm);
        text.push_str(&format!("HIGH AVAILABILITY {state} OFF{until}: {}\n", disarm.reason));
    }
    if snapshot.feature_level < FeatureLevel::NEWEST {
        let behind = feature_level::behind(snapshot);
        text.push_str(&format!("feature level {}{behind}\n", snapshot.feature_level));
    }
    if snapshot.lease.text != "good" {
        text.push_str(&format!("lease of this node: {}\n", snapshot.lease.text));
    }
    text
}

pub(super) fn until(disarm: &Disarm) -> String {
    match disarm.limit {
        Some(limit) => format!(" for {} from when it was switched off", age(Some(limit))),
        None => " until `steadfast arm`".into(),
    }
}

/// The table of nodes.
pub(super) fn nodes(nodes: &[NodeView]) -> String {
    let mut table =
        table(&["NODE", "STATUS", "NETWORK", "STORAGE", "LEASE LEFT", "WATCHDOG", "NOTE"]);
    for node in nodes {
        table.add_row([
            node.name.clone(),
            node.status_text.clone(),
            age(node.beat_age),
            age(node.page_age),
            age(node.lease_left),
            if node.armed { "armed" } else { "not armed" }.into(),
            note(node),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

pub(super) fn note(node: &NodeView) -> String {
    let leaving = node.leaving.then(|| "leaves the cluster".to_owned());
    let maintenance = node.maintenance.as_ref().map(|wish| match wish.reason.as_str() {
        "" => "in maintenance".to_owned(),
        reason => format!("in maintenance: {reason}"),
    });
    let reason = Some(node.reason.clone()).filter(|reason| !reason.is_empty());
    let words = node.last_words.as_ref().map(|words| format!("last words: {words}"));
    let parts = [leaving, maintenance, node.eviction.clone(), reason, words, risk(node)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Its risk, if that calls for anything, and what proactive HA does or would do.
fn risk(node: &NodeView) -> Option<String> {
    let risk = node.risk.as_ref()?;
    if risk.level == Level::Calm && risk.hold.is_none() {
        return None;
    }
    let told = risk.report.as_ref().map_or_else(
        || "nothing new is said of its risk".to_owned(),
        |report| format!("at risk ({}): {}", report.score, report.reasons()),
    );
    Some(if risk.text.is_empty() { told } else { format!("{told}; {}", risk.text) })
}

/// The table of VMs.
pub(super) fn vms(vms: &[VmView]) -> String {
    let mut table = table(&["VM", "OWNER", "STATE", "PRIORITY", "NOTE"]);
    for vm in vms {
        table.add_row([
            vm.name.clone(),
            vm.owner.name.clone(),
            vm.state.clone(),
            vm.priority.to_string(),
            vm_note(vm),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

pub(super) fn vm_note(vm: &VmView) -> String {
    let stopped = vm.desired == Desired::Stopped && vm.state != "stopped";
    let parts = [
        Some(vm.reason.clone()).filter(|reason| !reason.is_empty()),
        stopped.then(|| "it is to stop".to_owned()),
        vm.migrating_to.as_ref().map(|node| format!("moves live to {}", node.name)),
        vm.home.as_ref().map(|node| format!("returns to {} after its maintenance", node.name)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
