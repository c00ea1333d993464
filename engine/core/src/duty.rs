//! This node's duties: keep the watchdog fed while the rule allows, stop HA VMs when the lease is over, know its own VMs
//! from others' (PROTOCOL sections 4 and 7). How it starts them is in `starting.rs`.

use crate::action::Action;
use crate::decision::Kind;
use crate::guest::{GuestReport, GuestScan, GuestState};
use crate::ids::VmId;
use crate::ledger::{Ledger, VmEntry};
use crate::machine::Machine;
use crate::outbox::Note;
use crate::time::{Instant, Millis};
use alloc::{string::String, sync::Arc, vec::Vec};

/// A node resets itself this long before the deadline, so that sysrq comes before the watchdog.
const RESET_EARLY: Millis = Millis(250);

impl Machine {
    /// Proved: no HA VM executes here, and none is permitted to start.
    pub(crate) fn is_idle(&self) -> bool {
        self.guests.none_left(Instant(0))
    }

    /// The agent is about to stop: nothing is begun any more. One that guards HA VMs leaves its watchdog counting for its
    /// successor; one that guards none has nobody to be reset for. Whoever comes after it starts nothing before it is fed again.
    pub(crate) fn end(&mut self) {
        self.stopped = true;
        if self.is_idle() {
            self.out.push(Action::CloseWatchdog);
        }
    }

    /// First of all, always: what may not run here is stopped, and the watchdog is fed if the rule allows.
    pub(crate) fn guard_guests(&mut self) {
        self.watch_arrivals();
        self.look_after_arming();
        if self.is_disarmed() {
            self.settled = None;
            self.leave_guests();
            return;
        }
        let now = self.out.now;
        let good = self.lease.is_good(&self.config, now);
        let stopping = !good && self.guests.may_execute() && !self.may_be_disarmed();
        // Without this a node without a lease could not say that it is idle before the next regular scan, which comes later
        // than its watchdog bites.
        let wanted = stopping || self.guests.is_disturbed();
        self.guests.scan_if(wanted && self.scan_is_old(), &mut self.out);
        self.speak_if_stopping();
        if stopping {
            self.stop_all();
        }
        if !good && !self.may_be_disarmed() {
            self.reset_if_due();
            self.ordered.clear();
            self.departures.forget_orders();
        }
        self.state_none_left();
        self.watch_departures();
        self.adopt_and_expel();
        if good {
            self.stop_unwanted();
        }
        let idle = self.is_idle();
        // What was closed or never opened stays so while HA is off.
        if self.disarming.read.is_none() || !self.lease.is_unused() {
            self.lease.feed(&self.config, idle, &mut self.out);
        }
    }

    pub(crate) fn scan_is_old(&self) -> bool {
        let now = self.out.now;
        self.guests.scanned().is_none_or(|began| now.since(began) >= Millis(100))
    }

    fn stop_all(&mut self) {
        let why = match self.lease.evicted() {
            Some((eviction, _)) => alloc::format!("this node is evicted ({eviction})"),
            None => "this node's lease is over".into(),
        };
        for vm in self.guests.present_ha() {
            if self.guests.destroy(&vm, &why, &mut self.out) {
                let name = self.vm_name(&vm);
                let text = alloc::format!("{name} is stopped here: {why}");
                self.out.record(
                    Note::new(Kind::VmStopped, "PROTOCOL 4", text)
                        .vm(&vm)
                        .node(self.config.me.node),
                );
            }
        }
    }

    /// By the last `basis + L + S` none is left, or the node goes.
    fn reset_if_due(&mut self) {
        let now = self.out.now;
        if !self.guests.may_execute() {
            self.unleased_since = None;
            return;
        }
        let deadline = match self.lease.deadline(&self.config) {
            Some(deadline) => deadline,
            // HA guests without any record of a basis. An earlier incarnation of this boot ran here: its lease may be
            // over for long. In a fresh boot somebody else started them: they get the time of a clean stop.
            None => {
                let since = *self.unleased_since.get_or_insert(now);
                let earlier = self.config.me.incarnation.0 > 1;
                since + if earlier { Millis(0) } else { self.config.timing.stop }
            }
        };
        // Armed again over guests that no lease covered: they get the time of a clean stop too. No time proves this node dead yet.
        let armed = self.disarming.ended.map(|at| at + self.config.timing.stop);
        let deadline = armed.map_or(deadline, |armed| deadline.max(armed));
        if now + RESET_EARLY >= deadline {
            let text = "HA VMs could not be proved gone before the lease's last moment: this node is reset";
            let words = self.last_words().unwrap_or_default();
            if self.lease.reset(alloc::format!("{text}; {words}"), &mut self.out) {
                self.out.record(Note::new(Kind::Reset, "PROTOCOL 4", text.into()).node(self.me()));
            }
        }
    }

    /// "None left" for the committed eviction that this node has read or heard, by a scan that began after it did.
    fn state_none_left(&mut self) {
        let Some((eviction, learnt)) = self.lease.evicted() else { return };
        if self.none_left == Some(eviction) {
            return;
        }
        if self.guests.none_left(learnt) {
            self.none_left = Some(eviction);
            let text = "none left: no HA VM executes here, none can start";
            self.out.record(Note::new(Kind::Lease, "PROTOCOL 5.1", text.into()).node(self.me()));
            self.beats.next = self.out.now;
            self.heartbeat.hurry(self.out.now, Millis(0));
        } else {
            self.guests.scan_if(self.scan_is_old(), &mut self.out);
        }
    }

    /// Guests that belong here are watched; HA guests that belong elsewhere are destroyed, and undefined.
    fn adopt_and_expel(&mut self) {
        let Some(known) = self.register.proved() else { return };
        let seen = (known.ledger.clone(), self.guests.changes());
        let same = |(ledger, changes): &(Arc<Ledger>, u64)| {
            Arc::ptr_eq(ledger, &seen.0) && *changes == seen.1
        };
        if self.settled.as_ref().is_some_and(same) && self.arrivals.is_empty() {
            return;
        }
        let ledger = &seen.0;
        let me = self.me();
        let mut settled = true;
        for (vm, entry) in &ledger.vms {
            let present = self.guests.is_present(vm);
            // What has arrived is resumed, and what belongs elsewhere destroyed, again and again.
            settled &= !present || entry.owner == me && !entry.resumes;
            if entry.owner == me {
                self.guests.forget_undefined(vm);
                let settled = present && !self.settle_copy(vm, entry);
                if settled && self.guests.adopt(vm, entry.since, &mut self.out) {
                    let text = alloc::format!("{} runs here", entry.spec.name);
                    self.out.record(Note::new(Kind::VmRunning, "PROTOCOL 7", text).vm(vm).node(me));
                }
            } else if self.is_expected(vm, entry) {
                // Its copy may be here, or come.
                if mutant!(ResumedUnowned) && present && !self.guests.is_starting(vm) {
                    self.resume(vm, entry.since);
                }
            } else if present {
                self.expel(vm, ledger);
            } else {
                self.guests.undefine(vm, entry.since, &mut self.out);
            }
        }
        self.settled = (settled && self.arrivals.is_empty()).then_some(seen);
    }

    fn expel(&mut self, vm: &VmId, ledger: &Ledger) {
        let Some(entry) = ledger.vms.get(vm) else { return };
        let owner = ledger.name(entry.owner);
        let why = alloc::format!("it belongs to {owner}");
        if self.guests.destroy(vm, &why, &mut self.out) {
            let text = alloc::format!("{} is stopped here: {why}", entry.spec.name);
            let note = Note::new(Kind::VmStopped, "PROTOCOL 7", text);
            self.out.record(note.vm(vm).node(self.config.me.node));
        }
    }

    /// Processes were scanned.
    pub(crate) fn on_guests_scanned(&mut self, scan: GuestScan) {
        self.guests.on_scanned(scan);
        for vm in self.guests.ha() {
            if !self.guests.is_present(vm) {
                self.shutdowns.forget(vm);
            }
        }
    }

    /// What the beat says of guests here.
    pub(crate) fn guest_reports(&self) -> Vec<GuestReport> {
        let ledger = self.register.proved().map(|known| known.ledger.clone());
        let report = |vm: &VmId| {
            let entry = ledger.as_ref().and_then(|ledger| ledger.vms.get(vm));
            let state = self.guest_state(vm, entry)?;
            Some(GuestReport { vm: vm.clone(), state })
        };
        self.guests.ha().iter().filter_map(report).collect()
    }

    fn guest_state(&self, vm: &VmId, entry: Option<&VmEntry>) -> Option<GuestState> {
        if self.departures.is_leaving(vm) {
            return Some(GuestState::Leaving);
        }
        if let Some(state) = self.arrival_state(vm, entry) {
            return Some(state);
        }
        match self.guests.state(vm)? {
            GuestState::Running if self.shutdowns.is_asked(vm) => Some(GuestState::Stopping),
            state => Some(state),
        }
    }

    pub(crate) fn vm_name(&self, vm: &VmId) -> String {
        let ledger = self.register.ledger();
        ledger.vms.get(vm).map_or_else(|| vm.0.clone(), |entry| entry.spec.name.clone())
    }

    pub(crate) fn on_watchdog_failed(&mut self, reason: String) {
        let news = self.lease.watchdog_trouble.as_ref() != Some(&reason);
        if news {
            let text =
                alloc::format!("the watchdog does not work, no HA VM can start here: {reason}");
            self.out.record(Note::new(Kind::Alarm, "PROTOCOL 4", text).node(self.me()));
        }
        self.lease.on_watchdog_failed(reason);
    }
}
