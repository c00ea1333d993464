//! The target's side of a live migration.

use super::*;
use crate::cluster::{Cluster, Migrating};
use crate::guest::{GuestScan, Guests};
use crate::kit::{at, genesis, id, own_vm, stamp, vm};
use crate::message::Change;

fn moving(migrations: Migrating) -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.migrations = migrations;
    cluster.ask(1, Change::MigrateVm { vm: vm("db"), to: id(2) });
    cluster.run_until(|cluster| !cluster.paused.is_empty());
    cluster
}

#[test]
fn a_permitted_arrival_counts_as_a_start_in_flight_until_a_scan_begun_after_it_was_forbidden() {
    let mut guests = Guests::default();
    let mut ledger = genesis(3);
    own_vm(&mut ledger, "db", 3, stamp(1, 1, 3));
    guests.on_ledger(&ledger.into(), true);
    let scan = |guests: &mut Guests, began| {
        let (present, unresolved) = ([].into(), [].into());
        guests.on_scanned(GuestScan { began: at(began), present, unresolved });
        guests.none_left(at(0))
    };
    assert!(scan(&mut guests, 100));
    guests.permit_arrival(&vm("db"));
    assert!(!scan(&mut guests, 200) && guests.may_execute());
    guests.forbid_arrival(&vm("db"), at(300));
    assert!(!guests.none_left(at(0)), "it may have come meanwhile");
    assert!(scan(&mut guests, 301));
}

#[test]
fn a_copy_that_cannot_be_resumed_is_destroyed_and_the_vm_starts_from_disk() {
    let mut cluster = moving(Migrating::Takes(500));
    cluster.resumes_fail = true;
    cluster.run(30_000);
    assert_eq!((cluster.starts.len(), cluster.homes("db")), (1, [2].into()));
    assert_eq!((cluster.destroyed.len(), cluster.paused.len()), (1, 0));
}

#[test]
fn a_copy_is_not_called_running_by_an_agent_that_has_proved_nothing_yet() {
    let mut cluster = moving(Migrating::Takes(500));
    cluster.resumes_fail = true;
    let mine = |cluster: &Cluster| {
        let ledger = cluster.members[&2].machine.ledger();
        ledger.vms.get(&vm("db")).is_some_and(|entry| entry.owner == id(2) && entry.resumes)
    };
    cluster.run_until(mine);
    cluster.restart_agent(2);
    let reports = |cluster: &Cluster| cluster.members[&2].machine.guest_reports();
    cluster.run_until(|cluster| !reports(cluster).is_empty());
    let machine = &cluster.members[&2].machine;
    assert!(mine(&cluster) && machine.proved().is_none(), "a rumour still");
    assert_eq!(reports(&cluster)[0].state, GuestState::Starting);
    cluster.resumes_fail = false;
    cluster.run(10_000);
    assert_eq!((cluster.homes("db"), cluster.paused.len()), ([2].into(), 0));
}

#[test]
fn a_copy_that_an_earlier_agent_let_in_is_never_called_running() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.restart_agent(2);
    let reports = |cluster: &Cluster| cluster.members[&2].machine.guest_reports();
    cluster.run_until(|cluster| !reports(cluster).is_empty());
    assert!(cluster.members[&2].machine.proved().is_none(), "a rumour still");
    assert_eq!(reports(&cluster)[0].state, GuestState::Stopping);
    cluster.run(10_000);
    assert_eq!((cluster.homes("db"), cluster.paused.len()), ([3].into(), 0));
}

#[test]
fn a_copy_that_comes_after_the_migration_is_off_is_destroyed() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    assert!(cluster.paused.is_empty());
    cluster.paused.insert((vm("db"), 2));
    cluster.run(6_000);
    assert!(cluster.paused.is_empty());
}

/// A copy of a migration that is off is here, and the VM is given to this very node, to be started from disk.
#[test]
fn a_late_copy_does_not_pass_for_the_running_vm() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    cluster.kill(1);
    cluster.kill(3);
    cluster.run(1_000);
    cluster.split(&[&[2]], 100);
    let mut ledger = (*cluster.members[&2].machine.ledger()).clone();
    let machine = &mut cluster.members.get_mut(&2).unwrap().machine;
    let entry = ledger.vms.get_mut(&vm("db")).unwrap();
    entry.moves_to(id(2), stamp(9, 1, 99));
    let entry = entry.clone();
    assert!(machine.arrivals.is_copy(&vm("db")), "it may still come");
    assert!(machine.settle_copy(&vm("db"), &entry), "so what is here is a copy");
}

#[test]
fn the_copy_of_a_migration_that_stands_is_left_alone_and_reported_as_expected() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.run(30_000);
    assert_eq!(cluster.paused.len(), 1);
    let machine = &cluster.members[&2].machine;
    let state = machine.guest_reports().into_iter().map(|report| report.state).next();
    assert!(matches!(state, Some(GuestState::Expected { .. })), "{state:?}");
    assert!(!machine.is_idle());
}

#[test]
fn a_target_whose_lease_ends_expects_nobody_any_more() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.split(&[&[1, 3], &[2]], 100);
    cluster.storage(2, false);
    cluster.run(60_000);
    assert!(cluster.paused.is_empty() && cluster.permitted.is_empty());
    assert_eq!((cluster.homes("db"), cluster.starts.len()), ([3].into(), 0));
}
