//! Majorities, halves and the witness (PROTOCOL section 6). Standard timing: L 5 s, network isolation 15 s.

use crate::cluster::Cluster;
use crate::kit::{genesis, id};
use crate::ledger::Changing;
use crate::snapshot::Status;
use crate::stage::Stage;

/// Two nodes; n2 led last, and leaves the view now, page alive.
fn split_from_the_leader() -> Stage {
    let mut stage = Stage::settled_of(2);
    (stage.leader, stage.ledger_leader) = (None, Some(id(2)));
    stage.life(2).beats = false;
    stage.see(&[1]);
    stage
}

#[test]
fn two_live_halves_stay_as_they_are_and_only_the_leaders_half_may_act() {
    let mut stage = split_from_the_leader();
    stage.run(120_000);
    assert!(!stage.facts().view_may_act());
    assert_eq!(stage.liveness.of(id(1)).unwrap().status, Status::NoQuorum);
    stage.ledger_leader = Some(id(1));
    assert!(stage.facts().view_may_act(), "n1 led last");
    stage.ledger_leader = None;
    assert!(!stage.facts().view_may_act(), "a rumour names no leader");
}

#[test]
fn half_of_two_nodes_may_act_once_the_other_page_has_been_silent_for_a_lease() {
    let mut stage = split_from_the_leader();
    stage.life(2).stores = false;
    stage.run(4_500);
    assert!(!stage.facts().view_may_act());
    stage.run(1_000);
    assert!(stage.facts().view_may_act());
    stage.life(2).stores = true;
    stage.run(500);
    assert!(!stage.facts().view_may_act(), "it lives");
}

#[test]
fn a_node_that_never_wrote_a_page_is_missing_after_a_lease_of_our_own_cycles() {
    let mut stage = Stage::of(2);
    stage.ledger_leader = None;
    stage.see(&[1]);
    stage.fall_silent(2);
    stage.run(4_500);
    assert!(!stage.facts().view_may_act());
    stage.run(1_000);
    assert!(stage.facts().view_may_act());
}

#[test]
fn a_half_without_working_storage_has_no_witness() {
    let mut stage = split_from_the_leader();
    stage.fall_silent(2);
    stage.run(20_000);
    assert!(stage.facts().view_may_act());
    stage.life(1).stores = false;
    stage.run(5_500);
    assert!(!stage.facts().view_may_act());
    stage.ledger_leader = Some(id(1));
    assert!(!stage.facts().view_may_act(), "not even the leader");
}

#[test]
fn half_may_act_when_the_other_says_for_long_enough_that_it_is_isolated() {
    let mut stage = split_from_the_leader();
    stage.life(2).says(Some(false));
    stage.run(15_000);
    assert!(!stage.facts().view_may_act());
    stage.run(1_000);
    assert!(stage.facts().view_may_act());
    stage.life(1).says(Some(false));
    stage.run(1_000);
    assert!(!stage.facts().view_may_act(), "then neither reaches its verification IPs");
}

#[test]
fn three_nodes_and_four_without_a_witness_need_a_majority() {
    for (nodes, witness, enough) in
        [(3, Some(true), 2), (4, None, 3), (4, Some(true), 2), (2, Some(false), 2), (5, None, 3)]
    {
        let mut stage = Stage::settled_of(nodes);
        stage.config.limits.witness = witness;
        for here in 1..=nodes {
            let facts = stage.facts();
            assert_eq!(facts.may_act(|node| node.0 <= here), here >= enough, "{here} of {nodes}");
        }
    }
}

#[test]
fn during_a_change_majorities_and_halves_must_hold_before_and_after_it() {
    let mut ledger = genesis(4);
    let before = [id(1), id(2), id(5)].into();
    ledger.changing = Some(Changing { before, since: crate::kit::stamp(1, 1, 1) });
    assert!(!ledger.is_majority(|node| [2, 3, 4].contains(&node.0)), "one of the old three");
    assert!(!ledger.is_majority(|node| [1, 2].contains(&node.0)), "two of the new four");
    assert!(ledger.is_majority(|node| [1, 2, 3].contains(&node.0)));
    assert!(!ledger.is_half(|node| [1, 3].contains(&node.0)), "one of the old three");
    assert!(ledger.is_half(|node| [1, 2].contains(&node.0)));
    assert_eq!(ledger.slots().count(), 5);
}

#[test]
fn half_that_has_storage_makes_the_other_storage_isolated_and_its_leader_makes_room() {
    let mut stage = Stage::settled_of(2);
    stage.life(2).stores = false;
    stage.run(16_000);
    assert!(stage.facts().is_storage_isolated(id(2)));
    stage.config.limits.witness = Some(false);
    stage.run(1_000);
    assert!(!stage.facts().is_storage_isolated(id(2)), "one of two is no majority");

    let mut cluster = Cluster::of_with_vm(2, |_| {});
    assert_eq!(cluster.leaders(), [1]);
    cluster.storage(1, false);
    cluster.run(30_000);
    assert_eq!((cluster.leaders(), cluster.admitted(2)), ([2].into(), [2].into()));
    assert_eq!((cluster.homes("db"), cluster.destroyed.len()), ([2].into(), 0));
}

#[test]
fn of_two_nodes_the_other_takes_over_from_a_dead_leader() {
    let mut cluster = Cluster::of_with_vm(2, |_| {});
    cluster.kill(2);
    cluster.run(60_000);
    assert_eq!((cluster.leaders(), cluster.homes("db")), ([1].into(), [1].into()));

    let mut cluster = Cluster::of(2, |config| config.fence_agents = [id(1)].into());
    cluster.run(15_000);
    cluster.kill(1);
    cluster.run(60_000);
    assert_eq!((cluster.leaders(), cluster.admitted(2)), ([2].into(), [2].into()));
    assert_eq!(cluster.fences.len(), 1);
    let text = cluster.members[&2].machine.snapshot(crate::kit::at(cluster.now));
    assert!(text.quorate && text.nodes[1].reason.contains("witness"), "{}", text.nodes[1].reason);
}

#[test]
fn two_nodes_that_only_lose_each_other_stop_move_and_evict_nothing() {
    let mut cluster = Cluster::of_with_vm(2, |config| config.fence_agents = [id(1), id(2)].into());
    cluster.split(&[&[1], &[2]], 1_000);
    cluster.run(120_000);
    assert_eq!((cluster.leaders(), cluster.admitted(1)), ([1].into(), [1, 2].into()));
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty() && cluster.fences.is_empty());
    cluster.split(&[&[1, 2]], 500);
    cluster.run(20_000);
    assert_eq!((cluster.leaders(), cluster.homes("db")), ([1].into(), [2].into()));
}

#[test]
fn an_even_split_of_four_moves_only_what_the_leaders_half_finds_dead() {
    let mut cluster = Cluster::of_with_vm(4, |config| config.limits.witness = Some(true));
    cluster.split(&[&[1, 2], &[3, 4]], 1_000);
    cluster.run(60_000);
    assert_eq!((cluster.leaders(), cluster.homes("db")), ([1].into(), [4].into()));
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty());
    cluster.kill(4);
    cluster.run(60_000);
    assert_eq!(cluster.admitted(1), [1, 2, 3], "n3 lives on by its page");
    assert_eq!(cluster.homes("db").len(), 1);
    assert!([1, 2].contains(&cluster.homes("db")[0]));
}

#[test]
fn an_evicted_node_that_is_left_alone_leads_and_admits_itself_after_its_proof_of_none_left() {
    let mut cluster = Cluster::of(2, |config| config.never_paused = false);
    cluster.run(15_000);
    // n2 loses its storage and is evicted; then n1 dies, and n2 has its storage back.
    cluster.storage(2, false);
    cluster.run(20_000);
    assert_eq!(cluster.admitted(1), [1]);
    cluster.kill(1);
    cluster.storage(2, true);
    cluster.run(60_000);
    assert_eq!((cluster.leaders(), cluster.admitted(2)), ([2].into(), [2].into()));
}
