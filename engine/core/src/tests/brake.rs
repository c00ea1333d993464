//! Too many at once (PROTOCOL section 5). L is 5 s.

use super::*;
use crate::ids::Stamp;
use crate::kit::{evict, eviction, id, set_eviction, stamp};
use crate::plan;
use crate::stage::Stage;
use crate::time::Millis;

const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 5, node: 1 }, version: 9 };

/// Seven nodes, of which n5, n6 and n7 have died; the limit is two.
fn three_of_seven_are_dead() -> Stage {
    let mut stage = Stage::settled_of(7);
    stage.config.limits.max_evictions = Some(2);
    (5..=7).for_each(|node| stage.fall_silent(node));
    stage.run(1_000);
    stage.see(&[1, 2, 3, 4]);
    stage.run(6_000);
    stage
}

fn evicted(stage: &Stage, brake: &mut Brake) -> Ledger {
    let mut next = stage.ledger.clone();
    plan::apply_evictions(&mut next, NEXT, &stage.liveness, brake, &stage.facts());
    next
}

#[test]
fn as_many_as_are_believed_are_evicted_and_half_of_all_by_default() {
    let (mut stage, mut brake) = (three_of_seven_are_dead(), Brake::default());
    stage.config.limits.max_evictions = None;
    let next = evicted(&stage, &mut brake);
    assert_eq!((next.evictions().count(), brake.news.is_none()), (3, true));
    assert!(next.evictions().all(|(_, eviction)| eviction.span.is_some()));
}

#[test]
fn of_too_many_only_those_with_a_fence_agent_are_evicted_and_no_time_proves_them_dead() {
    let (mut stage, mut brake) = (three_of_seven_are_dead(), Brake::default());
    assert_eq!(evicted(&stage, &mut brake).evictions().count(), 0);
    assert!(brake.news.take().is_some(), "the leader says why");
    stage.config.fence_agents.insert(id(6));
    let next = evicted(&stage, &mut brake);
    let of_n6 = next.eviction(id(6)).unwrap();
    assert_eq!((next.evictions().count(), of_n6.span, of_n6.fence_orders), (1, None, 1));
    assert!(brake.news.is_none(), "once");
}

#[test]
fn what_this_leader_evicted_within_the_last_lease_counts() {
    let (mut stage, mut brake) = (three_of_seven_are_dead(), Brake::default());
    let before = stage.ledger.clone();
    evict(&mut stage.ledger, 6, stamp(5, 1, 8));
    evict(&mut stage.ledger, 7, stamp(5, 1, 8));
    brake.on_committed(&before, &stage.ledger, stage.facts().now);
    assert_eq!(evicted(&stage, &mut brake).eviction(id(5)), None);
    stage.run(4_500);
    assert_eq!(evicted(&stage, &mut brake).eviction(id(5)), None);
    stage.run(1_000);
    assert!(evicted(&stage, &mut brake).eviction(id(5)).is_some());
}

#[test]
fn reboots_and_removals_do_not_pull_the_brake() {
    let mut brake = Brake::default();
    let (mut stage, before) = (three_of_seven_are_dead(), crate::kit::admitted(7));
    for (node, reason) in [(6, EvictionReason::Rebooted), (7, EvictionReason::Removed)] {
        let eviction = Eviction { reason, ..eviction(node, stamp(5, 1, 8)) };
        set_eviction(&mut stage.ledger, node, eviction);
    }
    brake.on_committed(&before, &stage.ledger, stage.facts().now);
    assert!(!brake.holds(2, &stage.facts()));
    assert!(brake.holds(3, &stage.facts()));
    let again = stage.ledger.clone();
    brake.on_committed(&again, &again, stage.facts().now + Millis(1));
    assert!(!brake.holds(2, &stage.facts()), "an eviction counts once");
}

#[test]
fn a_rebooted_node_is_evicted_whatever_the_brake_says() {
    let (mut stage, mut brake) = (three_of_seven_are_dead(), Brake::default());
    stage.life(4).who.boot = crate::ids::BootId(44);
    stage.run(1_000);
    let next = evicted(&stage, &mut brake);
    assert_eq!(next.evictions().map(|(node, _)| node).collect::<Vec<_>>(), [id(4)]);
}
