//! The table of PROTOCOL section 5, row by row. Standard timing: L 5 s, full failure 1.5 s, isolation 15 s.

use super::*;
use crate::kit::{evict, id, stamp};
use crate::stage::Stage;
use std::vec;

fn status(stage: &Stage, node: u32) -> Status {
    stage.liveness.of(id(node)).unwrap().status
}

fn due(stage: &Stage) -> Vec<(NodeId, EvictionReason)> {
    stage.liveness.due(&stage.facts())
}

fn is_watchful(stage: &Stage) -> bool {
    stage.liveness.is_watchful(&stage.config, stage.facts().now)
}

fn with_agent(node: u32) -> Stage {
    let mut stage = Stage::settled();
    stage.config.fence_agents.insert(id(node));
    stage
}

#[test]
fn nodes_in_order_are_leader_and_members_and_nobody_is_due() {
    let stage = Stage::settled();
    assert_eq!(status(&stage, 1), Status::Leader);
    assert_eq!((status(&stage, 2), status(&stage, 3)), (Status::Member, Status::Member));
    assert_eq!(due(&stage), []);
}

#[test]
fn a_node_that_stops_beating_is_suspect_first() {
    let mut stage = Stage::settled();
    stage.life(3).beats = false;
    stage.run(1_500);
    assert_eq!(status(&stage, 3), Status::Suspect);
    assert!(is_watchful(&stage));
    assert_eq!(due(&stage), []);
}

#[test]
fn full_failure_is_silence_on_both_channels_over_three_of_our_own_cycles() {
    let mut stage = with_agent(3);
    stage.fall_silent(3);
    stage.run(1_500);
    assert_eq!(status(&stage, 3), Status::FullFailure);
    assert_eq!(due(&stage), [(id(3), EvictionReason::FullFailure)]);
}

#[test]
fn full_failure_needs_no_word_of_corosync() {
    let mut stage = with_agent(3);
    stage.fall_silent(3);
    stage.run(5_000);
    assert!(stage.view.contains(id(3)));
    assert_eq!(status(&stage, 3), Status::FullFailure);
}

#[test]
fn without_cycles_of_our_own_no_page_counts_as_silent() {
    let mut stage = with_agent(3);
    stage.fall_silent(3);
    stage.life(1).stores = false;
    stage.run(4_000);
    assert_eq!(status(&stage, 3), Status::Suspect, "we did not look, so it proves nothing");
    assert_eq!(due(&stage), []);
}

#[test]
fn a_full_failure_without_a_fence_agent_is_due_only_when_its_lease_must_have_run_out() {
    let mut stage = Stage::settled();
    stage.kill(3);
    stage.run(3_500);
    assert_eq!(status(&stage, 3), Status::FullFailure);
    assert_eq!(due(&stage), [], "4.5 s after its last sign of life");
    stage.run(1_000);
    assert_eq!(due(&stage), [(id(3), EvictionReason::FullFailure)]);
}

#[test]
fn a_node_in_the_view_whose_beats_stop_while_its_page_lives_is_suspect_and_never_due() {
    let mut stage = with_agent(3);
    stage.life(3).beats = false;
    stage.run(60_000);
    assert_eq!(status(&stage, 3), Status::Suspect);
    assert_eq!(due(&stage), []);
}

#[test]
fn network_isolation_is_a_live_page_that_says_so_while_others_reach_theirs() {
    let mut stage = Stage::settled();
    stage.see(&[1, 2]);
    stage.life(3).beats = false;
    stage.life(3).says(Some(false));
    stage.run(15_000);
    assert_eq!(status(&stage, 3), Status::NetworkIsolation);
    assert_eq!(due(&stage), [], "14.5 s since it is so");
    stage.run(500);
    assert_eq!(due(&stage), [(id(3), EvictionReason::NetworkIsolation)]);
}

#[test]
fn a_node_out_of_the_view_whose_verification_works_or_is_unknown_is_excluded_and_never_due() {
    for says in [Some(true), None] {
        let mut stage = with_agent(3);
        stage.see(&[1, 2]);
        stage.life(3).beats = false;
        stage.life(3).says(says);
        stage.run(60_000);
        assert_eq!(status(&stage, 3), Status::Excluded);
        assert_eq!(due(&stage), []);
    }
}

#[test]
fn nobody_is_network_isolated_while_our_side_does_not_reach_its_verification_ips_either() {
    for blind in [1, 2] {
        let mut stage = with_agent(3);
        stage.see(&[1, 2]);
        stage.life(3).beats = false;
        stage.life(3).says(Some(false));
        stage.life(blind).says(Some(false));
        stage.run(60_000);
        assert_eq!(status(&stage, 3), Status::Excluded, "n{blind} reaches nothing");
        assert_eq!(due(&stage), []);
    }
}

#[test]
fn a_node_that_has_just_left_the_view_is_looked_at_more_often_until_its_page_has_told() {
    let mut stage = with_agent(3);
    stage.see(&[1, 2]);
    stage.life(3).beats = false;
    stage.run(4_500);
    assert!(is_watchful(&stage), "excluded, or dead?");
    stage.run(1_500);
    assert_eq!(status(&stage, 3), Status::Excluded);
    assert!(!is_watchful(&stage), "its page lives: excluded for good");
}

#[test]
fn an_excluded_node_whose_page_falls_silent_is_a_full_failure() {
    let mut stage = with_agent(3);
    stage.see(&[1, 2]);
    stage.life(3).beats = false;
    stage.run(20_000);
    assert_eq!(status(&stage, 3), Status::Excluded);
    stage.life(3).stores = false;
    stage.run(2_000);
    assert_eq!(status(&stage, 3), Status::FullFailure);
}

#[test]
fn storage_isolation_is_a_beating_node_without_storage_while_a_majority_has_it() {
    let mut stage = Stage::settled();
    stage.life(3).stores = false;
    stage.run(14_500);
    assert_eq!(status(&stage, 3), Status::Member, "before its time it is as it was");
    stage.run(500);
    assert_eq!(status(&stage, 3), Status::StorageIsolation);
    assert_eq!(due(&stage), [(id(3), EvictionReason::StorageIsolation)]);
}

#[test]
fn nobody_is_storage_isolated_when_everybody_lost_storage() {
    let mut stage = Stage::settled();
    (1..=3).for_each(|node| stage.life(node).stores = false);
    stage.run(60_000);
    for node in 1..=3 {
        assert_eq!(status(&stage, node), Status::StorageOutage);
    }
    assert_eq!(due(&stage), []);
}

#[test]
fn nobody_is_storage_isolated_while_only_a_minority_has_storage() {
    let mut stage = Stage::settled();
    (2..=3).for_each(|node| stage.life(node).stores = false);
    stage.run(60_000);
    assert_eq!(due(&stage), []);
    assert_ne!(status(&stage, 2), Status::StorageIsolation);
}

#[test]
fn after_an_outage_for_everybody_the_last_to_get_storage_back_has_its_full_time() {
    let mut stage = Stage::settled();
    (1..=3).for_each(|node| stage.life(node).stores = false);
    stage.run(60_000);
    (1..=2).for_each(|node| stage.life(node).stores = true);
    stage.run(14_000);
    assert_eq!(due(&stage), [], "its storage is old, the others' is young");
    stage.run(2_000);
    assert_eq!(due(&stage), [(id(3), EvictionReason::StorageIsolation)]);
}

#[test]
fn a_leader_without_storage_of_its_own_isolates_nobody() {
    let mut stage = Stage::settled();
    stage.life(1).stores = false;
    stage.run(60_000);
    assert_eq!(due(&stage), vec![], "itself included: it resigns instead");
}

#[test]
fn without_a_majority_in_view_this_node_says_no_quorum() {
    let mut stage = Stage::settled();
    stage.see(&[1]);
    stage.run(500);
    assert_eq!(status(&stage, 1), Status::NoQuorum);
}

#[test]
fn a_node_that_is_not_admitted_is_joining_or_evicted_and_never_due() {
    let mut stage = with_agent(3);
    stage.ledger.nodes.get_mut(&id(2)).unwrap().standing = Standing::New;
    evict(&mut stage.ledger, 3, stamp(5, 1, 4));
    stage.run(500);
    assert_eq!((status(&stage, 2), status(&stage, 3)), (Status::Joining, Status::Evicted));
    stage.kill(2);
    stage.fall_silent(3);
    stage.run(60_000);
    assert_eq!(due(&stage), []);
}

#[test]
fn no_fence_agent_is_used_on_a_slow_booter_before_the_boot_grace_is_over() {
    let mut stage = Stage::new();
    stage.config.fence_agents.insert(id(3));
    stage.fall_silent(3);
    stage.run(299_500);
    assert!(!stage.facts().may_fence(id(3)), "never seen alive by this incarnation");
    stage.run(500);
    assert!(stage.facts().may_fence(id(3)));
    let stage = with_agent(3);
    assert!(stage.facts().may_fence(id(3)), "seen alive");
    assert!(!stage.facts().may_fence(id(2)), "no agent is configured for it");
}

#[test]
fn a_page_found_on_disk_at_the_first_read_is_no_sign_of_life() {
    let mut stage = Stage::new();
    stage.config.fence_agents.insert(id(3));
    stage.life(3).beats = false;
    stage.run(500);
    stage.life(3).stores = false;
    stage.run(10_000);
    assert!(stage.heartbeat.seen(id(3)).is_some());
    assert!(!stage.facts().may_fence(id(3)), "it may lie there since before the power cut");
}

#[test]
fn a_node_that_is_to_be_empty_is_shown_so_unless_its_status_is_worse() {
    let mut stage = Stage::settled();
    let maintenance =
        crate::ledger::Maintenance { since: stamp(1, 1, 2), restart: false, reason: "fans".into() };
    let entry = stage.ledger.nodes.get_mut(&id(3)).unwrap();
    entry.maintenance = Some(maintenance);
    stage.run(500);
    let shown = stage.liveness.of(id(3)).unwrap();
    assert_eq!(shown.status, Status::Maintenance);
    assert!(shown.reason.contains("empty: fans; it is empty"), "{}", shown.reason);
    stage.fall_silent(3);
    stage.run(2_000);
    assert_eq!(status(&stage, 3), Status::FullFailure);
    evict(&mut stage.ledger, 3, stamp(1, 1, 3));
    stage.life(3).beats = true;
    stage.life(3).stores = true;
    stage.run(1_000);
    assert_eq!(status(&stage, 3), Status::Evicted);
    assert_eq!(due(&stage), []);
}

#[test]
fn a_leader_in_maintenance_is_shown_as_the_leader() {
    let mut stage = Stage::settled();
    stage.ledger.nodes.get_mut(&id(1)).unwrap().leaving = true;
    stage.run(500);
    assert_eq!(status(&stage, 1), Status::Leader);
}
