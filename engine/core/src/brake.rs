//! The mass-failure brake (PROTOCOL section 5): when more nodes seem dead at once than really die at once, the fault is likely in what we
//! look through. Then only nodes with a fence agent are evicted, and no time proves anything of them.

use crate::decision::Kind;
use crate::ledger::{Eviction, EvictionReason, Ledger};
use crate::liveness::Facts;
use crate::outbox::Note;
use crate::time::Instant;
use alloc::vec::Vec;

/// What this leader evicted lately.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    /// When it took each eviction of a failed node as committed.
    committed: Vec<Instant>,
    on: bool,
    /// It was pulled: to be told.
    pub news: Option<Note>,
}

impl Brake {
    /// `due` more failed nodes are too many.
    pub fn holds(&mut self, due: usize, facts: &Facts<'_>) -> bool {
        let length = facts.config.timing.lease;
        self.committed.retain(|at| facts.now.since(*at) < length);
        let limit = facts.config.limits.max_evictions.unwrap_or(facts.ledger.nodes.len() / 2);
        let all = due + self.committed.len();
        let on = due > 0 && all > limit;
        if on && !self.on {
            let text = alloc::format!(
                "{all} nodes seem to have failed within {length}, at most {limit} are believed: of those due now only nodes \
                 with a fence agent are evicted; look at the network, the storage and the power of all"
            );
            self.news = Some(Note::new(Kind::Alarm, "PROTOCOL 5", text));
        }
        self.on = on;
        on
    }

    pub fn on_committed(&mut self, before: &Ledger, after: &Ledger, now: Instant) {
        let known = |node| before.eviction(node).map(|eviction| eviction.since);
        let fresh = after.evictions().filter(|(node, e)| known(*node) != Some(e.since));
        let failed = fresh.filter(|(_, eviction)| is_failure(eviction));
        self.committed.extend(failed.map(|_| now));
    }
}

/// A node that came back under another boot, or was drained, is no surprise.
fn is_failure(eviction: &Eviction) -> bool {
    !matches!(eviction.reason, EvictionReason::Rebooted | EvictionReason::Removed)
}

#[cfg(test)]
#[path = "tests/brake.rs"]
mod tests;
