//! `calm`: a node that keeps either kind of evidence is never reset, never fenced and never evicted. By the world's
//! omniscience: since when has a node's agent been awake, its storage worked, its network been whole?
//!
//! One residual is known and allowed (PROTOCOL section 8): a node whose eviction stays a rumour, because its leader was
//! deposed in mid-commit. It is counted.

use super::check::Violation;
use super::clock::{MS, SECOND, Time};
use super::faults::bits;
use super::node::{id, index};
use super::world::World;
use std::collections::BTreeSet;
use steadfast_core::ids::NodeId;
use steadfast_core::ledger::{Eviction, EvictionReason, Ledger};

/// Since when each thing has worked without interruption; `None`: it does not now.
#[derive(Debug, Default, Clone, Copy)]
pub struct Health {
    /// The agent runs, and is not paused.
    pub awake: Option<Time>,
    /// The node's storage neither hangs nor fails nor lags.
    pub storage: Option<Time>,
    /// Its ring is whole, and nothing is held back.
    pub network: Option<Time>,
    /// It is admitted by the newest committed ledger.
    pub admitted: Option<Time>,
    /// When an HA VM executed here last, was starting, or had a copy here.
    pub busy: Time,
}

impl World {
    /// The agent began to run, or does not.
    pub fn note_awake(&mut self, n: usize) {
        let node = &self.nodes[n];
        let awake = node.agent_sleeps.max(node.node_sleeps) <= self.now
            && node.boot.as_ref().is_some_and(|boot| boot.agent.is_some());
        let health = &mut self.check.health[n];
        health.awake = awake.then(|| health.awake.unwrap_or(self.now));
    }

    /// The node's storage works again, or does not.
    pub fn note_storage(&mut self, n: usize) {
        let (works, now) = (self.disk.is_well(n), self.now.max(self.disk.settled(n)));
        let health = &mut self.check.health[n];
        health.storage = works.then(|| health.storage.unwrap_or(now));
    }

    /// The node's network changed. Even for the better: a new ring is a new begin.
    pub fn note_network(&mut self, n: usize) {
        self.check.health[n].network = self.net.is_well(n).then_some(self.now);
    }

    /// `calm`: a node goes down.
    pub fn check_calm(&mut self, n: usize, why: &str) {
        if !matches!(why, "watchdog" | "reset") {
            return;
        }
        let Some(boot) = self.nodes[n].boot.as_ref() else { return };
        let span = boot.clock.span(self.plan.timing.span().0);
        let health = self.check.health[n];
        let Some(since) = self.now.checked_sub(span) else { return };
        let held = |at: Option<Time>| at.is_some_and(|at| at <= since);
        if !held(health.awake) {
            return;
        }
        if !self.guards(n) && health.busy + span + 10 * SECOND < self.now && self.has_read(n) {
            return self.fail("calm", format!("n{} is reset ({why}) and runs no HA VM", n + 1));
        }
        let kept = held(health.storage) || self.network_held(n, since);
        if !kept || !held(health.admitted) {
            return;
        }
        if self.is_rumoured(n) {
            self.stats.residual += 1;
            return self.note(n, || "known residual: its eviction stays a rumour".into());
        }
        self.fail("calm", format!("n{} is reset ({why}); it kept {health:?} in {span} us", n + 1));
    }

    /// HA VMs that count execute here, or start.
    pub fn is_busy(&self, n: usize) -> bool {
        let vms = self.check.chain.newest().map_or(0, |ledger| self.acknowledged(ledger));
        self.may_execute(n, vms)
    }

    /// HA VMs execute here, start, or have a copy here: an agent that knows of one guards it, acknowledged or not, and goes on
    /// until it reads that HA is off for it. A start that comes too late is one until its agent hears so.
    pub fn guards(&self, n: usize) -> bool {
        let agent = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        let known = agent.map(|agent| agent.machine.ledger());
        let newest = self.check.chain.newest().map(|ledger| &**ledger);
        let ledgers = known.as_deref().into_iter().chain(newest);
        let vms = ledgers.flat_map(|ledger| ledger.vms.keys());
        let vms = vms.fold(0, |mask, vm| mask | 1 << self.vm_index(vm));
        let asked = agent.map_or(0, |agent| bits(agent.preparing.iter().map(|start| start.vm)));
        self.may_execute(n, vms) || (self.copies(n) | asked) & vms != 0
    }

    /// Its agent has read the ledger in this incarnation.
    fn has_read(&self, n: usize) -> bool {
        let agent = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        agent.is_some_and(|agent| agent.has_read)
    }

    fn is_rumoured(&self, n: usize) -> bool {
        let chain = &self.check.chain;
        let admission = chain.newest().and_then(|ledger| ledger.admission(id(n)));
        admission.is_some_and(|(_, since)| chain.is_rumoured(id(n), since))
    }

    /// The ledger that `k` has read admits `n` as the newest one does.
    fn admits(&self, k: usize, n: usize) -> bool {
        let agent = self.nodes[k].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        let known = agent.and_then(|agent| agent.machine.ledger().admission(id(n)));
        let newest = self.check.chain.newest().and_then(|ledger| ledger.admission(id(n)));
        known.is_some() && known == newest
    }

    /// A majority that could echo this node was in one ring with it since then.
    fn network_held(&self, n: usize, since: Time) -> bool {
        let held = |at: Option<Time>| at.is_some_and(|at| at <= since);
        // An echo of a node that is evicted counts for nobody (rule 4).
        let well = |k: &usize| {
            let health = self.check.health[*k];
            let admitted = held(health.admitted) && !self.is_rumoured(*k);
            admitted && held(health.awake) && held(health.network) && self.has_read(*k)
        };
        // Who heard of an eviction of this node echoes it again only when it has read of its admission.
        let knows = |k: &usize| held(self.check.health[*k].storage) || self.admits(*k, n);
        let ring = self.net.ring_of(n);
        let together = |set: &BTreeSet<NodeId>| {
            let members = set.iter().map(|node| index(*node)).filter(|k| ring >> k & 1 == 1);
            members.filter(|k| well(k) && knows(k)).count() > set.len() / 2
        };
        // Nodes that were removed echo nothing that counts.
        let newest = self.check.chain.newest().map(|ledger| &**ledger);
        let ledger: &Ledger = newest.unwrap_or(&self.genesis);
        let now = ledger.nodes.keys().copied().collect();
        let before = ledger.changing.iter().map(|changing| &changing.before);
        well(&n) && together(&now) && before.into_iter().all(together)
    }

    /// An eviction of a node that shows none of what it is evicted for. Only if the leader could see that itself.
    pub fn uncalled_for(&self, by: usize, before: &Ledger, after: &Ledger) -> Option<Violation> {
        let since = self.now.checked_sub(self.plan.timing.lease.0 * MS + SECOND)?;
        let held = |at: Option<Time>| at.is_some_and(|at| at <= since);
        let leader = self.check.health[by];
        let reads = held(leader.awake) && held(leader.storage);
        let may_judge = reads && held(leader.network);
        after.nodes.keys().find_map(|node| {
            let eviction = after.eviction(*node).filter(|_| before.admission(*node).is_some())?;
            let n = index(*node);
            let health = self.check.health.get(n)?;
            let awake = held(health.awake);
            let (stored, connected) = (awake && held(health.storage), self.connected(by, n, since));
            let wrong = match eviction.reason {
                // Whatever the network does: its page moved, and the leader has read it since.
                EvictionReason::FullFailure => {
                    stored && (may_judge || reads && self.disk.shows_life(n, by, self.recently()))
                }
                EvictionReason::NetworkIsolation => may_judge && awake && connected,
                EvictionReason::StorageIsolation => may_judge && stored && connected,
                EvictionReason::Rebooted => self.runs_boot(n, eviction.boot),
                EvictionReason::Removed => false,
            };
            wrong.then(|| complaint(*node, eviction))
        })
    }

    /// Nobody is silent whose page has moved since then.
    fn recently(&self) -> Time {
        self.now.saturating_sub(2 * self.plan.timing.beat.0 * MS)
    }

    fn connected(&self, a: usize, b: usize, since: Time) -> bool {
        let held = |n: usize| self.check.health[n].network.is_some_and(|at| at <= since);
        held(a) && held(b) && self.net.ring_of(a) == self.net.ring_of(b)
    }
}

fn complaint(node: NodeId, eviction: &Eviction) -> Violation {
    let text = format!("node {node} is evicted for {:?}, and is not so", eviction.reason);
    Violation { rule: "calm", text }
}
