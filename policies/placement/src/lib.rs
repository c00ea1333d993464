//! The default placement policy: in which order do VMs start, and where?
//!
//! VMs start by priority. Each goes where the most memory and CPU stay free (or, with `pack`, where the least
//! does), but a node keeps headroom for the next failure, VMs that must stand apart do, VMs of one group
//! rather do, and risky, unstable, cordoned or overfull nodes come last, each for a reason of its own.
use steadfast_sdk::prelude::*;

parameters! {
    /// Points of each reason. A graver reason outweighs all lesser ones together.
    pub struct PlacementDefault {
        /// Fill the fullest node that fits instead of the emptiest.
        pack: bool = false,
        /// Thousandths of a node's memory that are kept free while another node has them.
        headroom_permille: i64 = 100,
        /// Virtual CPUs for each CPU of a node, in thousandths, that are not exceeded while another node can.
        overcommit_permille: i64 = 4000,
        /// Points lost where its operator's affinity forbids the VM to stand.
        forbidden: i64 = 400_000_000,
        /// Points lost where the VM's memory, or that of the VMs that must share its node, does not fit.
        too_small: i64 = 160_000_000,
        /// Points won for each step of preference by the VM's affinity (at most 100 steps count).
        preference: i64 = 1_500_000,
        /// Points lost by a cordoned node.
        cordoned: i64 = 200_000_000,
        /// Points lost for each VM on the node with the same label `keep-apart`.
        keep_apart: i64 = 1_000_000,
        /// Points lost by a node whose status is not good.
        unhealthy: i64 = 500_000,
        /// Points lost where the headroom would be used.
        headroom: i64 = 20_000,
        /// Points lost where the CPUs would be overcommitted.
        overcommit: i64 = 20_000,
        /// Points lost for each VM on the node with the same label `group`.
        group: i64 = 5_000,
        /// Points lost for each flap (at most ten count).
        flap: i64 = 2_000,
        /// Points lost for each point of proactive risk.
        risk_point: i64 = 100,
    }
}

/// VMs with the same value of this label must not share a node unless there is no other.
const KEEP_APART: &str = "keep-apart";
/// VMs with the same value of this label rather do not share a node.
const GROUP: &str = "group";

impl Placement for PlacementDefault {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let fit = Fit::of(now.load_of(vm), node);
        let steps = vm.affinity.preference(&node.name).min(100);
        let way = if self.pack { -1 } else { 1 };
        let near = now.peers(vm, KEEP_APART, node.id);
        let alike = now.peers(vm, GROUP, node.id);
        let mut score = Score::new();
        score.add("free memory", points(fit.memory_free, 4 * way));
        score.add("free CPUs", points(fit.cpus_free, 2 * way));
        score.add("affinity forbids it", lost(is_forbidden(vm, node, now), self.forbidden));
        score.add("preferred node", points(steps.into(), self.preference));
        score.add("memory does not fit", lost(fit.lacks_memory, self.too_small));
        score.add("keep apart", -points(near.into(), self.keep_apart));
        score.add("headroom", lost(fit.memory_free < self.headroom_permille, self.headroom));
        score
            .add("CPU overcommit", lost(fit.cpus_used > self.overcommit_permille, self.overcommit));
        score.add("same group", -points(alike.into(), self.group));
        Some(score)
    }

    fn node_score(&self, node: &NodeFacts) -> Score {
        Score::new()
            .term("cordoned", lost(node.cordoned, self.cordoned))
            .term("status", lost(!node.is_well(), self.unhealthy))
            .term("flaps", -points(node.flaps.min(10).into(), self.flap))
            .term("proactive risk", -points(node.risk.min(1000).into(), self.risk_point))
    }
}

/// How a node would look with the VM on it, in thousandths of the node.
struct Fit {
    lacks_memory: bool,
    memory_free: i64,
    cpus_free: i64,
    cpus_used: i64,
}

impl Fit {
    fn of((memory_mib, vcpus): (u64, u32), node: &NodeFacts) -> Self {
        let free = node.memory_free_mib.saturating_sub(memory_mib);
        let used = u64::from(node.vcpus_used).saturating_add(u64::from(vcpus));
        let cpus_used = permille(used, u64::from(node.vcpus));
        Self {
            lacks_memory: node.memory_free_mib < memory_mib,
            memory_free: permille(free, node.memory_mib).min(1000),
            cpus_free: 1000_i64.saturating_sub(cpus_used).max(-4000),
            cpus_used,
        }
    }
}

/// The host refuses it there, whatever we say.
fn is_forbidden(vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> bool {
    !vm.affinity.is_empty()
        && (!vm.affinity.allows(&node.name)
            || now.adversaries(vm, node.id) > 0
            || now.is_away_from_its_own(vm, node.id))
}

/// The verdict of this policy with its default parameters: the engine's built-in twin.
#[must_use]
pub fn builtin(question: &PlacementQuestion) -> PlacementVerdict {
    PlacementDefault::default().placement(question)
}

export_policy! {
    PlacementDefault: Placement,
    name = "steadfast.default.placement",
    about = "By priority, onto the node with the most room; headroom kept, groups spread.",
    feature = "module",
}

laws!(PlacementDefault);

#[cfg(test)]
mod tests;
