//! Shared storage: one page a node, two body slots a node. Linearizable a page; each slot is read at
//! its own instant. Stalled operations land late, after their writer's pause or death, but never after
//! its power was cut.
//!
//! A client cache may serve old pages (`Kind::StaleReads`), but only what can be detected: each such read shows at least
//! one slot as it was before what this incarnation of the agent has seen or written there. A cache that hides only what its
//! reader has not seen yet, or that is asked by an agent's very first read, looks like a disk on which nothing happened: no
//! protocol of one disk can live with it. That is assumed away ("storage is linearizable a page", PROTOCOL section 9), by
//! `O_DIRECT` or what defeats the cache.

use super::clock::{MS, SECOND, Time};
use super::node::{id, index};
use super::queue::What;
use super::world::World;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_core::page::{Page, Pages, StorageError};

/// Older versions of a page that are kept, for reads that began before it landed.
const PAST: usize = 8;

/// The disk and its faults.
#[derive(Debug, Default)]
pub struct Disk {
    /// One page a node.
    pub pages: Vec<Option<Page>>,
    /// When each landed.
    landed: Vec<Time>,
    /// What each page was before, and since when.
    past: Vec<VecDeque<(Time, Option<Page>)>>,
    bodies: Vec<[Arc<[u8]>; 2]>,
    ops: Vec<Option<Op>>,
    free: Vec<usize>,
    serials: u64,
    troubles: Vec<Trouble>,
    parked: Vec<Vec<What>>,
}

/// What is wrong with one node's way to the disk.
#[derive(Debug, Default, Clone)]
struct Trouble {
    /// How many stalls hold it.
    stalls: u32,
    /// How many faults make its operations fail.
    failing: u32,
    /// What its reads and its writes take on top, at most.
    slow: [Time; 2],
    /// By then whatever began while it was slow has ended.
    settled: Time,
    /// A client cache serves old pages.
    stale: bool,
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
    began: Time,
    /// Since when it hung, if it did.
    hung: Option<Time>,
}

#[derive(Debug)]
enum OpKind {
    WritePage(Box<Page>),
    WriteBody { slot: u8, bytes: Arc<[u8]> },
    ReadPages { nodes: Arc<BTreeSet<NodeId>> },
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
            landed: vec![0; nodes],
            past: vec![VecDeque::new(); nodes],
            bodies: vec![[empty.clone(), empty]; nodes],
            troubles: vec![Trouble::default(); nodes],
            parked: vec![Vec::new(); nodes],
            ..Self::default()
        }
    }

    /// Do the node's operations hang?
    #[must_use]
    pub fn stalled(&self, n: usize) -> bool {
        self.troubles[n].stalls > 0
    }

    /// Nothing is wrong with the node's way to the disk.
    #[must_use]
    pub fn is_well(&self, n: usize) -> bool {
        let trouble = &self.troubles[n];
        trouble.stalls == 0 && trouble.failing == 0 && trouble.slow == [0; 2] && !trouble.stale
    }

    /// By then whatever began while the node's way to the disk was slow has ended.
    #[must_use]
    pub fn settled(&self, n: usize) -> Time {
        self.troubles[n].settled
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

    /// A page of `n` landed after `since`, and before the last but one of `reader`: its complete cycles have shown it.
    #[must_use]
    pub fn shows_life(&self, n: usize, reader: usize, since: Time) -> bool {
        let before = |n: usize| self.past[n].back().map_or(0, |(landed, _)| *landed);
        [self.landed[n], before(n)].iter().any(|at| (since..before(reader)).contains(at))
    }

    /// What the slot showed at `at`, as far as that is remembered.
    fn at(&self, slot: usize, at: Time) -> Option<&Page> {
        if at >= self.landed[slot] {
            return self.pages[slot].as_ref();
        }
        let past = &self.past[slot];
        let shown = past.iter().rev().find(|(since, _)| *since <= at).or(past.front());
        shown.map_or(self.pages[slot].as_ref(), |(_, page)| page.as_ref())
    }

    /// A version of the slot that is older than `sequence`.
    fn older(&self, slot: usize, sequence: u64) -> Option<&Page> {
        let mut pages = self.past[slot].iter().filter_map(|(_, page)| page.as_ref());
        pages.rfind(|page| page.sequence < sequence)
    }
}

impl World {
    /// Begins to write the own page.
    pub fn write_page(&mut self, n: usize, epoch: u64, id: u64, page: Box<Page>) {
        if let Some(agent) = self.agent(n, epoch) {
            agent.has_read = true;
        }
        self.begin_io(n, epoch, id, OpKind::WritePage(page));
    }

    /// Begins to write an own body.
    pub fn write_body(&mut self, n: usize, epoch: u64, id: u64, slot: u8, bytes: Arc<[u8]>) {
        self.check_slot(n, slot);
        self.begin_io(n, epoch, id, OpKind::WriteBody { slot, bytes });
    }

    /// Begins to read these pages, in any order.
    pub fn read_pages(&mut self, n: usize, epoch: u64, id: u64, nodes: Arc<BTreeSet<NodeId>>) {
        self.begin_io(n, epoch, id, OpKind::ReadPages { nodes });
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
        let delay = self.latency(node, &kind);
        let (began, hung) = (self.now, None);
        let op = Op { serial: 0, node, epoch, id, stage: 0, kind, failed: false, began, hung };
        let (op, serial) = self.disk.add(op);
        self.queue.push(self.now + delay, What::Io { op, serial });
    }

    /// One stage of an operation; now and then the array is busy.
    fn latency(&mut self, n: usize, kind: &OpKind) -> Time {
        let usual = match self.rng.below(1_000) {
            0..4 => self.rng.range(15, 400) * MS,
            _ => self.rng.skewed(500, 15 * MS),
        };
        match self.disk.troubles[n].slow[usize::from(kind.writes())] {
            0 => usual,
            slow => usual + self.rng.skewed(0, slow),
        }
    }

    /// One stage of an operation.
    pub fn io(&mut self, k: usize, serial: u64) {
        let Some(mut op) = self.disk.ops[k].take_if(|op| op.serial == serial) else { return };
        let n = op.node;
        if self.disk.stalled(n) {
            op.hung.get_or_insert(self.now);
            self.disk.ops[k] = Some(op);
            return self.disk.park(n, What::Io { op: k, serial });
        }
        if !op.failed && self.disk.troubles[n].failing > 0 && self.rng.chance(900) {
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
        let delay = self.latency(n, &op.kind);
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
        self.deliver(op.node, op.epoch, event);
    }

    /// What one stage does; an event if it was the last.
    fn advance(&mut self, op: &mut Op) -> Option<Event> {
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
            (OpKind::ReadPages { nodes }, _) => {
                let nodes = nodes.clone();
                let pages = self.pages_read(op, &nodes);
                return Some(Event::PagesRead { id: op.id, result: Ok(pages) });
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

    /// The slots were read one after the other, from any one on, each at an instant between begin and end. What hung was
    /// read in part before it hung.
    fn pages_read(&mut self, op: &Op, nodes: &BTreeSet<NodeId>) -> Pages {
        let count = self.nodes.len();
        let (first, backwards) = (self.rng.index(count), self.rng.chance(500));
        let before = if op.hung.is_some() { self.rng.index(count + 1) } else { count };
        let end = op.hung.unwrap_or(self.now);
        let step = end.saturating_sub(op.began) / (before as u64 + 1);
        let mut at = op.began;
        let mut pages = Pages::new();
        for k in 0..count {
            at = if k < before { self.rng.range(at, at + step) } else { self.now };
            let slot = (first + if backwards { count - k } else { k }) % count;
            if nodes.contains(&id(slot)) {
                pages.insert(id(slot), self.disk.at(slot, at).cloned());
            }
        }
        if self.disk.troubles[op.node].stale && self.rng.chance(700) {
            self.spoil(op, &mut pages);
        } else if let Some(agent) = self.agent(op.node, op.epoch) {
            agent.seen.resize(count, 0);
            for (node, page) in &pages {
                let sequence = page.as_ref().map_or(0, |page| page.sequence);
                let seen = &mut agent.seen[index(*node)];
                *seen = (*seen).max(sequence);
            }
        }
        pages
    }

    /// A client cache serves some slots as they were before the agent saw or wrote something newer there.
    fn spoil(&mut self, op: &Op, pages: &mut Pages) {
        let own = self.disk.pages[op.node].as_ref().map_or(0, |page| page.sequence);
        let mut spoilt = 0_u64;
        for slot in 0..self.nodes.len() {
            let Some(agent) = self.agent(op.node, op.epoch) else { return };
            let wrote = slot == op.node && agent.has_read;
            let seen = if wrote { own } else { agent.seen.get(slot).copied().unwrap_or(0) };
            let older = self.disk.older(slot, seen).cloned();
            let asked = pages.contains_key(&id(slot));
            if asked && older.is_some() && (spoilt == 0 || self.rng.chance(500)) {
                pages.insert(id(slot), older);
                spoilt += 1;
            }
        }
        self.stats.stale_reads += u64::from(spoilt > 0);
    }

    fn land_page(&mut self, n: usize, page: &Page) {
        self.check_page(n, page);
        debug_assert_eq!(index(page.writer.node), n);
        let disk = &mut self.disk;
        let before = disk.pages[n].replace(page.clone());
        let since = std::mem::replace(&mut disk.landed[n], self.now);
        disk.past[n].push_back((since, before));
        if disk.past[n].len() > PAST {
            disk.past[n].pop_front();
        }
    }

    /// Storage of these nodes stalls, or fails.
    pub fn disturb_storage(&mut self, mask: u64, fails: bool) {
        for n in (0..self.nodes.len()).filter(|n| mask >> n & 1 == 1) {
            let trouble = &mut self.disk.troubles[n];
            *(if fails { &mut trouble.failing } else { &mut trouble.stalls }) += 1;
            self.note_storage(n);
        }
    }

    /// It works again: what was parked goes on, a little apart.
    pub fn restore_storage(&mut self, mask: u64, fails: bool) {
        for n in (0..self.nodes.len()).filter(|n| mask >> n & 1 == 1) {
            let trouble = &mut self.disk.troubles[n];
            let count = if fails { &mut trouble.failing } else { &mut trouble.stalls };
            *count = count.saturating_sub(1);
            if trouble.stalls == 0 {
                for what in std::mem::take(&mut self.disk.parked[n]) {
                    let at = self.now + self.rng.skewed(0, 300 * MS);
                    self.queue.push(at, what);
                }
            }
            self.note_storage(n);
        }
    }

    /// From now on each stage of a read and of a write takes up to so much longer on these nodes.
    pub fn slow_storage(&mut self, mask: u64, reads: Time, writes: Time) {
        for n in (0..self.nodes.len()).filter(|n| mask >> n & 1 == 1) {
            let trouble = &mut self.disk.troubles[n];
            let before = trouble.slow[0].max(trouble.slow[1]);
            trouble.settled = trouble.settled.max(self.now + 3 * before);
            trouble.slow = [reads, writes].map(|slow| slow.min(30 * SECOND));
            self.note_storage(n);
        }
    }

    /// From now on a client cache of these nodes serves old pages, or does not.
    pub fn stale_storage(&mut self, mask: u64, stale: bool) {
        for n in (0..self.nodes.len()).filter(|n| mask >> n & 1 == 1) {
            self.disk.troubles[n].stale = stale;
            self.note_storage(n);
        }
    }

    /// Every storage fault ends.
    pub fn heal_storage(&mut self) {
        for trouble in &mut self.disk.troubles {
            let before = trouble.slow[0].max(trouble.slow[1]);
            let settled = trouble.settled.max(self.now + 3 * before);
            *trouble = Trouble { stalls: 1, settled, ..Trouble::default() };
        }
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
