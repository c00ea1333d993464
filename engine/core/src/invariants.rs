//! The invariants of PROTOCOL section 8, as far as one node can check them on itself while it works: one function each, by
//! these names, pure. `watch.rs` asks them after every step; what they find is an alarm, never a decision: they say that our
//! reasoning is wrong somewhere, and whoever reads that must look. `None`: it holds.
//!
//! The whole of each invariant needs to see all nodes and true time at once: that is the simulator's (`tests/src/sim/check.rs`).
//! `engine/SAFETY.md` has them in one table. `eventually_up` is not here: a node cannot tell late from never.

use crate::ids::{Identity, NodeId, Stamp, VmId};
use crate::ledger::Ledger;
use crate::proactive::{Level, most_drained};
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String};

/// What is wrong, in words.
pub type Finding = Option<String>;

/// Who says that a VM runs there: which incarnation, in which of its beats.
pub type Homes = BTreeMap<NodeId, (Identity, u64)>;

/// Beats that a contradiction must outlast: a word may be older than the one that it contradicts.
const OUTLASTS: u64 = 2;

/// 1. Two nodes go on saying that they run the same VM.
///
/// `first` is who said so when it was first seen, `now` who says so now. A single word proves nothing: an old beat may arrive
/// late. Both must have repeated it since.
#[must_use]
pub fn one_home(vm: &VmId, first: &Homes, now: &Homes) -> Finding {
    let repeats = |(node, (who, number)): (&NodeId, &(Identity, u64))| {
        let before = first.get(node).filter(|(known, _)| known == who);
        before.is_some_and(|(_, then)| *number >= then + OUTLASTS).then_some(*node)
    };
    let mut homes = now.iter().filter_map(repeats);
    let (one, other) = (homes.next()?, homes.next()?);
    Some(alloc::format!("{vm} runs on node {one} and on node {other}, both say"))
}

/// 2. Somebody leads a term that somebody else leads.
#[must_use]
pub fn one_leader_per_term(term: u64, known: NodeId, says: NodeId) -> Finding {
    (known != says)
        .then(|| alloc::format!("node {known} and node {says} both say that they lead term {term}"))
}

/// What a start on this node rests on, looked at again after it was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grounds {
    /// The newest body is proved committed.
    pub proved: bool,
    /// It admits this boot.
    pub admitted: bool,
    /// It names this node as the owner.
    pub owner: bool,
    /// End of the lease, if there is one and no eviction is known.
    pub lease_ends: Option<Instant>,
    /// The start may be handed over until then.
    pub not_after: Instant,
    /// A lease must be good for this long after it.
    pub margin: Millis,
    /// See [`feed_rule`].
    pub fed: bool,
}

/// 3. A start here without a ledger read with proof, a lease, or a watchdog behind it.
#[must_use]
pub fn no_start_without_proof(vm: &VmId, grounds: &Grounds) -> Finding {
    let good = grounds.lease_ends.is_some_and(|end| grounds.not_after + grounds.margin <= end);
    let missing = [
        (grounds.proved, "a read with proof"),
        (grounds.admitted, "an admission of this boot"),
        (grounds.owner, "the ownership"),
        (good, "a lease that is good for long enough"),
        (grounds.fed, "a watchdog fed in time"),
    ];
    let (_, what) = missing.iter().find(|(holds, _)| !holds)?;
    Some(alloc::format!("{vm} is started here without {what}"))
}

/// 4. Of two bodies read with proof the newer one is not a later state of the older one.
#[must_use]
pub fn ledger_is_linear(before: (Stamp, &Ledger), after: (Stamp, &Ledger)) -> Finding {
    let ((older, was), (newer, is)) = (before, after);
    let text = match (newer.cmp(&older), newer.version.cmp(&older.version)) {
        (core::cmp::Ordering::Less, _) => "is older, and both are proved",
        (_, core::cmp::Ordering::Less) => "has lost a committed version",
        (_, core::cmp::Ordering::Equal) if was != is => {
            "says something else under the same version"
        }
        _ => return None,
    };
    Some(alloc::format!("ledger {newer} after {older}: it {text}"))
}

/// The evidence that a lease rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// This boot is admitted, and no eviction of it is known.
    pub counts: bool,
    /// Age of the network kind.
    pub network: Option<Millis>,
    /// Age of the storage kind.
    pub storage: Option<Millis>,
    /// L.
    pub lease: Millis,
}

impl Evidence {
    /// The kind that is still young enough.
    fn young(&self) -> Option<&'static str> {
        let is_young = |age: Option<Millis>| age.is_some_and(|age| age < self.lease);
        let kinds = [(self.network, "network"), (self.storage, "storage")];
        let young = kinds.into_iter().find(|(age, _)| self.counts && is_young(*age));
        young.map(|(_, kind)| kind)
    }
}

/// 5. HA VMs are stopped for want of a lease although one kind of evidence is young.
#[must_use]
pub fn no_single_channel(evidence: &Evidence) -> Finding {
    evidence
        .young()
        .map(|kind| alloc::format!("HA VMs are stopped here, with young {kind} evidence"))
}

/// 6. A node that keeps either kind of evidence resets itself.
#[must_use]
pub fn calm(evidence: &Evidence) -> Finding {
    evidence.young().map(|kind| alloc::format!("this node is reset, with young {kind} evidence"))
}

/// 7. A commit gives a VM to a node that may not run any, or drains more nodes than may be at once, whatever policies said.
#[must_use]
pub fn policy_is_advice(before: &Ledger, after: &Ledger) -> Finding {
    let moved = after.vms.iter().find(|(vm, entry)| {
        let elsewhere = before.vms.get(*vm).is_some_and(|known| known.owner != entry.owner);
        elsewhere && after.admission(entry.owner).is_none()
    });
    let moved = moved.map(|(vm, entry)| {
        alloc::format!("{vm} is given to node {}, which is not admitted", entry.owner)
    });
    let drained =
        |ledger: &Ledger| ledger.holds().filter(|(_, hold)| hold.level == Level::Drain).count();
    // A commit may drain a node and remove another: what it drains was right for the nodes before.
    let (count, nodes) = (drained(after), after.nodes.len().max(before.nodes.len()));
    moved.or_else(|| {
        let too_many = count > drained(before) && count > most_drained(nodes);
        too_many.then(|| alloc::format!("{count} of {nodes} nodes are drained for their risk"))
    })
}

/// 8. This node lays hands on a VM that no ledger read names.
#[must_use]
pub fn hands_off(vm: &VmId, is_ha: bool) -> Finding {
    (!is_ha).then(|| alloc::format!("{vm} is touched here, and is not under HA"))
}

/// 10. Something was done without a record that says why.
#[must_use]
pub fn explained(deed: &str, is_recorded: bool) -> Finding {
    (!is_recorded).then(|| alloc::format!("{deed}, without a record that says why"))
}

/// What 1, 3 and rule 4 rest on: the watchdog is fed only while `end of last feed + 2 W <= basis + L + S`, or when none is left.
#[must_use]
pub fn feed_rule(
    last_ended: Option<Instant>,
    watchdog: Millis,
    deadline: Option<Instant>,
    idle: bool,
) -> Finding {
    let safe = last_ended.zip(deadline).is_some_and(|(last, end)| last + watchdog * 2 <= end);
    (!idle && !safe).then(|| "the watchdog is fed beyond the lease, with HA VMs here".into())
}

#[cfg(test)]
#[path = "tests/invariants.rs"]
mod tests;
