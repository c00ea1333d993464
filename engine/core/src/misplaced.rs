//! VMs that are not where their operator wants them: on a node that their affinity forbids, beside one from which they must
//! stand apart, away from those with which they must stand, or although a node that they prefer is good again.
//!
//! They move live, like VMs of a node that is to be emptied (`maintenance.rs`), and stay where they are while no node is better. Groups
//! (`groups.rs`) move as one: to a *seat*, the best of the nodes on which some of them are, or, if there is none, to where the placement
//! policy says. Of two groups that must stand apart and meet, the larger stays, or the first by priority and id; one that is not
//! gathered yet avoids every node on which the other is.

use crate::groups::{Group, Groups, stands_at, touches};
use crate::ids::{NodeId, VmId};
use crate::ledger::{NodeEntry, VmEntry};
use crate::liveness::Facts;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::cmp::Reverse;

/// Where a group is to be.
enum Seat {
    /// Where it is.
    Here,
    /// With those of its own there, and why.
    At(NodeId, String),
    /// Where the placement policy says, and why.
    Elsewhere(String),
}

/// Why VMs are not where they should be, by VM.
pub(crate) fn misplaced<'a>(facts: &Facts<'a>) -> BTreeMap<&'a VmId, String> {
    let groups = Groups::wanted(facts.ledger);
    let mut found = BTreeMap::new();
    for group in &groups.groups {
        let (members, why): (Vec<&'a VmEntry>, _) = match seat(group, &groups, facts) {
            Seat::Here => continue,
            Seat::At(node, why) => (group.away_from(node).copied().collect(), why),
            Seat::Elsewhere(why) => (group.members.clone(), why),
        };
        found.extend(members.into_iter().map(|member| (&member.spec.id, why.clone())));
    }
    found
}

fn seat(group: &Group<'_>, groups: &Groups<'_>, facts: &Facts<'_>) -> Seat {
    // `return_home` brings them there, as one.
    if group.members.iter().any(|member| returns(member, facts)) {
        return Seat::Here;
    }
    let under_way = group.members.iter().find(|member| stands_at(member) != member.owner);
    if let Some(first) = under_way {
        let why = alloc::format!("it must stand with {}", first.spec.name);
        return Seat::At(stands_at(first), why);
    }
    let admitted = |member: &&&VmEntry| facts.ledger.admission(member.owner).is_some();
    let here: BTreeSet<NodeId> =
        group.members.iter().filter(admitted).map(|member| member.owner).collect();
    let (seat, why) = match here.len() {
        0 => return Seat::Here,
        1 => match reason_to_leave(group, here.first().copied(), groups, facts) {
            Some(why) => return Seat::Elsewhere(why),
            None => (here.first().copied(), None),
        },
        _ => gather(group, &here, groups, facts),
    };
    if let Some(better) = preferred(group, seat, facts) {
        return Seat::Elsewhere(alloc::format!("it prefers {}", facts.ledger.name(better)));
    }
    match (seat, why) {
        (_, None) => Seat::Here,
        (Some(node), Some(why)) => Seat::At(node, why),
        (None, Some(why)) => Seat::Elsewhere(why),
    }
}

/// It was moved off a node that is in order again.
fn returns(entry: &VmEntry, facts: &Facts<'_>) -> bool {
    entry.home.is_some_and(|home| home != entry.owner && is_usable(home, facts))
}

/// Why a group that is gathered on `node` must not stay there.
fn reason_to_leave(
    group: &Group<'_>,
    node: Option<NodeId>,
    groups: &Groups<'_>,
    facts: &Facts<'_>,
) -> Option<String> {
    let node = node?;
    let name = facts.ledger.name(node);
    if !group.rules.allows(&name) {
        return Some(alloc::format!("{name} is not one of its nodes"));
    }
    let other = met_at(node, group, groups).find(|other| other.outranks(group))?;
    let first = other.members.iter().find(|member| touches(member, node))?;
    Some(alloc::format!("it must stand apart from {}", first.spec.name))
}

/// Groups that are on `node`, or on their way there, and must stand apart from this one.
fn met_at<'g, 'a>(
    node: NodeId,
    group: &'g Group<'a>,
    groups: &'g Groups<'a>,
) -> impl Iterator<Item = &'g Group<'a>> {
    let there = move |other: &&Group<'_>| other.members.iter().any(|m| touches(m, node));
    groups.groups.iter().filter(move |other| group.is_apart_from(other)).filter(there)
}

/// The best of the nodes on which some of the group are, if one is good, and why the others are to come.
fn gather(
    group: &Group<'_>,
    here: &BTreeSet<NodeId>,
    groups: &Groups<'_>,
    facts: &Facts<'_>,
) -> (Option<NodeId>, Option<String>) {
    let good = |node: &&NodeId| {
        let free = met_at(**node, group, groups).next().is_none();
        free && is_usable(**node, facts) && group.rules.allows(&facts.ledger.name(**node))
    };
    let order = |node: &&NodeId| {
        let count = group.members.iter().filter(|member| member.owner == **node).count();
        let first = group.members.iter().position(|member| member.owner == **node);
        let preference = group.rules.preference(&facts.ledger.name(**node));
        (!has_room(**node, group, facts), Reverse(preference), Reverse(count), first)
    };
    let seat = here.iter().filter(good).min_by_key(order).copied();
    let word = group.rules.together.first();
    (seat, word.map(|word| alloc::format!("it must stand with the others of {word:?}")))
}

/// A node that the group prefers to its seat, that is good, and has room.
fn preferred(group: &Group<'_>, seat: Option<NodeId>, facts: &Facts<'_>) -> Option<NodeId> {
    let (ledger, rules) = (facts.ledger, &group.rules);
    if rules.nodes.is_empty() || rules.stays {
        return None;
    }
    let now = seat.map_or(0, |seat| rules.preference(&ledger.name(seat)));
    let better = |node: &&NodeId| {
        let preference = rules.preference(&ledger.name(**node));
        preference > now && is_usable(**node, facts) && has_room(**node, group, facts)
    };
    ledger.nodes.keys().find(better).copied()
}

fn is_usable(node: NodeId, facts: &Facts<'_>) -> bool {
    let wanted = facts.ledger.nodes.get(&node).is_some_and(NodeEntry::is_welcoming);
    let armed = facts.word_of(node).is_some_and(|heard| heard.beat.armed);
    wanted && armed && facts.ledger.admission(node).is_some()
}

/// Room for those of the group that are not there.
fn has_room(node: NodeId, group: &Group<'_>, facts: &Facts<'_>) -> bool {
    let memory = group.away_from(node).map(|member| member.spec.memory_mib);
    let needed = memory.fold(0, u64::saturating_add);
    facts.word_of(node).is_some_and(|heard| heard.beat.facts.memory_free_mib >= needed)
}

#[cfg(test)]
#[path = "tests/misplaced.rs"]
mod tests;
