//! Who may act for the cluster: one rule for elections, commits, evictions and fences (PROTOCOL section 6).
//!
//! A majority of the configured nodes may. So may exactly half of them with storage as the witness: half of two nodes by
//! default, of any even number if the operator says so. Who leads is never a question of safety, the ledger is
//! (`register.rs`): this rule keeps two live halves from deposing each other.
//!
//! While a change of the configured nodes is not acknowledged by everybody, whatever is asked here must hold in both sets.

use crate::ids::NodeId;
use crate::ledger::{Ledger, NodeEntry};
use crate::liveness::{Facts, Liveness};
use crate::time::Millis;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

impl Ledger {
    /// The configured nodes, and those before a change that is under way.
    pub(crate) fn sets(&self) -> impl Iterator<Item = NodeSet<'_>> {
        let before = self.changing.iter().map(|changing| NodeSet::Before(&changing.before));
        core::iter::once(NodeSet::Now(&self.nodes)).chain(before)
    }

    /// More than half of the nodes pass.
    pub(crate) fn is_majority(&self, passes: impl Fn(NodeId) -> bool) -> bool {
        self.sets().all(|set| set.count(&passes) > set.len() / 2)
    }

    /// At least half of the nodes pass: the others are no majority without one of them.
    pub(crate) fn is_half(&self, passes: impl Fn(NodeId) -> bool) -> bool {
        self.sets().all(|set| set.count(&passes) >= set.len().div_ceil(2))
    }

    /// Nodes whose pages count: configured now, or before a change that is under way.
    pub(crate) fn slots(&self) -> impl Iterator<Item = NodeId> + '_ {
        let before = self.changing.iter().flat_map(|changing| &changing.before);
        let gone = before.filter(|node| !self.nodes.contains_key(node));
        self.nodes.keys().chain(gone).copied()
    }
}

/// Configured nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NodeSet<'a> {
    /// Those that are now.
    Now(&'a BTreeMap<NodeId, NodeEntry>),
    /// Those that were before a change that is under way.
    Before(&'a BTreeSet<NodeId>),
}

impl NodeSet<'_> {
    pub fn len(self) -> usize {
        match self {
            Self::Now(nodes) => nodes.len(),
            Self::Before(nodes) => nodes.len(),
        }
    }

    /// What `of` says of each.
    pub fn values(self, of: impl Fn(NodeId) -> u64) -> Vec<u64> {
        match self {
            Self::Now(nodes) => nodes.keys().map(|node| of(*node)).collect(),
            Self::Before(nodes) => nodes.iter().map(|node| of(*node)).collect(),
        }
    }

    /// How many of them pass.
    pub fn count(self, passes: impl Fn(NodeId) -> bool) -> usize {
        match self {
            Self::Now(nodes) => nodes.keys().filter(|node| passes(**node)).count(),
            Self::Before(nodes) => nodes.iter().filter(|node| passes(**node)).count(),
        }
    }
}

/// What storage testifies of nodes that may be missing: without these, half of the nodes may act.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    gone: BTreeSet<NodeId>,
}

impl Witness {
    pub fn testifies(facts: &Facts<'_>, liveness: &Liveness) -> Self {
        let is_asked =
            |set: NodeSet<'_>| set.len().is_multiple_of(2) && facts.is_witnessed(set.len());
        if !facts.ledger.sets().any(is_asked) {
            return Self::default();
        }
        let timing = &facts.config.timing;
        let is_gone = |node: &NodeId| {
            facts.is_page_silent_for(*node, timing.lease)
                || liveness.is_isolated_for(*node, timing.network_isolation, facts.now)
        };
        Self { gone: facts.ledger.slots().filter(is_gone).collect() }
    }

    fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains(&node)
    }
}

impl Facts<'_> {
    /// The nodes that are `present` may act: they are a majority, or half of the nodes and the witness is on their side. It is if
    /// the ledger's leader is among them, or if every other node's page has been silent for L, or says that it is
    /// isolated while this half is not.
    pub fn may_act(&self, present: impl Fn(NodeId) -> bool) -> bool {
        let leader = self.ledger_leader.is_some_and(&present);
        self.ledger.sets().all(|set| {
            let here = set.count(&present);
            let gone = |node| present(node) || self.witness.is_gone(node);
            let half = here * 2 == set.len() && self.has_witness(here * 2);
            here > set.len() / 2 || half && (leader || set.count(gone) == set.len())
        })
    }

    /// The nodes in this node's view may act.
    pub fn view_may_act(&self) -> bool {
        self.may_act(|node| self.view.contains(node))
    }

    /// The nodes that beat may act: otherwise the fault may be ours, and nobody is evicted or fenced.
    pub fn beating_may_act(&self) -> bool {
        self.may_act(|node| self.view.contains(node) && self.is_beating(node))
    }

    /// Half of so many nodes may act, and this node's own cycles finish: without them it has no witness.
    fn has_witness(&self, nodes: usize) -> bool {
        let works = self.heartbeat.age(self.now).is_some_and(|age| age < self.config.timing.lease);
        works && self.is_witnessed(nodes)
    }

    /// Half of so many nodes may act if storage testifies for it.
    fn is_witnessed(&self, nodes: usize) -> bool {
        self.config.limits.witness.unwrap_or(nodes == 2)
    }

    /// Enough nodes have working storage for the others to be isolated: a majority, or half with the witness.
    pub fn enough_have_storage(&self) -> bool {
        let works = |node| self.view.contains(node) && self.has_storage(node);
        self.ledger.sets().all(|set| {
            let working = set.count(works);
            working > set.len() / 2 || working * 2 == set.len() && self.is_witnessed(set.len())
        })
    }

    /// By complete cycles of our own, its page has shown nothing new for at least `length`.
    pub fn is_page_silent_for(&self, node: NodeId, length: Millis) -> bool {
        let Some((_, read)) = self.heartbeat.last_cycle else { return false };
        let seen = self.heartbeat.seen(node);
        let since = seen.map_or(self.beats.started(), |seen| seen.first_shown);
        self.is_page_silent(node) && read.since(since) >= length
    }
}

#[cfg(test)]
#[path = "tests/quorum.rs"]
mod tests;
