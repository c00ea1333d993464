//! Two releases in one cluster.

use super::*;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::kit::{config_of, spec, vm};
use std::boxed::Box;
use std::string::ToString;

fn older(config: &mut Config) {
    config.genesis.level = FeatureLevel::OLDEST;
    config.level = FeatureLevel::OLDEST;
}

/// n1 has the newer release, the others the older one.
fn begun(config: &mut Config) {
    config.genesis.level = FeatureLevel::OLDEST;
    if config.me.node.0 != 1 {
        config.level = FeatureLevel::OLDEST;
    }
}

fn level(cluster: &Cluster, node: u32) -> FeatureLevel {
    cluster.members[&node].machine.ledger().level
}

/// The agent of this node dies and comes back with the newer release.
fn upgrade(cluster: &mut Cluster, node: u32) {
    let mut config = config_of(node, 3);
    config.genesis.level = FeatureLevel::OLDEST;
    cluster.restart_agent_as(node, config);
    cluster.run(8_000);
}

fn set_priority() -> Change {
    Change::SetPriority { vm: vm("db"), priority: 900 }
}

#[test]
fn the_level_rises_when_the_last_node_speaks_it_and_no_sooner_and_no_guest_notices() {
    let mut cluster = Cluster::with_vm(older);
    for node in [1, 2] {
        upgrade(&mut cluster, node);
        assert_eq!(level(&cluster, node), FeatureLevel::OLDEST, "n3 is not upgraded yet");
    }
    upgrade(&mut cluster, 3);
    assert!([1, 2, 3].iter().all(|node| level(&cluster, *node) == FeatureLevel::NEWEST));
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty() && cluster.fences.is_empty());
    assert_eq!(cluster.starts, []);
}

#[test]
fn an_older_leader_and_a_newer_one_read_each_others_ledger() {
    let mut cluster = Cluster::with_vm(begun);
    assert_eq!(cluster.leaders(), [1]);
    cluster.kill(1);
    cluster.run(20_000);
    assert_eq!(cluster.leaders(), [2]);
    cluster.ask_and_watch(3, Change::DisableVm(vm("db")));
    cluster.ask_and_watch(3, Change::EnableVm(Box::new(spec("db"))));
    assert_eq!(cluster.homes("db"), [3]);
    assert_eq!(level(&cluster, 3), FeatureLevel::OLDEST);
}

#[test]
fn what_an_older_leader_does_not_understand_is_refused_with_the_remedy_until_all_are_upgraded() {
    let mut cluster = Cluster::with_vm(older);
    upgrade(&mut cluster, 1);
    cluster.ask_and_watch(1, set_priority());
    let answer = cluster.answers.last().unwrap();
    assert!(
        answer.contains("feature level 0") && answer.contains("finish the upgrade"),
        "{answer}"
    );
    upgrade(&mut cluster, 2);
    upgrade(&mut cluster, 3);
    cluster.ask_and_watch(1, set_priority());
    assert_eq!(cluster.members[&2].machine.ledger().vms[&vm("db")].spec.priority, 900);
}

#[test]
fn a_node_that_goes_back_to_the_older_release_says_why_it_takes_no_part() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(15_000);
    let mut config = config_of(2, 3);
    older(&mut config);
    cluster.restart_agent_as(2, config);
    cluster.run(10_000);
    let machine = &cluster.members[&2].machine;
    assert!(machine.register.known().is_none(), "it refuses the newer ledger");
    let lease = machine.snapshot(crate::kit::at(cluster.now)).lease;
    assert_eq!(lease.storage_age, None, "{}", lease.text);
    assert_eq!(cluster.leaders(), [1], "nobody else is bothered");
}

#[test]
fn a_ledger_of_the_first_release_says_nothing_of_levels() {
    let ledger = Ledger { level: FeatureLevel::OLDEST, ..crate::kit::genesis(3) };
    let text = String::from_utf8(ledger.encode()).unwrap();
    assert!(!text.contains("level"), "{text}");
    assert_eq!(FeatureLevel::NEWEST.to_string(), "1");
}

#[test]
fn a_condition_needs_its_level_and_that_of_what_it_is_a_condition_of() {
    let as_of = |change| Change::AsOf { stamp: Default::default(), change: Box::new(change) };
    assert!(as_of(Change::Arm).refused_at(FeatureLevel::OLDEST).is_some());
    assert_eq!(as_of(Change::Arm).refused_at(FeatureLevel(1)), None);
    assert_eq!(as_of(set_priority()).level(), FeatureLevel(1));
}
