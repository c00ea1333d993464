//! Which node-priority policy counts: a change takes two phases, so that an election compares like with like.
//!
//! First every node *stages* the new generation: its host has loaded and tried it, and the node's beats say so. A node whose
//! beats and those of all live voters name the same generation as staged then makes it its *active* one. Until the last
//! has done so, ballots may name different generations: such a round uses the built-in priority for all (`election.rs`). So an
//! election in the middle of a change uses what is active everywhere, or what is built in, and waits for neither.
//!
//! Nothing here is waited for: a voter that is in view and silent does not count.

use crate::decision::Kind;
use crate::ids::Digest;
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::message::PolicyDigests;
use crate::outbox::Note;

/// What this node holds, and what it uses.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// What its host holds ready.
    pub staged: PolicyDigests,
    /// The node-priority generation that all live voters held at once, as far as this node saw; all zero: none yet.
    pub active: Digest,
}

impl Policies {
    /// Phase two: what every live voter holds becomes active. True if something else was before.
    fn agree(&mut self, mut held: impl Iterator<Item = Option<Digest>>) -> bool {
        let new = self.staged.node_priority;
        let is_news = new != Digest::default() && new != self.active;
        if !is_news || !held.all(|digest| digest == Some(new)) {
            return false;
        }
        let before = core::mem::replace(&mut self.active, new);
        before != Digest::default()
    }
}

impl Machine {
    /// What the beats of all live voters name as staged becomes active here.
    pub(crate) fn agree_on_policy(&mut self) {
        if self.policies.staged.node_priority == self.policies.active
            || self.view.members.is_empty()
        {
            return;
        }
        let ledger = self.register.ledger();
        let held: alloc::vec::Vec<_> = self.held_by_others(&ledger).collect();
        let voters = held.len() + 1;
        if self.policies.agree(held.into_iter()) {
            let digest = self.policies.active;
            let text = alloc::format!(
                "the node-priority policy {digest:?} is active: all {voters} live nodes hold it"
            );
            self.out.record(Note::new(Kind::Policy, "PROTOCOL 6", text).node(self.me()));
        }
    }

    /// What each other live voter holds; `None`: it is in the view and has not said so yet. One that has been silent for a
    /// lease is not waited for.
    fn held_by_others<'a>(
        &'a self,
        ledger: &'a Ledger,
    ) -> impl Iterator<Item = Option<Digest>> + 'a {
        let lease = self.config.timing.lease;
        let others = self.view.configured(ledger).filter(|node| *node != self.me());
        let speaking = others.filter(move |node| self.beats.silence(*node, self.out.now) < lease);
        speaking.map(|node| {
            let heard = self.beats.heard(node).filter(|heard| !heard.stale)?;
            Some(heard.beat.policies.node_priority)
        })
    }
}

#[cfg(test)]
#[path = "tests/policy.rs"]
mod tests;
