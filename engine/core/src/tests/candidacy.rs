//! Who leads and who makes room (PROTOCOL section 6).

use crate::cluster::Cluster;
use crate::kit::id;
use crate::ledger::Maintenance;
use crate::message::Change;
use crate::stage::Stage;
use alloc::sync::Arc;

fn wants_empty(stage: &mut Stage, nodes: &[u32]) {
    for node in nodes {
        let since = crate::kit::stamp(1, 1, 1);
        let maintenance = Maintenance { since, restart: false, reason: "disks".into() };
        stage.ledger.nodes.get_mut(&id(*node)).unwrap().maintenance = Some(maintenance);
    }
}

#[test]
fn a_node_that_is_to_be_empty_makes_room_while_another_could_lead() {
    let mut stage = Stage::settled();
    assert!(!stage.facts().makes_room(id(1)));
    wants_empty(&mut stage, &[1]);
    assert!(stage.facts().makes_room(id(1)));
    stage.see(&[1, 3]);
    stage.life(3).stores = false;
    stage.run(6_000);
    assert!(!stage.facts().makes_room(id(1)), "n2 is gone, n3 has no storage");
}

#[test]
fn when_everybody_is_in_maintenance_one_leads_all_the_same() {
    let mut stage = Stage::settled();
    wants_empty(&mut stage, &[1, 2, 3]);
    assert!((1..=3).all(|node| !stage.facts().makes_room(id(node))));
}

#[test]
fn a_leader_whose_page_falls_silent_while_a_majoritys_cycles_finish_does_not_work() {
    let mut stage = Stage::settled();
    stage.life(2).stores = false;
    stage.life(2).beat.storage_age = None;
    stage.run(16_000);
    let facts = stage.facts();
    let length = stage.config.timing.storage_isolation;
    assert!(facts.is_page_silent_for(id(2), length) && facts.enough_have_storage());
    assert!(!facts.is_page_silent_for(id(3), length));
}

#[test]
fn the_nodes_elect_when_a_change_of_the_configuration_is_read_by_all() {
    let mut cluster = Cluster::of(4, |config| config.genesis = crate::kit::genesis(3));
    cluster.run(15_000);
    let term = |cluster: &Cluster| cluster.members[&2].machine.election.highest_term;
    let before = term(&cluster);
    cluster.ask(1, Change::AddNode { node: id(4), name: "n4".into() });
    cluster.run(10_000);
    assert_eq!((cluster.leaders(), term(&cluster)), ([1].into(), before + 1));
    let ledger: Arc<_> = cluster.members[&4].machine.ledger();
    assert_eq!(ledger.changing, None);
}

#[test]
fn every_node_tells_why_an_election_began_and_who_won_it() {
    let mut cluster = Cluster::with_vm(|_| {});
    let leader = cluster.leaders()[0];
    cluster.told.clear();
    cluster.kill(leader);
    cluster.run(10_000);
    for node in (1..=3).filter(|node| *node != leader) {
        let told = |what: &str| cluster.told.iter().any(|(n, t)| *n == node && t.contains(what));
        assert!(told("begins: the leader left the view"), "{node}: {:?}", cluster.told);
        assert!(told("wins round"), "{node}: {:?}", cluster.told);
    }
}
