//! Beats and echoes: the network kind of evidence, and the promises that bound it (PROTOCOL sections 4 and 5).
//!
//! A beat carries, for each node, the newest beat heard of it. When a majority of the configured nodes (this one
//! counted) have echoed the beat that this node sent at `basis`, its lease is good until `basis + L`: content counts,
//! arrival times do not. Only a node that the newest body read admits is echoed; one whose eviction was read or heard is
//! never echoed again, until a committed body with a higher stamp admits it.

use crate::config::Config;
use crate::guest::GuestReport;
use crate::ids::{Identity, NodeId, Stamp, VmId};
use crate::ledger::Ledger;
use crate::message::{Beat, Bound, Echo};
use crate::quorum::NodeSet;
use crate::time::{Instant, Millis};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

/// Beats remembered as sent. Covers a lease of 60 s at beats of 250 ms.
const SENT_LIMIT: usize = 256;
/// So few are found as quickly one after the other.
const FEW: usize = 8;

/// The newest beat of one node.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Its boot and incarnation.
    pub from: Identity,
    /// What it said.
    pub beat: Box<Beat>,
    /// When it arrived here, in own time.
    pub received: Instant,
    /// When this incarnation of it was first heard.
    pub since: Instant,
    /// It left the view after this beat: what it said of its guests is history, not a statement any more.
    pub stale: bool,
    /// A number of what it says of its guests: the same while it says the same. Never 0.
    pub said: u64,
    /// Its VMs are named in order, each once.
    in_order: bool,
}

impl Heard {
    /// `beat` of `from` says the same of guests, and of who is to start them.
    fn says_the_same(&self, from: Identity, beat: &Beat) -> bool {
        let leased = |beat: &Beat| beat.lease_left.is_some();
        self.from == from && leased(&self.beat) == leased(beat) && self.beat.guests == beat.guests
    }

    /// What it says of a VM.
    pub fn report(&self, vm: &VmId) -> Option<&GuestReport> {
        let reports = &self.beat.guests;
        if self.in_order && reports.len() > FEW {
            let found = reports.binary_search_by(|report| report.vm.cmp(vm));
            return found.ok().map(|k| &reports[k]);
        }
        reports.iter().find(|report| report.vm == *vm)
    }
}

/// Own beats, those heard, and whom not to echo.
#[derive(Debug)]
pub(crate) struct Beats {
    me: Identity,
    started: Instant,
    number: u64,
    sent: VecDeque<(u64, Instant)>,
    /// When the next own beat is due.
    pub next: Instant,
    heard: BTreeMap<NodeId, Heard>,
    /// Sayings counted so far.
    sayings: u64,
    echoed_of_mine: BTreeMap<NodeId, u64>,
    newest_echoed: BTreeMap<NodeId, Instant>,
    barred: BTreeMap<NodeId, Stamp>,
    /// Whom the newest body that was read admits: nobody else is echoed. A node that was removed, or removed and added anew, may
    /// act on an admission whose eviction no body tells any more to an agent that starts now.
    admitted: BTreeSet<NodeId>,
    read: Stamp,
    may_echo: bool,
}

impl Beats {
    pub fn new(me: Identity, now: Instant) -> Self {
        Self {
            me,
            started: now,
            number: 0,
            sent: VecDeque::new(),
            next: now,
            heard: BTreeMap::new(),
            sayings: 0,
            echoed_of_mine: BTreeMap::new(),
            newest_echoed: BTreeMap::new(),
            barred: BTreeMap::new(),
            admitted: BTreeSet::new(),
            read: Stamp::default(),
            may_echo: false,
        }
    }

    /// One full read of the pages and of the newest body is done in this incarnation.
    pub fn permit_echoes(&mut self) {
        self.may_echo = true;
    }

    pub fn heard(&self, node: NodeId) -> Option<&Heard> {
        self.heard.get(&node)
    }

    /// Time since the last beat of `node`; since the start of this incarnation if none was heard.
    pub fn silence(&self, node: NodeId, now: Instant) -> Millis {
        now.since(self.heard.get(&node).map_or(self.started, |heard| heard.received))
    }

    /// A beat arrived. Older ones of the same incarnation are no news.
    pub fn on_received(&mut self, from: Identity, beat: Box<Beat>, now: Instant) {
        let known = self.heard.get(&from.node);
        let older = |heard: &Heard| {
            let same_boot = heard.from.boot == from.boot;
            let order = (from.incarnation, beat.number);
            same_boot && (heard.from.incarnation, heard.beat.number) >= order
        };
        if known.is_some_and(older) {
            return;
        }
        let same = known.filter(|heard| heard.from == from);
        let since = same.map_or(now, |heard| heard.since);
        let said = known.filter(|heard| heard.says_the_same(from, &beat)).map(|heard| heard.said);
        let said = said.unwrap_or_else(|| {
            self.sayings += 1;
            self.sayings
        });
        let in_order = beat.guests.is_sorted_by(|a, b| a.vm < b.vm);
        self.count_echo(from.node, &beat);
        let heard = Heard { from, beat, received: now, since, stale: false, said, in_order };
        self.heard.insert(from.node, heard);
    }

    fn count_echo(&mut self, by: NodeId, beat: &Beat) {
        let mine = |echo: &&Echo| {
            let same = (echo.boot, echo.incarnation) == (self.me.boot, self.me.incarnation);
            echo.node == self.me.node && (same || mutant!(EchoOfEarlierLife))
        };
        if let Some(echo) = beat.echoes.iter().find(mine) {
            let newest = self.echoed_of_mine.entry(by).or_default();
            *newest = (*newest).max(echo.beat);
        }
    }

    /// A node left the view.
    pub fn on_gone(&mut self, node: NodeId) {
        if let Some(heard) = self.heard.get_mut(&node) {
            heard.stale = true;
        }
    }

    /// The youngest instant at which this node sent a beat that a majority (itself counted) has echoed.
    pub fn network_basis(&self, ledger: &Ledger) -> Option<Instant> {
        let newest = self.sent.back()?.0;
        if mutant!(LeaseWithoutEchoes) {
            return self.sent.back().map(|(_, at)| *at);
        }
        // An echo of what was never sent is none.
        let is_mine = |number: u64| number <= newest || mutant!(EchoOfEarlierLife);
        let echo = |node| self.echoed_of_mine.get(&node).filter(|number| is_mine(**number));
        let own = |node| (node == self.me.node).then_some(newest);
        let echoed = |node| own(node).or(echo(node).copied()).unwrap_or(0);
        let number = echoed_by_majorities(ledger, echoed);
        let is_it = |sent: u64| sent == number || sent < number && mutant!(EchoOfEarlierLife);
        self.sent.iter().rev().find(|(sent, _)| is_it(*sent)).map(|(_, at)| *at)
    }

    /// Numbers the next own beat and says what it echoes. Own time is taken before it is sent: the safe side.
    pub fn begin_beat(&mut self, config: &Config, now: Instant) -> (u64, Vec<Echo>) {
        self.number += 1;
        self.sent.push_back((self.number, now));
        if self.sent.len() > SENT_LIMIT {
            self.sent.pop_front();
        }
        self.next = now + config.timing.beat;
        (self.number, self.echoes())
    }

    fn echoes(&mut self) -> Vec<Echo> {
        if !self.may_echo && !mutant!(EchoBeforeFirstRead) {
            return Vec::new();
        }
        let mut echoes = Vec::new();
        for (node, heard) in &self.heard {
            // Before any body there is no admission that somebody could act on.
            let stranger = self.read > Stamp::default() && !self.admitted.contains(node);
            let barred = self.barred.contains_key(node) || stranger;
            if *node == self.me.node || barred && !mutant!(EvictedEchoed) {
                continue;
            }
            self.newest_echoed.insert(*node, heard.received);
            echoes.push(Echo {
                node: *node,
                boot: heard.from.boot,
                incarnation: heard.from.incarnation,
                beat: heard.beat.number,
            });
        }
        echoes
    }

    /// An eviction was read or heard, rumours included.
    pub fn bar(&mut self, node: NodeId, eviction: Stamp) {
        let bar = self.barred.entry(node).or_insert(eviction);
        *bar = (*bar).max(eviction);
    }

    /// A body was read. Every body bars; only a committed one with a higher stamp than the bar restores.
    pub fn on_ledger(&mut self, stamp: Stamp, ledger: &Ledger, proved: bool) {
        if stamp > self.read && (proved || !mutant!(RumourEchoed)) {
            self.read = stamp;
            let admitted = |node: &&NodeId| ledger.admission(**node).is_some();
            self.admitted = ledger.nodes.keys().filter(admitted).copied().collect();
        }
        for (node, eviction) in ledger.evictions().filter(|_| proved || !mutant!(RumourEchoed)) {
            self.bar(node, eviction.since);
        }
        if proved {
            let older = |bar| stamp <= bar && !mutant!(OlderBodyRestores);
            self.barred.retain(|node, bar| older(*bar) || ledger.admission(*node).is_none());
        }
    }

    /// When the newest beat of `victim` that this node ever echoed was received, or this incarnation began.
    pub fn newest_echoed(&self, victim: NodeId) -> Instant {
        self.newest_echoed.get(&victim).copied().unwrap_or_default().max(self.started)
    }

    /// Rule 4's answers: for every eviction known, how old the newest echoed beat is. Told only while barred.
    pub fn bounds(&self, ledger: &Ledger, now: Instant) -> Vec<Bound> {
        let answer = |(victim, eviction): (NodeId, &crate::ledger::Eviction)| {
            self.barred.contains_key(&victim).then(|| Bound {
                victim,
                eviction: eviction.since,
                age: now.since(self.newest_echoed(victim)),
            })
        };
        ledger.evictions().filter(|(_, e)| e.proof.is_none()).filter_map(answer).collect()
    }

    pub fn started(&self) -> Instant {
        self.started
    }
}

/// The newest beat that majorities of both sets have echoed; 0 if none. Half of a set renews nobody's lease by network, whatever the
/// witness says.
fn echoed_by_majorities(ledger: &Ledger, echoed: impl Fn(NodeId) -> u64) -> u64 {
    let in_set = |set: NodeSet<'_>| {
        let mut numbers = set.values(&echoed);
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.get(numbers.len() / 2).copied().unwrap_or(0)
    };
    ledger.sets().map(in_set).min().unwrap_or(0)
}

#[cfg(test)]
#[path = "tests/beats.rs"]
mod tests;
