//! VMs that are to be off, and guests that shut themselves down.

use super::*;
use crate::cluster::Cluster;
use crate::kit::{at, outbox, spec, vm};
use crate::ledger::VmSpec;
use crate::message::Change;
use std::boxed::Box;
use std::vec;

const LIMIT: Millis = Millis(60_000);

/// `db` runs on n3 and is left off when its guest shuts itself down.
fn with_vm_that_stays_off() -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    let spec = VmSpec { on_shutdown: OnShutdown::Stop, ..spec("db") };
    cluster.ask_and_watch(3, Change::EnableVm(Box::new(spec)));
    cluster
}

fn desired(cluster: &Cluster) -> Desired {
    cluster.members[&1].machine.ledger().vms[&vm("db")].desired
}

#[test]
fn a_guest_is_asked_again_every_ten_seconds_and_destroyed_when_its_time_is_over() {
    let mut shutdowns = Shutdowns::default();
    let mut out = outbox(3, 1_000);
    let mut ask = |now| {
        out.now = at(now);
        let over = shutdowns.ask(&vm("db"), LIMIT, &mut out);
        (over, core::mem::take(&mut out.actions).len())
    };
    assert_eq!(ask(1_000), (false, 1));
    assert_eq!(ask(10_999), (false, 0));
    assert_eq!(ask(11_000), (false, 1));
    assert!(!ask(60_999).0);
    assert!(ask(61_000).0);
}

#[test]
fn an_exit_is_a_shutdown_by_the_guests_word_shortly_before_or_after_it() {
    let mut shutdowns = Shutdowns::default();
    let db = vm("db");
    shutdowns.on_said(&db, at(1_000));
    assert_eq!(shutdowns.on_exited(&db, at(30_999)), Exit::ShutDown);
    shutdowns.on_said(&db, at(40_000));
    assert_eq!(shutdowns.on_exited(&db, at(70_000)), Exit::Died, "the word is too old");
    assert!(shutdowns.awaits_word(&db, at(70_499)));
    assert!(shutdowns.on_said(&db, at(70_499)));
    assert!(!shutdowns.awaits_word(&db, at(70_500)));
    assert!(!shutdowns.on_said(&db, at(70_500)));
}

#[test]
fn a_word_about_an_earlier_process_says_nothing_about_the_one_started_since() {
    let mut shutdowns = Shutdowns::default();
    let db = vm("db");
    shutdowns.on_said(&db, at(1_000));
    shutdowns.on_started(&db);
    assert_eq!(shutdowns.on_exited(&db, at(2_000)), Exit::Died);
}

#[test]
fn a_guest_that_was_asked_to_shut_down_did_not_do_so_itself() {
    let mut shutdowns = Shutdowns::default();
    let (db, mut out) = (vm("db"), outbox(3, 1_000));
    shutdowns.ask(&db, LIMIT, &mut out);
    shutdowns.on_said(&db, at(1_500));
    assert_eq!(shutdowns.on_exited(&db, at(1_600)), Exit::Asked);
}

#[test]
fn a_stopped_vm_is_shut_down_and_stays_off_until_it_is_started() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    assert!(cluster.homes("db").is_empty() && cluster.destroyed.is_empty());
    cluster.run(60_000);
    assert!(cluster.starts.is_empty(), "started again: {:?}", cluster.starts);
    assert_eq!(cluster.shown(1, "db").0, "stopped");
    cluster.ask_and_watch(2, Change::StartVm(vm("db")));
    assert_eq!(cluster.homes("db"), [3]);
    assert_eq!(cluster.starts.len(), 1);
}

#[test]
fn a_guest_that_does_not_listen_is_destroyed_when_its_time_is_over() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.guests_listen = false;
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    assert_eq!((cluster.homes("db"), cluster.shown(1, "db").0), (vec![3], "stopping".into()));
    cluster.run(60_000);
    assert_eq!(cluster.destroyed.len(), 1);
    assert!(cluster.homes("db").is_empty());
}

#[test]
fn a_stopped_vm_of_a_dead_node_waits_and_is_relocated_only_when_it_is_started() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    cluster.kill(3);
    cluster.run(60_000);
    assert!(cluster.starts.is_empty());
    cluster.ask_and_watch(1, Change::StartVm(vm("db")));
    assert_eq!(cluster.starts.len(), 1);
    assert!(cluster.homes("db") != [3]);
}

#[test]
fn a_stopped_vm_is_not_started_by_a_new_incarnation_nor_by_a_new_leader() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    let mut config = crate::kit::config(3);
    config.me.incarnation.0 = 2;
    cluster.restart(3, config);
    cluster.run(10_000);
    cluster.kill(1);
    cluster.run(60_000);
    assert!(cluster.starts.is_empty());
}

#[test]
fn a_guest_that_shuts_itself_down_is_started_again_unless_it_is_to_stay_off() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.end_guest("db", true);
    cluster.run(10_000);
    assert_eq!(cluster.homes("db"), [3]);
    let mut cluster = with_vm_that_stays_off();
    cluster.end_guest("db", true);
    cluster.run(10_000);
    assert!(cluster.homes("db").is_empty());
    assert_eq!(desired(&cluster), Desired::Stopped);
    cluster.ask_and_watch(1, Change::StartVm(vm("db")));
    assert_eq!(cluster.homes("db"), [3], "what it said was about the ownership before");
    cluster.run(10_000);
    assert_eq!(desired(&cluster), Desired::Running);
}

#[test]
fn a_guest_that_is_to_stay_off_is_started_again_when_it_dies() {
    let mut cluster = with_vm_that_stays_off();
    cluster.end_guest("db", false);
    cluster.run(10_000);
    assert_eq!(cluster.homes("db"), [3]);
}

#[test]
fn a_vm_that_is_started_while_it_shuts_down_comes_back() {
    let mut cluster = with_vm_that_stays_off();
    cluster.guests_listen = false;
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    cluster.ask_and_watch(1, Change::StartVm(vm("db")));
    cluster.end_guest("db", true);
    cluster.run(70_000);
    assert_eq!(cluster.homes("db"), [3], "it was asked to go, and did not do so itself");
    assert!(cluster.destroyed.is_empty());
}
