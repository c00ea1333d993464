//! Coming and going is counted, shown, told to policies, and decides nothing.

use super::*;
use crate::cluster::Cluster;
use crate::ids::Incarnation;
use crate::kit::{at, config, id, who};
use crate::snapshot::Status;
use std::vec::Vec;

/// n3 leaves n1's view at `left` and is heard again at `back`.
fn away(flaps: &mut Flaps, left: u64, back: u64) {
    flaps.on_view(who(1), &[who(3)], true, at(left));
    flaps.on_heard(who(3), &config(1), at(back));
}

fn count(flaps: &Flaps, node: u32, now: u64) -> u32 {
    flaps.of(id(node), &config(1), at(now))
}

#[test]
fn short_absences_count_until_the_window_is_over() {
    let mut flaps = Flaps::default();
    away(&mut flaps, 1_000, 2_000);
    away(&mut flaps, 10_000, 24_999);
    assert_eq!((count(&flaps, 3, 30_000), count(&flaps, 2, 30_000)), (2, 0));
    assert_eq!(count(&flaps, 3, 602_000), 1);
}

#[test]
fn long_absences_and_restarts_are_no_flaps() {
    let mut flaps = Flaps::default();
    away(&mut flaps, 1_000, 16_000);
    flaps.on_view(who(1), &[who(3)], true, at(20_000));
    let restarted = Identity { incarnation: Incarnation(2), ..who(3) };
    flaps.on_heard(restarted, &config(1), at(21_000));
    flaps.on_heard(who(3), &config(1), at(22_000));
    assert_eq!(count(&flaps, 3, 30_000), 0);
}

#[test]
fn who_is_left_with_fewer_than_half_has_gone_away_itself() {
    let mut flaps = Flaps::default();
    flaps.on_view(who(1), &[], false, at(0));
    flaps.on_view(who(1), &[], true, at(500));
    flaps.on_view(who(1), &[who(2), who(3)], false, at(1_000));
    flaps.on_heard(who(1), &config(1), at(1_500));
    flaps.on_view(who(1), &[], true, at(2_000));
    for node in 1..=3 {
        flaps.on_heard(who(node), &config(1), at(2_001));
    }
    assert_eq!((1..=3).map(|node| count(&flaps, node, 3_000)).collect::<Vec<_>>(), [1, 0, 0]);
}

#[test]
fn only_so_many_are_remembered() {
    let mut flaps = Flaps::default();
    (0..100).for_each(|k| away(&mut flaps, k * 10, k * 10 + 5));
    assert_eq!(count(&flaps, 3, 1_000), 32);
}

#[test]
fn a_node_that_flaps_is_shown_as_unstable_told_to_policies_and_left_alone() {
    let mut cluster = Cluster::with_vm(|config| config.fence_agents = [id(3)].into());
    for _ in 0..3 {
        cluster.split(&[&[1, 2], &[3]], 500);
        cluster.run(4_000);
        cluster.split(&[&[1, 2, 3]], 500);
        cluster.run(4_000);
    }
    let shown = cluster.members[&1].machine.snapshot(at(cluster.now));
    assert_eq!(shown.nodes[2].status, Status::NetworkUnstable);
    assert_eq!(shown.nodes[2].facts.flaps, 3, "by its own count, too");
    assert_eq!(shown.nodes[1].status, Status::Member);
    assert_eq!((cluster.homes("db"), cluster.admitted(1)), ([3].into(), [1, 2, 3].into()));
    cluster.run(610_000);
    let shown = cluster.members[&1].machine.snapshot(at(cluster.now));
    assert_eq!(shown.nodes[2].status, Status::Member);
    assert!(cluster.destroyed.is_empty() && cluster.fences.is_empty());
}
