//! Nodes come and go (PROTOCOL section 1): checked requests, then whole clusters.

use super::*;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::election::Phase;
use crate::event::Event;
use crate::ids::{BootId, Identity, Incarnation};
use crate::kit::{
    admitted, at, beat, config_of, eviction, genesis, id, own_vm, page, set_eviction, stamp, vm,
};
use crate::ledger::{Eviction, Proof};
use crate::machine::Machine;
use crate::message::{Beat, Change};
use crate::stage::Stage;
use std::boxed::Box;
use std::collections::BTreeSet;

const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 5, node: 1 }, version: 9 };

/// n1 leads three of four nodes; n4's agent runs and has read the ledger that the leader wrote last.
fn stage() -> Stage {
    let mut stage = Stage::of(4);
    stage.ledger = admitted(3);
    (1..=4).for_each(|node| stage.life(node).beat.known = stamp(5, 1, 8));
    stage.run(2_000);
    stage
}

fn added(stage: &Stage, node: u32, name: &str) -> Result<Ledger, String> {
    let mut next = stage.ledger.clone();
    add(&mut next, id(node), name, NEXT, &stage.facts()).map(|_| next)
}

fn applied(stage: &Stage) -> Option<Ledger> {
    let (mut next, mut fencing, facts) = (stage.ledger.clone(), Fencing::default(), stage.facts());
    fencing.on_committed(facts.ledger, facts.beats, facts.heartbeat, facts.config, facts.now);
    apply(&mut next, NEXT, &fencing, &facts, &mut Vec::new()).then_some(next)
}

#[test]
fn an_added_node_is_configured_and_majorities_must_hold_before_and_after() {
    let next = added(&stage(), 4, "n4").unwrap();
    assert_eq!(next.nodes[&id(4)].standing, Standing::New);
    let changing = next.changing.clone().unwrap();
    assert_eq!((changing.since, changing.before), (NEXT, [1, 2, 3].map(id).into()));
    assert!(next.may_lead(id(1)) && !next.may_lead(id(4)));
}

#[test]
fn a_node_is_added_once_under_one_id_and_one_name() {
    let stage = stage();
    let refused = |node, name| added(&stage, node, name).unwrap_err();
    assert!(refused(3, "n4").contains("node #3 is n3 already"));
    assert!(refused(4, "n3").contains("another node is called n3"));
    assert_eq!(added(&stage, 3, "n3").as_ref(), Ok(&stage.ledger));
}

#[test]
fn a_node_whose_agent_has_not_read_this_ledger_is_not_added() {
    let mut stage = stage();
    for known in [Stamp::default(), stamp(4, 4, 30), stamp(6, 4, 3), NEXT] {
        stage.life(4).beat.known = known;
        stage.run(1_000);
        assert!(added(&stage, 4, "n4").is_err_and(|why| why.contains("start steadfastd there")));
    }
    assert!(added(&stage, 9, "n9").is_err_and(|why| why.contains("start steadfastd there")));
}

#[test]
fn another_change_waits_until_every_old_member_has_read_the_last() {
    let mut stage = stage();
    stage.ledger = added(&stage, 4, "n4").unwrap();
    for node in [2, 4] {
        stage.life(node).beat.known = NEXT;
    }
    stage.run(1_000);
    assert_eq!(applied(&stage), None);
    stage.ledger.nodes.get_mut(&id(2)).unwrap().name = "n2".into();
    let why = added(&stage, 5, "n5").unwrap_err();
    assert!(why.contains("not finished: n3 has not read it"), "{why}");
    stage.life(3).beat.known = NEXT;
    stage.run(1_000);
    assert_eq!(applied(&stage).unwrap().changing, None);
}

#[test]
fn an_old_member_that_is_proved_to_run_nothing_need_not_read_a_change() {
    let mut stage = stage();
    stage.ledger = added(&stage, 4, "n4").unwrap();
    stage.life(2).beat.known = NEXT;
    stage.fall_silent(3);
    stage.run(3_000);
    set_eviction(&mut stage.ledger, 3, eviction(3, stamp(5, 1, 9)));
    assert_eq!(applied(&stage), None);
    let proof = Some(Proof::Fenced);
    set_eviction(&mut stage.ledger, 3, Eviction { proof, ..eviction(3, stamp(5, 1, 9)) });
    assert!(applied(&stage).is_some());
}

#[test]
fn what_is_to_be_removed_leaves_first_and_two_nodes_stay() {
    let mut next = admitted(3);
    assert_eq!(remove(&mut next, id(3)), Ok(true));
    assert!(next.nodes[&id(3)].leaving && next.wants_empty(id(3)));
    assert_eq!(remove(&mut next, id(3)), Ok(false));
    assert_eq!(remove(&mut next, id(9)), Ok(false), "it is out already");
    assert!(remove(&mut next, id(2)).is_err_and(|why| why.contains("1 would remain without n2")));
    let stage = stage();
    assert_eq!(add(&mut next, id(3), "n3", NEXT, &stage.facts()), Ok(true), "it stays");
    assert!(!next.nodes[&id(3)].leaving);
}

#[test]
fn a_leaving_node_is_evicted_when_it_is_empty_and_goes_when_it_is_proved() {
    let mut stage = stage();
    remove(&mut stage.ledger, id(3)).unwrap();
    own_vm(&mut stage.ledger, "db", 3, stamp(5, 1, 2));
    assert_eq!((drained(&stage.facts()), applied(&stage)), (None, None));
    stage.ledger.vms.get_mut(&vm("db")).unwrap().owner = id(2);
    assert_eq!((drained(&stage.facts()), applied(&stage)), (Some(id(3)), None));
    set_eviction(&mut stage.ledger, 3, eviction(3, stamp(5, 1, 3)));
    assert_eq!((drained(&stage.facts()), applied(&stage)), (None, None));
    let proof = Some(Proof::NoneLeft);
    set_eviction(&mut stage.ledger, 3, Eviction { proof, ..eviction(3, stamp(5, 1, 3)) });
    stage.ledger.nodes.get_mut(&id(3)).unwrap().leaving = true;
    let next = applied(&stage).unwrap();
    assert!(!next.nodes.contains_key(&id(3)) && !next.may_lead(id(3)));
    assert_eq!(next.changing.unwrap().before, [1, 2, 3].map(id).into());
}

#[test]
fn a_removed_node_stays_in_the_ledger_while_a_fence_agent_may_still_hit_it() {
    let mut stage = stage();
    remove(&mut stage.ledger, id(3)).unwrap();
    let proof = Some(Proof::TimeExpired);
    let gone = Eviction { proof, fence_orders: 1, ..eviction(3, stamp(5, 1, 3)) };
    set_eviction(&mut stage.ledger, 3, gone.clone());
    stage.ledger.nodes.get_mut(&id(3)).unwrap().leaving = true;
    assert_eq!(applied(&stage), None, "added again, it would be shot as a new node");
    set_eviction(&mut stage.ledger, 3, Eviction { fence_orders: 0, ..gone });
    stage.ledger.nodes.get_mut(&id(3)).unwrap().leaving = true;
    assert!(applied(&stage).is_some());
}

#[test]
fn a_leader_does_not_take_itself_out_and_goes_one_at_a_time() {
    let mut stage = stage();
    remove(&mut stage.ledger, id(1)).unwrap();
    assert_eq!(drained(&stage.facts()), None);
    let mut stage = self::stage();
    remove(&mut stage.ledger, id(3)).unwrap();
    stage.ledger.changing = Some(Changing { before: [id(3)].into(), since: NEXT });
    assert_eq!(drained(&stage.facts()), None);
}

// --- whole clusters --------------------------------------------------------------------------------------

/// Four machines, of which the genesis names three.
fn three_of_four(config: &mut Config) {
    config.genesis = genesis(3);
}

fn four() -> Change {
    Change::AddNode { node: id(4), name: "n4".into() }
}

fn slots(cluster: &Cluster, node: u32) -> BTreeSet<NodeId> {
    BTreeSet::clone(&cluster.members[&node].machine.heartbeat.slots)
}

#[test]
fn a_node_that_is_not_configured_stays_quiet_until_it_is_added_and_then_takes_part() {
    let mut cluster = Cluster::of(4, three_of_four);
    cluster.run(15_000);
    let stranger = &cluster.members[&4].machine;
    assert_eq!(stranger.election.phase, Phase::Waiting);
    assert!(!cluster.members[&1].machine.election.ballots.contains_key(&id(4)));
    let shown = stranger.snapshot(at(cluster.now));
    assert!(shown.lease.text.contains("not configured") && shown.nodes.len() == 4);
    assert_eq!(shown.node.name, shown.nodes[3].name, "it knows its own name");
    assert_eq!(cluster.admitted(1), [1, 2, 3]);
    cluster.ask(4, four());
    cluster.run(10_000);
    assert!(cluster.answers[0].starts_with("Ok"), "{:?}", cluster.answers);
    for node in 1..=4 {
        assert_eq!(cluster.admitted(node), [1, 2, 3, 4]);
        assert_eq!(slots(&cluster, node), [1, 2, 3, 4].map(id).into());
        assert_eq!(cluster.members[&node].machine.ledger().changing, None);
    }
    assert_eq!(cluster.leaders(), [1]);
}

#[test]
fn a_node_that_is_removed_is_evicted_and_forgotten_stays_quiet_and_may_come_back() {
    let mut cluster = Cluster::of(4, |_| {});
    cluster.run(15_000);
    cluster.ask(1, Change::RemoveNode(id(4)));
    cluster.run(10_000);
    assert_eq!((cluster.admitted(1), cluster.admitted(4)), ([1, 2, 3].into(), [1, 2, 3].into()));
    assert_eq!(cluster.members[&4].machine.election.phase, Phase::Waiting);
    assert_eq!(slots(&cluster, 2), [1, 2, 3].map(id).into());
    assert!(cluster.fences.is_empty() && cluster.resets.is_empty());
    cluster.kill(4);
    cluster.run(60_000);
    assert!(cluster.members[&1].machine.ledger().changing.is_none());
    cluster.members.get_mut(&4).unwrap().alive = true;
    let me = Identity { boot: BootId(77), ..crate::kit::who(4) };
    cluster.restart(4, Config { me, ..config_of(4, 4) });
    cluster.split(&[&[1, 2, 3, 4]], 500);
    cluster.run(5_000);
    cluster.ask(2, four());
    cluster.run(10_000);
    assert_eq!(cluster.admitted(4), [1, 2, 3, 4]);
}

#[test]
fn a_leader_that_is_to_leave_resigns_and_another_takes_it_out() {
    let mut cluster = Cluster::of(4, |_| {});
    cluster.run(15_000);
    assert_eq!(cluster.leaders(), [1]);
    cluster.ask(3, Change::RemoveNode(id(1)));
    cluster.run(15_000);
    assert_eq!((cluster.leaders(), cluster.admitted(3)), ([2].into(), [2, 3, 4].into()));
}

#[test]
fn a_dead_node_is_removed_once_its_vms_have_moved() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.kill(3);
    cluster.ask(1, Change::RemoveNode(id(3)));
    cluster.run(5_000);
    assert!(cluster.members[&1].machine.ledger().nodes.contains_key(&id(3)));
    cluster.run(30_000);
    assert_eq!(cluster.homes("db").len(), 1);
    assert_eq!(cluster.members[&2].machine.ledger().nodes.len(), 2);
    assert_eq!(cluster.leaders(), [1]);
}

#[test]
fn a_node_cut_off_while_nodes_change_keeps_its_vm_and_counts_anew_when_it_is_back() {
    let mut cluster = Cluster::of(4, three_of_four).settled_with_vm(3);
    cluster.split(&[&[1, 2, 4], &[3]], 1_000);
    cluster.run(5_000);
    cluster.ask(1, four());
    cluster.run(20_000);
    let ledger = cluster.members[&1].machine.ledger();
    assert!(ledger.nodes.contains_key(&id(4)) && ledger.changing.is_some());
    assert_eq!(cluster.homes("db"), [3]);
    cluster.split(&[&[1, 2, 3, 4]], 500);
    cluster.run(10_000);
    assert_eq!(cluster.members[&1].machine.ledger().changing, None);
    assert!(cluster.destroyed.is_empty() && cluster.resets.is_empty());
}

#[test]
fn a_cycle_is_not_finished_before_it_has_read_every_node_that_its_newest_body_names() {
    let config = Config { genesis: genesis(2), ..config_of(1, 3) };
    let (mut machine, step) = Machine::new(config, at(0));
    let ledger = admitted(3);
    let bytes = ledger.encode();
    let mut other = page(2, 7);
    (other.accepted, other.digest) = (stamp(3, 3, 4), crate::ids::Digest::of(&bytes));
    let asked = |step: &crate::step::Step| {
        step.actions.iter().find_map(|action| match action {
            crate::action::Action::ReadPages { id, nodes } => Some((*id, nodes.clone())),
            _ => None,
        })
    };
    let (read, nodes) = asked(&step).unwrap();
    assert_eq!(*nodes, [1, 2].map(id).into());
    let pages = [(id(1), None), (id(2), Some(other))].into();
    let step = machine.step(Event::PagesRead { id: read, result: Ok(pages) }, at(5));
    let body = step.actions.iter().find_map(|action| match action {
        crate::action::Action::ReadBody { id, .. } => Some(*id),
        _ => None,
    });
    machine.step(Event::BodyRead { id: body.unwrap(), result: Ok(bytes) }, at(9));
    assert!(!machine.heartbeat.is_idle(), "no page is written yet");
    let step = machine.step(Event::Woke, at(200));
    assert_eq!(*asked(&step).unwrap().1, [1, 2, 3].map(id).into());
}

#[test]
fn only_who_has_read_the_change_says_so_with_its_present_incarnation() {
    let mut stage = stage();
    stage.ledger = added(&stage, 4, "n4").unwrap();
    for node in 2..=4 {
        stage.life(node).beat.known = NEXT;
    }
    stage.run(1_000);
    assert!(applied(&stage).is_some());
    let me = Identity { incarnation: Incarnation(2), ..crate::kit::who(3) };
    let fresh = Beat { known: Stamp::default(), ..beat(1) };
    stage.beats.on_received(me, Box::new(fresh), at(stage.now));
    assert_eq!(applied(&stage), None);
}
