//! The dress rehearsal: the largest question that the configured cluster can ask, once, before a policy may decide.
//!
//! What it uses is published as headroom. Real clusters differ from ours, so a policy needs twice what the rehearsal took.

use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{Affinity, NodeFacts, PlacementQuestion, Reading, RiskQuestion, VmFacts};

use super::sandbox::Usage;
use super::{Class, Failure, Kind, Limits, Stage};

/// A policy must get by with one part in so many of its fuel and memory.
const LEAST_FACTOR: u64 = 2;
/// Readings of a node with all its disks, links and sensors.
const READINGS: usize = 512;

/// The largest cluster that policies must be able to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Largest {
    /// Nodes.
    pub nodes: u32,
    /// VMs, all of which need a place at once: the start after a blackout.
    pub vms: u32,
}

impl Default for Largest {
    fn default() -> Self {
        Self { nodes: 16, vms: 1_000 }
    }
}

/// What the rehearsal of one kind used, and what it might have used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    /// The kind rehearsed.
    pub kind: Kind,
    /// Nodes in the question.
    pub nodes: u32,
    /// VMs in the question.
    pub vms: u32,
    /// Size of the question, in bytes.
    pub question_bytes: usize,
    /// Fuel used.
    pub fuel: u64,
    /// Fuel allowed for a question of that size.
    pub fuel_limit: u64,
    /// Largest linear memory, in bytes.
    pub memory_bytes: usize,
    /// Linear memory allowed, in bytes.
    pub memory_limit_bytes: usize,
    /// Duration in microseconds.
    pub micros: u64,
}

impl Headroom {
    /// What was used of what is allowed.
    pub(super) fn of(
        kind: Kind,
        size: Largest,
        question_bytes: usize,
        (usage, micros): (&Usage, u64),
        limits: &Limits,
    ) -> Self {
        let (nodes, vms) = if kind == Kind::Placement { (size.nodes, size.vms) } else { (1, 0) };
        Self {
            kind,
            nodes,
            vms,
            question_bytes,
            fuel: usage.fuel,
            fuel_limit: limits.fuel_for(question_bytes),
            memory_bytes: usage.memory_bytes,
            memory_limit_bytes: limits.memory_bytes,
            micros,
        }
    }

    /// How many times the fuel used is allowed, in hundredths.
    #[must_use]
    pub fn fuel_percent(&self) -> u64 {
        percent(self.fuel_limit, self.fuel)
    }

    /// How many times the memory used is allowed, in hundredths.
    #[must_use]
    pub fn memory_percent(&self) -> u64 {
        let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        percent(number(self.memory_limit_bytes), number(self.memory_bytes))
    }

    /// Whether that is enough.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let Self { kind, nodes, vms, .. } = self;
        let what = format!("the largest {kind} question ({nodes} nodes, {vms} VMs)");
        if self.fuel_percent() < LEAST_FACTOR * 100 {
            let (used, most) = (self.fuel, self.fuel_limit);
            let reason = format!(
                "{what} takes {used} fuel of {most}, allowed is one part in {LEAST_FACTOR}"
            );
            let remedy =
                "make the policy do less, lower policies.largest, or raise the limit fuel_per_byte";
            return Err(Failure::new(Stage::Rehearsal, Class::TimeoutFuel, reason, remedy));
        }
        if self.memory_percent() < LEAST_FACTOR * 100 {
            let (used, most) = (self.memory_bytes, self.memory_limit_bytes);
            let reason = format!(
                "{what} takes {used} bytes of memory of {most}, allowed is one part in {LEAST_FACTOR}"
            );
            let remedy = "make the policy keep less, lower policies.largest, or raise memory_bytes";
            return Err(Failure::new(Stage::Rehearsal, Class::Memory, reason, remedy));
        }
        Ok(())
    }
}

fn percent(allowed: u64, used: u64) -> u64 {
    allowed.saturating_mul(100) / used.max(1)
}

/// A start after a blackout: nothing stands anywhere, everything needs a place.
pub(super) fn placement(size: Largest) -> PlacementQuestion {
    PlacementQuestion {
        now_ms: u64::MAX,
        seed: u64::MAX,
        nodes: (1..=size.nodes).map(node).collect(),
        vms: (1..=size.vms).map(|number| vm(number, size.nodes)).collect(),
        residents: Vec::new(),
    }
}

/// A node that has much to say.
pub(super) fn risk() -> RiskQuestion {
    let reading = |at: usize| Reading {
        name: format!("smart.nvme{:03}n1.media_errors", at),
        value: i64::MAX,
        age_ms: 1_000,
    };
    let telemetry = (0..READINGS).map(reading).collect();
    RiskQuestion { now_ms: u64::MAX, seed: u64::MAX, node: node(1), telemetry }
}

/// A node as wordy as real ones are.
pub(super) fn node(id: u32) -> NodeFacts {
    let label = |key: &str, value: String| (key.to_string(), value);
    NodeFacts {
        id,
        name: format!("hypervisor-{id:02}.example.net"),
        status: "Member".into(),
        memory_mib: 2_097_152,
        memory_free_mib: 2_000_000 - u64::from(id),
        vcpus: 256,
        vcpus_used: 3,
        load_permille: 12_345,
        storage_latency_ms: 123,
        network_age_ms: 456,
        flaps: 2,
        risk: 100,
        cordoned: false,
        labels: [
            label("rack", format!("rack-{}", id % 16)),
            label("room", format!("room-{}", id % 4)),
            label("power", format!("feed-{}", id % 2)),
        ]
        .into(),
    }
}

fn vm(number: u32, nodes: u32) -> VmFacts {
    let priority = u16::try_from(number % 1_001).unwrap_or(0);
    VmFacts {
        id: format!("00000000-0000-4000-8000-{number:012}"),
        name: format!("customer-{number:05}-application"),
        memory_mib: 4_096,
        vcpus: 4,
        priority,
        labels: [("group".to_string(), format!("service-{}", number % 400))].into(),
        last_node: Some(number % nodes.max(1) + 1),
        // One VM in ten is bound to others, as in real clusters.
        affinity: if number % 10 == 0 { bound(number) } else { Affinity::default() },
    }
}

fn bound(number: u32) -> Affinity {
    let word = [format!("application-{}", number / 20)].into();
    match number % 20 {
        0 => Affinity { apart: word, ..Affinity::default() },
        _ => Affinity { together: word, ..Affinity::default() },
    }
}
