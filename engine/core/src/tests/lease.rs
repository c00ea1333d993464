//! Who may run HA VMs, by when (PROTOCOL section 4). Standard timing: L = S = 5 s, W = 4 s, beats of 500 ms.

use super::*;
use crate::config::Inherited;
use crate::kit::{at, config, outbox, stamp};

fn admitted() -> Lease {
    let mut lease = Lease::new(&config(1));
    assert!(lease.on_admitted(stamp(1, 1, 1), None));
    lease
}

/// A feed asked for now ended at `ended`.
fn fed(lease: &mut Lease, ended: u64) {
    lease.asked_basis = lease.basis();
    lease.on_fed(at(ended));
}

fn feeds(lease: &mut Lease, idle: bool, now: u64) -> bool {
    let mut out = outbox(1, now);
    lease.feed(&config(1), idle, &mut out);
    matches!(out.actions[..], [Action::FeedWatchdog { .. }])
}

#[test]
fn either_kind_of_evidence_renews_and_the_younger_counts() {
    let mut lease = admitted();
    assert_eq!(lease.expires(&config(1)), None);
    lease.on_network_evidence(Some(at(1_000)));
    assert_eq!(lease.expires(&config(1)), Some(at(6_000)));
    lease.on_storage_evidence(at(2_500));
    assert_eq!(lease.expires(&config(1)), Some(at(7_500)));
    lease.on_network_evidence(Some(at(2_000)));
    assert_eq!(lease.expires(&config(1)), Some(at(7_500)), "older evidence takes nothing away");
    assert!(lease.is_good(&config(1), at(7_499)));
    assert!(!lease.is_good(&config(1), at(7_500)), "good until basis + L, not at it");
}

#[test]
fn without_an_admission_no_evidence_makes_a_lease() {
    let mut lease = Lease::new(&config(1));
    lease.on_network_evidence(Some(at(1_000)));
    lease.on_storage_evidence(at(1_000));
    assert_eq!(lease.basis(), None);
    assert!(!lease.is_good(&config(1), at(1_001)));
    assert!(lease.may_start(&config(1), at(1_001)).is_err_and(|why| why.contains("not admitted")));
}

#[test]
fn the_cycle_that_proved_the_admission_is_the_first_evidence() {
    let mut lease = Lease::new(&config(1));
    lease.on_admitted(stamp(1, 1, 1), Some(at(700)));
    assert_eq!(lease.basis(), Some(at(700)));
}

#[test]
fn an_evicted_node_has_no_lease_and_counts_no_further_evidence() {
    let mut lease = admitted();
    lease.on_storage_evidence(at(1_000));
    assert!(lease.on_evicted(stamp(1, 1, 2), at(1_500)));
    assert!(!lease.is_good(&config(1), at(1_501)), "it stops at once, not at the end of the lease");
    lease.on_network_evidence(Some(at(2_000)));
    lease.on_storage_evidence(at(2_000));
    assert_eq!(lease.basis(), Some(at(1_000)));
    assert_eq!(lease.deadline(&config(1)), Some(at(11_000)), "the last moment does not move");
}

#[test]
fn only_a_later_admission_ends_an_eviction() {
    let mut lease = admitted();
    lease.on_evicted(stamp(1, 1, 5), at(1_000));
    assert!(!lease.on_admitted(stamp(1, 1, 1), Some(at(2_000))), "the admission that was removed");
    assert!(!lease.on_admitted(stamp(1, 1, 5), Some(at(2_000))));
    assert_eq!(lease.evicted().map(|(eviction, _)| eviction), Some(stamp(1, 1, 5)));
    assert!(lease.on_admitted(stamp(1, 1, 6), Some(at(2_000))));
    assert!(lease.is_good(&config(1), at(2_001)));
}

#[test]
fn an_eviction_that_a_later_admission_has_overtaken_is_no_news() {
    let mut lease = Lease::new(&config(1));
    lease.on_admitted(stamp(2, 2, 9), Some(at(1_000)));
    assert!(!lease.on_evicted(stamp(1, 1, 5), at(1_100)));
    assert!(lease.is_good(&config(1), at(1_200)));
}

#[test]
fn a_higher_eviction_is_learnt_anew_since_none_left_names_it() {
    let mut lease = admitted();
    assert!(lease.on_evicted(stamp(1, 1, 5), at(1_000)));
    assert!(!lease.on_evicted(stamp(1, 1, 5), at(2_000)));
    assert_eq!(lease.evicted(), Some((stamp(1, 1, 5), at(1_000))));
    assert!(lease.on_evicted(stamp(2, 2, 6), at(3_000)));
    assert_eq!(lease.evicted(), Some((stamp(2, 2, 6), at(3_000))));
}

/// `end of last feed + 2 W <= basis + L + S`: a feed at 2 000 with a basis of 0 is the last.
#[test]
fn the_watchdog_is_fed_while_last_feed_and_twice_w_end_by_basis_and_l_and_s() {
    for (last, may) in [(1_999, true), (2_000, true), (2_001, false)] {
        let mut lease = admitted();
        lease.on_storage_evidence(at(0));
        fed(&mut lease, last);
        assert_eq!(feeds(&mut lease, false, 2_600), may, "last feed at {last}");
    }
}

#[test]
fn the_feed_rule_looks_at_the_last_feed_and_not_at_the_clock() {
    let mut lease = admitted();
    lease.on_storage_evidence(at(0));
    fed(&mut lease, 1_900);
    // Late, though nothing was fed meanwhile: the dog bites by 1 900 + W, and a feed now is good by 1 900 + 2 W.
    assert!(feeds(&mut lease, false, 5_000));
}

#[test]
fn eviction_does_not_feed_the_watchdog_any_longer_than_the_last_basis_allows() {
    let mut lease = admitted();
    lease.on_storage_evidence(at(0));
    fed(&mut lease, 1_500);
    lease.on_evicted(stamp(1, 1, 2), at(1_600));
    assert!(feeds(&mut lease, false, 2_100));
    fed(&mut lease, 2_100);
    assert!(!feeds(&mut lease, false, 2_700));
}

#[test]
fn a_node_that_proved_none_left_feeds_without_any_basis() {
    let mut lease = Lease::new(&config(1));
    assert!(!feeds(&mut lease, false, 1_000), "opening the device is a feed too");
    assert!(feeds(&mut lease, true, 1_000));
}

#[test]
fn the_watchdog_is_fed_once_a_beat_and_asked_once_at_a_time() {
    let mut lease = admitted();
    lease.on_storage_evidence(at(0));
    fed(&mut lease, 0);
    assert!(!feeds(&mut lease, false, 374));
    assert!(feeds(&mut lease, false, 490), "a feed that ended late skips no beat");
    assert!(!feeds(&mut lease, false, 600), "the answer is awaited");
    assert!(feeds(&mut lease, false, 1_490), "no answer for two beats: again");
}

#[test]
fn a_start_needs_a_lease_that_is_good_for_the_start_margin() {
    let config = config(1);
    let margin = config.timing.start_margin;
    let mut lease = admitted();
    lease.on_storage_evidence(at(0));
    fed(&mut lease, 1_000);
    let last = at(5_000) - margin;
    assert_eq!(lease.may_start(&config, last), Ok(last));
    assert_eq!(lease.may_start(&config, at(1_200)), Ok(last), "not to be handed over later");
    let late = last + Millis(1);
    assert!(lease.may_start(&config, late).is_err_and(|why| why.contains("a start needs")));
}

#[test]
fn a_start_needs_an_open_watchdog_whose_last_feed_satisfies_the_rule() {
    let config = config(1);
    let mut lease = admitted();
    lease.on_storage_evidence(at(0));
    let refused = |lease: &Lease, now| {
        lease.may_start(&config, at(now)).is_err_and(|why| why.contains("watchdog"))
    };
    assert!(refused(&lease, 1_000), "never fed");
    // An idle node may feed beyond the rule; it may not start anything then.
    fed(&mut lease, 2_001);
    assert!(refused(&lease, 2_100));
    lease.on_storage_evidence(at(1_000));
    assert!(lease.may_start(&config, at(2_100)).is_ok());
    lease.on_watchdog_failed("gone".into());
    assert!(refused(&lease, 2_100));
}

/// The next incarnation inherits what is recorded with a feed: it must be of this lease.
#[test]
fn a_start_needs_a_feed_that_recorded_a_basis_of_this_lease() {
    let config = config(1);
    let mut lease = admitted();
    lease.on_fed(at(900));
    lease.on_storage_evidence(at(0));
    let refused = |lease: &Lease, now| {
        lease.may_start(&config, at(now)).is_err_and(|why| why.contains("for this lease"))
    };
    assert!(refused(&lease, 1_000), "fed while there was no lease");
    assert!(feeds(&mut lease, false, 1_000), "so it is fed at once, not a beat later");
    lease.on_fed(at(1_010));
    assert!(lease.may_start(&config, at(1_020)).is_ok());
    lease.on_storage_evidence(at(2_501));
    assert!(refused(&lease, 2_510), "the record is older than half a lease");
}

#[test]
fn a_watchdog_that_was_not_fed_for_w_does_not_count_as_armed() {
    let mut lease = admitted();
    assert!(!lease.is_armed(&config(1), at(0)));
    fed(&mut lease, 1_000);
    assert!(lease.is_armed(&config(1), at(4_999)));
    assert!(!lease.is_armed(&config(1), at(5_000)));
}

#[test]
fn a_new_incarnation_inherits_basis_and_last_feed_and_no_admission() {
    let record = Inherited { basis: Some(at(3_000)), last_feed_ended: Some(at(4_000)) };
    let config = Config { inherited: Some(record), ..config(1) };
    let mut lease = Lease::new(&config);
    assert_eq!(lease.expires(&config), Some(at(8_000)), "guests that run may go on");
    assert!(lease.is_armed(&config, at(4_100)));
    assert!(lease.may_start(&config, at(4_100)).is_err(), "no start before an admission is proved");
    lease.on_network_evidence(Some(at(4_500)));
    assert_eq!(lease.expires(&config), Some(at(8_000)), "and no renewal");
    let mut out = outbox(1, 4_600);
    lease.feed(&config, false, &mut out);
    assert!(
        matches!(out.actions[..], [Action::FeedWatchdog { basis, .. }] if basis == Some(at(3_000)))
    );
}

#[test]
fn a_node_is_reset_once_and_feeds_nothing_after_it() {
    let mut lease = Lease::new(&config(1));
    let mut out = outbox(1, 1_000);
    assert!(lease.reset("first".into(), &mut out));
    assert!(!lease.reset("again".into(), &mut out));
    assert_eq!(out.actions.len(), 1);
    assert!(!feeds(&mut lease, true, 2_000));
}
