use crate::cluster::Cluster;
use std::vec::Vec;

#[test]
fn a_glance_is_the_same_while_the_cluster_is_calm_and_differs_when_a_node_dies() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.run(10_000);
    let glance = |cluster: &Cluster| cluster.members[&2].machine.glance();
    let mut glances = Vec::from([glance(&cluster)]);
    for _ in 0..50 {
        cluster.run(100);
        glances.push(glance(&cluster));
    }
    let news = glances.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(news <= 2, "only time has passed, and {news} times there was news");
    cluster.kill(3);
    cluster.run(3_000);
    assert_ne!(glance(&cluster), glances[50]);
}
