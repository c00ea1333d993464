//! One path for every VM that lost its place: orphan -> asked -> placed -> committed -> ordered -> running. The leader's
//! side; the owner's side is in `duty.rs`.

use crate::action::{Action, QuestionId};
use crate::decision::{Asked, Kind, PolicyRecord};
use crate::event::Decider;
use crate::guest::GuestState;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Ledger, NodeEntry, Proof, VmEntry};
use crate::liveness::Facts;
use crate::maintenance::{is_emptied, set_off};
use crate::migration::Migrations;
use crate::outbox::{Note, Outbox};
use crate::placement::{Admitted, Assignment, admit};
use crate::promised::Promises;
use crate::question::question;
use crate::time::{Instant, Millis};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use steadfast_sdk::wire::{NodeFacts, PlacementQuestion, PlacementVerdict, VmFacts};

/// A VM without a place is asked about again after this, or when the nodes that could take it change.
const ASK_AGAIN: Millis = Millis(2_000);
/// A VM that could be started nowhere gets a fresh chance on every node after this.
const FORGIVE_AFTER: Millis = Millis(30_000);

/// A question in flight.
#[derive(Debug)]
struct Pending {
    id: QuestionId,
    question: Box<PlacementQuestion>,
    deadline: Instant,
}

/// The leader's work on VMs without a place. Not carried over: a new leader finds them in the ledger.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pending: Option<Pending>,
    /// Places decided, not committed yet.
    pub decided: Vec<Assignment>,
    /// The record of that decision, until it is put into a commit.
    record: Option<PolicyRecord>,
    /// What the commit under way places, and the record of why.
    placing: Option<(PolicyRecord, BTreeSet<VmId>)>,
    /// VMs that wait, and why.
    pub waiting: BTreeMap<VmId, String>,
    asked: Option<(Instant, BTreeSet<VmId>, BTreeSet<u32>)>,
    stuck_since: BTreeMap<VmId, Instant>,
    promises: Promises,
    /// VMs whose owners failed before they heard that they are under HA.
    unheard: BTreeSet<VmId>,
}

/// Why it was given up, if that says something about the VM: nobody had told its owner to.
pub(crate) fn failed_here<'a>(entry: &VmEntry, facts: &'a Facts<'_>) -> Option<&'a str> {
    let told = entry.leave.is_some() || is_emptied(facts.ledger, entry.owner);
    given_up(entry, facts).filter(|_| !told)
}

/// Proof 5: the owner's statement that the process is gone and that it gives up this ownership.
pub(crate) fn given_up<'a>(entry: &VmEntry, facts: &'a Facts<'_>) -> Option<&'a str> {
    // Of a node that is out of the view only old words are known: its next incarnation may know better.
    let is_it = |since: Stamp| since == entry.since || mutant!(GivenUpOfOlderOwnership);
    match facts.state_of(entry.owner, &entry.spec.id)? {
        GuestState::GivenUp { since, reason } if is_it(*since) => Some(reason),
        _ => None,
    }
}

/// The VM has no place and needs one: its owner is evicted and proved (1-4), or has given it up (5).
pub(crate) fn is_orphan(ledger: &Ledger, entry: &VmEntry, facts: &Facts<'_>) -> bool {
    // What is off needs no place, but for a node that leaves the cluster.
    let leaving = ledger.nodes.get(&entry.owner).is_some_and(|node| node.leaving);
    let wants = entry.may_run() || leaving;
    // While a migration stands its own rules hold (`migration.rs`).
    let waits = ledger.is_freezing(entry.owner);
    wants && !waits && entry.migration.is_none() && is_homeless(ledger, entry, facts)
}

/// It is proved to run nowhere, and its owner will not start it.
pub(crate) fn is_homeless(ledger: &Ledger, entry: &VmEntry, facts: &Facts<'_>) -> bool {
    if entry.unseen {
        return false;
    }
    match ledger.eviction(entry.owner) {
        Some(eviction) => match eviction.proof {
            Some(Proof::Fenced | Proof::BootChanged) => true,
            // These speak of the VMs that the owner knew to be under HA.
            Some(Proof::NoneLeft | Proof::TimeExpired) => entry.acknowledged,
            None => mutant!(RelocatedWithoutProof),
        },
        // Before it is acknowledged nobody knows who else runs it.
        None => {
            entry.acknowledged && (given_up(entry, facts).is_some() || has_departed(entry, facts))
        }
    }
}

/// Its owner says that it left by a live migration, and will not start it under this ownership any more.
fn has_departed(entry: &VmEntry, facts: &Facts<'_>) -> bool {
    let state = facts.state_of(entry.owner, &entry.spec.id);
    matches!(state, Some(GuestState::Departed { since }) if *since == entry.since)
}

/// Nodes that say anything of a VM that is not theirs: a copy of it may be there still.
pub(crate) fn with_copies<'a>(
    entry: &'a VmEntry,
    facts: &'a Facts<'_>,
) -> impl Iterator<Item = NodeId> + 'a {
    let others = facts.ledger.nodes.keys().filter(|node| **node != entry.owner);
    others.copied().filter(|node| facts.state_of(*node, &entry.spec.id).is_some())
}

/// Nodes that may take VMs now: admitted, good, and leased by their own word.
pub(crate) fn candidates(facts: &Facts<'_>, own: &NodeFacts, own_good: bool) -> Vec<NodeFacts> {
    let mut nodes = Vec::new();
    for node in facts.ledger.nodes.keys() {
        let admitted = facts.ledger.admission(*node).is_some() && facts.is_beating(*node);
        if !admitted {
            continue;
        }
        if *node == facts.config.me.node {
            nodes.extend(own_good.then(|| own.clone()));
            continue;
        }
        let Some(heard) = facts.beats.heard(*node) else { continue };
        let margin = facts.config.timing.start_margin;
        let leased = heard.beat.lease_left.is_some_and(|left| left > margin);
        let stored = facts.storage_age(*node).is_some_and(|age| age < facts.config.timing.lease);
        if leased && stored && heard.beat.armed {
            let flaps = heard.beat.facts.flaps.max(facts.flaps(*node));
            nodes.push(NodeFacts { flaps, ..heard.beat.facts.clone() });
        }
    }
    nodes
}

impl Recovery {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Nothing was asked, decided, or waits.
    pub fn is_idle(&self) -> bool {
        let asked = self.pending.is_some() || !self.decided.is_empty();
        !asked && self.waiting.is_empty() && self.stuck_since.is_empty() && self.unheard.is_empty()
    }

    /// Every VM has a place: nothing is to be asked, and nothing waits.
    pub fn has_no_orphans(&mut self, facts: &Facts<'_>) -> bool {
        let mut entries = facts.ledger.vms.values();
        let ledger = facts.ledger;
        let gone = |entry: &VmEntry| ledger.eviction(entry.owner).is_some();
        let none = !entries.any(|entry| gone(entry) || is_orphan(ledger, entry, facts));
        let none = none && self.unheard.is_empty();
        if none {
            self.waiting.clear();
            self.stuck_since.clear();
        }
        none
    }

    /// Asks the policy where orphans go, and `movers`, if that is due.
    pub fn ask_if_due(
        &mut self,
        movers: Vec<&VmEntry>,
        nodes: Vec<NodeFacts>,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) {
        let ledger = facts.ledger;
        let orphan = |entry: &&VmEntry| is_orphan(ledger, entry, facts);
        let mut homeless: Vec<&VmEntry> = ledger.vms.values().filter(orphan).collect();
        homeless.extend(movers);
        self.wait_for_ends(facts, out);
        let ids: BTreeSet<VmId> = homeless.iter().map(|entry| entry.spec.id.clone()).collect();
        self.waiting.retain(|vm, _| ids.contains(vm) || self.unheard.contains(vm));
        self.stuck_since.retain(|vm, _| ids.contains(vm));
        if ids.is_empty() || self.pending.is_some() || !self.decided.is_empty() {
            return;
        }
        let places: BTreeSet<u32> = nodes.iter().map(|node| node.id).collect();
        let fresh = self.asked.as_ref().is_none_or(|(at, vms, known)| {
            out.now.since(*at) >= ASK_AGAIN || *vms != ids || *known != places
        });
        if !fresh {
            return;
        }
        self.asked = Some((out.now, ids.clone(), places));
        if nodes.is_empty() {
            self.wait(
                ids.iter().map(|vm| (vm.clone(), "no good node".into())).collect(),
                facts,
                out,
            );
            return;
        }
        self.ask(&homeless, nodes, facts, out);
    }

    fn ask(
        &mut self,
        homeless: &[&VmEntry],
        mut nodes: Vec<NodeFacts>,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) {
        let asked = |vm: &VmId| homeless.iter().any(|entry| entry.spec.id == *vm);
        self.promises.take_off(&mut nodes, asked, facts);
        let id = out.id();
        let question = Box::new(question(homeless, nodes, facts));
        out.push(Action::AskPlacement { id, question: question.clone() });
        let deadline = out.now + facts.config.timing.policy_deadline;
        self.pending = Some(Pending { id, question, deadline });
    }

    /// A verdict came in.
    pub fn on_answer(
        &mut self,
        id: QuestionId,
        verdict: PlacementVerdict,
        decider: Decider,
        migrations: &Migrations,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) {
        if let Some(pending) = self.pending.take_if(|pending| pending.id == id) {
            self.decide(&pending.question, verdict, decider, migrations, facts, out);
        }
    }

    /// No verdict in time: the built-in decides.
    pub fn on_time(&mut self, migrations: &Migrations, facts: &Facts<'_>, out: &mut Outbox) {
        let now = out.now;
        let Some(late) = self.pending.take_if(|pending| now >= pending.deadline) else { return };
        let verdict = (facts.config.builtin.placement)(&late.question);
        let deadline = facts.config.timing.policy_deadline;
        let decider = Decider {
            name: "built-in".into(),
            kind: "built_in".into(),
            failures: [alloc::format!("the policy did not answer within {deadline}")].into(),
            ..Decider::default()
        };
        self.decide(&late.question, verdict, decider, migrations, facts, out);
    }

    pub fn wake_at(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.deadline)
    }

    fn decide(
        &mut self,
        question: &PlacementQuestion,
        verdict: PlacementVerdict,
        decider: Decider,
        migrations: &Migrations,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) {
        let ranked = |vm: &VmFacts| verdict.vms.iter().any(|ranked| ranked.vm == vm.id);
        let fallback = match question.vms.iter().all(ranked) {
            true => PlacementVerdict::default(),
            false => (facts.config.builtin.placement)(question),
        };
        let excluded = self.excluded(question, migrations, facts, out.now);
        let Admitted { assignments, waiting, corrections } =
            admit(question, &verdict, &fallback, &excluded);
        self.decided = assignments;
        self.wait(waiting, facts, out);
        let asked = Asked::Placement { question: question.clone(), verdict };
        self.record = Some(PolicyRecord { decider, asked, corrections });
    }

    /// Where each VM is not to go.
    fn excluded(
        &mut self,
        question: &PlacementQuestion,
        migrations: &Migrations,
        facts: &Facts<'_>,
        now: Instant,
    ) -> BTreeMap<VmId, BTreeSet<NodeId>> {
        let mut excluded = BTreeMap::new();
        for (vm, entry) in &facts.ledger.vms {
            let mut nodes = unwelcome(entry, question, migrations, facts);
            if !nodes.is_empty() {
                let since = *self.stuck_since.entry(vm.clone()).or_insert(now);
                // Forgiven when nothing else is left.
                if now.since(since) >= FORGIVE_AFTER {
                    nodes.clear();
                }
            }
            nodes.extend(with_copies(entry, facts));
            // From one node at risk to another is no way to safety. An orphan has no choice.
            if facts.ledger.drain_of(entry.owner).is_some()
                && !is_orphan(facts.ledger, entry, facts)
            {
                nodes.extend(facts.ledger.holds().map(|(node, _)| node));
            }
            if !nodes.is_empty() {
                excluded.insert(vm.clone(), nodes);
            }
        }
        excluded
    }

    /// A VM that had just come under HA when its owner failed: "none left" and time say nothing of it.
    fn wait_for_ends(&mut self, facts: &Facts<'_>, out: &mut Outbox) {
        let ledger = facts.ledger;
        let ends = |entry: &&VmEntry| {
            let eviction = ledger.eviction(entry.owner);
            let proved = eviction.is_some_and(|eviction| eviction.proof.is_some());
            proved && entry.may_run() && !is_homeless(ledger, entry, facts)
        };
        let before = core::mem::take(&mut self.unheard);
        self.waiting.retain(|vm, _| !before.contains(vm));
        for entry in ledger.vms.values().filter(ends) {
            let (vm, name, owner) = (&entry.spec.id, &entry.spec.name, ledger.name(entry.owner));
            let why = if entry.unseen {
                alloc::format!(
                    "{name} may have been moved by hand while HA was off, and not every node that may run it has said \
                     since that it does not"
                )
            } else {
                alloc::format!(
                    "{owner} failed before it had heard that {name} is under HA, and may run it still; \
                     only a reboot of {owner} or its fence agent proves that it does not"
                )
            };
            if !before.contains(vm) {
                let text = alloc::format!("{name} waits: {why}");
                out.record(Note::new(Kind::Waiting, "PROTOCOL 5", text).vm(vm).node(entry.owner));
            }
            self.unheard.insert(vm.clone());
            self.waiting.insert(vm.clone(), why);
        }
    }

    fn wait(&mut self, waiting: BTreeMap<VmId, String>, facts: &Facts<'_>, out: &mut Outbox) {
        for (vm, why) in &waiting {
            if self.waiting.get(vm) != Some(why) {
                let name = facts.ledger.vms.get(vm).map_or("?", |entry| entry.spec.name.as_str());
                let orphan = |entry: &VmEntry| is_orphan(facts.ledger, entry, facts);
                let what = match facts.ledger.vms.get(vm).is_some_and(orphan) {
                    true => "waits for a place",
                    false => "stays where it is",
                };
                let text = alloc::format!("{name} {what}: {why}; tried again on every change");
                out.record(Note::new(Kind::Waiting, "PROTOCOL 7", text).vm(vm));
            }
        }
        let unheard = |vm: &VmId, _: &mut String| self.unheard.contains(vm);
        self.waiting.retain(|vm, why| unheard(vm, why));
        self.waiting.extend(waiting);
    }

    /// Puts decided places into the next ledger. Those that are not legal any more are dropped and asked again.
    pub fn apply(
        &mut self,
        next: &mut Ledger,
        stamp: Stamp,
        migrations: &Migrations,
        facts: &Facts<'_>,
    ) -> bool {
        let mut changed = false;
        let mut placed = BTreeSet::new();
        let record = self.record.take_if(|_| !self.decided.is_empty());
        for Assignment { vm, node } in core::mem::take(&mut self.decided) {
            // The same commit may evict it.
            let stays = next.admission(node).is_some() && facts.ledger.admission(node).is_some();
            if !stays || !facts.is_beating(node) || is_emptied(next, node) {
                continue;
            }
            let orphan = |entry: &VmEntry| is_orphan(facts.ledger, entry, facts);
            if !next.vms.get(&vm).is_some_and(orphan) {
                changed |= set_off(next, &vm, node, stamp, migrations, facts);
                continue;
            }
            let owner = next.vms.get(&vm).map(|entry| entry.owner);
            let owner = owner.and_then(|owner| next.nodes.get(&owner));
            let drained = owner.is_some_and(NodeEntry::lends_its_vms);
            let Some(entry) = next.vms.get_mut(&vm) else { continue };
            if drained && given_up(entry, facts).is_some() {
                entry.home.get_or_insert(entry.owner);
            }
            if failed_here(entry, facts).is_some() {
                entry.failed_on.insert(entry.owner);
                entry.relocations = entry.relocations.saturating_add(1);
            }
            entry.moves_to(node, stamp);
            placed.insert(vm);
            changed = true;
        }
        self.placing = record.map(|record| (record, placed));
        changed
    }

    /// The places are committed: tells why, once per VM.
    pub fn on_committed(&mut self, before: &Ledger, after: &Ledger, out: &mut Outbox) {
        self.promises.on_committed(before, after, out.now);
        let is_moved = |(vm, entry): &(&VmId, &VmEntry)| {
            before.vms.get(*vm).is_some_and(|old| old.since != entry.since)
        };
        let moved: Vec<(&VmId, &VmEntry)> = after.vms.iter().filter(is_moved).collect();
        moved.iter().for_each(|(vm, _)| drop(self.waiting.remove(*vm)));
        if let Some((record, vms)) = self.placing.take() {
            // Others were given a new ownership by their operators, not a new place.
            let placed = moved.into_iter().filter(|(vm, _)| vms.contains(*vm));
            tell_places(record, placed, after, out);
        }
        self.asked = None;
    }
}

/// The question may be large: only the first record holds it.
fn tell_places<'a>(
    record: PolicyRecord,
    placed: impl Iterator<Item = (&'a VmId, &'a VmEntry)>,
    after: &Ledger,
    out: &mut Outbox,
) {
    let (ranked, first) = (record.ranked(), out.next_record());
    let told = placed.map(|(vm, entry)| {
        (vm, entry, record.reasons(ranked.get(vm.0.as_str()).copied().unwrap_or_default(), first))
    });
    let told: Vec<_> = told.collect();
    let mut whole = Some(record);
    for (vm, entry, reasons) in told {
        let (name, node) = (&entry.spec.name, after.name(entry.owner));
        let text = alloc::format!("{name} goes to {node}, decided by {}", reasons.decider.name);
        let note = Note::new(Kind::Decided, "PROTOCOL 5", text).vm(vm).node(entry.owner);
        out.record(note.reasons(reasons).policy(whole.take()));
    }
}

/// Nodes on which the VM failed, that it is to leave, or that it is not to go to if it can help it.
fn unwelcome(
    entry: &VmEntry,
    question: &PlacementQuestion,
    migrations: &Migrations,
    facts: &Facts<'_>,
) -> BTreeSet<NodeId> {
    let mut nodes = entry.failed_on.clone();
    nodes.extend(migrations.failed_target(&entry.spec.id));
    if given_up(entry, facts).is_some() {
        nodes.insert(entry.owner);
    }
    let told = entry.leave.as_ref().and_then(|leave| leave.to);
    if let Some(to) = told.filter(|to| question.nodes.iter().any(|node| node.id == to.0)) {
        let others = question.nodes.iter().map(|node| NodeId(node.id));
        nodes.extend(others.filter(|node| *node != to));
    }
    nodes
}

#[cfg(test)]
#[path = "tests/recovery.rs"]
mod tests;
