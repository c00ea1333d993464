//! Which VMs have no place (the fifth proof, and what the others allow), and who may take them.

use super::*;
use crate::guest::GuestReport;
use crate::kit::{eviction, id, own_vm, set_eviction, stamp, vm};
use crate::ledger::Eviction;
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

fn orphan(stage: &Stage) -> bool {
    is_orphan(&stage.ledger, &stage.ledger.vms[&vm("db")], &stage.facts())
}

fn given_up(since: Stamp) -> Option<GuestState> {
    Some(GuestState::GivenUp { since, reason: "no such disk".into() })
}

#[test]
fn a_vm_of_an_admitted_owner_is_no_orphan_whether_it_runs_or_nothing_is_said_of_it() {
    assert!(!orphan(&stage(Some(GuestState::Running))));
    assert!(!orphan(&stage(Some(GuestState::Stopping))));
    assert!(!orphan(&stage(None)), "silence about a VM is no statement that it is gone");
}

#[test]
fn a_dead_owner_that_is_not_evicted_makes_no_orphan() {
    let mut stage = stage(Some(GuestState::Running));
    stage.kill(3);
    stage.run(60_000);
    assert!(!orphan(&stage));
}

#[test]
fn the_owners_word_that_it_gave_up_this_very_ownership_makes_an_orphan() {
    assert!(orphan(&stage(given_up(OWNED))));
    assert!(!orphan(&stage(given_up(stamp(1, 1, 2)))), "an earlier ownership");
}

#[test]
fn another_nodes_word_that_it_gave_up_the_vm_makes_no_orphan() {
    let mut stage = stage(Some(GuestState::Running));
    let report = GuestReport { vm: vm("db"), state: given_up(OWNED).unwrap() };
    stage.life(2).beat.guests = [report].into();
    stage.run(500);
    assert!(!orphan(&stage));
}

#[test]
fn an_eviction_makes_an_orphan_only_once_it_is_proved() {
    let mut stage = stage(given_up(OWNED));
    for (proof, is) in [
        (None, false),
        (Some(Proof::NoneLeft), true),
        (Some(Proof::Fenced), true),
        (Some(Proof::BootChanged), true),
        (Some(Proof::TimeExpired), true),
    ] {
        set_eviction(&mut stage.ledger, 3, Eviction { proof, ..eviction(3, EVICTED) });
        assert_eq!(orphan(&stage), is, "{proof:?}");
    }
}

/// A VM came under HA and its owner may never have heard of it: only the end of its kernel ends the VM.
#[test]
fn an_enrolment_that_the_owner_has_not_read_outlives_its_none_left_and_its_lease() {
    let mut stage = stage(None);
    stage.ledger.vms.get_mut(&vm("db")).unwrap().acknowledged = false;
    for (proof, is) in [
        (Proof::NoneLeft, false),
        (Proof::TimeExpired, false),
        (Proof::Fenced, true),
        (Proof::BootChanged, true),
    ] {
        let proof = Some(proof);
        set_eviction(&mut stage.ledger, 3, Eviction { proof, ..eviction(3, EVICTED) });
        assert_eq!(orphan(&stage), is, "{proof:?}");
    }
}

#[test]
fn a_place_that_was_decided_and_is_not_legal_any_more_is_dropped() {
    let decide = |stage: &Stage, node| {
        let decided = [Assignment { vm: vm("db"), node: id(node) }].into();
        let mut recovery = Recovery { decided, ..Recovery::default() };
        let mut next = stage.ledger.clone();
        let changed = recovery.apply(&mut next, NEXT, &Migrations::default(), &stage.facts());
        assert_eq!(changed, next.vms[&vm("db")].owner == id(node));
        changed
    };
    let mut orphaned = stage(given_up(OWNED));
    assert!(decide(&orphaned, 2));
    set_eviction(&mut orphaned.ledger, 2, eviction(2, EVICTED));
    assert!(!decide(&orphaned, 2), "the target is evicted meanwhile");
    let mut orphaned = stage(given_up(OWNED));
    orphaned.fall_silent(2);
    orphaned.run(5_000);
    assert!(!decide(&orphaned, 2), "the target is silent meanwhile");
    assert!(!decide(&stage(Some(GuestState::Running)), 2), "the VM runs again meanwhile");
}

#[test]
fn a_node_that_the_same_commit_evicts_is_given_nothing() {
    let stage = stage(given_up(OWNED));
    let decided = [Assignment { vm: vm("db"), node: id(2) }].into();
    let mut recovery = Recovery { decided, ..Recovery::default() };
    let mut next = stage.ledger.clone();
    set_eviction(&mut next, 2, eviction(2, NEXT));
    assert!(!recovery.apply(&mut next, NEXT, &Migrations::default(), &stage.facts()));
    assert_eq!(next.vms[&vm("db")].owner, id(3));
}

#[test]
fn a_vm_that_moves_is_owned_from_that_commit_on_and_remembers_where_it_failed() {
    let stage = stage(given_up(OWNED));
    let decided = [Assignment { vm: vm("db"), node: id(2) }].into();
    let mut recovery = Recovery { decided, ..Recovery::default() };
    let mut next = stage.ledger.clone();
    recovery.apply(&mut next, NEXT, &Migrations::default(), &stage.facts());
    let entry = &next.vms[&vm("db")];
    assert_eq!((entry.owner, entry.since), (id(2), NEXT));
    assert_eq!(entry.failed_on, [id(3)].into());
}

fn places(stage: &Stage) -> Vec<u32> {
    let own = NodeFacts { id: 1, ..NodeFacts::default() };
    candidates(&stage.facts(), &own, true).iter().map(|facts| facts.id).collect()
}

#[test]
fn only_admitted_beating_armed_and_leased_nodes_with_storage_may_take_vms() {
    let stage_of = |change: &dyn Fn(&mut Stage)| {
        let mut stage = Stage::new();
        (2..=3).for_each(|node| stage.life(node).beat.facts.id = node);
        change(&mut stage);
        stage.run(10_000);
        places(&stage)
    };
    assert_eq!(stage_of(&|_| {}), [1, 2, 3]);
    assert_eq!(stage_of(&|s| set_eviction(&mut s.ledger, 3, eviction(3, EVICTED))), [1, 2]);
    assert_eq!(stage_of(&|s| s.life(3).beats = false), [1, 2]);
    assert_eq!(stage_of(&|s| s.life(3).beat.armed = false), [1, 2]);
    assert_eq!(stage_of(&|s| s.life(3).beat.lease_left = None), [1, 2]);
    assert_eq!(stage_of(&|s| s.life(3).beat.lease_left = Some(Millis(1_000))), [1, 2], "margin");
    assert_eq!(stage_of(&|s| s.life(3).stores = false), [1, 2]);
    assert_eq!(stage_of(&|s| s.see(&[1, 2])), [1, 2]);
}

#[test]
fn what_an_owner_said_before_it_left_the_view_is_no_statement_any_more() {
    let mut stage = stage(given_up(OWNED));
    assert!(orphan(&stage));
    stage.beats.on_gone(id(3));
    assert!(!orphan(&stage));
}

#[test]
fn what_a_commit_placed_is_told_even_if_the_next_places_are_decided_before_it_landed() {
    let stage = stage(given_up(OWNED));
    let (question, verdict) = (PlacementQuestion::default(), PlacementVerdict::default());
    let asked = Asked::Placement { question, verdict };
    let record = |name: &str| PolicyRecord {
        decider: Decider { name: name.into(), ..Decider::default() },
        asked: asked.clone(),
        corrections: Vec::new(),
    };
    let decided = [Assignment { vm: vm("db"), node: id(2) }].into();
    let mut recovery = Recovery { decided, record: Some(record("first")), ..Recovery::default() };
    let mut next = stage.ledger.clone();
    assert!(recovery.apply(&mut next, NEXT, &Migrations::default(), &stage.facts()));
    recovery.record = Some(record("second"));
    let mut out = crate::kit::outbox(1, 0);
    recovery.on_committed(&stage.ledger, &next, &mut out);
    let told = out.actions.iter().filter_map(|action| match action {
        Action::Record(record) => record.policy.as_ref().map(|p| p.decider.name.as_str()),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["first"]);
}
