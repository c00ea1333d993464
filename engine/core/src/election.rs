//! Election: ballots -> winner -> term (PROTOCOL section 6).
//!
//! Every member asks its node-priority policy about itself and multicasts a ballot. The lowest node of the view multicasts
//! `Close`; CPG order makes the ballots before it the same for all, so everybody computes the same winner and
//! confirms it. On confirms of enough nodes (`quorum.rs`) the winner begins its term in the ledger: the ledger, not this file,
//! makes sure that there is one leader a term. Every step has a time-out: a silent member never blocks a round.

use crate::candidacy::Trouble;
use crate::config::Config;
use crate::ids::{Identity, NodeId};
use crate::liveness::Facts;
use crate::message::{Beat, Body, ElectionBallot};
use crate::outbox::Outbox;
use crate::time::{Instant, Millis};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};

/// A winner that cannot begin its term within this says so.
const CLAIM_TIMEOUT: Millis = Millis(4_000);
/// Beats that a leader unknown to us has to make itself heard before we elect another.
const LISTEN_BEATS: u64 = 3;

/// Where this node is in an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Too few nodes in view, or this one is not configured.
    Waiting,
    /// A leader works, or is being listened for.
    Following,
    /// Ballots come in.
    Collecting,
    /// The winner is computed; confirms come in.
    Confirming,
    /// This node won and begins its term.
    Claiming,
}

/// The leader that this node obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub who: Identity,
    pub term: u64,
}

/// What the election asks of the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Nothing.
    Nothing,
    /// Ask the policy about this node, then give the answer to [`Election::on_priority`].
    Priority,
    /// Begin a term in the ledger.
    Claim,
    /// Stop beginning it.
    Abandon,
}

/// The election's state.
#[derive(Debug)]
pub(crate) struct Election {
    me: Identity,
    pub phase: Phase,
    pub round: u64,
    pub reason: String,
    pub ballots: BTreeMap<NodeId, ElectionBallot>,
    confirms: BTreeMap<NodeId, NodeId>,
    declined: BTreeSet<NodeId>,
    pub winner: Option<NodeId>,
    pub leader: Option<Leader>,
    /// A leader that beats and cannot work, and until when its beats do not end the election that this began.
    doubted: Option<(Leader, Instant)>,
    /// Highest term heard of in any message.
    pub highest_term: u64,
    began: Instant,
    phase_since: Instant,
    sent: bool,
    close_sent: bool,
    /// The last round that was told of.
    told: u64,
}

impl Election {
    pub fn new(me: Identity, now: Instant) -> Self {
        Self {
            me,
            phase: Phase::Waiting,
            round: 0,
            reason: String::new(),
            ballots: BTreeMap::new(),
            confirms: BTreeMap::new(),
            declined: BTreeSet::new(),
            winner: None,
            leader: None,
            doubted: None,
            highest_term: 0,
            began: now,
            phase_since: now,
            sent: false,
            close_sent: false,
            told: 0,
        }
    }

    /// A round that began and has not been told of.
    pub fn news(&mut self) -> Option<String> {
        let new = self.phase == Phase::Collecting && self.round != self.told;
        new.then(|| {
            self.told = self.round;
            alloc::format!("election round {} begins: {}", self.round, self.reason)
        })
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.phase_since = now;
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Collecting | Phase::Confirming | Phase::Claiming)
    }

    /// The view changed. A round is void when one of its voters left, never by a joiner.
    pub fn on_view(&mut self, gone: &BTreeSet<NodeId>, now: Instant) -> Ask {
        self.declined.clear();
        let leader_left = self.leader.is_some_and(|leader| gone.contains(&leader.who.node));
        if leader_left {
            self.leader = None;
            self.reason = "the leader left the view".into();
        }
        let voter_left = gone.iter().any(|node| self.ballots.contains_key(node));
        if self.is_running() && (voter_left || leader_left) {
            return self.start("a voter left the view", now);
        }
        if leader_left { self.start("the leader left the view", now) } else { Ask::Nothing }
    }

    /// A beat tells who leads.
    pub fn on_beat(&mut self, from: Identity, beat: &Beat, now: Instant) {
        self.highest_term = self.highest_term.max(beat.term);
        if beat.leading {
            self.on_leading(from, beat.term, now);
        } else if self.leader.is_some_and(|leader| leader.who.node == from.node) {
            self.leader = None;
        }
    }

    /// A term stands.
    pub fn on_leading(&mut self, from: Identity, term: u64, now: Instant) {
        let older = self.leader.is_some_and(|leader| leader.term > term);
        if older || term < self.highest_term {
            return;
        }
        self.highest_term = term;
        let leader = Leader { who: from, term };
        let doubted = self.doubted.filter(|(who, until)| *who == leader && now < *until);
        if doubted.is_some() && self.is_running() {
            return;
        }
        self.doubted = None;
        self.leader = Some(leader);
        self.declined.clear();
        if self.phase != Phase::Following {
            self.enter(Phase::Following, now);
        }
    }

    /// This node leads no more.
    pub fn on_deposed(&mut self, now: Instant) {
        if self.leader.is_some_and(|leader| leader.who == self.me) {
            self.leader = None;
        }
        if self.phase == Phase::Claiming {
            self.enter(Phase::Following, now);
        }
    }

    fn start(&mut self, reason: &str, now: Instant) -> Ask {
        self.begin_round(self.round.saturating_add(1), reason, now)
    }

    fn begin_round(&mut self, round: u64, reason: &str, now: Instant) -> Ask {
        let claiming = self.phase == Phase::Claiming;
        self.round = round;
        self.reason = reason.into();
        self.ballots.clear();
        self.confirms.clear();
        self.winner = None;
        self.sent = false;
        self.close_sent = false;
        self.began = now;
        self.enter(Phase::Collecting, now);
        if claiming { Ask::Abandon } else { Ask::Priority }
    }

    /// What is due by time alone. `trouble`: the known leader does not work, and why.
    pub fn on_time(
        &mut self,
        facts: &Facts<'_>,
        trouble: Option<Trouble>,
        out: &mut Outbox,
    ) -> Ask {
        if !facts.ledger.nodes.contains_key(&self.me.node) || !facts.view_may_act() {
            let abandoned = self.phase == Phase::Claiming;
            if self.phase != Phase::Waiting {
                self.enter(Phase::Waiting, facts.now);
            }
            return if abandoned { Ask::Abandon } else { Ask::Nothing };
        }
        match self.phase {
            Phase::Waiting => {
                self.enter(Phase::Following, facts.now);
                Ask::Nothing
            }
            Phase::Following => self.watch_leader(facts, trouble),
            Phase::Collecting => self.collect(facts, out),
            Phase::Confirming => {
                self.restart_after(facts, 3, "the winner was not confirmed in time")
            }
            Phase::Claiming => self.claim(facts, out),
        }
    }

    fn watch_leader(&mut self, facts: &Facts<'_>, trouble: Option<Trouble>) -> Ask {
        if let Some(leader) = self.leader {
            let why = match trouble {
                None => return Ask::Nothing,
                Some(Trouble::Absent(why)) => why,
                Some(Trouble::Stuck(why)) => {
                    // Long enough for a round without its ballot that the second in turn closes.
                    let until = facts.now + facts.config.timing.election_window * 4;
                    self.doubted = Some((leader, until));
                    why
                }
            };
            self.leader = None;
            return self.start(why, facts.now);
        }
        let listened = facts.now.since(self.phase_since.max(facts.view.since));
        if listened < facts.config.timing.beat * LISTEN_BEATS {
            return Ask::Nothing;
        }
        self.start("enough nodes are in view and nobody leads", facts.now)
    }

    fn restart_after(&mut self, facts: &Facts<'_>, windows: u64, reason: &str) -> Ask {
        let limit = facts.config.timing.election_window * windows;
        if facts.now.since(self.phase_since) < limit {
            return Ask::Nothing;
        }
        self.declined.clear();
        self.start(reason, facts.now)
    }

    /// Ballots of nodes that may act are in.
    fn has_quorum(&self, facts: &Facts<'_>) -> bool {
        facts.may_act(|node| self.ballots.contains_key(&node))
    }

    /// Sends `Close` when it is this node's turn.
    fn collect(&mut self, facts: &Facts<'_>, out: &mut Outbox) -> Ask {
        if !self.sent {
            return Ask::Priority;
        }
        let members = facts.view.configured(facts.ledger);
        let rank = members.take_while(|node| *node < self.me.node).count() as u64;
        let waited = facts.now.since(self.began);
        let window = facts.config.timing.election_window;
        let all = facts.view.configured(facts.ledger).all(|n| self.ballots.contains_key(&n));
        let enough = self.has_quorum(facts);
        // The lowest closes; after two windows the next-lowest does, and so on.
        let my_turn = waited >= window * 2 * rank;
        if !self.close_sent && my_turn && (all || enough && waited >= window * (2 * rank + 1)) {
            self.close_sent = true;
            out.send(Body::Close { round: self.round });
        }
        self.restart_after(facts, 8, "the round was not closed in time")
    }

    fn claim(&mut self, facts: &Facts<'_>, out: &mut Outbox) -> Ask {
        if facts.now.since(self.phase_since) < CLAIM_TIMEOUT {
            return Ask::Nothing;
        }
        self.decline("the ledger did not answer in time", facts.now, out);
        Ask::Abandon
    }

    /// "I won and cannot lead." The round begins anew without this node when the message comes back.
    pub fn decline(&mut self, reason: &str, now: Instant, out: &mut Outbox) {
        out.send(Body::Decline { round: self.round, reason: reason.into() });
        self.enter(Phase::Confirming, now);
    }

    /// This node's ballot is ready.
    pub fn on_priority(&mut self, mut ballot: ElectionBallot, out: &mut Outbox) {
        if self.phase != Phase::Collecting || self.sent {
            return;
        }
        self.sent = true;
        ballot.round = self.round;
        out.send(Body::Ballot(ballot));
    }

    /// A ballot was delivered.
    pub fn on_ballot(&mut self, from: NodeId, ballot: &ElectionBallot, now: Instant) -> Ask {
        self.highest_term = self.highest_term.max(ballot.term);
        // A node that knows a leader takes no part: the leader's beat will tell the others.
        let takes_part = self.leader.is_none() && self.phase != Phase::Waiting;
        let mut ask = Ask::Nothing;
        if ballot.round > self.round && takes_part {
            // Nobody declined the round that this ends: it failed, perhaps because nodes remember different refusals.
            if self.phase == Phase::Confirming {
                self.declined.clear();
            }
            ask = self.begin_round(ballot.round, "another node began an election", now);
        }
        self.round = self.round.max(ballot.round);
        if ballot.round == self.round && self.phase == Phase::Collecting {
            self.ballots.insert(from, ballot.clone());
        }
        ask
    }

    /// The first `Close` in agreed order counts. True if it was this.
    pub fn on_close(&mut self, round: u64, facts: &Facts<'_>, out: &mut Outbox) -> bool {
        let collecting = round == self.round && self.phase == Phase::Collecting;
        if !collecting || !self.has_quorum(facts) {
            return false;
        }
        self.winner = self.compute_winner(facts);
        if self.winner.is_some_and(|winner| self.declined.contains(&winner)) {
            self.declined.clear();
        }
        self.enter(Phase::Confirming, facts.now);
        if let Some(winner) = self.winner {
            out.send(Body::Confirm { round, winner });
        }
        true
    }

    /// Highest (eligible, working storage, priority), then the lowest node id. If policies differ between nodes, the
    /// built-in priority counts for all.
    fn compute_winner(&self, facts: &Facts<'_>) -> Option<NodeId> {
        let builtin = self.uses_builtin();
        let rank = |(node, ballot): &(&NodeId, &ElectionBallot)| {
            let priority = if builtin { ballot.builtin } else { ballot.priority.value };
            (ballot.eligible, ballot.storage_ok, priority, core::cmp::Reverse(**node))
        };
        let known = |node: &NodeId| facts.ledger.nodes.contains_key(node);
        let eligible = self.ballots.iter().filter(|(node, ballot)| ballot.eligible && known(node));
        let willing = eligible.clone().filter(|(node, _)| !self.declined.contains(node));
        // When everybody has declined, what they declined for may be over: all count again.
        willing.max_by_key(rank).or_else(|| eligible.max_by_key(rank)).map(|(node, _)| *node)
    }

    /// Policies differ between the ballots.
    pub fn uses_builtin(&self) -> bool {
        let mut digests = self.ballots.values().map(|ballot| ballot.policy);
        let first = digests.next();
        digests.any(|digest| Some(digest) != first)
    }

    /// A confirm was delivered. When those who agree may act, the winner claims its term.
    pub fn on_confirm(
        &mut self,
        from: NodeId,
        round: u64,
        winner: NodeId,
        facts: &Facts<'_>,
    ) -> Ask {
        if round != self.round || self.phase != Phase::Confirming {
            return Ask::Nothing;
        }
        self.confirms.insert(from, winner);
        let agrees = |node: NodeId| self.confirms.get(&node) == Some(&self.me.node);
        if self.winner != Some(self.me.node) || !facts.may_act(agrees) {
            return Ask::Nothing;
        }
        self.enter(Phase::Claiming, facts.now);
        Ask::Claim
    }

    /// The winner cannot lead: again, without it.
    pub fn on_decline(&mut self, from: NodeId, round: u64, reason: &str, now: Instant) -> Ask {
        if round != self.round || !self.is_running() {
            return Ask::Nothing;
        }
        self.declined.insert(from);
        let reason = alloc::format!("node {from} declined: {reason}");
        self.start(&reason, now)
    }

    /// When the machine must be woken for the election.
    pub fn wake_at(&self, config: &Config, now: Instant) -> Option<Instant> {
        let step = Millis(config.timing.election_window.0 / 4);
        self.is_running().then(|| now + step)
    }
}

#[cfg(test)]
#[path = "tests/election.rs"]
mod tests;
