//! The ledger as a single-disk Disk Paxos register (E. Gafni, L. Lamport: "Disk Paxos", Distributed Computing 16(1), 2003).
//!
//! One disk, one writer a block, the whole state as the value. *Begin* a term: promise on our page, read all pages; nobody
//! else may have promised as much or more; adopt the newest body under our ballot, read all pages again. *Commit*: write
//! the body, write the page, read all pages; nobody above our ballot. *Read with proof*: the newest body, and a read of
//! all pages begun after it was seen that shows no promise above its ballot. The I/O is `heartbeat.rs`'s cycles.

use crate::feature_level::FeatureLevel;
use crate::heartbeat::Cycle;
use crate::ids::{Ballot, Digest, NodeId, Stamp};
use crate::ledger::{Ledger, LedgerError};
use crate::page::{Page, Pages};
use crate::time::Instant;
use alloc::{string::String, sync::Arc};

/// The newest body read.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its stamp.
    pub stamp: Stamp,
    /// What it says.
    pub ledger: Arc<Ledger>,
    /// Read with proof: committed. Otherwise a rumour: it starts nothing, stops nothing and admits nobody.
    pub proved: bool,
    /// When the read that first showed it was complete.
    shown: Instant,
}

/// A body of our own on its way to the disk. One (ballot, version) never has two bodies.
#[derive(Debug)]
struct OwnBody {
    stamp: Stamp,
    slot: u8,
    digest: Digest,
    bytes: Arc<[u8]>,
    ledger: Arc<Ledger>,
    state: OwnState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnState {
    Wanted,
    Writing,
    OnPage,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// The promise is to be written, then all pages read.
    Promising(Ballot),
    /// The newest body is being written under our ballot.
    Adopting(Ballot, OwnBody),
    /// The term stands.
    Leading(Ballot, Option<OwnBody>),
}

/// What a complete cycle meant for our ballot.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing new.
    None,
    /// Our term stands; the ledger is adopted under our ballot.
    TermStands,
    /// The ledger that we would adopt does not let this node lead.
    Barred,
    /// Somebody else promised as much or more: we give up. The change under way, if any, is *unknown*, not failed.
    Beaten { by: Ballot, led: bool },
    /// Our change is committed.
    Committed { before: Arc<Ledger> },
}

/// A body that a cycle needs before it is finished.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub stamp: Stamp,
    pub node: NodeId,
    pub slot: u8,
    pub digest: Digest,
}

/// Our block, what we know, and what we try.
#[derive(Debug)]
pub(crate) struct Register {
    me: NodeId,
    /// What this node speaks.
    level: FeatureLevel,
    genesis: Arc<Ledger>,
    promised: Ballot,
    accepted: Stamp,
    slot: u8,
    digest: Digest,
    role: Role,
    known: Option<Known>,
    /// Highest stamp that a leader said was committed.
    committed: Stamp,
    /// Highest ballot seen in any page.
    pub highest: Ballot,
    /// Begin of the youngest read that confirmed our term (leader) or the newest body (others).
    pub confirmed: Option<Instant>,
}

impl Register {
    pub fn new(me: NodeId, level: FeatureLevel, genesis: Ledger) -> Self {
        Self {
            me,
            level,
            genesis: Arc::new(genesis),
            promised: Ballot::default(),
            accepted: Stamp::default(),
            slot: 1,
            digest: Digest::default(),
            role: Role::Follower,
            known: None,
            committed: Stamp::default(),
            highest: Ballot::default(),
            confirmed: None,
        }
    }

    /// The first write of an incarnation carries over what the page on disk says. Its ballot died with its incarnation.
    pub fn adopt_page(&mut self, page: &Page) {
        self.promised = page.promised;
        self.accepted = page.accepted;
        self.slot = page.slot.min(1);
        self.digest = page.digest;
    }

    /// Fills in our block's part of the page.
    pub fn fill(&self, page: &mut Page) {
        page.promised = self.promised;
        page.accepted = self.accepted;
        page.slot = self.slot;
        page.digest = self.digest;
    }

    pub fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// The newest body, or the genesis before the first read.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.known.as_ref().map_or_else(|| self.genesis.clone(), |known| known.ledger.clone())
    }

    /// The newest body if it is proved.
    pub fn proved(&self) -> Option<&Known> {
        self.known.as_ref().filter(|known| known.proved)
    }

    /// Who leads by the ledger, if it was read with proof.
    pub fn ledger_leader(&self) -> Option<NodeId> {
        self.proved().map(|known| NodeId(known.stamp.ballot.node))
    }

    /// Our ballot, while our term stands.
    pub fn leading(&self) -> Option<Ballot> {
        match self.role {
            Role::Leading(ballot, _) => Some(ballot),
            _ => None,
        }
    }

    /// A begin or a commit is under way.
    pub fn is_busy(&self) -> bool {
        !matches!(self.role, Role::Follower | Role::Leading(_, None))
    }

    /// A proof of the newest body is wanted and a cycle could give it.
    pub fn wants_proof(&self) -> bool {
        self.known.as_ref().is_none_or(|k| !k.proved && self.highest <= k.stamp.ballot)
            || self.known.as_ref().is_some_and(|k| k.stamp < self.committed)
    }

    /// Begins a term above every term in any page or heard of.
    pub fn begin(&mut self, highest_heard: u64) -> Ballot {
        let term = highest_heard.max(self.highest.term).max(self.promised.term).saturating_add(1);
        let ballot = Ballot { term, node: self.me.0 };
        self.promised = ballot;
        self.role = Role::Promising(ballot);
        ballot
    }

    /// Leads no more, begins nothing. What was written stays on the page.
    pub fn resign(&mut self) {
        self.role = Role::Follower;
    }

    /// Starts a commit. False if the term does not stand or a commit is under way.
    pub fn commit(&mut self, next: Ledger) -> bool {
        let Role::Leading(ballot, None) = self.role else { return false };
        let Some(known) = &self.known else { return false };
        let stamp = Stamp { ballot, version: known.stamp.version + 1 };
        self.role = Role::Leading(ballot, Some(self.own_body(stamp, Arc::new(next))));
        true
    }

    /// What a commit under way will say, if it lands.
    pub fn committing(&self) -> Option<&Ledger> {
        match &self.role {
            Role::Leading(_, Some(own)) => Some(&own.ledger),
            _ => None,
        }
    }

    /// The stamp that the next commit will have.
    pub fn next_stamp(&self) -> Option<Stamp> {
        let known = self.known.as_ref()?;
        self.leading().map(|ballot| Stamp { ballot, version: known.stamp.version + 1 })
    }

    fn own_body(&self, stamp: Stamp, ledger: Arc<Ledger>) -> OwnBody {
        let bytes: Arc<[u8]> = ledger.encode().into();
        let digest = Digest::of(&bytes);
        // Never the slot that the page on disk may name.
        let slot = if mutant!(BodyInNamedSlot) { self.slot } else { 1 - self.slot };
        OwnBody { stamp, slot, digest, bytes, ledger, state: OwnState::Wanted }
    }

    fn own(&mut self) -> Option<&mut OwnBody> {
        match &mut self.role {
            Role::Adopting(_, own) | Role::Leading(_, Some(own)) => Some(own),
            _ => None,
        }
    }

    fn own_stamp(&self) -> Option<Stamp> {
        match &self.role {
            Role::Adopting(_, own) | Role::Leading(_, Some(own)) => Some(own.stamp),
            _ => None,
        }
    }

    /// A body to write before the next page, once.
    pub fn take_body(&mut self) -> Option<(u8, Arc<[u8]>)> {
        let own = self.own().filter(|own| own.state == OwnState::Wanted)?;
        own.state = OwnState::Writing;
        Some((own.slot, own.bytes.clone()))
    }

    /// The body is on disk: the next page names it. A body whose ballot was lost meanwhile is never named.
    pub fn on_body_written(&mut self) {
        let Some(own) = self.own().filter(|own| own.state == OwnState::Writing) else { return };
        own.state = OwnState::OnPage;
        let (stamp, slot, digest) = (own.stamp, own.slot, own.digest);
        (self.accepted, self.slot, self.digest) = (stamp, slot, digest);
    }

    /// A leader says that `stamp` is committed.
    pub fn on_committed_heard(&mut self, stamp: Stamp) {
        self.committed = self.committed.max(stamp);
        if let Some(known) = self.known.as_mut().filter(|known| known.stamp == stamp) {
            known.proved = true;
        }
    }

    /// The newest body in `pages`, if it is not the one we know.
    pub fn wanted(&self, pages: &Pages) -> Option<Wanted> {
        let newest = pages.values().flatten().max_by_key(|page| page.accepted)?;
        let stamp = newest.accepted;
        if stamp == Stamp::default() || self.known.as_ref().is_some_and(|k| k.stamp >= stamp) {
            return None;
        }
        let node = newest.writer.node;
        // Our own body under way is known without reading it back; it is not *the* ledger before its cycle says so.
        if node == self.me && self.own_stamp() == Some(stamp) {
            return None;
        }
        if mutant!(AdoptsWhatItKnows) && matches!(self.role, Role::Promising(_)) {
            return None;
        }
        Some(Wanted { stamp, node, slot: newest.slot, digest: newest.digest })
    }

    /// The newest body was read.
    pub fn on_body(
        &mut self,
        wanted: Wanted,
        bytes: &[u8],
        shown: Instant,
    ) -> Result<(), LedgerError> {
        let ledger = Arc::new(Ledger::decode(wanted.stamp, wanted.digest, bytes)?);
        if ledger.level > self.level {
            let (stamp, level, spoken) = (wanted.stamp, ledger.level, self.level);
            return Err(LedgerError::Level { stamp, level, spoken });
        }
        let proved = wanted.stamp == self.committed || mutant!(RumourIsProof);
        let stamp = wanted.stamp;
        self.known = Some(Known { stamp, ledger, proved, shown });
        Ok(())
    }

    /// A cycle is complete, its newest body known.
    pub fn on_cycle(&mut self, cycle: &Cycle) -> Outcome {
        self.know_genesis(cycle);
        let promises = cycle.pages.values().flatten().map(|page| page.promised);
        self.highest = promises.max().unwrap_or_default().max(self.highest);
        self.prove(cycle);
        let own = cycle.pages.get(&self.me).and_then(Option::as_ref);
        let others = cycle.pages.values().flatten().filter(|page| page.writer.node != self.me);
        let rival = others.map(|page| page.promised).max().unwrap_or_default();
        match (&self.role, own) {
            (Role::Follower, _) | (_, None) => Outcome::None,
            (Role::Promising(ballot), Some(own)) if own.promised == *ballot => {
                self.on_promised(*ballot, rival)
            }
            (Role::Adopting(ballot, body), Some(own)) if own.accepted == body.stamp => {
                self.on_adopted(*ballot, rival, cycle)
            }
            (Role::Leading(ballot, _), Some(own)) => {
                let (ballot, accepted) = (*ballot, own.accepted);
                self.on_led(ballot, rival, accepted, cycle)
            }
            (_, Some(_)) => Outcome::None,
        }
    }

    fn know_genesis(&mut self, cycle: &Cycle) {
        if self.known.is_none() {
            let stamp = Stamp::default();
            let ledger = self.genesis.clone();
            let shown = cycle.read_ended;
            self.known = Some(Known { stamp, ledger, proved: true, shown });
        }
    }

    /// Read with proof: the newest body was visible before this read began, and nobody has promised above it.
    fn prove(&mut self, cycle: &Cycle) {
        let promised = cycle.pages.values().flatten().map(|page| page.promised).max();
        let newest = cycle.pages.values().flatten().map(|page| page.accepted).max();
        let Some(known) = &mut self.known else { return };
        let is_newest = newest.unwrap_or_default() == known.stamp;
        let seen_before = known.shown <= cycle.read_began && known.shown != cycle.read_ended
            || mutant!(ProofWithoutSecondRead);
        let unbeaten =
            promised.unwrap_or_default() <= known.stamp.ballot || mutant!(ProofIgnoresPromises);
        if is_newest && seen_before && unbeaten {
            known.proved = true;
            self.confirmed = Some(cycle.read_began);
        }
    }

    fn beaten(&mut self, by: Ballot) -> Outcome {
        let led = matches!(self.role, Role::Leading(..));
        self.role = Role::Follower;
        Outcome::Beaten { by, led }
    }

    fn on_promised(&mut self, ballot: Ballot, rival: Ballot) -> Outcome {
        // "Equal to or above": an equal term of another node is a rival too.
        if rival.term >= ballot.term + u64::from(mutant!(EqualPromiseAccepted)) {
            return self.beaten(rival);
        }
        if mutant!(TermWithoutAdoption) {
            self.role = Role::Leading(ballot, None);
            return Outcome::TermStands;
        }
        let Some(known) = &self.known else { return Outcome::None };
        if !known.ledger.may_lead(self.me) {
            self.role = Role::Follower;
            return Outcome::Barred;
        }
        let stamp = Stamp { ballot, version: known.stamp.version };
        let body = self.own_body(stamp, known.ledger.clone());
        self.role = Role::Adopting(ballot, body);
        Outcome::None
    }

    fn on_adopted(&mut self, ballot: Ballot, rival: Ballot, cycle: &Cycle) -> Outcome {
        if rival.term >= ballot.term + u64::from(mutant!(EqualPromiseAccepted)) {
            return self.beaten(rival);
        }
        self.know_own(cycle);
        self.role = Role::Leading(ballot, None);
        Outcome::TermStands
    }

    fn on_led(&mut self, mine: Ballot, rival: Ballot, accepted: Stamp, cycle: &Cycle) -> Outcome {
        if rival > mine && !mutant!(CommitWithoutReadBack) {
            return self.beaten(rival);
        }
        self.confirmed = Some(cycle.read_began);
        let Role::Leading(_, Some(own)) = &self.role else { return Outcome::None };
        if accepted != own.stamp && !mutant!(CommitUnwritten) {
            return Outcome::None;
        }
        let before = self.ledger();
        self.know_own(cycle);
        self.role = Role::Leading(mine, None);
        Outcome::Committed { before }
    }

    fn know_own(&mut self, cycle: &Cycle) {
        let Some(own) = self.own() else { return };
        let (stamp, ledger) = (own.stamp, own.ledger.clone());
        self.committed = self.committed.max(stamp);
        let shown = cycle.read_ended;
        self.known = Some(Known { stamp, ledger, proved: true, shown });
    }

    /// For people: why there is no proof of the newest body.
    pub fn why_unproved(&self) -> Option<String> {
        let known = self.known.as_ref().filter(|known| !known.proved)?;
        Some(alloc::format!(
            "ledger {} is a rumour: ballot {} is promised and has not adopted it yet",
            known.stamp,
            self.highest
        ))
    }
}

#[cfg(test)]
#[path = "tests/register.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/register_model.rs"]
mod model;
