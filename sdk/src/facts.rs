//! Words for what policies keep asking about facts.

use crate::wire::NodeFacts;

/// Statuses in which a node is in full health. The empty one is a node's about which nothing is said yet.
pub const GOOD_STATUSES: [&str; 3] = ["", "Leader", "Member"];

impl NodeFacts {
    /// Whether its status is that of a node in full health.
    #[must_use]
    pub fn is_well(&self) -> bool {
        GOOD_STATUSES.contains(&self.status.as_str())
    }

    /// Its load average in thousandths of a CPU for each of its CPUs.
    #[must_use]
    pub fn load_per_cpu_permille(&self) -> u64 {
        u64::from(self.load_permille) / u64::from(self.vcpus.max(1))
    }

    /// Its free memory in thousandths, 0..=1000.
    #[must_use]
    pub fn free_memory_permille(&self) -> i64 {
        crate::math::permille(self.memory_free_mib, self.memory_mib).min(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leaders_members_and_the_unknown_are_well() {
        let well = |status: &str| NodeFacts { status: status.into(), ..<_>::default() }.is_well();
        assert!(well("Leader") && well("Member") && well(""));
        assert!(!well("Suspect") && !well("leader"));
    }

    #[test]
    fn load_counts_for_each_cpu_and_a_node_without_cpus_has_one() {
        let load = |load_permille, vcpus| {
            NodeFacts { load_permille, vcpus, ..<_>::default() }.load_per_cpu_permille()
        };
        assert_eq!((load(8_000, 16), load(8_000, 0)), (500, 8_000));
    }
}
