//! Network evidence, and the promises that bound it (PROTOCOL sections 4 and 5, rule 4).

use super::*;
use crate::ids::{BootId, Incarnation};
use crate::kit::{
    admit, all_admitted, at, beat, boot, config, echoing, evict, genesis, id, stamp, who,
};

/// Node n1's beats, sent at the given times.
fn sender(times: &[u64]) -> Beats {
    let mut beats = Beats::new(who(1), at(0));
    for time in times {
        beats.begin_beat(&config(1), at(*time));
    }
    beats
}

/// Node n1, which may echo, hears beat 1 of n3 at 100 and says so in its own beat at 150.
fn listener() -> Beats {
    let mut beats = Beats::new(who(1), at(0));
    beats.on_ledger(stamp(1, 1, 1), &all_admitted(), true);
    beats.permit_echoes();
    beats.on_received(who(3), Box::new(beat(1)), at(100));
    assert!(echoes(&mut beats, 3, 150));
    beats
}

fn echoes(beats: &mut Beats, node: u32, now: u64) -> bool {
    let (_, echoes) = beats.begin_beat(&config(1), at(now));
    echoes.iter().any(|echo| echo.node == id(node))
}

#[test]
fn the_basis_is_the_instant_at_which_the_echoed_beat_was_sent_not_when_its_echo_came() {
    let mut beats = sender(&[100, 600, 1_100]);
    beats.on_received(who(2), echoing(1, who(1), 2), at(9_000));
    assert_eq!(beats.network_basis(&genesis(3)), Some(at(600)));
}

#[test]
fn a_majority_counts_this_node_and_takes_the_beat_that_enough_others_have_echoed() {
    let mut beats = sender(&[100, 600, 1_100]);
    let five = genesis(5);
    beats.on_received(who(2), echoing(1, who(1), 3), at(1_200));
    assert_eq!(beats.network_basis(&five), None, "two of five are no majority");
    beats.on_received(who(3), echoing(1, who(1), 1), at(1_200));
    assert_eq!(beats.network_basis(&five), Some(at(100)), "the second of two others counts");
    beats.on_received(who(4), echoing(1, who(1), 2), at(1_200));
    assert_eq!(beats.network_basis(&five), Some(at(600)));
}

#[test]
fn echoes_of_nodes_that_are_not_configured_do_not_count() {
    let mut beats = sender(&[100]);
    beats.on_received(who(9), echoing(1, who(1), 1), at(200));
    assert_eq!(beats.network_basis(&genesis(3)), None);
}

#[test]
fn own_beats_are_not_an_echo_of_a_majority() {
    let mut beats = sender(&[100]);
    beats.on_received(who(1), echoing(1, who(1), 1), at(200));
    assert_eq!(beats.network_basis(&genesis(3)), None);
}

#[test]
fn echoes_of_another_boot_or_incarnation_of_this_node_do_not_count() {
    let other_boot = Identity { boot: BootId(77), ..who(1) };
    let other_life = Identity { incarnation: Incarnation(2), ..who(1) };
    for other in [other_boot, other_life] {
        let mut beats = sender(&[100, 600]);
        beats.on_received(who(2), echoing(1, other, 2), at(700));
        assert_eq!(beats.network_basis(&genesis(3)), None);
    }
}

#[test]
fn an_echo_of_a_beat_that_was_never_sent_is_no_evidence() {
    let mut beats = sender(&[100]);
    beats.on_received(who(2), echoing(1, who(1), 40), at(700));
    assert_eq!(beats.network_basis(&genesis(3)), None);
}

#[test]
fn an_older_beat_of_the_same_incarnation_is_no_sign_of_life() {
    let mut beats = sender(&[100]);
    beats.on_received(who(2), Box::new(beat(5)), at(200));
    beats.on_received(who(2), Box::new(beat(5)), at(900));
    beats.on_received(who(2), Box::new(beat(4)), at(950));
    assert_eq!(beats.silence(id(2), at(1_000)), Millis(800));
}

#[test]
fn nothing_is_echoed_before_the_first_full_read_of_the_incarnation() {
    let mut beats = Beats::new(who(1), at(0));
    beats.on_received(who(3), Box::new(beat(1)), at(100));
    assert!(!echoes(&mut beats, 3, 150));
    assert_eq!(beats.newest_echoed(id(3)), at(0), "nothing was echoed: its own start counts");
    beats.on_ledger(stamp(1, 1, 1), &all_admitted(), true);
    beats.permit_echoes();
    assert!(echoes(&mut beats, 3, 200));
}

#[test]
fn an_agent_that_starts_now_echoes_nobody_whom_the_ledger_has_forgotten_or_not_admitted_yet() {
    let mut removed = all_admitted();
    removed.nodes.remove(&id(3));
    // n3 is removed, then added anew: it may still act on its admission of old.
    for ledger in [removed, genesis(3)] {
        let mut beats = Beats::new(who(1), at(0));
        beats.on_received(who(3), Box::new(beat(1)), at(100));
        beats.on_ledger(stamp(1, 2, 9), &ledger, true);
        beats.permit_echoes();
        assert!(!echoes(&mut beats, 3, 150));
        beats.on_ledger(stamp(1, 2, 10), &all_admitted(), true);
        assert!(echoes(&mut beats, 3, 200));
    }
}

#[test]
fn a_node_whose_eviction_was_heard_is_not_echoed_any_more() {
    let mut beats = listener();
    beats.bar(id(3), stamp(1, 2, 7));
    beats.on_received(who(3), Box::new(beat(2)), at(300));
    assert!(!echoes(&mut beats, 3, 350));
    assert_eq!(beats.newest_echoed(id(3)), at(100), "hearing is not echoing");
}

#[test]
fn a_rumoured_eviction_bars_too() {
    let mut beats = listener();
    let mut rumour = all_admitted();
    evict(&mut rumour, 3, stamp(1, 2, 7));
    beats.on_ledger(stamp(1, 2, 7), &rumour, false);
    assert!(!echoes(&mut beats, 3, 350));
}

#[test]
fn an_older_committed_body_does_not_restore_the_echoes() {
    let mut beats = listener();
    beats.bar(id(3), stamp(1, 2, 7));
    for older in [stamp(1, 2, 6), stamp(1, 2, 7)] {
        beats.on_ledger(older, &all_admitted(), true);
        assert!(!echoes(&mut beats, 3, 350));
    }
}

#[test]
fn a_newer_body_that_admits_the_node_restores_its_echoes_only_once_committed() {
    let mut beats = listener();
    beats.bar(id(3), stamp(1, 2, 7));
    let mut admitted = all_admitted();
    admit(&mut admitted, 3, stamp(1, 2, 8));
    beats.on_ledger(stamp(1, 2, 8), &admitted, false);
    assert!(!echoes(&mut beats, 3, 350), "a rumour admits nobody");
    beats.on_ledger(stamp(1, 2, 8), &admitted, true);
    assert!(echoes(&mut beats, 3, 400));
}

#[test]
fn a_newer_committed_body_that_does_not_admit_the_node_restores_nothing() {
    let mut beats = listener();
    beats.bar(id(3), stamp(1, 2, 7));
    beats.on_ledger(stamp(1, 2, 9), &genesis(3), true);
    assert!(!echoes(&mut beats, 3, 350));
}

#[test]
fn an_older_eviction_heard_late_does_not_lower_the_bar() {
    let mut beats = listener();
    beats.bar(id(3), stamp(2, 2, 7));
    beats.bar(id(3), stamp(1, 1, 3));
    beats.on_ledger(stamp(1, 1, 4), &all_admitted(), true);
    assert!(!echoes(&mut beats, 3, 350));
}

#[test]
fn a_bound_is_the_age_of_the_newest_beat_echoed_not_of_the_newest_heard() {
    let mut beats = listener();
    beats.on_received(who(3), Box::new(beat(2)), at(200));
    let mut ledger = all_admitted();
    evict(&mut ledger, 3, stamp(1, 2, 7));
    beats.on_ledger(stamp(1, 2, 7), &ledger, true);
    let bounds = beats.bounds(&ledger, at(1_100));
    let told = Bound { victim: id(3), eviction: stamp(1, 2, 7), age: Millis(1_000) };
    assert_eq!(bounds, [told]);
}

#[test]
fn a_node_that_echoed_nothing_answers_with_the_beginning_of_its_incarnation() {
    let mut beats = Beats::new(who(1), at(500));
    let mut ledger = all_admitted();
    evict(&mut ledger, 3, stamp(1, 2, 7));
    beats.on_ledger(stamp(1, 2, 7), &ledger, true);
    assert_eq!(beats.bounds(&ledger, at(800))[0].age, Millis(300));
}

#[test]
fn no_bound_is_told_for_an_eviction_that_this_node_has_not_barred_or_that_is_proved() {
    let beats = listener();
    let mut ledger = all_admitted();
    evict(&mut ledger, 3, stamp(1, 2, 7));
    assert!(beats.bounds(&ledger, at(800)).is_empty(), "it may still echo: no promise");

    let mut beats = listener();
    beats.on_ledger(stamp(1, 2, 7), &ledger, true);
    let mut proved = crate::kit::eviction(3, stamp(1, 2, 7));
    proved.proof = Some(crate::ledger::Proof::Fenced);
    crate::kit::set_eviction(&mut ledger, 3, proved);
    assert!(beats.bounds(&ledger, at(800)).is_empty());
}

#[test]
fn an_echo_names_the_boot_and_the_incarnation_that_were_heard() {
    let mut beats = Beats::new(who(1), at(0));
    beats.on_ledger(stamp(1, 1, 1), &all_admitted(), true);
    beats.permit_echoes();
    let reborn = Identity { incarnation: Incarnation(2), ..who(3) };
    beats.on_received(who(3), Box::new(beat(9)), at(100));
    beats.on_received(reborn, Box::new(beat(1)), at(200));
    let (_, echoes) = beats.begin_beat(&config(1), at(250));
    assert_eq!(echoes, [Echo { node: id(3), boot: boot(3), incarnation: Incarnation(2), beat: 1 }]);
    assert_eq!(beats.heard(id(3)).unwrap().since, at(200), "a new life is first heard now");
}

#[test]
fn during_a_change_a_lease_needs_echoes_of_both_majorities() {
    let mut ledger = genesis(4);
    let before = [id(1), id(5), id(6)].into();
    ledger.changing = Some(crate::ledger::Changing { before, since: stamp(1, 1, 1) });
    let (mut beats, config) = (Beats::new(who(1), at(0)), config(1));
    beats.begin_beat(&config, at(100));
    for node in [2, 3] {
        beats.on_received(who(node), echoing(1, who(1), 1), at(200));
    }
    assert_eq!(beats.network_basis(&ledger), None, "three of four, one of the old three");
    beats.on_received(who(5), echoing(1, who(1), 1), at(200));
    assert_eq!(beats.network_basis(&ledger), Some(at(100)));
}
