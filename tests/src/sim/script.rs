//! What a story decides instead of chance, and what it is told. Empty in worlds of a seed.

use super::clock::Time;
use std::collections::BTreeMap;
use steadfast_core::action::Action;

/// Something that a story's log may want to tell. Nodes and VMs are indices.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A kernel boots, and autostarts these VMs (bits).
    Boots { node: usize, executing: u64 },
    /// A node's power is cut, and these VMs (bits) end.
    Off { node: usize, why: &'static str, lost: u64 },
    /// An agent's process starts.
    AgentStarts { node: usize },
    /// An agent's process dies.
    AgentDies { node: usize },
    /// A guest's process appears.
    Runs { node: usize, vm: usize },
    /// A guest's process ends.
    Ends { node: usize, vm: usize, why: &'static str },
    /// A guest stops here to go on elsewhere, by a live migration.
    Leaves { vm: usize },
    /// A machine wants something done.
    Does { node: usize, action: Box<Action> },
}

/// How the fence agents of a node behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceWill {
    /// They fail at once, and cut nothing.
    Fails,
    /// They are killed at their time-out, and have cut nothing.
    Hangs,
    /// They cut at once, and are killed at their time-out.
    CutsAndHangs,
    /// They cut and succeed after this.
    Takes(Time),
}

/// How starts behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartWill {
    /// libvirt says no.
    Fails,
    /// libvirt says no so often.
    FailsTimes(u32),
    /// Nothing happens as long as this is so.
    Hangs,
    /// They take so long.
    Takes(Time),
}

/// Starts of this VM (or of any) on this node (or on any).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starts {
    /// On which node.
    pub node: Option<usize>,
    /// Of which VM.
    pub vm: Option<usize>,
    /// How they behave.
    pub will: StartWill,
}

/// A story's will.
#[derive(Debug, Default)]
pub struct Script {
    /// A story listens.
    pub on: bool,
    /// What it has not taken yet.
    pub told: Vec<Told>,
    /// Fence agents by the node they are for.
    pub fences: BTreeMap<usize, FenceWill>,
    /// Starts that are not like any other; the newest that fits counts.
    pub starts: Vec<Starts>,
    /// So many more live migrations of a VM fail.
    pub migrations: BTreeMap<usize, u32>,
    /// On these nodes (bits) a process that is to be destroyed hangs.
    pub stops_hang: u64,
    /// These guests (bits) do not listen when they are asked to shut down.
    pub deaf: u64,
    /// Corosync says that it has sent what these nodes give it, and has not.
    pub mute: u64,
    /// Somebody else has opened the watchdogs of these nodes.
    pub watchdog_broken: u64,
    /// When rings break: sides (bits) that receive what is on its way from the other side. `None`: chance decides.
    pub receivers: Option<u64>,
    /// Memory of these nodes in MiB.
    pub memory: BTreeMap<usize, u64>,
    /// A node that went down by itself or by a fence agent comes back after this, or never.
    pub reboot: Option<Option<Time>>,
}

impl Script {
    /// Tells the story something, if there is one.
    pub fn tell(&mut self, what: impl FnOnce() -> Told) {
        if self.on {
            self.told.push(what());
        }
    }

    /// How a start behaves, if it is not like any other.
    #[must_use]
    pub fn start(&self, node: usize, vm: usize) -> Option<StartWill> {
        let fits = |starts: &&Starts| {
            starts.node.is_none_or(|n| n == node) && starts.vm.is_none_or(|v| v == vm)
        };
        self.starts.iter().rev().find(fits).map(|starts| starts.will)
    }

    /// A start is handed over: one that is to fail a number of times has failed once more.
    pub fn hands_over(&mut self, node: usize, vm: usize) -> Option<StartWill> {
        let will = self.start(node, vm);
        if let Some(StartWill::FailsTimes(times)) = will {
            let fits = |starts: &Starts| {
                starts.node.is_none_or(|n| n == node) && starts.vm.is_none_or(|v| v == vm)
            };
            let at = self.starts.iter().rposition(fits)?;
            match times {
                0 | 1 => drop(self.starts.remove(at)),
                _ => self.starts[at].will = StartWill::FailsTimes(times - 1),
            }
            return (times > 0).then_some(StartWill::Fails);
        }
        will
    }

    /// A live migration begins: does it fail?
    pub fn migration_fails(&mut self, vm: usize) -> bool {
        let left = self.migrations.entry(vm).or_default();
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        fails
    }

    /// How likely a component keeps what the others sent it: per thousand.
    #[must_use]
    pub fn keeps(&self, component: u64) -> Option<u64> {
        self.receivers.map(|mask| if mask & component == 0 { 0 } else { 1_000 })
    }

    /// Every disturbance ends.
    pub fn heal(&mut self) {
        *self = Self {
            on: self.on,
            told: std::mem::take(&mut self.told),
            memory: std::mem::take(&mut self.memory),
            reboot: self.reboot,
            ..Self::default()
        };
    }
}
