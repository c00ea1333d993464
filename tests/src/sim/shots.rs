//! `shot_rule`: before a fence agent is ordered, its leader has read the victim's page again, in a read begun after it took the
//! eviction for committed; and a node whose page moved since then is left alone, until it is silent for as long as it may run
//! without a lease (PROTOCOL section 5).

use super::clock::{MS, Time};
use super::node::index;
use super::world::World;
use std::collections::BTreeMap;
use steadfast_core::ids::{Ballot, NodeId, Stamp};
use steadfast_core::message::Committed;
use steadfast_core::page::Pages;

/// When one incarnation of an agent looked at the pages, and what they showed.
#[derive(Debug, Default)]
pub struct Looks {
    /// Begin of the read under way.
    begun: Time,
    /// Begin of the last read that came to an end.
    looked: Time,
    /// The newest sequence shown by each page, and when it was shown first.
    shown: BTreeMap<NodeId, (u64, Time)>,
    /// Evictions taken for committed in this reign: when, and what the page showed then.
    taken: BTreeMap<(NodeId, Stamp), Taken>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    reign: Ballot,
    at: Time,
    sequence: u64,
}

impl Looks {
    /// A read of all pages begins.
    pub fn begin(&mut self, now: Time) {
        self.begun = now;
    }

    /// It has ended.
    pub fn end(&mut self, pages: &Pages, now: Time) {
        self.looked = self.begun;
        for (node, page) in pages {
            let sequence = page.as_ref().map_or(0, |page| page.sequence);
            if self.sequence(*node) < sequence {
                self.shown.insert(*node, (sequence, now));
            }
        }
    }

    fn sequence(&self, node: NodeId) -> u64 {
        self.shown.get(&node).map_or(0, |(sequence, _)| *sequence)
    }

    /// As a leader, it tells what is committed.
    pub fn take(&mut self, committed: &Committed, now: Time) {
        let reign = committed.stamp.ballot;
        for (node, eviction) in &committed.evicted {
            let news = Taken { reign, at: now, sequence: self.sequence(*node) };
            let taken = self.taken.entry((*node, *eviction)).or_insert(news);
            if taken.reign != reign {
                *taken = news;
            }
        }
    }

    /// Why the victim's fence agent must not be ordered now. `patience`: how long a page that moved must be silent again.
    fn forbids(&self, victim: NodeId, of: Stamp, now: Time, patience: Time) -> Option<String> {
        let Some(taken) = self.taken.get(&(victim, of)) else {
            return Some(format!("eviction {of} was never told"));
        };
        if self.looked < taken.at {
            return Some("its page was not read since the commit".into());
        }
        let (sequence, first) = self.shown.get(&victim).copied().unwrap_or_default();
        let silent = (now - first) / MS;
        let alive = sequence != taken.sequence && now < first + patience;
        alive.then(|| format!("its page moved since the commit, {silent} ms ago"))
    }
}

impl World {
    /// Something that the agent does has to do with its looks at the pages.
    pub fn note_look(&mut self, n: usize, what: impl FnOnce(&mut Looks, Time)) {
        let now = self.now;
        if let Some(agent) = self.nodes[n].boot.as_mut().and_then(|boot| boot.agent.as_mut()) {
            what(&mut agent.looks, now);
        }
    }

    /// A fence agent is ordered.
    pub fn check_order_of_fence(&mut self, n: usize, victim: NodeId, eviction: Stamp) {
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        // In the leader's own time, which may run 1 % slow.
        let patience = self.plan.timing.span().0 * MS / 100 * 98;
        if let Some(why) = agent.looks.forbids(victim, eviction, self.now, patience) {
            let text = format!("n{} has n{} fenced, and {why}", n + 1, index(victim) + 1);
            self.fail("shot_rule", text);
        }
    }
}
