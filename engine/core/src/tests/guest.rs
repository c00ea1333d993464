//! What may execute here: processes, not libvirt's word (PROTOCOL section 4, "none left").

use super::*;
use crate::kit::{at, genesis, outbox, own_vm, stamp, vm};

const WINDOW: Millis = Millis(600_000);
const SINCE: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 3 };

/// A ledger with HA VMs of node n1.
fn ledger(names: &[&str]) -> Ledger {
    let mut ledger = genesis(3);
    names.iter().for_each(|name| own_vm(&mut ledger, name, 1, SINCE));
    ledger
}

fn guests(names: &[&str]) -> Guests {
    let mut guests = Guests::default();
    guests.on_ledger(&ledger(names).into(), true);
    guests
}

fn scan(began: u64, present: &[&str], unresolved: &[&str]) -> GuestScan {
    let set = |names: &[&str]| names.iter().map(|name| vm(name)).collect();
    GuestScan { began: at(began), present: set(present), unresolved: set(unresolved) }
}

#[test]
fn without_a_scan_or_without_a_ledger_nothing_proves_none_left() {
    let mut blind = Guests::default();
    blind.on_scanned(scan(100, &[], &[]));
    assert!(!blind.none_left(at(0)), "who knows which of them are under HA");
    assert!(!guests(&[]).none_left(at(0)), "nobody looked");
    assert!(guests(&["db"]).is_uncertain(&vm("db")));
}

#[test]
fn none_left_needs_every_ha_process_gone_and_minds_no_other() {
    let mut guests = guests(&["db"]);
    guests.on_scanned(scan(100, &["db", "desktop"], &[]));
    assert!(!guests.none_left(at(0)));
    guests.on_scanned(scan(200, &["desktop"], &[]));
    assert!(guests.none_left(at(0)));
}

#[test]
fn none_left_needs_a_scan_begun_after_the_eviction_was_learnt() {
    let mut guests = guests(&["db"]);
    guests.on_scanned(scan(100, &[], &[]));
    assert!(!guests.none_left(at(101)));
    assert!(guests.none_left(at(100)));
}

#[test]
fn none_left_needs_a_scan_begun_after_the_last_start_ended() {
    let mut guests = guests(&["db"]);
    guests.permit(&vm("db"), SINCE, at(9_000), at(100));
    guests.on_scanned(scan(150, &[], &[]));
    assert!(!guests.none_left(at(0)), "the start is in flight");
    guests.on_start_ended(&vm("db"), at(200));
    assert!(!guests.none_left(at(0)), "the scan began before it ended");
    guests.on_scanned(scan(210, &[], &[]));
    assert!(guests.none_left(at(0)));
}

#[test]
fn a_start_of_an_earlier_incarnation_that_may_be_under_way_blocks_the_proof() {
    let mut guests = guests(&["db"]);
    guests.on_scanned(scan(100, &[], &["db"]));
    assert!(!guests.none_left(at(0)));
    assert!(guests.may_execute());
    assert!(guests.is_uncertain(&vm("db")));
    guests.on_scanned(scan(200, &[], &[]));
    assert!(guests.none_left(at(0)));
}

#[test]
fn an_exit_is_news_and_not_proof_since_it_may_be_of_an_earlier_process() {
    let mut guests = guests(&["db"]);
    guests.on_scanned(scan(100, &["db"], &[]));
    guests.on_exited(&vm("db"), true, WINDOW, at(200));
    assert!(guests.is_present(&vm("db")), "only a scan takes it away");
    assert!(!guests.none_left(at(0)));

    let mut guests = self::guests(&["db"]);
    guests.on_scanned(scan(100, &[], &[]));
    guests.on_exited(&vm("db"), true, WINDOW, at(200));
    assert!(!guests.none_left(at(0)), "what exited now was not there when we looked");
    assert!(guests.is_uncertain(&vm("db")));
}

#[test]
fn an_older_scan_that_comes_late_changes_nothing() {
    let mut guests = guests(&["db"]);
    guests.on_scanned(scan(200, &["db"], &[]));
    guests.on_scanned(scan(100, &[], &[]));
    assert!(guests.is_present(&vm("db")));
}

#[test]
fn a_rumour_adds_ha_vms_and_never_takes_one_away() {
    let mut guests = guests(&["db"]);
    guests.on_ledger(&ledger(&["web"]).into(), false);
    assert!(guests.is_ha(&vm("db")) && guests.is_ha(&vm("web")));
    guests.on_scanned(scan(100, &["web"], &[]));
    assert!(!guests.none_left(at(0)), "a VM of a rumour is stopped with the others");
    guests.on_ledger(&ledger(&["db"]).into(), true);
    assert!(!guests.is_ha(&vm("web")), "a committed body names them all");
}

#[test]
fn a_vm_is_stated_as_given_up_only_when_nothing_about_it_is_uncertain() {
    let state = |guests: &Guests| guests.state(&vm("db"));
    let mut guests = guests(&["db"]);
    guests.permit(&vm("db"), SINCE, at(9_000), at(100));
    assert_eq!(state(&guests), Some(GuestState::Starting));
    guests.on_start_ended(&vm("db"), at(200));
    guests.end(&vm("db"), SINCE, Ending::GivenUp("no such disk".into()));
    assert_eq!(state(&guests), None, "its process may exist: nobody has looked since");
    guests.on_scanned(scan(150, &[], &[]));
    assert_eq!(state(&guests), None, "that scan began before the start ended");
    guests.on_scanned(scan(210, &[], &["db"]));
    assert_eq!(state(&guests), None, "an earlier incarnation's start may be under way");
    guests.on_scanned(scan(220, &["db"], &[]));
    assert_eq!(state(&guests), Some(GuestState::Running));
    guests.on_scanned(scan(230, &[], &[]));
    let given_up = GuestState::GivenUp { since: SINCE, reason: "no such disk".into() };
    assert_eq!(state(&guests), Some(given_up));
}

#[test]
fn a_statement_of_giving_up_ends_with_the_ownership_it_names() {
    let mut guests = guests(&["db"]);
    guests.on_scanned(scan(100, &[], &[]));
    guests.end(&vm("db"), SINCE, Ending::GivenUp("it ended 3 times".into()));
    assert!(guests.has_ended(&vm("db"), SINCE));
    assert!(!guests.has_ended(&vm("db"), stamp(1, 1, 9)), "a later ownership is a new chance");
    let mut later = genesis(3);
    own_vm(&mut later, "db", 1, stamp(1, 1, 9));
    guests.on_ledger(&later.into(), true);
    assert_eq!(guests.state(&vm("db")), None);
}

#[test]
fn an_incarnation_restarts_without_an_order_only_what_it_ran_under_the_same_ownership() {
    let mut guests = guests(&["db"]);
    assert!(!guests.restarts.has_run(&vm("db"), SINCE));
    guests.permit(&vm("db"), SINCE, at(9_000), at(100));
    assert!(guests.restarts.has_run(&vm("db"), SINCE));
    assert!(!guests.restarts.has_run(&vm("db"), stamp(1, 1, 9)));
}

#[test]
fn a_destroy_is_repeated_until_the_process_is_gone() {
    let mut guests = guests(&["db"]);
    let mut out = outbox(1, 1_000);
    guests.on_scanned(scan(900, &["db"], &[]));
    assert!(guests.destroy(&vm("db"), "evicted", &mut out));
    out.now = at(1_999);
    guests.destroy(&vm("db"), "evicted", &mut out);
    assert_eq!(out.actions.len(), 1);
    out.now = at(2_000);
    assert!(!guests.destroy(&vm("db"), "evicted", &mut out), "told once, done again");
    assert_eq!(out.actions.len(), 2);
    assert_eq!(guests.state(&vm("db")), Some(GuestState::Stopping));
    guests.on_scanned(scan(2_100, &[], &[]));
    assert_eq!(guests.state(&vm("db")), None);
}

#[test]
fn a_scan_is_asked_for_when_due_and_not_twice_at_a_time() {
    let mut guests = guests(&[]);
    let mut out = outbox(1, 1_000);
    guests.scan_if(false, &mut out);
    guests.scan_if(true, &mut out);
    assert_eq!(out.actions, [Action::ScanGuests]);
    guests.on_scanned(scan(1_000, &[], &[]));
    guests.scan_if(false, &mut out);
    assert_eq!(out.actions.len(), 1);
    guests.scan_if(true, &mut out);
    assert_eq!(out.actions.len(), 2);
}

#[test]
fn a_guest_without_ha_may_end_as_often_as_it_likes() {
    let mut guests = guests(&["db"]);
    for ended in [1_000, 2_000, 3_000] {
        guests.on_exited(&vm("scratch"), true, WINDOW, at(ended));
    }
    assert_eq!(guests.restarts.failures(&vm("scratch")), 0);
}

#[test]
fn what_ended_is_looked_for_at_once_and_not_at_the_next_regular_scan() {
    let mut cluster = crate::cluster::Cluster::with_vm(|_| {});
    let fresh = |cluster: &crate::cluster::Cluster| cluster.members[&3].machine.guests.scanned();
    let before = fresh(&cluster);
    cluster.run_until(|cluster| fresh(cluster) != before);
    let now = cluster.now;
    cluster.members.get_mut(&3).unwrap().machine.guests.disturb(at(now));
    cluster.run(1_000);
    assert!(!cluster.members[&3].machine.guests.is_disturbed());
}
