//! The kinds of policy: one trait each, with a method for one item to implement and a method for the
//! whole question that is already there.

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::situation::Situation;
use crate::wire::{
    NodeFacts, NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict,
    RankedNode, RankedVm, Reading, RiskQuestion, RiskVerdict, Score, VmFacts,
};
use crate::{order, score};

/// So many best candidates of a VM carry the terms of their score; the others only the value. A whole
/// verdict with at most [`EXPLAIN_ALL`] pairs carries them all.
pub const EXPLAINED: usize = 3;
/// See [`EXPLAINED`].
pub const EXPLAIN_ALL: usize = 512;
/// So many pairs of VM and node a verdict ranks at most, but never fewer than [`FEWEST_RANKED`] nodes a VM:
/// a blackout of thousands of VMs must not be answered with every node for every VM.
pub const RANKED_PAIRS: usize = 16_384;
/// See [`RANKED_PAIRS`].
pub const FEWEST_RANKED: usize = 8;

/// How well would a node lead? Each elector asks about itself; the highest leads.
pub trait NodePriority {
    /// The priority of one node.
    fn priority(&self, node: &NodeFacts) -> Score;

    /// The whole question. Implement it instead where more than the node counts.
    fn node_priority(&self, question: &NodePriorityQuestion) -> NodePriorityVerdict {
        NodePriorityVerdict { score: self.priority(&question.node) }
    }
}

/// In which order do VMs start, and where?
pub trait Placement {
    /// How well would the VM stand on the node? `None`: never there. `node` and `situation` already
    /// account for the VMs that this verdict has placed before.
    fn score(&self, vm: &VmFacts, node: &NodeFacts, situation: &Situation<'_>) -> Option<Score>;

    /// The order of starts. Unless implemented: by priority, and each behind those that it starts after
    /// ([`order::by_priority`](crate::order::by_priority)).
    fn order<'q>(&self, question: &'q PlacementQuestion) -> Vec<&'q VmFacts> {
        order::by_priority(question)
    }

    /// The whole question: each VM in order takes its best node, and the next sees it there.
    fn placement(&self, question: &PlacementQuestion) -> PlacementVerdict {
        let mut situation = Situation::new(question);
        let mut verdict = PlacementVerdict::default();
        for vm in self.order(question) {
            situation.focus(vm);
            let nodes = rank(self, vm, &situation);
            if let Some(best) = nodes.first() {
                situation.place(vm, best.node);
            }
            verdict.vms.push(RankedVm { vm: vm.id.clone(), nodes });
        }
        verdict
    }
}

/// How likely is a node to fail soon?
pub trait Risk {
    /// The risk of one node by its telemetry, 0 (healthy) to 1000 (failing).
    fn risk(&self, node: &NodeFacts, telemetry: &[Reading]) -> Score;

    /// The whole question; cuts the score to 0..=1000.
    fn assess(&self, question: &RiskQuestion) -> RiskVerdict {
        RiskVerdict { score: self.risk(&question.node, &question.telemetry).within(0, 1000) }
    }
}

/// The VM's candidates, best first, equals by id, no more than the verdict may rank.
fn rank<P: Placement + ?Sized>(policy: &P, vm: &VmFacts, now: &Situation<'_>) -> Vec<RankedNode> {
    let (vms, nodes) = (now.question().vms.len().max(1), now.nodes().len());
    if vms.saturating_mul(nodes) <= EXPLAIN_ALL {
        return explained(policy, vm, now);
    }
    let best = score::quietly(|| best(policy, vm, now, (RANKED_PAIRS / vms).max(FEWEST_RANKED)));
    let candidate = |(rank, (value, node, place)): (usize, (i64, u32, usize))| {
        let quick = Score { value, terms: Vec::new() };
        let full = if rank < EXPLAINED { score_at(policy, vm, place, now) } else { None };
        RankedNode { node, score: full.unwrap_or(quick) }
    };
    best.into_iter().enumerate().map(candidate).collect()
}

/// All candidates with their terms.
fn explained<P: Placement + ?Sized>(
    policy: &P,
    vm: &VmFacts,
    now: &Situation<'_>,
) -> Vec<RankedNode> {
    let candidate = |(place, node): (usize, &NodeFacts)| {
        score_at(policy, vm, place, now).map(|score| RankedNode { node: node.id, score })
    };
    let mut ranked: Vec<RankedNode> =
        now.nodes().iter().enumerate().filter_map(candidate).collect();
    ranked.sort_unstable_by_key(|ranked| (Reverse(ranked.score.value), ranked.node));
    ranked
}

/// Values, ids and places of the VM's best candidates, best first, equals by id.
fn best<P: Placement + ?Sized>(
    policy: &P,
    vm: &VmFacts,
    now: &Situation<'_>,
    most: usize,
) -> Vec<(i64, u32, usize)> {
    let nodes = now.nodes();
    let order = |(value, id, _): &(i64, u32, usize)| (Reverse(*value), *id);
    let mut best: Vec<(i64, u32, usize)> = Vec::with_capacity(most.min(nodes.len()));
    for (place, node) in nodes.iter().enumerate() {
        let Some(score) = score_at(policy, vm, place, now) else { continue };
        let candidate = (score.value, node.id, place);
        if nodes.len() <= most {
            best.push(candidate);
            continue;
        }
        if best.len() == most {
            // Most candidates end here.
            if best.last().is_some_and(|last| order(last) < order(&candidate)) {
                continue;
            }
            best.pop();
        }
        let better = best.iter().rev().position(|other| order(other) < order(&candidate));
        best.insert(better.map_or(0, |worse| best.len() - worse), candidate);
    }
    if nodes.len() <= most {
        best.sort_unstable_by_key(order);
    }
    best
}

#[inline]
fn score_at<P: Placement + ?Sized>(
    policy: &P,
    vm: &VmFacts,
    place: usize,
    now: &Situation<'_>,
) -> Option<Score> {
    now.look_at(place);
    policy.score(vm, &now.nodes()[place], now)
}
