//! The storage cycle: write own page, wait for the write, read *all* pages. Everything that storage is used for, lease
//! evidence, ledger commits and proofs alike, is made of these cycles, so there is never more than one write in flight.
//!
//! A cycle that could not read every slot, or reads an older sequence than it has seen, has not finished: it proves and
//! renews nothing. A failed write is repeated identically. A page of our own that we did not write ends it all, loudly.

use crate::action::Action;
use crate::ids::{Identity, NodeId};
use crate::outbox::Outbox;
use crate::page::{Page, Pages};
use crate::time::{Instant, Millis};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
};

/// What is being written: kept, because a failed write is repeated identically.
#[derive(Debug, Clone)]
enum Write {
    Body { slot: u8, bytes: Arc<[u8]> },
    Page(Box<Page>),
}

#[derive(Debug)]
enum Phase {
    /// Nothing was read in this incarnation: no write is allowed yet.
    Unread,
    /// Between cycles.
    Idle,
    /// A write is in flight since `since`; a deadline does not end it.
    Writing { id: u64, write: Write, since: Instant },
    /// A write failed and is repeated at `at`.
    Repeating { write: Write, since: Instant, at: Instant },
    /// All slots are being read. `start` is when the page write began, `None` for the first read of an incarnation.
    Reading { id: u64, start: Option<Instant>, began: Instant },
    /// The newest body is being read, to finish the cycle.
    ReadingBody { id: u64, done: Cycle },
    /// Our own page is not ours any more.
    Halted,
}

/// A read of every slot, and the write before it.
#[derive(Debug, Clone)]
pub(crate) struct Cycle {
    /// When its page write began; `None` for the first read of an incarnation.
    pub start: Option<Instant>,
    /// When its read began.
    pub read_began: Instant,
    /// When its read was complete.
    pub read_ended: Instant,
    /// What the read found.
    pub pages: Pages,
}

/// The newest page of one node, and since when it is the newest.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The page.
    pub page: Page,
    /// When the read that first showed its sequence was complete: rule 4's storage bound.
    pub first_shown: Instant,
    /// Complete reads since then that showed the same sequence.
    pub silent_cycles: u32,
    /// Its sequence moved within this incarnation of ours.
    pub moved: bool,
}

/// What a storage event led to.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing to decide yet.
    None,
    /// A body write returned well: the page that names it comes next.
    BodyWritten,
    /// All slots were read; the newest body may be needed to finish.
    PagesRead(Cycle),
    /// The body asked for by [`Heartbeat::read_body`].
    BodyRead(Cycle, Result<alloc::vec::Vec<u8>, String>),
    /// Our own page was written by somebody else.
    Hijacked(String),
}

/// The pipeline's state.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    me: Identity,
    phase: Phase,
    sequence: u64,
    written: Option<Box<Page>>,
    /// When the next cycle is due.
    pub next: Instant,
    /// After a cycle that did not finish, none begins before this, however urgent: one unreadable block must not make
    /// every node hammer the array.
    not_before: Instant,
    failures: u32,
    seen: BTreeMap<NodeId, Seen>,
    /// Whose pages a cycle reads: every node configured now, or before a change that is under way.
    pub slots: Arc<BTreeSet<NodeId>>,
    /// The youngest complete cycle: (start, end).
    pub last_cycle: Option<(Instant, Instant)>,
    /// Why the last attempt failed.
    pub trouble: Option<String>,
}

impl Heartbeat {
    pub fn new(me: Identity, mut slots: BTreeSet<NodeId>, now: Instant) -> Self {
        slots.insert(me.node);
        Self {
            me,
            phase: Phase::Unread,
            sequence: 0,
            written: None,
            next: now,
            not_before: now,
            failures: 0,
            seen: BTreeMap::new(),
            slots: Arc::new(slots),
            last_cycle: None,
            trouble: None,
        }
    }

    /// From the next read on, these nodes' pages and the own one are read; what others' pages showed is forgotten.
    pub fn read_slots(&mut self, mut slots: BTreeSet<NodeId>) {
        slots.insert(self.me.node);
        if *self.slots != slots {
            self.seen.retain(|node, _| slots.contains(node));
            self.slots = Arc::new(slots);
        }
    }

    pub fn seen(&self, node: NodeId) -> Option<&Seen> {
        self.seen.get(&node)
    }

    /// Time since the youngest complete cycle began.
    pub fn age(&self, now: Instant) -> Option<Millis> {
        self.last_cycle.map(|(start, _)| now.since(start))
    }

    /// How long the youngest complete cycle took.
    pub fn latency(&self) -> Millis {
        self.last_cycle.map_or(Millis(0), |(start, end)| end.since(start))
    }

    pub fn is_halted(&self) -> bool {
        matches!(self.phase, Phase::Halted)
    }

    /// The pipeline waits for the machine: a cycle may begin, or the incarnation's first read.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Begin the next cycle as soon as the pipeline is free, but not within `pace` of the last one.
    pub fn hurry(&mut self, now: Instant, pace: Millis) {
        let earliest = self.last_cycle.map_or(now, |(start, _)| start + pace);
        self.next = self.next.min(earliest.max(now).max(self.not_before));
    }

    /// When the machine must be woken for storage.
    pub fn wake_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle | Phase::Unread => Some(self.next),
            Phase::Repeating { at, .. } => Some(*at),
            _ => None,
        }
    }

    /// What is due by time alone: the first read, and repeated writes.
    pub fn on_time(&mut self, out: &mut Outbox) {
        let due = out.now;
        match core::mem::replace(&mut self.phase, Phase::Halted) {
            Phase::Unread if due >= self.next => self.read_pages(None, out),
            Phase::Repeating { write, since, at } if due >= at => self.write(write, since, out),
            other => self.phase = other,
        }
    }

    pub fn write_body(&mut self, slot: u8, bytes: Arc<[u8]>, out: &mut Outbox) {
        self.write(Write::Body { slot, bytes }, out.now, out);
    }

    /// Numbers `page` and writes it: the cycle's start is now.
    pub fn write_page(&mut self, mut page: Page, beat: Millis, out: &mut Outbox) {
        self.sequence += 1;
        page.sequence = self.sequence;
        self.next = out.now + beat;
        self.write(Write::Page(Box::new(page)), out.now, out);
    }

    fn write(&mut self, write: Write, since: Instant, out: &mut Outbox) {
        let id = out.id();
        out.push(match write.clone() {
            Write::Body { slot, bytes } => Action::WriteBody { id, slot, bytes },
            Write::Page(page) => Action::WritePage { id, page },
        });
        self.phase = Phase::Writing { id, write, since };
    }

    pub fn on_write_ended(
        &mut self,
        ended: u64,
        result: Result<(), String>,
        beat: Millis,
        out: &mut Outbox,
    ) -> Progress {
        match core::mem::replace(&mut self.phase, Phase::Halted) {
            Phase::Writing { id, write, since } if id == ended => match result {
                Ok(()) => self.on_written(write, since, out),
                Err(error) => {
                    self.trouble = Some(error);
                    self.phase = Phase::Repeating { write, since, at: out.now + beat };
                    Progress::None
                }
            },
            other => {
                self.phase = other;
                Progress::None
            }
        }
    }

    fn on_written(&mut self, write: Write, since: Instant, out: &mut Outbox) -> Progress {
        match write {
            Write::Body { .. } => {
                self.phase = Phase::Idle;
                Progress::BodyWritten
            }
            Write::Page(page) => {
                self.written = Some(page);
                self.read_pages(Some(since), out);
                Progress::None
            }
        }
    }

    fn read_pages(&mut self, start: Option<Instant>, out: &mut Outbox) {
        let id = out.id();
        out.push(Action::ReadPages { id, nodes: self.slots.clone() });
        self.phase = Phase::Reading { id, start, began: out.now };
    }

    pub fn on_pages_read(
        &mut self,
        ended: u64,
        result: Result<Pages, String>,
        beat: Millis,
        now: Instant,
    ) -> Progress {
        let (start, began) = match self.phase {
            Phase::Reading { id, start, began } if id == ended => (start, began),
            _ => return Progress::None,
        };
        let checked = result.and_then(|pages| self.check(&pages).map(|()| pages));
        match checked {
            Ok(pages) => match self.hijacked(&pages, start.is_none()) {
                Some(why) => {
                    self.phase = Phase::Halted;
                    Progress::Hijacked(why)
                }
                None => {
                    let earlier = mutant!(ReadBegunBeforeWrite) && start.is_some();
                    let earlier = earlier.then(|| self.remembered());
                    self.remember(&pages, if mutant!(FirstShownAtReadBegin) { began } else { now });
                    self.phase = Phase::Idle;
                    let pages = earlier.unwrap_or(pages);
                    Progress::PagesRead(Cycle { start, read_began: began, read_ended: now, pages })
                }
            },
            Err(_) if mutant!(UnreadableSlotsSkipped) && start.is_some() => {
                self.phase = Phase::Idle;
                let pages = self.remembered();
                Progress::PagesRead(Cycle { start, read_began: began, read_ended: now, pages })
            }
            Err(why) => {
                self.give_up(why, start.is_none(), beat, now);
                Progress::None
            }
        }
    }

    /// No slot may show an older sequence than it did before, nor the own one an older page than was written last.
    fn check(&self, pages: &Pages) -> Result<(), String> {
        let shown = |node| pages.get(&node).and_then(|page| page.as_ref());
        let own = self.written.as_deref().filter(|_| self.is_ours(shown(self.me.node)));
        let own = own.map(|written| (self.me.node, written.sequence));
        let seen = self.seen.iter().map(|(node, seen)| (*node, seen.page.sequence));
        for (node, expected) in seen.chain(own) {
            let got = shown(node).map_or(0, |page| page.sequence);
            if got < expected && !mutant!(StaleReadAccepted) {
                return Err(alloc::format!(
                    "stale read of the page of node {node}: expected sequence {expected} or later, got \
                     {got}; does the file system cache reads?"
                ));
            }
        }
        Ok(())
    }

    /// What this incarnation wrote, or found when it began: shown again, it is old, not somebody else's.
    fn is_ours(&self, shown: Option<&Page>) -> bool {
        let found = self.seen.get(&self.me.node).map(|seen| &seen.page);
        shown == found || shown.is_some_and(|page| page.writer == self.me)
    }

    fn hijacked(&self, pages: &Pages, first: bool) -> Option<String> {
        let shown = pages.get(&self.me.node).and_then(|page| page.as_ref());
        let written = self.written.as_deref();
        (!first && shown != written).then(|| {
            alloc::format!(
                "own page was written by somebody else: expected sequence {}, got {}; is another \
                 steadfastd using node id {}?",
                written.map_or(0, |p| p.sequence),
                shown.map_or(0, |p| p.sequence),
                self.me.node
            )
        })
    }

    /// As planted bugs, what a read that failed, or began too late, is taken to have shown: what the last one did.
    fn remembered(&self) -> Pages {
        let page = |node: &NodeId| match *node == self.me.node {
            true => self.written.as_deref().cloned(),
            false => self.seen.get(node).map(|seen| seen.page.clone()),
        };
        self.slots.iter().map(|node| (*node, page(node))).collect()
    }

    fn remember(&mut self, pages: &Pages, now: Instant) {
        for (node, page) in pages.iter().filter(|(node, _)| self.slots.contains(node)) {
            let Some(page) = page else { continue };
            match self.seen.get_mut(node) {
                Some(seen) if seen.page.sequence == page.sequence => seen.silent_cycles += 1,
                before => {
                    let moved = before.is_some();
                    let page = page.clone();
                    let seen = Seen { page, first_shown: now, silent_cycles: 0, moved };
                    self.seen.insert(*node, seen);
                }
            }
        }
    }

    /// Sequence to go on from: what the own page on disk shows at the first read.
    pub fn adopt_sequence(&mut self, pages: &Pages) -> Option<Page> {
        let page = pages.get(&self.me.node).cloned().flatten()?;
        if !mutant!(SequenceFromOne) {
            self.sequence = self.sequence.max(page.sequence);
        }
        Some(page)
    }

    /// The cycle needs the body that `node` keeps in `slot`.
    pub fn read_body(&mut self, node: NodeId, slot: u8, done: Cycle, out: &mut Outbox) {
        let id = out.id();
        out.push(Action::ReadBody { id, node, slot });
        self.phase = Phase::ReadingBody { id, done };
    }

    pub fn on_body_read(
        &mut self,
        ended: u64,
        result: Result<alloc::vec::Vec<u8>, String>,
    ) -> Progress {
        match core::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::ReadingBody { id, done } if id == ended => Progress::BodyRead(done, result),
            other => {
                self.phase = other;
                Progress::None
            }
        }
    }

    /// The cycle did not finish. The next attempt begins a tenth of a beat later, doubled with every failure up to a beat.
    pub fn give_up(&mut self, why: String, first: bool, beat: Millis, now: Instant) {
        let pause = Millis(beat.0 / 10).0 << self.failures.min(4);
        self.failures += 1;
        self.not_before = now + Millis(pause.min(beat.0));
        self.next = self.not_before;
        self.trouble = Some(why);
        self.phase = if first { Phase::Unread } else { Phase::Idle };
    }

    /// The cycle finished: pages and newest body are known.
    pub fn finish(&mut self, cycle: &Cycle) {
        if let Some(start) = cycle.start {
            self.last_cycle = Some((start, cycle.read_ended));
        }
        self.trouble = None;
        self.failures = 0;
    }
}

#[cfg(test)]
#[path = "tests/heartbeat.rs"]
mod tests;
