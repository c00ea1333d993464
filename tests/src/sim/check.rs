//! The judge: PROTOCOL section 8, by the world's own omniscience. What the ledger says is judged in `chain.rs`, resets
//! and evictions in `calm.rs`, feeds in `watchdog.rs`.

use super::calm::Health;
use super::chain::{Chain, Fresh};
use super::clock::{SECOND, Time};
use super::node::index;
use super::plan::Class;
use super::policy::Mood;
use super::words::Promises;
use super::world::World;
use std::collections::BTreeMap;
use steadfast_core::action::Action;
use steadfast_core::decision::{Decision, Kind};
use steadfast_core::ids::{Stamp, VmId};
use steadfast_core::message::{Body, Message, Reply};
use steadfast_core::page::Page;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name in PROTOCOL section 8, or the rule's name.
    pub rule: &'static str,
    /// What happened.
    pub text: String,
}

/// What the judge remembers.
#[derive(Debug, Default)]
pub struct Check {
    /// Somebody has led.
    pub led: bool,
    leaders: BTreeMap<u64, usize>,
    /// Every ledger.
    pub chain: Chain,
    /// Who has promised what.
    pub promises: Promises,
    /// Since when what has worked, by node.
    pub health: Vec<Health>,
    /// What the present step does, and what it explains.
    deeds: Deeds,
    told: Deeds,
    up_since: Option<Time>,
    /// Everything ran for a while after healing: the run is over.
    pub done: bool,
    /// How long after healing everything ran.
    pub recovered: Time,
}

/// Deeds that need a record.
#[derive(Debug, Default, PartialEq, Eq)]
struct Deeds {
    changed: Fresh,
    fenced: u64,
    reset: bool,
}

impl Check {
    /// A judge of this many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { health: vec![Health::default(); nodes], ..Self::default() }
    }

    /// The step was cut off: nobody is to blame for what it did not say.
    pub fn forget_step(&mut self) {
        (self.deeds, self.told) = (Deeds::default(), Deeds::default());
    }
}

impl World {
    /// The first broken promise ends the run, unless the plan does not care for this one.
    pub fn fail(&mut self, rule: &'static str, text: String) {
        if self.violation.is_some() || self.plan.overlooks(rule) {
            return;
        }
        self.note_world(|| format!("VIOLATION of {rule}: {text}"));
        self.violation = Some(Violation { rule, text });
    }

    /// `one_home`: a guest's process has appeared on `n`.
    pub fn check_homes(&mut self, n: usize, vm: usize) {
        self.check_place(n, vm);
        let elsewhere =
            (0..self.nodes.len()).find(|k| *k != n && self.executing(*k) >> vm & 1 == 1);
        if let Some(k) = elsewhere {
            let text = format!("{} executes on n{} and n{}", self.vms[vm], k + 1, n + 1);
            self.fail("one_home", text);
        }
    }

    /// `hands_off`, `one_leader_per_term`, `ledger_is_linear` and others: what a machine wants done.
    pub fn check_action(&mut self, n: usize, action: &Action) {
        match action {
            Action::StartVm { vm, .. } => {
                self.check_hands(n, vm);
                self.check_start(n, vm);
                self.check_order(n, vm);
            }
            Action::AdoptVm { vm } => {
                self.check_hands(n, vm);
                self.note_ran(n, vm);
            }
            Action::ResumeVm { vm, .. } => {
                self.check_hands(n, vm);
                self.check_start(n, vm);
                self.note_ran(n, vm);
            }
            Action::DestroyVm { vm, .. }
            | Action::UndefineVm { vm }
            | Action::MigrateVm { vm, .. }
            | Action::PermitArrival { vm } => self.check_hands(n, vm),
            Action::Send(message) => self.check_message(n, message),
            Action::WriteBody { bytes, .. } => self.check_body(n, bytes),
            Action::Answer(Reply { result: Ok(stamp), .. }) => self.check_commit(n, *stamp),
            Action::Record(decision) => self.check_record(decision),
            Action::Fence { victim, eviction } => {
                self.check.deeds.fenced |= bit(*victim);
                self.check_order_of_fence(n, *victim, *eviction);
            }
            Action::ReadPages { .. } => self.note_look(n, |looks, now| looks.begin(now)),
            Action::ResetNode { .. } => self.check.deeds.reset = true,
            _ => {}
        }
    }

    fn check_record(&mut self, decision: &Decision) {
        let told = &mut self.check.told;
        let node = decision.node.map_or(0, bit);
        match decision.kind {
            Kind::Evicted => told.changed.evicted |= node,
            Kind::Proved => told.changed.proved |= node,
            Kind::Admitted => told.changed.admitted |= node,
            // An operator's start gives a VM to its owner anew.
            Kind::Decided | Kind::Migration | Kind::Wish | Kind::Disarm => {
                told.changed.moved.extend(decision.vm.clone());
            }
            Kind::FenceOrdered => told.fenced |= node,
            Kind::Reset => told.reset = true,
            Kind::Alarm if decision.rule == "PROTOCOL 8" => self.check_alarm(&decision.text),
            _ => {}
        }
        self.cover_record(decision);
    }

    /// `false_alarm`: a machine calls its own reasoning wrong, in a world where nobody has planted anything.
    fn check_alarm(&mut self, text: &str) {
        if self.plan.plant.is_none() && !cfg!(steadfast_mutants) {
            self.fail("false_alarm", text.into());
        }
    }

    /// `explained`: a step that commits or does something grave records why.
    pub fn check_explained(&mut self, n: usize) {
        if self.check.deeds == Deeds::default() {
            self.check.told = Deeds::default();
            return;
        }
        let done = std::mem::take(&mut self.check.deeds);
        let told = std::mem::take(&mut self.check.told);
        let missing = Fresh {
            evicted: done.changed.evicted & !told.changed.evicted,
            proved: done.changed.proved & !told.changed.proved,
            admitted: done.changed.admitted & !told.changed.admitted,
            moved: done.changed.moved,
        };
        let moved = missing.moved.iter().find(|vm| !told.changed.moved.contains(vm));
        let silent = missing.evicted | missing.proved | missing.admitted != 0 || moved.is_some();
        if silent || done.fenced & !told.fenced != 0 || done.reset && !told.reset {
            let text = format!("n{} does without a record: {missing}, moves {moved:?}", n + 1);
            self.fail("explained", text);
        }
    }

    fn check_hands(&mut self, n: usize, vm: &VmId) {
        let k = self.vm_index(vm);
        if !self.enrolments.iter().any(|e| e.vm == k && e.begun) {
            self.fail("hands_off", format!("n{} touches {vm}, which has no HA", n + 1));
        }
    }

    /// `one_leader_per_term`: no order of an older term than its node has heard of is obeyed. What this incarnation ran
    /// already it restarts without any.
    fn check_order(&mut self, n: usize, vm: &VmId) {
        let k = self.vm_index(vm);
        let ownership = self.ownership(vm);
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        // Whoever has not read the newest ledger yet, or that HA is off for it, goes on under the ownership that he knows.
        let known = agent.machine.ledger().vms.get(vm).map(|entry| entry.since);
        let fits = |ran: &Stamp| ownership.is_none_or(|since| since == *ran) || known == Some(*ran);
        let restarts = agent.ran.get(&k).is_some_and(fits);
        let (ordered, heard) = (agent.orders.get(&k).copied(), agent.heard_term);
        self.note_ran(n, vm);
        if !restarts && ordered.is_none_or(|term| term < heard) {
            let text = format!("n{} starts {vm} by an order of {ordered:?} in term {heard}", n + 1);
            self.fail("one_leader_per_term", text);
        }
    }

    fn ownership(&self, vm: &VmId) -> Option<Stamp> {
        Some(self.check.chain.newest()?.vms.get(vm)?.since)
    }

    fn note_ran(&mut self, n: usize, vm: &VmId) {
        let (k, ownership) = (self.vm_index(vm), self.ownership(vm));
        if let Some(agent) = self.nodes[n].boot.as_mut().and_then(|boot| boot.agent.as_mut()) {
            agent.ran.extend(ownership.map(|since| (k, since)));
        }
    }

    fn check_message(&mut self, n: usize, message: &Message) {
        match &message.body {
            Body::Beat(beat) => {
                self.check_beat(n, beat);
                if !beat.leading {
                    return;
                }
                self.check_leader(n, beat.term);
            }
            Body::Leading { term } => {
                self.check.led = true;
                self.check_leader(n, *term);
            }
            Body::Committed(committed) => {
                self.note_look(n, |looks, now| looks.take(committed, now));
                self.check_commit(n, committed.stamp);
                if let Some(changed) = self.check.chain.changed_by(committed.stamp) {
                    self.check_told(committed.stamp);
                    self.check.deeds.changed = changed;
                }
            }
            Body::StartVm(order) => self.check_commit(n, order.stamp),
            Body::Reply(Reply { result: Ok(stamp), .. }) => self.check_commit(n, *stamp),
            _ => {}
        }
        self.cover_message(&message.body);
    }

    fn check_leader(&mut self, n: usize, term: u64) {
        let first = *self.check.leaders.entry(term).or_insert(n);
        if first != n {
            self.fail("one_leader_per_term", format!("n{} and n{} lead {term}", first + 1, n + 1));
        }
    }

    /// `page_grows`: a page lands.
    pub fn check_page(&mut self, n: usize, page: &Page) {
        if let Some(old) = &self.disk.pages[n] {
            let again = old == page;
            let grows = page.sequence > old.sequence
                && page.promised >= old.promised
                && page.accepted >= old.accepted;
            if !again && !grows {
                let text = format!("n{} overwrites {old:?} by {page:?}", n + 1);
                self.fail("page_grows", text);
            }
        }
        if page.accepted != Stamp::default() {
            self.check_named(page);
        }
    }

    /// `named_slot`: a body never goes into the slot that the page on disk names.
    pub fn check_slot(&mut self, n: usize, slot: u8) {
        let named = self.disk.pages[n].as_ref();
        let named = named.filter(|page| page.accepted != Stamp::default() && page.slot == slot);
        if let Some(stamp) = named.map(|page| page.accepted) {
            self.fail("named_slot", format!("n{} overwrites its body of {stamp}", n + 1));
        }
    }

    /// `no_single_channel`: nothing may end in a run whose only fault hits everybody.
    pub fn check_guest_end(&mut self, n: usize, vm: usize, why: &str) {
        if self.plan.class != Class::Swarm && !why.contains("fault") {
            let text = format!("{} on n{} {why}", self.vms[vm], n + 1);
            self.fail("no_single_channel", text);
        }
    }

    /// `no_single_channel`: no node may go down in such a run.
    pub fn check_outage(&mut self, n: usize, why: &str) {
        if self.plan.class != Class::Swarm {
            self.fail("no_single_channel", format!("n{} goes down: {why}", n + 1));
        }
    }

    /// `eventually_up`: after healing, every VM comes under HA and executes once, within the bound. It is the same
    /// bound for every policy: their moods may change order and place only.
    pub fn check_alive(&mut self) {
        if !self.healed {
            return;
        }
        if let Some(why) = self.what_is_down() {
            self.check.up_since = None;
            if self.now > self.plan.heal + self.plan.bound {
                let honest = self.plan.mood == Mood::Honest;
                let rule = if honest { "eventually_up" } else { "policy_is_advice" };
                self.fail(rule, why);
            }
            return;
        }
        let since = *self.check.up_since.get_or_insert(self.now);
        self.check.recovered = since - self.plan.heal;
        self.check.done = self.now >= since + 10 * SECOND;
    }

    fn what_is_down(&self) -> Option<String> {
        let down = |enrolment: &super::operator::Enrolment| {
            let name = &self.vms[enrolment.vm];
            if enrolment.off {
                return None;
            }
            if !enrolment.granted {
                return Some(format!("HA for {name} was never granted"));
            }
            let homes =
                (0..self.nodes.len()).filter(|n| self.executing(*n) >> enrolment.vm & 1 == 1);
            (homes.count() != 1).then(|| format!("{name} does not run"))
        };
        self.enrolments.iter().find_map(down).or_else(|| self.who_is_out())
    }
}

fn bit(node: steadfast_core::ids::NodeId) -> u64 {
    1 << index(node).min(63)
}
