//! Whom the leader orders to start what.

use super::*;
use crate::guest::GuestReport;
use crate::kit::{eviction, outbox, own_vm, sent, set_eviction, vm};
use crate::stage::Stage;

const OWNED: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 3 };
const EVICTED: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 5 };
const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 6 };

/// Everybody in order; n3 owns `db`, and says `state` of it.
fn stage(state: Option<GuestState>) -> Stage {
    let mut stage = Stage::new();
    own_vm(&mut stage.ledger, "db", 3, OWNED);
    let report = |state| GuestReport { vm: vm("db"), state };
    stage.life(3).beat.guests = state.map(report).into_iter().collect();
    stage.run(10_000);
    stage
}

fn given_up(since: Stamp) -> Option<GuestState> {
    Some(GuestState::GivenUp { since, reason: "no such disk".into() })
}

#[test]
fn an_owner_is_ordered_to_start_what_it_says_nothing_of_and_not_at_every_step() {
    let mut given = Orders::default();
    let mut orders = |stage: &Stage, now| {
        let mut out = outbox(1, now);
        given.give((1, NEXT), None, &stage.facts(), &mut out);
        sent(&mut out).len()
    };
    for state in [GuestState::Running, GuestState::Starting, GuestState::Stopping] {
        assert_eq!(orders(&stage(Some(state)), 20_000), 0);
    }
    assert_eq!(orders(&stage(given_up(OWNED)), 20_000), 0, "it will not start it");
    let silent = stage(None);
    assert_eq!(orders(&silent, 20_000), 1);
    assert_eq!(orders(&silent, 20_999), 0);
    assert_eq!(orders(&silent, 21_000), 1);
}

#[test]
fn an_order_names_the_owners_incarnation_its_term_and_the_ownership() {
    let mut out = outbox(1, 20_000);
    Orders::default().give((7, NEXT), None, &stage(None).facts(), &mut out);
    let to = crate::kit::who(3);
    let order = StartOrder { term: 7, stamp: NEXT, vm: vm("db"), since: OWNED, to };
    assert_eq!(sent(&mut out), [Body::StartVm(order)]);
}

#[test]
fn nobody_is_ordered_who_is_evicted() {
    let mut stage = stage(None);
    set_eviction(&mut stage.ledger, 3, eviction(3, EVICTED));
    let mut out = outbox(1, 20_000);
    Orders::default().give((7, NEXT), None, &stage.facts(), &mut out);
    assert!(sent(&mut out).is_empty());
}

#[test]
fn nobody_is_ordered_to_start_what_the_commit_under_way_takes_away() {
    let stage = stage(None);
    let ordered = |next: &Ledger| {
        let mut out = outbox(1, 20_000);
        Orders::default().give((7, NEXT), Some(next), &stage.facts(), &mut out);
        sent(&mut out).len()
    };
    assert_eq!(ordered(&stage.ledger), 1);
    let (mut moves, mut evicts) = (stage.ledger.clone(), stage.ledger.clone());
    own_vm(&mut moves, "db", 2, NEXT);
    set_eviction(&mut evicts, 3, eviction(3, NEXT));
    assert_eq!((ordered(&moves), ordered(&evicts)), (0, 0));
}

#[test]
fn nobody_is_ordered_to_start_what_is_not_acknowledged() {
    let mut stage = stage(None);
    stage.ledger.vms.get_mut(&vm("db")).unwrap().acknowledged = false;
    let mut out = outbox(1, 20_000);
    Orders::default().give((7, NEXT), None, &stage.facts(), &mut out);
    assert!(sent(&mut out).is_empty());
}

#[test]
fn nobody_is_ordered_to_start_what_is_to_be_off_or_has_failed() {
    let ordered = |change: &dyn Fn(&mut VmEntry)| {
        let mut stage = stage(None);
        change(stage.ledger.vms.get_mut(&vm("db")).unwrap());
        let mut out = outbox(1, 20_000);
        Orders::default().give((7, NEXT), None, &stage.facts(), &mut out);
        sent(&mut out).len()
    };
    assert_eq!(ordered(&|_| {}), 1);
    assert_eq!(ordered(&|entry| entry.desired = crate::ledger::Desired::Stopped), 0);
    assert_eq!(ordered(&|entry| entry.failed = Some("it ended".into())), 0);
}

#[test]
fn a_vm_is_ordered_when_those_before_it_run_and_it_is_told_once_what_it_waits_for() {
    let mut stage = stage(None);
    own_vm(&mut stage.ledger, "web", 3, OWNED);
    stage.ledger.vms.get_mut(&vm("web")).unwrap().spec.after = [vm("db")].into();
    let mut given = Orders::default();
    let mut out = outbox(1, 20_000);
    let mut ordered = |stage: &Stage| {
        out.now = out.now + crate::time::Millis(5_000);
        given.give((7, NEXT), None, &stage.facts(), &mut out);
        let records = out.actions.len();
        let vms = sent(&mut out).into_iter().map(|body| match body {
            Body::StartVm(order) => order.vm,
            other => panic!("expected orders, got {other:?}"),
        });
        let vms: std::vec::Vec<VmId> = vms.collect();
        (records - vms.len(), vms)
    };
    assert_eq!(ordered(&stage), (2, [vm("db")].into()));
    assert_eq!(ordered(&stage), (0, [vm("db")].into()));
    let state = GuestState::Running;
    stage.life(3).beat.guests = [GuestReport { vm: vm("db"), state }].into();
    stage.run(500);
    assert_eq!(ordered(&stage), (1, [vm("web")].into()));
}
