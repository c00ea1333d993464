//! Who may lead and who makes room: this node's ballot, what is wrong with the known leader, and when this one resigns
//! (PROTOCOL section 6). The rounds themselves are `election.rs`.

use crate::action::Action;
use crate::decision::{Asked, Kind, PolicyRecord};
use crate::event::Decider;
use crate::ids::NodeId;
use crate::ledger::Ledger;
use crate::liveness::{Facts, facts_of};
use crate::machine::Machine;
use crate::message::ElectionBallot;
use crate::outbox::Note;
use crate::time::{Instant, Millis};
use alloc::{boxed::Box, vec::Vec};
use steadfast_sdk::wire::{NodePriorityQuestion, NodePriorityVerdict};

/// A question about this node's priority that is out.
#[derive(Debug)]
pub(crate) struct PriorityAsked {
    pub id: u64,
    /// From then on the built-in priority counts.
    pub deadline: Instant,
    pub question: NodePriorityQuestion,
}

/// What is wrong with the known leader.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    /// It is not heard: its next beat ends the doubt.
    Absent(&'static str),
    /// It beats and cannot work: its beats say nothing new.
    Stuck(&'static str),
}

impl Facts<'_> {
    /// It could lead: the ledger lets it, it is in the view and beats, its storage works, and nobody wants it empty.
    fn is_fit_to_lead(&self, node: NodeId) -> bool {
        let present = self.view.contains(node) && self.is_beating(node) && self.has_storage(node);
        present && self.ledger.may_lead(node) && !self.ledger.wants_empty(node)
    }

    /// The operator wants `node` empty and another is fit to lead. When all are in maintenance, one leads all the same.
    fn makes_room(&self, node: NodeId) -> bool {
        let mut others = self.ledger.nodes.keys().filter(|other| **other != node);
        self.ledger.wants_empty(node) && others.any(|other| self.is_fit_to_lead(*other))
    }
}

impl Machine {
    pub(crate) fn ask_priority(&mut self) {
        if self.priority_asked.is_some() {
            return;
        }
        let now = self.out.now;
        let id = self.out.id();
        let question = self.priority_question();
        let (policy, asked) = (self.policies.active, Box::new(question.clone()));
        self.out.push(Action::AskPriority { id, policy, question: asked });
        let deadline = now + self.config.timing.policy_deadline;
        self.priority_asked = Some(PriorityAsked { id, deadline, question });
    }

    /// Every node computes the winner from the same ballots, and says why it is the one.
    pub(crate) fn tell_winner(&mut self, ledger: &Ledger) {
        let Some(winner) = self.election.winner else { return };
        let builtin = self.election.uses_builtin();
        let name = ledger.name(winner);
        let by = if builtin { "the built-in priority, for policies differ" } else { "priority" };
        let text = alloc::format!("{name} wins round {} by {by}", self.election.round);
        let mut note = Note::new(Kind::Election, "PROTOCOL 6", text).node(winner);
        for (node, ballot) in &self.election.ballots {
            note = note.fact(&ledger.name(*node), ballot.summary(builtin));
        }
        // How this node came to its own ballot.
        if let Some(record) = self.priority_record.take() {
            let reasons = record.reasons_for_node(self.out.next_record());
            note = note.reasons(reasons).policy(Some(record));
        }
        self.out.record(note);
    }

    fn priority_question(&self) -> NodePriorityQuestion {
        let now_ms = self.out.now.0;
        let seed = u64::from(self.me().0) << 32 | self.election.round;
        NodePriorityQuestion { now_ms, seed, node: self.own_facts() }
    }

    /// A policy that is late loses its say, not the election.
    pub(crate) fn answer_priority_if_late(&mut self) {
        let now = self.out.now;
        let is_late = |asked: &mut PriorityAsked| now >= asked.deadline && !mutant!(PolicyAwaited);
        if let Some(PriorityAsked { question, .. }) = self.priority_asked.take_if(is_late) {
            let verdict = (self.config.builtin.node_priority)(&question);
            let (name, kind) = ("built-in".into(), "built_in".into());
            self.on_priority(question, verdict, Decider { name, kind, ..Decider::default() });
        }
    }

    pub(crate) fn on_priority(
        &mut self,
        question: NodePriorityQuestion,
        verdict: NodePriorityVerdict,
        decider: Decider,
    ) {
        let builtin = (self.config.builtin.node_priority)(&question).score.value;
        let (priority, asked) = (verdict.score.clone(), Asked::NodePriority { question, verdict });
        let age = self.heartbeat.age(self.out.now);
        let ballot = ElectionBallot {
            round: 0,
            priority,
            decider: decider.name.clone(),
            policy: decider.digest,
            builtin,
            eligible: self.is_eligible(),
            storage_ok: age.is_some_and(|age| age < self.config.timing.lease),
            term: self.register.highest.term.max(self.election.highest_term),
        };
        self.priority_record = Some(PolicyRecord { decider, asked, corrections: Vec::new() });
        self.election.on_priority(ballot, &mut self.out);
    }

    /// Has read the ledger, which lets it lead; writes its own page; and need not make room.
    fn is_eligible(&self) -> bool {
        let ledger = self.register.ledger();
        let ready = self.register.known().is_some() && !self.heartbeat.is_halted();
        ready && ledger.may_lead(self.me()) && !facts_of!(self, &ledger).makes_room(self.me())
    }

    /// Why the known leader does not work, if it does not.
    pub(crate) fn leader_trouble(&self, ledger: &Ledger) -> Option<Trouble> {
        let leader = self.election.leader?.who;
        let timing = &self.config.timing;
        if leader.node == self.me() {
            let leads = self.register.leading().is_some();
            return (!leads).then_some(Trouble::Absent("this node leads no more"));
        }
        if !self.view.contains(leader.node) {
            return Some(Trouble::Absent("the leader is not in the view"));
        }
        if self.beats.silence(leader.node, self.out.now) >= Millis(timing.lease.0 / 2) {
            return Some(Trouble::Absent("the leader is in the view and silent"));
        }
        let facts = facts_of!(self, ledger);
        if facts.is_storage_isolated(leader.node) {
            return Some(Trouble::Stuck("the leader has no storage, a majority has"));
        }
        let silent = facts.is_page_silent_for(leader.node, timing.storage_isolation);
        let silent = silent && facts.enough_have_storage();
        let why = "the leader's page is silent, a majority's cycles finish";
        silent.then_some(Trouble::Stuck(why))
    }

    pub(crate) fn claim(&mut self) {
        let now = self.out.now;
        if self.register.known().is_none() || self.heartbeat.is_halted() {
            self.election.decline("it has not read the ledger yet", now, &mut self.out);
        } else if !self.register.ledger().may_lead(self.me()) {
            self.election.decline("the ledger does not let it lead", now, &mut self.out);
        } else {
            self.register.begin(self.election.highest_term);
        }
    }

    /// A leader that cannot work, or is not wanted, makes room for another. A commit under way is finished first if it can be.
    pub(crate) fn resigned(&mut self, ledger: &Ledger) -> bool {
        let facts = facts_of!(self, ledger);
        if facts.is_storage_isolated(self.me()) {
            self.resign("it has no storage, a majority has");
            return true;
        }
        let unwanted = !self.register.is_busy() && facts.makes_room(self.me());
        if unwanted {
            self.resign("an operator wants it empty, another can lead");
        }
        unwanted
    }

    fn resign(&mut self, why: &str) {
        let text = alloc::format!("this node leads no more: {why}");
        self.out.record(Note::new(Kind::Deposed, "PROTOCOL 6", text).node(self.me()));
        self.step_down();
        self.beats.next = self.out.now;
    }

    /// The configured nodes changed and everybody has read it: all of them elect, if nothing more urgent is under way.
    pub(crate) fn on_reconfigured(&mut self, ledger: &Ledger) {
        if ledger.evictions().all(|(_, eviction)| eviction.proof.is_some()) {
            self.resign("the configured nodes have changed, they elect");
        }
    }
}

#[cfg(test)]
#[path = "tests/candidacy.rs"]
mod tests;
