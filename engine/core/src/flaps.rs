//! Nodes that come and go: each short absence from the view is counted for a while (PROTOCOL section 5, "Network unstable"). Shown, and
//! told to policies; nothing is ever decided by it here.

use crate::config::Config;
use crate::ids::{Identity, NodeId};
use crate::liveness::Facts;
use crate::time::Instant;
use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
};

/// More are not remembered of one node.
const REMEMBERED: usize = 32;

/// Who left, and who came back when.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    away: BTreeMap<NodeId, (Identity, Instant)>,
    back: BTreeMap<NodeId, VecDeque<Instant>>,
    /// This node saw half of the nodes, or more, when it last looked.
    together: bool,
}

impl Flaps {
    /// The view changed. Those who see half of the nodes stayed; who is left with fewer has gone away itself.
    pub fn on_view(&mut self, me: Identity, gone: &[Identity], together: bool, now: Instant) {
        let left_myself = self.together && !together;
        self.together = together;
        let left = if together { gone } else { &[] };
        for who in left.iter().copied().chain(left_myself.then_some(me)) {
            self.away.entry(who.node).or_insert((who, now));
        }
    }

    /// `who` is heard in the view. Another incarnation has restarted, which is no flap.
    pub fn on_heard(&mut self, who: Identity, config: &Config, now: Instant) {
        if !self.together {
            return;
        }
        let Some((left, at)) = self.away.remove(&who.node) else { return };
        if left != who || now.since(at) >= config.timing.network_isolation {
            return;
        }
        let back = self.back.entry(who.node).or_default();
        back.push_back(now);
        if back.len() > REMEMBERED {
            back.pop_front();
        }
    }

    /// How often it left and came back lately.
    pub fn of(&self, node: NodeId, config: &Config, now: Instant) -> u32 {
        let recent = |at: &&Instant| now.since(**at) < config.limits.flap_window;
        let count = self.back.get(&node).map_or(0, |back| back.iter().filter(recent).count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

impl Facts<'_> {
    /// How often `node` left and came back lately.
    pub fn flaps(&self, node: NodeId) -> u32 {
        self.view.flaps.of(node, self.config, self.now)
    }

    /// It did so too often: in words.
    pub fn instability(&self, node: NodeId) -> Option<String> {
        let (limits, count) = (&self.config.limits, self.flaps(node));
        let unstable = count >= limits.flaps.max(1);
        let text =
            || alloc::format!("left and came back {count} times within {}", limits.flap_window);
        unstable.then(text)
    }
}

#[cfg(test)]
#[path = "tests/flaps.rs"]
mod tests;
