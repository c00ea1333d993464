//! What an operator may set of proactive HA, and what holds whatever is set.

use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// How far proactive HA goes.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Risk is shown, and nothing else.
    Off,
    /// It records what it would do.
    #[default]
    Shadow,
    /// It warns and asks for repair.
    Warn,
    /// It stops placing VMs there, and drains.
    Drain,
}

/// What a node's risk calls for, each with what stands before it.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// Somebody should know.
    Warn,
    /// No VM is placed there while another node can take it.
    Avoid,
    /// Its important VMs move away live.
    Drain,
}

/// Settings of an operator. Scores are those of risk policies, 0 (healthy) to 1000 (failing).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How far it goes.
    pub mode: Mode,
    /// Scores from which warn, avoid and drain are called for.
    pub thresholds: [u16; 3],
    /// A level is left only this far below its threshold.
    pub margin: u16,
    /// So many readings in a row must agree before a level is entered or left.
    pub readings: u32,
    /// A node must be well for so long before a level is left.
    pub well_after: Millis,
    /// Readings that are older count for nothing.
    pub stale: Millis,
    /// At most so many nodes are drained at once; never more than a quarter, or one.
    pub max_drained: Option<usize>,
    /// VMs of at least this restart priority are important: they are moved in advance.
    pub important: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            thresholds: [300, 500, 700],
            margin: 100,
            readings: 3,
            well_after: Millis(600_000),
            stale: Millis(300_000),
            max_drained: None,
            important: 0,
        }
    }
}

impl Settings {
    /// Nodes of `nodes` that may be drained at once.
    #[must_use]
    pub fn budget(&self, nodes: usize) -> usize {
        let most = most_drained(nodes);
        self.max_drained.map_or(most, |set| set.min(most))
    }

    /// The level that `score` alone calls for, hysteresis aside.
    #[must_use]
    pub fn level_of(&self, score: u16) -> Level {
        let [warn, avoid, drain] = self.thresholds;
        match score {
            _ if score >= drain => Level::Drain,
            _ if score >= avoid => Level::Avoid,
            _ if score >= warn => Level::Warn,
            _ => Level::Calm,
        }
    }
}

/// Whatever is set: a quarter of `nodes` may be drained at once, rounded down, and one at least.
#[must_use]
pub const fn most_drained(nodes: usize) -> usize {
    if nodes < 8 { 1 } else { nodes / 4 }
}

/// Whatever is set: so many of `nodes` may be held at once, drained ones included.
#[must_use]
pub const fn most_held(nodes: usize) -> usize {
    if nodes < 2 { 0 } else { nodes / 2 }
}
