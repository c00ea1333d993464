//! Ground truth of guests: what executes where, and what libvirt still works on.

use super::aims::Trigger;
use super::clock::{MS, SECOND, Time};
use super::node::index_of;
use super::queue::What;
use super::script::{StartWill, Told};
use super::world::World;
use std::collections::BTreeSet;
use steadfast_core::event::Event;
use steadfast_core::guest::GuestScan;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;

/// A start that libvirt has.
#[derive(Debug, Clone, Copy)]
pub struct Handed {
    /// Agent that asked.
    pub epoch: u64,
    /// The VM's index.
    pub vm: usize,
}

/// A start that libvirt has not seen.
#[derive(Debug, Clone, Copy)]
pub struct Preparing {
    /// The VM's index.
    pub vm: usize,
    /// Not to be handed over after this; `None` once the clock was looked at for the last time.
    pub not_after: Option<Instant>,
}

/// A start on its way.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// Node.
    pub node: usize,
    /// Its power.
    pub boot: u64,
    /// Agent.
    pub epoch: u64,
    /// The VM's index.
    pub vm: usize,
    /// Not to be handed over after this.
    pub not_after: Instant,
    /// The life of libvirtd that has it.
    pub libvirt: u64,
    /// No start from disk: a copy that arrived is resumed.
    pub resumes: bool,
    /// What comes next.
    pub stage: StartStage,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartStage {
    /// Compare `not_after` with the clock.
    Check,
    /// Call libvirt.
    HandOver,
    /// The process appears (or not, with these words).
    Appear(Result<(), String>),
    /// The call returns.
    End(Result<(), String>),
}

impl StartRun {
    /// Is it still in the agent's hands?
    #[must_use]
    pub fn in_agent(&self) -> bool {
        matches!(self.stage, StartStage::Check | StartStage::HandOver)
    }
}

/// A destroy on its way: the next thing is the process's end.
#[derive(Debug, Clone, Copy)]
pub struct DestroyRun {
    /// Node.
    pub node: usize,
    /// Its power.
    pub boot: u64,
    /// Agent.
    pub epoch: u64,
    /// The VM's index.
    pub vm: usize,
    /// The process hung in the kernel already.
    pub hung: bool,
}

/// A scan on its way. It looks at starts first and at processes later, at two instants.
#[derive(Debug, Clone)]
pub struct ScanRun {
    /// Node.
    pub node: usize,
    /// Agent.
    pub epoch: u64,
    /// When it began.
    pub began: Instant,
    /// Starts of earlier incarnations.
    pub unresolved: Option<BTreeSet<VmId>>,
}

impl World {
    /// Index of an HA VM of this world, or of a guest without HA.
    #[must_use]
    pub fn vm_index(&self, vm: &VmId) -> usize {
        index_of(&self.vms, vm)
    }

    fn names(&self, mask: u64) -> BTreeSet<VmId> {
        (0..self.vms.len()).filter(|k| mask >> k & 1 == 1).map(|k| self.vms[k].clone()).collect()
    }

    /// Begins a start.
    pub fn start_vm(&mut self, node: usize, epoch: u64, vm: &VmId, not_after: Instant) {
        self.begin_start(node, epoch, vm, not_after, false);
    }

    /// Begins to resume a copy: as any start, it may hang, and outlive who asked for it.
    pub fn resume_vm(&mut self, node: usize, epoch: u64, vm: &VmId, not_after: Instant) {
        self.begin_start(node, epoch, vm, not_after, true);
    }

    fn begin_start(
        &mut self,
        node: usize,
        epoch: u64,
        vm: &VmId,
        not_after: Instant,
        resumes: bool,
    ) {
        let (boot, vm) = (self.nodes[node].boots, self.vm_index(vm));
        let (libvirt, stage) = (0, StartStage::Check);
        let run = StartRun { node, boot, epoch, vm, not_after, libvirt, resumes, stage };
        if let Some(agent) = self.agent(node, epoch) {
            agent.preparing.push(Preparing { vm, not_after: Some(not_after) });
        }
        let at = self.now + self.rng.range(20, 3_000);
        self.queue.push(at, What::Start(Box::new(run)));
    }

    /// The next stage of a start.
    pub fn start_on(&mut self, mut run: Box<StartRun>) {
        let n = run.node;
        if self.nodes[n].boot.is_none() || self.nodes[n].boots != run.boot {
            return;
        }
        if run.in_agent() && self.agent(n, run.epoch).is_none() {
            return; // Died before libvirt heard of it.
        }
        let own = self.own(n);
        let next = match std::mem::replace(&mut run.stage, StartStage::Check) {
            StartStage::Check if own > run.not_after => {
                self.prepared(&run, None);
                self.cover("starts", "too late");
                let result = Err("not handed over: too late".into());
                return self.answer(n, run.epoch, 0, self.ended(&run, result));
            }
            StartStage::Check if self.nodes[n].libvirt_down > self.now => {
                self.nodes[n].libvirt_down - self.now + self.rng.range(0, 50) * MS
            }
            StartStage::Check => {
                self.prepared(&run, Some(None));
                run.stage = StartStage::HandOver;
                self.aim(Trigger::HandOver, n);
                self.rng.range(10, 1_500)
            }
            StartStage::HandOver => self.hand_over(&mut run),
            StartStage::Appear(result) => {
                if self.script.start(n, run.vm) == Some(StartWill::Hangs) {
                    run.stage = StartStage::Appear(result);
                    return self.queue.push(self.now + 100 * MS, What::Start(run));
                }
                if result.is_ok() && self.disk.stalled(n) {
                    // QEMU opens its disk: it hangs with the storage, and appears late.
                    run.stage = StartStage::Appear(result);
                    return self.disk.park(n, What::Start(run));
                }
                let result = self.survive_libvirt(&run, result);
                let result = match run.resumes {
                    true => result.and_then(|()| self.resume_copy(n, run.vm)),
                    false => self.appear(n, run.vm, result),
                };
                run.stage = StartStage::End(result);
                self.rng.range(0, 50 * MS)
            }
            StartStage::End(result) => return self.start_ended(&run, result),
        };
        self.queue.push(self.now + next, What::Start(run));
    }

    /// The last look at the clock is over (`Some(None)`), or the agent has the start no more (`None`).
    fn prepared(&mut self, run: &StartRun, becomes: Option<Option<Instant>>) {
        let vm = run.vm;
        self.check.health[run.node].busy = self.now;
        let Some(agent) = self.agent(run.node, run.epoch) else { return };
        agent.preparing.retain(|start| start.vm != vm);
        agent.preparing.extend(becomes.map(|not_after| Preparing { vm, not_after }));
    }

    /// libvirtd died with the call in its hands: QEMU was forked already, or never will be. The agent waits until it
    /// knows which.
    fn survive_libvirt(
        &mut self,
        run: &StartRun,
        result: Result<(), String>,
    ) -> Result<(), String> {
        let died = self.nodes[run.node].boot.as_ref().is_some_and(|b| b.libvirt != run.libvirt);
        if died && self.rng.chance(500) {
            self.cover("starts", "lost with libvirtd");
            return Err("the connection to libvirt died during the start, and no QEMU came".into());
        }
        result
    }

    fn hand_over(&mut self, run: &mut StartRun) -> u64 {
        let slow = self.slow_starts > self.now;
        let will = self.script.hands_over(run.node, run.vm);
        let fails = self.failing_starts > self.now && self.rng.chance(500);
        let fails = fails || will == Some(StartWill::Fails);
        let hangs = slow && self.rng.chance(200);
        let words = "internal error: process exited while connecting to monitor";
        run.stage = StartStage::Appear(if fails { Err(words.into()) } else { Ok(()) });
        self.prepared(run, None);
        if let Some(boot) = self.nodes[run.node].boot.as_mut() {
            boot.starts.push(Handed { epoch: run.epoch, vm: run.vm });
            run.libvirt = boot.libvirt;
        }
        if let Some(StartWill::Takes(length)) = will {
            return length;
        }
        match (hangs, slow) {
            (true, _) => self.rng.range(5, 60) * SECOND,
            (_, true) => self.rng.range(500, 5_000) * MS,
            _ => self.rng.skewed(50, 2_000) * MS,
        }
    }

    fn appear(&mut self, n: usize, vm: usize, result: Result<(), String>) -> Result<(), String> {
        result?;
        let Some(boot) = self.nodes[n].boot.as_mut() else { return Ok(()) };
        if boot.executing >> vm & 1 == 1 || boot.copies.contains_key(&vm) {
            return Err("Requested operation is not valid: domain is already running".into());
        }
        boot.executing |= 1 << vm;
        self.begins_life(vm);
        self.check.health[n].busy = self.now;
        self.note_vm(n, vm, "executes");
        self.script.tell(|| Told::Runs { node: n, vm });
        self.aim(Trigger::GuestAppears, n);
        self.check_homes(n, vm);
        Ok(())
    }

    /// Somebody starts a guest behind everybody's back.
    pub fn appears(&mut self, n: usize, vm: usize) {
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        boot.executing |= 1 << vm;
        self.note_vm(n, vm, "is started by hand");
        self.script.tell(|| Told::Runs { node: n, vm });
    }

    fn start_ended(&mut self, run: &StartRun, result: Result<(), String>) {
        self.check.health[run.node].busy = self.now;
        self.cover("starts", if result.is_ok() { "done" } else { "failed" });
        if let Some(boot) = self.nodes[run.node].boot.as_mut() {
            let same = |start: &Handed| start.epoch == run.epoch && start.vm == run.vm;
            if let Some(at) = boot.starts.iter().position(same) {
                boot.starts.remove(at);
            }
            if result.is_ok()
                && let Some(agent) = boot.agent.as_mut().filter(|a| a.epoch == run.epoch)
            {
                agent.watched |= 1 << run.vm;
            }
        }
        let event = self.ended(run, result);
        self.answer(run.node, run.epoch, 0, event);
    }

    fn ended(&self, run: &StartRun, result: Result<(), String>) -> Event {
        let vm = self.vms[run.vm].clone();
        match run.resumes {
            true => Event::ResumeEnded { vm, result },
            false => Event::StartEnded { vm, result },
        }
    }

    /// libvirtd dies and is back after `down`. Guests do not notice.
    pub fn restart_libvirt(&mut self, n: usize, down: Time) {
        let until = self.now + down;
        self.nodes[n].libvirt_down = self.nodes[n].libvirt_down.max(until);
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            boot.libvirt += 1;
        }
        self.note(n, || format!("libvirtd dies, back in {} ms", down / MS));
    }

    /// Begins a destroy. Without libvirtd the process itself is killed, after a second.
    pub fn destroy_vm(&mut self, node: usize, epoch: u64, vm: &VmId) {
        let (boot, vm) = (self.nodes[node].boots, self.vm_index(vm));
        let run = DestroyRun { node, boot, epoch, vm, hung: false };
        let alone = if self.nodes[node].libvirt_down > self.now { SECOND } else { 0 };
        let at = self.now + alone + self.rng.skewed(5, 500) * MS;
        self.queue.push(at, What::Destroy(run));
    }

    /// The process ends, unless it hangs in the kernel with its storage.
    pub fn destroy_on(&mut self, mut run: DestroyRun) {
        let n = run.node;
        if self.nodes[n].boot.is_none() || self.nodes[n].boots != run.boot {
            return;
        }
        let vm = self.vms[run.vm].clone();
        let exists = (self.executing(n) | self.copies(n)) >> run.vm & 1 == 1;
        let scripted = self.script.stops_hang >> n & 1 == 1;
        let stuck = scripted || self.nodes[n].stops_hang > self.now;
        if exists && (stuck || self.disk.stalled(n)) && (run.hung || self.rng.chance(500)) {
            if !run.hung {
                let result = Err("Timed out during operation: process is in D state".into());
                self.answer(n, run.epoch, 5 * SECOND, Event::StopEnded { vm, result });
            }
            run.hung = true;
            self.cover("stops", "in D state");
            if stuck {
                let at = self.nodes[n].stops_hang.max(self.now + 100 * MS);
                return self.queue.push(at, What::Destroy(run));
            }
            return self.disk.park(n, What::Destroy(run));
        }
        let copy = self.end_copy(n, run.vm);
        let gone = exists && (copy | self.guest_ends(n, run.vm, "is destroyed"));
        let result = if gone { Ok(()) } else { Err("domain is not running".into()) };
        if !run.hung {
            let delay = self.rng.range(0, 20 * MS);
            self.answer(n, run.epoch, delay, Event::StopEnded { vm, result });
        }
    }

    /// VMs that execute on a node, as bits.
    #[must_use]
    pub fn executing(&self, n: usize) -> u64 {
        self.nodes[n].boot.as_ref().map_or(0, |boot| boot.executing)
    }

    /// A guest's process ends. True if there was one.
    pub fn guest_ends(&mut self, n: usize, vm: usize, why: &'static str) -> bool {
        let Some(boot) = self.nodes[n].boot.as_mut() else { return false };
        if boot.executing >> vm & 1 == 0 {
            return false;
        }
        boot.executing &= !(1 << vm);
        self.check.health[n].busy = self.now;
        let watcher = boot.agent.as_ref().filter(|agent| agent.watched >> vm & 1 == 1);
        let watcher = watcher.map(|agent| agent.epoch);
        self.note_vm(n, vm, why);
        self.script.tell(|| Told::Ends { node: n, vm, why });
        self.check_guest_end(n, vm, why);
        if let Some(epoch) = watcher {
            let late = self.late_exits > self.now;
            let delay = self.rng.skewed(0, if late { 20_000 } else { 200 }) * MS;
            self.answer(n, epoch, delay, Event::GuestExited { vm: self.vms[vm].clone() });
        }
        true
    }

    /// Watches a VM's process.
    pub fn adopt(&mut self, n: usize, epoch: u64, vm: &VmId) {
        let vm = self.vm_index(vm);
        if let Some(agent) = self.agent(n, epoch) {
            agent.watched |= 1 << vm;
        }
    }

    /// Begins a scan.
    pub fn scan(&mut self, node: usize, epoch: u64) {
        let run = ScanRun { node, epoch, began: self.own(node), unresolved: None };
        let at = self.now + self.rng.range(50, 6 * MS);
        self.queue.push(at, What::Scan(Box::new(run)));
    }

    /// The next stage of a scan.
    pub fn scan_on(&mut self, mut run: Box<ScanRun>) {
        let n = run.node;
        if self.agent(n, run.epoch).is_none() {
            return;
        }
        if let Some(unresolved) = run.unresolved.take() {
            let looked = self.executing(n) | self.copies(n);
            if let Some(agent) = self.agent(n, run.epoch) {
                agent.scanned.1 = looked;
            }
            let present = self.names(looked);
            let event = Event::GuestsScanned(GuestScan { began: run.began, present, unresolved });
            let delay = self.rng.range(50, 8 * MS);
            return self.answer(n, run.epoch, delay, event);
        }
        let Some(boot) = self.nodes[n].boot.as_ref() else { return };
        let earlier = boot.starts.iter().filter(|start| start.epoch != run.epoch);
        let mask = earlier.fold(0, |mask, start| mask | 1 << start.vm);
        run.unresolved = Some(self.names(mask));
        let at = self.now + self.rng.range(20, 6 * MS);
        self.queue.push(at, What::Scan(run));
    }
}
