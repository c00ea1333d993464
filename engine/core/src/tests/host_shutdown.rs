//! Hosts that go down on purpose.

use super::*;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::event::Event;
use crate::ids::Incarnation;
use crate::kit::{config_of, id};
use crate::ledger::NodeEntry;

/// n3 runs `db`; every machine is configured by `change`.
fn cluster(way: HostShutdown, change: impl Fn(&mut Config)) -> Cluster {
    Cluster::with_vm(|config| {
        config.limits.host_shutdown = way;
        change(config);
    })
}

fn host(cluster: &Cluster, node: u32) -> NodeEntry {
    cluster.members[&1].machine.ledger().nodes[&id(node)].clone()
}

fn stops(cluster: &mut Cluster, node: u32, reboot: bool) {
    cluster.later(node, 1, Event::HostStopping { reboot });
    cluster.run(10_000);
}

#[test]
fn a_choice_and_the_kind_of_shutdown_make_a_way() {
    let ways = |choice: HostShutdown| (choice.way(true), choice.way(false));
    assert_eq!(ways(HostShutdown::Conditional), (Way::Freeze, Way::Failover));
    assert_eq!(ways(HostShutdown::Freeze), (Way::Freeze, Way::Freeze));
    assert_eq!(ways(HostShutdown::Failover), (Way::Failover, Way::Failover));
    assert_eq!(ways(HostShutdown::Migrate), (Way::Migrate, Way::Migrate));
}

#[test]
fn a_host_that_reboots_is_let_go_when_its_vm_is_down_and_the_vm_waits_for_it() {
    let mut cluster = cluster(HostShutdown::Conditional, |_| {});
    stops(&mut cluster, 3, true);
    assert_eq!((cluster.let_go.clone(), cluster.homes("db")), ([3].into(), [].into()));
    cluster.kill(3);
    cluster.run(120_000);
    assert!(cluster.starts.is_empty() && cluster.fences.is_empty());
    assert_eq!(cluster.shown(1, "db").0, "waiting");
    let mut config = config_of(3, 3);
    config.me.boot = crate::ids::BootId(999);
    cluster.members.get_mut(&3).unwrap().alive = true;
    cluster.restart(3, config);
    cluster.split(&[&[1, 2, 3]], 100);
    cluster.run(30_000);
    assert_eq!((cluster.homes("db"), host(&cluster, 3).stopping), ([3].into(), None));
}

#[test]
fn a_host_that_is_switched_off_is_let_go_when_its_vm_has_another_place() {
    let mut cluster = cluster(HostShutdown::Conditional, |_| {});
    stops(&mut cluster, 3, false);
    assert_eq!(cluster.let_go, [3].into());
    assert_eq!((cluster.homes("db").len(), cluster.starts.len()), (1, 1));
    assert_ne!(cluster.homes("db"), [3]);
}

#[test]
fn a_hosts_vms_move_live_if_that_was_chosen() {
    let mut cluster = cluster(HostShutdown::Migrate, |_| {});
    stops(&mut cluster, 3, true);
    cluster.run(20_000);
    assert_eq!((cluster.starts.len(), cluster.let_go.clone()), (0, [3].into()));
    assert_ne!(cluster.homes("db"), [3]);
}

#[test]
fn vms_wait_for_their_host_no_longer_than_the_limit() {
    let freeze = |config: &mut Config| config.limits.host_freeze = Millis(60_000);
    let mut cluster = cluster(HostShutdown::Freeze, freeze);
    stops(&mut cluster, 3, false);
    cluster.kill(3);
    cluster.run(45_000);
    assert!(cluster.starts.is_empty());
    cluster.run(30_000);
    assert_eq!(cluster.starts.len(), 1);
}

#[test]
fn a_host_whose_vm_finds_no_place_is_let_go_after_the_limit() {
    let mut cluster = cluster(HostShutdown::Migrate, |config| {
        config.limits.host_freeze = Millis(60_000);
    });
    [1, 2].into_iter().for_each(|node| cluster.has_memory(node, 100));
    cluster.run(5_000);
    stops(&mut cluster, 3, true);
    cluster.run(40_000);
    assert_eq!((cluster.let_go.len(), cluster.homes("db")), (0, [3].into()));
    cluster.run(40_000);
    assert_eq!((cluster.let_go.clone(), cluster.homes("db")), ([3].into(), [].into()));
}

#[test]
fn a_host_that_no_leader_hears_shuts_its_vms_down_by_itself() {
    let mut cluster = cluster(HostShutdown::Failover, |_| {});
    cluster.split(&[&[1], &[2], &[3]], 100);
    stops(&mut cluster, 3, false);
    assert_eq!((cluster.let_go.len(), cluster.homes("db")), (0, [3].into()));
    cluster.run(40_000);
    assert_eq!((cluster.let_go.clone(), cluster.homes("db")), ([3].into(), [].into()));
}

#[test]
fn a_later_incarnation_of_the_same_boot_ends_it() {
    let mut cluster = cluster(HostShutdown::Freeze, |_| {});
    stops(&mut cluster, 3, true);
    assert!(host(&cluster, 3).stopping.is_some());
    let mut config = config_of(3, 3);
    config.me.incarnation = Incarnation(2);
    cluster.restart(3, config);
    cluster.split(&[&[1, 2, 3]], 100);
    cluster.run(30_000);
    assert_eq!((host(&cluster, 3).stopping, cluster.homes("db")), (None, [3].into()));
}

#[test]
fn nobody_stops_another_host() {
    let who = Identity { node: id(3), ..config_of(3, 3).me };
    let mut cluster = cluster(HostShutdown::Freeze, |_| {});
    cluster.ask_and_watch(2, Change::StopHost { who, reboot: true });
    assert!(cluster.answers[1].contains("n2 speaks for n3"), "{:?}", cluster.answers);
    assert_eq!(host(&cluster, 3).stopping, None);
}

#[test]
fn a_frozen_host_is_spared_its_fence_agent_and_one_that_owes_vms_is_not() {
    let mut ledger = crate::kit::all_admitted();
    crate::kit::own_vm(&mut ledger, "db", 3, Stamp::default());
    let stop =
        |way| HostStop { since: Stamp::default(), who: config_of(3, 3).me, way, reboot: true };
    let mut spared = |way| {
        ledger.nodes.get_mut(&id(3)).unwrap().stopping = Some(stop(way));
        crate::maintenance::is_spared(&ledger, id(3))
    };
    assert!(spared(Way::Freeze) && !spared(Way::Failover) && !spared(Way::Migrate));
}
