//! Faults: what they are, how one is drawn, how it begins and ends.

use super::clock::{MS, SECOND, Time};
use super::plan::Plan;
use super::queue::What;
use super::rng::Rng;
use super::world::World;

/// Kinds of faults; a seed enables some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One node loses power.
    PowerCut,
    /// All nodes lose power at nearly the same time.
    PowerCutAll,
    /// Every process of a node stops for a while.
    PauseNode,
    /// Only the agent stops for a while.
    PauseAgent,
    /// The agent's process dies.
    CrashAgent,
    /// The control network falls apart.
    Partition,
    /// One node loses network and storage, nearly at the same time.
    Isolate,
    /// One node loses network and storage, then its agent stops.
    Entomb,
    /// Corosync dies on a node.
    CorosyncLoss,
    /// Deliveries to one node take seconds.
    SlowNetwork,
    /// Storage of some nodes stalls.
    StallSome,
    /// Storage of some nodes fails.
    FailSome,
    /// Storage stalls or fails for everybody.
    StorageForAll,
    /// The control network is gone for everybody.
    NetworkForAll,
    /// Fence agents do not work.
    FenceDown,
    /// Starts take long, or hang.
    SlowStarts,
    /// Starts fail.
    FailStarts,
    /// A guest dies.
    GuestDies,
    /// Verification IPs are unreachable.
    Verification,
    /// An operator adds a node, or removes it.
    Reconfigure,
}

impl Kind {
    /// Kinds that a mixed run may have.
    pub const SWARM: [Self; 19] = [
        Self::PowerCut,
        Self::PowerCutAll,
        Self::PauseNode,
        Self::PauseAgent,
        Self::CrashAgent,
        Self::Partition,
        Self::Isolate,
        Self::Entomb,
        Self::CorosyncLoss,
        Self::SlowNetwork,
        Self::StallSome,
        Self::FailSome,
        Self::StorageForAll,
        Self::NetworkForAll,
        Self::FenceDown,
        Self::SlowStarts,
        Self::FailStarts,
        Self::GuestDies,
        Self::Verification,
    ];
}

/// One planned fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Kind.
    pub kind: Kind,
    /// Nodes hit, as bits.
    pub nodes: u64,
    /// How long.
    pub length: Time,
    /// Second thing's lag behind the first, or the second length.
    pub lag: Time,
    /// A coin: the crueller variant.
    pub cruel: bool,
    /// Sides of a partition.
    pub sides: Vec<u64>,
    /// Nodes whose verification IPs are unreachable meanwhile.
    pub unverified: u64,
}

impl Fault {
    /// A fault of this kind.
    pub fn draw(kind: Kind, plan: &Plan, rng: &mut Rng) -> Self {
        let all = (1 << plan.nodes) - 1;
        let mut one = 1 << rng.index(plan.nodes);
        if plan.plant == Some(super::plan::Plant::SlowClock) {
            one = 1 << (plan.nodes - 1);
        }
        let nodes = match kind {
            Kind::StallSome | Kind::FailSome if rng.chance(300) => rng.bits() & all,
            Kind::PowerCutAll | Kind::StorageForAll | Kind::NetworkForAll => all,
            _ => one,
        };
        let quiet = matches!(kind, Kind::StorageForAll | Kind::NetworkForAll);
        let quiet = quiet && plan.class != super::plan::Class::Swarm;
        let length =
            if quiet { rng.range(1_000, 60_000) * MS } else { plan.length(rng).min(45 * SECOND) };
        let length = if kind == Kind::Entomb { rng.range(8, 45) * SECOND } else { length };
        let unverified = match kind {
            Kind::Verification => rng.bits() & all,
            Kind::Partition | Kind::Isolate if rng.chance(500) => nodes,
            _ => 0,
        };
        Self {
            kind,
            nodes,
            length,
            lag: rng.skewed(0, 20_000) * MS,
            cruel: rng.chance(500),
            sides: draw_sides(kind, nodes, plan.nodes, rng),
            unverified,
        }
    }
}

fn draw_sides(kind: Kind, nodes: u64, count: usize, rng: &mut Rng) -> Vec<u64> {
    let lonely = |n: usize| if nodes >> n & 1 == 1 { n as u64 + 1 } else { 0 };
    match kind {
        Kind::Partition if rng.chance(500) => (0..count).map(|_| rng.below(2)).collect(),
        Kind::NetworkForAll => (0..count).map(|n| n as u64 + 1).collect(),
        _ => (0..count).map(lonely).collect(),
    }
}

/// A set of small numbers as bits.
pub fn bits(items: impl Iterator<Item = usize>) -> u64 {
    items.fold(0, |mask, item| mask | 1 << item)
}

impl World {
    /// A planned fault begins.
    pub fn fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].1.clone();
        self.note_world(|| {
            let nodes = super::network::mask_words(fault.nodes);
            format!("FAULT {:?} on {nodes} for {} ms", fault.kind, fault.length / MS)
        });
        *self.stats.faults.entry(fault.kind).or_insert(0) += 1;
        let ends = self.now + fault.length;
        for n in (0..self.nodes.len()).filter(|n| fault.nodes >> n & 1 == 1) {
            self.hit(n, &fault);
        }
        self.hit_everything(&fault, ends);
        for n in (0..self.nodes.len()).filter(|n| fault.unverified >> n & 1 == 1) {
            self.net.unverified[n] += 1;
        }
        self.queue.push(ends, What::FaultEnds { index });
    }

    fn hit(&mut self, n: usize, fault: &Fault) {
        match fault.kind {
            Kind::PowerCut => {
                self.cut(n, "fault");
                if fault.cruel {
                    self.queue.push(self.now + fault.lag + 500 * MS, What::Boot { node: n });
                }
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
            Kind::CrashAgent if fault.cruel => {
                let dies = self.rng.index(6);
                if let Some(agent) = self.nodes[n].boot.as_mut().and_then(|b| b.agent.as_mut()) {
                    agent.dies_after = Some(dies);
                }
            }
            Kind::CrashAgent => {
                self.ghost_next = self.rng.chance(200);
                self.crash(n, 50 * MS + fault.lag);
                self.ghost_next = false;
            }
            Kind::CorosyncLoss => self.corosync(n, true),
            Kind::Reconfigure => self.reconfigure(1 << n),
            Kind::SlowNetwork => self.net.lag[n] = fault.lag.min(5 * SECOND),
            _ => {}
        }
    }

    fn hit_everything(&mut self, fault: &Fault, ends: Time) {
        match fault.kind {
            Kind::Partition | Kind::NetworkForAll | Kind::Isolate => {
                self.net.side.clone_from(&fault.sides);
                self.topology_changed();
                if fault.kind == Kind::Isolate {
                    self.disturb_storage(fault.nodes, fault.cruel);
                }
            }
            Kind::Entomb => self.entomb(fault),
            Kind::StallSome => self.disturb_storage(fault.nodes, false),
            Kind::FailSome => self.disturb_storage(fault.nodes, true),
            Kind::StorageForAll => self.disturb_storage(fault.nodes, fault.cruel),
            Kind::FenceDown => self.fence_down = self.fence_down.max(ends),
            Kind::SlowStarts => self.slow_starts = self.slow_starts.max(ends),
            Kind::FailStarts => self.failing_starts = self.failing_starts.max(ends),
            Kind::GuestDies => {
                let vm = self.rng.index(self.plan.vms);
                for n in 0..self.nodes.len() {
                    self.guest_ends(n, vm, "dies (fault)");
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
        for node in (0..self.nodes.len()).filter(|n| fault.nodes >> n & 1 == 1) {
            let at = self.now + self.rng.range(0, last);
            self.queue.push(at, What::Pause { node, length: fault.length, whole: fault.cruel });
        }
    }

    /// A planned fault ends.
    pub fn fault_ends(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let fault = self.plan.faults[index].1.clone();
        match fault.kind {
            Kind::Partition | Kind::NetworkForAll | Kind::Isolate | Kind::Entomb => {
                self.net.side.fill(0);
                self.topology_changed();
                if fault.kind == Kind::Isolate {
                    self.restore_storage(fault.nodes, fault.cruel);
                }
                if fault.kind == Kind::Entomb {
                    self.restore_storage(fault.nodes, false);
                }
            }
            Kind::StallSome => self.restore_storage(fault.nodes, false),
            Kind::FailSome => self.restore_storage(fault.nodes, true),
            Kind::StorageForAll => self.restore_storage(fault.nodes, fault.cruel),
            Kind::CorosyncLoss => {
                for n in (0..self.nodes.len()).filter(|n| fault.nodes >> n & 1 == 1) {
                    self.corosync(n, false);
                }
            }
            Kind::SlowNetwork => self.net.lag.fill(0),
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
        self.net.side.fill(0);
        self.net.lag.fill(0);
        self.net.unverified.fill(0);
        self.net.dead = 0;
        (self.fence_down, self.slow_starts, self.failing_starts) = (0, 0, 0);
        self.heal_storage();
        for n in 0..self.nodes.len() {
            (self.nodes[n].agent_sleeps, self.nodes[n].node_sleeps) = (0, 0);
            if let Some(agent) = self.nodes[n].boot.as_mut().and_then(|b| b.agent.as_mut()) {
                agent.dies_after = None;
            }
            self.resume(n);
            self.switch_on(n);
        }
        self.topology_changed();
    }
}
