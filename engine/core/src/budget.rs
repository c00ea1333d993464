//! Budgets: how often a VM is restarted on its node, and how often it is moved after failures, before somebody has to look.
//!
//! The owner counts exits and refused starts (`Restarts`): after `max_restarts` of them it gives the VM up. What made libvirt refuse a
//! start is often over a second later, and a start here needs nobody's leave: it is tried again here first. The leader counts what comes of it (`Budgets`): after `max_relocations` the VM is `failed`, and nothing
//! is tried until an operator starts it. Both counts are forgiven when the VM has run for `budget_window`. Nowhere to go is no
//! failure: that is waited for, for ever. A relocation because its node died costs nothing.
//!
//! Safety rests on none of this: a new incarnation or a new leader forgets its counts and tries once more. A VM leaves its
//! owner only by the owner's word that it gives the ownership up (proof 5), spent budgets or not.

use crate::config::Config;
use crate::decision::Kind;
use crate::guest::GuestState;
use crate::ids::{Stamp, VmId};
use crate::ledger::{Ledger, VmEntry};
use crate::liveness::Facts;
use crate::outbox::Note;
use crate::recovery::failed_here;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// Starts that came back too late to say anything about the VM. So many in a row do.
const LATE_LIMIT: u32 = 3;

/// How often VMs ended on this node.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// VMs that this incarnation has seen running, with the ownership under which.
    ran: BTreeMap<VmId, Stamp>,
    sheets: BTreeMap<VmId, Sheet>,
    late: BTreeMap<VmId, u32>,
}

/// What counts against one VM here.
#[derive(Debug, Clone, Copy, Default)]
struct Sheet {
    count: u32,
    last: Instant,
    /// The last thing that counted was a refused start.
    refused: bool,
    /// It ended since its last start was permitted: if that start is called refused, it is the same failure.
    ended: bool,
}

impl Restarts {
    /// Nothing that ran here is restarted without an order.
    pub fn forget_all(&mut self) {
        self.ran.clear();
    }

    /// A new ownership begins with a clean sheet.
    pub fn runs_under(&mut self, vm: &VmId, since: Stamp) {
        if !self.has_run(vm, since) {
            self.sheets.remove(vm);
            self.late.remove(vm);
            self.ran.insert(vm.clone(), since);
        }
    }

    /// It is started.
    pub fn on_permitted(&mut self, vm: &VmId) {
        if let Some(sheet) = self.sheets.get_mut(vm) {
            sheet.ended = false;
        }
    }

    /// This incarnation started or saw `vm` under the ownership `since`: it may restart it without an order.
    pub fn has_run(&self, vm: &VmId, since: Stamp) -> bool {
        self.ran.get(vm) == Some(&since)
    }

    /// It died. After a quiet `window` the sheet is clean.
    pub fn on_died(&mut self, vm: &VmId, window: Millis, now: Instant) {
        self.count(vm, window, now);
        self.sheets.entry(vm.clone()).and_modify(|sheet| sheet.ended = true);
    }

    /// libvirt refused to start it. Its process may have been seen to end before that: this is one failure.
    pub fn on_refused(&mut self, vm: &VmId, window: Millis, now: Instant) {
        if !self.sheets.get(vm).is_some_and(|sheet| sheet.ended) {
            self.count(vm, window, now);
        }
        self.sheets.entry(vm.clone()).and_modify(|sheet| (sheet.last, sheet.refused) = (now, true));
    }

    fn count(&mut self, vm: &VmId, window: Millis, now: Instant) {
        let sheet = self.sheets.entry(vm.clone()).or_default();
        let recent = sheet.count > 0 && now.since(sheet.last) < window;
        let count = if recent { sheet.count.saturating_add(1) } else { 1 };
        *sheet = Sheet { count, last: now, ..Sheet::default() };
    }

    /// How often it ended or could not be started here lately.
    pub fn failures(&self, vm: &VmId) -> u32 {
        self.sheets.get(vm).map_or(0, |sheet| sheet.count)
    }

    /// Its last start here was refused so lately that it is not tried again yet.
    pub fn rests_after_refusal(&self, vm: &VmId, config: &Config, now: Instant) -> bool {
        self.sheets.get(vm).is_some_and(|sheet| sheet.refused) && !self.is_rested(vm, config, now)
    }

    /// A start failed when it was too late for one anyway: libvirt's word says nothing about the VM, but not for ever.
    pub fn is_excused(&mut self, vm: &VmId) -> bool {
        let late = self.late.entry(vm.clone()).or_default();
        *late += 1;
        *late < LATE_LIMIT
    }

    /// A start came in time.
    pub fn on_started(&mut self, vm: &VmId) {
        self.late.remove(vm);
    }

    /// How long to wait after the last exit before a restart: doubled with every one; after a refused start it is always the same.
    /// What happened under an earlier ownership does not count.
    pub fn may_start_again(&self, vm: &VmId, since: Stamp, config: &Config, now: Instant) -> bool {
        !self.has_run(vm, since) || self.is_rested(vm, config, now)
    }

    fn is_rested(&self, vm: &VmId, config: &Config, now: Instant) -> bool {
        self.sheets.get(vm).is_none_or(|sheet| {
            let backoff = config.timing.restart_backoff;
            let wait = match sheet.count {
                _ if sheet.refused => backoff,
                0 | 1 => return true,
                count => backoff * (1u64 << (count - 1).min(5)),
            };
            now.since(sheet.last) >= wait
        })
    }
}

/// The leader's memory of who runs since when. A new leader counts anew.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    running: BTreeMap<VmId, (Stamp, Instant)>,
}

impl Budgets {
    pub fn clear(&mut self) {
        self.running.clear();
    }

    /// Forgives what runs, and fails what has spent its budgets.
    pub fn apply(&mut self, next: &mut Ledger, facts: &Facts<'_>, notes: &mut Vec<Note>) -> bool {
        self.running.retain(|vm, _| next.vms.contains_key(vm));
        let mut changed = false;
        for (vm, entry) in &mut next.vms {
            let runs = facts.state_of(entry.owner, vm) == Some(&GuestState::Running);
            if runs {
                changed |= self.forgive(vm, entry, facts);
            } else {
                self.running.remove(vm);
                changed |= fail(vm, entry, facts, notes);
            }
        }
        changed
    }

    /// A VM that runs has not failed; one that has run for long has its budgets back.
    fn forgive(&mut self, vm: &VmId, entry: &mut VmEntry, facts: &Facts<'_>) -> bool {
        let fresh = (entry.since, facts.now);
        let known = self.running.get(vm).copied();
        if known.is_none_or(|(since, _)| since != entry.since) {
            self.running.insert(vm.clone(), fresh);
        }
        let (since, began) = known.unwrap_or(fresh);
        let rested = since == entry.since
            && facts.now.since(began) >= facts.config.limits.budget_window
            && entry.relocations > 0;
        let changed = rested || entry.failed.is_some() || !entry.failed_on.is_empty();
        entry.failed = None;
        entry.failed_on.clear();
        if rested {
            entry.relocations = 0;
        }
        changed
    }
}

/// Its owner gave it up, and its relocations are spent.
fn fail(vm: &VmId, entry: &mut VmEntry, facts: &Facts<'_>, notes: &mut Vec<Note>) -> bool {
    let spent = entry.relocations >= entry.spec.max_relocations;
    let admitted = facts.ledger.admission(entry.owner).is_some();
    if !spent || !entry.may_run() || !admitted {
        return false;
    }
    let Some(why) = failed_here(entry, facts) else { return false };
    let why = failure(why, entry.relocations);
    let text = alloc::format!("{} has failed: {why}", entry.spec.name);
    notes.push(Note::new(Kind::VmFailed, "PROTOCOL 7", text).vm(vm).node(entry.owner));
    entry.failed = Some(why);
    true
}

fn failure(why: &str, relocations: u32) -> String {
    alloc::format!(
        "{why}; it was moved {relocations} times; see why, then `steadfast vm start` it again"
    )
}

#[cfg(test)]
#[path = "tests/budget.rs"]
mod tests;
