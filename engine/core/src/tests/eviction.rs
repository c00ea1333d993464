//! The five proofs and what must not be taken for one (PROTOCOL section 5); the fifth is in `recovery.rs`.
//!
//! n1 leads and has taken the eviction of n3 by `5.1v4` as committed at 10 000. Standard timing: L + S = 10 s.

use super::*;
use crate::ids::{BootId, Identity};
use crate::kit::{
    admit, all_admitted, at, beat, config, eviction, id, outbox, page, pages, set_eviction, show,
    stamp, who,
};
use crate::message::Beat;
use crate::page::{Page, Pages};
use crate::view::View;
use std::boxed::Box;
use std::vec::Vec;

const EVICTION: Stamp = Stamp { ballot: crate::ids::Ballot { term: 5, node: 1 }, version: 4 };
const COMMITTED: u64 = 10_000;
/// When n1 received the newest beat of n3 that it echoed.
const OWN_ECHO: u64 = 7_000;
/// When the read that first showed n3's last page was complete.
const SHOWN: u64 = 6_520;

struct Case3 {
    fencing: Fencing,
    beats: Beats,
    heartbeat: Heartbeat,
    config: Config,
    ledger: Ledger,
    disk: Pages,
}

impl Case3 {
    fn new() -> Self {
        Self::of(eviction(3, EVICTION))
    }

    fn of(eviction: Eviction) -> Self {
        let mut ledger = all_admitted();
        set_eviction(&mut ledger, 3, eviction);
        let config = config(1);
        let mut beats = Beats::new(who(1), at(0));
        beats.on_ledger(stamp(1, 1, 1), &all_admitted(), true);
        beats.permit_echoes();
        beats.on_received(who(3), Box::new(beat(8)), at(OWN_ECHO));
        beats.begin_beat(&config, at(OWN_ECHO + 10));
        let mut heartbeat = Heartbeat::new(who(1), crate::kit::nodes(), at(0));
        let mut disk = pages([page(3, 40)]);
        show(&mut heartbeat, &mut disk, 100, 120);
        disk.insert(id(3), Some(page(3, 41)));
        show(&mut heartbeat, &mut disk, SHOWN - 20, SHOWN);
        beats.on_ledger(EVICTION, &ledger, true);
        let mut fencing = Fencing::default();
        fencing.on_committed(&ledger, &beats, &heartbeat, &config, at(COMMITTED));
        Self { fencing, beats, heartbeat, config, ledger, disk }
    }

    fn eviction(&self) -> &Eviction {
        self.ledger.eviction(id(3)).unwrap()
    }

    fn proof(&self, now: u64) -> Option<Proof> {
        let facts = Facts {
            config: &self.config,
            now: at(now),
            ledger: &self.ledger,
            ledger_leader: None,
            witness: &crate::quorum::Witness::default(),
            view: &View::default(),
            beats: &self.beats,
            heartbeat: &self.heartbeat,
            leader: None,
            storage_since: None,
        };
        self.fencing.proof(id(3), self.eviction(), &facts)
    }

    /// A complete cycle whose read begins at `began` and takes 20 ms.
    fn read(&mut self, began: u64) {
        let cycle = show(&mut self.heartbeat, &mut self.disk, began, began + 20);
        self.fencing.on_cycle(&cycle, &self.heartbeat, &self.config);
    }

    /// n3's page as the next read will show it.
    fn write(&mut self, page: Page) {
        self.disk.insert(id(3), Some(page));
    }

    fn promise(&mut self, by: u32, eviction: Stamp, age: u64, received: u64) {
        let bound = Bound { victim: id(3), eviction, age: Millis(age) };
        self.fencing.on_bound(id(by), &bound, at(received));
    }

    fn beat(&mut self, from: Identity, beat: Beat) {
        self.beats.on_received(from, Box::new(beat), at(COMMITTED + 100));
    }

    fn wants_fence(&self, now: u64) -> bool {
        self.fencing.wants_fence(id(3), self.eviction(), &self.config, at(now))
    }

    fn orders(&mut self, confirmed: Option<u64>, now: u64) -> bool {
        let mut out = outbox(1, now);
        let ordered = self.fencing.order(&self.ledger, confirmed.map(at), Millis(500), &mut out);
        let fence = Action::Fence { victim: id(3), eviction: EVICTION };
        assert_eq!(out.actions.contains(&fence), !ordered.is_empty());
        !ordered.is_empty()
    }

    fn record_order(&mut self) {
        let mut eviction = self.eviction().clone();
        eviction.fence_orders += 1;
        set_eviction(&mut self.ledger, 3, eviction);
    }

    fn may_admit(&self, now: u64) -> bool {
        self.fencing.may_admit(id(3), self.eviction(), &self.config, at(now))
    }
}

const LATE: u64 = 1_000_000;

#[test]
fn during_a_change_half_of_the_nodes_before_it_must_have_promised_too() {
    let mut case = Case3::new();
    let before = [3, 4, 5, 6].map(id).into();
    case.ledger.changing = Some(crate::ledger::Changing { before, since: stamp(5, 1, 3) });
    case.read(COMMITTED + 100);
    case.promise(2, EVICTION, 4_000, COMMITTED + 100);
    case.promise(4, EVICTION, 4_000, COMMITTED + 100);
    assert_eq!(case.proof(LATE), None, "one of the four that n3 may still count");
    case.promise(5, EVICTION, 4_000, COMMITTED + 100);
    assert_eq!(case.proof(LATE), Some(Proof::TimeExpired));
}

#[test]
fn nothing_proves_a_node_dead_that_only_says_nothing() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    assert_eq!(case.proof(LATE), None, "no promise but the leader's own: fewer than half");
}

// --- proof 1: its own word -------------------------------------------------------------------------------

#[test]
fn none_left_for_this_very_eviction_is_proof_by_page_or_by_beat() {
    let mut by_page = Case3::new();
    by_page.write(Page { none_left: Some(EVICTION), ..page(3, 42) });
    by_page.read(COMMITTED + 100);
    assert_eq!(by_page.proof(COMMITTED + 200), Some(Proof::NoneLeft));
    let mut by_beat = Case3::new();
    by_beat.beat(who(3), Beat { none_left: Some(EVICTION), ..beat(9) });
    assert_eq!(by_beat.proof(COMMITTED + 200), Some(Proof::NoneLeft));
}

#[test]
fn none_left_of_another_eviction_is_no_proof() {
    for other in [stamp(5, 1, 3), stamp(4, 1, 4), stamp(5, 2, 4), stamp(9, 1, 9)] {
        let mut case = Case3::new();
        case.write(Page { none_left: Some(other), idle: true, ..page(3, 42) });
        case.read(COMMITTED + 100);
        case.beat(who(3), Beat { none_left: Some(other), idle: true, ..beat(9) });
        assert_eq!(case.proof(LATE), None);
    }
}

#[test]
fn idle_is_not_none_left() {
    let mut case = Case3::new();
    case.beat(who(3), Beat { idle: true, ..beat(9) });
    assert_eq!(case.proof(LATE), None);
}

// --- proof 2: a fence agent ------------------------------------------------------------------------------

#[test]
fn a_fence_agents_success_for_this_eviction_is_proof() {
    let mut case = Case3::new();
    case.fencing.on_fence_ended(id(3), stamp(4, 1, 2), Ok(()), at(COMMITTED + 900));
    assert_eq!(case.proof(LATE), None, "an earlier eviction's agent");
    case.fencing.on_fence_ended(id(3), EVICTION, Err("no route".into()), at(COMMITTED + 950));
    assert_eq!(case.proof(LATE), None, "a failed agent");
    case.fencing.on_fence_ended(id(3), EVICTION, Ok(()), at(COMMITTED + 990));
    assert_eq!(case.proof(COMMITTED + 991), Some(Proof::Fenced));
}

// --- proof 3: another boot -------------------------------------------------------------------------------

#[test]
fn a_page_of_another_boot_is_proof_once_read_after_the_commit() {
    let mut case = Case3::new();
    let reborn = Identity { boot: BootId(77), ..who(3) };
    case.write(Page { writer: reborn, idle: true, ..page(3, 42) });
    assert_eq!(case.proof(COMMITTED + 10), None);
    case.read(COMMITTED + 100);
    assert_eq!(case.proof(COMMITTED + 200), Some(Proof::BootChanged));
}

#[test]
fn another_boot_that_runs_ha_vms_already_is_no_proof() {
    let mut case = Case3::new();
    let reborn = Identity { boot: BootId(77), ..who(3) };
    case.write(Page { writer: reborn, idle: false, ..page(3, 42) });
    case.read(COMMITTED + 100);
    assert_eq!(case.proof(LATE), None, "somebody started them without us");
}

#[test]
fn another_boot_seen_only_in_a_beat_is_no_proof() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    case.beat(Identity { boot: BootId(77), ..who(3) }, beat(1));
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn another_incarnation_of_the_same_boot_is_no_proof() {
    let mut case = Case3::new();
    let restarted = Identity { incarnation: crate::ids::Incarnation(2), ..who(3) };
    case.write(Page { writer: restarted, idle: true, ..page(3, 42) });
    case.read(COMMITTED + 100);
    assert_eq!(case.proof(LATE), None);
}

// --- proof 4: time ---------------------------------------------------------------------------------------

/// A case with the promises of n1 (leader) and n2, and its page read again: all that rule 4 needs.
fn timed() -> Case3 {
    let mut case = Case3::new();
    case.promise(2, EVICTION, 3_030, COMMITTED + 300);
    case.read(COMMITTED + 100);
    case
}

#[test]
fn surely_dead_is_l_and_s_and_one_percent_and_250_ms() {
    assert_eq!(config(1).span(), Some(Millis(10_000)));
    assert_eq!(surely_dead(Millis(10_000)), Millis(10_350));
    assert_eq!(surely_dead(Millis(6_333)), Millis(6_333 + 64 + 250), "rounded to the safe side");
}

#[test]
fn time_is_proof_from_the_younger_bound_on_and_not_a_millisecond_earlier() {
    // n2: received at 10 300, age 3 030 by a clock that may run 1 % fast: 7 300 in own time.
    let case = timed();
    let end = 7_300 + 10_350;
    assert_eq!(case.proof(end - 1), None);
    assert_eq!(case.proof(end), Some(Proof::TimeExpired));
}

#[test]
fn the_storage_bound_counts_when_it_is_the_younger() {
    let mut case = Case3::new();
    case.promise(2, EVICTION, 9_000, COMMITTED + 300);
    case.write(page(3, 42));
    case.read(COMMITTED + 100);
    let end = COMMITTED + 120 + 10_350;
    assert_eq!(case.proof(end - 1), None, "the page moved as late as the re-read");
    assert_eq!(case.proof(end), Some(Proof::TimeExpired));
}

#[test]
fn the_leaders_own_echo_is_a_bound_too() {
    let mut case = Case3::new();
    case.promise(2, EVICTION, 9_000, COMMITTED + 300);
    case.read(COMMITTED + 100);
    let end = OWN_ECHO + 10_350;
    assert_eq!((case.proof(end - 1), case.proof(end)), (None, Some(Proof::TimeExpired)));
}

#[test]
fn a_storage_bound_needs_a_read_begun_after_the_commit() {
    let mut case = Case3::new();
    case.promise(2, EVICTION, 3_030, COMMITTED + 300);
    case.read(COMMITTED - 1);
    assert_eq!(case.proof(LATE), None);
    case.read(COMMITTED + 40);
    assert_eq!(case.proof(LATE), Some(Proof::TimeExpired));
}

#[test]
fn a_page_that_was_never_seen_has_no_storage_bound() {
    let mut case = Case3::new();
    case.heartbeat = Heartbeat::new(who(1), crate::kit::nodes(), at(0));
    case.disk = pages([]);
    case.promise(2, EVICTION, 3_030, COMMITTED + 300);
    case.read(COMMITTED + 40);
    case.read(COMMITTED + 80);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn a_promise_for_another_eviction_is_no_promise() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    case.promise(2, stamp(4, 1, 2), 3_030, COMMITTED + 300);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn the_evicted_nodes_own_promise_does_not_count() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    case.promise(3, EVICTION, 3_030, COMMITTED + 300);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn a_second_promise_of_the_same_node_is_not_a_second_nodes() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    case.promise(1, EVICTION, 3_030, COMMITTED + 300);
    case.promise(1, EVICTION, 3_030, COMMITTED + 800);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn promises_of_half_the_nodes_are_needed_and_enough() {
    for (nodes, others_needed) in [(2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3)] {
        let mut case = Case3::new();
        case.ledger.nodes.extend(
            (4..=9).map(|node| (id(node), crate::kit::genesis(9).nodes[&id(node)].clone())),
        );
        case.ledger.nodes.retain(|node, _| node.0 <= nodes || node.0 == 3);
        if nodes == 2 {
            case.ledger.nodes.remove(&id(2));
        }
        case.read(COMMITTED + 100);
        let others: Vec<u32> = [2, 4, 5, 6, 7].into_iter().take(others_needed).collect();
        for other in others {
            assert_eq!(case.proof(LATE), None, "{nodes} nodes, before the word of n{other}");
            case.promise(other, EVICTION, 100, COMMITTED + 300);
        }
        assert_eq!(case.proof(LATE), Some(Proof::TimeExpired), "{nodes} nodes");
    }
}

#[test]
fn time_proves_nothing_of_a_node_that_was_not_seen_armed() {
    let mut case = timed();
    let unarmed = Eviction { span: None, ..eviction(3, EVICTION) };
    set_eviction(&mut case.ledger, 3, unarmed);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn time_proves_nothing_once_the_page_says_under_the_same_boot_that_the_node_may_be_paused() {
    let mut case = Case3::new();
    case.promise(2, EVICTION, 3_030, COMMITTED + 300);
    case.write(Page { span: None, ..page(3, 42) });
    case.read(COMMITTED + 100);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn the_victims_own_span_counts_and_the_longer_of_what_it_showed() {
    let mut case = Case3::new();
    case.promise(2, EVICTION, 3_030, COMMITTED + 300);
    case.write(Page { span: Some(Millis(20_000)), ..page(3, 42) });
    case.read(COMMITTED + 100);
    let end = COMMITTED + 120 + 20_450;
    assert_eq!((case.proof(end - 1), case.proof(end)), (None, Some(Proof::TimeExpired)));
}

#[test]
fn a_page_that_goes_on_moving_moves_the_storage_bound_with_it() {
    let mut case = timed();
    case.write(page(3, 42));
    case.read(COMMITTED + 5_000);
    let end = COMMITTED + 5_020 + 10_350;
    assert_eq!((case.proof(end - 1), case.proof(end)), (None, Some(Proof::TimeExpired)));
}

#[test]
fn a_promise_of_a_node_that_is_not_configured_does_not_count() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    case.promise(9, EVICTION, 3_030, COMMITTED + 300);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn a_leaders_own_promise_about_its_own_eviction_does_not_count() {
    let mut case = Case3::new();
    case.fencing.clear();
    case.config = config(3);
    let (ledger, config) = (&case.ledger, &case.config);
    case.fencing.on_committed(ledger, &case.beats, &case.heartbeat, config, at(COMMITTED));
    case.read(COMMITTED + 100);
    case.promise(2, EVICTION, 3_030, COMMITTED + 300);
    assert_eq!(case.proof(LATE), None);
}

#[test]
fn a_new_leader_has_no_proof_until_it_has_collected_its_own() {
    let mut case = timed();
    case.fencing.clear();
    assert_eq!(case.proof(LATE), None);
    case.fencing.on_fence_ended(id(3), EVICTION, Ok(()), at(LATE));
    assert_eq!(case.proof(LATE), None, "no case is open");
}

// --- fence agents ----------------------------------------------------------------------------------------

#[test]
fn a_fence_agent_is_ordered_only_once_its_order_is_recorded() {
    let mut case = Case3::new();
    case.read(COMMITTED + 100);
    assert!(case.wants_fence(COMMITTED + 120));
    assert!(case.fencing.needs_record(id(3), case.eviction()));
    assert!(!case.orders(Some(COMMITTED + 100), COMMITTED + 120));
    case.record_order();
    assert!(!case.fencing.needs_record(id(3), case.eviction()));
    assert!(case.orders(Some(COMMITTED + 100), COMMITTED + 130));
    assert!(!case.orders(Some(COMMITTED + 100), COMMITTED + 140), "it runs");
}

#[test]
fn a_fence_agent_is_ordered_only_after_a_cycle_begun_after_the_commit_confirmed_the_term() {
    let mut case = Case3::new();
    case.record_order();
    assert!(!case.orders(Some(COMMITTED + 50), COMMITTED + 60), "its page was not read again");
    case.read(COMMITTED + 100);
    assert!(!case.orders(None, COMMITTED + 120));
    assert!(!case.orders(Some(COMMITTED - 1), COMMITTED + 120));
    assert!(case.orders(Some(COMMITTED + 100), COMMITTED + 120));
}

#[test]
fn a_fence_agent_is_not_ordered_on_a_confirmation_that_is_three_beats_old() {
    let mut case = Case3::new();
    case.record_order();
    case.read(COMMITTED + 100);
    assert!(!case.orders(Some(COMMITTED + 100), COMMITTED + 1_600), "it may be deposed by now");
    assert!(case.orders(Some(COMMITTED + 100), COMMITTED + 1_599));
}

#[test]
fn no_fence_agent_runs_when_the_page_moved_after_the_eviction() {
    let mut case = Case3::new();
    case.record_order();
    case.write(page(3, 42));
    case.read(COMMITTED + 100);
    assert!(!case.wants_fence(COMMITTED + 120));
    assert!(!case.orders(Some(COMMITTED + 100), COMMITTED + 120));
    // It moves on: no agent however long it takes.
    for (step, sequence) in (43..60).enumerate() {
        let now = COMMITTED + 1_000 * (step as u64 + 1);
        case.write(page(3, sequence));
        case.read(now);
        assert!(!case.orders(Some(now), now + 20));
    }
}

#[test]
fn a_page_that_fell_silent_again_for_l_and_s_is_a_case_for_the_fence_agent_again() {
    let mut case = Case3::new();
    case.record_order();
    case.write(page(3, 42));
    case.read(COMMITTED + 100);
    let silent_since = COMMITTED + 120;
    case.read(silent_since + 9_970);
    assert!(!case.orders(Some(silent_since + 9_970), silent_since + 9_990));
    case.read(silent_since + 9_980);
    assert!(case.orders(Some(silent_since + 9_980), silent_since + 10_000));
}

#[test]
fn a_failed_fence_agent_is_ordered_again_later_and_recorded_again() {
    let mut case = Case3::new();
    case.record_order();
    case.read(COMMITTED + 100);
    assert!(case.orders(Some(COMMITTED + 100), COMMITTED + 120));
    case.fencing.on_fence_ended(id(3), EVICTION, Err("refused".into()), at(COMMITTED + 1_000));
    assert!(!case.wants_fence(COMMITTED + 5_999));
    assert!(case.wants_fence(COMMITTED + 6_000));
    assert!(!case.orders(Some(COMMITTED + 6_000), COMMITTED + 6_010), "its order is not recorded");
    case.record_order();
    assert!(case.orders(Some(COMMITTED + 6_000), COMMITTED + 6_020));
}

#[test]
fn an_isolated_or_drained_node_gets_its_own_time_before_a_fence_agent() {
    use EvictionReason::{NetworkIsolation, Removed, StorageIsolation};
    for reason in [StorageIsolation, NetworkIsolation, Removed] {
        let mut case = Case3::of(Eviction { reason, ..eviction(3, EVICTION) });
        case.read(COMMITTED + 100);
        assert!(!case.wants_fence(COMMITTED + 9_999));
        assert!(case.wants_fence(COMMITTED + 10_000));
    }
}

#[test]
fn nobody_is_admitted_again_while_a_fence_agent_may_still_act() {
    let mut case = Case3::new();
    assert!(case.may_admit(COMMITTED + 1), "none was ever ordered");
    case.record_order();
    case.read(COMMITTED + 100);
    assert!(!case.may_admit(COMMITTED + 29_999), "an earlier leader's may be running");
    assert!(!case.may_admit(COMMITTED + 30_001), "it is killed at its time-out, and may have cut");
    assert!(case.may_admit(COMMITTED + 31_500), "what beats now beats after that");
    assert!(case.orders(Some(COMMITTED + 100), COMMITTED + 120));
    assert!(!case.may_admit(LATE), "ours is running");
    case.fencing.on_fence_ended(id(3), EVICTION, Ok(()), at(COMMITTED + 900));
    assert!(!case.may_admit(COMMITTED + 901), "what beats is heard of before its end");
    assert!(case.may_admit(COMMITTED + 900 + 1_500));
}

#[test]
fn a_new_leaders_own_success_does_not_end_an_earlier_leaders_agent() {
    let mut case = Case3::of(Eviction { fence_orders: 1, ..eviction(3, EVICTION) });
    case.read(COMMITTED + 100);
    assert!(case.orders(Some(COMMITTED + 100), COMMITTED + 120));
    case.fencing.on_fence_ended(id(3), EVICTION, Ok(()), at(COMMITTED + 900));
    assert!(!case.may_admit(COMMITTED + 3_000), "the earlier agent may run until its time-out");
    assert!(case.may_admit(COMMITTED + 31_500));
}

#[test]
fn a_case_ends_with_its_eviction() {
    let mut case = timed();
    admit(&mut case.ledger, 3, stamp(5, 1, 9));
    let (ledger, config) = (&case.ledger, &case.config);
    case.fencing.on_committed(ledger, &case.beats, &case.heartbeat, config, at(LATE));
    set_eviction(&mut case.ledger, 3, eviction(3, stamp(5, 1, 12)));
    assert_eq!(case.proof(LATE), None);
    set_eviction(&mut case.ledger, 3, eviction(3, EVICTION));
    assert_eq!(case.proof(LATE), None, "what was collected is gone");
}
