//! What will happen, in order of true time; ties go to what was scheduled first.

use super::clock::Time;
use super::fence::{FenceRun, FenceStage};
use super::hypervisor::{DestroyRun, ScanRun, StartRun};
use super::watchdog::FeedRun;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use steadfast_core::event::Event;

/// A thing that will happen. Nodes are indices; an epoch names one life of one agent.
#[derive(Debug, Clone)]
pub enum What {
    /// A machine's timer.
    Wake { node: usize, epoch: u64, number: u64 },
    /// An adapter's answer reaches the machine.
    Deliver { node: usize, epoch: u64, event: Box<Event> },
    /// The agent hands to corosync what waited.
    Flush { node: usize, epoch: u64 },
    /// The agent joins the CPG group.
    Join { node: usize, epoch: u64 },
    /// The next item in a node's queue of corosync is due.
    Arrive { node: usize, ring: usize },
    /// Corosync notices late that an agent of this epoch, or an earlier one, has died.
    Leave { node: usize, epoch: u64 },
    /// Where not everybody hears everybody, rings are formed anew.
    Reshuffle { fault: usize },
    /// A fault that comes again and again does so.
    Again { fault: usize },
    /// Corosync has agreed on a new ring of exactly these nodes, if that is still so.
    Reform { members: u64 },
    /// Storage input or output goes one stage further.
    Io { op: usize, serial: u64 },
    /// A feed of the watchdog goes one stage further.
    Feed(FeedRun),
    /// The agent closes the watchdog.
    CloseWatchdog {
        /// Node.
        node: usize,
        /// Agent.
        epoch: u64,
    },
    /// The watchdog may have run out.
    WatchdogDue { node: usize, boot: u64 },
    /// A start goes one stage further.
    Start(Box<StartRun>),
    /// A destroy goes one stage further.
    Destroy(DestroyRun),
    /// A scan goes one stage further.
    Scan(Box<ScanRun>),
    /// A fence agent goes one stage further.
    Fence(FenceRun),
    /// A live migration goes one stage further.
    Move { number: u64 },
    /// A process that does not execute its guest ends.
    CopyEnds { node: usize, boot: u64, vm: usize, number: u64 },
    /// A guest has had time to shut down.
    ShutDown { node: usize, boot: u64, vm: usize },
    /// A host that was told to stop goes down, or has waited for its agent long enough.
    HostGoes { node: usize, boot: u64 },
    /// The node's power is cut.
    Cut { node: usize, boot: u64, why: &'static str },
    /// The node is switched on.
    Boot { node: usize },
    /// systemd starts the agent.
    AgentStart { node: usize, boot: u64 },
    /// A pause begins.
    Pause { node: usize, length: Time, whole: bool },
    /// A pause ends.
    Resume { node: usize },
    /// A planned fault begins.
    Fault { index: usize },
    /// It ends.
    FaultEnds { index: usize },
    /// An operator wants something.
    Wish { index: usize },
    /// All faults end, all nodes are switched on: from now on everything must come right.
    Heal,
    /// The world's own second hand: operators, verification, facts, liveness.
    Tick,
}

/// Whom a happening needs awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The agent's process.
    Agent(usize),
    /// The node's processes (libvirtd, corosync).
    Node(usize),
    /// Nobody: hardware and kernels do not sleep.
    Nothing,
}

impl What {
    /// Whom it needs awake.
    #[must_use]
    pub fn needs(&self) -> Needs {
        match self {
            Self::Wake { node, .. }
            | Self::Deliver { node, .. }
            | Self::Flush { node, .. }
            | Self::Join { node, .. } => Needs::Agent(*node),
            Self::Feed(run) => Needs::Agent(run.node),
            Self::CloseWatchdog { node, .. } => Needs::Agent(*node),
            Self::Scan(run) => Needs::Agent(run.node),
            Self::Fence(run) if run.stage == FenceStage::Begin => Needs::Agent(run.node),
            Self::Start(run) if run.in_agent() => Needs::Agent(run.node),
            Self::Start(run) => Needs::Node(run.node),
            Self::Destroy(run) => Needs::Node(run.node),
            Self::Arrive { node, .. } | Self::AgentStart { node, .. } => Needs::Node(*node),
            _ => Needs::Nothing,
        }
    }
}

#[derive(Debug)]
struct Entry {
    at: Time,
    number: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        // Reversed: the heap's greatest is the earliest.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The future.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    numbers: u64,
}

impl Queue {
    /// Schedules `what` at true time `at`.
    pub fn push(&mut self, at: Time, what: What) {
        self.numbers += 1;
        self.heap.push(Entry { at, number: self.numbers, what });
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next thing to happen.
    pub fn pop(&mut self) -> Option<(Time, What)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
    }
}
