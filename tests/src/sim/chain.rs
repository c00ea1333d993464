//! The ledger as the judge knows it: every body that was ever written, which of them anybody took for committed, and
//! whether what they say was true when it was decided.

use super::check::Violation;
use super::network::mask_words;
use super::node::{boot_id, id, index};
use super::world::World;
use std::collections::BTreeMap;
use std::rc::Rc;
use steadfast_core::ids::{Ballot, BootId, Digest, NodeId, Stamp, VmId};
use steadfast_core::ledger::{Ledger, Proof, Standing};
use steadfast_core::page::Page;

/// Every body, and what became of it.
#[derive(Debug, Default)]
pub struct Chain {
    written: BTreeMap<Digest, Written>,
    /// Bodies that a page ever named.
    named: BTreeMap<Stamp, Digest>,
    /// Bodies that a machine ever took for committed.
    committed: BTreeMap<Stamp, Digest>,
    /// What each committed version says.
    versions: BTreeMap<u64, (Stamp, Digest)>,
    newest: Option<(Stamp, Rc<Ledger>)>,
    /// Bodies above which a ballot was promised already when their page landed, and that ballot.
    barren: BTreeMap<Stamp, Ballot>,
    /// Boots that a commit has ever admitted.
    admitted: BTreeMap<(NodeId, BootId), Stamp>,
    was_disarmed: bool,
}

#[derive(Debug)]
struct Written {
    ledger: Rc<Ledger>,
    /// What was untrue when it was decided. It matters only if it is ever committed.
    problem: Option<Violation>,
}

impl Chain {
    /// The newest committed ledger.
    #[must_use]
    pub fn newest(&self) -> Option<&Rc<Ledger>> {
        self.newest.as_ref().map(|(_, ledger)| ledger)
    }

    /// Has a commit ever admitted this boot of the node?
    #[must_use]
    pub fn was_admitted(&self, node: NodeId, boot: BootId) -> bool {
        self.admitted.contains_key(&(node, boot))
    }

    /// The last commit that admitted the node.
    #[must_use]
    pub fn last_admission(&self, node: NodeId) -> Option<Stamp> {
        let all = (node, BootId(0))..=(node, BootId(u128::MAX));
        self.admitted.range(all).map(|(_, since)| *since).max()
    }

    /// HA was off for everybody, once at least.
    #[must_use]
    pub fn was_disarmed(&self) -> bool {
        self.was_disarmed
    }

    /// Does a body on disk, committed or not, take this admission away?
    #[must_use]
    pub fn is_rumoured(&self, node: NodeId, admission: Stamp) -> bool {
        let mut later = self.named.range(admission..).rev();
        later.any(|(_, digest)| {
            self.ledger(*digest).is_some_and(|ledger| ledger.eviction(node).is_some())
        })
    }

    fn ledger(&self, digest: Digest) -> Option<&Rc<Ledger>> {
        self.written.get(&digest).map(|written| &written.ledger)
    }

    /// The contents from which those of `stamp` were made, and their stamp.
    fn parent(&self, stamp: Stamp, digest: Digest) -> Option<(Stamp, Digest)> {
        let before = |stamp: Stamp| {
            let before = Stamp { version: stamp.version.checked_sub(1)?, ..stamp };
            self.named.get(&before).map(|digest| (before, *digest))
        };
        let adopted = |other: &(&Stamp, &Digest)| {
            *other.1 == digest && other.0.version == stamp.version && *other.0 != stamp
        };
        before(stamp).or_else(|| {
            let mut earlier = self.named.range(..stamp).rev().filter(adopted);
            earlier.find_map(|(stamp, _)| before(*stamp))
        })
    }

    /// Why `stamp` cannot be committed together with what was committed already.
    fn misfit(&self, stamp: Stamp, digest: Digest) -> Option<String> {
        let same = self.versions.get(&stamp.version).filter(|(_, known)| *known != digest);
        if let Some((other, _)) = same {
            return Some(format!("{other} was committed too, and says something else"));
        }
        let before = self.committed.range(..stamp).next_back().map(|(stamp, _)| *stamp);
        if let Some(older) = before.filter(|older| older.version > stamp.version) {
            return Some(format!("{older} was committed before: that is lost"));
        }
        let after = self.committed.range(stamp..).next().map(|(stamp, _)| *stamp);
        if let Some(newer) = after.filter(|newer| newer.version < stamp.version) {
            return Some(format!("{newer} was committed after: this is lost"));
        }
        let (parent, parents) = self.parent(stamp, digest)?;
        let (other, known) = self.versions.get(&parent.version)?;
        (parents != *known).then(|| format!("it was made from {parent}, but {other} was committed"))
    }
}

impl World {
    /// A leader begins to write a body: what it says must be true now, if it is ever to be committed.
    pub fn check_body(&mut self, n: usize, bytes: &[u8]) {
        let digest = Digest::of(bytes);
        if self.check.chain.written.contains_key(&digest) {
            return;
        }
        let Ok(ledger) = Ledger::decode(Stamp::default(), digest, bytes) else {
            return self.fail("ledger_is_linear", format!("n{} writes an unreadable body", n + 1));
        };
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        let before = agent.machine.ledger();
        let problem = self
            .untrue(&before, &ledger, false)
            .or_else(|| self.too_early(n, &before, &ledger))
            .or_else(|| self.uncalled_for(n, &before, &ledger))
            .or_else(|| illegal(&before, &ledger))
            .or_else(|| self.overdrawn(&before, &ledger))
            .or_else(|| self.unspoken(&ledger));
        self.check.chain.written.insert(digest, Written { ledger: Rc::new(ledger), problem });
    }

    /// `one_body`: a page that names a body lands.
    pub fn check_named(&mut self, page: &Page) {
        let (stamp, digest) = (page.accepted, page.digest);
        let news = !self.check.chain.named.contains_key(&stamp);
        if let Some(above) = self.promised_above(stamp, digest).filter(|_| news) {
            self.check.chain.barren.insert(stamp, above);
        }
        let known = *self.check.chain.named.entry(stamp).or_insert(digest);
        if known != digest {
            self.fail("one_body", format!("{stamp} has two bodies: {known}, {digest}"));
        }
    }

    /// The highest promise on disk, if it is above `stamp`. Whoever made it may have read all pages without seeing this body:
    /// nobody may ever take it for committed. Without it, whoever promises later sees the body.
    fn promised_above(&self, stamp: Stamp, digest: Digest) -> Option<Ballot> {
        let ledger = self.check.chain.ledger(digest)?;
        let counts = |node: NodeId| {
            let before = ledger.changing.as_ref().map(|changing| &changing.before);
            ledger.nodes.contains_key(&node) || before.is_some_and(|set| set.contains(&node))
        };
        let pages = self.disk.pages.iter().flatten();
        let promised = pages.filter(|page| counts(page.writer.node)).map(|page| page.promised);
        promised.max().filter(|ballot| *ballot > stamp.ballot)
    }

    /// `ledger_is_linear`: what a machine has read as `stamp` must be what its writer wrote.
    pub fn check_read(&mut self, n: usize, stamp: Stamp) {
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        let chain = &self.check.chain;
        let written = chain.named.get(&stamp).and_then(|digest| chain.ledger(*digest));
        if written.is_some_and(|written| **written != *agent.machine.ledger()) {
            let text = format!("n{} reads in {stamp} what was never written there", n + 1);
            self.fail("ledger_is_linear", text);
        }
    }

    /// `ledger_is_linear`: somebody takes `stamp` for committed. All such form one chain, and what they say was true
    /// when it was decided.
    pub fn check_commit(&mut self, n: usize, stamp: Stamp) {
        if stamp == Stamp::default() || self.check.chain.committed.contains_key(&stamp) {
            return;
        }
        let chain = &self.check.chain;
        let Some(digest) = chain.named.get(&stamp).copied() else {
            let text = format!("n{} claims {stamp}, which never was on disk", n + 1);
            return self.fail("ledger_is_linear", text);
        };
        let passed_over = |above| format!("{above} had been promised before it was on disk");
        let barren = chain.barren.get(&stamp).map(passed_over);
        let misfit = chain.misfit(stamp, digest).or(barren);
        let Some(written) = chain.written.get(&digest) else { return };
        let (ledger, problem) = (written.ledger.clone(), written.problem.clone());
        if let Some(why) = misfit {
            self.fail("ledger_is_linear", format!("n{} claims {stamp}: {why}", n + 1));
        } else if let Some(problem) = problem {
            self.fail(problem.rule, format!("{} (committed as {stamp})", problem.text));
        }
        let chain = &mut self.check.chain;
        chain.committed.insert(stamp, digest);
        chain.was_disarmed |= ledger.disarm.is_some();
        for node in ledger.nodes.keys() {
            if let Some((boot, since)) = ledger.admission(*node) {
                let last = chain.admitted.entry((*node, boot)).or_insert(since);
                *last = since.max(*last);
            }
        }
        chain.versions.entry(stamp.version).or_insert((stamp, digest));
        if chain.newest.as_ref().is_none_or(|(known, _)| *known < stamp) {
            let before = chain.newest.replace((stamp, ledger.clone()));
            self.on_newest(before.map(|(_, ledger)| ledger).as_deref(), &ledger);
            self.check_proofs();
        }
    }

    fn on_newest(&mut self, before: Option<&Ledger>, after: &Ledger) {
        let now = self.now;
        for node in after.nodes.keys() {
            let admission = after.admission(*node);
            if let Some(health) = self.check.health.get_mut(index(*node))
                && before.and_then(|ledger| ledger.admission(*node)) != admission
            {
                health.admitted = admission.map(|_| now);
            }
        }
        if let Some(before) = before {
            self.note_new_ownerships(before, after);
            self.cover_change(before, after);
        }
    }

    /// `no_start_without_proof`: a leader tells what it has just committed. It must be true still, unless others
    /// have gone on from there already.
    pub fn check_told(&mut self, stamp: Stamp) {
        let chain = &self.check.chain;
        let last = chain.named.keys().next_back().is_none_or(|last| *last <= stamp);
        let digest = chain.named.get(&stamp).copied();
        let Some(digest) = digest.filter(|_| last) else { return };
        let parent = chain.parent(stamp, digest).and_then(|(_, digest)| chain.ledger(digest));
        let (Some(before), Some(after)) = (parent, chain.ledger(digest)) else { return };
        if let Some(problem) = self.untrue(&before.clone(), &after.clone(), true) {
            self.fail(problem.rule, format!("{} (told as {stamp})", problem.text));
        }
    }

    /// `no_start_without_proof`: a machine asks for a start.
    pub fn check_start(&mut self, n: usize, vm: &VmId) {
        let Some(ledger) = self.check.chain.newest().cloned() else { return };
        let agent = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        if agent.is_some_and(|agent| agent.machine.proved().is_none()) {
            self.fail("no_start_without_proof", format!("n{} starts {vm} by a rumour", n + 1));
        }
        let Some(entry) = ledger.vms.get(vm) else { return };
        let boot = boot_id(n, self.nodes[n].boots);
        let allowed = match ledger.nodes.get(&id(n)).map(|node| &node.standing) {
            Some(Standing::Admitted { boot: admitted, .. }) => *admitted == boot,
            // It may not have heard of it yet: its lease bounds what it does.
            Some(Standing::Evicted(e)) => e.proof.is_none() && e.boot == boot,
            Some(Standing::New) | None => false,
        };
        if entry.owner != id(n) || !allowed {
            let (owner, standing) = (entry.owner, ledger.nodes.get(&id(n)));
            let text = format!("n{} starts {vm}, owned by {owner}; {standing:?}", n + 1);
            self.fail("no_start_without_proof", text);
        }
    }

    /// What `after` says beyond `before`, and is not so. All that is said of a node's VMs is about those that it knew
    /// to be under HA. Once it is on disk, a node that `after` admits anew may have read it before its leader, and started.
    fn untrue(&self, before: &Ledger, after: &Ledger, on_disk: bool) -> Option<Violation> {
        let moved = after.vms.iter().find_map(|(vm, entry)| {
            let old = before.vms.get(vm).filter(|old| old.since != entry.since)?;
            let admission = before.admission(old.owner);
            let admitted = after.admission(old.owner);
            let same = admitted.is_none() || admitted == admission || on_disk;
            if entry.owner == old.owner && same {
                return None; // It goes nowhere.
            }
            let (k, n) = (self.vm_index(vm), index(old.owner));
            self.may_execute(n, 1 << k).then(|| {
                let text = format!("{vm} leaves n{}, where it executes or may yet", n + 1);
                Violation { rule: "no_start_without_proof", text }
            })
        });
        moved.or_else(|| {
            before.nodes.keys().find_map(|node| {
                let known = before.eviction(*node);
                let read = on_disk && after.admission(*node).is_some();
                if read || known.is_some_and(|eviction| eviction.proof.is_some()) {
                    return None;
                }
                let eviction = after.eviction(*node).filter(|eviction| eviction.proof.is_some());
                // A proof and the admission that follows may be one commit.
                let again = known.filter(|_| after.admission(*node).is_some());
                let eviction = eviction.or(again)?;
                let proof = eviction.proof.unwrap_or(Proof::NoneLeft);
                let n = index(*node);
                let alive = self.runs_boot(n, eviction.boot);
                let executes = self.may_execute(n, self.acknowledged(before));
                let holds = match proof {
                    Proof::Fenced => !alive,
                    Proof::BootChanged => !alive && !executes,
                    Proof::NoneLeft | Proof::TimeExpired => !alive || !executes,
                };
                let text = format!("n{} does not run nothing: {proof:?} is no proof", n + 1);
                (!holds).then_some(Violation { rule: "no_start_without_proof", text })
            })
        })
    }

    /// VMs that count among those that nodes answer for, as bits.
    pub fn acknowledged(&self, ledger: &Ledger) -> u64 {
        let entries = ledger.vms.iter().filter(|(_, entry)| entry.acknowledged);
        entries.fold(0, |mask, (vm, _)| mask | 1 << self.vm_index(vm))
    }

    /// Is the node up under this very boot?
    pub fn runs_boot(&self, n: usize, boot: steadfast_core::ids::BootId) -> bool {
        self.nodes.get(n).is_some_and(|node| node.boot.is_some() && boot_id(n, node.boots) == boot)
    }

    /// Does one of these VMs execute on the node, or is a start of one under way that nothing stops?
    pub fn may_execute(&self, n: usize, vms: u64) -> bool {
        let Some(boot) = self.nodes.get(n).and_then(|node| node.boot.as_ref()) else {
            return false;
        };
        let own = boot.clock.own(self.now);
        let handed = boot.starts.iter().fold(0, |mask, start| mask | 1 << start.vm);
        let preparing = boot.agent.as_ref().map_or(0, |agent| agent.preparing_at(own));
        (boot.executing | handed | preparing) & vms != 0
    }
}

/// A change that no leader may make, whatever is true.
fn illegal(before: &Ledger, after: &Ledger) -> Option<Violation> {
    let node = before.nodes.iter().find_map(|(node, old)| {
        let new = after.nodes.get(node)?;
        let legal = match (&old.standing, &new.standing) {
            (Standing::Admitted { .. }, Standing::Admitted { .. }) => old.standing == new.standing,
            (Standing::Evicted(old), Standing::Evicted(new)) => {
                let same = (old.since, old.boot) == (new.since, new.boot);
                same && old.fence_orders <= new.fence_orders
                    && (old.proof.is_none() || old.proof == new.proof)
            }
            (_, new) => !matches!(new, Standing::New) || old.standing == *new,
        };
        let text =
            format!("standing of {}: {:?} becomes {:?}", old.name, old.standing, new.standing);
        (!legal).then_some(Violation { rule: "ledger_is_linear", text })
    });
    node.or_else(|| {
        after.vms.iter().find_map(|(vm, new)| {
            let old = before.vms.get(vm).filter(|old| old.owner != new.owner)?;
            let open = before.eviction(old.owner).is_some_and(|eviction| eviction.proof.is_none());
            let text = format!("{vm} leaves {} without a proof in the ledger", old.owner);
            let rule = "no_start_without_proof";
            let unproved = open.then_some(Violation { rule, text });
            unproved.or_else(|| {
                let text = format!("{vm} goes to {}, which is not admitted", new.owner);
                let legal = new.owner == old.owner || after.admission(new.owner).is_some();
                (!legal).then_some(Violation { rule: "policy_is_advice", text })
            })
        })
    })
}

/// Nodes that `after` evicts anew, as bits; their VMs, if it moves any, too.
pub fn fresh(before: &Ledger, after: &Ledger) -> Fresh {
    let mut fresh = Fresh::default();
    for (node, entry) in &after.nodes {
        let old = before.nodes.get(node).map(|entry| &entry.standing);
        let bit = 1_u64 << index(*node).min(63);
        match (old, &entry.standing) {
            (Some(Standing::Evicted(old)), Standing::Evicted(new)) if old.since == new.since => {
                fresh.proved |= if old.proof == new.proof { 0 } else { bit };
            }
            (old, Standing::Evicted(new)) if old != Some(&entry.standing) => {
                fresh.evicted |= bit;
                fresh.proved |= new.proof.map_or(0, |_| bit);
            }
            (old, Standing::Admitted { .. }) if old != Some(&entry.standing) => {
                fresh.admitted |= bit
            }
            _ => {}
        }
    }
    let moved = after
        .vms
        .iter()
        .filter(|(vm, entry)| before.vms.get(*vm).is_some_and(|old| old.owner != entry.owner));
    fresh.moved = moved.map(|(vm, _)| vm.clone()).collect();
    fresh
}

/// What a commit changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Nodes evicted.
    pub evicted: u64,
    /// Nodes proved to run nothing.
    pub proved: u64,
    /// Nodes admitted.
    pub admitted: u64,
    /// VMs with a new ownership.
    pub moved: Vec<VmId>,
}

impl Chain {
    /// What the commit of `stamp` changed; `None` if it is an adoption.
    #[must_use]
    pub fn changed_by(&self, stamp: Stamp) -> Option<Fresh> {
        let before = Stamp { version: stamp.version.checked_sub(1)?, ..stamp };
        let before = self.ledger(*self.named.get(&before)?)?;
        Some(fresh(before, self.ledger(*self.named.get(&stamp)?)?))
    }
}

impl std::fmt::Display for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (evicted, proved) = (mask_words(self.evicted), mask_words(self.proved));
        write!(f, "evicts {evicted}; proves {proved}; admits {}", mask_words(self.admitted))
    }
}
