//! Nodes that are to be empty: drained by live migration, and filled again (PROTOCOL sections 5 and 7).
//!
//! A node in maintenance, or on its way out, gets no VM and starts none: its VMs move away live, a few at a time, to where the
//! placement policy says (`recovery.rs` asks for them with the orphans). What cannot move live stays, visibly, or is shut down
//! and started elsewhere if the operator said so (`leave`). What ends there is given up by its owner and relocated. When the
//! maintenance is over, VMs that were moved off it return.
//!
//! Safety rests on the ways in which VMs move: by a migration (`migration.rs`), or by the owner's word that it gave the VM up (proof
//! 5). This file only wishes.

use crate::decision::Kind;
use crate::groups::Groups;
use crate::guest::Ending;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Leave, Ledger, Maintenance, NodeEntry, VmEntry, Way};
use crate::liveness::Facts;
use crate::machine::Machine;
use crate::migration::{self, Migrations, begin, under_way};
use crate::misplaced::misplaced;
use crate::outbox::Note;
use crate::proactive::endangered;
use crate::question::admits;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use steadfast_sdk::wire::NodeFacts;

/// VMs that are to move off their nodes now.
pub(crate) fn movers<'a>(facts: &Facts<'a>, migrations: &Migrations) -> Vec<&'a VmEntry> {
    let limit = facts.config.limits.parallel_migrations.max(1);
    if under_way(facts.ledger) >= limit || facts.ledger.disarm.is_some() {
        return Vec::new();
    }
    let misplaced = ill_placed(facts);
    let movable = |entry: &&VmEntry| {
        is_to_move(entry, &misplaced, facts)
            && (!migrations.rests(&entry.spec.id, facts.now)
                || may_restart(entry, facts, migrations))
    };
    facts.ledger.vms.values().filter(movable).collect()
}

/// VMs that are to move although nobody wants their nodes empty, and why.
fn ill_placed<'a>(facts: &Facts<'a>) -> BTreeMap<&'a VmId, String> {
    let mut found = misplaced(facts);
    found.extend(endangered(facts));
    found
}

fn is_to_move(entry: &VmEntry, misplaced: &BTreeMap<&VmId, String>, facts: &Facts<'_>) -> bool {
    let wanted = is_emptied(facts.ledger, entry.owner) || misplaced.contains_key(&entry.spec.id);
    let waits = facts.ledger.is_freezing(entry.owner);
    wanted && !waits && migration::unready(entry, facts).is_none()
}

/// Its owner is to be emptied.
pub(crate) fn is_emptied(ledger: &Ledger, node: NodeId) -> bool {
    ledger.nodes.get(&node).is_some_and(crate::ledger::NodeEntry::wants_empty)
}

/// It is in maintenance, or its host went down on purpose, and nobody needs to know what it runs, so that no fence agent hurts it while
/// it is upgraded or rebooted: no VM that is wanted running is its own, unless it waits for it, or may arrive there, none may have been moved there by hand, and neither its removal, nor
/// another change of the nodes, nor a disarming waits for its proof. As soon as one of these does, its fence agent is ordered.
pub(crate) fn is_spared(ledger: &Ledger, node: NodeId) -> bool {
    let needs = |vm: &VmEntry| {
        let arrives = vm.migration.as_ref().is_some_and(|migration| migration.to == node);
        vm.unseen || arrives || vm.owner == node && vm.may_run() && !ledger.is_freezing(node)
    };
    let stays = ledger.nodes.get(&node).filter(|entry| !entry.leaving);
    stays.is_some_and(|entry| entry.maintenance.is_some() || entry.stopping.is_some())
        && ledger.changing.is_none()
        && ledger.disarm.is_none()
        && !ledger.vms.values().any(needs)
}

/// It could not be moved live, and its operator would have it restarted elsewhere.
fn may_restart(entry: &VmEntry, facts: &Facts<'_>, migrations: &Migrations) -> bool {
    let node = facts.ledger.nodes.get(&entry.owner);
    let may = node.is_some_and(|node| match &node.maintenance {
        Some(maintenance) => maintenance.restart || node.stopping.is_some(),
        None => node.lends_its_vms(),
    });
    migrations.failures(&entry.spec.id) > 0 && may
}

/// A place was found for a VM on a node that is to be emptied: it sets off, if it still can and there is a slot.
pub(crate) fn set_off(
    next: &mut Ledger,
    vm: &VmId,
    to: NodeId,
    stamp: Stamp,
    migrations: &Migrations,
    facts: &Facts<'_>,
) -> bool {
    let limit = facts.config.limits.parallel_migrations.max(1);
    let free = under_way(next) < limit && next.disarm.is_none();
    let misplaced = ill_placed(facts);
    let to_move = |entry: &&VmEntry| is_to_move(entry, &misplaced, facts) && entry.owner != to;
    let Some(entry) = facts.ledger.vms.get(vm).filter(to_move) else { return false };
    // Both may have come to be at risk since the place was chosen.
    if next.drain_of(entry.owner).is_some() && next.is_held(to) {
        return false;
    }
    let node = next.nodes.get(&entry.owner).cloned();
    let restart = may_restart(entry, facts, migrations);
    let Some(entry) = next.vms.get_mut(vm).filter(|_| free) else { return false };
    let Some(node) = node.filter(|_| entry.migration.is_none() && entry.leave.is_none()) else {
        return false;
    };
    if node.lends_its_vms() || facts.ledger.drain_of(entry.owner).is_some() {
        entry.home.get_or_insert(entry.owner);
    }
    let reason = match misplaced.get(vm).filter(|_| !node.wants_empty()) {
        Some(why) => why.clone(),
        None => alloc::format!("{} is to be emptied", node.name),
    };
    if restart {
        entry.leave = Some(Leave { to: Some(to), since: stamp, reason });
    } else {
        begin(entry, to, stamp, &reason);
    }
    true
}

/// VMs whose home is in order again return to it, those of one group together or not at all.
pub(crate) fn return_home(
    next: &mut Ledger,
    stamp: Stamp,
    good: &[NodeFacts],
    migrations: &Migrations,
    facts: &Facts<'_>,
) -> bool {
    let limit = facts.config.limits.parallel_migrations.max(1);
    let mut free = limit.saturating_sub(under_way(next));
    let mut changed = false;
    let off = next.disarm.is_some();
    let nodes = next.nodes.clone();
    let groups = Groups::wanted(facts.ledger);
    for entry in next.vms.values_mut() {
        let Some(home) = entry.home else { continue };
        let usable = nodes.get(&home).is_some_and(NodeEntry::is_welcoming);
        let stays = entry.migration.is_none() && entry.leave.is_none();
        let arrived = home == entry.owner && usable && stays;
        if !nodes.contains_key(&home) || arrived || has_settled_elsewhere(entry, home, &groups) {
            entry.home = None;
            changed = true;
            continue;
        }
        let ready = usable
            && good.iter().any(|facts| facts.id == home.0)
            && !migrations.rests(&entry.spec.id, facts.now)
            && migration::refusal(entry, home, facts).is_none()
            && admits(&returning(entry, home, &groups), home, good, facts).is_ok();
        if ready && free > 0 && !off {
            let first = groups.get(&entry.spec.id).and_then(|group| group.first_at(home));
            let why = first.map_or_else(
                || String::from("it returns home"),
                |first| alloc::format!("it must stand with {}", first.spec.name),
            );
            begin(entry, home, stamp, &why);
            free -= 1;
            changed = true;
        }
    }
    changed
}

/// One of its group is elsewhere, and will not return: the group stays together.
fn has_settled_elsewhere(entry: &VmEntry, home: NodeId, groups: &Groups<'_>) -> bool {
    let group = groups.get(&entry.spec.id);
    let mut others = group.into_iter().flat_map(|group| group.away_from(home));
    others.any(|other| other.home != Some(home) && other.spec.id != entry.spec.id)
}

/// The VM and those of its group that return to the same node: together, or not at all.
fn returning<'a>(entry: &'a VmEntry, home: NodeId, groups: &Groups<'a>) -> Vec<&'a VmEntry> {
    let group = groups.get(&entry.spec.id);
    let others = group.into_iter().flat_map(|group| group.away_from(home).copied());
    let same = |other: &&VmEntry| other.home == Some(home) && other.spec.id != entry.spec.id;
    core::iter::once(entry).chain(others.filter(same)).collect()
}

/// An operator wants a node empty.
pub(crate) fn begin_maintenance(
    next: &mut Ledger,
    node: NodeId,
    (restart, reason): (bool, &str),
    stamp: Stamp,
    notes: &mut Vec<Note>,
) -> Result<bool, String> {
    let others = next.nodes.iter().filter(|(other, _)| **other != node);
    let is_last = !others.clone().any(|(_, entry)| !entry.wants_empty());
    let Some(entry) = next.nodes.get_mut(&node) else { return Err(unknown(node)) };
    if is_last {
        return Err(alloc::format!(
            "{} is the last node that is not in maintenance; end another's first",
            entry.name
        ));
    }
    let known = entry.maintenance.as_ref();
    if known.is_some_and(|known| known.restart == restart && known.reason == reason) {
        return Ok(false);
    }
    let since = known.map_or(stamp, |known| known.since);
    entry.maintenance = Some(Maintenance { since, restart, reason: reason.into() });
    let text = alloc::format!("{} is to be emptied: {reason}", entry.name);
    notes.push(Note::new(Kind::Maintenance, "PROTOCOL 7", text).node(node));
    Ok(true)
}

/// The node is used again. VMs that were about to be shut down for it stay.
pub(crate) fn end_maintenance(
    next: &mut Ledger,
    node: NodeId,
    notes: &mut Vec<Note>,
) -> Result<bool, String> {
    let Some(entry) = next.nodes.get_mut(&node) else { return Err(unknown(node)) };
    let Some(maintenance) = entry.maintenance.take() else { return Ok(false) };
    let text = alloc::format!("{} is used again; VMs that were moved off it return", entry.name);
    notes.push(Note::new(Kind::Maintenance, "PROTOCOL 7", text).node(node));
    for vm in next.vms.values_mut().filter(|vm| vm.owner == node) {
        vm.leave.take_if(|leave| leave.since >= maintenance.since && vm.home == Some(node));
    }
    Ok(true)
}

fn unknown(node: NodeId) -> String {
    alloc::format!("node {node} is not configured; see `steadfast status`")
}

/// Why this node does not start a VM of its own, but gives it up, so that it finds another place.
pub(crate) fn reason_to_give_up(ledger: &Ledger, entry: &VmEntry) -> Option<String> {
    let node = ledger.nodes.get(&entry.owner)?;
    if entry.leave.is_some() {
        return Some("it is to leave its node".into());
    }
    // A node that leaves the cluster keeps nothing, not even what is off.
    let goes = node.stopping.as_ref().is_some_and(|stop| stop.way != Way::Freeze);
    let gone = node.leaving || (node.maintenance.is_some() || goes) && entry.may_run();
    gone.then(|| alloc::format!("{} is to be emptied", node.name))
}

impl Machine {
    /// Nothing of it is here: it is given up, for this ownership.
    pub(crate) fn release(&mut self, vm: &VmId, entry: &VmEntry, why: String) {
        if self.guests.has_ended(vm, entry.since) || !entry.acknowledged || entry.unseen {
            return;
        }
        if self.guests.is_uncertain(vm) {
            self.guests.scan_if(self.scan_is_old(), &mut self.out);
            return;
        }
        let text = alloc::format!("{} is given up here: {why}", entry.spec.name);
        self.guests.end(vm, entry.since, Ending::GivenUp(why));
        self.beats.next = self.out.now;
        let note = Note::new(Kind::VmStopped, "PROTOCOL 5.5", text);
        self.out.record(note.vm(vm).node(self.config.me.node));
    }
}

#[cfg(test)]
#[path = "tests/maintenance.rs"]
mod tests;
