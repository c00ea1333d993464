//! The default placement policy: in which order do VMs start, and where?
//!
//! VMs start by priority, and none before those that it starts after. Each goes where the most memory and CPU stay free (or, with
//! `pack`, where the least does). Reasons against a node, the gravest first; a graver one outweighs the lesser ones that usually come
//! together:
//!
//! | reason | points |
//! |--------|--------|
//! | the VM's hard affinity forbids it (the host would refuse) | -400,000,000 |
//! | cordoned by the operator | -200,000,000 |
//! | its configured memory does not fit (the host would refuse) | -160,000,000 |
//! | the VM's soft affinity names the node, each step | +1,500,000 |
//! | each VM there with the same label `keep-apart` | -1,000,000 |
//! | not in full health | -500,000 |
//! | memory that is really free is too small, whatever is configured | -300,000 |
//! | headroom for the next failure would be used | -20,000 |
//! | virtual CPUs would be overcommitted too far | -20,000 |
//! | each VM there with the same label `group` | -5,000 |
//! | each such VM, of either label, in the same failure domain | -5,000 |
//! | it ran there before, and need not be read into another host's caches | +4,500 |
//! | a VM with the same label `near` is there | +4,000 |
//! | each flap, at most ten | -2,000 |
//! | each point of proactive risk | -100 |
//! | each thousandth of real load for each CPU, at most 2000 | -1 |
//!
//! A failure domain is a label of nodes, `rack` unless the parameter `domain` names another.
use std::borrow::Cow;

use steadfast_sdk::prelude::*;

parameters! {
    /// Points of each reason.
    pub struct PlacementDefault {
        /// Fill the fullest node that fits instead of the emptiest.
        pack: bool = false,
        /// Thousandths of a node's memory that are kept free while another node has them.
        headroom_permille: i64 = 100,
        /// Virtual CPUs for each CPU of a node, in thousandths, that are not exceeded while another node can.
        overcommit_permille: i64 = 4000,
        /// Label of nodes that names their failure domain; empty: none.
        domain: Cow<'static, str> = Cow::Borrowed("rack"),
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
        /// Points lost where the memory that is really free is too small.
        really_full: i64 = 300_000,
        /// Points lost where the headroom would be used.
        headroom: i64 = 20_000,
        /// Points lost where the CPUs would be overcommitted.
        overcommit: i64 = 20_000,
        /// Points lost for each VM on the node with the same label `group`.
        group: i64 = 5_000,
        /// Points lost for each VM in the node's failure domain with the same label `group` or `keep-apart`.
        same_domain: i64 = 5_000,
        /// Points won on the node that owned the VM until now.
        last_node: i64 = 4_500,
        /// Points won where a VM with the same label `near` is.
        near: i64 = 4_000,
        /// Points lost for each flap (at most ten count).
        flap: i64 = 2_000,
        /// Points lost for each point of proactive risk.
        risk_point: i64 = 100,
        /// Points lost for each thousandth of load for each CPU (at most 2000 count).
        load_permille: i64 = 1,
    }
}

/// VMs with the same value of this label must not share a node unless there is no other.
const KEEP_APART: &str = "keep-apart";
/// VMs with the same value of this label rather do not share a node.
const GROUP: &str = "group";
/// VMs with the same value of this label rather share a node.
const NEAR: &str = "near";

impl Placement for PlacementDefault {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let score = self.pair_score(vm, node, now);
        score.map(|score| score.plus(self.node_score(node)))
    }

    fn pair_score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let fit = Fit::of(now.load_of(vm), node);
        let was_here = vm.last_node == Some(node.id);
        let mut score = Score::new();
        self.room(&fit).into_iter().for_each(|(name, value)| score.add(name, value));
        if !vm.affinity.is_empty() {
            score.add("affinity forbids it", lost(is_forbidden(vm, node, now), self.forbidden));
            score.add("preferred node", points(steps(vm, node), self.preference));
        }
        self.lack(&fit).into_iter().for_each(|(name, value)| score.add(name, value));
        score.add("last node", -lost(was_here, self.last_node));
        if !vm.labels.is_empty() {
            self.meet(vm, node, now, &mut score);
        }
        Some(score)
    }

    fn size_score(&self, size: (u64, u32), node: &NodeFacts) -> Score {
        let fit = Fit::of(size, node);
        let mut score = Score::new();
        self.room(&fit).into_iter().for_each(|(name, value)| score.add(name, value));
        self.lack(&fit).into_iter().for_each(|(name, value)| score.add(name, value));
        score
    }

    fn size_value(&self, size: (u64, u32), node: &NodeFacts) -> i64 {
        let fit = Fit::of(size, node);
        let terms = self.room(&fit).into_iter().chain(self.lack(&fit));
        terms.fold(0, |sum, (_, value)| sum.wrapping_add(value))
    }

    fn add_pair_values(&self, vm: &VmFacts, now: &Situation<'_>, values: &mut [i64]) -> bool {
        let shared = [KEEP_APART, GROUP, NEAR].map(|key| now.shared(vm, key));
        if self.most_points(vm, now, shared) > Score::MAX {
            return false;
        }
        if let Some(place) = vm.last_node.and_then(|node| now.place_of(node)) {
            values[place] += points(1, self.last_node);
        }
        if !vm.affinity.is_empty() {
            for (value, node) in values.iter_mut().zip(now.nodes()) {
                *value += points(steps(vm, node), self.preference);
                *value += lost(is_forbidden(vm, node, now), self.forbidden);
            }
        }
        if !vm.labels.is_empty() {
            self.meet_everywhere(now, shared, values);
        }
        true
    }

    fn node_score(&self, node: &NodeFacts) -> Score {
        let load = node.load_per_cpu_permille().min(2000);
        Score::new()
            .term("cordoned", lost(node.cordoned, self.cordoned))
            .term("status", lost(!node.is_well(), self.unhealthy))
            .term("flaps", -points(node.flaps.min(10).into(), self.flap))
            .term("proactive risk", -points(node.risk.min(1000).into(), self.risk_point))
            .term("load", -points(mib(load), self.load_permille))
    }
}

impl PlacementDefault {
    /// How much of the node would be left.
    #[inline]
    fn room(&self, fit: &Fit) -> [(&'static str, i64); 2] {
        let way = if self.pack { -1 } else { 1 };
        [
            ("free memory", points(fit.memory_free, 4 * way)),
            ("free CPUs", points(fit.cpus_free, 2 * way)),
        ]
    }

    /// What of the node would be too little.
    #[inline]
    fn lack(&self, fit: &Fit) -> [(&'static str, i64); 4] {
        let overcommitted = fit.cpus_used > self.overcommit_permille;
        [
            ("memory does not fit", lost(fit.lacks_memory, self.too_small)),
            ("memory really used", lost(fit.lacks_real_memory, self.really_full)),
            ("headroom", lost(fit.memory_free < self.headroom_permille, self.headroom)),
            ("CPU overcommit", lost(overcommitted, self.overcommit)),
        ]
    }

    /// Whom the VM would meet there.
    fn meet(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>, score: &mut Score) {
        let [apart, group, near] = [KEEP_APART, GROUP, NEAR].map(|key| now.shared(vm, key));
        let here =
            |label: Option<Shared>| label.map_or(0, |label| i64::from(now.sharing(label, node.id)));
        let around = |label: Option<Shared>| {
            label.map_or(0, |label| i64::from(now.sharing_in_domain(label, node, &self.domain)))
        };
        score.add("keep apart", -points(here(apart), self.keep_apart));
        score.add("same group", -points(here(group), self.group));
        score.add("keep apart in its domain", -points(around(apart), self.same_domain));
        score.add("group in its domain", -points(around(group), self.same_domain));
        score.add("near its own", -lost(here(near) > 0, self.near));
    }

    /// The same on all nodes at once, but for what each is called.
    fn meet_everywhere(
        &self,
        now: &Situation<'_>,
        [apart, group, near]: [Option<Shared>; 3],
        values: &mut [i64],
    ) {
        let each = |points_lost| points(1, points_lost);
        let around = (&*self.domain, each(self.same_domain));
        for (label, lost) in [(apart, self.keep_apart), (group, self.group)] {
            let Some(label) = label else { continue };
            now.take_off_for_sharing(label, each(lost), around, values);
        }
        let near = near.filter(|label| now.sharing_anywhere(*label) > 0);
        if let Some(label) = near {
            for (value, node) in values.iter_mut().zip(now.nodes()) {
                *value -= lost(now.sharing(label, node.id) > 0, self.near);
            }
        }
    }

    /// No node's score can be further from 0 than this, in whatever order its terms are added. (What a node's own terms add is
    /// apart.)
    fn most_points(
        &self,
        vm: &VmFacts,
        now: &Situation<'_>,
        [apart, group, _]: [Option<Shared>; 3],
    ) -> i64 {
        let one = |each| points(1, each).saturating_abs();
        let mut most = [self.too_small, self.really_full, self.headroom, self.overcommit]
            .into_iter()
            .fold(ROOM + one(self.last_node), |sum, each| sum + one(each));
        if !vm.affinity.is_empty() {
            most += one(self.forbidden) + 100 * one(self.preference);
        }
        if !vm.labels.is_empty() {
            most += one(self.near);
            for (label, each) in [(apart, self.keep_apart), (group, self.group)] {
                let peers = label.map_or(0, |label| i64::from(now.sharing_anywhere(label)));
                most += peers.saturating_mul(one(each) + one(self.same_domain)).min(2 * Score::MAX);
            }
        }
        most
    }
}

/// The most that the room on a node is worth: four points for each thousandth of its memory, two for each of its CPUs, which may be
/// overcommitted fourfold.
const ROOM: i64 = 4 * 1000 + 2 * 4000;

/// Steps of preference for the node by the VM's affinity.
fn steps(vm: &VmFacts, node: &NodeFacts) -> i64 {
    vm.affinity.preference(&node.name).min(100).into()
}

/// How a node would look with the VM on it, in thousandths of the node.
struct Fit {
    lacks_memory: bool,
    lacks_real_memory: bool,
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
            lacks_real_memory: (1..memory_mib).contains(&node.real_memory_free_mib),
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
    about = "By priority and dependence, where most is free; headroom kept, groups spread over nodes and racks.",
    feature = "module",
}

laws!(PlacementDefault);

#[cfg(test)]
mod tests;
