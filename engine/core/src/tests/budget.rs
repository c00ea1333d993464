//! Restarts, relocations, and when a VM has failed (PROTOCOL section 7).

use super::*;
use crate::cluster::Cluster;
use crate::guest::GuestReport;
use crate::kit::{at, config, id, own_vm, spec, stamp, vm};
use crate::ledger::VmSpec;
use crate::message::Change;
use crate::stage::Stage;
use std::boxed::Box;

const OWNED: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 3 };
const WINDOW: Millis = Millis(600_000);

#[test]
fn a_vm_that_ends_again_and_again_is_restarted_later_and_later() {
    let mut restarts = Restarts::default();
    let (config, db) = (config(1), vm("db"));
    restarts.runs_under(&db, OWNED);
    restarts.on_died(&db, WINDOW, at(1_000));
    assert!(restarts.may_start_again(&db, OWNED, &config, at(1_000)), "the first time at once");
    restarts.on_died(&db, WINDOW, at(2_000));
    assert!(!restarts.may_start_again(&db, OWNED, &config, at(3_999)));
    assert!(restarts.may_start_again(&db, OWNED, &config, at(4_000)));
    restarts.on_died(&db, WINDOW, at(5_000));
    assert_eq!(restarts.failures(&db), 3);
    restarts.on_died(&db, WINDOW, at(605_000));
    assert_eq!(restarts.failures(&db), 1, "after ten quiet minutes the sheet is clean");
}

#[test]
fn a_vm_that_comes_back_under_a_new_ownership_begins_with_a_clean_sheet() {
    let mut restarts = Restarts::default();
    let (config, db, new) = (config(1), vm("db"), stamp(1, 1, 9));
    restarts.runs_under(&db, OWNED);
    for ended in [1_000, 2_000, 3_000] {
        restarts.on_died(&db, WINDOW, at(ended));
    }
    assert!(!restarts.may_start_again(&db, OWNED, &config, at(3_100)));
    assert!(restarts.may_start_again(&db, new, &config, at(3_100)));
    restarts.runs_under(&db, new);
    assert_eq!(restarts.failures(&db), 0);
}

#[test]
fn a_refused_start_is_tried_again_after_the_same_rest_each_time() {
    let mut restarts = Restarts::default();
    let (config, db) = (config(1), vm("db"));
    restarts.runs_under(&db, OWNED);
    for refused in [1_000, 2_000, 3_000] {
        restarts.on_permitted(&db);
        restarts.on_refused(&db, WINDOW, at(refused));
        assert!(restarts.rests_after_refusal(&db, &config, at(refused + 999)));
        assert!(!restarts.may_start_again(&db, OWNED, &config, at(refused + 999)));
        assert!(restarts.may_start_again(&db, OWNED, &config, at(refused + 1_000)));
    }
    assert_eq!(restarts.failures(&db), 3);
}

#[test]
fn a_process_that_ends_while_it_is_started_is_one_failure() {
    let mut restarts = Restarts::default();
    let db = vm("db");
    restarts.runs_under(&db, OWNED);
    restarts.on_permitted(&db);
    restarts.on_died(&db, WINDOW, at(1_000));
    restarts.on_refused(&db, WINDOW, at(1_100));
    assert_eq!(restarts.failures(&db), 1);
    restarts.on_permitted(&db);
    restarts.on_refused(&db, WINDOW, at(2_200));
    assert_eq!(restarts.failures(&db), 2);
}

#[test]
fn a_start_that_came_too_late_is_excused_twice_in_a_row() {
    let mut restarts = Restarts::default();
    let db = vm("db");
    let mut three = || [(); 3].map(|()| restarts.is_excused(&db));
    assert_eq!(three(), [true, true, false]);
    restarts.on_started(&db);
    assert!(restarts.is_excused(&db));
}

/// `db` runs on n3, may be restarted once and moved `max_relocations` times.
fn cluster(max_relocations: u32) -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    let spec = VmSpec { max_restarts: 1, max_relocations, ..spec("db") };
    cluster.ask_and_watch(3, Change::EnableVm(Box::new(spec)));
    cluster
}

/// The guest dies as soon as it runs, so often.
fn die(cluster: &mut Cluster, times: u32) {
    for _ in 0..times {
        cluster.end_guest("db", false);
        cluster.run(10_000);
    }
}

#[test]
fn a_vm_is_restarted_on_its_node_as_often_as_its_budget_says_and_then_moved() {
    let mut cluster = cluster(1);
    die(&mut cluster, 1);
    assert_eq!(cluster.homes("db"), [3]);
    die(&mut cluster, 1);
    assert_eq!(cluster.homes("db"), [1]);
    assert_eq!(cluster.starts.len(), 2);
}

#[test]
fn a_refused_start_is_tried_again_on_its_node_before_the_vm_is_moved() {
    let mut cluster = cluster(1);
    cluster.refusals = 1;
    die(&mut cluster, 1);
    assert_eq!(cluster.homes("db"), [1], "it ended once and was refused once: moved");
    let mut cluster = self::cluster(1);
    cluster.kill(3);
    cluster.refusals = 1;
    cluster.run(60_000);
    let [(started, _, 1)] = cluster.starts[..] else { panic!("starts: {:?}", cluster.starts) };
    let rest = started - cluster.refused[0];
    assert!((1_000..2_000).contains(&rest), "{rest}");
    assert_eq!(cluster.members[&1].machine.ledger().vms[&vm("db")].relocations, 0);
}

#[test]
fn a_vm_whose_budgets_are_spent_has_failed_until_it_is_started_again() {
    let mut cluster = cluster(1);
    die(&mut cluster, 4);
    assert!(cluster.homes("db").is_empty());
    let (state, reason) = cluster.shown(2, "db");
    assert_eq!(state, "failed");
    assert!(reason.contains("it ended 2 times") && reason.contains("moved 1 times"), "{reason}");
    let starts = cluster.starts.len();
    cluster.kill(3);
    cluster.run(120_000);
    assert_eq!(cluster.starts.len(), starts, "nothing is tried any more");
    cluster.ask_and_watch(2, Change::StartVm(vm("db")));
    assert_eq!(cluster.homes("db"), [1]);
    assert_eq!(cluster.shown(2, "db").0, "running");
}

#[test]
fn budgets_come_back_after_a_vm_has_run_for_long() {
    let mut cluster = cluster(1);
    die(&mut cluster, 2);
    cluster.run(601_000);
    assert_eq!(cluster.members[&1].machine.ledger().vms[&vm("db")].relocations, 0);
    die(&mut cluster, 2);
    assert_eq!(cluster.homes("db").len(), 1, "moved once more");
}

#[test]
fn a_move_because_a_node_died_costs_nothing() {
    let mut cluster = cluster(0);
    cluster.kill(3);
    cluster.run(60_000);
    assert_eq!(cluster.homes("db").len(), 1);
    assert_eq!(cluster.members[&1].machine.ledger().vms[&vm("db")].relocations, 0);
}

/// n3 owns `db` and says `state` of it.
fn stage(state: GuestState) -> Stage {
    let mut stage = Stage::new();
    own_vm(&mut stage.ledger, "db", 3, OWNED);
    stage.life(3).beat.guests = [GuestReport { vm: vm("db"), state }].into();
    stage.run(10_000);
    stage
}

fn applied(stage: &Stage, budgets: &mut Budgets) -> Option<VmEntry> {
    let mut next = stage.ledger.clone();
    let changed = budgets.apply(&mut next, &stage.facts(), &mut Vec::new());
    changed.then(|| next.vms[&vm("db")].clone())
}

#[test]
fn a_vm_that_runs_has_neither_failed_nor_failed_anywhere() {
    let mut stage = stage(GuestState::Running);
    let entry = stage.ledger.vms.get_mut(&vm("db")).unwrap();
    (entry.failed, entry.failed_on) = (Some("it ended".into()), [id(2)].into());
    let entry = applied(&stage, &mut Budgets::default()).unwrap();
    assert!(entry.failed.is_none() && entry.failed_on.is_empty());
    stage.life(3).beat.guests[0].state = GuestState::Starting;
    stage.run(500);
    assert_eq!(applied(&stage, &mut Budgets::default()), None);
}

#[test]
fn only_the_owners_word_that_it_gave_up_this_ownership_spends_a_budget() {
    let gives_up = |since| GuestState::GivenUp { since, reason: "no such disk".into() };
    let failed = |state| {
        let mut stage = stage(state);
        stage.ledger.vms.get_mut(&vm("db")).unwrap().relocations = 3;
        applied(&stage, &mut Budgets::default()).is_some_and(|entry| entry.failed.is_some())
    };
    assert!(failed(gives_up(OWNED)));
    assert!(!failed(gives_up(stamp(1, 1, 2))));
    assert!(!failed(GuestState::Stopping));
}
