//! Policies in the world: honest, late, silent, wrong, lying, trapping or wild. They are advice, so nothing may depend
//! on it.

use super::clock::{MS, Time};
use super::rng::Rng;
use serde::{Deserialize, Serialize};
use steadfast_core::config::Builtin;
use steadfast_core::event::Decider;
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedNode,
    RankedVm, Score,
};

/// How the policies of a world behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mood {
    /// In time, and sensible.
    Honest,
    /// Around the deadline.
    Late,
    /// Never.
    Silent,
    /// The worst comes first.
    Wrong,
    /// Only what does not exist is good; nothing that was asked about is.
    Lying,
    /// They trap: the host answers with the built-in policy, or is too late.
    Trapping,
    /// Anything: nodes that do not exist, VMs twice, VMs left out.
    Wild,
    /// Each time another of these.
    Moody,
}

impl Mood {
    /// Every one of them.
    pub const ALL: [Self; 8] = [
        Self::Honest,
        Self::Late,
        Self::Silent,
        Self::Wrong,
        Self::Lying,
        Self::Trapping,
        Self::Wild,
        Self::Moody,
    ];

    /// A mood; only honest ones in runs that promise that nothing stops.
    pub fn draw(rng: &mut Rng, any: bool) -> Self {
        if any && rng.chance(400) { rng.pick(&Self::ALL) } else { Self::Honest }
    }

    /// The mood in which one question is answered.
    #[must_use]
    pub fn now(self, rng: &mut Rng) -> Self {
        if self == Self::Moody { rng.pick(&Self::ALL[..7]) } else { self }
    }

    /// How long an answer takes, if one comes.
    pub fn delay(self, rng: &mut Rng) -> Option<Time> {
        match self {
            Self::Late => Some(rng.range(100, 900) * MS),
            Self::Trapping if rng.chance(300) => Some(rng.range(100, 3_000) * MS),
            Self::Silent => None,
            _ => Some(rng.skewed(1, 60) * MS),
        }
    }

    /// Who is said to have decided.
    #[must_use]
    pub fn decider(self) -> Decider {
        if self == Self::Trapping {
            let (name, kind) = ("built-in".into(), "built_in".into());
            let failures = ["wasm trap: unreachable instruction executed".into()].into();
            return Decider { name, kind, failures, ..Decider::default() };
        }
        Decider { name: "world".into(), ..Decider::default() }
    }

    /// A priority: in an honest mood that of `builtin`.
    pub fn priority(
        self,
        question: &NodePriorityQuestion,
        builtin: Builtin,
        rng: &mut Rng,
    ) -> NodePriorityVerdict {
        let mut verdict = (builtin.node_priority)(question);
        let value = &mut verdict.score.value;
        match self {
            Self::Wild => *value = i64::try_from(rng.below(2_000)).unwrap_or(0) - 1_000,
            Self::Wrong => *value = value.saturating_neg(),
            Self::Lying => *value = rng.pick(&[i64::MAX, i64::MIN, i64::MAX - 1]),
            _ => {}
        }
        verdict
    }

    /// A placement: in an honest mood that of `builtin`.
    pub fn placement(
        self,
        question: &PlacementQuestion,
        builtin: Builtin,
        rng: &mut Rng,
    ) -> PlacementVerdict {
        let mut verdict = (builtin.placement)(question);
        match self {
            Self::Wild => scramble(&mut verdict, rng),
            Self::Wrong => {
                verdict.vms.reverse();
                verdict.vms.iter_mut().for_each(|vm| vm.nodes.reverse());
            }
            Self::Lying => lie(&mut verdict, rng),
            _ => {}
        }
        verdict
    }
}

/// The policies that ship.
pub const SHIPPED: Builtin = Builtin {
    node_priority: steadfast_policy_node_priority::builtin,
    placement: steadfast_policy_placement::builtin,
};

/// For stories: the lowest node leads, the one with the most free memory takes.
pub const PLAIN: Builtin =
    Builtin { node_priority: plain_node_priority, placement: plain_placement };

fn plain_node_priority(question: &NodePriorityQuestion) -> NodePriorityVerdict {
    let value = 1_000 - i64::from(question.node.id);
    NodePriorityVerdict { score: Score { value, terms: Vec::new() } }
}

fn plain_placement(question: &PlacementQuestion) -> PlacementVerdict {
    let mut nodes: Vec<_> = question.nodes.iter().collect();
    nodes.sort_by_key(|node| (std::cmp::Reverse(node.memory_free_mib), node.id));
    let ranked: Vec<_> =
        nodes.iter().map(|node| RankedNode { node: node.id, score: Score::default() }).collect();
    let rank =
        |vm: &steadfast_sdk::wire::VmFacts| RankedVm { vm: vm.id.clone(), nodes: ranked.clone() };
    PlacementVerdict { vms: question.vms.iter().map(rank).collect() }
}

fn stranger(rng: &mut Rng) -> RankedNode {
    let node = u32::try_from(rng.below(70)).unwrap_or(0);
    RankedNode { node, score: Score::default() }
}

fn scramble(verdict: &mut PlacementVerdict, rng: &mut Rng) {
    verdict.vms.retain(|_| rng.chance(800));
    for vm in &mut verdict.vms {
        vm.nodes.retain(|_| rng.chance(700));
        let node = stranger(rng);
        vm.nodes.insert(0, node);
    }
    let again = verdict.vms.clone();
    verdict.vms.extend(again);
}

/// Sometimes no VM that was asked about, sometimes none of its nodes.
fn lie(verdict: &mut PlacementVerdict, rng: &mut Rng) {
    if rng.chance(300) {
        verdict.vms.clear();
    }
    for vm in &mut verdict.vms {
        vm.nodes = vec![stranger(rng), stranger(rng)];
    }
    let nodes = vec![stranger(rng)];
    verdict.vms.insert(0, RankedVm { vm: "no such VM".into(), nodes });
}
