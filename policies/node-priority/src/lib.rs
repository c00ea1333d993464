//! The default node-priority policy: who should lead?
//!
//! A healthy node starts at 100,000 points; every doubt takes points off, the gravest the most. Each term
//! is bounded, so that one noisy reading never outweighs a graver doubt: a cordoned node leads only if no
//! other can, an unstable one only after all stable ones, and load decides among equals.
use steadfast_sdk::prelude::*;

parameters! {
    /// Points taken off. All are per unit of what they name and bounded as documented.
    pub struct NodePriorityDefault {
        /// Points lost by a node that is not in full health.
        unhealthy: i64 = 1_000_000,
        /// Points lost by a cordoned node.
        cordoned: i64 = 500_000,
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
/// Statuses in which a node is in full health.
const GOOD: [&str; 3] = ["", "Leader", "Member"];

impl NodePriority for NodePriorityDefault {
    fn priority(&self, node: &NodeFacts) -> Score {
        let bad = i64::from(!GOOD.contains(&node.status.as_str()));
        let load = u64::from(node.load_permille) / u64::from(node.vcpus.max(1));
        Score::new()
            .term("healthy", HEALTHY)
            .term("status", -points(bad, self.unhealthy))
            .term("cordoned", -points(i64::from(node.cordoned), self.cordoned))
            .term("flaps", -points(i64::from(node.flaps.min(10)), self.flap))
            .term("proactive risk", -points(i64::from(node.risk.min(1000)), self.risk_point))
            .term(
                "storage latency",
                -points(mib(node.storage_latency_ms.min(2000)), self.storage_ms),
            )
            .term("network age", -points(mib(node.network_age_ms.min(2000)), self.network_ms))
            .term("load", -points(mib(load.min(4000)), self.load_permille))
            .term("free memory", points(free_permille(node), self.memory_permille))
    }
}

/// The verdict of this policy with its default parameters: the engine's built-in twin.
#[must_use]
pub fn builtin(question: &NodePriorityQuestion) -> NodePriorityVerdict {
    NodePriorityDefault::default().node_priority(question)
}

fn free_permille(node: &NodeFacts) -> i64 {
    permille(node.memory_free_mib, node.memory_mib).min(1000)
}

export_policy! {
    NodePriorityDefault: NodePriority,
    name = "steadfast.default.node_priority",
    about = "Healthy, stable, quick and idle nodes lead; cordoned and flapping ones last.",
    feature = "module",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeFacts {
        NodeFacts {
            id: 1,
            status: "Member".into(),
            memory_mib: 1000,
            vcpus: 4,
            ..Default::default()
        }
    }

    fn value(change: impl Fn(&mut NodeFacts)) -> i64 {
        let mut node = node();
        change(&mut node);
        let question = NodePriorityQuestion { node, ..Default::default() };
        let score = builtin(&question).score;
        assert!(score.is_sound(), "{score:?}");
        score.value
    }

    #[test]
    fn every_doubt_lowers_the_priority_and_the_gravest_most() {
        let well = value(|_| ());
        let loaded = value(|node| node.load_permille = 4000);
        let slow = value(|node| node.storage_latency_ms = 800);
        let flapping = value(|node| node.flaps = 2);
        let cordoned = value(|node| node.cordoned = true);
        let isolated = value(|node| node.status = "Storage isolation".into());
        assert!(well > loaded && loaded > slow && slow > flapping);
        assert!(flapping > cordoned && cordoned > isolated);
    }

    #[test]
    fn absurd_facts_neither_panic_nor_leave_the_range() {
        value(|node| {
            *node = NodeFacts {
                memory_free_mib: u64::MAX,
                memory_mib: 1,
                load_permille: u32::MAX,
                storage_latency_ms: u64::MAX,
                network_age_ms: u64::MAX,
                flaps: u32::MAX,
                risk: u16::MAX,
                ..Default::default()
            }
        });
    }
}
