//! Live migrations: the copy that arrives paused, the instant at which the guest is here no more and there not yet, and all
//! that can end otherwise. libvirt carries a migration on without the agents that asked for it.
//!
//! A copy is a process: a scan sees it, and it holds the VM's place. It does not execute before it is resumed.

use super::aims::Trigger;
use super::clock::{MS, SECOND, Time};
use super::node::index;
use super::queue::What;
use super::script::Told;
use super::world::World;
use std::collections::BTreeMap;
use steadfast_core::event::Event;
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::time::Instant;

/// A QEMU process that does not execute its guest.
#[derive(Debug, Clone, Copy)]
pub struct Copy {
    /// The migration that brought it, or took the guest away.
    pub number: u64,
    /// Everything has arrived: what there was of the guest at that instant.
    pub complete: bool,
    /// How often the guest had been started from disk, or gone on, by then.
    pub life: u64,
}

/// A migration on its way.
#[derive(Debug, Clone)]
pub struct Move {
    vm: usize,
    /// Source: node, boot, agent, life of libvirtd.
    from: (usize, u64, u64, u64),
    to: usize,
    /// The target's boot, once the copy is there.
    to_boot: Option<u64>,
    stage: Stage,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Compare `not_after` with the clock, then call libvirt.
    HandOver(Instant),
    /// Ask the target.
    Prepare,
    /// Everything is there: the guest stops here.
    Switch,
    /// The call returns.
    Return(Result<(), String>),
}

/// All migrations.
#[derive(Debug, Default)]
pub struct Moves {
    under_way: BTreeMap<u64, Move>,
    numbers: u64,
    /// How often each guest was started from disk, or went on elsewhere.
    lives: BTreeMap<usize, u64>,
}

impl World {
    /// An agent asks for a migration.
    pub fn migrate_vm(
        &mut self,
        n: usize,
        epoch: u64,
        (vm, to): (&VmId, NodeId),
        not_after: Instant,
    ) {
        let Some(boot) = self.nodes[n].boot.as_ref() else { return };
        let from = (n, self.nodes[n].boots, epoch, boot.libvirt);
        let vm = self.vm_index(vm);
        let stage = Stage::HandOver(not_after);
        self.moves.numbers += 1;
        let number = self.moves.numbers;
        let run = Move { vm, from, to: index(to), to_boot: None, stage };
        self.moves.under_way.insert(number, run);
        self.move_later(number, self.now + 20);
    }

    fn move_later(&mut self, number: u64, at: Time) {
        self.queue.push(at, What::Move { number });
    }

    /// The next stage of a migration.
    pub fn move_on(&mut self, number: u64) {
        let Some(run) = self.moves.under_way.get(&number).cloned() else { return };
        let (n, boot, epoch, _) = run.from;
        let alive = self.nodes[n].boot.is_some() && self.nodes[n].boots == boot;
        if !alive {
            self.moves.under_way.remove(&number);
            return self.drop_copy(&run, number);
        }
        let asleep = match run.stage {
            Stage::HandOver(_) => self.nodes[n].agent_sleeps.max(self.nodes[n].node_sleeps),
            _ => self.nodes[n].node_sleeps,
        };
        if asleep > self.now {
            return self.move_later(number, asleep);
        }
        match run.stage.clone() {
            Stage::HandOver(_) if self.agent(n, epoch).is_none() => {
                self.moves.under_way.remove(&number);
            }
            Stage::HandOver(not_after) if self.own(n) > not_after => {
                self.move_returns(number, Err("not handed over: too late".into()));
            }
            Stage::HandOver(_) if self.nodes[n].libvirt_down > self.now => {
                let back = self.nodes[n].libvirt_down + self.rng.range(0, 50) * MS;
                self.move_later(number, back);
            }
            Stage::HandOver(_) => {
                self.set_stage(number, Stage::Prepare);
                let at = self.now + self.rng.skewed(1, 300) * MS;
                self.move_later(number, at);
            }
            Stage::Prepare => self.prepare_copy(number, &run),
            Stage::Switch => self.switch_over(number, &run),
            Stage::Return(result) => {
                self.moves.under_way.remove(&number);
                self.cover("migrations", if result.is_ok() { "done" } else { "failed" });
                let vm = self.vms[run.vm].clone();
                self.answer(n, epoch, 0, Event::MigrationEnded { vm, result });
            }
        }
    }

    fn set_stage(&mut self, number: u64, stage: Stage) {
        if let Some(run) = self.moves.under_way.get_mut(&number) {
            run.stage = stage;
        }
    }

    fn move_returns(&mut self, number: u64, result: Result<(), String>) {
        self.set_stage(number, Stage::Return(result));
        let at = self.now + self.rng.skewed(0, 300) * MS;
        self.move_later(number, at);
    }

    /// The target's hook is asked; if it agrees a process waits there for the guest.
    fn prepare_copy(&mut self, number: u64, run: &Move) {
        let (now, to, bit) = (self.now, run.to, 1_u64 << run.vm);
        let is_on = self.nodes.get(to).is_some_and(|node| {
            let asleep = node.agent_sleeps.max(node.node_sleeps).max(node.libvirt_down) > now;
            let agrees = node.boot.as_ref().is_some_and(|boot| {
                let free = boot.executing & bit == 0 && !boot.copies.contains_key(&run.vm);
                boot.agent.is_some() && boot.permitted & bit != 0 && free
            });
            agrees && !asleep
        });
        let runs = self.executing(run.from.0) & bit != 0;
        let fails = self.script.migration_fails(run.vm);
        if fails || !is_on || !runs || !self.hears(run.from.0, to) {
            self.cover("migrations", "refused");
            return self.move_returns(number, Err("the target does not accept it".into()));
        }
        let to_boot = self.nodes[to].boots;
        if let Some(boot) = self.nodes[to].boot.as_mut() {
            boot.copies.insert(run.vm, Copy { number, complete: false, life: 0 });
        }
        self.note_vm(to, run.vm, "arrives, paused");
        if let Some(run) = self.moves.under_way.get_mut(&number) {
            (run.to_boot, run.stage) = (Some(to_boot), Stage::Switch);
        }
        let hangs = self.rng.chance(60);
        let length =
            if hangs { self.rng.range(20, 120) * SECOND } else { self.rng.skewed(50, 9_000) * MS };
        self.move_later(number, now + length);
    }

    fn hears(&self, a: usize, b: usize) -> bool {
        self.net.side.get(a) == self.net.side.get(b)
    }

    /// The last pages go over, the guest stops here and could go on there.
    fn switch_over(&mut self, number: u64, run: &Move) {
        let (n, _, _, libvirt) = run.from;
        let bit = 1_u64 << run.vm;
        let stalled = self.disk.stalled(n) || self.disk.stalled(run.to);
        let apart = !self.hears(n, run.to) && self.rng.chance(700);
        if stalled || apart || self.nodes[run.to].node_sleeps > self.now {
            return self.move_later(number, self.now + 500 * MS);
        }
        let there = self.nodes[run.to]
            .boot
            .as_ref()
            .filter(|_| run.to_boot == Some(self.nodes[run.to].boots));
        let there =
            there.is_some_and(|boot| boot.copies.get(&run.vm).is_some_and(|c| c.number == number));
        let here = self.executing(n) & bit != 0;
        let same = self.nodes[n].boot.as_ref().is_some_and(|boot| boot.libvirt == libvirt);
        let reached = self.hears(n, run.to);
        if !there || !here || !same || !reached {
            self.drop_copy(run, number);
            return self.move_returns(number, Err("the migration was lost".into()));
        }
        let life = self.moves.lives.get(&run.vm).copied().unwrap_or_default();
        if let Some(boot) = self.nodes[run.to].boot.as_mut() {
            boot.copies.insert(run.vm, Copy { number, complete: true, life });
        }
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            boot.executing &= !bit;
            boot.copies.insert(run.vm, Copy { number, complete: true, life });
        }
        self.note_vm(n, run.vm, &format!("has left for n{}", run.to + 1));
        self.script.tell(|| Told::Leaves { vm: run.vm });
        let (boot, vm) = (self.nodes[n].boots, run.vm);
        let at = self.now + self.rng.skewed(0, 400) * MS;
        self.queue.push(at, What::CopyEnds { node: n, boot, vm, number });
        self.aim_about(Trigger::Leaves, n, run.to);
        // Now and then libvirt loses its own word.
        let lost = self.rng.chance(40);
        self.move_returns(number, if lost { Err("the connection died".into()) } else { Ok(()) });
    }

    /// The copy at the target ends with its migration, mostly.
    fn drop_copy(&mut self, run: &Move, number: u64) {
        let Some(boot) = run.to_boot.filter(|_| self.rng.chance(850)) else { return };
        let at = self.now + self.rng.skewed(0, 3_000) * MS;
        self.queue.push(at, What::CopyEnds { node: run.to, boot, vm: run.vm, number });
    }

    /// A process that does not execute its guest ends.
    pub fn copy_ends(&mut self, n: usize, number: u64, vm: usize, boot: u64) {
        let same = self.nodes[n].boots == boot;
        let copy = self.nodes[n].boot.as_ref().and_then(|boot| boot.copies.get(&vm));
        if same && copy.is_some_and(|copy| copy.number == number) {
            self.end_copy(n, vm);
        }
    }

    /// It ends, if there is one.
    pub fn end_copy(&mut self, n: usize, vm: usize) -> bool {
        let Some(boot) = self.nodes[n].boot.as_mut() else { return false };
        let gone = boot.copies.remove(&vm).is_some();
        if gone {
            // It was guarded until now.
            self.check.health[n].busy = self.now;
        }
        let watcher = boot.agent.as_ref().filter(|agent| agent.watched >> vm & 1 == 1);
        let watcher = watcher.map(|agent| agent.epoch).filter(|_| gone);
        if let Some(epoch) = watcher {
            let delay = self.rng.skewed(0, 200) * MS;
            self.answer(n, epoch, delay, Event::GuestExited { vm: self.vms[vm].clone() });
        }
        gone
    }

    /// An agent wants its VM's migration ended: mostly that is so.
    pub fn abort_migration(&mut self, n: usize, vm: &VmId) {
        let vm = self.vm_index(vm);
        let open = |run: &Move| matches!(run.stage, Stage::Prepare | Stage::Switch);
        let found = self
            .moves
            .under_way
            .iter()
            .find(|(_, run)| run.vm == vm && run.from.0 == n && open(run));
        let Some((number, run)) = found.map(|(number, run)| (*number, run.clone())) else { return };
        if self.rng.chance(800) {
            self.cover("migrations", "aborted");
            self.drop_copy(&run, number);
            self.move_returns(number, Err("aborted".into()));
        }
    }

    /// The record of arrivals that the hook asks.
    pub fn permit_arrival(&mut self, n: usize, vm: &VmId, may: bool) {
        let bit = 1_u64 << self.vm_index(vm);
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            boot.permitted = if may { boot.permitted | bit } else { boot.permitted & !bit };
        }
    }

    /// VMs with a process here that does not execute them, as bits.
    #[must_use]
    pub fn copies(&self, n: usize) -> u64 {
        let boot = self.nodes[n].boot.as_ref();
        boot.map_or(0, |boot| boot.copies.keys().fold(0, |mask, vm| mask | 1 << vm))
    }

    /// A guest begins a life: from disk.
    pub fn begins_life(&mut self, vm: usize) {
        *self.moves.lives.entry(vm).or_default() += 1;
    }

    /// libvirt resumes a copy. What runs already runs on.
    pub fn resume_copy(&mut self, n: usize, vm: usize) -> Result<(), String> {
        let bit = 1_u64 << vm;
        if self.executing(n) & bit != 0 {
            return Ok(());
        }
        if self.rng.chance(30) {
            return Err("internal error: unable to execute QEMU command 'cont'".into());
        }
        let Some(boot) = self.nodes[n].boot.as_mut() else { return Err("gone".into()) };
        let Some(copy) = boot.copies.remove(&vm) else {
            return Err("domain is not running".into());
        };
        boot.executing |= bit;
        self.check.health[n].busy = self.now;
        self.note_vm(n, vm, "goes on");
        self.script.tell(|| Told::Runs { node: n, vm });
        self.cover("migrations", "resumed");
        let life = self.moves.lives.get(&vm).copied().unwrap_or_default();
        if !copy.complete || copy.life != life {
            let text = format!("{} goes on at n{} from a stale copy", self.vms[vm], n + 1);
            self.fail("fresh_copies", text);
        }
        self.begins_life(vm);
        self.check_homes(n, vm);
        Ok(())
    }
}
