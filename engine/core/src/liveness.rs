//! View x pages x verification IPs -> the status of each node, and who is due for eviction (PROTOCOL section 5).
//!
//! No decision rests on one channel: Full failure needs silence on both, Network isolation needs a live page that says
//! so while the others reach theirs, Storage isolation needs working storage on the other side.

use crate::beats::{Beats, Heard};
use crate::config::Config;
use crate::guest::GuestState;
use crate::heartbeat::Heartbeat;
use crate::host_shutdown;
use crate::ids::{NodeId, VmId};
use crate::ledger::{EvictionReason, Ledger, NodeEntry, Standing};
use crate::maintenance::is_spared;
use crate::quorum::Witness;
use crate::snapshot::Status;
use crate::time::{Instant, Millis};
use crate::view::View;
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// A page is silent when this many complete cycles of our own showed the same sequence.
const SILENT_CYCLES: u32 = 3;
/// A beat is missed after this many intervals.
pub(crate) const MISSED_BEATS: u64 = 3;

/// What liveness looks at. Nothing here is touched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub config: &'a Config,
    pub now: Instant,
    pub ledger: &'a Ledger,
    pub view: &'a View,
    pub beats: &'a Beats,
    pub heartbeat: &'a Heartbeat,
    pub leader: Option<NodeId>,
    /// Since when enough nodes have had working storage without interruption.
    pub storage_since: Option<Instant>,
    /// Who leads by the ledger, if it was read with proof.
    pub ledger_leader: Option<NodeId>,
    pub witness: &'a Witness,
}

/// The facts of `$machine`, borrowing only the fields that are looked at, so that others may be changed meanwhile.
macro_rules! facts_of {
    ($machine:expr, $ledger:expr) => {
        $crate::liveness::Facts {
            config: &$machine.config,
            now: $machine.out.now,
            ledger: $ledger,
            view: &$machine.view,
            beats: &$machine.beats,
            heartbeat: &$machine.heartbeat,
            leader: $machine.election.leader.map(|leader| leader.who.node),
            storage_since: $machine.liveness.storage_since(),
            ledger_leader: $machine.register.ledger_leader(),
            witness: &$machine.witness,
        }
    };
}
pub(crate) use facts_of;

/// A node's status, since when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assessment {
    pub status: Status,
    pub since: Instant,
    pub reason: String,
}

/// Statuses of all configured nodes.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    nodes: BTreeMap<NodeId, Assessment>,
    storage_since: Option<Instant>,
    /// Since when a node is network-isolated. A slow page makes it look Suspect between two looks, and ends nothing.
    isolated: BTreeMap<NodeId, Instant>,
}

impl Facts<'_> {
    fn me(&self) -> NodeId {
        self.config.me.node
    }

    fn silence(&self, node: NodeId) -> Millis {
        if node == self.me() { Millis(0) } else { self.beats.silence(node, self.now) }
    }

    /// In the view, and its beats arrive.
    pub fn is_beating(&self, node: NodeId) -> bool {
        node == self.me()
            || self.view.contains(node)
                && self.beats.heard(node).is_some()
                && self.silence(node) < self.config.timing.beat * MISSED_BEATS
    }

    /// What a node says now: its newest beat, while it beats and has not left the view since.
    pub fn word_of(&self, node: NodeId) -> Option<&Heard> {
        self.beats.heard(node).filter(|_| self.is_beating(node)).filter(|heard| !heard.stale)
    }

    /// What a node says of a VM now.
    pub fn state_of(&self, node: NodeId, vm: &VmId) -> Option<&GuestState> {
        self.word_of(node)?.report(vm).map(|report| &report.state)
    }

    /// Several complete cycles of our own, over two beats at least, showed nothing new of it.
    pub fn is_page_silent(&self, node: NodeId) -> bool {
        let seen = self.heartbeat.seen(node).filter(|_| !mutant!(PageIgnored));
        let Some(seen) = seen else { return true };
        let span = self.now.since(seen.first_shown);
        seen.silent_cycles >= SILENT_CYCLES && span >= self.config.timing.beat * 2
    }

    /// Age of the node's storage evidence by its own word; while it beats without any, since when we hear it.
    pub fn storage_age(&self, node: NodeId) -> Option<Millis> {
        if node == self.me() {
            let started = self.beats.started();
            return Some(self.heartbeat.age(self.now).unwrap_or(self.now.since(started)));
        }
        let heard = self.beats.heard(node)?;
        let since_heard = self.now.since(heard.received);
        Some(match heard.beat.storage_age {
            Some(age) => age + since_heard,
            None => self.now.since(heard.since),
        })
    }

    /// Its storage evidence is younger than a lease.
    pub fn has_storage(&self, node: NodeId) -> bool {
        self.storage_age(node).is_some_and(|age| age < self.config.timing.lease)
    }

    /// A node is storage-isolated while others are not: the time counts from its last evidence, or from when enough nodes'
    /// storage works again, whichever is later. After an outage for everybody nobody is isolated for being last.
    pub fn storage_isolated_for(&self, node: NodeId) -> Millis {
        let lasted = self.storage_since.map_or(Millis(0), |since| self.now.since(since));
        let age = self.storage_age(node).unwrap_or_default();
        if mutant!(LastInOutageIsolated) { age } else { age.min(lasted) }
    }

    /// The node has had no storage for `storage_isolation` while enough others had it.
    pub fn is_storage_isolated(&self, node: NodeId) -> bool {
        self.storage_isolated_for(node) >= self.config.timing.storage_isolation
    }

    /// Nobody in the view has storage.
    fn is_storage_outage(&self) -> bool {
        !self.view.configured(self.ledger).any(|node| self.has_storage(node))
    }

    fn verification(&self, node: NodeId) -> Option<bool> {
        if node == self.me() {
            return self.heartbeat.seen(node).and_then(|seen| seen.page.verification);
        }
        self.beats.heard(node).and_then(|heard| heard.beat.verification)
    }

    /// This node and a majority of its view reach their verification IPs.
    fn verification_works(&self) -> bool {
        let members: Vec<NodeId> = self.view.configured(self.ledger).collect();
        let reach = |node: &&NodeId| self.verification(**node) == Some(true);
        self.verification(self.me()) == Some(true)
            && members.iter().filter(reach).count() * 2 > members.len()
    }

    fn assess(&self, node: NodeId) -> (Status, String) {
        if node == self.me() {
            return self.assess_me();
        }
        if self.is_beating(node) {
            return self.assess_beating(node);
        }
        let silence = self.silence(node);
        if self.is_page_silent(node) {
            if silence >= self.config.timing.full_failure {
                return (Status::FullFailure, alloc::format!("no beat for {silence}, page silent"));
            }
        } else if !self.view.contains(node) {
            return self.assess_isolated(node);
        }
        (Status::Suspect, alloc::format!("no beat for {silence}; waiting for its page"))
    }

    fn assess_me(&self) -> (Status, String) {
        if !self.view_may_act() {
            let (have, need) = (self.view.configured(self.ledger).count(), self.ledger.majority());
            let text = alloc::format!("sees {have} nodes, a majority is {need}; nothing is moved");
            return (Status::NoQuorum, text);
        }
        let (status, reason) = self.assess_beating(self.me());
        if reason.is_empty() && !self.ledger.is_majority(|node| self.view.contains(node)) {
            return (
                status,
                "half of the nodes, storage is the witness and the only evidence".into(),
            );
        }
        (status, reason)
    }

    fn assess_beating(&self, node: NodeId) -> (Status, String) {
        if self.is_storage_outage() {
            return (Status::StorageOutage, "nobody has storage; nothing is stopped".into());
        }
        if self.is_storage_isolated(node) {
            let age = self.storage_isolated_for(node);
            return (
                Status::StorageIsolation,
                alloc::format!("no storage for {age}, others have it"),
            );
        }
        if let Some(disarm) = self.ledger.disarm.as_ref().filter(|disarm| !disarm.pending) {
            return (Status::Disarmed, alloc::format!("HA is off: {}", disarm.reason));
        }
        match self.ledger.nodes.get(&node) {
            Some(entry) => self.assess_in_order(node, entry),
            None => (Status::Joining, String::new()),
        }
    }

    fn assess_in_order(&self, node: NodeId, entry: &NodeEntry) -> (Status, String) {
        let unstable = self.instability(node);
        match &entry.standing {
            Standing::Admitted { .. } if entry.wants_empty() && self.leader != Some(node) => {
                (Status::Maintenance, emptying_words(entry, is_spared(self.ledger, node)))
            }
            _ if self.leader == Some(node) => (Status::Leader, unstable.unwrap_or_default()),
            Standing::Admitted { .. } => match unstable {
                Some(why) => (Status::NetworkUnstable, why),
                None => (Status::Member, String::new()),
            },
            Standing::Evicted(eviction) => {
                (Status::Evicted, alloc::format!("evicted: {}", reason_words(eviction.reason)))
            }
            Standing::New => (Status::Joining, "alive, waiting to be admitted".into()),
        }
    }

    fn assess_isolated(&self, node: NodeId) -> (Status, String) {
        let says = self.heartbeat.seen(node).and_then(|seen| seen.page.verification);
        if says == Some(false) && self.verification_works() {
            let text = "out of the view, page alive, its verification IPs are unreachable";
            return (Status::NetworkIsolation, text.into());
        }
        (Status::Excluded, "out of the view, page alive; nothing is moved".into())
    }

    /// The latest sign of life on either channel.
    fn last_sign(&self, node: NodeId) -> Instant {
        let beat = self.beats.heard(node).map(|heard| heard.received);
        let page = self.heartbeat.seen(node).map(|seen| seen.first_shown);
        beat.max(page).unwrap_or_default().max(self.beats.started())
    }

    /// Its page went on without its beats: it keeps its VMs by storage alone, and a hiccup of that shorter than L costs it
    /// nothing. A node that dies falls silent on both channels at once.
    fn lived_on_storage(&self, node: NodeId) -> bool {
        let beat = self.beats.heard(node).map(|heard| heard.received);
        let page = self.heartbeat.seen(node).map(|seen| seen.first_shown);
        let alone = beat.unwrap_or(self.beats.started()) + self.config.timing.full_failure;
        page.is_some_and(|page| page > alone)
    }

    /// It gave a sign of life within this incarnation of ours.
    fn was_seen_alive(&self, node: NodeId) -> bool {
        let moved = self.heartbeat.seen(node).is_some_and(|seen| seen.moved);
        moved || self.beats.heard(node).is_some()
    }

    /// A fence agent is configured for it, it is not just a slow booter after a power cut, and somebody needs its proof.
    pub fn may_fence(&self, node: NodeId) -> bool {
        let grace = self.config.timing.boot_grace;
        self.config.fence_agents.contains(&node)
            && !is_spared(self.ledger, node)
            && (self.was_seen_alive(node) || self.now.since(self.beats.started()) >= grace)
    }

    fn is_due(&self, node: NodeId, assessment: &Assessment) -> Option<EvictionReason> {
        let timing = &self.config.timing;
        let lasted = self.now.since(assessment.since);
        match assessment.status {
            Status::FullFailure => {
                let lease_ran_out = self.now.since(self.last_sign(node)) >= timing.lease;
                let quick = self.may_fence(node) && !self.lived_on_storage(node);
                (quick || lease_ran_out).then_some(EvictionReason::FullFailure)
            }
            Status::NetworkIsolation => {
                (lasted >= timing.network_isolation).then_some(EvictionReason::NetworkIsolation)
            }
            Status::StorageIsolation => {
                self.has_storage(self.me()).then_some(EvictionReason::StorageIsolation)
            }
            _ => None,
        }
    }
}

/// The reason as people read it.
pub(crate) fn reason_words(reason: EvictionReason) -> &'static str {
    match reason {
        EvictionReason::FullFailure => "full failure (no beat and no page)",
        EvictionReason::NetworkIsolation => "network isolation (page alive, network lost)",
        EvictionReason::StorageIsolation => "storage isolation (beats, but no storage)",
        EvictionReason::Rebooted => "it came back after a reboot",
        EvictionReason::Removed => "an operator removes it from the cluster",
    }
}

/// Why an operator wants it empty, and whether it is.
fn emptying_words(entry: &NodeEntry, spared: bool) -> String {
    if let Some(stop) = entry.stopping.as_ref().filter(|_| !entry.leaving) {
        return host_shutdown::words(stop.way, stop.reboot).into();
    }
    let Some(maintenance) = entry.maintenance.as_ref().filter(|_| !entry.leaving) else {
        return "it leaves the cluster when it is empty".into();
    };
    let colon = if maintenance.reason.is_empty() { "" } else { ": " };
    let state =
        if spared { "it is empty, and not fenced if it goes down" } else { "it is not empty yet" };
    alloc::format!("an operator wants it empty{colon}{}; {state}", maintenance.reason)
}

/// A status changed.
#[derive(Debug)]
pub(crate) struct Change {
    pub node: NodeId,
    pub before: Option<Status>,
    pub after: Assessment,
}

impl Liveness {
    /// Assesses everybody; returns what changed.
    pub fn assess(&mut self, facts: &Facts<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        let works = facts.enough_have_storage();
        self.storage_since = works.then(|| self.storage_since.unwrap_or(facts.now));
        let facts = &Facts { storage_since: self.storage_since, ..*facts };
        for node in facts.ledger.nodes.keys() {
            let (status, reason) = facts.assess(*node);
            let since = self.since(*node, status, facts.now);
            let before = self.nodes.get(node);
            if before.is_some_and(|known| known.status == status) {
                self.nodes.entry(*node).and_modify(|known| known.reason = reason);
                continue;
            }
            let before = before.map(|known| known.status);
            let after = Assessment { status, since, reason };
            self.nodes.insert(*node, after.clone());
            changes.push(Change { node: *node, before, after });
        }
        self.nodes.retain(|node, _| facts.ledger.nodes.contains_key(node));
        changes
    }

    fn since(&mut self, node: NodeId, status: Status, now: Instant) -> Instant {
        match status {
            Status::NetworkIsolation => *self.isolated.entry(node).or_insert(now),
            Status::Suspect => now,
            _ => {
                self.isolated.remove(&node);
                now
            }
        }
    }

    /// Since when enough nodes have had working storage without interruption.
    pub fn storage_since(&self) -> Option<Instant> {
        self.storage_since
    }

    /// It has been network-isolated for at least `length`, and is not better now.
    pub fn is_isolated_for(&self, node: NodeId, length: Millis, now: Instant) -> bool {
        self.isolated.get(&node).is_some_and(|since| now.since(*since) >= length)
    }

    pub fn of(&self, node: NodeId) -> Option<&Assessment> {
        self.nodes.get(&node)
    }

    /// A deadline is running for some node, or one has just left the view and its page is to tell a failure from an exclusion:
    /// look more often.
    pub fn is_watchful(&self, config: &Config, now: Instant) -> bool {
        self.nodes.values().any(|known| match known.status {
            Status::Suspect => true,
            Status::Excluded => now.since(known.since) < config.timing.lease,
            _ => false,
        })
    }

    /// Admitted nodes that are to be evicted now, and why.
    pub fn due(&self, facts: &Facts<'_>) -> Vec<(NodeId, EvictionReason)> {
        let admitted = |node: &NodeId| facts.ledger.admission(*node).is_some();
        let due =
            |(node, known): (&NodeId, &Assessment)| Some((*node, facts.is_due(*node, known)?));
        self.nodes.iter().filter(|(node, _)| admitted(node)).filter_map(due).collect()
    }
}

#[cfg(test)]
#[path = "tests/liveness.rs"]
mod tests;
