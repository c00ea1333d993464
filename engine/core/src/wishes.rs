//! What operators may ask for: each change is checked against the next ledger and put into it, or refused with the reason and the
//! remedy. Nothing is done here: owners read what is committed, and do it (`duty.rs`, `shutdown.rs`).

use crate::decision::Kind;
use crate::disarm::{self, Outlook};
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Desired, Ledger, VmEntry, VmSpec};
use crate::liveness::Facts;
use crate::membership;
use crate::message::Change;
use crate::outbox::Note;
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
    pub facts: &'a Facts<'a>,
    /// For switching HA off and on.
    pub outlook: &'a Outlook,
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
            Change::DisableVm(vm) => self.disable(next, vm),
            Change::EnableVm(spec) => self.enable(next, from, spec),
            Change::StartVm(vm) => self.start(next, vm, notes),
            Change::StopVm(vm) => stop(next, vm, notes),
            Change::AddNode { node, name } => {
                membership::add(next, *node, name, self.stamp, self.facts)
            }
            Change::RemoveNode(node) => membership::remove(next, *node),
            Change::Disarm { limit, reason } => {
                Ok(disarm::disarm(next, self.stamp, (*limit, reason), self.outlook, notes))
            }
            Change::Arm => {
                let why = "an operator said so";
                Ok(disarm::arm(next, self.stamp, self.outlook, why, notes))
            }
            _ => Err("not known to this version".into()),
        }
    }

    fn is_good(&self, node: NodeId) -> bool {
        self.good.iter().any(|facts| facts.id == node.0)
    }

    fn disable(&self, next: &mut Ledger, vm: &VmId) -> Result<bool, String> {
        let Some(entry) = next.vms.get(vm) else { return Ok(false) };
        // The entry is what remembers that its owner may run it.
        if !self.is_good(entry.owner) {
            return Err(alloc::format!(
                "{} may run on {}, which is not a good node now; try again when it is, or when the VM has moved",
                entry.spec.name,
                next.name(entry.owner)
            ));
        }
        Ok(next.vms.remove(vm).is_some())
    }

    fn enable(&self, next: &mut Ledger, from: NodeId, spec: &VmSpec) -> Result<bool, String> {
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
        if !self.is_good(from) {
            return Err(alloc::format!(
                "{name} is not a good node now (see `steadfast status`); try again when it is a Member"
            ));
        }
        next.vms.insert(spec.id.clone(), VmEntry::new(spec.clone(), from, self.stamp));
        Ok(true)
    }

    /// A VM that was off, or failed, runs under a new ownership: what was said about the old one is history.
    fn start(&self, next: &mut Ledger, vm: &VmId, notes: &mut Vec<Note>) -> Result<bool, String> {
        let entry = under_ha(next, vm)?;
        if entry.may_run() && entry.failed_on.is_empty() && entry.relocations == 0 {
            return Ok(false);
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
}

fn stop(next: &mut Ledger, vm: &VmId, notes: &mut Vec<Note>) -> Result<bool, String> {
    let entry = under_ha(next, vm)?;
    if entry.desired == Desired::Stopped {
        return Ok(false);
    }
    entry.desired = Desired::Stopped;
    let text = alloc::format!("{} is to be off: an operator said so", entry.spec.name);
    notes.push(Note::new(Kind::Wish, "PROTOCOL 7", text).vm(vm));
    Ok(true)
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
