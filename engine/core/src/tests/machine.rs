//! Stories of three whole machines. Longer ones, with every fault, are the simulator's.

use crate::action::Action;
use crate::cluster::Cluster;
use crate::event::Event;
use crate::ids::Stamp;
use crate::kit::id;
use crate::ledger::Proof;
use crate::time::{Instant, Millis};
use std::vec;

fn with_agents(config: &mut crate::config::Config) {
    config.fence_agents = (1..=3).map(id).collect();
}

/// Since when nothing is known of n3's life but its last word, the time that rule 4 waits, and a little more.
const RULE_4: u64 = 10_350;

#[test]
fn a_first_start_elects_one_leader_that_admits_everybody() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(10_000);
    assert_eq!(cluster.leaders(), [1], "the built-in priority prefers the lowest id");
    for node in 1..=3 {
        assert_eq!(cluster.admitted(node), [1, 2, 3], "n{node} has read it with proof");
        let machine = &cluster.members[&node].machine;
        assert!(machine.lease.is_good(&machine.config, machine.out.now));
    }
    assert!(cluster.resets.is_empty() && cluster.starts.is_empty());
}

#[test]
fn a_calm_cluster_changes_nothing() {
    let mut cluster = Cluster::with_vm(|_| {});
    let stamp = |cluster: &Cluster| -> Stamp {
        cluster.members[&2].machine.register.known().unwrap().stamp
    };
    let before = stamp(&cluster);
    cluster.run(300_000);
    assert_eq!(stamp(&cluster), before, "no commit without a reason");
    assert_eq!((cluster.homes("db"), cluster.leaders()), (vec![3], vec![1]));
    assert!(cluster.starts.is_empty() && cluster.destroyed.is_empty() && cluster.fences.is_empty());
}

#[test]
fn a_killed_member_is_evicted_and_fenced_and_its_vm_starts_elsewhere_exactly_once() {
    let mut cluster = Cluster::with_vm(with_agents);
    let killed = cluster.now;
    cluster.kill(3);
    cluster.run(60_000);
    assert_eq!(cluster.fences.iter().map(|(_, node)| *node).collect::<vec::Vec<_>>(), [3]);
    let [(started, _, home)] = cluster.starts[..] else { panic!("starts: {:?}", cluster.starts) };
    assert!(started >= cluster.fences[0].0 + 500, "not before the fence agent succeeded");
    assert!(started - killed < 6_000, "it took {} ms", started - killed);
    assert_eq!(cluster.homes("db"), [home]);
    let ledger = cluster.members[&1].machine.ledger();
    assert_eq!(ledger.eviction(id(3)).and_then(|e| e.proof), Some(Proof::Fenced));
    assert_eq!(cluster.admitted(2), [1, 2]);
}

#[test]
fn without_a_fence_agent_a_killed_members_vm_waits_for_the_time_rule() {
    let mut cluster = Cluster::with_vm(|_| {});
    let killed = cluster.now;
    cluster.kill(3);
    cluster.run(60_000);
    let [(started, ..)] = cluster.starts[..] else { panic!("starts: {:?}", cluster.starts) };
    // Its last sign of life is at most a beat older than its end.
    let waited = started - killed;
    assert!(waited >= RULE_4 - 600, "{waited} ms after its end");
    assert!(waited < RULE_4 + 3_000, "{waited} ms after its end");
}

#[test]
fn without_any_proof_nothing_is_ever_started_elsewhere() {
    let mut cluster = Cluster::with_vm(|config| config.never_paused = false);
    cluster.kill(3);
    cluster.run(600_000);
    assert!(cluster.starts.is_empty());
    assert_eq!(cluster.admitted(1), [1, 2], "it is evicted, and that is all");
}

#[test]
fn a_killed_leader_is_followed_by_another_that_finishes_its_work() {
    let mut cluster = Cluster::with_vm(with_agents);
    cluster.kill(3);
    cluster.run(1_600);
    cluster.kill(1);
    cluster.run(60_000);
    assert_eq!(cluster.leaders(), [0u32; 0], "one of three leads nobody");
    assert!(cluster.starts.len() <= 1);

    let mut cluster = Cluster::with_vm(with_agents);
    cluster.kill(1);
    cluster.run(60_000);
    assert_eq!(cluster.leaders(), [2]);
    assert_eq!(cluster.admitted(3), [2, 3]);
    assert_eq!(cluster.homes("db"), [3], "what runs on a healthy node is not touched");
    assert!(cluster.starts.is_empty() && cluster.destroyed.is_empty());
}

#[test]
fn storage_lost_by_everybody_stops_and_resets_nobody() {
    let mut cluster = Cluster::with_vm(with_agents);
    (1..=3).for_each(|node| cluster.storage(node, false));
    cluster.run(120_000);
    (1..=3).for_each(|node| cluster.storage(node, true));
    cluster.run(60_000);
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty() && cluster.fences.is_empty());
    assert_eq!((cluster.homes("db"), cluster.admitted(1)), (vec![3], vec![1, 2, 3]));
}

#[test]
fn a_network_lost_by_everybody_stops_and_resets_nobody() {
    let mut cluster = Cluster::with_vm(with_agents);
    cluster.split(&[&[1], &[2], &[3]], 1_000);
    cluster.run(120_000);
    cluster.split(&[&[1, 2, 3]], 500);
    cluster.run(60_000);
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty() && cluster.fences.is_empty());
    assert_eq!(cluster.homes("db"), [3]);
    assert_eq!(cluster.leaders().len(), 1);
}

#[test]
fn a_node_cut_off_the_network_alone_keeps_its_vms_by_its_page() {
    let mut cluster = Cluster::with_vm(with_agents);
    cluster.split(&[&[1, 2], &[3]], 1_000);
    cluster.run(120_000);
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty() && cluster.fences.is_empty());
    assert_eq!((cluster.homes("db"), cluster.admitted(1)), (vec![3], vec![1, 2, 3]));
}

#[test]
fn a_node_that_lost_network_and_storage_stops_its_vms_before_anybody_starts_them() {
    let mut cluster = Cluster::with_vm(|_| {});
    let cut = cluster.now;
    cluster.split(&[&[1, 2], &[3]], 1_000);
    cluster.storage(3, false);
    cluster.run(60_000);
    let [(stopped, ..)] = cluster.destroyed[..] else { panic!("{:?}", cluster.destroyed) };
    let [(started, ..)] = cluster.starts[..] else { panic!("starts: {:?}", cluster.starts) };
    assert!(stopped - cut <= 5_010, "its lease ended {} ms after the cut", stopped - cut);
    assert!(stopped < started);
    assert!(cluster.resets.is_empty(), "it stopped in time, so it may live on");
}

#[test]
fn a_storage_isolated_node_hears_of_its_eviction_and_its_vm_moves_on_its_own_word() {
    let mut cluster = Cluster::with_vm(with_agents);
    cluster.storage(3, false);
    cluster.run(60_000);
    let ledger = cluster.members[&1].machine.ledger();
    assert_eq!(ledger.eviction(id(3)).and_then(|e| e.proof), Some(Proof::NoneLeft));
    assert_eq!((cluster.destroyed.len(), cluster.starts.len()), (1, 1));
    assert!(cluster.fences.is_empty(), "it stopped by itself");
    cluster.storage(3, true);
    cluster.run(20_000);
    assert_eq!(cluster.admitted(3), [1, 2, 3], "it is back once its page says none left");
}

#[test]
fn a_node_with_ha_guests_and_no_record_of_a_basis_resets_itself() {
    let mut cluster = Cluster::with_vm(|_| {});
    let config = crate::config::Config {
        me: crate::ids::Identity { incarnation: crate::ids::Incarnation(2), ..crate::kit::who(3) },
        ..crate::kit::config(3)
    };
    cluster.split(&[&[1, 2], &[3]], 500);
    cluster.restart(3, config);
    cluster.run(10_000);
    assert_eq!(cluster.resets, [3]);
}

#[test]
fn a_beat_claims_the_leadership_of_no_term_but_its_own() {
    let mut cluster = Cluster::new(|_| {});
    cluster.run(10_000);
    let leader = &mut cluster.members.get_mut(&1).unwrap().machine;
    let own = leader.register.leading().unwrap().term;
    let beat = leader.compose_beat();
    assert_eq!((beat.leading, beat.term), (true, own));
    // Its own word has not come back from the group yet.
    leader.election.highest_term = own - 1;
    let beat = leader.compose_beat();
    assert_eq!((beat.leading, beat.term), (true, own));
    // Another term stands above it, and it has not stepped down yet.
    leader.election.highest_term = own + 1;
    let beat = leader.compose_beat();
    assert_eq!((beat.leading, beat.term), (false, own + 1));
}

#[test]
fn an_agent_that_ends_lets_go_of_its_watchdog_only_if_it_guards_nothing() {
    let mut cluster = Cluster::with_vm(|_| {});
    let now = cluster.now;
    let mut last = |node: u32| {
        let machine = &mut cluster.members.get_mut(&node).unwrap().machine;
        let now = Instant(machine.out.now.0.max(now));
        let actions = machine.step(Event::ShutdownRequested, now).actions;
        assert!(machine.step(Event::Woke, now + Millis(10_000)).actions.is_empty(), "it is over");
        actions
    };
    assert_eq!(last(2), [Action::CloseWatchdog]);
    assert_eq!(last(3), [], "db runs there");
}
