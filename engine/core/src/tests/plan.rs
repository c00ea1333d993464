//! The leader's next ledger: evictions, proofs, admissions (PROTOCOL sections 4 and 5).

use super::*;
use crate::ids::{Identity, Incarnation};
use crate::kit::{boot, eviction, genesis, id, own_vm, set_eviction, stamp, vm, who};
use crate::ledger::Maintenance;
use crate::message::Beat;
use crate::stage::{Life, Stage};

const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 5, node: 1 }, version: 9 };
const EARLIER: Stamp = Stamp { ballot: crate::ids::Ballot { term: 4, node: 2 }, version: 6 };

fn evictions(stage: &Stage) -> Ledger {
    let mut next = stage.ledger.clone();
    apply_evictions(&mut next, NEXT, &stage.liveness, &mut Brake::default(), &stage.facts());
    next
}

/// What the leader, itself not ready, makes of the admissions.
fn admissions(stage: &Stage) -> Ledger {
    let mut fencing = Fencing::default();
    let (ledger, now) = (&stage.ledger, stage.facts().now);
    fencing.on_committed(ledger, &stage.beats, &stage.heartbeat, &stage.config, now);
    let mut next = stage.ledger.clone();
    apply_admissions(&mut next, NEXT, &fencing, None, &stage.facts());
    next
}

/// Nobody is admitted yet; n3's life is `change`d before ten seconds in order.
fn joining(change: impl Fn(&mut Life)) -> Stage {
    let mut stage = Stage::new();
    stage.ledger = genesis(3);
    change(stage.life(3));
    stage.run(10_000);
    stage
}

fn is_admitted(change: impl Fn(&mut Life)) -> bool {
    admissions(&joining(change)).admission(id(3)).is_some()
}

/// n3 was evicted by `EARLIER` with `proof`; is it admitted again?
fn comes_back(proof: Option<Proof>, change: impl Fn(&mut Life)) -> bool {
    let mut stage = joining(change);
    set_eviction(&mut stage.ledger, 3, Eviction { proof, ..eviction(3, EARLIER) });
    admissions(&stage).admission(id(3)).is_some()
}

#[test]
fn an_eviction_names_boot_commit_reason_and_the_span_that_the_victim_enforces() {
    let mut stage = Stage::settled();
    stage.kill(3);
    stage.run(6_000);
    let next = evictions(&stage);
    let expected =
        Eviction { reason: EvictionReason::FullFailure, fence_orders: 0, ..eviction(3, NEXT) };
    assert_eq!(next.eviction(id(3)), Some(&expected));
    assert_eq!(next.evictions().count(), 1);
}

#[test]
fn a_full_failure_with_a_fence_agent_has_its_order_recorded_in_the_very_eviction() {
    let mut stage = Stage::settled();
    stage.config.fence_agents.insert(id(3));
    stage.kill(3);
    stage.run(6_000);
    assert_eq!(evictions(&stage).eviction(id(3)).map(|e| e.fence_orders), Some(1));
}

/// n3, empty, fails while it is in maintenance.
fn rebooted_in_maintenance(after: u64, change: impl FnOnce(&mut Stage)) -> Stage {
    let mut stage = Stage::settled();
    stage.config.fence_agents.insert(id(3));
    let maintenance = Maintenance { since: EARLIER, restart: false, reason: "a new kernel".into() };
    stage.ledger.nodes.get_mut(&id(3)).unwrap().maintenance = Some(maintenance);
    change(&mut stage);
    stage.kill(3);
    stage.run(after);
    stage
}

#[test]
fn an_empty_node_in_maintenance_is_evicted_when_its_lease_has_run_out_and_not_fenced() {
    assert_eq!(evictions(&rebooted_in_maintenance(2_000, |_| {})).evictions().count(), 0);
    let mut stage = rebooted_in_maintenance(6_000, |_| {});
    stage.ledger = evictions(&stage);
    assert_eq!(stage.ledger.eviction(id(3)).map(|e| e.fence_orders), Some(0));
    let mut fencing = Fencing::default();
    let (ledger, now) = (stage.ledger.clone(), stage.facts().now);
    fencing.on_committed(&ledger, &stage.beats, &stage.heartbeat, &stage.config, now);
    assert!(!record_fence_orders(&mut ledger.clone(), &fencing, &stage.facts()));
}

#[test]
fn a_node_in_maintenance_is_fenced_while_a_vm_is_its_own() {
    let stage =
        rebooted_in_maintenance(2_000, |stage| own_vm(&mut stage.ledger, "web", 3, EARLIER));
    assert_eq!(evictions(&stage).eviction(id(3)).map(|e| e.fence_orders), Some(1));
}

#[test]
fn no_fence_order_is_recorded_for_a_node_that_is_isolated_only() {
    let mut stage = Stage::settled();
    stage.config.fence_agents.insert(id(3));
    stage.life(3).stores = false;
    stage.run(15_000);
    let next = evictions(&stage);
    let eviction = next.eviction(id(3)).unwrap();
    assert_eq!((eviction.reason, eviction.fence_orders), (EvictionReason::StorageIsolation, 0));
}

#[test]
fn the_time_rule_counts_only_what_was_shown_armed_under_the_admitted_boot() {
    let mut stage = Stage::new();
    stage.life(3).page.armed = false;
    stage.life(3).beat.armed = false;
    stage.run(10_000);
    let reborn = Identity { boot: BootId(77), ..who(3) };
    let armed = Beat { armed: true, ..crate::kit::beat(1) };
    stage.beats.on_received(reborn, armed.into(), stage.facts().now);
    stage.kill(3);
    stage.run(10_000);
    assert_eq!(evictions(&stage).eviction(id(3)).map(|e| e.span), Some(None));
}

#[test]
fn a_leader_never_evicts_itself() {
    let mut stage = Stage::settled();
    stage.life(1).stores = false;
    stage.run(60_000);
    assert_eq!(evictions(&stage), stage.ledger);
}

#[test]
fn a_page_of_another_boot_evicts_the_admitted_one_with_its_proof() {
    let mut stage = Stage::settled();
    stage.life(3).who.boot = BootId(77);
    stage.run(500);
    let next = evictions(&stage);
    let eviction = next.eviction(id(3)).unwrap();
    assert_eq!((eviction.boot, eviction.reason), (boot(3), EvictionReason::Rebooted));
    assert_eq!(eviction.proof, Some(Proof::BootChanged));
}

#[test]
fn a_beat_of_another_boot_evicts_nobody() {
    let mut stage = Stage::settled();
    let reborn = Identity { boot: BootId(77), ..who(3) };
    stage.beats.on_received(reborn, crate::kit::beat(1).into(), stage.facts().now);
    assert_eq!(evictions(&stage), stage.ledger);
}

#[test]
fn a_node_in_order_is_admitted_under_the_boot_that_its_page_shows() {
    let next = admissions(&joining(|_| {}));
    assert_eq!(next.admission(id(3)), Some((boot(3), NEXT)));
}

#[test]
fn an_admission_needs_idle_and_armed_by_page_and_by_beat() {
    assert!(!is_admitted(|life| life.beat.idle = false));
    assert!(!is_admitted(|life| life.beat.armed = false));
    assert!(!is_admitted(|life| life.page.idle = false), "a beat may be read late");
    assert!(!is_admitted(|life| life.page.armed = false));
}

#[test]
fn an_admission_needs_beats_and_working_storage() {
    assert!(!is_admitted(|life| life.beats = false));
    assert!(!is_admitted(|life| life.stores = false));
    let mut stage = joining(|_| {});
    stage.see(&[1, 2]);
    assert_eq!(admissions(&stage).admission(id(3)), None, "out of the view");
    let mut stage = joining(|_| {});
    stage.life(3).stores = false;
    stage.run(5_000);
    assert_eq!(admissions(&stage).admission(id(3)), None, "its last cycle is as old as a lease");
}

#[test]
fn a_page_of_another_boot_or_incarnation_than_the_beats_admits_nobody() {
    for other in [
        Identity { boot: BootId(77), ..who(3) },
        Identity { incarnation: Incarnation(2), ..who(3) },
    ] {
        let stage = &mut joining(|_| {});
        let said = Beat { idle: true, armed: true, ..crate::kit::beat(1) };
        let said = Beat { storage_age: Some(crate::time::Millis(10)), ..said };
        stage.beats.on_received(other, said.into(), stage.facts().now);
        assert_eq!(admissions(stage).admission(id(3)), None);
    }
}

#[test]
fn the_leader_admits_itself_only_when_it_is_ready() {
    let stage = joining(|_| {});
    assert_eq!(admissions(&stage).admission(id(1)), None);
    let mut next = stage.ledger.clone();
    let own = Some(boot(1));
    assert!(apply_admissions(&mut next, NEXT, &Fencing::default(), own, &stage.facts()));
    assert_eq!(next.admission(id(1)), Some((boot(1), NEXT)));
}

#[test]
fn an_admitted_node_is_not_admitted_anew() {
    let stage = Stage::settled();
    assert_eq!(admissions(&stage), stage.ledger);
}

#[test]
fn no_eviction_without_proof_is_ended_by_an_admission() {
    let proved = |life: &mut Life| life.page.none_left = Some(EARLIER);
    assert!(!comes_back(None, proved));
    assert!(comes_back(Some(Proof::NoneLeft), proved));
}

#[test]
fn the_evicted_boot_comes_back_only_on_its_own_none_left_for_that_very_eviction() {
    for proof in [Proof::Fenced, Proof::TimeExpired, Proof::NoneLeft] {
        assert!(!comes_back(Some(proof), |_| {}), "{proof:?} is not its own word");
        let other = |life: &mut Life| life.page.none_left = Some(stamp(4, 2, 5));
        assert!(!comes_back(Some(proof), other));
        assert!(!comes_back(Some(proof), |life| life.beat.none_left = Some(EARLIER)), "no page");
        assert!(comes_back(Some(proof), |life| life.page.none_left = Some(EARLIER)));
    }
}

#[test]
fn another_boot_comes_back_without_a_word_about_the_old_one() {
    assert!(comes_back(Some(Proof::BootChanged), |life| life.who.boot = BootId(77)));
}

#[test]
fn an_enrolment_is_acknowledged_when_its_owner_and_every_admitted_node_have_read_it() {
    let mut stage = Stage::settled();
    own_vm(&mut stage.ledger, "db", 3, EARLIER);
    stage.ledger.vms.get_mut(&vm("db")).unwrap().acknowledged = false;
    let acknowledged = |stage: &Stage| acknowledge(&mut stage.ledger.clone(), &stage.facts());
    stage.life(3).beat.known = stamp(4, 2, 5);
    stage.run(500);
    assert!(!acknowledged(&stage), "it has not read that far");
    (1..=2).for_each(|node| stage.life(node).beat.known = EARLIER);
    stage.run(500);
    assert!(!acknowledged(&stage), "others' words");
    stage.life(3).beat.known = EARLIER;
    stage.life(2).beat.known = stamp(4, 2, 5);
    stage.run(500);
    assert!(!acknowledged(&stage), "n2 may be running something under that UUID");
    stage.life(2).beat.known = EARLIER;
    stage.run(500);
    assert!(acknowledged(&stage));
    stage.life(3).beats = false;
    stage.run(5_000);
    assert!(!acknowledged(&stage), "it said so once and beats no more");
}

#[test]
fn an_evicted_owner_acknowledges_nothing() {
    let mut stage = Stage::settled();
    own_vm(&mut stage.ledger, "db", 3, EARLIER);
    stage.ledger.vms.get_mut(&vm("db")).unwrap().acknowledged = false;
    (1..=3).for_each(|node| stage.life(node).beat.known = EARLIER);
    stage.run(500);
    let acknowledged = |stage: &Stage| acknowledge(&mut stage.ledger.clone(), &stage.facts());
    assert!(acknowledged(&stage));
    for proof in [None, Some(Proof::NoneLeft), Some(Proof::TimeExpired)] {
        set_eviction(&mut stage.ledger, 3, Eviction { proof, ..eviction(3, EARLIER) });
        stage.run(500);
        assert!(!acknowledged(&stage), "{proof:?} would be taken to speak of a VM that runs");
    }
}
