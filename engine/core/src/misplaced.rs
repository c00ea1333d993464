//! VMs that run, and not where their operator wants them: on a node that their affinity forbids, beside one from which they must
//! stand apart, away from those with which they must stand, or although a node that they prefer is good again.
//!
//! They move live, like VMs of a node that is to be emptied (`maintenance.rs`), and stay where they are while no node is better.

use crate::ids::{NodeId, VmId};
use crate::ledger::{Ledger, VmEntry};
use crate::liveness::Facts;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use steadfast_sdk::wire::Affinity;

/// Who has a word of `together` or of `apart`, and where.
type Words<'a> = BTreeMap<&'a str, Vec<&'a VmEntry>>;

/// Why VMs are not where they should be, by VM.
pub(crate) fn misplaced<'a>(facts: &Facts<'a>) -> BTreeMap<&'a VmId, String> {
    let ledger: &'a Ledger = facts.ledger;
    let particular = |entry: &&VmEntry| !entry.spec.affinity.is_empty() && entry.may_run();
    let entries: Vec<&VmEntry> = ledger.vms.values().filter(particular).collect();
    let together = words(&entries, |affinity| &affinity.together);
    let apart = words(&entries, |affinity| &affinity.apart);
    let why = |entry: &&'a VmEntry| {
        let why = forbidden(entry, ledger)
            .or_else(|| beside(entry, &apart))
            .or_else(|| away(entry, &together))
            .or_else(|| rather_elsewhere(entry, facts))?;
        Some((&entry.spec.id, why))
    };
    entries.iter().filter_map(why).collect()
}

fn words<'a>(entries: &[&'a VmEntry], of: fn(&Affinity) -> &BTreeSet<String>) -> Words<'a> {
    let mut words = Words::new();
    for entry in entries {
        for word in of(&entry.spec.affinity) {
            words.entry(word.as_str()).or_default().push(entry);
        }
    }
    words
}

fn forbidden(entry: &VmEntry, ledger: &Ledger) -> Option<String> {
    let name = ledger.name(entry.owner);
    (!entry.spec.affinity.allows(&name)).then(|| alloc::format!("{name} is not one of its nodes"))
}

/// Of several that must stand apart on one node, the first by priority and id stays.
fn beside(entry: &VmEntry, apart: &Words<'_>) -> Option<String> {
    let rank = |entry: &VmEntry| (core::cmp::Reverse(entry.spec.priority), entry.spec.id.clone());
    let others = entry.spec.affinity.apart.iter().flat_map(|word| &apart[word.as_str()]);
    let mut beside = others.filter(|other| other.owner == entry.owner);
    let first = beside.find(|other| rank(other) < rank(entry))?;
    Some(alloc::format!("it must stand apart from {}", first.spec.name))
}

/// Those that must stand together gather where most of them are.
fn away(entry: &VmEntry, together: &Words<'_>) -> Option<String> {
    for word in &entry.spec.affinity.together {
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for other in &together[word.as_str()] {
            *counts.entry(other.owner).or_default() += 1;
        }
        let most = counts.iter().max_by_key(|(node, count)| (**count, core::cmp::Reverse(**node)));
        if most.is_some_and(|(node, _)| *node != entry.owner) {
            return Some(alloc::format!("it must stand with the others of {word:?}"));
        }
    }
    None
}

/// A node that it prefers is good, and has room.
fn rather_elsewhere(entry: &VmEntry, facts: &Facts<'_>) -> Option<String> {
    let (ledger, affinity) = (facts.ledger, &entry.spec.affinity);
    if affinity.nodes.is_empty() || affinity.stays {
        return None;
    }
    let now = affinity.preference(&ledger.name(entry.owner));
    let better = |node: &&NodeId| {
        let name = ledger.name(**node);
        affinity.preference(&name) > now && is_good(**node, entry, facts)
    };
    let node = ledger.nodes.keys().find(better)?;
    Some(alloc::format!("it prefers {}", ledger.name(*node)))
}

fn is_good(node: NodeId, entry: &VmEntry, facts: &Facts<'_>) -> bool {
    let wanted = facts.ledger.nodes.get(&node).is_some_and(|node| !node.wants_empty());
    let room = facts.word_of(node).is_some_and(|heard| {
        heard.beat.facts.memory_free_mib >= entry.spec.memory_mib && heard.beat.armed
    });
    wanted && room && facts.ledger.admission(node).is_some()
}

#[cfg(test)]
#[path = "tests/misplaced.rs"]
mod tests;
