//! How an owner starts its VMs: on an order, or because this incarnation ran them, and only if every condition of PROTOCOL
//! section 7 holds. What it cannot start it gives up, so that the leader finds another place.

use crate::action::Action;
use crate::decision::Kind;
use crate::guest::Ending;
use crate::ids::{Stamp, VmId};
use crate::ledger::{Ledger, OnShutdown, VmEntry};
use crate::machine::Machine;
use crate::maintenance::reason_to_give_up;
use crate::message::StartOrder;
use crate::outbox::Note;
use crate::shutdown::Exit;
use crate::time::Millis;
use alloc::string::String;

/// An order not carried out within this is forgotten; the leader repeats what it still wants.
const ORDER_LIMIT: Millis = Millis(10_000);

impl Machine {
    pub(crate) fn on_start_order(&mut self, order: StartOrder) {
        // Orders of an older term, or to another incarnation, are refused.
        let to_me = order.to == self.config.me
            || order.to.node == self.me() && mutant!(OrderToOtherIncarnation);
        let stale = order.term < self.election.highest_term && !mutant!(StaleTermObeyed);
        if !to_me || stale {
            return;
        }
        self.election.highest_term = self.election.highest_term.max(order.term);
        self.register.on_committed_heard(order.stamp);
        self.heartbeat.hurry(self.out.now, Millis(0));
        let now = self.out.now;
        self.ordered.insert(order.vm.clone(), (order, now));
    }

    /// Carries out orders, and restarts what this incarnation ran, if every condition of section 7 holds.
    pub(crate) fn start_ordered(&mut self) {
        let now = self.out.now;
        self.ordered.retain(|_, (_, received)| now.since(*received) < ORDER_LIMIT);
        let rumoured = self.register.known().filter(|_| mutant!(StartByRumour));
        let known = self.register.proved().or(rumoured);
        let Some(known) = known.filter(|known| !known.ledger.is_off()) else { return };
        let (stamp, ledger) = (known.stamp, known.ledger.clone());
        let me = self.me();
        let mine = self.brief.read(&ledger, me).mine.clone();
        for vm in mine.iter() {
            let Some(entry) = ledger.vms.get(vm) else { continue };
            let since = entry.since;
            let here = self.guests.is_present(vm) || self.guests.is_starting(vm);
            let leaving = self.departures.is_leaving(vm) && !mutant!(StartedWhileLeaving);
            if here || leaving {
                self.ordered.remove(vm);
                self.refused.remove(vm);
                continue;
            }
            if let Some(why) = reason_to_give_up(&ledger, entry) {
                self.release(vm, entry, why);
                continue;
            }
            if !entry.may_run_here() || self.is_going_down() || ledger.host_stop(me).is_some() {
                continue;
            }
            let order = self.ordered.get(vm).map(|(order, _)| order);
            let ordered = order.is_some_and(|o| {
                let stale = o.term < self.election.highest_term && !mutant!(StaleTermObeyed);
                o.since == since && o.stamp <= stamp && !stale
            });
            let restart = self.guests.restarts.has_run(vm, since) || mutant!(StartWithoutOrder);
            let ended = self.guests.has_ended(vm, since) && !mutant!(DepartedThenRestarted);
            if (ordered || restart) && !ended {
                self.start(vm, since, &ledger);
            }
        }
    }

    fn start(&mut self, vm: &VmId, since: Stamp, ledger: &Ledger) {
        let now = self.out.now;
        let Some(entry) = ledger.vms.get(vm) else { return };
        if self.guests.is_uncertain(vm) {
            self.guests.scan_if(true, &mut self.out);
            return;
        }
        let stays_off = entry.spec.on_shutdown == OnShutdown::Stop;
        if stays_off && self.shutdowns.awaits_word(vm, now) {
            return;
        }
        if !self.guests.restarts.may_start_again(vm, since, &self.config, now) {
            self.rest(vm);
            return;
        }
        let limit = self.config.limits.parallel_starts.max(1);
        if self.guests.starting() >= limit {
            let why = alloc::format!("it waits its turn: {limit} starts are under way here");
            self.refused.insert(vm.clone(), why);
            return;
        }
        match self.lease.may_start(&self.config, now) {
            Ok(not_after) => {
                self.guests.permit(vm, since, not_after, now);
                self.shutdowns.on_started(vm);
                self.start_instead_of_arrival(vm, since);
                self.ordered.remove(vm);
                let (vm, xml) = (vm.clone(), entry.spec.xml);
                self.out.push(Action::StartVm { vm, xml, not_after });
            }
            Err(why) => self.refuse(vm, why),
        }
    }

    /// It failed here so lately that it is not started yet.
    fn rest(&mut self, vm: &VmId) {
        let restarts = &self.guests.restarts;
        if restarts.rests_after_refusal(vm, &self.config, self.out.now) {
            // Told when it was refused.
            let why = String::from("it could not be started; it is tried again shortly");
            self.refused.insert(vm.clone(), why);
            return;
        }
        let times = restarts.failures(vm);
        self.refuse(vm, alloc::format!("it ended here {times} times; it is given some rest"));
    }

    pub(crate) fn refuse(&mut self, vm: &VmId, why: String) {
        let kind_of = |text: &str| text.split(" is good for ").next().map(String::from);
        let told = self.refused.get(vm).map(|told| kind_of(told));
        if told != Some(kind_of(&why)) {
            let text = alloc::format!("{} is not started yet: {why}", self.vm_name(vm));
            let note = Note::new(Kind::StartRefused, "PROTOCOL 7", text);
            self.out.record(note.vm(vm).node(self.config.me.node));
            self.refused.insert(vm.clone(), why);
        }
    }

    pub(crate) fn on_start_ended(&mut self, vm: &VmId, result: Result<(), String>) {
        let now = self.out.now;
        let not_after = self.guests.on_start_ended(vm, now);
        self.guests.scan_if(true, &mut self.out);
        let Err(why) = result else { return self.guests.restarts.on_started(vm) };
        // Withdrawn by us, or too late for any start: that is not the VM's fault.
        let stopped = self.guests.is_destroying(vm) || !self.lease.is_good(&self.config, now);
        let late = not_after.is_none_or(|limit| now > limit);
        let counts = !(stopped || late && self.guests.restarts.is_excused(vm));
        if counts {
            self.guests.restarts.on_refused(vm, self.config.limits.budget_window, now);
        }
        let failures = self.guests.restarts.failures(vm);
        let over = counts && failures > self.budget(vm);
        let next = if counts && !over { "; tried again here" } else { "" };
        let text = alloc::format!("{} could not be started here: {why}{next}", self.vm_name(vm));
        let note = Note::new(Kind::StartFailed, "PROTOCOL 7", text);
        self.out.record(note.vm(vm).node(self.config.me.node));
        if over {
            self.give_up(vm, why);
        }
    }

    /// How often it may fail here before it is given up.
    fn budget(&self, vm: &VmId) -> u32 {
        self.register.ledger().vms.get(vm).map_or(0, |entry| entry.spec.max_restarts)
    }

    pub(crate) fn on_guest_exited(&mut self, vm: &VmId) {
        let exit = match self.departures.is_leaving(vm) {
            // Accounted for when libvirt has said how its migration ended.
            true => Exit::Asked,
            false => self.shutdowns.on_exited(vm, self.out.now),
        };
        let window = self.config.limits.budget_window;
        self.guests.on_exited(vm, exit == Exit::Died, window, self.out.now);
        self.guests.scan_if(true, &mut self.out);
        if !self.guests.is_ha(vm) || self.departures.is_leaving(vm) {
            return;
        }
        if exit == Exit::ShutDown {
            self.leave_off(vm);
            return;
        }
        let text = alloc::format!("{} has ended here", self.vm_name(vm));
        let note = Note::new(Kind::VmExited, "PROTOCOL 7", text);
        self.out.record(note.vm(vm).node(self.config.me.node));
        let times = self.guests.restarts.failures(vm);
        if times > self.budget(vm) {
            self.give_up(vm, alloc::format!("it ended {times} times within {window}"));
        }
    }

    fn give_up(&mut self, vm: &VmId, reason: String) {
        let ledger = self.register.ledger();
        let me = self.me();
        // What was said of this ownership stands.
        let open = |e: &&VmEntry| e.owner == me && !self.guests.has_ended(vm, e.since);
        if let Some(entry) = ledger.vms.get(vm).filter(open) {
            self.guests.end(vm, entry.since, Ending::GivenUp(reason));
            self.beats.next = self.out.now;
        }
    }
}
