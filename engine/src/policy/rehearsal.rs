//! The dress rehearsal: the largest question that the configured cluster can ask, once, before a policy may decide.
//!
//! What it uses is published as headroom. Real clusters differ from ours, so a policy needs twice what the rehearsal took.

use serde::{Deserialize, Serialize};

use super::sandbox::Usage;
use super::{Class, Failure, Kind, Limits, Stage};

/// A policy must get by with one part in so many of its fuel and memory.
const LEAST_FACTOR: u64 = 2;

/// The largest cluster that policies must be able to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Largest {
    /// Nodes.
    pub nodes: u32,
    /// VMs, all of which need a place at once: the start after a blackout.
    pub vms: u32,
}

impl Default for Largest {
    fn default() -> Self {
        Self { nodes: 32, vms: 2_000 }
    }
}

/// What the rehearsal of one kind used, and what it might have used.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
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
        (usage, micros): (&Usage, u64),
        limits: &Limits,
    ) -> Self {
        let question_bytes = usage.question_bytes;
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
