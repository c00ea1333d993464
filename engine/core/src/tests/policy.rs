//! Which node-priority policy counts.

use crate::cluster::Cluster;
use crate::event::Event;
use crate::ids::Digest;
use crate::kit::id;
use crate::message::PolicyDigests;
use alloc::string::String;
use alloc::vec::Vec;

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn stage(cluster: &mut Cluster, node: u32, name: &str) {
    let digests = PolicyDigests { node_priority: digest(name), ..PolicyDigests::default() };
    cluster.tell(node, Event::PoliciesStaged(digests));
}

fn active(cluster: &Cluster, node: u32) -> Digest {
    cluster.members[&node].machine.policies.active
}

/// Three nodes that have agreed on the generation `old`.
fn agreed() -> Cluster {
    let mut cluster = Cluster::new(|_| ());
    (1..=3).for_each(|node| stage(&mut cluster, node, "old"));
    cluster.run(15_000);
    assert!((1..=3).all(|node| active(&cluster, node) == digest("old")));
    cluster
}

fn told(cluster: &Cluster) -> Vec<&String> {
    let told = cluster.told.iter().map(|(_, text)| text);
    told.filter(|text| text.contains("node-priority policy")).collect()
}

#[test]
fn a_generation_is_active_only_when_every_live_voter_holds_it() {
    let mut cluster = agreed();
    stage(&mut cluster, 1, "new");
    stage(&mut cluster, 2, "new");
    cluster.run(5_000);
    assert!((1..=3).all(|node| active(&cluster, node) == digest("old")));
    assert!(told(&cluster).is_empty(), "the first agreement is no change: {:?}", told(&cluster));
    stage(&mut cluster, 3, "new");
    cluster.run(2_000);
    assert!((1..=3).all(|node| active(&cluster, node) == digest("new")));
    assert_eq!(told(&cluster).len(), 3, "each node says so once");
    assert!(told(&cluster)[0].ends_with("is active: all 3 live nodes hold it"));
}

#[test]
fn a_voter_that_is_gone_is_not_waited_for() {
    let mut cluster = agreed();
    stage(&mut cluster, 1, "new");
    stage(&mut cluster, 2, "new");
    cluster.kill(3);
    cluster.run(10_000);
    assert!((1..=2).all(|node| active(&cluster, node) == digest("new")));
}

#[test]
fn a_node_that_comes_back_with_another_generation_changes_nothing_for_the_others() {
    let mut cluster = agreed();
    cluster.restart_agent(3);
    stage(&mut cluster, 3, "strange");
    cluster.run(5_000);
    assert!((1..=2).all(|node| active(&cluster, node) == digest("old")));
    assert_eq!(active(&cluster, 3), Digest::default(), "the others hold something else");
    stage(&mut cluster, 3, "old");
    cluster.run(2_000);
    assert_eq!(active(&cluster, 3), digest("old"));
}

#[test]
fn an_election_in_the_middle_of_a_change_uses_what_is_active_everywhere() {
    let mut cluster = agreed();
    let leader = cluster.leaders()[0];
    let rest: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    stage(&mut cluster, rest[0], "new");
    cluster.kill(leader);
    cluster.run(10_000);
    let election = &cluster.members[&rest[0]].machine.election;
    assert!(!election.uses_builtin(), "both ballots name the old one");
    assert!(election.ballots.values().all(|ballot| ballot.policy == digest("old")));
    assert_eq!(cluster.leaders().len(), 1);
}

#[test]
fn an_election_between_nodes_that_disagree_is_not_delayed_and_uses_the_built_in_priority() {
    let mut cluster = agreed();
    let leader = cluster.leaders()[0];
    let rest: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    cluster.restart_agent(rest[0]);
    stage(&mut cluster, rest[0], "strange");
    cluster.run(2_000);
    cluster.kill(leader);
    cluster.run(10_000);
    assert!(cluster.members[&rest[1]].machine.election.uses_builtin());
    assert_eq!(cluster.leaders().len(), 1);
}

#[test]
fn the_snapshot_shows_what_each_node_holds_and_uses() {
    let mut cluster = agreed();
    stage(&mut cluster, 2, "new");
    cluster.run(2_000);
    let now = crate::time::Instant(cluster.now);
    let snapshot = cluster.members[&1].machine.snapshot(now);
    let shown = |node: u32| {
        let view = snapshot.nodes.iter().find(|view| view.id == id(node)).unwrap();
        (view.policies.node_priority, view.policy)
    };
    assert_eq!(shown(1), (digest("old"), digest("old")));
    assert_eq!(shown(2), (digest("new"), digest("old")));
}
