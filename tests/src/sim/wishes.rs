//! Operators who want something of nodes and VMs that are under HA already: start, stop, move, maintain, disarm.

use super::aims::Aim;
use super::clock::{MS, SECOND, Time};
use super::node::{id, index};
use super::plan::{Class, Plan};
use super::queue::What;
use super::rng::Rng;
use super::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use steadfast_core::event::Event;
use steadfast_core::host_shutdown::HostShutdown;
use steadfast_core::ids::Stamp;
use steadfast_core::ledger::{Desired, Ledger};
use steadfast_core::message::Change;
use steadfast_core::time::Millis;

/// Kinds of wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// A VM is started.
    Start,
    /// It is stopped.
    Stop,
    /// It is moved live.
    Migrate,
    /// It is shut down and started elsewhere.
    Relocate,
    /// A node is emptied.
    Maintain,
    /// It is used again.
    EndMaintenance,
    /// HA is switched off.
    Disarm,
    /// HA is switched on.
    Arm,
    /// HA is switched off for a VM, and on again later.
    Disable,
    /// A host is shut down, or rebooted.
    StopHost,
}

impl Wanted {
    /// Migrations are what there is most to break in.
    pub const ALL: [Self; 14] = [
        Self::Start,
        Self::Start,
        Self::Stop,
        Self::Migrate,
        Self::Migrate,
        Self::Migrate,
        Self::Migrate,
        Self::Relocate,
        Self::Maintain,
        Self::Maintain,
        Self::EndMaintenance,
        Self::Disarm,
        Self::Arm,
        Self::Disable,
    ];
}

/// One planned wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// What.
    pub wanted: Wanted,
    /// Of which VM.
    pub vm: usize,
    /// Of which node, or where to.
    pub node: usize,
    /// Asked where.
    pub at: usize,
    /// A coin: restart what cannot move, disarm with a limit.
    pub cruel: bool,
}

/// What operators remember.
#[derive(Debug, Default)]
pub struct Wishes {
    /// When something was last set right, by its name.
    asked: BTreeMap<String, Time>,
}

impl Plan {
    /// By chance of its own, so that known seeds keep their stories.
    pub fn draw_wishes(&mut self) {
        let rng = &mut Rng::new(self.seed ^ 0x0e_5e11);
        let always = self.focus.is_some_and(|focus| focus.wishes);
        let never = self.class != Class::Swarm || self.plant.is_some();
        if never || rng.chance(400) && !always {
            return;
        }
        self.limits.migration_timeout = Millis(rng.pick(&[20_000, 60_000]));
        self.limits.shutdown_timeout = Millis(rng.pick(&[2_000, 20_000]));
        self.limits.parallel_migrations = rng.index(3) + 1;
        self.limits.parallel_starts = rng.pick(&[1, 2, 8]);
        if rng.chance(600) {
            for _ in 0..rng.range(1, 5) {
                let from = rng.range(20 * SECOND, self.heal);
                self.aims.push(Aim::draw_wished(from, self, rng));
            }
        }
        let only = rng.chance(300).then(|| rng.pick(&Wanted::ALL));
        let pace = rng.pick(&[3 * SECOND, 8 * SECOND, 20 * SECOND]);
        let mut at = 20 * SECOND;
        loop {
            at += rng.range(MS, 2 * pace);
            if at > self.heal {
                break;
            }
            let wanted = only.filter(|_| rng.chance(700)).unwrap_or_else(|| rng.pick(&Wanted::ALL));
            let (vm, node, asked) =
                (rng.index(self.vms), rng.index(self.nodes), rng.index(self.nodes));
            let cruel = rng.chance(500);
            self.wishes.push((at, Wish { wanted, vm, node, at: asked, cruel }));
        }
    }

    /// Hosts that go down on purpose, by chance of its own too.
    pub fn draw_host_stops(&mut self) {
        let rng = &mut Rng::new(self.seed ^ 0x57_0b57);
        if self.class != Class::Swarm || self.plant.is_some() || rng.chance(750) {
            return;
        }
        self.limits.host_shutdown = rng.pick(&[
            HostShutdown::Conditional,
            HostShutdown::Freeze,
            HostShutdown::Failover,
            HostShutdown::Migrate,
        ]);
        self.limits.host_freeze = Millis(rng.pick(&[10_000, 60_000]));
        let mut at = 20 * SECOND;
        loop {
            at += rng.range(MS, 80 * SECOND);
            if at > self.heal {
                break;
            }
            let (node, cruel) = (rng.index(self.nodes), rng.chance(300));
            self.wishes.push((at, Wish { wanted: Wanted::StopHost, vm: 0, node, at: node, cruel }));
        }
    }
}

impl World {
    /// Puts all wishes into the future.
    pub fn expect_wishes(&mut self) {
        for index in 0..self.plan.wishes.len() {
            self.queue.push(self.plan.wishes[index].0, What::Wish { index });
        }
    }

    /// An operator wants something.
    pub fn wish(&mut self, index: usize) {
        let wish = self.plan.wishes[index].1.clone();
        if wish.wanted == Wanted::StopHost && !self.healed {
            self.cover_debug("wishes", wish.wanted);
            return self.host_stops(wish.node, !wish.cruel);
        }
        let Some(epoch) = self.epoch(wish.at).filter(|_| !self.healed) else { return };
        let (vm, node) = (self.vms[wish.vm].clone(), id(wish.node));
        let change = match wish.wanted {
            Wanted::Start => Change::StartVm(vm),
            Wanted::Stop => Change::StopVm(vm),
            Wanted::Migrate => Change::MigrateVm { vm, to: node },
            Wanted::Relocate => Change::RelocateVm { vm, to: node },
            Wanted::Maintain => {
                Change::BeginMaintenance { node, restart: wish.cruel, reason: "a wish".into() }
            }
            Wanted::EndMaintenance => Change::EndMaintenance(node),
            Wanted::Disarm => {
                let limit = wish.cruel.then_some(Millis(15_000));
                Change::Disarm { limit, reason: "a wish".into() }
            }
            Wanted::Arm => Change::Arm,
            Wanted::Disable => Change::DisableVm(vm),
            Wanted::StopHost => return,
        };
        self.cover_debug("wishes", wish.wanted);
        self.request(wish.at, epoch, change);
    }

    /// HA was switched off for a VM: some time later its operator wants it again, where it runs.
    fn enable_again(&mut self) {
        let Some(ledger) = self.check.chain.newest().cloned() else { return };
        for k in 0..self.enrolments.len() {
            let (vm, granted) = (self.enrolments[k].vm, self.enrolments[k].granted);
            if !granted || ledger.vms.contains_key(&self.vms[vm]) {
                continue;
            }
            let bit = 1 << vm;
            let busy: Vec<usize> =
                (0..self.nodes.len()).filter(|n| self.may_execute(*n, bit)).collect();
            let home = match busy.as_slice() {
                [] => self.rng.index(self.nodes.len()),
                [home] => *home,
                _ => continue,
            };
            let soon = self.now + self.rng.range(0, 20) * SECOND;
            let enrolment = &mut self.enrolments[k];
            (enrolment.granted, enrolment.home, enrolment.asked) = (false, home, (0, soon));
        }
    }

    /// Every second: what was switched off for a VM is switched on again; after healing all that operators wished is undone.
    pub fn look_after(&mut self) {
        if !self.plan.wishes.is_empty() {
            self.enable_again();
        }
        let Some(ledger) = self.check.chain.newest().cloned().filter(|_| self.healed) else {
            return;
        };
        for (name, change) in amends(&ledger) {
            let last = self.wishes.asked.get(&name).copied();
            if last.is_some_and(|at| self.now < at + 15 * SECOND) {
                continue;
            }
            let n = self.rng.index(self.nodes.len());
            if let Some(epoch) = self.epoch(n) {
                self.wishes.asked.insert(name, self.now);
                self.request(n, epoch, change);
            }
        }
    }

    /// A VM that runs where it belongs got a new ownership: its owner finds it running under that one. It may have ended a
    /// moment ago: until the next scan its owner cannot know.
    pub fn note_new_ownerships(&mut self, before: &Ledger, after: &Ledger) {
        for (vm, entry) in &after.vms {
            let old = before.vms.get(vm);
            if old.is_some_and(|old| old.owner != entry.owner || old.since == entry.since) {
                continue;
            }
            let (k, n) = (self.vm_index(vm), index(entry.owner));
            let executing = self.executing(n);
            let Some(boot) = self.nodes[n].boot.as_mut() else { continue };
            let Some(agent) = boot.agent.as_mut() else { continue };
            let seen = executing | agent.scanned.0 | agent.scanned.1;
            // Off and on again between two reads of its owner is one change to him.
            let fits = |ran: &Stamp| old.is_none_or(|old| old.since == *ran);
            if seen >> k & 1 == 1 && agent.ran.get(&k).is_some_and(fits) {
                agent.ran.insert(k, entry.since);
            }
        }
    }

    /// Asks an agent for a change.
    pub fn request(&mut self, n: usize, epoch: u64, change: Change) {
        self.requests += 1;
        let id = self.requests;
        self.note(n, || format!("an operator asks: {change:?}"));
        let delay = self.rng.range(0, 50 * MS);
        let change = Box::new(change);
        self.answer(n, epoch, delay, Event::ChangeRequested { id, change });
    }
}

/// What is to be asked for, so that everything comes right.
fn amends(ledger: &Ledger) -> Vec<(String, Change)> {
    let mut amends = Vec::new();
    if ledger.disarm.is_some() {
        amends.push(("arm".into(), Change::Arm));
    }
    for (node, entry) in ledger.nodes.iter().filter(|(_, entry)| entry.maintenance.is_some()) {
        amends.push((entry.name.clone(), Change::EndMaintenance(*node)));
    }
    for (vm, entry) in &ledger.vms {
        if entry.desired == Desired::Stopped || entry.failed.is_some() {
            amends.push((vm.0.clone(), Change::StartVm(vm.clone())));
        }
    }
    amends
}
