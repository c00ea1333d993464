//! What a node says of itself, and what a leader does: assess everybody, claim a term, commit the plan, tell, fence, order.

use crate::brake::Brake;
use crate::brief::Rest;
use crate::decision::Kind;
use crate::disarm::{self, Outlook};
use crate::feature_level;
use crate::host_shutdown;
use crate::ids::{Ballot, NodeId, Stamp};
use crate::ledger::{Ledger, Standing};
use crate::liveness::{Change, facts_of};
use crate::machine::Machine;
use crate::maintenance;
use crate::membership;
use crate::message::{Beat, Body, Committed};
use crate::outbox::Note;
use crate::plan;
use crate::quorum::Witness;
use crate::recovery;
use crate::shutdown;
use crate::snapshot::Status;
use crate::time::Millis;
use crate::wishes::Desk;
use alloc::{string::String, sync::Arc, vec::Vec};
use steadfast_sdk::wire::NodeFacts;

impl Machine {
    pub(crate) fn compose_beat(&mut self) -> Beat {
        let now = self.out.now;
        let ledger = self.register.ledger();
        let (number, echoes) = self.beats.begin_beat(&self.config, now);
        // Its own term may not have come back from the group yet, or another may stand above it already.
        let own = self.register.leading().map_or(0, |ballot| ballot.term);
        let term = self.election.highest_term.max(own);
        Beat {
            level: self.config.level,
            number,
            echoes,
            term,
            leading: own == term && own > 0,
            known: self.register.known().map_or(Stamp::default(), |known| known.stamp),
            storage_age: self.heartbeat.age(now),
            network_age: self.lease.network_age(now),
            lease_left: self.own_lease_left(),
            armed: self.lease.was_armed(),
            span: self.config.span(),
            arming: self.disarming.arming,
            disarmed: self.disarming.read,
            idle: self.is_idle(),
            none_left: self.none_left,
            verification: self.verification,
            bounds: self.beats.bounds(&ledger, now),
            guests: self.guest_reports(),
            facts: self.own_facts(),
            policy: self.policies.active,
            policies: self.policies.staged,
            risk: self.own_risk_report(),
        }
    }

    pub(crate) fn own_risk_report(&self) -> Option<crate::message::RiskReport> {
        self.own_risk.report(self.config.limits.proactive.stale, self.out.now)
    }

    /// Only an admitted node has a lease to speak of.
    fn own_lease_left(&self) -> Option<Millis> {
        self.lease.admission()?;
        self.lease.left(&self.config, self.out.now)
    }

    /// What policies are told of this node.
    pub(crate) fn own_facts(&self) -> NodeFacts {
        let now = self.out.now;
        let status = self.liveness.of(self.me()).map_or("", |known| known.status.words());
        NodeFacts {
            id: self.me().0,
            name: self.config.name.clone(),
            status: status.into(),
            flaps: self.view.flaps.of(self.me(), &self.config, now),
            storage_latency_ms: self.heartbeat.latency().0,
            network_age_ms: self.lease.network_age(now).unwrap_or_default().0,
            risk: self.own_risk.score(self.config.limits.proactive.stale, now),
            ..self.facts.clone()
        }
    }

    /// Statuses of all nodes, and records of what changed.
    pub(crate) fn assess(&mut self) {
        let ledger = self.register.ledger();
        let facts = facts_of!(self, &ledger);
        let changes = self.liveness.assess(&facts);
        self.witness = Witness::testifies(&facts_of!(self, &ledger), &self.liveness);
        for change in changes {
            self.tell_status(&change, &ledger);
        }
    }

    fn tell_status(&mut self, change: &Change, ledger: &Ledger) {
        let name = ledger.name(change.node);
        let (status, reason) = (change.after.status, &change.after.reason);
        let calm = matches!(status, Status::Leader | Status::Member | Status::Joining);
        if change.before.is_none() && !calm {
            return;
        }
        let colon = if reason.is_empty() { "" } else { ": " };
        let text = alloc::format!("{name} is {}{colon}{reason}", status.words());
        let kind = if calm || status == Status::Evicted { Kind::Status } else { Kind::Suspected };
        self.out.record(Note::new(kind, "PROTOCOL 5", text).node(change.node));
    }

    pub(crate) fn on_beaten(&mut self, by: Ballot, led: bool) {
        let now = self.out.now;
        let highest = self.election.highest_term;
        self.election.highest_term = highest.max(by.term);
        if led {
            let text = alloc::format!("this node leads no more: ballot {by} stands above its own");
            self.out.record(Note::new(Kind::Deposed, "PROTOCOL 3", text).node(self.me()));
            self.step_down();
        } else {
            self.election.decline("another node has begun a higher term", now, &mut self.out);
        }
    }

    pub(crate) fn step_down(&mut self) {
        self.register.resign();
        self.rest = Rest::default();
        self.fencing.clear();
        self.recovery.clear();
        self.budgets.clear();
        self.orders.clear();
        self.migrations.clear();
        self.proactive.clear();
        self.host.clear();
        self.enrolment.on_deposed();
        self.notes.clear();
        self.election.on_deposed(self.out.now);
    }

    pub(crate) fn on_term_stands(&mut self) {
        let Some(ballot) = self.register.leading() else { return };
        self.fencing.begin(ballot);
        self.rest = Rest::default();
        self.brake = Brake::default();
        self.recovery.clear();
        self.budgets.clear();
        self.orders.clear();
        self.migrations.clear();
        self.proactive.clear();
        self.host.clear();
        self.open_cases();
        self.out.send(Body::Leading { term: ballot.term });
        self.announce();
        self.beats.next = self.out.now;
    }

    fn open_cases(&mut self) {
        let ledger = self.register.ledger();
        if let Some(known) = self.register.known() {
            self.beats.on_ledger(known.stamp, &known.ledger, true);
        }
        let now = self.out.now;
        self.fencing.on_committed(&ledger, &self.beats, &self.heartbeat, &self.config, now);
    }

    /// Tells everybody what is committed; victims hear it here before they can read it.
    fn announce(&mut self) {
        let Some(known) = self.register.known() else { return };
        let evicted = known.ledger.evictions().map(|(node, e)| (node, e.since)).collect();
        self.out.send(Body::Committed(Committed { stamp: known.stamp, evicted }));
    }

    pub(crate) fn on_committed(&mut self, before: &Ledger) {
        let Some(known) = self.register.known().cloned() else { return };
        self.out.context = (known.stamp.ballot.term, known.stamp);
        self.open_cases();
        self.announce();
        self.brake.on_committed(before, &known.ledger, self.out.now);
        plan::tell(before, &known.ledger, &mut self.out);
        let notes = core::mem::take(&mut self.notes);
        notes.into_iter().for_each(|note| self.out.record(note));
        self.recovery.on_committed(before, &known.ledger, &mut self.out);
        self.enrolment.on_committed(known.stamp, &mut self.out);
        if before.changing.is_some() && known.ledger.changing.is_none() {
            self.on_reconfigured(&known.ledger);
        }
    }

    // --- leading ---------------------------------------------------------------------------------------

    /// A leader acts only while the nodes in its view may: fewer start nothing elsewhere and evict nobody.
    pub(crate) fn lead(&mut self) {
        let Some(ballot) = self.register.leading() else { return };
        if ballot.term < self.election.highest_term {
            let text = alloc::format!("term {} stands above", self.election.highest_term);
            self.out.record(Note::new(Kind::Deposed, "PROTOCOL 6", text).node(self.me()));
            self.step_down();
            return;
        }
        let ledger = self.register.ledger();
        if !facts_of!(self, &ledger).view_may_act() || self.resigned(&ledger) {
            return;
        }
        self.rest.look(&ledger, &facts_of!(self, &ledger));
        self.proactive.read(&facts_of!(self, &ledger), &mut self.out);
        if !ledger.is_off() {
            if facts_of!(self, &ledger).beating_may_act() {
                self.order_fences(&ledger);
            }
            let facts = facts_of!(self, &ledger);
            self.recovery.on_time(&self.migrations, &facts, &mut self.out);
        }
        if !self.register.is_busy() {
            self.commit_plan(&ledger);
        }
        if ledger.is_off() {
            return;
        }
        let stamp = self.register.known().map_or(Stamp::default(), |known| known.stamp);
        let ledger = self.register.ledger();
        let facts = facts_of!(self, &ledger);
        let committing = self.register.committing();
        if !self.rest.ordered {
            let leading = (ballot.term, stamp);
            self.rest.ordered = self.orders.give(leading, committing, &facts, &mut self.out);
        }
        self.migrations.order((ballot.term, stamp), committing, &facts, &mut self.out);
    }

    fn order_fences(&mut self, ledger: &Ledger) {
        let (confirmed, beat) = (self.register.confirmed, self.config.timing.beat);
        for node in self.fencing.order(ledger, confirmed, beat, &mut self.out) {
            let text = alloc::format!("the fence agent of {} is ordered: off", ledger.name(node));
            self.out.record(Note::new(Kind::FenceOrdered, "PROTOCOL 5.2", text).node(node));
        }
    }

    pub(crate) fn on_fence_ended(
        &mut self,
        victim: NodeId,
        eviction: Stamp,
        result: Result<(), String>,
    ) {
        let name = self.register.ledger().name(victim);
        let text = match &result {
            Ok(()) => alloc::format!("the fence agent of {name} succeeded: it is off"),
            Err(why) => {
                alloc::format!("the fence agent of {name} failed: {why}; tried again in 5 s")
            }
        };
        self.out.record(Note::new(Kind::Fenced, "PROTOCOL 5.2", text).node(victim));
        self.fencing.on_fence_ended(victim, eviction, result, self.out.now);
    }

    fn commit_plan(&mut self, ledger: &Arc<Ledger>) {
        let Some(stamp) = self.register.next_stamp() else { return };
        // Looked at before, with the same ledger and the same words: there is nothing to do for any VM.
        let rests = self.rest.planned && self.recovery.is_idle();
        let mut placed = rests;
        if !ledger.is_off() && !rests {
            placed = self.ask_for_places(ledger);
        }
        let own = self.own_readiness(ledger);
        let committed = self.register.known().map_or(Stamp::default(), |known| known.stamp);
        let mut next = self.draft(ledger);
        let mut notes = Vec::new();
        let facts = facts_of!(self, ledger);
        let disarming = &mut self.disarming;
        let mut changed = disarm::keep(&mut next, stamp, disarming, &facts, &mut notes);
        if !next.is_off() {
            changed |= plan::apply_proofs(&mut next, &self.fencing, &facts);
            changed |=
                plan::apply_evictions(&mut next, stamp, &self.liveness, &mut self.brake, &facts);
            changed |= plan::record_fence_orders(&mut next, &self.fencing, &facts);
            changed |= plan::apply_admissions(&mut next, stamp, &self.fencing, own, &facts);
        }
        if !next.is_off() && !rests {
            let mut moved = host_shutdown::keep(&mut next, &mut self.host, &facts, &mut notes);
            moved |= self.migrations.apply(&mut next, stamp, &facts, &mut notes);
            moved |= plan::acknowledge(&mut next, &facts);
            moved |= disarm::see(&mut next, &facts);
            moved |= self.budgets.apply(&mut next, &facts, &mut notes);
            moved |= shutdown::note_shutdowns(&mut next, &facts, &mut notes);
            moved |= self.recovery.apply(&mut next, stamp, &self.migrations, &facts);
            moved |= self.return_home(&mut next, stamp);
            changed |= moved;
            if placed && !moved {
                self.rest.plans_nothing(self.brief.read(ledger, self.config.me.node));
            }
        }
        if !next.is_off() && self.proactive.is_due(&next, self.out.now) {
            changed |= self.keep_holds(&mut next, stamp, ledger, &mut notes);
        }
        let facts = facts_of!(self, ledger);
        let requested = self.enrolment.has_work();
        if requested {
            let own_good = self.lease.may_start(&self.config, self.out.now).is_ok();
            let good = recovery::candidates(&facts, &self.own_facts(), own_good);
            let outlook = Outlook::of(&facts);
            let desk = Desk { stamp, good: &good, outlook: &outlook, facts: &facts };
            let out = &mut self.out;
            changed |= self.enrolment.apply(&mut next, &desk, committed, &mut notes, out);
        }
        changed |= membership::apply(&mut next, stamp, &self.fencing, &facts, &mut notes);
        changed |= feature_level::raise(&mut next, &facts, &mut notes);
        self.brake.news.take().into_iter().for_each(|note| self.out.record(note));
        if !changed && !requested {
            self.draft = Some((ledger.clone(), next));
        } else if changed && self.register.commit(next) {
            self.notes = notes;
            self.read_slots();
            self.heartbeat.hurry(self.out.now, Millis(0));
        }
    }

    /// Proactive HA, see `proactive.rs`.
    fn keep_holds(
        &mut self,
        next: &mut Ledger,
        stamp: Stamp,
        ledger: &Ledger,
        notes: &mut Vec<Note>,
    ) -> bool {
        let own_good = self.lease.may_start(&self.config, self.out.now).is_ok();
        let own = self.own_facts();
        let facts = facts_of!(self, ledger);
        let good = || recovery::candidates(&facts, &own, own_good);
        let changed = self.proactive.keep(next, stamp, good, &facts, notes);
        // What is no change of the ledger is told at once.
        if !changed {
            notes
                .extract_if(.., |note| note.is_of(Kind::Risk))
                .for_each(|note| self.out.record(note));
        }
        changed
    }

    fn return_home(&self, next: &mut Ledger, stamp: Stamp) -> bool {
        if next.vms.values().all(|entry| entry.home.is_none()) {
            return false;
        }
        let ledger = self.register.ledger();
        let facts = facts_of!(self, &ledger);
        let own_good = self.lease.may_start(&self.config, self.out.now).is_ok();
        let good = recovery::candidates(&facts, &self.own_facts(), own_good);
        maintenance::return_home(next, stamp, &good, &self.migrations, &facts)
    }

    /// A copy of the ledger to be changed: the last one, if nothing was changed in it.
    fn draft(&mut self, ledger: &Arc<Ledger>) -> Ledger {
        let last = self.draft.take().filter(|(of, _)| Arc::ptr_eq(of, ledger));
        let next = last.map_or_else(|| Ledger::clone(ledger), |(_, unchanged)| unchanged);
        #[cfg(test)]
        assert_eq!(next, **ledger, "a plan that says it changed nothing has changed something");
        next
    }

    /// Asks where VMs go that have no place, or a better one. True if there are none.
    fn ask_for_places(&mut self, ledger: &Ledger) -> bool {
        let facts = facts_of!(self, ledger);
        let movers = maintenance::movers(&facts, &self.migrations);
        if self.recovery.has_no_orphans(&facts) && movers.is_empty() {
            return true;
        }
        let own_good = self.lease.may_start(&self.config, self.out.now).is_ok();
        let own = self.own_facts();
        let nodes = recovery::candidates(&facts, &own, own_good);
        let takers = nodes.into_iter().filter(|n| !maintenance::is_emptied(ledger, NodeId(n.id)));
        // A node at risk comes last.
        let takers = takers.map(|facts| {
            let cordoned = facts.cordoned || ledger.is_held(NodeId(facts.id));
            NodeFacts { cordoned, ..facts }
        });
        self.recovery.ask_if_due(movers, takers.collect(), &facts, &mut self.out);
        false
    }

    /// The leader admits itself too, on the same conditions as everybody.
    fn own_readiness(&self, ledger: &Ledger) -> Option<crate::ids::BootId> {
        let now = self.out.now;
        let armed = self.lease.is_armed(&self.config, now);
        let said = match &ledger.nodes.get(&self.me())?.standing {
            Standing::Evicted(eviction) if eviction.boot == self.config.me.boot => {
                self.none_left == Some(eviction.since)
            }
            _ => true,
        };
        (armed && self.is_idle() && said).then_some(self.config.me.boot)
    }
}
