use super::super::Level;
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use steadfast_core::config::{Builtin, Config as MachineConfig, Limits};
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::{BootId, Identity, Incarnation, NodeId};
use steadfast_core::ledger::{Disarm, Ledger};
use steadfast_core::machine::Machine;
use steadfast_core::snapshot::NodeName;
use steadfast_core::time::Instant;

const FILE: &str = "[cluster]\nname = \"c\"\n[storage]\ndirectory = \"/shared\"\n";

fn config(extra: &str) -> Config {
    Config::parse(&format!("{FILE}{extra}")).expect("good")
}

/// n1 of three, in order in every respect.
fn snapshot() -> Snapshot {
    let names: BTreeMap<_, _> = (1..=3).map(|n| (NodeId(n), format!("n{n}"))).collect();
    let config = MachineConfig {
        me: Identity { node: NodeId(1), boot: BootId(1), incarnation: Incarnation(1) },
        timing: Timing::standard(Millis(1_100)),
        genesis: Ledger::genesis("c", &names),
        fence_agents: BTreeSet::new(),
        verification: true,
        never_paused: true,
        inherited: None,
        name: "n1".into(),
        level: FeatureLevel::NEWEST,
        limits: Limits::default(),
        builtin: Builtin {
            node_priority: steadfast_policy_node_priority::builtin,
            placement: steadfast_policy_placement::builtin,
        },
    };
    let (machine, _) = Machine::new(config, Instant(1_000));
    let mut snapshot = machine.snapshot(Instant(1_000));
    snapshot.view = names.keys().copied().collect();
    snapshot.quorate = true;
    snapshot.leader = Some(NodeName { id: NodeId(2), name: "n2".into() });
    snapshot.lease.left = Some(Millis(4_500));
    snapshot.lease.storage_age = Some(Millis(300));
    snapshot.lease.armed = true;
    for node in &mut snapshot.nodes {
        node.verification = Some(true);
        node.facts.storage_latency_ms = 20;
    }
    snapshot
}

fn facts() -> Facts {
    Facts {
        timing: Timing::standard(Millis(1_100)),
        read_back: Some(Millis(4_000)),
        storage: "directory /shared".into(),
        warnings: BTreeMap::new(),
        asked: Vec::new(),
    }
}

const WHOLE: &str = "[watchdog]\ndevice = \"/dev/watchdog\"\n[run]\nnever_paused = true\n\
    [verification]\naddresses = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"]\n";

fn fences(agent: &str) -> String {
    (1..=3).map(|n| format!("[[fence]]\nnode = \"n{n}\"\nagent = \"{agent}\"\n")).collect()
}

fn of(name: &str, checks: &[Check]) -> Check {
    checks.iter().find(|check| check.name == name).cloned().expect("checked")
}

/// What a check says after `change`.
fn after(name: &str, change: impl FnOnce(&mut Snapshot, &mut Facts)) -> Check {
    let (mut snapshot, mut facts) = (snapshot(), facts());
    change(&mut snapshot, &mut facts);
    of(name, &checks(&config(WHOLE), &snapshot, &facts))
}

#[test]
fn a_whole_node_is_green_all_over() {
    let config = config(&format!("{WHOLE}{}", fences("/bin/true")));
    let found = checks(&config, &snapshot(), &facts());
    let bad: Vec<_> = found.iter().filter(|check| check.level > Level::Green).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn a_node_out_of_view_is_yellow_and_no_quorum_is_red() {
    let found = after("corosync", |snapshot, _| snapshot.view.truncate(2));
    assert_eq!(found.level, Level::Yellow);
    assert!(found.text.contains("missing: n3"), "{}", found.text);
    let found = after("corosync", |snapshot, _| snapshot.quorate = false);
    assert_eq!(found.level, Level::Red);
}

#[test]
fn slow_storage_is_yellow_and_storage_too_slow_for_a_lease_is_red() {
    let latency =
        |ms| after("storage", |snapshot, _| snapshot.nodes[0].facts.storage_latency_ms = ms).level;
    assert_eq!(
        (latency(100), latency(101), latency(2_001)),
        (Level::Green, Level::Yellow, Level::Red)
    );
    let found = after("storage", |snapshot, _| snapshot.lease.storage_age = None);
    assert_eq!(found.level, Level::Red);
}

#[test]
fn a_watchdog_that_is_missing_or_not_armed_is_red() {
    let found = after("watchdog", |snapshot, _| snapshot.lease.armed = false);
    assert_eq!(found.level, Level::Red);
    let found = checks(&config(""), &snapshot(), &facts());
    assert_eq!(of("watchdog", &found).level, Level::Red);
    assert!(after("watchdog", |_, _| ()).text.contains("the device says 4000 ms"));
}

#[test]
fn unreachable_verification_ips_are_red_and_none_are_yellow() {
    let found = after("verification IPs", |s, _| s.nodes[0].verification = Some(false));
    assert_eq!(found.level, Level::Red);
    let found = checks(&config(""), &snapshot(), &facts());
    assert_eq!(of("verification IPs", &found).level, Level::Yellow);
}

#[test]
fn nodes_without_a_fence_agent_are_named_and_an_agent_that_is_not_installed_is_red() {
    let found = after("fence agents", |_, _| ());
    assert_eq!(found.level, Level::Yellow);
    assert!(found.text.contains("none for n1, n2, n3"), "{}", found.text);
    let config = config(&format!("{WHOLE}{}", fences("fence_of_nobody")));
    let found = checks(&config, &snapshot(), &facts());
    let red = found.iter().filter(|check| check.level == Level::Red).count();
    assert_eq!(red, 3, "{found:?}");
}

#[test]
fn while_ha_is_switched_off_nothing_that_follows_from_it_is_red() {
    let off = |snapshot: &mut Snapshot, _: &mut Facts| {
        let (since, reason) = (steadfast_core::ids::Stamp::default(), "new switches".into());
        snapshot.disarm = Some(Disarm { since, limit: None, reason, pending: false });
        (snapshot.lease.left, snapshot.lease.armed) = (None, false);
    };
    for name in ["agent", "lease", "watchdog"] {
        assert_eq!(after(name, off).level, Level::Yellow, "{name}");
    }
}
