use crate::cluster::Cluster;
use crate::ids::NodeId;
use crate::kit::{id, placement, vm};
use crate::placement::plan;
use crate::time::Instant;
use std::vec::Vec;

/// Where `db` would go by what `node` knows, if n3 died now.
fn planned(cluster: &Cluster, node: u32) -> Vec<NodeId> {
    let machine = &cluster.members[&node].machine;
    let question = machine.what_if_died(id(3), Instant(cluster.now)).expect("n3 is configured");
    assert!(question.nodes.iter().all(|taker| taker.id != 3), "the dead take nothing");
    assert!(machine.what_if_died(id(9), Instant(cluster.now)).is_none());
    let plan = plan(&question, &placement(&question), &placement(&question));
    assert!(plan.unfit.is_empty(), "{plan:?}");
    plan.places.into_iter().map(|(_, node)| node).collect()
}

#[test]
fn every_node_can_tell_the_plan_and_a_death_goes_by_it() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.run(2_000);
    let home = planned(&cluster, 1);
    assert_eq!(home.len(), 1);
    assert_eq!(planned(&cluster, 2), home);
    cluster.kill(3);
    cluster.run(60_000);
    let homes: Vec<NodeId> = cluster.homes("db").into_iter().map(id).collect();
    assert_eq!(homes, home);
    let question = cluster.members[&1].machine.what_if_died(id(3), Instant(cluster.now));
    assert!(question.unwrap().vms.is_empty(), "n3 has nothing any more");
}

#[test]
fn what_fits_nowhere_is_told_with_the_reason() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.run(2_000);
    let machine = &cluster.members[&1].machine;
    let mut question = machine.what_if_died(id(3), Instant(cluster.now)).unwrap();
    question.nodes.iter_mut().for_each(|node| node.memory_free_mib = 1);
    let plan = plan(&question, &placement(&question), &placement(&question));
    assert!(plan.places.is_empty());
    assert!(plan.unfit[&vm("db")].contains("free 1 MiB"), "{plan:?}");
}
