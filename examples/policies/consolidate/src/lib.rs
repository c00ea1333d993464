//! An example to copy: few hosts do the work, the cheap ones first, so that the others may sleep.
//!
//! A host's label `cost` is what it costs while it works: watts, or cents an hour, as long as all hosts mean the same. What must be
//! (room, affinity, headroom for the next failure) comes from the default placement, which is told to pack.
use steadfast_policy_placement::PlacementDefault;
use steadfast_sdk::prelude::*;

parameters! {
    /// What waking a host and its cost are worth.
    pub struct Consolidate {
        /// The default placement's own parameters. Who names any of them names `pack` too.
        base: PlacementDefault = PlacementDefault { pack: true, ..PlacementDefault::default() },
        /// Points lost where nothing runs yet: that host could sleep.
        wake: i64 = 10_000,
        /// Points lost for each unit of the host's label `cost`, at most 1000.
        cost: i64 = 5,
    }
}

impl Placement for Consolidate {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let cost = node.labels.get("cost").and_then(|cost| cost.parse().ok()).unwrap_or(0_u16);
        let score = self.base.score(vm, node, now)?;
        let score = score.term("host could sleep", lost(node.vcpus_used == 0, self.wake));
        Some(score.term("cost", -points(cost.min(1000).into(), self.cost)))
    }
}

export_policy! {
    Consolidate: Placement,
    name = "consolidate",
    about = "Few hosts work, the cheap ones first, so that the others may sleep.",
}

laws!(Consolidate);

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::fixture::Fixture;

    #[test]
    fn vms_join_the_host_that_works_already() {
        let placed = Fixture::cluster(3).resident("r", "n2").vm("a").vm("b").place::<Consolidate>();
        assert_eq!((&*placed["a"], &*placed["b"]), ("n2", "n2"));
    }

    #[test]
    fn the_cheapest_host_is_woken_first_and_no_second_one() {
        let cluster = Fixture::cluster(3).label("n1", "cost", "400").label("n2", "cost", "150");
        let placed = cluster.label("n3", "cost", "400").vm("a").vm("b").place::<Consolidate>();
        assert_eq!((&*placed["a"], &*placed["b"]), ("n2", "n2"));
    }

    #[test]
    fn headroom_for_the_next_failure_is_kept_all_the_same() {
        let cluster = Fixture::cluster(2).resident("r", "n1").vm("big");
        let placed = cluster.change("big", |vm| vm.memory_mib = 58_000).place::<Consolidate>();
        assert_eq!(placed["big"], "n2");
    }

    #[test]
    fn a_cost_that_is_no_number_costs_nothing() {
        let cluster = Fixture::cluster(2).label("n1", "cost", "cheap").label("n2", "cost", "1");
        assert_eq!(cluster.vm("a").place::<Consolidate>()["a"], "n1");
    }
}
