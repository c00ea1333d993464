//! Nodes added and removed while the cluster runs (PROTOCOL section 1, "configured nodes").
//!
//! One node a commit. From that commit on majorities and halves must hold before *and* after the change (`quorum.rs`), because
//! a node that has not read it still counts by the old set. When every old member has said that it read it, or is proved to
//! run nothing, the next commit ends the change; only then may another begin.
//!
//! A single-disk register needs every proposer to read every other's page. So a read is complete only if it read the
//! pages of all nodes that its newest body names (`cycle.rs`), and a newcomer does not lead before its change is
//! ended: whoever made the change is an old member, whose page every old member reads, and its body names the newcomer.
//! A node that is removed was proved to run nothing, and finds in the body that another old member wrote that it may not
//! lead; what it left on its page is of an older ballot than that.

use crate::decision::Kind;
use crate::eviction::Fencing;
use crate::ids::{NodeId, Stamp};
use crate::ledger::{Changing, Ledger, NodeEntry, Standing};
use crate::liveness::Facts;
use crate::outbox::Note;
use alloc::{string::String, vec::Vec};

/// Fewer are no cluster.
const FEWEST: usize = 2;

impl Ledger {
    /// The ledger lets `node` begin a term: it is configured, and not the newcomer of an unfinished change.
    pub(crate) fn may_lead(&self, node: NodeId) -> bool {
        let old = |changing: &Changing| changing.before.contains(&node);
        self.nodes.contains_key(&node) && self.changing.as_ref().is_none_or(old)
    }

    fn change_nodes(&mut self, since: Stamp, change: impl FnOnce(&mut Self)) {
        let before = self.nodes.keys().copied().collect();
        change(self);
        self.changing = Some(Changing { before, since });
    }
}

/// Configures `node`. `Ok(false)`: it is so already.
pub(crate) fn add(
    next: &mut Ledger,
    node: NodeId,
    name: &str,
    stamp: Stamp,
    facts: &Facts<'_>,
) -> Result<bool, String> {
    if let Some(known) = next.nodes.get_mut(&node) {
        if known.name != name {
            return Err(alloc::format!("node {node} is {} already, not {name}", known.name));
        }
        return Ok(core::mem::take(&mut known.leaving));
    }
    if let Some((other, _)) = next.nodes.iter().find(|(_, entry)| entry.name == name) {
        return Err(alloc::format!("another node is called {name}: {other}; choose another name"));
    }
    if let Some(changing) = &next.changing {
        return Err(alloc::format!(
            "the last change of the nodes is not finished: {}; try again when it is",
            waits_for(changing, facts)
        ));
    }
    // A page that was written for another ledger must not become one of ours.
    if let Some(heard) = facts.word_of(node).filter(|heard| heard.beat.level < next.level) {
        return Err(alloc::format!(
            "the cluster works at feature level {}, {name} speaks {}: upgrade steadfastd there first",
            next.level,
            heard.beat.level
        ));
    }
    let read_ours = facts.word_of(node).is_some_and(|heard| {
        let known = heard.beat.known;
        known.ballot == stamp.ballot && known.version < stamp.version
    });
    if !read_ours {
        return Err(alloc::format!(
            "{name} (node {node}) has not said yet that it read this cluster's ledger; start steadfastd there, \
             with this cluster's corosync and storage, and try again"
        ));
    }
    next.change_nodes(stamp, |next| {
        next.nodes.insert(node, NodeEntry::new(name));
    });
    Ok(true)
}

/// Marks `node` as leaving: it is drained, then taken out. `Ok(false)`: it is so already.
pub(crate) fn remove(next: &mut Ledger, node: NodeId) -> Result<bool, String> {
    let stay = next.nodes.iter().filter(|(other, entry)| **other != node && !entry.leaving).count();
    let Some(entry) = next.nodes.get_mut(&node).filter(|entry| !entry.leaving) else {
        return Ok(false);
    };
    if stay < FEWEST {
        return Err(alloc::format!(
            "{stay} would remain without {}, a cluster needs {FEWEST}; add another node first",
            entry.name
        ));
    }
    entry.leaving = true;
    Ok(true)
}

/// A leaving node that is empty, admitted still, and not this one: it is to be evicted.
pub(crate) fn drained(facts: &Facts<'_>) -> Option<NodeId> {
    let admitted = |node: &NodeId| facts.ledger.admission(*node).is_some();
    next_to_go(facts.ledger, facts).filter(admitted)
}

/// The first of the leaving nodes that owns no VM, and expects none; one at a time, and never the leader itself.
fn next_to_go(ledger: &Ledger, facts: &Facts<'_>) -> Option<NodeId> {
    let is_empty = |node: NodeId| {
        let expected = |to: Option<NodeId>| to == Some(node);
        !ledger.vms.values().any(|vm| {
            vm.owner == node || expected(vm.migration.as_ref().map(|migration| migration.to))
        })
    };
    let mut leaving = ledger.nodes.iter().filter(|(_, entry)| entry.leaving).map(|(node, _)| *node);
    let found = leaving.find(|node| *node != facts.config.me.node && is_empty(*node));
    found.filter(|_| ledger.changing.is_none())
}

/// Ends a change that everybody has read; takes out a node that is drained, evicted and proved. True if it did.
pub(crate) fn apply(
    next: &mut Ledger,
    stamp: Stamp,
    fencing: &Fencing,
    facts: &Facts<'_>,
    notes: &mut Vec<Note>,
) -> bool {
    if let Some(changing) = &facts.ledger.changing {
        let ends = changing.before.iter().all(|node| has_read(*node, changing, facts));
        if ends {
            next.changing = None;
            let text = "every node has read the change of the configured nodes: it is ended";
            notes.push(Note::new(Kind::Membership, "PROTOCOL 1", text.into()));
        }
        return ends;
    }
    // Whoever is added again is a new node: no fence agent that was ordered before may hit it.
    let over = |node: NodeId| {
        let eviction = next.eviction(node);
        eviction.is_none_or(|e| fencing.may_admit(node, e, facts.config, facts.now))
    };
    let gone = |node: &NodeId| {
        runs_nothing(*node, facts.ledger) && runs_nothing(*node, next) && over(*node)
    };
    let Some(node) = next_to_go(next, facts).filter(gone) else { return false };
    let text = alloc::format!("{} is out of the cluster", next.name(node));
    notes.push(Note::new(Kind::Membership, "PROTOCOL 1", text).node(node));
    next.change_nodes(stamp, |next| {
        next.nodes.remove(&node);
        for vm in next.vms.values_mut() {
            vm.home = vm.home.filter(|home| *home != node);
            vm.failed_on.remove(&node);
        }
    });
    true
}

/// Never admitted, or evicted and proved.
fn runs_nothing(node: NodeId, ledger: &Ledger) -> bool {
    ledger.nodes.get(&node).is_none_or(|entry| match &entry.standing {
        Standing::New => true,
        Standing::Admitted { .. } => false,
        Standing::Evicted(eviction) => eviction.proof.is_some(),
    })
}

/// It counts by the new set too, or by none: it is out, or would have to read a later ledger first.
fn has_read(node: NodeId, changing: &Changing, facts: &Facts<'_>) -> bool {
    node == facts.config.me.node
        || runs_nothing(node, facts.ledger)
        || facts.word_of(node).is_some_and(|heard| heard.beat.known >= changing.since)
}

fn waits_for(changing: &Changing, facts: &Facts<'_>) -> String {
    let unread = changing.before.iter().filter(|node| !has_read(**node, changing, facts));
    let names: Vec<String> = unread.map(|node| facts.ledger.name(*node)).collect();
    match names.is_empty() {
        true => "it was just committed".into(),
        false => alloc::format!("{} has not read it", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "tests/membership.rs"]
mod tests;
