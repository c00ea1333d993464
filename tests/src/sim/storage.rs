//! Shared storage: one page a node, two body slots a node. Linearizable a page; each slot is read at
//! its own instant. Stalled operations land late, after their writer's pause or death, but never after
//! its power was cut.

use super::clock::{MS, Time};
use super::node::{id, index};
use super::queue::What;
use super::world::World;
use std::collections::BTreeSet;
use std::sync::Arc;
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_core::page::{Page, Pages, StorageError};

/// The disk and its faults.
#[derive(Debug, Default)]
pub struct Disk {
    /// One page a node.
    pub pages: Vec<Option<Page>>,
    bodies: Vec<[Arc<[u8]>; 2]>,
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    serials: u64,
    /// How many stalls hold each node.
    stalls: Vec<u32>,
    /// How many faults make each node's operations fail.
    failing: Vec<u32>,
    parked: Vec<Vec<What>>,
}

#[derive(Debug)]
struct Op {
    serial: u64,
    node: usize,
    epoch: u64,
    id: u64,
    stage: usize,
    kind: OpKind,
    failed: bool,
}

#[derive(Debug)]
enum OpKind {
    WritePage(Box<Page>),
    WriteBody { slot: u8, bytes: Arc<[u8]> },
    ReadPages { first: usize, backwards: bool, wanted: Arc<BTreeSet<NodeId>>, pages: Pages },
    ReadBody { of: usize, slot: u8, half: Option<Arc<[u8]>> },
}

impl OpKind {
    fn writes(&self) -> bool {
        matches!(self, Self::WritePage(_) | Self::WriteBody { .. })
    }
}

impl Disk {
    /// An empty disk for this many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let empty: Arc<[u8]> = Arc::new([]);
        Self {
            pages: vec![None; nodes],
            bodies: vec![[empty.clone(), empty]; nodes],
            stalls: vec![0; nodes],
            failing: vec![0; nodes],
            parked: vec![Vec::new(); nodes],
            ..Self::default()
        }
    }

    /// Do the node's operations hang?
    #[must_use]
    pub fn stalled(&self, n: usize) -> bool {
        self.stalls[n] > 0
    }

    /// Keeps `what` until the node's storage works again.
    pub fn park(&mut self, n: usize, what: What) {
        self.parked[n].push(what);
    }

    /// A kernel reset ends all input and output of the node.
    pub fn power_cut(&mut self, n: usize) {
        self.parked[n].clear();
        for (k, op) in self.ops.iter_mut().enumerate() {
            if op.as_ref().is_some_and(|op| op.node == n) {
                *op = None;
                self.free.push(k);
            }
        }
    }

    fn add(&mut self, mut op: Op) -> (usize, u64) {
        self.serials += 1;
        op.serial = self.serials;
        let k = self.free.pop().unwrap_or_else(|| {
            self.ops.push(None);
            self.ops.len() - 1
        });
        self.ops[k] = Some(op);
        (k, self.serials)
    }
}

impl World {
    /// Begins to write the own page.
    pub fn write_page(&mut self, n: usize, epoch: u64, id: u64, page: Box<Page>) {
        self.begin_io(n, epoch, id, OpKind::WritePage(page));
    }

    /// Begins to write an own body.
    pub fn write_body(&mut self, n: usize, epoch: u64, id: u64, slot: u8, bytes: Arc<[u8]>) {
        self.check_slot(n, slot);
        self.begin_io(n, epoch, id, OpKind::WriteBody { slot, bytes });
    }

    /// Begins to read every page, in any order.
    pub fn read_pages(&mut self, n: usize, epoch: u64, id: u64, wanted: Arc<BTreeSet<NodeId>>) {
        let first = self.rng.index(self.nodes.len());
        let backwards = self.rng.chance(500);
        let pages = Pages::new();
        self.begin_io(n, epoch, id, OpKind::ReadPages { first, backwards, wanted, pages });
    }

    /// Begins to read a body.
    pub fn read_body(&mut self, n: usize, epoch: u64, id: u64, of: usize, slot: u8) {
        self.begin_io(n, epoch, id, OpKind::ReadBody { of, slot, half: None });
    }

    fn begin_io(&mut self, node: usize, epoch: u64, id: u64, kind: OpKind) {
        if kind.writes()
            && let Some(boot) = self.nodes[node].boot.as_mut()
        {
            boot.writes += 1;
            if boot.writes > 1 {
                self.fail("one_write", format!("n{} has two writes in flight", node + 1));
            }
        }
        let op = Op { serial: 0, node, epoch, id, stage: 0, kind, failed: false };
        let (op, serial) = self.disk.add(op);
        let at = self.now + self.latency();
        self.queue.push(at, What::Io { op, serial });
    }

    /// Half of an operation; now and then the array is busy.
    fn latency(&mut self) -> Time {
        match self.rng.below(1_000) {
            0..4 => self.rng.range(15, 400) * MS,
            _ => self.rng.skewed(500, 15 * MS),
        }
    }

    /// One stage of an operation.
    pub fn io(&mut self, k: usize, serial: u64) {
        let Some(mut op) = self.disk.ops[k].take_if(|op| op.serial == serial) else { return };
        let n = op.node;
        if self.disk.stalled(n) {
            self.disk.ops[k] = Some(op);
            return self.disk.park(n, What::Io { op: k, serial });
        }
        if !op.failed && self.disk.failing[n] > 0 && self.rng.chance(900) {
            op.failed = true;
            // What a failed write did is not known.
            if op.stage > 0 || !op.kind.writes() || self.rng.chance(500) {
                return self.end_io(k, op, None);
            }
        }
        if let Some(event) = self.advance(&mut op) {
            return self.end_io(k, op, Some(event));
        }
        op.stage += 1;
        let delay = match op.kind {
            OpKind::ReadPages { .. } => self.rng.skewed(50, 4 * MS),
            _ => self.latency(),
        };
        self.disk.ops[k] = Some(op);
        self.queue.push(self.now + delay, What::Io { op: k, serial });
    }

    fn end_io(&mut self, k: usize, op: Op, event: Option<Event>) {
        self.disk.free.push(k);
        if op.kind.writes()
            && let Some(boot) = self.nodes[op.node].boot.as_mut()
        {
            boot.writes -= 1;
        }
        let event = event.filter(|_| !op.failed).unwrap_or_else(|| failure(&op));
        self.queue.push(
            self.now,
            What::Deliver { node: op.node, epoch: op.epoch, event: Box::new(event) },
        );
    }

    /// What one stage does; an event if it was the last.
    fn advance(&mut self, op: &mut Op) -> Option<Event> {
        let nodes = self.nodes.len();
        match (&mut op.kind, op.stage) {
            (OpKind::WritePage(page), 0) => self.land_page(op.node, page),
            (OpKind::WriteBody { slot, bytes }, 0) => {
                // Torn: the new beginning, the old end.
                let target = &mut self.disk.bodies[op.node][usize::from(*slot)];
                let half = bytes.len() / 2;
                let rest = target.get(half..).unwrap_or_default();
                *target = bytes[..half].iter().chain(rest).copied().collect();
            }
            (OpKind::WriteBody { slot, bytes }, 1) => {
                self.disk.bodies[op.node][usize::from(*slot)] = bytes.clone();
            }
            (OpKind::WritePage(_) | OpKind::WriteBody { .. }, _) => {
                return Some(Event::WriteEnded { id: op.id, result: Ok(()) });
            }
            (OpKind::ReadPages { first, backwards, wanted, pages }, stage) if stage < nodes => {
                let step = if *backwards { nodes - stage } else { stage };
                let slot = (*first + step) % nodes;
                if wanted.contains(&id(slot)) {
                    pages.insert(id(slot), self.disk.pages[slot].clone());
                }
            }
            (OpKind::ReadPages { pages, .. }, _) => {
                return Some(Event::PagesRead { id: op.id, result: Ok(std::mem::take(pages)) });
            }
            (OpKind::ReadBody { of, slot, half }, 0) => {
                *half = self.disk.bodies.get(*of).map(|slots| slots[usize::from(*slot)].clone());
            }
            (OpKind::ReadBody { of, slot, half }, _) => {
                let first = half.take().unwrap_or_else(|| Arc::new([]));
                let second = self.disk.bodies.get(*of).map(|slots| &slots[usize::from(*slot)]);
                let bytes = joined(&first, second.unwrap_or(&first));
                return Some(Event::BodyRead { id: op.id, result: Ok(bytes) });
            }
        }
        None
    }

    fn land_page(&mut self, n: usize, page: &Page) {
        self.check_page(n, page);
        debug_assert_eq!(index(page.writer.node), n);
        self.disk.pages[n] = Some(page.clone());
    }

    /// Storage of these nodes stalls, or fails.
    pub fn disturb_storage(&mut self, mask: u64, fails: bool) {
        for n in (0..self.nodes.len()).filter(|n| mask >> n & 1 == 1) {
            let count = if fails { &mut self.disk.failing } else { &mut self.disk.stalls };
            count[n] += 1;
        }
    }

    /// It works again: what was parked goes on, a little apart.
    pub fn restore_storage(&mut self, mask: u64, fails: bool) {
        for n in (0..self.nodes.len()).filter(|n| mask >> n & 1 == 1) {
            let count = if fails { &mut self.disk.failing } else { &mut self.disk.stalls };
            count[n] = count[n].saturating_sub(1);
            if self.disk.stalls[n] == 0 {
                for what in std::mem::take(&mut self.disk.parked[n]) {
                    let at = self.now + self.rng.skewed(0, 300 * MS);
                    self.queue.push(at, what);
                }
            }
        }
    }

    /// Every storage fault ends.
    pub fn heal_storage(&mut self) {
        self.disk.stalls.fill(1);
        self.disk.failing.fill(0);
        self.restore_storage(u64::MAX, false);
    }
}

fn failure(op: &Op) -> Event {
    let error = StorageError("Input/output error (os error 5)".into());
    match op.kind {
        OpKind::WritePage(_) | OpKind::WriteBody { .. } => {
            Event::WriteEnded { id: op.id, result: Err(error) }
        }
        OpKind::ReadPages { .. } => Event::PagesRead { id: op.id, result: Err(error) },
        OpKind::ReadBody { .. } => Event::BodyRead { id: op.id, result: Err(error) },
    }
}

/// A body read while it was written: the beginning then, the end now.
fn joined(first: &Arc<[u8]>, second: &Arc<[u8]>) -> Vec<u8> {
    if Arc::ptr_eq(first, second) {
        return first.to_vec();
    }
    let half = first.len() / 2;
    let rest = second.get(half..).unwrap_or_default();
    first[..half].iter().chain(rest).copied().collect()
}
