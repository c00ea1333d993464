//! What operators may ask for: each change is checked against the next ledger and put into it, or refused with the reason and the
//! remedy. Nothing is done here: owners read what is committed, and do it (`duty.rs`, `shutdown.rs`).

use crate::decision::Kind;
use crate::disarm::{self, Outlook};
use crate::groups::Groups;
use crate::host_shutdown;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Desired, Leave, Ledger, VmEntry, VmSpec};
use crate::liveness::Facts;
use crate::maintenance;
use crate::membership;
use crate::message::Change;
use crate::migration;
use crate::outbox::Note;
use crate::question::admits;
use crate::recovery;
use crate::start_order::circle;
use alloc::{string::String, vec::Vec};
use steadfast_sdk::wire::NodeFacts;

/// What a wish is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk<'a> {
    /// The commit that will hold what is granted.
    pub stamp: Stamp,
    /// Good nodes: they may take VMs now.
    pub good: &'a [NodeFacts],
    /// For switching HA off and on.
    pub outlook: &'a Outlook,
    /// What is said of VMs and nodes now.
    pub facts: &'a Facts<'a>,
}

impl Desk<'_> {
    /// Puts `change`, asked on `from`, into `next`. `Ok(false)`: it is so already.
    pub fn apply(
        &self,
        next: &mut Ledger,
        from: NodeId,
        change: &Change,
        notes: &mut Vec<Note>,
    ) -> Result<bool, String> {
        match change {
            Change::DisableVm(vm) => self.disable(next, vm, notes),
            Change::EnableVm(spec) => self.enable(next, from, spec, notes),
            Change::StartVm(vm) => self.start(next, vm, notes),
            Change::StopVm(vm) => stop(next, vm, notes),
            Change::SetPriority { vm, priority } => set_priority(next, vm, *priority, notes),
            Change::RelocateVm { vm, to } => self.relocate(next, vm, *to, notes),
            Change::BeginMaintenance { node, restart, reason } => {
                let how = (*restart, reason.as_str());
                maintenance::begin_maintenance(next, *node, how, self.stamp, notes)
            }
            Change::EndMaintenance(node) => maintenance::end_maintenance(next, *node, notes),
            Change::MigrateVm { vm, to } => self.migrate(next, vm, *to, notes),
            Change::StopHost { who, .. } if who.node != from => {
                Err(alloc::format!("{} speaks for {}", next.name(from), next.name(who.node)))
            }
            Change::StopHost { who, reboot } => {
                host_shutdown::begin(next, (*who, *reboot), self.stamp, self.facts, notes)
            }
            Change::AddNode { node, name } => {
                membership::add(next, *node, name, self.stamp, self.facts)
            }
            Change::RemoveNode(node) => membership::remove(next, *node),
            Change::Disarm { limit, reason } => {
                Ok(disarm::disarm(next, self.stamp, (*limit, reason), self.outlook, notes))
            }
            Change::AsOf { .. } => Err("a condition of a condition makes no sense".into()),
            Change::Arm => {
                let why = "an operator said so";
                Ok(disarm::arm(next, self.stamp, self.outlook, why, notes))
            }
        }
    }

    fn is_good(&self, node: NodeId) -> bool {
        self.good.iter().any(|facts| facts.id == node.0)
    }

    /// Proved to run nowhere, by the committed ledger and under this ownership.
    fn is_homeless(&self, entry: &VmEntry) -> bool {
        let ledger = self.facts.ledger;
        let known = ledger.vms.get(&entry.spec.id).filter(|known| known.since == entry.since);
        known.is_some_and(|known| recovery::is_homeless(ledger, known, self.facts))
    }

    fn disable(&self, next: &mut Ledger, vm: &VmId, notes: &mut Vec<Note>) -> Result<bool, String> {
        let Some(entry) = next.vms.get(vm) else { return Ok(false) };
        // The entry is what remembers that its owner may run it, unless that is proved not to be.
        if !self.is_good(entry.owner) && !self.is_homeless(entry) {
            return Err(alloc::format!(
                "{} may run on {}, which is not a good node now; try again when it is, or when the VM has moved",
                entry.spec.name,
                next.name(entry.owner)
            ));
        }
        if entry.migration.is_some() || entry.resumes {
            let name = &entry.spec.name;
            return Err(alloc::format!("{name} is being moved; try again when it has arrived"));
        }
        let text = alloc::format!("HA is off for {}: an operator said so", entry.spec.name);
        notes.push(Note::new(Kind::Enrolment, "PROTOCOL 7", text).vm(vm).node(entry.owner));
        Ok(next.vms.remove(vm).is_some())
    }

    fn enable(
        &self,
        next: &mut Ledger,
        from: NodeId,
        spec: &VmSpec,
        notes: &mut Vec<Note>,
    ) -> Result<bool, String> {
        let name = next.name(from);
        if let Some(other) = next.vms.values().find(|vm| is_namesake(vm, spec)) {
            return Err(alloc::format!(
                "another VM is called {}: UUID {}; rename one of them",
                spec.name,
                other.spec.id
            ));
        }
        if let Some(circle) = circle(next, spec) {
            return Err(alloc::format!(
                "each of these would wait for the next to run: {circle}; leave one of them out of `after`"
            ));
        }
        if let Some(known) = next.vms.get_mut(&spec.id) {
            let same = known.spec == *spec;
            if !same && known.owner == from {
                known.spec = spec.clone();
                let text = alloc::format!("the HA settings of {} changed", spec.name);
                let note = Note::new(Kind::Enrolment, "PROTOCOL 7", text);
                notes.push(note.vm(&spec.id).node(from));
                return Ok(true);
            }
            let owner = known.owner;
            return if same && owner == from {
                Ok(false)
            } else {
                Err(alloc::format!(
                    "{} is under HA already, on {}; ask there",
                    spec.name,
                    next.name(owner)
                ))
            };
        }
        if maintenance::is_emptied(next, from) {
            return Err(alloc::format!("{name} is to be emptied; end its maintenance first"));
        }
        if !self.is_good(from) {
            return Err(alloc::format!(
                "{name} is not a good node now (see `steadfast status`); try again when it is a Member"
            ));
        }
        next.vms.insert(spec.id.clone(), VmEntry::new(spec.clone(), from, self.stamp));
        let text = alloc::format!("HA is on for {}, which belongs to {name}", spec.name);
        notes.push(Note::new(Kind::Enrolment, "PROTOCOL 7", text).vm(&spec.id).node(from));
        Ok(true)
    }

    /// A VM that was off, or failed, runs under a new ownership: what was said about the old one is history.
    fn start(&self, next: &mut Ledger, vm: &VmId, notes: &mut Vec<Note>) -> Result<bool, String> {
        let entry = under_ha(next, vm)?;
        if entry.may_run() && entry.failed_on.is_empty() && entry.relocations == 0 {
            return Ok(false);
        }
        if entry.migration.is_some() {
            return Err(alloc::format!("{} is being moved; try again later", entry.spec.name));
        }
        entry.failed_on.clear();
        entry.relocations = 0;
        if !entry.may_run() {
            (entry.desired, entry.failed) = (Desired::Running, None);
            entry.since = self.stamp;
        }
        let text = alloc::format!("{} is to run: an operator said so", entry.spec.name);
        notes.push(Note::new(Kind::Wish, "PROTOCOL 7", text).vm(vm));
        Ok(true)
    }

    /// Moves a running VM live, if it may stand there. Its group goes with it, those for whom there is no slot now a little later.
    fn migrate(
        &self,
        next: &mut Ledger,
        vm: &VmId,
        to: NodeId,
        notes: &mut Vec<Note>,
    ) -> Result<bool, String> {
        may_move(next)?;
        not_drained(next, to)?;
        let target = next.name(to);
        let limit = self.facts.config.limits.parallel_migrations.max(1);
        let under_way = migration::under_way(next);
        let emptied = maintenance::is_emptied(next, to);
        let entry = under_ha(next, vm)?;
        if entry.migration.as_ref().is_some_and(|migration| migration.to == to) {
            return Ok(false);
        }
        let company = company(next, vm, to);
        for entry in &company {
            migration::refusal(entry, to, self.facts).map_or(Ok(()), Err)?;
        }
        if under_way >= limit {
            return Err(alloc::format!(
                "{under_way} migrations are under way, the limit is {limit}; try again later"
            ));
        }
        self.admits(&company, to, emptied, &target)?;
        for (at, other) in company.iter().enumerate() {
            let why = go_along(at, &company[0], "an operator said so");
            let text = alloc::format!("{} is to move to {target}", other.spec.name);
            notes.push(Note::new(Kind::Migration, "PROTOCOL 7", text).vm(&other.spec.id).node(to));
            let Some(entry) = next.vms.get_mut(&other.spec.id) else { continue };
            // `return_home` brings them there when there is a slot.
            entry.home = (at >= limit - under_way).then_some(to);
            if entry.home.is_none() {
                migration::begin(entry, to, self.stamp, &why);
            }
        }
        Ok(true)
    }

    /// Has a VM shut down and started on another node, and its group with it.
    fn relocate(
        &self,
        next: &mut Ledger,
        vm: &VmId,
        to: NodeId,
        notes: &mut Vec<Note>,
    ) -> Result<bool, String> {
        may_move(next)?;
        not_drained(next, to)?;
        let target = next.name(to);
        let emptied = maintenance::is_emptied(next, to);
        let entry = under_ha(next, vm)?;
        if entry.leave.as_ref().is_some_and(|leave| leave.to == Some(to)) {
            return Ok(false);
        }
        let company = company(next, vm, to);
        for entry in &company {
            self.may_be_relocated(entry, to, &target)?;
        }
        self.admits(&company, to, emptied, &target)?;
        for (at, other) in company.iter().enumerate() {
            let reason = go_along(at, &company[0], "an operator said so");
            let Some(entry) = next.vms.get_mut(&other.spec.id) else { continue };
            entry.leave = Some(Leave { to: Some(to), since: self.stamp, reason });
            entry.home = None;
            let text =
                alloc::format!("{} is to be shut down and started on {target}", entry.spec.name);
            notes.push(Note::new(Kind::Wish, "PROTOCOL 7", text).vm(&other.spec.id).node(to));
        }
        Ok(true)
    }

    fn may_be_relocated(&self, entry: &VmEntry, to: NodeId, target: &str) -> Result<(), String> {
        let name = &entry.spec.name;
        if entry.owner == to {
            return Err(alloc::format!("{name} is on {target} already"));
        }
        if !entry.may_run() || !entry.acknowledged || !self.is_good(entry.owner) {
            return Err(alloc::format!(
                "{name} is not in good order where it is now; see `steadfast vm list`"
            ));
        }
        if entry.migration.is_some() {
            return Err(alloc::format!("{name} is being migrated; try again later"));
        }
        Ok(())
    }

    /// The node is good and not to be emptied, and the VM may stand there, with those that come along.
    fn admits(
        &self,
        company: &[VmEntry],
        to: NodeId,
        emptied: bool,
        target: &str,
    ) -> Result<(), String> {
        if emptied {
            return Err(alloc::format!("{target} is to be emptied; end its maintenance first"));
        }
        if !self.is_good(to) {
            return Err(alloc::format!(
                "{target} is not a good node now (see `steadfast status`); try again when it is a Member"
            ));
        }
        let entries: Vec<&VmEntry> = company.iter().collect();
        admits(&entries, to, self.good, self.facts)
            .map_err(|why| alloc::format!("{} cannot stand there: {why}", company[0].spec.name))
    }
}

/// The VM, and those that must share its node and are not on `to`: they go along.
fn company(next: &Ledger, vm: &VmId, to: NodeId) -> Vec<VmEntry> {
    let groups = Groups::wanted(next);
    let group = groups.get(vm).into_iter().flat_map(|group| group.away_from(to).copied());
    let others = group.filter(|other| other.spec.id != *vm);
    next.vms.get(vm).into_iter().chain(others).cloned().collect()
}

/// Why the VM at this place of the company moves.
fn go_along(at: usize, first: &VmEntry, why: &str) -> String {
    match at {
        0 => why.into(),
        _ => alloc::format!("it must stand with {}", first.spec.name),
    }
}

/// A VM that has failed and is to be off is off, as wished: its failure is nobody's concern any more.
fn stop(next: &mut Ledger, vm: &VmId, notes: &mut Vec<Note>) -> Result<bool, String> {
    let entry = under_ha(next, vm)?;
    if entry.desired == Desired::Stopped {
        return Ok(false);
    }
    (entry.desired, entry.leave, entry.failed) = (Desired::Stopped, None, None);
    let text = alloc::format!("{} is to be off: an operator said so", entry.spec.name);
    notes.push(Note::new(Kind::Wish, "PROTOCOL 7", text).vm(vm));
    Ok(true)
}

fn set_priority(
    next: &mut Ledger,
    vm: &VmId,
    priority: u16,
    notes: &mut Vec<Note>,
) -> Result<bool, String> {
    let entry = under_ha(next, vm)?;
    let before = core::mem::replace(&mut entry.spec.priority, priority);
    if before == priority {
        return Ok(false);
    }
    let name = &entry.spec.name;
    let text = alloc::format!("the priority of {name} is {priority}, was {before}");
    notes.push(Note::new(Kind::Enrolment, "PROTOCOL 7", text).vm(vm).node(entry.owner));
    Ok(true)
}

/// Nothing is sent on its way while HA is off, or is about to be: it would be left half-way.
fn may_move(next: &Ledger) -> Result<(), String> {
    match &next.disarm {
        None => Ok(()),
        Some(disarm) if disarm.pending => {
            Err("HA is about to be switched off; ask again when it is on".into())
        }
        Some(_) => Err("HA is off; arm it first, or move the VM by hand".into()),
    }
}

/// A VM that comes to a node at risk would leave it again at once.
fn not_drained(next: &Ledger, node: NodeId) -> Result<(), String> {
    let Some(hold) = next.drain_of(node) else { return Ok(()) };
    Err(alloc::format!(
        "proactive HA drains {}: its risk is {}: {}; repair it, or set [proactive] mode",
        next.name(node),
        hold.score,
        hold.reason
    ))
}

fn under_ha<'a>(next: &'a mut Ledger, vm: &VmId) -> Result<&'a mut VmEntry, String> {
    let unknown = || alloc::format!("VM {vm} is not under HA; see `steadfast vm list`");
    next.vms.get_mut(vm).ok_or_else(unknown)
}

/// Another VM with the same libvirt name: both could never be on one node.
fn is_namesake(vm: &VmEntry, spec: &VmSpec) -> bool {
    vm.spec.name == spec.name && vm.spec.id != spec.id
}

#[cfg(test)]
#[path = "tests/wishes.rs"]
pub(crate) mod tests;
