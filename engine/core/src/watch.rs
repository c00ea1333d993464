//! After every step the machine looks at what it has just done, and once a beat at what others say, by the invariants of PROTOCOL
//! section 8 (`invariants.rs`). What does not hold is told as an alarm, once: nothing else follows from it, because a check that
//! acts would be one more thing that can be wrong.

use crate::action::Action;
use crate::decision::{Decision, Kind};
use crate::guest::GuestState;
use crate::ids::{NodeId, Stamp, VmId};
use crate::invariants::{self, Evidence, Finding, Grounds, Homes};
use crate::ledger::Ledger;
use crate::liveness::facts_of;
use crate::machine::Machine;
use crate::message::Body;
use crate::outbox::Note;
use crate::time::Instant;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};

/// Alarms remembered, so that each is told once. Whoever has that many has read enough.
const TOLD_LIMIT: usize = 100;
/// Terms remembered with who leads them.
const TERMS: usize = 8;

/// What the checks remember.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// When words are compared next.
    next: Instant,
    /// VMs that several nodes say they run, and what they said when that was first seen.
    homes: BTreeMap<VmId, Homes>,
    /// Who said that it leads which term.
    led: BTreeMap<u64, NodeId>,
    /// The newest body read with proof.
    proved: Option<(Stamp, Arc<Ledger>)>,
    told: BTreeSet<String>,
}

/// A finding, by the name of its invariant.
type Found = Vec<(&'static str, String)>;

fn add(found: &mut Found, name: &'static str, finding: Finding) {
    found.extend(finding.map(|text| (name, text)));
}

impl Machine {
    /// Checks what one node can check on itself.
    pub(crate) fn watch_itself(&mut self) {
        let mut found = Found::new();
        self.watch_actions(&mut found);
        self.watch_ledger(&mut found);
        if self.out.now >= self.watch.next {
            self.watch.next = self.out.now + self.config.timing.beat;
            self.watch_words(&mut found);
        }
        for (name, text) in found {
            self.alarm(name, &text);
        }
    }

    fn alarm(&mut self, name: &'static str, text: &str) {
        let text = alloc::format!("{name} is broken: {text}");
        if self.watch.told.len() < TOLD_LIMIT && self.watch.told.insert(text.clone()) {
            self.out.record(Note::new(Kind::Alarm, "PROTOCOL 8", text).node(self.me()));
        }
    }

    // --- what this step did ----------------------------------------------------------------------------

    fn watch_actions(&self, found: &mut Found) {
        for action in &self.out.actions {
            match action {
                Action::StartVm { vm, not_after, .. } => {
                    let grounds = self.grounds(vm, *not_after);
                    let finding = invariants::no_start_without_proof(vm, &grounds);
                    add(found, "no_start_without_proof", finding);
                    self.watch_hands(vm, found);
                }
                Action::DestroyVm { vm, .. } => {
                    if !self.lease.is_good(&self.config, self.out.now) {
                        let finding = invariants::no_single_channel(&self.evidence());
                        add(found, "no_single_channel", finding);
                    }
                    self.watch_hands(vm, found);
                }
                Action::ShutDownVm { vm }
                | Action::UndefineVm { vm }
                | Action::AdoptVm { vm }
                | Action::ResumeVm { vm, .. }
                | Action::MigrateVm { vm, .. } => self.watch_hands(vm, found),
                Action::FeedWatchdog { last, .. } => {
                    let finding = self.feed_finding(*last, self.is_idle());
                    add(found, "feed_rule", finding);
                }
                Action::ResetNode { .. } => {
                    add(found, "calm", invariants::calm(&self.evidence()));
                    self.watch_record("this node is reset", Kind::Reset, self.me(), found);
                }
                Action::Fence { victim, .. } => {
                    self.watch_record("a node is fenced", Kind::FenceOrdered, *victim, found);
                }
                Action::Send(message) => self.watch_message(&message.body, found),
                _ => {}
            }
        }
    }

    fn watch_hands(&self, vm: &VmId, found: &mut Found) {
        // By the newest body, or by the one before it that named it last; an unfinished copy is ours to remove.
        let named = self.guests.is_ha(vm) || self.register.ledger().vms.contains_key(vm);
        let ours = named || self.arrivals.is_copy(vm);
        add(found, "hands_off", invariants::hands_off(vm, ours));
    }

    fn grounds(&self, vm: &VmId, not_after: Instant) -> Grounds {
        let proved = self.register.proved();
        let ledger = proved.map(|known| &known.ledger);
        let boot = self.config.me.boot;
        Grounds {
            proved: proved.is_some(),
            admitted: ledger.and_then(|l| l.admission(self.me())).is_some_and(|(b, _)| b == boot),
            owner: ledger.and_then(|l| l.vms.get(vm)).is_some_and(|e| e.owner == self.me()),
            lease_ends: self.lease.expires(&self.config),
            not_after,
            margin: self.config.timing.start_margin,
            fed: self.feed_finding(None, false).is_none(),
        }
    }

    /// `last` is what the feed in question knew of; without one it is what this node knows now.
    fn feed_finding(&self, last: Option<Instant>, idle: bool) -> Finding {
        let last = last.or(self.lease.counted_feed(self.out.now));
        let deadline = self.lease.deadline(&self.config);
        invariants::feed_rule(last, self.config.timing.watchdog, deadline, idle)
    }

    fn evidence(&self) -> Evidence {
        let now = self.out.now;
        Evidence {
            counts: self.lease.admission().is_some() && self.lease.evicted().is_none(),
            network: self.lease.network_age(now),
            storage: self.lease.storage_age(now),
            lease: self.config.timing.lease,
        }
    }

    fn watch_message(&self, body: &Body, found: &mut Found) {
        let Body::Committed(committed) = body else { return };
        let fresh = committed.evicted.iter().filter(|(_, since)| *since == committed.stamp);
        for (node, _) in fresh {
            self.watch_record("a node is evicted", Kind::Evicted, *node, found);
        }
    }

    /// This step has a record of this kind about `node`.
    fn watch_record(&self, deed: &str, kind: Kind, node: NodeId, found: &mut Found) {
        let tells = |record: &Decision| record.kind == kind && record.node == Some(node);
        let mut records = self.out.actions.iter();
        let recorded = records.any(|a| matches!(a, Action::Record(record) if tells(record)));
        add(found, "explained", invariants::explained(deed, recorded));
    }

    // --- what was read ---------------------------------------------------------------------------------

    fn watch_ledger(&mut self, found: &mut Found) {
        let Some(known) = self.register.proved() else { return };
        let after = (known.stamp, Arc::clone(&known.ledger));
        if let Some((stamp, ledger)) = self.watch.proved.as_ref().filter(|(s, _)| *s != after.0) {
            let finding = invariants::ledger_is_linear((*stamp, ledger), (after.0, &after.1));
            add(found, "ledger_is_linear", finding);
            // Between more distant versions a new owner may have been evicted.
            if after.0.version == stamp.version + 1 {
                let finding = invariants::policy_is_advice(ledger, &after.1);
                add(found, "policy_is_advice", finding);
            }
        }
        if self.watch.proved.as_ref().is_none_or(|(stamp, _)| *stamp != after.0) {
            self.watch.proved = Some(after);
        }
    }

    // --- what is said ----------------------------------------------------------------------------------

    fn watch_words(&mut self, found: &mut Found) {
        let ledger = self.register.ledger();
        if ledger.is_off() {
            self.watch.homes.clear();
            return;
        }
        let now = self.homes(&ledger);
        self.watch.homes.retain(|vm, _| now.contains_key(vm));
        for (vm, homes) in now {
            let first = self.watch.homes.entry(vm.clone()).or_insert_with(|| homes.clone());
            add(found, "one_home", invariants::one_home(&vm, first, &homes));
        }
        for (term, node) in self.claims(&ledger) {
            let known = *self.watch.led.entry(term).or_insert(node);
            let finding = invariants::one_leader_per_term(term, known, node);
            add(found, "one_leader_per_term", finding);
        }
        while self.watch.led.len() > TERMS {
            self.watch.led.pop_first();
        }
    }

    /// VMs that several nodes say they run.
    fn homes(&self, ledger: &Arc<Ledger>) -> BTreeMap<VmId, Homes> {
        let facts = facts_of!(self, ledger);
        let mut all: BTreeMap<VmId, Homes> = BTreeMap::new();
        for node in ledger.nodes.keys() {
            let Some(heard) = facts.word_of(*node) else { continue };
            let running = heard.beat.guests.iter().filter(|r| r.state == GuestState::Running);
            for report in running {
                let said = (heard.from, heard.beat.number);
                all.entry(report.vm.clone()).or_default().insert(*node, said);
            }
        }
        all.retain(|_, homes| homes.len() > 1);
        all
    }

    fn claims(&self, ledger: &Ledger) -> Vec<(u64, NodeId)> {
        let heard = ledger.nodes.keys().filter_map(|node| Some((*node, self.beats.heard(*node)?)));
        let leading = heard.filter(|(_, heard)| heard.beat.leading);
        let own = self.register.leading().map(|ballot| (ballot.term, self.me()));
        leading.map(|(node, heard)| (heard.beat.term, node)).chain(own).collect()
    }
}

#[cfg(test)]
#[path = "tests/watch.rs"]
mod tests;
