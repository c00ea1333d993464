//! The default node-priority policy: who should lead?
//!
//! A healthy node starts at 100,000 points; every doubt takes points off, the gravest the most. Each term is bounded, and a graver
//! doubt outweighs all lesser ones together:
//!
//! | doubt | points lost, at most |
//! |-------|----------------------|
//! | not in full health (suspect, isolated) | 1,000,000 |
//! | cordoned by the operator | 500,000 |
//! | unstable: it left and came back three times within the flap window | 250,000 |
//! | each flap, at most ten | 10,000 |
//! | proactive risk, for each of 1000 points | 50 |
//! | slow storage, for each millisecond of a cycle, at most 2000 | 10 |
//! | old network evidence, for each millisecond, at most 2000 | 5 |
//! | load, for each thousandth of a CPU for each CPU, at most 4000 | 1 |
//!
//! Free memory adds up to 1,000. So a cordoned node leads only if no other can, an unstable one only after all stable ones, and
//! load decides among equals.
use steadfast_sdk::prelude::*;

parameters! {
    /// Points taken off. All are per unit of what they name and bounded as documented.
    pub struct NodePriorityDefault {
        /// Points lost by a node that is not in full health.
        unhealthy: i64 = 1_000_000,
        /// Points lost by a cordoned node.
        cordoned: i64 = 500_000,
        /// Points lost by an unstable node.
        unstable: i64 = 250_000,
        /// Flaps within the flap window from which a node is unstable.
        unstable_flaps: u32 = 3,
        /// Points lost for each flap (at most ten count).
        flap: i64 = 10_000,
        /// Points lost for each point of proactive risk (at most 1000).
        risk_point: i64 = 50,
        /// Points lost for each millisecond of a storage cycle (at most 2000 count).
        storage_ms: i64 = 10,
        /// Points lost for each millisecond of age of the network evidence (at most 2000 count).
        network_ms: i64 = 5,
        /// Points lost for each thousandth of load per CPU (at most 4000 count).
        load_permille: i64 = 1,
        /// Points won for each thousandth of memory that is free.
        memory_permille: i64 = 1,
    }
}

/// Points of a node about which there is no doubt.
const HEALTHY: i64 = 100_000;

impl NodePriority for NodePriorityDefault {
    fn priority(&self, node: &NodeFacts) -> Score {
        let load = node.load_per_cpu_permille();
        let unstable = node.flaps >= self.unstable_flaps;
        let upto = |value: u64, most: u64, each: i64| -points(mib(value.min(most)), each);
        Score::new()
            .term("healthy", HEALTHY)
            .term("status", lost(!node.is_well(), self.unhealthy))
            .term("cordoned", lost(node.cordoned, self.cordoned))
            .term("unstable", lost(unstable, self.unstable))
            .term("flaps", upto(node.flaps.into(), 10, self.flap))
            .term("proactive risk", upto(node.risk.into(), 1000, self.risk_point))
            .term("storage latency", upto(node.storage_latency_ms, 2000, self.storage_ms))
            .term("network age", upto(node.network_age_ms, 2000, self.network_ms))
            .term("load", upto(load, 4000, self.load_permille))
            .term("free memory", points(node.free_memory_permille(), self.memory_permille))
    }
}

/// The verdict of this policy with its default parameters: the engine's built-in twin.
#[must_use]
pub fn builtin(question: &NodePriorityQuestion) -> NodePriorityVerdict {
    NodePriorityDefault::default().node_priority(question)
}

export_policy! {
    NodePriorityDefault: NodePriority,
    name = "steadfast.default.node_priority",
    about = "Healthy, stable, quick and idle nodes lead; cordoned and unstable ones last.",
    feature = "module",
}

laws!(NodePriorityDefault);

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::fixture::Fixture;
    use steadfast_sdk::run::run_with;

    fn value(change: impl FnOnce(&mut NodeFacts)) -> i64 {
        let cluster = Fixture::cluster(2).node("n2", change);
        cluster.priority_of::<NodePriorityDefault>("n2").value
    }

    #[test]
    fn every_doubt_lowers_the_priority_and_a_graver_one_outweighs_all_lesser_together() {
        type Doubt = fn(&mut NodeFacts);
        let worst: [Doubt; 8] = [
            |node| node.memory_free_mib = 0,
            |node| node.load_permille = u32::MAX,
            |node| node.network_age_ms = u64::MAX,
            |node| node.storage_latency_ms = u64::MAX,
            |node| node.risk = 1000,
            |node| node.flaps = 3,
            |node| node.cordoned = true,
            |node| node.status = "Suspect".into(),
        ];
        let mut lowest = value(|_| ());
        for (at, doubt) in worst.iter().enumerate() {
            let alone = value(doubt);
            // From the sixth on they are in classes of their own: whatever else is wrong does not count beside them.
            assert!(if at >= 5 { alone < lowest } else { alone < value(|_| ()) }, "doubt {at}");
            lowest = value(|node| worst[..=at].iter().for_each(|doubt| doubt(node)));
        }
    }

    #[test]
    fn a_node_that_flapped_once_leads_before_an_unstable_one() {
        let once = value(|node| (node.flaps, node.storage_latency_ms) = (1, 2_000));
        assert!(once > value(|node| node.flaps = 3));
        assert!(value(|node| node.flaps = 2) < once + 20_000);
    }

    #[test]
    fn load_counts_for_each_cpu() {
        let busy = |vcpus| value(|node| (node.load_permille, node.vcpus) = (8_000, vcpus));
        assert!(busy(64) > busy(8));
    }

    #[test]
    fn the_parameters_move_the_line_of_instability() {
        let asked = Fixture::cluster(1).node("n1", |node| node.flaps = 4).node_priority("n1");
        let terms = |json| run_with::<NodePriorityDefault, _>(json, &asked).score.terms;
        let unstable = |json| terms(json).iter().any(|term| term.name == "unstable");
        assert!(unstable("{}") && !unstable(r#"{"unstable_flaps": 5}"#));
    }
}
