//! This node's duties as an owner: keep the watchdog fed while the rule allows, stop HA VMs when the lease is over, run
//! the VMs that are its own (PROTOCOL sections 4 and 7).

use crate::action::Action;
use crate::decision::Kind;
use crate::ids::{Stamp, VmId};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::message::StartOrder;
use crate::outbox::Note;
use crate::time::{Instant, Millis};
use alloc::{string::String, vec::Vec};

/// An order not carried out within this is forgotten; the leader repeats what it still wants.
const ORDER_LIMIT: Millis = Millis(10_000);
/// A node resets itself this long before the deadline, so that sysrq comes before the watchdog.
const RESET_EARLY: Millis = Millis(250);
/// A VM that exits this often within ten minutes of its last exit is given up here.
const EXIT_LIMIT: u32 = 3;

impl Machine {
    /// Proved: no HA VM executes here, and none is permitted to start.
    pub(crate) fn is_idle(&self) -> bool {
        self.guests.none_left(Instant(0))
    }

    /// First of all, always: what may not run here is stopped, and the watchdog is fed if the rule allows.
    pub(crate) fn guard_guests(&mut self) {
        let now = self.out.now;
        let good = self.lease.is_good(&self.config, now);
        let stopping = !good && self.guests.may_execute();
        self.guests.scan_if(stopping && self.scan_is_old(), &mut self.out);
        if stopping {
            self.stop_all();
        }
        if !good {
            self.reset_if_due();
            self.orders.clear();
        }
        self.state_none_left();
        self.adopt_and_expel();
        let idle = self.is_idle();
        self.lease.feed(&self.config, idle, &mut self.out);
    }

    fn scan_is_old(&self) -> bool {
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
        if now + RESET_EARLY >= deadline {
            let text = "HA VMs could not be proved gone before the lease's last moment: this node is reset";
            if self.lease.reset(text.into(), &mut self.out) {
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
        let ledger = known.ledger.clone();
        let me = self.me();
        for (vm, entry) in &ledger.vms {
            let present = self.guests.is_present(vm);
            if entry.owner == me {
                self.guests.forget_undefined(vm);
                if present && self.guests.adopt(vm, entry.since, &mut self.out) {
                    let text = alloc::format!("{} runs here", entry.spec.name);
                    self.out.record(Note::new(Kind::VmRunning, "PROTOCOL 7", text).vm(vm).node(me));
                }
            } else if present {
                self.expel(vm, &ledger);
            } else {
                self.guests.undefine(vm, entry.since, &mut self.out);
            }
        }
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
        self.orders.insert(order.vm.clone(), (order, now));
    }

    /// Carries out orders, and restarts what this incarnation ran, if every condition of section 7 holds.
    pub(crate) fn start_ordered(&mut self) {
        let now = self.out.now;
        self.orders.retain(|_, (_, received)| now.since(*received) < ORDER_LIMIT);
        let rumoured = self.register.known().filter(|_| mutant!(StartByRumour));
        let Some(known) = self.register.proved().or(rumoured) else { return };
        let (stamp, ledger) = (known.stamp, known.ledger.clone());
        let me = self.me();
        let mine: Vec<(VmId, Stamp)> =
            ledger.owned_by(me).map(|(vm, entry)| (vm.clone(), entry.since)).collect();
        for (vm, since) in mine {
            if self.guests.is_present(&vm) || self.guests.is_starting(&vm) {
                self.orders.remove(&vm);
                self.refused.remove(&vm);
                continue;
            }
            let order = self.orders.get(&vm).map(|(order, _)| order);
            let ordered = order.is_some_and(|o| {
                let stale = o.term < self.election.highest_term && !mutant!(StaleTermObeyed);
                o.since == since && o.stamp <= stamp && !stale
            });
            let restart = self.guests.has_run(&vm, since) || mutant!(StartWithoutOrder);
            if (ordered || restart) && !self.guests.has_given_up(&vm, since) {
                self.start(&vm, since, &ledger);
            }
        }
    }

    fn start(&mut self, vm: &VmId, since: Stamp, ledger: &Ledger) {
        let now = self.out.now;
        if self.guests.is_uncertain(vm) {
            self.guests.scan_if(true, &mut self.out);
            return;
        }
        if !self.guests.may_start_again(vm, since, &self.config, now) {
            let times = self.guests.exits(vm);
            self.refuse(vm, alloc::format!("it ended here {times} times; it is given some rest"));
            return;
        }
        match self.lease.may_start(&self.config, now) {
            Ok(not_after) => {
                let Some(entry) = ledger.vms.get(vm) else { return };
                self.guests.permit(vm, since, now);
                self.orders.remove(vm);
                let (vm, xml) = (vm.clone(), entry.spec.xml);
                self.out.push(Action::StartVm { vm, xml, not_after });
            }
            Err(why) => self.refuse(vm, why),
        }
    }

    fn refuse(&mut self, vm: &VmId, why: String) {
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
        self.guests.on_start_ended(vm, self.out.now);
        self.guests.scan_if(true, &mut self.out);
        if let Err(why) = result {
            let text = alloc::format!("{} could not be started here: {why}", self.vm_name(vm));
            let note = Note::new(Kind::StartFailed, "PROTOCOL 7", text);
            self.out.record(note.vm(vm).node(self.config.me.node));
            self.give_up(vm, why);
        }
    }

    pub(crate) fn on_guest_exited(&mut self, vm: &VmId) {
        self.guests.on_exited(vm, self.out.now);
        self.guests.scan_if(true, &mut self.out);
        if !self.guests.is_ha(vm) {
            return;
        }
        let text = alloc::format!("{} has ended here", self.vm_name(vm));
        let note = Note::new(Kind::VmExited, "PROTOCOL 7", text);
        self.out.record(note.vm(vm).node(self.config.me.node));
        if self.guests.exits(vm) >= EXIT_LIMIT {
            self.give_up(vm, alloc::format!("it ended {EXIT_LIMIT} times"));
        }
    }

    fn give_up(&mut self, vm: &VmId, reason: String) {
        let ledger = self.register.ledger();
        let me = self.me();
        if let Some(entry) = ledger.vms.get(vm).filter(|entry| entry.owner == me) {
            self.guests.give_up(vm, entry.since, reason);
            self.beats.next = self.out.now;
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
