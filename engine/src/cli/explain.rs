//! `steadfast explain`: why a VM or a node is where and how it is.

use super::client::{Client, Failure};
use super::format::{age, encoded, utc};
use super::{say, say_json};
use crate::api::wire::{DecisionReport, StatusReport};
use std::fmt::Write as _;
use steadfast_core::decision::PlacementRecord;
use steadfast_core::snapshot::{NodeView, VmView};
use steadfast_sdk::wire::{RankedNode, Score};

/// Decisions that are told.
const TOLD: usize = 12;

pub(super) async fn print(client: &Client, name: &str, json: bool) -> Result<(), Failure> {
    let report = client.status().await?;
    let vms = &report.snapshot.vms;
    let vm = vms.iter().find(|vm| vm.name == name || vm.id.0 == name);
    let node = report.snapshot.nodes.iter().find(|node| node.name == name);
    let parameter = match (vm, node) {
        (None, Some(_)) => "node",
        _ => "vm",
    };
    let path = format!("/v1/decisions?{parameter}={}&limit={TOLD}", encoded(name));
    let decisions: Vec<DecisionReport> = client.get(&path).await?;
    if json {
        return say_json(&decisions);
    }
    match (vm, node) {
        (Some(vm), _) => say(&explain_vm(vm, &decisions)),
        (None, Some(node)) => say(&explain_node(node, &decisions)),
        (None, None) if !decisions.is_empty() => say(&explain_gone(name, &decisions)),
        (None, None) => Err(nothing(name, &report)),
    }
}

fn nothing(name: &str, report: &StatusReport) -> Failure {
    let nodes: Vec<&str> = report.snapshot.nodes.iter().map(|node| node.name.as_str()).collect();
    Failure::Usage(format!(
        "{name} is neither an HA VM nor a node; nodes are {}; VMs: steadfast vm list",
        nodes.join(", ")
    ))
}

/// A VM: what it does, why, and how that came about.
fn explain_vm(vm: &VmView, decisions: &[DecisionReport]) -> String {
    let mut text = format!("{} belongs to {} and is {}", vm.name, vm.owner.name, vm.state);
    text.push_str(&because(&vm.reason));
    let _ = writeln!(
        text,
        "It has {} MiB of memory, {} virtual CPUs and priority {}.",
        vm.memory_mib, vm.vcpus, vm.priority
    );
    text + &story(decisions)
}

/// A node: its status, its two factors, and how that came about.
fn explain_node(node: &NodeView, decisions: &[DecisionReport]) -> String {
    let mut text = format!("{} has the status {}", node.name, node.status_text);
    text.push_str(&because(&node.reason));
    let _ = writeln!(
        text,
        "Its last beat is {} old, its page changed {} ago, and {} of its lease are left.",
        age(node.beat_age),
        age(node.page_age),
        age(node.lease_left)
    );
    if !node.armed {
        text.push_str(
            "Its watchdog is not armed: only a fence agent or itself can free its VMs.\n",
        );
    }
    if let Some(eviction) = &node.eviction {
        let _ = writeln!(text, "It is evicted: {eviction}.");
    }
    text + &story(decisions)
}

fn explain_gone(name: &str, decisions: &[DecisionReport]) -> String {
    format!("{name} is not under high availability any more.\n{}", story(decisions))
}

fn because(reason: &str) -> String {
    if reason.is_empty() { ".\n".into() } else { format!(": {reason}.\n") }
}

fn story(decisions: &[DecisionReport]) -> String {
    if decisions.is_empty() {
        return "This node's agent has decided nothing about it since it started; the leader's may \
                have: ask there.\n"
            .into();
    }
    decisions.iter().map(chapter).collect()
}

fn chapter(report: &DecisionReport) -> String {
    let mut text = format!("\n{}  {} [{}]\n", utc(report.wall_ms), report.text, report.rule);
    for (name, value) in &report.facts {
        let _ = writeln!(text, "    {name}: {value}");
    }
    if let Some(record) = &report.placement {
        text.push_str(&placement(record, report));
    }
    text
}

fn placement(record: &PlacementRecord, report: &DecisionReport) -> String {
    let decider = &record.decider;
    let mut text = format!(
        "    decided by {} {} ({}) in {} us with {} units of fuel, digest {:.8}\n",
        decider.name,
        decider.version,
        decider.kind.replace('_', " "),
        decider.micros,
        decider.fuel,
        decider.digest.to_string()
    );
    for failure in &decider.failures {
        let _ = writeln!(text, "    not by a better policy: {failure}");
    }
    let is_told =
        |vm: &&steadfast_sdk::wire::RankedVm| report.vm_id.as_ref().is_none_or(|id| id.0 == vm.vm);
    for vm in record.verdict.vms.iter().filter(is_told) {
        text.push_str(&ranking(record, &vm.nodes));
    }
    for correction in &record.corrections {
        let _ = writeln!(text, "    not followed: {correction}");
    }
    text
}

fn ranking(record: &PlacementRecord, nodes: &[RankedNode]) -> String {
    let mut text = String::new();
    for (index, ranked) in nodes.iter().enumerate() {
        let known = record.question.nodes.iter().find(|node| node.id == ranked.node);
        let name = known.map_or_else(|| format!("#{}", ranked.node), |node| node.name.clone());
        let _ = writeln!(text, "    {}. {name}: {}", index + 1, score(&ranked.score));
    }
    if nodes.is_empty() {
        text.push_str("    no candidate\n");
    }
    text
}

/// `812 = free memory 700 + load 112`.
fn score(score: &Score) -> String {
    let terms: Vec<String> =
        score.terms.iter().map(|term| format!("{} {:+}", term.name, term.value)).collect();
    match terms.is_empty() {
        true => score.value.to_string(),
        false => format!("{} = {}", score.value, terms.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::decision::Kind;
    use steadfast_core::event::Decider;
    use steadfast_core::ids::{NodeId, VmId};
    use steadfast_core::snapshot::NodeName;
    use steadfast_sdk::wire::{NodeFacts, PlacementQuestion, PlacementVerdict, RankedVm, Term};

    fn vm() -> VmView {
        VmView {
            id: VmId("u1".into()),
            name: "web".into(),
            owner: NodeName { id: NodeId(2), name: "n2".into() },
            state: "starting".into(),
            reason: String::new(),
            priority: 500,
            memory_mib: 1024,
            vcpus: 2,
            labels: Default::default(),
            desired: Default::default(),
            migrating_to: None,
            home: None,
        }
    }

    fn record() -> PlacementRecord {
        let term = |name: &'static str, value| Term { name: name.to_string().into(), value };
        let terms = vec![term("free memory", 700), term("load", -20)];
        let nodes = vec![RankedNode { node: 2, score: Score { value: 680, terms } }];
        let node = NodeFacts { id: 2, name: "n2".into(), ..NodeFacts::default() };
        PlacementRecord {
            decider: Decider {
                name: "rack-aware".into(),
                version: "1.2.0".into(),
                kind: "last_good".into(),
                failures: vec!["active 1.3.0: out of fuel".into()],
                ..Decider::default()
            },
            question: PlacementQuestion { nodes: vec![node], ..Default::default() },
            verdict: PlacementVerdict { vms: vec![RankedVm { vm: "u1".into(), nodes }] },
            corrections: vec!["n3 is not admitted".into()],
        }
    }

    fn decided() -> DecisionReport {
        DecisionReport {
            number: 1,
            at_ms: 5,
            wall_ms: 0,
            kind: Kind::Decided,
            node: Some("n2".into()),
            vm: Some("web".into()),
            vm_id: Some(VmId("u1".into())),
            term: 3,
            stamp: "3.1v9".into(),
            text: "web goes to n2".into(),
            rule: "PROTOCOL 5".into(),
            facts: vec![("proof".into(), "fenced".into())],
            decider: None,
            placement: Some(record()),
        }
    }

    #[test]
    fn a_vm_is_explained_with_its_placement() {
        let expected = "\
web belongs to n2 and is starting.
It has 1024 MiB of memory, 2 virtual CPUs and priority 500.

1970-01-01 00:00:00.000  web goes to n2 [PROTOCOL 5]
    proof: fenced
    decided by rack-aware 1.2.0 (last good) in 0 us with 0 units of fuel, digest 00000000
    not by a better policy: active 1.3.0: out of fuel
    1. n2: 680 = free memory +700, load -20
    not followed: n3 is not admitted
";
        assert_eq!(explain_vm(&vm(), &[decided()]), expected);
    }

    #[test]
    fn silence_names_the_leader() {
        assert!(explain_vm(&vm(), &[]).contains("the leader's may have"));
    }
}
