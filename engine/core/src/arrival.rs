//! The target of a live migration: lets the guest in, paused, and lets it run once it is this node's own.
//!
//! Why a VM still never runs twice: a copy that arrives is paused, and only `ResumeVm` lets it run. That needs the ledger read with
//! proof to say `owner = me, resumes`, which the leader commits only after the source gave the ownership up, and every condition
//! of a start. A migration is let in only by the incarnation that saw it begin, and only when no process of the VM is here: so what
//! is here when the ownership comes is the copy of that very migration. Any other copy is destroyed: of a migration that is off,
//! of one that a former incarnation let in, of one that came too late. A permitted arrival counts as a start in flight.

use crate::action::Action;
use crate::guest::GuestState;
use crate::ids::{Stamp, VmId};
use crate::ledger::{Ledger, VmEntry};
use crate::machine::Machine;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// A copy that passed the hook before the arrival was forbidden has come by then.
const LATE_LIMIT: Millis = Millis(60_000);
/// A resume that failed is tried again after this, so often in all; then the copy is destroyed, and the VM started from disk.
const RESUME_AGAIN: Millis = Millis(1_000);
const RESUME_LIMIT: u32 = 3;

/// A copy that may arrive, or may yet arrive although it must not.
#[derive(Debug)]
struct Arrival {
    /// The migration that brings it.
    migration: Stamp,
    /// The migration is off since then: what arrives is destroyed.
    forbidden: Option<Instant>,
    /// The VM is this node's since it was read: processes are looked at anew.
    owned: bool,
}

/// Guests that come to this node.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    known: BTreeMap<VmId, Arrival>,
    /// The ownership under which each guest was resumed, or started, here.
    going: BTreeMap<VmId, Stamp>,
    /// Resumes that failed, and when the last one did.
    failures: BTreeMap<VmId, (u32, Instant)>,
}

impl Arrivals {
    /// The copy of this migration may be here, or come.
    fn is_expected(&self, vm: &VmId, migration: Stamp) -> bool {
        let arrival = self.known.get(vm).filter(|arrival| arrival.forbidden.is_none());
        arrival.is_some_and(|arrival| arrival.migration == migration)
    }

    /// None may arrive, and none has come that is not this node's by now.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A process of this VM would be a copy that has not been resumed.
    pub fn is_copy(&self, vm: &VmId) -> bool {
        self.known.contains_key(vm)
    }

    /// This incarnation starts it from disk: what exists from now on is no copy.
    pub fn on_started(&mut self, vm: &VmId, since: Stamp) {
        self.going.insert(vm.clone(), since);
        self.known.remove(vm);
        self.failures.remove(vm);
    }

    fn rests(&self, vm: &VmId, now: Instant) -> bool {
        self.failures.get(vm).is_some_and(|(_, at)| now.since(*at) < RESUME_AGAIN)
    }

    fn is_hopeless(&self, vm: &VmId) -> bool {
        self.failures.get(vm).is_some_and(|(count, _)| *count >= RESUME_LIMIT)
    }
}

impl Machine {
    /// What may arrive is expected, what may not is forbidden.
    pub(crate) fn watch_arrivals(&mut self) {
        let good = self.lease.is_good(&self.config, self.out.now) && !self.is_disarmed();
        if !good {
            self.forbid_arrivals(|_| true);
            return;
        }
        let Some(known) = self.register.proved() else { return };
        let ledger = known.ledger.clone();
        let me = self.me();
        if self.arrivals.is_empty() && !self.brief.read(&ledger, me).moves {
            return;
        }
        let off = |vm: &VmId, arrival: &Arrival| {
            let Some(entry) = ledger.vms.get(vm) else { return true };
            let same = |m: &crate::ledger::Migration| m.to == me && m.since == arrival.migration;
            let stands = entry.migration.as_ref().is_some_and(same);
            !(stands || entry.owner == me && entry.resumes)
        };
        let over: Vec<VmId> = self
            .arrivals
            .known
            .iter()
            .filter(|(vm, arrival)| off(vm, arrival))
            .map(|(vm, _)| vm.clone())
            .collect();
        self.forbid_arrivals(|vm| over.contains(vm));
        for (vm, entry) in &ledger.vms {
            let migration = entry.migration.as_ref().filter(|migration| migration.to == me);
            if let Some(since) = migration.map(|migration| migration.since) {
                self.expect(vm, since, &ledger);
            }
        }
        self.look_at_owned(&ledger);
        self.forget_forbidden();
    }

    /// The ownership has come: the copy is here by now, if it ever comes.
    fn look_at_owned(&mut self, ledger: &Ledger) {
        for (vm, arrival) in &mut self.arrivals.known {
            let mine = ledger.vms.get(vm).is_some_and(|entry| entry.owner == self.config.me.node);
            if mine && !arrival.owned {
                self.guests.disturb(self.out.now);
                self.guests.scan_if(true, &mut self.out);
            }
            arrival.owned |= mine;
        }
    }

    fn expect(&mut self, vm: &VmId, since: Stamp, ledger: &Ledger) {
        let fresh = self.born.is_some_and(|born| born < since);
        if !fresh || self.arrivals.is_expected(vm, since) || ledger.is_off() {
            return;
        }
        if self.guests.is_uncertain(vm) {
            self.guests.scan_if(self.scan_is_old(), &mut self.out);
            return;
        }
        let free = !self.guests.is_present(vm) && !self.guests.is_starting(vm);
        if !free || self.lease.may_start(&self.config, self.out.now).is_err() {
            return;
        }
        self.arrivals
            .known
            .insert(vm.clone(), Arrival { migration: since, forbidden: None, owned: false });
        self.guests.permit_arrival(vm);
        self.out.push(Action::PermitArrival { vm: vm.clone() });
        self.beats.next = self.out.now;
        let text = alloc::format!("{} is expected here", self.vm_name(vm));
        self.tell_migration(vm, text);
    }

    fn forbid_arrivals(&mut self, which: impl Fn(&VmId) -> bool) {
        let now = self.out.now;
        for (vm, arrival) in &mut self.arrivals.known {
            if arrival.forbidden.is_none() && which(vm) {
                arrival.forbidden = Some(now);
                self.guests.forbid_arrival(vm, now);
                self.out.push(Action::ForbidArrival { vm: vm.clone() });
                self.guests.scan_if(true, &mut self.out);
                self.beats.next = now;
            }
        }
    }

    fn forget_forbidden(&mut self) {
        let now = self.out.now;
        let guests = &self.guests;
        self.arrivals.known.retain(|vm, arrival| {
            let over = arrival.forbidden.is_some_and(|at| now.since(at) >= LATE_LIMIT);
            !over || guests.is_present(vm) || guests.is_uncertain(vm)
        });
    }

    /// Its process is here, and it is this node's VM: is it a copy that is to be resumed, or destroyed? `false`: neither.
    pub(crate) fn settle_copy(&mut self, vm: &VmId, entry: &VmEntry) -> bool {
        let going = self.arrivals.going.get(vm) == Some(&entry.since);
        if going || !entry.resumes && !self.arrivals.is_copy(vm) {
            return false;
        }
        if self.guests.is_starting(vm) {
            return true;
        }
        if entry.resumes && !self.arrivals.is_hopeless(vm) {
            self.resume(vm, entry.since);
            return true;
        }
        let why = "it is a copy that cannot be resumed, or of a migration that is off";
        self.guests.destroy(vm, why, &mut self.out);
        true
    }

    /// It is started from disk here: a copy that may have been let in is not waited for.
    pub(crate) fn start_instead_of_arrival(&mut self, vm: &VmId, since: Stamp) {
        self.arrivals.on_started(vm, since);
        self.forbid_arrival(vm);
    }

    fn forbid_arrival(&mut self, vm: &VmId) {
        if self.guests.may_arrive(vm) {
            self.guests.forbid_arrival(vm, self.out.now);
            self.out.push(Action::ForbidArrival { vm: vm.clone() });
        }
    }

    pub(crate) fn resume(&mut self, vm: &VmId, since: Stamp) {
        let now = self.out.now;
        if self.arrivals.rests(vm, now) || self.guests.is_uncertain(vm) {
            self.guests.scan_if(self.scan_is_old(), &mut self.out);
            return;
        }
        match self.lease.may_start(&self.config, now) {
            Ok(not_after) => {
                self.guests.permit(vm, since, not_after, now);
                self.out.push(Action::ResumeVm { vm: vm.clone(), not_after });
            }
            Err(why) => self.refuse(vm, why),
        }
    }

    pub(crate) fn on_resume_ended(&mut self, vm: &VmId, result: Result<(), String>) {
        let now = self.out.now;
        self.guests.on_start_ended(vm, now);
        self.guests.scan_if(true, &mut self.out);
        let name = self.vm_name(vm);
        match result {
            Ok(()) => self.on_resumed(vm, name),
            Err(why) => {
                let (count, _) = self.arrivals.failures.get(vm).copied().unwrap_or((0, now));
                self.arrivals.failures.insert(vm.clone(), (count + 1, now));
                self.tell_migration(vm, alloc::format!("{name} could not be resumed: {why}"));
            }
        }
    }

    fn on_resumed(&mut self, vm: &VmId, name: String) {
        let ledger = self.register.ledger();
        let Some(entry) = ledger.vms.get(vm).filter(|entry| entry.owner == self.me()) else {
            return;
        };
        self.arrivals.on_started(vm, entry.since);
        self.forbid_arrival(vm);
        self.beats.next = self.out.now;
        self.tell_migration(vm, alloc::format!("{name} goes on here"));
    }

    /// A copy of it may be here, and is to stay for now.
    pub(crate) fn is_expected(&self, vm: &VmId, entry: &VmEntry) -> bool {
        let migration = entry.migration.as_ref();
        migration.is_some_and(|migration| self.arrivals.is_expected(vm, migration.since))
    }

    /// What is said of a copy.
    pub(crate) fn arrival_state(&self, vm: &VmId, entry: Option<&VmEntry>) -> Option<GuestState> {
        if let Some(arrival) = self.arrivals.known.get(vm) {
            let mine = entry.is_some_and(|entry| entry.owner == self.me() && entry.resumes);
            let may_be = self.guests.is_present(vm) || self.guests.is_uncertain(vm);
            return match arrival.forbidden {
                None if mine => may_be.then_some(GuestState::Starting),
                None => Some(GuestState::Expected { since: arrival.migration }),
                Some(_) => may_be.then_some(GuestState::Stopping),
            };
        }
        // A new incarnation must not call a copy a guest that runs, not even while it has proved nothing: nobody would resume it.
        let rumoured = self.register.known().and_then(|known| known.ledger.vms.get(vm));
        let (entry, me) = (entry.or(rumoured)?, self.me());
        let present = self.guests.is_present(vm);
        if entry.owner == me {
            let going = self.arrivals.going.get(vm) == Some(&entry.since);
            return (entry.resumes && !going && present).then_some(GuestState::Starting);
        }
        let comes = entry.migration.as_ref().is_some_and(|migration| migration.to == me);
        (comes && present).then_some(GuestState::Stopping)
    }
}

#[cfg(test)]
#[path = "tests/arrival.rs"]
mod tests;
