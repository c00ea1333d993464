//! What nodes have free, less what is promised.

use super::*;
use crate::guest::GuestReport;
use crate::kit::{at, id, own_vm, stamp, vm};
use crate::ledger::Migration;
use crate::stage::Stage;
use std::vec::Vec;

/// n2 owns `db` of 1 GiB, and says `state` of it.
fn stage(state: Option<GuestState>) -> Stage {
    let mut stage = Stage::new();
    own_vm(&mut stage.ledger, "db", 2, stamp(1, 1, 3));
    stage.ledger.vms.get_mut(&vm("db")).unwrap().spec.memory_mib = 1_024;
    let report = |state| GuestReport { vm: vm("db"), state };
    stage.life(2).beat.guests = state.map(report).into_iter().collect();
    stage.run(10_000);
    stage
}

/// What n1, n2 and n3, with 4 GiB free each, have left for others.
fn left(promises: &Promises, stage: &Stage) -> Vec<u64> {
    let node = |id| NodeFacts { id, memory_free_mib: 4_096, ..NodeFacts::default() };
    let mut nodes: Vec<NodeFacts> = (1..=3).map(node).collect();
    promises.take_off(&mut nodes, |_| false, &stage.facts());
    nodes.iter().map(|node| node.memory_free_mib).collect()
}

#[test]
fn a_vm_that_does_not_run_yet_has_its_room_and_one_that_runs_is_measured() {
    let promises = Promises::default();
    assert_eq!(left(&promises, &stage(None)), [4_096, 3_072, 4_096]);
    assert_eq!(left(&promises, &stage(Some(GuestState::Starting))), [4_096, 3_072, 4_096]);
    assert_eq!(left(&promises, &stage(Some(GuestState::Running))), [4_096; 3]);
}

#[test]
fn a_vm_that_runs_since_a_moment_ago_is_not_measured_yet() {
    let mut stage = stage(Some(GuestState::Running));
    let mut before = stage.ledger.clone();
    before.vms.get_mut(&vm("db")).unwrap().since = stamp(1, 1, 2);
    let mut promises = Promises::default();
    promises.on_committed(&before, &stage.ledger, at(stage.now));
    stage.run(11_500);
    assert_eq!(left(&promises, &stage), [4_096, 3_072, 4_096]);
    stage.run(500);
    assert_eq!(left(&promises, &stage), [4_096; 3]);
}

#[test]
fn the_target_of_a_migration_keeps_room_for_it() {
    let mut stage = stage(Some(GuestState::Running));
    let (to, since) = (id(3), stamp(1, 1, 4));
    let migration = Migration { to, since, reason: "a test".into() };
    stage.ledger.vms.get_mut(&vm("db")).unwrap().migration = Some(migration);
    assert_eq!(left(&Promises::default(), &stage), [4_096, 4_096, 3_072]);
}

#[test]
fn what_is_asked_about_is_promised_to_nobody() {
    let stage = stage(None);
    let mut nodes = [NodeFacts { id: 2, memory_free_mib: 4_096, ..NodeFacts::default() }];
    Promises::default().take_off(&mut nodes, |asked| *asked == vm("db"), &stage.facts());
    assert_eq!(nodes[0].memory_free_mib, 4_096);
}
