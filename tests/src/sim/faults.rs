//! Faults: what they are, and how one is drawn. How one begins and ends: `strike.rs`.

use super::clock::{MS, SECOND, Time};
use super::plan::{Class, Plan, Plant};
use super::rng::Rng;
use serde::{Deserialize, Serialize};

/// Kinds of faults; a seed enables some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// One node loses power.
    PowerCut,
    /// All nodes lose power at nearly the same time.
    PowerCutAll,
    /// One node loses power and is back before anybody has waited long enough, or noticed at all.
    FastReboot,
    /// One node loses power in the middle of what its agent does.
    CutMidStep,
    /// Every process of a node stops for a while.
    PauseNode,
    /// Only the agent stops for a while.
    PauseAgent,
    /// Short stalls of agents and nodes, one after the other.
    Jitter,
    /// The agent's process dies.
    CrashAgent,
    /// The agent's process dies again and again.
    CrashLoop,
    /// The control network falls apart.
    Partition,
    /// It falls apart and heals, again and again.
    Flapping,
    /// Some nodes do not hear some others, which do hear them.
    OneWay,
    /// One node loses network and storage, nearly at the same time.
    Isolate,
    /// One node loses network and storage, then its agent stops.
    Entomb,
    /// Corosync dies on a node.
    CorosyncLoss,
    /// Deliveries to one node take seconds.
    SlowNetwork,
    /// Corosync notices late that an agent has died, or never if the next one is quick.
    LateLeaves,
    /// Storage of some nodes stalls.
    StallSome,
    /// Storage of some nodes fails.
    FailSome,
    /// Storage of some nodes takes seconds.
    SlowStorage,
    /// Writes of some nodes take seconds, and land when nobody expects them any more.
    LateWrites,
    /// A client cache of some nodes serves old pages.
    StaleReads,
    /// Storage stalls or fails for everybody.
    StorageForAll,
    /// The control network is gone for everybody.
    NetworkForAll,
    /// Fence agents do not work.
    FenceDown,
    /// Fence agents succeed, but late.
    SlowFences,
    /// Starts take long, or hang.
    SlowStarts,
    /// Starts fail.
    FailStarts,
    /// Processes that are to be destroyed hang.
    StopsHang,
    /// libvirtd dies and comes back.
    LibvirtRestart,
    /// A guest dies, or shuts itself down.
    GuestDies,
    /// A guest's end becomes known late. Not in mixed runs: restarts are judged by it.
    LateExits,
    /// Verification IPs are unreachable.
    Verification,
    /// Policies change on some nodes.
    NewPolicy,
    /// An operator adds a node, or removes it.
    Reconfigure,
}

impl Kind {
    /// Kinds that a mixed run may have.
    pub const SWARM: [Self; 33] = [
        Self::PowerCut,
        Self::PowerCutAll,
        Self::FastReboot,
        Self::CutMidStep,
        Self::PauseNode,
        Self::PauseAgent,
        Self::Jitter,
        Self::CrashAgent,
        Self::CrashLoop,
        Self::Partition,
        Self::Flapping,
        Self::OneWay,
        Self::Isolate,
        Self::Entomb,
        Self::CorosyncLoss,
        Self::SlowNetwork,
        Self::LateLeaves,
        Self::StallSome,
        Self::FailSome,
        Self::SlowStorage,
        Self::LateWrites,
        Self::StaleReads,
        Self::StorageForAll,
        Self::NetworkForAll,
        Self::FenceDown,
        Self::SlowFences,
        Self::SlowStarts,
        Self::FailStarts,
        Self::StopsHang,
        Self::LibvirtRestart,
        Self::GuestDies,
        Self::Verification,
        Self::NewPolicy,
    ];

    /// Hits every node.
    #[must_use]
    pub fn hits_all(self) -> bool {
        matches!(self, Self::PowerCutAll | Self::StorageForAll | Self::NetworkForAll)
    }

    /// Sometimes hits several nodes, never all of them by intent.
    fn hits_some(self) -> bool {
        use Kind::{FailSome, Jitter, LateWrites, NewPolicy, SlowStorage, StaleReads, StallSome};
        matches!(
            self,
            StallSome | FailSome | SlowStorage | LateWrites | StaleReads | Jitter | NewPolicy
        )
    }
}

/// One planned fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Sides of a partition; for [`Kind::OneWay`] the nodes that each node does not hear, as bits.
    pub sides: Vec<u64>,
    /// Nodes whose verification IPs are unreachable meanwhile.
    pub unverified: u64,
}

impl Fault {
    /// A fault of this kind.
    pub fn draw(kind: Kind, plan: &Plan, rng: &mut Rng) -> Self {
        let all = plan.all();
        let mut one = 1 << rng.index(plan.nodes);
        if plan.plant == Some(Plant::SlowClock) {
            one = 1 << (plan.nodes - 1);
        }
        let nodes = match kind {
            _ if kind.hits_all() => all,
            // A class that promises that nothing stops lets everybody have the same.
            _ if plan.class != Class::Swarm => all,
            _ if kind.hits_some() && rng.chance(300) => rng.bits() & all,
            _ => one,
        };
        let unverified = match kind {
            Kind::Verification => rng.bits() & all,
            Kind::Partition | Kind::Isolate | Kind::OneWay if rng.chance(500) => nodes,
            _ => 0,
        };
        Self {
            kind,
            nodes,
            length: draw_length(kind, plan, rng),
            lag: draw_lag(plan, rng),
            cruel: rng.chance(500),
            sides: draw_sides(kind, nodes, plan.nodes, rng),
            unverified,
        }
    }

    /// The same fault on one node.
    pub fn aim(&mut self, n: usize, count: usize, rng: &mut Rng) {
        if !self.kind.hits_all() {
            self.unverified = if self.unverified == 0 { 0 } else { 1 << n };
            self.nodes = 1 << n;
            if self.kind != Kind::Partition || rng.chance(500) {
                self.sides = draw_sides(self.kind, self.nodes, count, rng);
            }
        }
    }
}

/// Each operation draws its own: where nothing may stop, none may be so late that one node is isolated and the others are not.
fn draw_lag(plan: &Plan, rng: &mut Rng) -> Time {
    let longest = match plan.class {
        Class::Swarm => Time::MAX,
        _ => plan.timing.storage_isolation.0 * MS / 4,
    };
    (rng.skewed(0, 20_000) * MS).min(longest)
}

fn draw_length(kind: Kind, plan: &Plan, rng: &mut Rng) -> Time {
    let minutes = plan.patient && rng.chance(300);
    match kind {
        Kind::StallSome | Kind::FailSome | Kind::StorageForAll | Kind::Isolate if minutes => {
            rng.range(45, 240) * SECOND
        }
        Kind::StorageForAll | Kind::NetworkForAll if plan.class != Class::Swarm => {
            rng.range(1_000, 60_000) * MS
        }
        Kind::Entomb => rng.range(8, 45) * SECOND,
        _ => plan.length(rng).min(45 * SECOND),
    }
}

fn draw_sides(kind: Kind, nodes: u64, count: usize, rng: &mut Rng) -> Vec<u64> {
    let lonely = |n: usize| if nodes >> n & 1 == 1 { n as u64 + 1 } else { 0 };
    match kind {
        Kind::OneWay => draw_deaf(nodes, count, rng),
        Kind::Partition | Kind::Flapping if rng.chance(500) => {
            (0..count).map(|_| rng.below(2)).collect()
        }
        Kind::NetworkForAll => (0..count).map(|n| n as u64 + 1).collect(),
        _ => (0..count).map(lonely).collect(),
    }
}

/// Some others do not hear the node, or it does not hear them, or both here and there.
fn draw_deaf(nodes: u64, count: usize, rng: &mut Rng) -> Vec<u64> {
    let mut deaf = vec![0; count];
    let all = u64::MAX >> (64 - count);
    let others = rng.bits() & all & !nodes;
    let others = if others == 0 { all & !nodes & 1 << rng.index(count) } else { others };
    for (n, deaf) in deaf.iter_mut().enumerate() {
        if nodes >> n & 1 == 1 {
            *deaf = if rng.chance(500) { others } else { 0 };
        } else if others >> n & 1 == 1 && rng.chance(700) {
            *deaf = nodes;
        }
    }
    deaf
}

/// A set of small numbers as bits.
pub fn bits(items: impl Iterator<Item = usize>) -> u64 {
    items.fold(0, |mask, item| mask | 1 << item)
}
