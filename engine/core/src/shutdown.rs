//! VMs that are to be off: shutting down what an operator wants off, and telling a guest's own shutdown from its death.
//!
//! Nothing here starts anything. A VM that is to be off keeps its owner, so that the one node that may run it stays known; it is no
//! orphan, and nobody is ordered to start it. `StartVm` gives a new ownership: what an incarnation said about the old
//! one ("it shut itself down") is no word about the new one.
//!
//! An agent that was down when the guest shut itself down does not know it: the VM is started again.

use crate::action::Action;
use crate::decision::Kind;
use crate::guest::{Ending, GuestState};
use crate::ids::VmId;
use crate::ledger::{Desired, Ledger, OnShutdown, VmEntry, Way};
use crate::liveness::Facts;
use crate::machine::Machine;
use crate::outbox::{Note, Outbox};
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, vec::Vec};

/// A guest that was booting when it was asked has not listened: it is asked again.
const ASK_AGAIN: Millis = Millis(10_000);
/// The guest's word that it shuts down, and the exit of its process, come from two sources. The word comes so long before
/// the exit at most, or so long after it.
const WORD_BEFORE: Millis = Millis(30_000);
const WORD_AFTER: Millis = Millis(500);

/// Guests that were asked to shut down, and those that did so themselves.
#[derive(Debug, Default)]
pub(crate) struct Shutdowns {
    /// First and last request to each guest whose process is not gone yet.
    asked: BTreeMap<VmId, (Instant, Instant)>,
    /// When a guest last said that it shuts itself down.
    said: BTreeMap<VmId, Instant>,
    /// When a process last ended that nobody had asked to.
    exited: BTreeMap<VmId, Instant>,
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was asked to.
    Asked,
    /// Its guest shut itself down.
    ShutDown,
    /// It died, or its guest's word is still on its way.
    Died,
}

impl Shutdowns {
    /// Asks the guest to shut down. True if it had `limit` for that and it is over.
    pub fn ask(&mut self, vm: &VmId, limit: Millis, out: &mut Outbox) -> bool {
        let now = out.now;
        let known = self.asked.get(vm).copied();
        let (first, last) = known.unwrap_or((now, now));
        if known.is_none() || now.since(last) >= ASK_AGAIN {
            self.asked.insert(vm.clone(), (first, now));
            out.push(Action::ShutDownVm { vm: vm.clone() });
        }
        now.since(first) >= limit
    }

    /// It was asked to shut down, and its process was not seen gone yet.
    pub fn is_asked(&self, vm: &VmId) -> bool {
        self.asked.contains_key(vm)
    }

    /// Its process is gone by a scan: whatever was asked is history.
    pub fn forget(&mut self, vm: &VmId) {
        self.asked.remove(vm);
    }

    /// The guest says that it shuts itself down. True if its process ended just before.
    pub fn on_said(&mut self, vm: &VmId, now: Instant) -> bool {
        self.said.insert(vm.clone(), now);
        self.awaits_word(vm, now)
    }

    /// A process ended.
    pub fn on_exited(&mut self, vm: &VmId, now: Instant) -> Exit {
        let said = self.said.remove(vm).is_some_and(|at| now.since(at) < WORD_BEFORE);
        if self.asked.remove(vm).is_some() {
            return Exit::Asked;
        }
        self.exited.insert(vm.clone(), now);
        if said { Exit::ShutDown } else { Exit::Died }
    }

    /// Its process ended so lately that the guest's word about it may be on its way.
    pub fn awaits_word(&self, vm: &VmId, now: Instant) -> bool {
        self.exited.get(vm).is_some_and(|at| now.since(*at) < WORD_AFTER)
    }

    /// It is started: older words are not about that process.
    pub fn on_started(&mut self, vm: &VmId) {
        self.said.remove(vm);
        self.exited.remove(vm);
    }
}

impl Machine {
    /// Shuts down what runs here and is to be off, and destroys what does not listen.
    pub(crate) fn stop_unwanted(&mut self) {
        let Some(known) = self.register.proved() else { return };
        let ledger = known.ledger.clone();
        let brief = self.brief.read(&ledger, self.config.me.node);
        let (mine, unwanted) = (brief.mine.clone(), brief.unwanted.clone());
        let way = self.own_way(&ledger);
        let unwanted = if way == Some(Way::Freeze) { mine } else { unwanted };
        let stoppable = |vm: &&VmId| {
            // What others here need goes down after them, when all of them do.
            if way.is_some() && self.is_needed_here(vm, &ledger) {
                return false;
            }
            // Its process ended after the last scan: asked again, it would be a later one that listens.
            let certain = self.shutdowns.is_asked(vm) || !self.guests.is_uncertain(vm);
            certain && ledger.vms.get(*vm).is_some_and(|entry| self.is_stoppable(vm, entry))
        };
        for vm in unwanted.iter().filter(stoppable).cloned().collect::<Vec<_>>() {
            let first = !self.shutdowns.is_asked(&vm);
            let limit = self.config.limits.shutdown_timeout;
            let over = self.shutdowns.ask(&vm, limit, &mut self.out);
            if first {
                let text = alloc::format!("{} is asked to shut down", self.vm_name(&vm));
                self.tell_stop(&vm, text);
            }
            let why = alloc::format!("it did not shut down within {limit}");
            if over && self.guests.destroy(&vm, &why, &mut self.out) {
                let text = alloc::format!("{} is destroyed: {why}", self.vm_name(&vm));
                self.tell_stop(&vm, text);
            }
        }
    }

    /// A guest that runs here, and neither leaves nor has just arrived.
    fn is_stoppable(&self, vm: &VmId, entry: &VmEntry) -> bool {
        self.guests.is_present(vm)
            && !self.departures.is_leaving(vm)
            && self.arrival_state(vm, Some(entry)).is_none()
    }

    fn tell_stop(&mut self, vm: &VmId, text: alloc::string::String) {
        let note = Note::new(Kind::VmStopped, "PROTOCOL 7", text);
        self.out.record(note.vm(vm).node(self.config.me.node));
    }

    /// Its guest's own word, before or after its exit.
    pub(crate) fn on_guest_shut_down(&mut self, vm: &VmId) {
        if self.stays_off(vm) && self.shutdowns.on_said(vm, self.out.now) {
            self.leave_off(vm);
        }
    }

    /// It is this node's, nobody asked it to shut down, and its operator wants it left off when it does so itself.
    fn stays_off(&self, vm: &VmId) -> bool {
        let ledger = self.register.ledger();
        let entry = ledger.vms.get(vm).filter(|entry| entry.owner == self.me());
        let stays = entry.is_some_and(|entry| entry.spec.on_shutdown == OnShutdown::Stop);
        stays && !self.shutdowns.is_asked(vm) && !self.guests.is_starting(vm)
    }

    /// Its guest shut itself down: it is not started again under this ownership.
    pub(crate) fn leave_off(&mut self, vm: &VmId) {
        let ledger = self.register.ledger();
        let Some(entry) = ledger.vms.get(vm) else { return };
        self.guests.end(vm, entry.since, Ending::ShutDown);
        self.beats.next = self.out.now;
        let text = alloc::format!("{}: its guest shut itself down; it stays off", entry.spec.name);
        self.tell_stop(vm, text);
    }
}

/// VMs whose guests shut themselves down are to be off from now on.
pub(crate) fn note_shutdowns(next: &mut Ledger, facts: &Facts<'_>, notes: &mut Vec<Note>) -> bool {
    let mut changed = false;
    for (vm, entry) in next.vms.iter_mut().filter(|(_, entry)| entry.may_run()) {
        let state = facts.state_of(entry.owner, vm);
        if !matches!(state, Some(GuestState::ShutDown { since }) if *since == entry.since) {
            continue;
        }
        (entry.desired, entry.leave) = (Desired::Stopped, None);
        let name = &entry.spec.name;
        let text = alloc::format!("{name} is off: its guest shut itself down");
        notes.push(Note::new(Kind::Wish, "PROTOCOL 7", text).vm(vm).node(entry.owner));
        changed = true;
    }
    changed
}

#[cfg(test)]
#[path = "tests/shutdown.rs"]
mod tests;
