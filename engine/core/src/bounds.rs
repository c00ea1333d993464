//! How long a failure may last: from the fault to the start order on another node, for every row of PROTOCOL section 5, with
//! its sum spelled out (PROTOCOL section 9).
//!
//! A bound holds for one fault in a cluster that is otherwise well: a majority is in view, some node can take the VM, nobody
//! waits for other VMs. Three things are not the protocol's to promise, so they are stated, and named in the sum:
//! how long a storage cycle takes, how long a fence agent takes, how long a clean stop takes. Everything else is a
//! time-out of ours, at its worst. Nothing here is used for a decision: safety never rests on a length of time but rule 4's.

use crate::config::{Timing, surely_dead};
use crate::time::Millis;
use crate::timing_lint::CLEAN_STOP;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// What the bounds assume of the world.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assumed {
    /// A storage cycle, ours or another node's, is over within this: (body,) page, all pages.
    pub cycle: Millis,
    /// A fence agent succeeds within this, at its first attempt.
    pub fence_agent: Millis,
    /// A node that is cut off says of its verification IPs that they are unreachable after this.
    pub verification: Millis,
    /// Rule 4 may be used: a watchdog is armed, and nothing pauses the node from outside.
    pub rule_4: bool,
}

impl Assumed {
    /// A storage cycle on an array that works: tens of milliseconds, now and then more.
    pub const WORKING_CYCLE: Millis = Millis(100);
    /// What fence agents of management boards usually take.
    pub const USUAL_FENCE_AGENT: Millis = Millis(2_000);
    /// Three rounds of a second each without an answer, and the round that the fault interrupts.
    pub const VERIFICATION: Millis = Millis(4_000);

    /// An array and a fence agent that work as they usually do.
    #[must_use]
    pub fn working(rule_4: bool) -> Self {
        Self {
            cycle: Self::WORKING_CYCLE,
            fence_agent: Self::USUAL_FENCE_AGENT,
            verification: Self::VERIFICATION,
            rule_4,
        }
    }

    /// Every storage cycle takes as long as it may, and the fence agent too.
    #[must_use]
    pub fn slowest(timing: &Timing, rule_4: bool) -> Self {
        Self {
            cycle: timing.storage_deadline,
            fence_agent: timing.fence_timeout,
            ..Self::working(rule_4)
        }
    }
}

/// A row of PROTOCOL section 5's table of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// Neither beats nor pages: power, kernel, all channels.
    FullFailure,
    /// The control network and the verification IPs are gone, storage is not.
    NetworkIsolation,
    /// The same, and its guests cannot be stopped.
    NetworkIsolationStuck,
    /// Storage is gone for one node.
    StorageIsolation,
    /// The same, and its guests hang with it.
    StorageIsolationStuck,
    /// The control network is gone, nothing else.
    Excluded,
    /// It leaves and comes back.
    NetworkUnstable,
}

impl Row {
    /// Every row.
    pub const ALL: [Self; 7] = [
        Self::FullFailure,
        Self::NetworkIsolation,
        Self::NetworkIsolationStuck,
        Self::StorageIsolation,
        Self::StorageIsolationStuck,
        Self::Excluded,
        Self::NetworkUnstable,
    ];

    /// The node lives, reads or hears of its eviction, stops its guests and says so.
    fn ends_by_own_word(self) -> bool {
        matches!(self, Self::NetworkIsolation | Self::StorageIsolation)
    }

    /// The words people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::FullFailure => "Full failure",
            Self::NetworkIsolation => "Network isolation",
            Self::NetworkIsolationStuck => "Network isolation, guests hang",
            Self::StorageIsolation => "Storage isolation",
            Self::StorageIsolationStuck => "Storage isolation, guests hang",
            Self::Excluded => "Excluded from HA cluster",
            Self::NetworkUnstable => "Network unstable",
        }
    }
}

/// Whom the fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Not the leader.
    Member,
    /// The leader: another has to be elected.
    Leader,
}

impl Role {
    /// The word people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Leader => "leader",
        }
    }
}

/// One summand.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// What passes, and how it is reckoned.
    pub name: String,
    /// How long, in milliseconds.
    #[serde(rename = "ms")]
    pub length: Millis,
}

/// How long one failure may last, from the fault to the start order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The row of PROTOCOL section 5.
    pub row: Row,
    /// Whom it hits.
    pub role: Role,
    /// A fence agent is configured for it.
    pub fence_agent: bool,
    /// The bound, in milliseconds; `None`: there is none, and the note says why.
    #[serde(rename = "total_ms")]
    pub total: Option<Millis>,
    /// How it adds up.
    pub terms: Vec<Term>,
    /// What else to know.
    pub note: String,
}

/// Every row, with and without a fence agent, for member and leader.
#[must_use]
pub fn bounds(timing: &Timing, assumed: &Assumed) -> Vec<Bound> {
    let mut all = Vec::new();
    for row in Row::ALL {
        for role in [Role::Member, Role::Leader] {
            for fence_agent in [true, false] {
                all.push(bound(timing, assumed, row, role, fence_agent));
            }
        }
    }
    all
}

/// The bound of one row: of the proofs that there are, the one that comes first.
#[must_use]
pub fn bound(timing: &Timing, assumed: &Assumed, row: Row, role: Role, fence_agent: bool) -> Bound {
    let sum = |proof| Sum::new(timing, assumed, role).of(row, proof);
    let by_agent = fence_agent.then(|| sum(By::FenceAgent));
    let by_time = assumed.rule_4.then(|| sum(By::Time));
    let own_word = row.ends_by_own_word().then(|| sum(By::OwnWord));
    let ways = [own_word, by_agent, by_time].into_iter().flatten();
    let terms = ways.min_by_key(|terms| total(terms));
    let moved = !matches!(row, Row::Excluded | Row::NetworkUnstable);
    let note = match &terms {
        _ if !moved => "nothing is moved, its VMs run on",
        None => "no bound: its VMs wait for its own word, its reboot, or an operator's fence agent",
        Some(_) => "",
    };
    let terms = terms.filter(|_| moved);
    let total = terms.as_deref().map(total);
    Bound { row, role, fence_agent, total, terms: terms.unwrap_or_default(), note: note.into() }
}

fn total(terms: &[Term]) -> Millis {
    terms.iter().fold(Millis(0), |sum, term| sum + term.length)
}

/// What proves an evicted node's VMs gone (PROTOCOL section 5, proofs 1, 2 and 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    OwnWord,
    FenceAgent,
    Time,
}

/// The sum of one row, as it grows along the path from the fault to the order.
struct Sum<'a> {
    timing: &'a Timing,
    assumed: &'a Assumed,
    role: Role,
    terms: Vec<Term>,
}

impl<'a> Sum<'a> {
    fn new(timing: &'a Timing, assumed: &'a Assumed, role: Role) -> Self {
        Self { timing, assumed, role, terms: Vec::new() }
    }

    // --- lengths ---------------------------------------------------------------------------------------

    /// From the beginning of a cycle to that of the next one.
    fn pace(&self) -> Millis {
        self.timing.beat.max(self.assumed.cycle)
    }

    /// From any instant to the end of the first of our cycles that begins after it.
    fn next_cycle(&self) -> Millis {
        self.pace() + self.assumed.cycle
    }

    /// A commit: the cycle under way ends, the next one is the commit's.
    fn commit(&self) -> Millis {
        self.assumed.cycle * 2
    }

    /// The latest instant at which a node gave a sign of life that died at 0: a last beat may arrive with the new view, a last
    /// page is seen by the next cycle.
    fn last_sign(&self) -> Millis {
        self.timing.membership.max(self.next_cycle())
    }

    /// From the leader's loss until another one's term stands: ballots, their window (looked at four times), three cycles.
    fn election(&self) -> Millis {
        let window = self.timing.election_window;
        let looks = Millis(window.0.div_ceil(4));
        self.timing.policy_deadline + window + looks + self.assumed.cycle * 3
    }

    // --- the path --------------------------------------------------------------------------------------

    fn add(&mut self, name: impl Into<String>, length: Millis) {
        if length > Millis(0) {
            self.terms.push(Term { name: name.into(), length });
        }
    }

    fn add_commit(&mut self, what: &str) {
        self.add(alloc::format!("{what}: 2 cycles"), self.commit());
    }

    /// Elections run while silence is waited for: only what is longer counts. `lost` is when the leader is missed.
    fn add_election_beyond(&mut self, lost: Millis) {
        if self.role == Role::Leader {
            let beyond = (lost + self.election()).less(total(&self.terms));
            self.add("election, as far as it takes longer than that", beyond);
        }
    }

    /// The node's VMs are proved gone: from here on every row is the same.
    fn add_relocation(&mut self) {
        self.add_commit("the proof's commit");
        self.add("placement policy's deadline", self.timing.policy_deadline);
        self.add_commit("placement's commit");
        self.add("clocks within 1 %", Millis(total(&self.terms).0.div_ceil(100)));
    }

    /// A fence agent's run: the page is read again first, and the term confirmed.
    fn add_fence_agent(&mut self) {
        self.add("page read again, term confirmed: 1 beat + 1 cycle", self.next_cycle());
        self.add("fence agent", self.assumed.fence_agent);
    }

    // --- the rows --------------------------------------------------------------------------------------

    fn of(mut self, row: Row, by: By) -> Vec<Term> {
        match (row, by) {
            (Row::FullFailure, By::Time) => self.add_full_failure_by_time(),
            (Row::FullFailure, _) => self.add_full_failure(),
            (Row::NetworkIsolation, _) => self.add_network_isolation(),
            (Row::NetworkIsolationStuck, _) => self.add_network_isolation_stuck(by),
            (Row::StorageIsolation, _) => self.add_storage_isolation(),
            (Row::StorageIsolationStuck, _) => self.add_storage_isolation_stuck(by),
            (Row::Excluded | Row::NetworkUnstable, _) => return Vec::new(),
        }
        self.add_relocation();
        self.terms
    }

    fn add_full_failure(&mut self) {
        let Timing { beat, membership, full_failure, .. } = *self.timing;
        let by_beats = membership + full_failure + beat;
        let by_pages = self.pace() * 3 + self.next_cycle();
        self.add(
            "silence: max(last beat with the new view + full failure + 1 beat, 4 beats + 1 cycle)",
            by_beats.max(by_pages),
        );
        self.add_election_beyond(membership);
        self.add_commit("the eviction's commit");
        self.add_fence_agent();
    }

    fn add_full_failure_by_time(&mut self) {
        let Timing { beat, lease, membership, .. } = *self.timing;
        self.add("last sign: max(token + consensus, 1 beat + 1 cycle)", self.last_sign());
        self.add_rule_4();
        // The eviction, the promises and the page read again come earlier, unless the array is at its slowest.
        let led = match self.role {
            Role::Member => Millis(0),
            Role::Leader => membership + self.election(),
        };
        let evicted = (self.last_sign() + lease + beat).max(led) + self.commit();
        let checked = evicted + beat + self.next_cycle();
        let beyond = checked.less(total(&self.terms));
        self.add("eviction and promises, as far as they take longer", beyond);
    }

    /// Until a network-isolated node has read its eviction.
    fn add_network_eviction(&mut self) {
        let Timing { beat, membership, network_isolation, .. } = *self.timing;
        let by_page = self.assumed.verification + self.next_cycle() * 2;
        self.add(
            "isolation seen: max(token + consensus, verification IPs + 2 beats + 2 cycles)",
            membership.max(by_page),
        );
        self.add("network isolation", network_isolation);
        self.add(NEXT_BEAT, beat);
        self.add_election_beyond(membership);
        self.add_commit("the eviction's commit");
        // Its next cycle shows the eviction, the one after it proves it.
        let again = Millis(beat.0.div_ceil(20)) + self.assumed.cycle;
        self.add("it reads that with proof: 1 beat + 2 cycles", self.next_cycle() + again);
    }

    fn add_network_isolation(&mut self) {
        self.add_network_eviction();
        self.add("clean stop", CLEAN_STOP);
        self.add("its page says none left: 2 cycles", self.commit());
        self.add("its page is read: 1 beat + 1 cycle", self.next_cycle());
    }

    /// It resets itself, or its watchdog does; its page moves until then.
    fn add_network_isolation_stuck(&mut self, by: By) {
        self.add_network_eviction();
        self.add("it resets itself: L + S", self.timing.span());
        self.add("its last page is read: 1 beat + 1 cycle", self.next_cycle());
        if by == By::Time {
            return self.add_rule_4();
        }
        self.add("its page is silent: L + S", self.timing.span());
        self.add("the next cycle: 1 beat + 1 cycle", self.next_cycle());
        self.add_commit("the fence order's commit");
        self.add_fence_agent();
    }

    /// Until the eviction of a storage-isolated node is committed, and told to it.
    fn add_storage_eviction(&mut self) {
        self.add("storage isolation", self.timing.storage_isolation);
        self.add(NEXT_BEAT, self.timing.beat);
        if self.role == Role::Leader {
            self.add("it resigns, election", self.election());
        }
        self.add_commit("the eviction's commit");
    }

    fn add_storage_isolation(&mut self) {
        self.add_storage_eviction();
        self.add("clean stop", CLEAN_STOP);
    }

    fn add_storage_isolation_stuck(&mut self, by: By) {
        self.add_storage_eviction();
        let beat = self.timing.beat;
        if by == By::Time {
            self.add("last echo of its beats: 1 beat", beat);
            return self.add_rule_4();
        }
        self.add("its own time first: L + S", self.timing.span());
        self.add(NEXT_BEAT, beat);
        self.add_commit("the fence order's commit");
        self.add_fence_agent();
    }

    fn add_rule_4(&mut self) {
        self.add("rule 4: (L + S) * 1.01 + 250 ms", surely_dead(self.timing.span()));
        self.add(NEXT_BEAT, self.timing.beat);
    }
}

/// Deadlines are looked at once a beat, at the latest.
const NEXT_BEAT: &str = "looked at by the next beat";

impl Bound {
    /// The sum in one line: `1500 ms full failure + ...`.
    #[must_use]
    pub fn sum(&self) -> String {
        let words = |term: &Term| alloc::format!("{} {}", term.length, term.name);
        let terms: Vec<String> = self.terms.iter().map(words).collect();
        terms.join(" + ")
    }
}

#[cfg(test)]
#[path = "tests/bounds.rs"]
mod tests;
