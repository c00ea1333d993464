//! What the machine makes of storage cycles: when the next begins, what own page says, what a complete one teaches of the
//! ledger and of this node's own standing. The pipeline itself is `heartbeat.rs`, the register `register.rs`.

use crate::decision::Kind;
use crate::heartbeat::{Cycle, Progress};
use crate::ids::{Digest, NodeId, Stamp};
use crate::machine::Machine;
use crate::outbox::Note;
use crate::page::Page;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeSet, string::String};

/// The first page waits this long for the first scan of processes.
const FIRST_SCAN: Millis = Millis(2_000);

impl Machine {
    pub(crate) fn begin_cycle_if_due(&mut self) {
        self.hurry_if_needed();
        if !self.heartbeat.is_idle() || self.out.now < self.heartbeat.next {
            return;
        }
        if self.awaits_scan() {
            self.heartbeat.next = self.out.now + Millis(20);
            return;
        }
        match self.register.take_body() {
            Some((slot, bytes)) => self.heartbeat.write_body(slot, bytes, &mut self.out),
            None => self.write_page(),
        }
    }

    /// The first page of a boot is to say whether HA VMs execute: proof 3 rests on it.
    pub(crate) fn awaits_scan(&self) -> bool {
        let young = self.out.now.since(self.beats.started()) < FIRST_SCAN;
        young && self.guests.scanned().is_none() && self.heartbeat.last_cycle.is_none()
    }

    pub(crate) fn hurry_if_needed(&mut self) {
        let now = self.out.now;
        let beat = self.config.timing.beat;
        if self.register.is_busy() {
            self.heartbeat.hurry(now, Millis(0));
        } else if self.register.wants_proof() {
            self.heartbeat.hurry(now, Millis(beat.0 / 20));
        } else if self.liveness.is_watchful(&self.config, now) {
            self.heartbeat.hurry(now, Millis(beat.0 / 4));
        }
    }

    pub(crate) fn write_page(&mut self) {
        let page = self.compose_page();
        let beat = self.config.timing.beat;
        self.heartbeat.write_page(page, beat, &mut self.out);
    }

    pub(crate) fn compose_page(&self) -> Page {
        let view_size = u16::try_from(self.view.members.len()).unwrap_or(u16::MAX);
        let mut page = Page {
            writer: self.config.me,
            level: self.config.level,
            sequence: 0,
            promised: crate::ids::Ballot::default(),
            accepted: Stamp::default(),
            slot: 1,
            digest: Digest::default(),
            armed: self.lease.was_armed(),
            span: self.config.span(),
            arming: self.disarming.arming,
            disarmed: self.disarming.read,
            idle: self.is_idle(),
            none_left: self.none_left,
            last_words: self.last_words(),
            view_size,
            verification: self.verification,
        };
        self.register.fill(&mut page);
        page
    }

    pub(crate) fn on_progress(&mut self, progress: Progress) {
        match progress {
            Progress::None => {}
            Progress::BodyWritten => {
                self.register.on_body_written();
                self.write_page();
            }
            Progress::PagesRead(cycle) => self.on_pages(cycle),
            Progress::BodyRead(cycle, result) => self.on_body(cycle, result),
            Progress::Hijacked(why) => {
                self.step_down();
                let text = alloc::format!("storage work is ended: {why}");
                self.out.record(Note::new(Kind::Alarm, "PROTOCOL 3", text).node(self.me()));
            }
        }
    }

    pub(crate) fn on_pages(&mut self, cycle: Cycle) {
        let first = cycle.start.is_none();
        if let Some(page) = self.heartbeat.adopt_sequence(&cycle.pages).filter(|_| first)
            && !mutant!(FreshPageAfterBoot)
        {
            self.register.adopt_page(&page);
            self.adopt_disarming(&page);
        }
        match self.register.wanted(&cycle.pages) {
            Some(wanted) => {
                self.wanted = Some(wanted);
                self.heartbeat.read_body(wanted.node, wanted.slot, cycle, &mut self.out);
            }
            None => self.on_cycle(&cycle),
        }
    }

    pub(crate) fn on_body(&mut self, cycle: Cycle, result: Result<alloc::vec::Vec<u8>, String>) {
        let Some(wanted) = self.wanted.take() else { return };
        let read = result.and_then(|bytes| {
            let taken = self.register.on_body(wanted, &bytes, cycle.read_ended);
            taken.map_err(|error| alloc::format!("{error}"))
        });
        match read {
            Ok(()) => self.on_cycle(&cycle),
            Err(_) if mutant!(CycleWithoutBody) => self.on_cycle(&cycle),
            // Its writer may have gone on to the next body meanwhile: the cycle has not finished, read again soon.
            Err(why) => {
                let beat = self.config.timing.beat;
                self.heartbeat.give_up(why, cycle.start.is_none(), beat, self.out.now);
            }
        }
    }

    pub(crate) fn on_cycle(&mut self, cycle: &Cycle) {
        let unread = self.register.ledger().slots().find(|node| !cycle.pages.contains_key(node));
        if let Some(node) = unread {
            // The cycle proves nothing, yet what the body tells is known: whom it evicts is barred, whoever joins is read.
            self.on_ledger(None);
            let why = alloc::format!("the ledger names node {node}, whose page was not read yet");
            let beat = self.config.timing.beat;
            return self.heartbeat.give_up(why, cycle.start.is_none(), beat, self.out.now);
        }
        self.heartbeat.finish(cycle);
        self.beats.permit_echoes();
        let outcome = self.register.on_cycle(cycle);
        self.on_ledger(cycle.start);
        self.on_page_written(cycle);
        self.fencing.on_cycle(cycle, &self.heartbeat, &self.config);
        self.on_outcome(outcome);
    }

    /// Whose pages are read: everybody's that the newest body names, and that a commit under way will. Fewer than before only when
    /// that body is proved.
    pub(crate) fn read_slots(&mut self) {
        let known = self.register.known().map(|known| &known.ledger);
        let settled = known.filter(|ledger| ledger.changing.is_none());
        let committing = self.register.committing().is_some();
        if settled.is_some_and(|l| !committing && l.nodes.keys().eq(self.heartbeat.slots.iter())) {
            return;
        }
        let mut slots: BTreeSet<NodeId> = self.register.ledger().slots().collect();
        slots.extend(self.register.committing().iter().flat_map(|next| next.slots()));
        if self.register.proved().is_none() {
            slots.extend(self.heartbeat.slots.iter());
        }
        self.heartbeat.read_slots(slots);
    }

    /// Knowledge of the ledger may have changed. `start` is the cycle's that showed it.
    pub(crate) fn on_ledger(&mut self, start: Option<Instant>) {
        let Some(known) = self.register.known().cloned() else { return };
        self.read_slots();
        self.beats.on_ledger(known.stamp, &known.ledger, known.proved);
        self.guests.on_ledger(&known.ledger, known.proved);
        let mine = known.ledger.admission(self.me());
        let is_mine = |boot| boot == self.config.me.boot || mutant!(AdmissionOfOtherBoot);
        let admitted = mine.filter(|(boot, _)| is_mine(*boot));
        if known.proved || mutant!(AdmittedByRumour) {
            self.born.get_or_insert(known.stamp);
            self.read_disarming(&known.ledger);
            if let Some((_, since)) = admitted {
                self.on_own_admission(since, start);
            }
        }
        if let Some(eviction) = known.ledger.eviction(self.me()).filter(|_| known.proved)
            && !mutant!(CycleIgnoresAdmission)
        {
            self.on_own_eviction(eviction.since, "the ledger says so");
        }
        // Later leases need the same admission in the newest body, proved or not.
        let same = admitted.filter(|(_, since)| self.lease.admission() == Some(*since));
        if let Some(start) = start.filter(|_| same.is_some() || mutant!(CycleIgnoresAdmission)) {
            let basis = if mutant!(StorageBasisAtEnd) { self.out.now } else { start };
            self.lease.on_storage_evidence(basis);
        }
    }

    pub(crate) fn on_own_admission(&mut self, since: Stamp, start: Option<Instant>) {
        if self.lease.on_admitted(since, start) {
            self.none_left = None;
            self.renew_by_network();
            // The leader orders nothing before it hears of the lease.
            self.beats.next = self.out.now;
        }
    }

    pub(crate) fn on_own_eviction(&mut self, eviction: Stamp, how: &str) {
        if self.lease.on_evicted(eviction, self.out.now) {
            let text = alloc::format!("this node is evicted ({how}): HA VMs are stopped here");
            self.out.record(Note::new(Kind::Lease, "PROTOCOL 4", text).node(self.me()));
        }
    }
}

#[cfg(test)]
#[path = "tests/cycle.rs"]
mod tests;
