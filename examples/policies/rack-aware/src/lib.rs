//! An example to copy: VMs of one `group` stand in different racks where that is possible, even if the nodes there are much fuller.
//!
//! It takes the default placement's score, which only prefers other racks among nodes that are much alike, and one thought more. The
//! rack is a node's label `rack`; another label makes it spread over rooms, or over power feeds.
use steadfast_policy_placement::PlacementDefault;
use steadfast_sdk::prelude::*;

parameters! {
    /// What a shared rack costs.
    pub struct RackAware {
        /// The default placement's own parameters.
        base: PlacementDefault = PlacementDefault::default(),
        /// Label of a node that names its rack.
        domain: String = "rack".into(),
        /// Points lost for each VM of the group in the node's rack.
        shared_rack: i64 = 200_000,
    }
}

impl Placement for RackAware {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let peers = now.peers_in_domain(vm, "group", node, &self.domain);
        let score = self.base.score(vm, node, now)?;
        Some(score.term("same rack", -points(peers.into(), self.shared_rack)))
    }
}

export_policy! {
    RackAware: Placement,
    name = "rack-aware",
    about = "Spreads the VMs of a group over racks, then as the default placement.",
}

laws!(RackAware);

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::{fixture::Fixture, run::run_with};

    fn cluster() -> Fixture {
        let racks = Fixture::cluster(3).label("n1", "rack", "a").label("n2", "rack", "a");
        let racks = racks.label("n3", "rack", "b").node("n3", |node| node.memory_free_mib = 5_000);
        let vms = racks.vm("db1").vm("db2");
        vms.vm_label("db1", "group", "db").vm_label("db2", "group", "db")
    }

    #[test]
    fn the_second_vm_of_a_group_goes_to_another_rack() {
        let placed = cluster().place::<RackAware>();
        assert_eq!((&*placed["db1"], &*placed["db2"]), ("n1", "n3"));
    }

    #[test]
    fn a_shared_rack_that_costs_nothing_is_shared() {
        let asked = cluster();
        let free = r#"{"shared_rack": 0, "base": {"same_domain": 0}}"#;
        let verdict = run_with::<RackAware, _>(free, &asked.placement());
        assert_eq!(asked.chosen(&verdict)["db2"], "n2");
    }

    #[test]
    fn what_the_default_placement_avoids_is_avoided_all_the_same() {
        let bad: [fn(&mut NodeFacts); 2] = [|node| node.cordoned = true, |node| node.risk = 1000];
        for change in bad {
            let cluster = Fixture::cluster(2).vm("a").node("n1", change);
            assert_eq!(cluster.place::<RackAware>()["a"], "n2");
        }
    }
}
