//! How faults begin, come again, and end.

use super::clock::{MS, SECOND, Time};
use super::faults::{Fault, Kind};
use super::network::mask_words;
use super::queue::What;
use super::world::World;

impl World {
    fn hit_nodes(&self, fault: &Fault) -> impl Iterator<Item = usize> + use<> {
        let nodes = fault.nodes;
        (0..self.nodes.len()).filter(move |n| nodes >> n & 1 == 1)
    }

    /// A planned fault begins.
    pub fn fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let fault = self.plan.faults[index].1.clone();
        self.note_world(|| {
            let (nodes, length) = (mask_words(fault.nodes), fault.length / MS);
            format!("FAULT {:?} on {nodes} for {length} ms", fault.kind)
        });
        *self.stats.faults.entry(fault.kind).or_insert(0) += 1;
        let ends = self.now + fault.length;
        for n in self.hit_nodes(&fault) {
            self.hit(n, &fault);
        }
        self.hit_together(&fault, ends);
        for n in (0..self.nodes.len()).filter(|n| fault.unverified >> n & 1 == 1) {
            self.net.unverified[n] += 1;
        }
        if matches!(fault.kind, Kind::Jitter | Kind::Flapping | Kind::CrashLoop) {
            self.again(index);
        }
        self.queue.push(ends, What::FaultEnds { index });
        if fault.kind == Kind::OneWay {
            self.queue.push(self.now + SECOND, What::Reshuffle { fault: index });
        }
    }

    fn hit(&mut self, n: usize, fault: &Fault) {
        match fault.kind {
            Kind::PowerCut => {
                self.cut(n, "fault");
                if fault.cruel {
                    self.queue.push(self.now + fault.lag + 500 * MS, What::Boot { node: n });
                }
            }
            Kind::FastReboot => {
                self.cut(n, "fault");
                let off = if fault.cruel { 200 * MS } else { 6 * SECOND };
                let at = self.now + self.rng.range(20 * MS, off);
                self.queue.push(at, What::Boot { node: n });
            }
            Kind::PowerCutAll => {
                let at = self.now + self.rng.skewed(0, 400) * MS;
                let boot = self.nodes[n].boots;
                self.queue.push(at, What::Cut { node: n, boot, why: "fault" });
                let back = at + fault.lag + self.rng.range(500, 30_000) * MS;
                self.queue.push(back, What::Boot { node: n });
            }
            Kind::PauseNode => self.sleep(n, fault.length, true),
            Kind::PauseAgent => self.sleep(n, fault.length, false),
            Kind::CrashAgent if fault.cruel => self.die_soon(n, false),
            Kind::CutMidStep => self.die_soon(n, true),
            Kind::CrashAgent => {
                self.ghost_next = self.rng.chance(200);
                self.crash(n, 50 * MS + fault.lag);
                self.ghost_next = false;
            }
            Kind::CorosyncLoss => self.corosync(n, true),
            Kind::Reconfigure => self.reconfigure(1 << n),
            Kind::SlowNetwork => {
                self.net.lag[n] = fault.lag.min(5 * SECOND);
                self.note_network(n);
            }
            Kind::StopsHang => self.nodes[n].stops_hang = self.now + fault.length,
            Kind::LibvirtRestart => self.restart_libvirt(n, fault.length.min(10 * SECOND)),
            Kind::NewPolicy => self.change_policy(n),
            _ => {}
        }
    }

    /// The agent, or its node, dies in the middle of its next step.
    fn die_soon(&mut self, n: usize, with_node: bool) {
        let dies = self.rng.index(6);
        if let Some(agent) = self.nodes[n].boot.as_mut().and_then(|b| b.agent.as_mut()) {
            agent.dies_after = Some(dies);
            agent.dies_with_node = with_node;
        }
    }

    fn hit_together(&mut self, fault: &Fault, ends: Time) {
        match fault.kind {
            Kind::Partition | Kind::NetworkForAll | Kind::Isolate => {
                self.net.side.clone_from(&fault.sides);
                self.topology_changed();
                if fault.kind == Kind::Isolate {
                    self.disturb_storage(fault.nodes, fault.cruel);
                }
            }
            Kind::OneWay => {
                self.net.deaf.clone_from(&fault.sides);
                self.reshuffle();
            }
            Kind::Entomb => self.entomb(fault),
            Kind::StallSome => self.disturb_storage(fault.nodes, false),
            Kind::FailSome => self.disturb_storage(fault.nodes, true),
            Kind::SlowStorage => self.slow_storage(fault.nodes, fault.lag / 2, fault.lag / 2),
            Kind::LateWrites => self.slow_storage(fault.nodes, 0, fault.lag),
            Kind::StaleReads => self.stale_storage(fault.nodes, true),
            Kind::StorageForAll => self.disturb_storage(fault.nodes, fault.cruel),
            Kind::LateLeaves => self.net.late_leaves = self.net.late_leaves.max(ends),
            Kind::FenceDown => self.fence_down = self.fence_down.max(ends),
            Kind::SlowFences => self.slow_fences = self.slow_fences.max(ends),
            Kind::SlowStarts => self.slow_starts = self.slow_starts.max(ends),
            Kind::LateExits => self.late_exits = self.late_exits.max(ends),
            Kind::FailStarts => self.failing_starts = self.failing_starts.max(ends),
            Kind::GuestDies => {
                let vm = self.rng.index(self.plan.vms);
                let why = if fault.cruel { "dies (fault)" } else { "shuts itself down (fault)" };
                for n in 0..self.nodes.len() {
                    self.guest_ends(n, vm, why);
                }
            }
            _ => {}
        }
    }

    /// Rule 4's worst case: network and storage gone, and the agent stops at any instant of its last lease,
    /// so that only the watchdog is left to end its guests.
    fn entomb(&mut self, fault: &Fault) {
        self.net.side.clone_from(&fault.sides);
        self.topology_changed();
        self.disturb_storage(fault.nodes, false);
        let timing = &self.plan.timing;
        let last = (timing.lease.0 + timing.stop.0) * MS;
        for node in self.hit_nodes(fault) {
            let at = self.now + self.rng.range(0, last);
            self.queue.push(at, What::Pause { node, length: fault.length, whole: fault.cruel });
        }
    }

    fn lasts(&self, index: usize) -> bool {
        let (began, fault) = &self.plan.faults[index];
        !self.healed && self.now < began + fault.length
    }

    /// A fault that comes again and again does so.
    pub fn again(&mut self, index: usize) {
        if !self.lasts(index) {
            return;
        }
        let fault = self.plan.faults[index].1.clone();
        let nodes: Vec<usize> = self.hit_nodes(&fault).collect();
        let Some(n) = (!nodes.is_empty()).then(|| self.rng.pick(&nodes)) else { return };
        let next = match fault.kind {
            Kind::Jitter => {
                let (length, whole) = (self.rng.skewed(5, 1_500) * MS, self.rng.chance(300));
                self.sleep(n, length, whole);
                self.rng.skewed(20, 3_000)
            }
            Kind::Flapping => {
                let apart = self.net.side.iter().all(|side| *side == 0);
                if apart {
                    self.net.side.clone_from(&fault.sides);
                } else {
                    self.net.side.fill(0);
                }
                self.topology_changed();
                self.rng.skewed(50, if fault.cruel { 1_500 } else { 6_000 })
            }
            _ => {
                let back = self.rng.skewed(20, 2_000) * MS;
                self.crash(n, back);
                self.rng.skewed(100, 5_000)
            }
        };
        self.queue.push(self.now + next * MS, What::Again { fault: index });
    }

    /// Where not everybody hears everybody, rings are formed anew.
    pub fn reshuffled(&mut self, index: usize) {
        if self.lasts(index) {
            self.reshuffle();
            let at = self.now + self.rng.range(1_500, 9_000) * MS;
            self.queue.push(at, What::Reshuffle { fault: index });
        }
    }

    /// A planned fault ends.
    pub fn fault_ends(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let fault = self.plan.faults[index].1.clone();
        match fault.kind {
            Kind::Partition
            | Kind::Flapping
            | Kind::NetworkForAll
            | Kind::Isolate
            | Kind::Entomb => {
                self.net.side.fill(0);
                self.topology_changed();
                if fault.kind == Kind::Isolate {
                    self.restore_storage(fault.nodes, fault.cruel);
                }
                if fault.kind == Kind::Entomb {
                    self.restore_storage(fault.nodes, false);
                }
            }
            Kind::OneWay => {
                self.net.deaf.fill(0);
                self.topology_changed();
            }
            Kind::StallSome => self.restore_storage(fault.nodes, false),
            Kind::FailSome => self.restore_storage(fault.nodes, true),
            Kind::SlowStorage | Kind::LateWrites => self.slow_storage(fault.nodes, 0, 0),
            Kind::StaleReads => self.stale_storage(fault.nodes, false),
            Kind::StorageForAll => self.restore_storage(fault.nodes, fault.cruel),
            Kind::CorosyncLoss => {
                for n in self.hit_nodes(&fault) {
                    self.corosync(n, false);
                }
            }
            Kind::SlowNetwork => {
                for n in self.hit_nodes(&fault) {
                    self.net.lag[n] = 0;
                    self.note_network(n);
                }
            }
            _ => {}
        }
        for n in (0..self.nodes.len()).filter(|n| fault.unverified >> n & 1 == 1) {
            self.net.unverified[n] -= 1;
        }
        self.note_world(|| format!("fault {:?} ends", fault.kind));
    }

    /// All faults end.
    pub fn heal(&mut self) {
        self.note_world(|| "HEAL: from here on everything must come right".into());
        self.healed = true;
        self.members.unwanted = 0;
        self.script.heal();
        self.net.heal();
        (self.fence_down, self.slow_fences) = (0, 0);
        (self.slow_starts, self.failing_starts, self.late_exits) = (0, 0, 0);
        self.heal_storage();
        for n in 0..self.nodes.len() {
            let node = &mut self.nodes[n];
            (node.agent_sleeps, node.node_sleeps) = (0, 0);
            (node.stops_hang, node.libvirt_down) = (0, 0);
            if let Some(agent) = self.nodes[n].boot.as_mut().and_then(|b| b.agent.as_mut()) {
                agent.dies_after = None;
            }
            self.resume(n);
            self.switch_on(n);
        }
        self.topology_changed();
        self.finish_upgrade();
    }
}
