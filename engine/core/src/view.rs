//! The CPG view: who is in our group, as corosync says. Authority to act, never proof that somebody is dead.

use crate::flaps::Flaps;
use crate::ids::NodeId;
use crate::ledger::Ledger;
use crate::time::Instant;
use alloc::collections::BTreeSet;

/// The view, and since when it is.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Members now; empty without corosync.
    pub members: BTreeSet<NodeId>,
    /// When the view last changed.
    pub since: Instant,
    /// Who left it and came back.
    pub flaps: Flaps,
}

impl View {
    /// A new view; returns those who left.
    pub fn on_changed(&mut self, members: BTreeSet<NodeId>, now: Instant) -> BTreeSet<NodeId> {
        let gone: BTreeSet<NodeId> = self.members.difference(&members).copied().collect();
        self.members = members;
        self.since = now;
        gone
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains(&node)
    }

    /// Configured nodes in the view.
    pub fn configured<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = NodeId> + 'a {
        self.members.iter().copied().filter(|node| ledger.nodes.contains_key(node))
    }
}
