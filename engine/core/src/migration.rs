//! Live migration, the leader's side: begin, order, complete, call off. The source's is `departure.rs`, the target's `arrival.rs`.
//!
//! ```text
//!  commit: migration = to T ── T: Expected ── order ── S: Leaving ── S: Departed ── commit: owner = T, resumes ── T resumes
//!                         └──── anything else: commit: migration = none; S goes on, T destroys its copy
//! ```
//!
//! Why a VM still never runs twice: the owner changes only on the source's *departed* for this very ownership (proof 5), said by its
//! present incarnation, or by the ordinary way of an orphan. While a migration is in the ledger nobody is ordered to start the VM;
//! a leader orders a start only on the owner's silence, and never while a commit is under way that takes the VM away.
//! Calling a migration off is always safe: it takes nothing from the source, and a copy never runs by itself. A leader that is
//! new knows nothing but the ledger and what is said: it goes on, or calls it off.

use crate::decision::Kind;
use crate::guest::GuestState;
use crate::ids::{Identity, NodeId, Stamp, VmId};
use crate::ledger::{Ledger, Migration, VmEntry};
use crate::liveness::Facts;
use crate::message::{Body, MigrateOrder};
use crate::outbox::{Note, Outbox};
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// Source and target do their next step within this, or the migration is off.
const STEP_LIMIT: Millis = Millis(15_000);
/// A VM whose migration was called off is not migrated by itself again before this, doubled with every time up to sixteen times.
const REST: Millis = Millis(60_000);

/// What this leader has seen of one migration.
#[derive(Debug)]
struct Watch {
    migration: Stamp,
    /// Since when it is watched, and when it came a step further.
    began: Instant,
    step: Instant,
    source: Option<Identity>,
    target: Option<Identity>,
    was_expected: bool,
    has_left: bool,
    has_departed: bool,
    ordered: Option<Instant>,
}

/// The leader's memory of migrations. A new leader begins with none.
#[derive(Debug, Default)]
pub(crate) struct Migrations {
    watched: BTreeMap<VmId, Watch>,
    /// How often in a row the migration of a VM was called off, when last, and of which target.
    failed: BTreeMap<VmId, (u32, Instant, NodeId)>,
}

/// What becomes of a migration now.
enum Turn {
    GoOn,
    Complete,
    CallOff(String),
}

impl Migrations {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Completes and calls off what is due.
    pub fn apply(
        &mut self,
        next: &mut Ledger,
        stamp: Stamp,
        facts: &Facts<'_>,
        notes: &mut Vec<Note>,
    ) -> bool {
        let mut changed = false;
        let vms = &next.vms;
        self.watched.retain(|vm, watch| {
            let migration = vms.get(vm).and_then(|entry| entry.migration.as_ref());
            migration.is_some_and(|migration| migration.since == watch.migration)
        });
        self.failed.retain(|vm, _| vms.contains_key(vm));
        for vm in next.vms.keys().cloned().collect::<Vec<_>>() {
            changed |= self.turn(&vm, next, stamp, facts, notes);
        }
        changed
    }

    fn turn(
        &mut self,
        vm: &VmId,
        next: &mut Ledger,
        stamp: Stamp,
        facts: &Facts<'_>,
        notes: &mut Vec<Note>,
    ) -> bool {
        let Some(entry) = next.vms.get(vm) else { return false };
        let Some(migration) = entry.migration.clone() else {
            return next.vms.get_mut(vm).is_some_and(|entry| forget_resume(entry, facts));
        };
        let (from, to) = (next.name(entry.owner), next.name(migration.to));
        let turn = self.judge(entry, &migration, next, facts);
        let Some(entry) = next.vms.get_mut(vm) else { return false };
        let name = entry.spec.name.clone();
        let text = match turn {
            Turn::GoOn => return false,
            Turn::Complete => {
                self.failed.remove(vm);
                entry.moves_to(migration.to, stamp);
                entry.resumes = true;
                entry.failed_on.clear();
                alloc::format!("{name} has moved from {from} to {to}")
            }
            Turn::CallOff(why) => {
                let count = self.failures(vm) + 1;
                self.failed.insert(vm.clone(), (count, facts.now, migration.to));
                entry.migration = None;
                alloc::format!("{name} does not move from {from} to {to}: {why}")
            }
        };
        let note = Note::new(Kind::Migration, "PROTOCOL 7", text);
        notes.push(note.vm(vm).node(migration.to));
        true
    }

    fn judge(
        &mut self,
        entry: &VmEntry,
        migration: &Migration,
        next: &Ledger,
        facts: &Facts<'_>,
    ) -> Turn {
        let vm = &entry.spec.id;
        let source = facts.state_of(entry.owner, vm);
        let target = facts.state_of(migration.to, vm);
        let departed =
            matches!(source, Some(GuestState::Departed { since }) if *since == entry.since);
        let expected =
            matches!(target, Some(GuestState::Expected { since }) if *since == migration.since);
        for (role, node) in [("source", entry.owner), ("target", migration.to)] {
            if next.admission(node).is_none() {
                return Turn::CallOff(alloc::format!("its {role} is not admitted any more"));
            }
        }
        let left = departed || mutant!(MovedWhileLeaving) && source == Some(&GuestState::Leaving);
        if left && expected {
            return Turn::Complete;
        }
        let watch = self.watch(vm, entry, migration, facts);
        watch.see(source, expected, facts.now);
        if departed {
            // The target's time counts from now on, however long the guest was on its way.
            if !watch.has_departed {
                (watch.has_departed, watch.step) = (true, facts.now);
            }
            return watch.judge_departed(migration, facts);
        }
        match watch.trouble(entry, migration, source, next, facts) {
            Some(why) => Turn::CallOff(why),
            None => Turn::GoOn,
        }
    }

    fn watch(
        &mut self,
        vm: &VmId,
        entry: &VmEntry,
        migration: &Migration,
        facts: &Facts<'_>,
    ) -> &mut Watch {
        let who = |node: NodeId| facts.word_of(node).map(|heard| heard.from);
        let watch = self.watched.entry(vm.clone()).or_insert_with(|| Watch {
            migration: migration.since,
            began: facts.now,
            step: facts.now,
            source: None,
            target: None,
            was_expected: false,
            has_left: false,
            has_departed: false,
            ordered: None,
        });
        watch.source = watch.source.or_else(|| who(entry.owner));
        watch.target = watch.target.or_else(|| who(migration.to));
        watch
    }

    /// Orders sources to hand over what their targets expect.
    pub fn order(
        &mut self,
        (term, stamp): (u64, Stamp),
        committing: Option<&Ledger>,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) {
        let again = facts.config.timing.beat * 2;
        for (vm, watch) in &mut self.watched {
            let Some(entry) = facts.ledger.vms.get(vm) else { continue };
            let Some(migration) = &entry.migration else { continue };
            let stays = |next: &Ledger| {
                next.vms.get(vm).is_some_and(|planned| planned.migration == entry.migration)
            };
            let runs = facts.state_of(entry.owner, vm) == Some(&GuestState::Running);
            let ready = watch.was_expected && !watch.has_left && runs;
            let recent = watch.ordered.is_some_and(|at| out.now.since(at) < again);
            if !ready || recent || committing.is_some_and(|next| !stays(next)) {
                continue;
            }
            let Some(to) = facts.word_of(entry.owner).map(|heard| heard.from) else { continue };
            watch.ordered = Some(out.now);
            let (vm, since) = (vm.clone(), migration.since);
            out.send(Body::MigrateVm(MigrateOrder { term, stamp, vm, since, to }));
        }
    }

    /// Its last migration was called off so lately that it is left alone for now.
    pub fn rests(&self, vm: &VmId, now: Instant) -> bool {
        self.failed.get(vm).is_some_and(|(count, at, _)| {
            let factor = 1u64 << (*count).saturating_sub(1).min(4);
            now.since(*at) < REST * factor
        })
    }

    /// Why a VM that is to leave its node does not set off, in words.
    pub fn why_not_yet(&self, entry: &VmEntry, facts: &Facts<'_>) -> String {
        let vm = &entry.spec.id;
        if let Some((count, at, to)) = self.failed.get(vm).filter(|_| self.rests(vm, facts.now)) {
            let (node, ago) = (facts.ledger.name(*to), facts.now.since(*at));
            return alloc::format!(
                "its migration to {node} was called off {ago} ago, {count} in a row; tried again later"
            );
        }
        unready(entry, facts).unwrap_or_else(|| "it is one of the next".into())
    }

    /// Where it was to go when its migration was called off last.
    pub fn failed_target(&self, vm: &VmId) -> Option<NodeId> {
        self.failed.get(vm).map(|(_, _, to)| *to)
    }

    /// Its migrations were called off so often in a row.
    pub fn failures(&self, vm: &VmId) -> u32 {
        self.failed.get(vm).map_or(0, |(count, ..)| *count)
    }
}

impl Watch {
    fn see(&mut self, source: Option<&GuestState>, expected: bool, now: Instant) {
        if expected && !self.was_expected {
            (self.was_expected, self.step) = (true, now);
        }
        if source == Some(&GuestState::Leaving) && !self.has_left {
            (self.has_left, self.step) = (true, now);
        }
    }

    /// The source has given the VM up, and the target does not say that it has it.
    fn judge_departed(&self, migration: &Migration, facts: &Facts<'_>) -> Turn {
        let heard = facts.word_of(migration.to).is_some();
        let patience = facts.config.timing.lease * 2;
        if heard || facts.now.since(self.step) >= patience {
            return Turn::CallOff("its target does not have it".into());
        }
        Turn::GoOn
    }

    /// Why the migration is off, while the source still owns the VM.
    fn trouble(
        &self,
        entry: &VmEntry,
        migration: &Migration,
        source: Option<&GuestState>,
        next: &Ledger,
        facts: &Facts<'_>,
    ) -> Option<String> {
        let now = facts.now;
        let limit = facts.config.limits.migration_timeout;
        let (from, to) = (facts.word_of(entry.owner), facts.word_of(migration.to));
        let restarted = |known: Option<Identity>, heard: Option<&crate::beats::Heard>| {
            known.zip(heard).is_some_and(|(known, heard)| known != heard.from)
        };
        if !entry.may_run_here() {
            return Some("it is to leave its node, or to be off".into());
        }
        if next.nodes.get(&migration.to).is_none_or(|node| node.wants_empty()) {
            return Some("its target is to be emptied".into());
        }
        if restarted(self.source, from) {
            return Some("the source's agent was restarted".into());
        }
        if restarted(self.target, to) {
            return Some("the target's agent was restarted".into());
        }
        match source {
            Some(GuestState::Running) if self.has_left => {
                return Some("the source could not hand it over, see its records".into());
            }
            Some(GuestState::Running | GuestState::Leaving) => {}
            _ if from.is_some() => return Some("it does not run any more".into()),
            _ => {}
        }
        let state = to.is_some().then(|| facts.state_of(migration.to, &entry.spec.id));
        let lost = self.was_expected && state.is_some_and(|state| !is_expected(state, migration));
        if lost {
            return Some("its target does not expect it any more".into());
        }
        if now.since(self.began) >= limit {
            return Some(alloc::format!("it took longer than {limit}"));
        }
        if !self.has_left && now.since(self.step) >= STEP_LIMIT {
            let who = if self.was_expected { "source" } else { "target" };
            return Some(alloc::format!("its {who} did nothing for {STEP_LIMIT}"));
        }
        None
    }
}

fn is_expected(state: Option<&GuestState>, migration: &Migration) -> bool {
    matches!(state, Some(GuestState::Expected { since }) if *since == migration.since)
}

/// A guest that was resumed and runs is a guest like any other. Before it has read that the guest is its own, its node cannot
/// tell a copy that waits from a guest that runs.
fn forget_resume(entry: &mut VmEntry, facts: &Facts<'_>) -> bool {
    let word = facts.word_of(entry.owner).filter(|heard| heard.beat.known >= entry.since);
    let report = word.and_then(|heard| heard.report(&entry.spec.id));
    let runs = report.is_some_and(|report| report.state == GuestState::Running);
    let changed = entry.resumes && runs;
    entry.resumes &= !changed;
    changed
}

/// Why the VM cannot be migrated there now.
pub(crate) fn refusal(entry: &VmEntry, to: NodeId, facts: &Facts<'_>) -> Option<String> {
    if entry.owner == to {
        let (name, node) = (&entry.spec.name, facts.ledger.name(to));
        return Some(alloc::format!("{name} is on {node} already"));
    }
    unready(entry, facts)
}

/// Why the VM cannot be migrated now, wherever to.
pub(crate) fn unready(entry: &VmEntry, facts: &Facts<'_>) -> Option<String> {
    let name = &entry.spec.name;
    let runs = facts.state_of(entry.owner, &entry.spec.id) == Some(&GuestState::Running);
    if let Some(migration) = &entry.migration {
        let other = facts.ledger.name(migration.to);
        return Some(alloc::format!("{name} is being migrated to {other}; try again later"));
    }
    if !entry.may_run_here() || !entry.acknowledged || entry.unseen || !runs {
        let owner = facts.ledger.name(entry.owner);
        return Some(alloc::format!(
            "{name} does not run on {owner} in good order now; see `steadfast vm list`"
        ));
    }
    None
}

/// Begins a migration that nothing speaks against.
pub(crate) fn begin(entry: &mut VmEntry, to: NodeId, stamp: Stamp, reason: &str) {
    entry.migration = Some(Migration { to, since: stamp, reason: reason.into() });
}

/// Migrations under way.
pub(crate) fn under_way(ledger: &Ledger) -> usize {
    ledger.vms.values().filter(|entry| entry.migration.is_some()).count()
}

#[cfg(test)]
#[path = "tests/migration.rs"]
mod tests;
