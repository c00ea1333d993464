//! VMs that must stand together are placed and moved as one: a group. It is found by the words of `together`, through as many VMs as
//! these connect, and what binds one member binds all: the nodes that one of them must have, or would rather, and those from
//! which one of them must stand apart.
//!
//! A member that is on its way to another node stands there already, and its group follows it.

use crate::ids::{NodeId, VmId};
use crate::ledger::{Ledger, VmEntry};
use alloc::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use steadfast_sdk::wire::Affinity;

/// VMs that share a node, or one alone that has an affinity.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// The highest priority first, then by id.
    pub members: Vec<&'a VmEntry>,
    /// What binds all of them.
    pub rules: Cow<'a, Affinity>,
}

/// All VMs with an affinity, in groups.
#[derive(Debug, Default)]
pub(crate) struct Groups<'a> {
    pub groups: Vec<Group<'a>>,
    of: BTreeMap<&'a VmId, usize>,
}

impl<'a> Groups<'a> {
    /// Those of `entries` that have an affinity.
    pub fn of(entries: impl Iterator<Item = &'a VmEntry>) -> Self {
        let mut entries: Vec<_> = entries.filter(|e| !e.spec.affinity.is_empty()).collect();
        entries.sort_by_key(|entry| rank(entry));
        let mut found: Vec<(BTreeSet<&str>, Vec<&VmEntry>)> = Vec::new();
        for entry in entries {
            let words = entry.spec.affinity.together.iter().map(|word| word.as_str());
            let mut group = (words.collect::<BTreeSet<&str>>(), Vec::new());
            let (joined, apart): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(words, _)| !words.is_disjoint(&group.0));
            found = apart;
            for (words, members) in joined {
                group.0.extend(words);
                group.1.extend(members);
            }
            group.1.push(entry);
            found.push(group);
        }
        let mut groups: Vec<Group<'a>> =
            found.into_iter().map(|(_, members)| Group::new(members)).collect();
        groups.sort_by_key(|group| rank(group.members[0]));
        let ids = |(at, group): (usize, &Group<'a>)| {
            group.members.iter().map(|member| (&member.spec.id, at)).collect::<Vec<_>>()
        };
        let of = groups.iter().enumerate().flat_map(ids).collect();
        Self { groups, of }
    }

    /// All of the ledger's VMs that are to run.
    pub fn wanted(ledger: &'a Ledger) -> Self {
        Self::of(ledger.vms.values().filter(|entry| entry.may_run()))
    }

    /// The group of this VM, if it has an affinity.
    pub fn get(&self, vm: &VmId) -> Option<&Group<'a>> {
        self.of.get(vm).map(|at| &self.groups[*at])
    }

    /// What binds the VM.
    pub fn rules(&self, entry: &VmEntry) -> Affinity {
        let shared = self.get(&entry.spec.id).map(|group| Affinity::clone(&group.rules));
        shared.unwrap_or_else(|| entry.spec.affinity.clone())
    }
}

impl<'a> Group<'a> {
    fn new(mut members: Vec<&'a VmEntry>) -> Self {
        members.sort_by_key(|entry| rank(entry));
        let rules = match members[..] {
            [only] => Cow::Borrowed(&only.spec.affinity),
            _ => Cow::Owned(shared(&members)),
        };
        Self { members, rules }
    }

    /// Those that have to come if it is to stand on `node`.
    pub fn away_from(&self, node: NodeId) -> impl Iterator<Item = &&'a VmEntry> {
        self.members.iter().filter(move |member| stands_at(member) != node)
    }

    /// The first that stands on `node`.
    pub fn first_at(&self, node: NodeId) -> Option<&'a VmEntry> {
        self.members.iter().find(|member| stands_at(member) == node).copied()
    }

    /// The two must not share a node.
    pub fn is_apart_from(&self, other: &Group<'_>) -> bool {
        let same = self.members[0].spec.id == other.members[0].spec.id;
        !same && !self.rules.apart.is_disjoint(&other.rules.apart)
    }

    /// It stays, and the other makes room: it is the larger, or the first by priority and id.
    pub fn outranks(&self, other: &Group<'_>) -> bool {
        let key =
            |group: &Group<'_>| (core::cmp::Reverse(group.members.len()), rank(group.members[0]));
        key(self) < key(other)
    }
}

/// Where it is, or is on its way to.
pub(crate) fn stands_at(entry: &VmEntry) -> NodeId {
    let migrates = entry.migration.as_ref().map(|migration| migration.to);
    let leaves = || entry.leave.as_ref().and_then(|leave| leave.to);
    migrates.or_else(leaves).unwrap_or(entry.owner)
}

/// It is there, or is on its way there.
pub(crate) fn touches(entry: &VmEntry, node: NodeId) -> bool {
    entry.owner == node || stands_at(entry) == node
}

fn rank(entry: &VmEntry) -> (core::cmp::Reverse<u16>, VmId) {
    (core::cmp::Reverse(entry.spec.priority), entry.spec.id.clone())
}

/// What each of them asks for, for all: nodes that one must have bind everybody, wishes add up.
fn shared(members: &[&VmEntry]) -> Affinity {
    let mut all = Affinity::default();
    for affinity in members.iter().map(|member| &member.spec.affinity) {
        all.strict |= affinity.strict;
        all.stays |= affinity.stays;
        all.together.extend(affinity.together.iter().cloned());
        all.apart.extend(affinity.apart.iter().cloned());
        for (node, weight) in &affinity.nodes {
            let sum = all.nodes.entry(node.clone()).or_default();
            *sum = sum.saturating_add(*weight);
        }
    }
    if all.strict {
        let allowed = |node: &str| members.iter().all(|member| member.spec.affinity.allows(node));
        all.nodes.retain(|node, _| allowed(node));
        // They have no node in common: none is allowed, whatever it is called.
        if all.nodes.is_empty() {
            all.nodes.insert(String::new(), 0);
        }
    }
    all
}

#[cfg(test)]
#[path = "tests/groups.rs"]
mod tests;
