//! The central type. Whoever drives it (the agent's `driver.rs`, the simulator) calls
//! [`Machine::new`] once, then [`Machine::step`] with every event, with own time read *after* the event was
//! taken, does the actions of each [`Step`] in order, and calls again with [`Event::Woke`] at `wake_at` at the latest.
//! Waking late is safe, not waking is what leases and watchdogs are for.
//!
//! Each concern has its own file and state; this file only passes events on and, after each, lets every concern do what
//! facts and time make due (`settle`). Nothing here waits: "no answer yet" is a state.

use crate::arrival::Arrivals;
use crate::beats::Beats;
use crate::brake::Brake;
use crate::brief::{Brief, Rest};
use crate::budget::Budgets;
use crate::candidacy::PriorityAsked;
use crate::config::Config;
use crate::decision::{Kind, PolicyRecord};
use crate::departure::Departures;
use crate::disarm::Disarming;
use crate::election::{Ask, Election};
use crate::enrolment::Enrolment;
use crate::event::Event;
use crate::eviction::Fencing;
use crate::guest::Guests;
use crate::heartbeat::Heartbeat;
use crate::host_shutdown::HostStops;
use crate::ids::{Identity, NodeId, Stamp, VmId};
use crate::lease::Lease;
use crate::ledger::Ledger;
use crate::liveness::{Liveness, facts_of};
use crate::message::{Body, Committed, Message, StartOrder};
use crate::migration::Migrations;
use crate::orders::Orders;
use crate::outbox::{Note, Outbox};
use crate::policy::Policies;
use crate::proactive::{OwnRisk, Proactive};
use crate::quorum::Witness;
use crate::recovery::Recovery;
use crate::register::{Outcome, Register, Wanted};
use crate::shutdown::Shutdowns;
use crate::step::Step;
use crate::time::{Instant, Millis};
use crate::view::View;
use crate::watch::Watch;
use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use steadfast_sdk::wire::NodeFacts;

/// How far a term or a round may be ahead of the highest known.
const LEAP: u64 = 1_000_000;

/// One node's whole reasoning.
#[derive(Debug)]
pub struct Machine {
    pub(crate) config: Config,
    pub(crate) out: Outbox,
    pub(crate) view: View,
    pub(crate) beats: Beats,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) register: Register,
    pub(crate) lease: Lease,
    pub(crate) guests: Guests,
    pub(crate) liveness: Liveness,
    pub(crate) witness: Witness,
    /// The ledger that the last plan was made from, and the plan, if that changed nothing: the next need not copy it.
    pub(crate) draft: Option<(Arc<Ledger>, Ledger)>,
    /// What there is in the ledger read with proof.
    pub(crate) brief: Brief,
    /// The ledger read with proof, and [`Guests::changes`], when every guest was found where it belongs.
    pub(crate) settled: Option<(Arc<Ledger>, u64)>,
    /// What this leader need not look at again.
    pub(crate) rest: Rest,
    pub(crate) election: Election,
    pub(crate) fencing: Fencing,
    pub(crate) brake: Brake,
    pub(crate) recovery: Recovery,
    pub(crate) budgets: Budgets,
    pub(crate) enrolment: Enrolment,
    /// Orders that this node gives as a leader.
    pub(crate) orders: Orders,
    /// Start orders that it got and has not carried out yet.
    pub(crate) ordered: BTreeMap<VmId, (StartOrder, Instant)>,
    /// Guests on their way down.
    pub(crate) shutdowns: Shutdowns,
    pub(crate) disarming: Disarming,
    /// Hosts on their way down.
    pub(crate) host: HostStops,
    /// Guests that leave by live migration, and those that arrive.
    pub(crate) departures: Departures,
    pub(crate) arrivals: Arrivals,
    /// Migrations that this node watches as a leader.
    pub(crate) migrations: Migrations,
    /// Risk of this node, and as a leader of all.
    pub(crate) own_risk: OwnRisk,
    pub(crate) proactive: Proactive,
    /// The first ledger that this incarnation read with proof: what began before is not its own.
    pub(crate) born: Option<Stamp>,
    /// What is to be told when the change under way is committed.
    pub(crate) notes: Vec<Note>,
    /// Why each of them is refused, told once.
    pub(crate) refused: BTreeMap<VmId, String>,
    /// What policies are told of this node.
    pub(crate) facts: NodeFacts,
    pub(crate) policies: Policies,
    pub(crate) verification: Option<bool>,
    /// The question about this node's priority, while it is out.
    pub(crate) priority_asked: Option<PriorityAsked>,
    /// How it was answered last, until an election's winner is told.
    pub(crate) priority_record: Option<PolicyRecord>,
    /// HA guests found without any basis: since when.
    pub(crate) unleased_since: Option<Instant>,
    pub(crate) none_left: Option<Stamp>,
    /// A body that the cycle under way needs.
    pub(crate) wanted: Option<Wanted>,
    /// Last words were recorded since the lease was good.
    pub(crate) spoken: bool,
    pub(crate) watch: Watch,
    pub(crate) stopped: bool,
}

impl Machine {
    /// A machine for one incarnation, and what it wants done first.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> (Self, Step) {
        let me = config.me;
        let mut machine = Self {
            out: Outbox::new(me, now),
            view: View::default(),
            beats: Beats::new(me, now),
            heartbeat: Heartbeat::new(me, config.genesis.nodes.keys().copied().collect(), now),
            register: Register::new(me.node, config.level, config.genesis.clone()),
            lease: Lease::new(&config),
            guests: Guests::new(config.inherited.is_some_and(|record| record.basis.is_some())),
            liveness: Liveness::default(),
            witness: Witness::default(),
            draft: None,
            brief: Brief::default(),
            settled: None,
            rest: Rest::default(),
            election: Election::new(me, now),
            fencing: Fencing::default(),
            brake: Brake::default(),
            recovery: Recovery::default(),
            budgets: Budgets::default(),
            enrolment: Enrolment::default(),
            orders: Orders::default(),
            ordered: BTreeMap::new(),
            shutdowns: Shutdowns::default(),
            disarming: Disarming::default(),
            host: HostStops::default(),
            departures: Departures::default(),
            arrivals: Arrivals::default(),
            migrations: Migrations::default(),
            own_risk: OwnRisk::default(),
            proactive: Proactive::default(),
            born: None,
            notes: Vec::new(),
            refused: BTreeMap::new(),
            facts: NodeFacts { id: me.node.0, name: config.name.clone(), ..NodeFacts::default() },
            policies: Policies::default(),
            verification: None,
            priority_asked: None,
            priority_record: None,
            unleased_since: None,
            none_left: None,
            wanted: None,
            spoken: false,
            watch: Watch::default(),
            stopped: false,
            config,
        };
        let step = machine.step(Event::Woke, now);
        (machine, step)
    }

    /// One event, at own time `now`.
    pub fn step(&mut self, event: Event, now: Instant) -> Step {
        // Own time never goes back; a caller that says so is not obeyed.
        let now = now.max(self.out.now);
        self.out.now = now;
        let stamp = self.register.known().map_or(Stamp::default(), |known| known.stamp);
        self.out.context = (self.election.highest_term, stamp);
        if !self.stopped {
            self.on_event(event);
        }
        if !self.stopped {
            self.settle();
            self.watch_itself();
        }
        let wake_at = self.wake_at();
        Step { actions: core::mem::take(&mut self.out.actions), wake_at }
    }

    fn on_event(&mut self, event: Event) {
        let now = self.out.now;
        let beat = self.config.timing.beat;
        match event {
            Event::Woke => {}
            Event::ViewChanged { members } => self.on_view(members),
            Event::CorosyncLost { reason } => {
                let text = alloc::format!("corosync is gone: {reason}; leases go on by storage");
                self.out.record(Note::new(Kind::Alarm, "PROTOCOL 2", text).node(self.me()));
                self.on_view([].into());
            }
            Event::MessageReceived { sender, message } => self.on_message(sender, *message),
            Event::WriteEnded { id, result } => {
                let result = result.map_err(|error| error.0);
                let progress = self.heartbeat.on_write_ended(id, result, beat, &mut self.out);
                self.on_progress(progress);
            }
            Event::PagesRead { id, result } => {
                let result = result.map_err(|error| error.0);
                let progress = self.heartbeat.on_pages_read(id, result, beat, now);
                self.on_progress(progress);
            }
            Event::BodyRead { id, result } => {
                let progress = self.heartbeat.on_body_read(id, result.map_err(|error| error.0));
                self.on_progress(progress);
            }
            Event::WatchdogFed { ended } => self.on_watchdog_fed(ended),
            Event::WatchdogFailed { reason } => self.on_watchdog_failed(reason),
            Event::GuestsScanned(scan) => self.on_guests_scanned(scan),
            Event::StartEnded { vm, result } => self.on_start_ended(&vm, result),
            Event::StopEnded { .. } => self.guests.scan_if(true, &mut self.out),
            Event::GuestExited { vm } => self.on_guest_exited(&vm),
            Event::FenceEnded { victim, eviction, result } => {
                self.on_fence_ended(victim, eviction, result);
            }
            Event::VerificationChecked { reachable } => self.verification = Some(reachable),
            Event::FactsMeasured(facts) => self.facts = *facts,
            Event::PoliciesStaged(digests) => self.policies.staged = digests,
            Event::RiskAssessed(risk) => self.own_risk.on_assessed(*risk, now),
            Event::PriorityAnswered { id, verdict, decider } => {
                if let Some(asked) = self.priority_asked.take_if(|asked| asked.id == id) {
                    self.on_priority(asked.question, verdict, decider);
                }
            }
            Event::PlacementAnswered { id, verdict, decider } => {
                let ledger = self.register.ledger();
                let facts = facts_of!(self, &ledger);
                let migrations = &self.migrations;
                self.recovery.on_answer(id, verdict, decider, migrations, &facts, &mut self.out);
            }
            Event::ChangeRequested { id, change } => self.on_change_requested(id, *change),
            Event::GuestShutDown { vm } => self.on_guest_shut_down(&vm),
            Event::WatchdogClosed => self.on_watchdog_closed(),
            Event::LastWordsFound { text } => self.on_last_words_found(text),
            Event::MigrationEnded { vm, result } => self.on_migration_ended(&vm, result),
            Event::ResumeEnded { vm, result } => self.on_resume_ended(&vm, result),
            Event::HostStopping { reboot } => self.on_host_stopping(reboot),
            Event::ShutdownRequested => self.end(),
        }
    }

    /// What facts and time make due, in the order in which it matters: own guests first, the cluster last.
    fn settle(&mut self) {
        self.guard_guests();
        self.heartbeat.on_time(&mut self.out);
        self.begin_cycle_if_due();
        self.beat_if_due();
        self.assess();
        self.agree_on_policy();
        self.elect();
        self.lead();
        self.start_ordered();
        self.migrate_ordered();
        self.stop_host();
        let has_leader = self.election.leader.is_some();
        self.enrolment.on_time(self.config.me, has_leader, &mut self.out);
        // What was just decided may need the disk.
        self.begin_cycle_if_due();
    }

    fn wake_at(&self) -> (Instant, &'static str) {
        let now = self.out.now;
        let mut wake = (self.beats.next, "beat");
        let mut consider = |at: Option<Instant>, why| {
            if let Some(at) = at.filter(|at| *at < wake.0) {
                wake = (at, why);
            }
        };
        consider(self.heartbeat.wake_at(), "storage cycle");
        let good = self.lease.is_good(&self.config, now);
        consider(self.lease.expires(&self.config).filter(|_| good), "lease ends");
        let guarded = !good && self.guests.may_execute();
        consider(guarded.then_some(now + Millis(100)), "guests to be stopped");
        consider(self.election.wake_at(&self.config, now), "election");
        consider(self.priority_asked.as_ref().map(|asked| asked.deadline), "priority due");
        let leads = self.register.leading().is_some();
        consider(self.recovery.wake_at().filter(|_| leads), "placement due");
        consider(self.enrolment.wake_at(now), "request");
        // Never later than a beat: timers may be late, never trusted.
        (wake.0.min(now + self.config.timing.beat).max(now), wake.1)
    }

    pub(crate) fn me(&self) -> NodeId {
        self.config.me.node
    }

    // --- control network -------------------------------------------------------------------------------

    fn on_view(&mut self, members: alloc::collections::BTreeSet<NodeId>) {
        let now = self.out.now;
        let gone = self.view.on_changed(members, now);
        gone.iter().for_each(|node| self.beats.on_gone(*node));
        self.note_flaps(&gone);
        let ask = self.election.on_view(&gone, now);
        self.on_ask(ask);
        // A new view is news: say at once who we are and whom we hear.
        self.beats.next = now;
    }

    fn note_flaps(&mut self, gone: &alloc::collections::BTreeSet<NodeId>) {
        let together = self.register.ledger().is_half(|node| self.view.contains(node));
        let who = |node: &NodeId| self.beats.heard(*node).map(|heard| heard.from);
        let gone: Vec<Identity> = gone.iter().filter_map(who).collect();
        self.view.flaps.on_view(self.config.me, &gone, together, self.out.now);
    }

    fn on_message(&mut self, sender: NodeId, message: Message) {
        let from = message.from;
        if from.node != sender || from.node == self.me() && from != self.config.me {
            return;
        }
        let now = self.out.now;
        if let Some(absurd) = self.absurdity(&message.body) {
            let text = alloc::format!("a message of node {sender} is dropped: {absurd}");
            self.out.record(Note::new(Kind::Alarm, "PROTOCOL 2", text).node(sender));
            return;
        }
        match message.body {
            Body::Beat(beat) => {
                for bound in &beat.bounds {
                    self.fencing.on_bound(from.node, bound, now);
                }
                self.election.on_beat(from, &beat, now);
                self.view.flaps.on_heard(from, &self.config, now);
                self.beats.on_received(from, beat, now);
                self.renew_by_network();
            }
            Body::Committed(committed) => self.on_committed_heard(from, &committed),
            Body::Ballot(ballot) => {
                let ask = self.election.on_ballot(from.node, &ballot, now);
                self.on_ask(ask);
            }
            Body::Close { round } => {
                let ledger = self.register.ledger();
                if self.election.on_close(round, &facts_of!(self, &ledger), &mut self.out) {
                    self.tell_winner(&ledger);
                }
            }
            Body::Confirm { round, winner } => {
                let ledger = self.register.ledger();
                let facts = facts_of!(self, &ledger);
                let ask = self.election.on_confirm(from.node, round, winner, &facts);
                self.on_ask(ask);
            }
            Body::Decline { round, reason } => {
                let ask = self.election.on_decline(from.node, round, &reason, now);
                self.on_ask(ask);
            }
            Body::Leading { term } => self.on_leading(from, term),
            Body::StartVm(order) => self.on_start_order(order),
            Body::Request(request) => {
                if self.register.leading().is_some() {
                    self.enrolment.on_request(from, request, now);
                }
            }
            Body::Reply(reply) if reply.to == self.config.me => {
                self.enrolment.on_reply(&reply, &mut self.out);
            }
            Body::MigrateVm(order) => self.on_migrate_order(order),
            Body::Reply(_) => {}
        }
    }

    /// A number that no history can have led to: one bad message must not poison every node.
    fn absurdity(&self, body: &Body) -> Option<String> {
        let (term, round) = match body {
            Body::Beat(beat) => (beat.term, 0),
            Body::Committed(committed) => (committed.stamp.ballot.term, 0),
            Body::Ballot(ballot) => (ballot.term, ballot.round),
            Body::Leading { term } => (*term, 0),
            Body::StartVm(order) => (order.term, 0),
            Body::MigrateVm(order) => (order.term, 0),
            _ => return None,
        };
        let known = self.election.highest_term.max(self.register.highest.term);
        let excess = |what: &str, got: u64, known: u64| {
            let far = got > known.saturating_add(LEAP);
            far.then(|| alloc::format!("{what} {got}, known {known}"))
        };
        excess("term", term, known).or_else(|| excess("round", round, self.election.round))
    }

    fn on_leading(&mut self, from: Identity, term: u64) {
        let before = self.election.leader;
        self.election.on_leading(from, term, self.out.now);
        if self.election.leader != before {
            let name = self.register.ledger().name(from.node);
            let text = alloc::format!("{name} leads, term {term}");
            self.out.record(Note::new(Kind::Elected, "PROTOCOL 6", text).node(from.node));
        }
    }

    fn on_committed_heard(&mut self, from: Identity, committed: &Committed) {
        self.election.highest_term = self.election.highest_term.max(committed.stamp.ballot.term);
        for (node, eviction) in &committed.evicted {
            self.beats.bar(*node, *eviction);
            if *node == self.me() {
                self.on_own_eviction(*eviction, "the leader said so");
            }
        }
        self.register.on_committed_heard(committed.stamp);
        if from != self.config.me {
            self.heartbeat.hurry(self.out.now, Millis(0));
        }
        self.on_ledger(None);
    }

    pub(crate) fn renew_by_network(&mut self) {
        let ledger = self.register.ledger();
        let basis = self.beats.network_basis(&ledger);
        let basis = if mutant!(NetworkBasisAtEnd) { basis.and(Some(self.out.now)) } else { basis };
        self.lease.on_network_evidence(basis);
    }

    pub(crate) fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::None => {}
            Outcome::TermStands => self.on_term_stands(),
            Outcome::Barred => {
                let (now, why) = (self.out.now, "the ledger does not let it lead");
                self.election.decline(why, now, &mut self.out);
            }
            Outcome::Beaten { by, led } => self.on_beaten(by, led),
            Outcome::Committed { before } => self.on_committed(&before),
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        if let Some(text) = self.election.news() {
            self.out.record(Note::new(Kind::Election, "PROTOCOL 6", text));
        }
        match ask {
            Ask::Nothing => {}
            Ask::Priority => self.ask_priority(),
            Ask::Claim => self.claim(),
            Ask::Abandon => self.step_down(),
        }
    }

    fn elect(&mut self) {
        self.answer_priority_if_late();
        let ledger = self.register.ledger();
        let trouble = self.leader_trouble(&ledger);
        let ask = self.election.on_time(&facts_of!(self, &ledger), trouble, &mut self.out);
        self.on_ask(ask);
    }

    /// The ledger as it is known now.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        self.register.ledger()
    }

    /// The newest ledger body that this machine takes for committed.
    #[must_use]
    pub fn proved(&self) -> Option<Stamp> {
        self.register.proved().map(|known| known.stamp)
    }

    /// When this node's youngest evidence began, in own time: its lease is good until L later.
    #[must_use]
    pub fn basis(&self) -> Option<Instant> {
        self.lease.basis()
    }

    fn beat_if_due(&mut self) {
        if self.out.now >= self.beats.next && !self.view.members.is_empty() {
            let beat = self.compose_beat();
            self.out.send(Body::Beat(Box::new(beat)));
        } else if self.view.members.is_empty() {
            self.beats.next = self.out.now + self.config.timing.beat;
        }
    }
}

#[cfg(test)]
#[path = "tests/machine.rs"]
mod tests;
