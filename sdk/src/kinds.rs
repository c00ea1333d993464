//! The kinds of policy: one trait each, with a method for one item to implement and a method for the
//! whole question that is already there.

use alloc::vec::Vec;

use crate::situation::Situation;
use crate::wire::{
    NodeFacts, NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict,
    Reading, RiskQuestion, RiskVerdict, Score, VmFacts,
};
use crate::{order, rank};

/// So many best candidates of a VM carry the terms of their score; the others only the value. A whole
/// verdict with at most [`EXPLAIN_ALL`] pairs carries them all.
pub const EXPLAINED: usize = 3;
/// The same in a verdict on more than [`MANY`] VMs: the chosen node and the best one that was not.
pub const EXPLAINED_OF_MANY: usize = 2;
/// See [`EXPLAINED_OF_MANY`].
pub const MANY: usize = 1_000;
/// See [`EXPLAINED`].
pub const EXPLAIN_ALL: usize = 512;
/// So many pairs of VM and node a verdict ranks at most, but never fewer than [`FEWEST_RANKED`] nodes a VM:
/// a blackout of thousands of VMs must not be answered with every node for every VM.
pub const RANKED_PAIRS: usize = 16_384;
/// See [`RANKED_PAIRS`].
pub const FEWEST_RANKED: usize = 5;

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

    /// The part of [`Placement::score`] that is the same for every VM on the node. For speed only: it is asked once a node, and again
    /// when a VM was placed there, not for each of thousands of VMs. Who implements it implements [`Placement::pair_score`] too, and
    /// [`Placement::score`] as their sum.
    fn node_score(&self, node: &NodeFacts) -> Score {
        let _ = node;
        Score::new()
    }

    /// [`Placement::score`] without [`Placement::node_score`]. Unless implemented: all of it.
    #[inline]
    fn pair_score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        self.score(vm, node, now)
    }

    /// The part of [`Placement::pair_score`] that is the same for all VMs of this size (what [`Situation::load_of`] says) on the
    /// node. For speed only, as the next: it is asked once for a size and a node, and again when a VM was placed there.
    fn size_score(&self, size: (u64, u32), node: &NodeFacts) -> Score {
        let _ = (size, node);
        Score::new()
    }

    /// The value of [`Placement::size_score`]. Who can tell it without the score may leave out that a score is cut at the ends of its
    /// range: it counts only where [`Placement::add_pair_values`] says that none is.
    #[inline]
    fn size_value(&self, size: (u64, u32), node: &NodeFacts) -> i64 {
        self.size_score(size, node).value
    }

    /// Adds to each node's value what [`Placement::pair_score`] has besides [`Placement::size_score`]. `values` has one for each node,
    /// in the order of [`Situation::nodes`]. `false`: it cannot, since some score might be cut at the end of its range; every pair is
    /// asked about then. That is what happens unless it is implemented.
    fn add_pair_values(&self, vm: &VmFacts, now: &Situation<'_>, values: &mut [i64]) -> bool {
        let _ = (vm, now, values);
        false
    }

    /// The order of starts. Unless implemented: by priority, and each behind those that it starts after
    /// ([`order::by_priority`]).
    fn order<'q>(&self, question: &'q PlacementQuestion) -> Vec<&'q VmFacts> {
        order::by_priority(question)
    }

    /// The whole question: each VM in order takes its best node, and the next sees it there.
    fn placement(&self, question: &PlacementQuestion) -> PlacementVerdict {
        rank::placement(self, question)
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
