//! The judge: PROTOCOL section 8, by the world's own omniscience.

use super::clock::{SECOND, Time};
use super::faults::bits;
use super::network::mask_words;
use super::node::index;
use super::plan::Class;
use super::truth::Truth;
use super::world::World;
use std::collections::BTreeMap;
use steadfast_core::action::Action;
use steadfast_core::decision::Kind;
use steadfast_core::ids::{Digest, Stamp, VmId};
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
    /// Digest of every body that a page ever named.
    bodies: BTreeMap<Stamp, Digest>,
    /// Bodies that a machine ever claimed to be committed.
    committed: BTreeMap<Stamp, Digest>,
    /// Nodes newly evicted in the present step, and those whose eviction it explained.
    unexplained: u64,
    explained: u64,
    up_since: Option<Time>,
    /// What the ledger says that must be so in the world.
    pub truth: Truth,
    /// Everything ran for a while after healing: the run is over.
    pub done: bool,
    /// How long after healing everything ran.
    pub recovered: Time,
}

impl Check {
    /// The step was cut off: nobody is to blame for what it did not say.
    pub fn forget_step(&mut self) {
        (self.unexplained, self.explained) = (0, 0);
    }
}

impl World {
    /// The first broken promise ends the run.
    pub fn fail(&mut self, rule: &'static str, text: String) {
        self.note_world(|| format!("VIOLATION of {rule}: {text}"));
        self.violation.get_or_insert(Violation { rule, text });
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

    /// `hands_off`, `one_leader_per_term`, `ledger_is_linear`: what a machine wants done.
    pub fn check_action(&mut self, n: usize, action: &Action) {
        match action {
            Action::StartVm { vm, .. }
            | Action::DestroyVm { vm, .. }
            | Action::UndefineVm { vm }
            | Action::AdoptVm { vm } => self.check_hands(n, vm),
            Action::Send(message) => self.check_message(n, message),
            Action::Answer(Reply { result: Ok(stamp), .. }) => self.check_commit(n, *stamp),
            Action::Record(decision) if decision.kind == Kind::Evicted => {
                self.check.explained |= decision.node.map_or(0, |node| 1 << index(node));
            }
            _ => {}
        }
    }

    /// `explained`: a step that commits an eviction records why.
    pub fn check_explained(&mut self, n: usize) {
        let missing = self.check.unexplained & !self.check.explained;
        (self.check.unexplained, self.check.explained) = (0, 0);
        if missing > 0 {
            let text = format!("n{} evicts {} without a record", n + 1, mask_words(missing));
            self.fail("explained", text);
        }
    }

    fn check_hands(&mut self, n: usize, vm: &VmId) {
        let k = self.vm_index(vm);
        if !self.enrolments.iter().any(|e| e.vm == k && e.begun) {
            self.fail("hands_off", format!("n{} touches {vm}, which has no HA", n + 1));
        }
    }

    fn check_message(&mut self, n: usize, message: &Message) {
        match &message.body {
            Body::Leading { term } => {
                self.check.led = true;
                let first = *self.check.leaders.entry(*term).or_insert(n);
                if first != n {
                    let text = format!("n{} and n{} lead term {term}", first + 1, n + 1);
                    self.fail("one_leader_per_term", text);
                }
            }
            Body::Committed(committed) => {
                let fresh = committed.evicted.iter().filter(|(_, since)| *since == committed.stamp);
                self.check.unexplained |= bits(fresh.map(|(node, _)| index(*node)));
                self.check_commit(n, committed.stamp);
            }
            Body::StartVm(order) => self.check_commit(n, order.stamp),
            Body::Reply(Reply { result: Ok(stamp), .. }) => self.check_commit(n, *stamp),
            _ => {}
        }
    }

    /// Claims of commits form one chain: a higher ballot never has an older version, and one version
    /// never has two contents.
    pub fn check_commit(&mut self, n: usize, stamp: Stamp) {
        if stamp == Stamp::default() || self.check.committed.contains_key(&stamp) {
            return;
        }
        let Some(digest) = self.check.bodies.get(&stamp).copied() else {
            let text = format!("n{} claims {stamp}, which never was on disk", n + 1);
            return self.fail("ledger_is_linear", text);
        };
        let before = self.check.committed.range(..stamp).next_back();
        let after = self.check.committed.range(stamp..).next();
        let fits = |older: (&Stamp, &Digest), newer: (&Stamp, &Digest)| {
            older.0.version < newer.0.version
                || (older.0.version == newer.0.version && older.1 == newer.1)
        };
        let parent = Stamp { version: stamp.version.saturating_sub(1), ..stamp };
        let fork = self.check.bodies.get(&parent).and_then(|digest| {
            let mut committed = self.check.committed.iter();
            committed.find(|(s, d)| s.version == parent.version && *d != digest).map(|(s, _)| *s)
        });
        let problem = match (before, after) {
            (Some(b), _) if !fits(b, (&stamp, &digest)) => Some(*b.0),
            (_, Some(a)) if !fits((&stamp, &digest), a) => Some(*a.0),
            _ => fork,
        };
        if let Some(other) = problem {
            let text = format!("n{} claims {stamp}, and {other} was committed too", n + 1);
            self.fail("ledger_is_linear", text);
        }
        self.check.committed.insert(stamp, digest);
    }

    /// `page_grows` and `one_body`: a page lands.
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
        if page.accepted == Stamp::default() {
            return;
        }
        let digest = *self.check.bodies.entry(page.accepted).or_insert(page.digest);
        if digest != page.digest {
            let text = format!("{} has two bodies: {digest}, {}", page.accepted, page.digest);
            self.fail("one_body", text);
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

    /// `eventually_up`: after healing, every VM comes under HA and executes once, within the bound.
    pub fn check_alive(&mut self) {
        if !self.healed {
            return;
        }
        if let Some(why) = self.what_is_down() {
            self.check.up_since = None;
            if self.now > self.plan.heal + self.plan.bound {
                self.fail("eventually_up", why);
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
