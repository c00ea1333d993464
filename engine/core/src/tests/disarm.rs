//! HA off and on for everybody.

use super::*;
use crate::cluster::Cluster;
use crate::event::Event;
use crate::ids::Incarnation;
use crate::kit::{at, config_of, id, vm};
use crate::ledger::Leave;
use crate::message::Change;

fn off(limit: Option<u64>) -> Change {
    Change::Disarm { limit: limit.map(Millis), reason: "cables".into() }
}

/// HA is off; n3 runs `db`.
fn disarmed() -> Cluster {
    let mut cluster = Cluster::with_vm(|config| config.fence_agents = [id(3)].into());
    cluster.ask_and_watch(1, off(None));
    cluster
}

fn owner(cluster: &Cluster) -> NodeId {
    cluster.members[&1].machine.ledger().vms[&vm("db")].owner
}

#[test]
fn while_ha_is_off_watchdogs_are_closed_and_nothing_is_recovered() {
    let mut cluster = disarmed();
    assert_eq!(cluster.closed, [1, 2, 3].into());
    cluster.kill(3);
    cluster.run(60_000);
    assert_eq!((cluster.starts.len(), cluster.fences.len()), (0, 0));
    assert_eq!(cluster.admitted(1), [1, 2, 3]);
    cluster.ask_and_watch(1, Change::Arm);
    assert_eq!((cluster.starts.len(), cluster.fences.len()), (1, 1));
    assert_eq!(cluster.closed, [3].into());
}

#[test]
fn a_node_without_any_evidence_keeps_its_vms_while_ha_is_off() {
    let mut cluster = disarmed();
    cluster.split(&[&[1, 2], &[3]], 100);
    cluster.storage(3, false);
    cluster.run(120_000);
    assert_eq!((cluster.homes("db"), cluster.resets.len()), ([3].into(), 0));
    assert!(cluster.destroyed.is_empty());
}

#[test]
fn a_node_that_was_cut_off_before_the_arming_is_never_proved_dead_by_time() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, off(None));
    cluster.split(&[&[1, 2], &[3]], 100);
    cluster.storage(3, false);
    cluster.ask_and_watch(1, Change::Arm);
    cluster.run(300_000);
    assert_eq!(cluster.admitted(1), [1, 2], "it is evicted");
    assert_eq!((cluster.homes("db"), cluster.starts.len()), ([3].into(), 0), "and not proved dead");
    cluster.storage(3, true);
    cluster.run(20_000);
    assert_eq!(cluster.starts.len(), 1, "it read its eviction, stopped and said so");
}

#[test]
fn time_proves_a_node_dead_that_died_after_it_was_armed_again() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, off(None));
    cluster.ask_and_watch(1, Change::Arm);
    cluster.kill(3);
    cluster.run(30_000);
    assert_eq!(cluster.starts.len(), 1);
}

#[test]
fn a_disarming_waits_until_a_failed_nodes_vms_have_a_place() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.kill(3);
    cluster.run(8_000);
    assert!(!cluster.admitted(1).contains(&3), "it is evicted, not proved");
    cluster.ask(1, off(None));
    cluster.run(1_000);
    assert!(!cluster.members[&1].machine.ledger().is_off());
    cluster.run(30_000);
    assert_eq!(cluster.starts.len(), 1);
    assert!(cluster.members[&1].machine.ledger().is_off());
}

#[test]
fn a_disarming_that_is_put_off_lets_nobody_keep_vms_without_a_lease() {
    // n3 is cut off while HA is off, so its watchdog is closed. HA is switched on, n3 is evicted, and the next disarming has to wait for it.
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, off(None));
    cluster.storage(3, false);
    cluster.run(1_000);
    cluster.ask_and_watch(1, Change::Arm);
    cluster.run(60_000);
    assert_eq!(cluster.admitted(1), [1, 2]);
    cluster.ask_and_watch(1, off(None));
    assert!(cluster.members[&1].machine.ledger().disarm.as_ref().is_some_and(|d| d.pending));
    cluster.storage(3, true);
    cluster.run(20_000);
    assert!(cluster.destroyed.iter().any(|(_, _, node)| *node == 3), "n3 has read that HA is on");
    assert_ne!(owner(&cluster), id(3));
}

#[test]
fn a_feed_that_is_told_after_the_watchdog_was_closed_does_not_count_when_it_is_opened_again() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, off(None));
    assert!(cluster.closed.contains(&3));
    let ended = at(cluster.now - 10);
    cluster.tell(3, Event::WatchdogFed { ended });
    let later = at(cluster.now + 60_000);
    assert_eq!(cluster.members[&3].machine.lease.counted_feed(later), Some(later));
}

#[test]
fn ha_comes_back_when_the_limit_is_over() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, off(Some(30_000)));
    assert!(cluster.members[&1].machine.ledger().is_off());
    cluster.run(31_000);
    assert!(cluster.members[&1].machine.ledger().disarm.is_none());
    assert!(cluster.closed.is_empty() && cluster.homes("db") == [3]);
}

#[test]
fn a_vm_that_was_moved_by_hand_belongs_to_its_new_node_when_ha_is_on_again() {
    let mut cluster = disarmed();
    cluster.executing.remove(&(vm("db"), 3));
    cluster.executing.insert((vm("db"), 2));
    cluster.run(10_000);
    assert_eq!(owner(&cluster), id(3));
    cluster.ask_and_watch(1, Change::Arm);
    assert_eq!(owner(&cluster), id(2));
    assert_eq!(cluster.homes("db"), [2]);
    assert!(cluster.destroyed.is_empty() && cluster.starts.is_empty());
}

#[test]
fn a_new_agent_over_running_guests_opens_no_watchdog_and_stops_nothing_while_ha_is_off() {
    let mut cluster = disarmed();
    let mut config = config_of(3, 3);
    config.me.incarnation = Incarnation(2);
    cluster.restart(3, config);
    cluster.split(&[&[1, 2, 3]], 100);
    cluster.run(30_000);
    assert_eq!((cluster.homes("db"), cluster.resets.len()), ([3].into(), 0));
    assert!(cluster.destroyed.is_empty() && cluster.closed.contains(&3));
    cluster.ask_and_watch(1, Change::Arm);
    assert_eq!(cluster.homes("db"), [3]);
    assert!(!cluster.closed.contains(&3), "its watchdog is open again");
}

#[test]
fn a_vm_that_was_moved_by_hand_to_a_node_nobody_hears_is_started_nowhere_else() {
    let mut cluster = disarmed();
    cluster.executing.remove(&(vm("db"), 3));
    cluster.executing.insert((vm("db"), 2));
    cluster.split(&[&[1, 3], &[2]], 100);
    cluster.storage(2, false);
    cluster.run(10_000);
    cluster.ask_and_watch(1, Change::Arm);
    cluster.run(120_000);
    assert_eq!((cluster.homes("db"), cluster.starts.len()), ([2].into(), 0));
}

#[test]
fn a_disarming_waits_for_a_vm_that_is_shut_down_to_be_started_elsewhere() {
    let mut cluster = Cluster::with_vm(|config| config.limits.shutdown_timeout = Millis(10_000));
    cluster.guests_listen = false;
    cluster.ask(1, Change::RelocateVm { vm: vm("db"), to: id(2) });
    cluster.run(100);
    cluster.ask(1, off(None));
    cluster.run(1_000);
    assert!(cluster.members[&1].machine.ledger().disarm.as_ref().is_some_and(|d| d.pending));
    cluster.run(30_000);
    assert!(cluster.members[&1].machine.ledger().is_off());
    assert_eq!((cluster.homes("db"), owner(&cluster)), ([2].into(), id(2)));
}

#[test]
fn a_disarming_waits_for_a_vm_that_is_being_started() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.refusals = 3;
    cluster.kill(3);
    for _ in 0..400 {
        if cluster.refused.is_empty() {
            cluster.run(50);
        }
    }
    cluster.ask(1, off(None));
    cluster.run(1_500);
    assert_eq!(cluster.refused.len(), 2);
    assert!(!cluster.members[&1].machine.ledger().is_off(), "it does not run yet");
    cluster.run(10_000);
    assert!(cluster.members[&1].machine.ledger().is_off());
    assert_eq!(cluster.starts.len(), 1);
}

#[test]
fn what_the_same_commit_sends_on_its_way_is_waited_for_too() {
    let mut next = crate::kit::all_admitted();
    crate::kit::own_vm(&mut next, "db", 3, Stamp::default());
    let leave = Leave { to: Some(id(2)), since: Stamp::default(), reason: "move".into() };
    next.vms.get_mut(&vm("db")).unwrap().leave = Some(leave);
    let outlook = Outlook::default();
    disarm(&mut next, crate::kit::stamp(1, 1, 5), (None, "cables"), &outlook, &mut Vec::new());
    assert!(next.disarm.is_some_and(|disarm| disarm.pending));
}

#[test]
fn a_node_whose_reset_hangs_is_left_to_its_watchdog_though_ha_is_off() {
    let mut cluster = disarmed();
    cluster.closed.clear();
    cluster.resets_hang = true;
    let mut config = crate::kit::config_of(2, 3);
    config.me.incarnation.0 = 2;
    let (basis, last_feed_ended) = (Some(at(cluster.now - 25_000)), Some(at(cluster.now - 200)));
    config.inherited = Some(crate::config::Inherited { basis, last_feed_ended });
    cluster.restart(2, config);
    cluster.run(5_000);
    assert_eq!(cluster.resets, [2]);
    assert!(!cluster.closed.contains(&2), "or it would neither take part nor come back");
}
