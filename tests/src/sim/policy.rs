//! Policies in the world: honest, late, silent or wild. They are advice, so nothing may depend on it.

use super::clock::{MS, Time};
use super::rng::Rng;
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedNode,
    RankedVm, Score,
};

/// How the policies of a world behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// In time, and sensible.
    Honest,
    /// Around the deadline.
    Late,
    /// Never.
    Silent,
    /// Anything: nodes that do not exist, VMs twice, VMs left out.
    Wild,
}

impl Mood {
    /// A mood; only honest ones in runs that promise that nothing stops.
    pub fn draw(rng: &mut Rng, any: bool) -> Self {
        if any && rng.chance(350) {
            rng.pick(&[Self::Late, Self::Silent, Self::Wild])
        } else {
            Self::Honest
        }
    }

    /// How long an answer takes, if one comes.
    pub fn delay(self, rng: &mut Rng) -> Option<Time> {
        match self {
            Self::Honest | Self::Wild => Some(rng.skewed(1, 60) * MS),
            Self::Late => Some(rng.range(100, 900) * MS),
            Self::Silent => None,
        }
    }

    /// A priority.
    pub fn priority(self, question: &NodePriorityQuestion, rng: &mut Rng) -> NodePriorityVerdict {
        let mut verdict = node_priority(question);
        if self == Self::Wild {
            verdict.score.value = i64::try_from(rng.below(2_000)).unwrap_or(0) - 1_000;
        }
        verdict
    }

    /// A placement.
    pub fn placement(self, question: &PlacementQuestion, rng: &mut Rng) -> PlacementVerdict {
        let mut verdict = placement(question);
        if self == Self::Wild {
            verdict.vms.retain(|_| rng.chance(800));
            for vm in &mut verdict.vms {
                vm.nodes.retain(|_| rng.chance(700));
                let node = u32::try_from(rng.below(9)).unwrap_or(0);
                vm.nodes.insert(0, RankedNode { node, score: Score::default() });
            }
            let again = verdict.vms.clone();
            verdict.vms.extend(again);
        }
        verdict
    }
}

/// The built-in priority of this world: the lowest id leads.
#[must_use]
pub fn node_priority(question: &NodePriorityQuestion) -> NodePriorityVerdict {
    let value = 1_000 - i64::from(question.node.id);
    NodePriorityVerdict { score: Score { value, terms: Vec::new() } }
}

/// The built-in placement of this world: most free memory first.
#[must_use]
pub fn placement(question: &PlacementQuestion) -> PlacementVerdict {
    let mut nodes: Vec<_> = question.nodes.iter().collect();
    nodes.sort_by_key(|node| (std::cmp::Reverse(node.memory_free_mib), node.id));
    let ranked: Vec<_> =
        nodes.iter().map(|node| RankedNode { node: node.id, score: Score::default() }).collect();
    let rank =
        |vm: &steadfast_sdk::wire::VmFacts| RankedVm { vm: vm.id.clone(), nodes: ranked.clone() };
    PlacementVerdict { vms: question.vms.iter().map(rank).collect() }
}
