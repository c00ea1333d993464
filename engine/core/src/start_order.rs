//! Which VM starts before which: by priority, and never before those that it needs (`VmSpec::after`). The same after a failover and
//! after a power cut.
//!
//! A VM waits until each VM that it starts after runs, by its owner's word. One without HA does not count, nor one that its
//! operator keeps off: that was his decision, and he would not want the others down with it. One that has *failed* holds those after
//! it, visibly: they would fail too. A circle would wait for ever: it is refused when a VM comes under HA.
//!
//! Order is no matter of safety: waiting starts nothing.

use crate::guest::GuestState;
use crate::ids::VmId;
use crate::ledger::{Desired, Ledger, VmEntry, VmSpec};
use crate::liveness::Facts;
use alloc::{collections::BTreeSet, string::String, vec::Vec};

/// Why `entry` is not started yet, if VMs that it starts after do not run.
pub(crate) fn held_by(entry: &VmEntry, facts: &Facts<'_>) -> Option<String> {
    let needed = entry.spec.after.iter().filter_map(|vm| facts.ledger.vms.get(vm));
    let mut wanted = needed.filter(|needed| needed.desired == Desired::Running);
    let missing = wanted.find(|needed| !runs(needed, facts))?;
    let name = &missing.spec.name;
    Some(match &missing.failed {
        None => alloc::format!("it starts after {name}, which does not run yet"),
        Some(_) => alloc::format!("it starts after {name}, which has failed; start that first"),
    })
}

fn runs(entry: &VmEntry, facts: &Facts<'_>) -> bool {
    let state = facts.state_of(entry.owner, &entry.spec.id);
    matches!(state, Some(GuestState::Running | GuestState::Leaving))
}

/// VMs in the order in which they are to start: the highest priority first.
pub(crate) fn by_priority<'a>(
    vms: impl Iterator<Item = (&'a VmId, &'a VmEntry)>,
) -> Vec<(&'a VmId, &'a VmEntry)> {
    let mut vms: Vec<_> = vms.collect();
    vms.sort_by_key(|(vm, entry)| (core::cmp::Reverse(entry.spec.priority), *vm));
    vms
}

/// The names of VMs that would wait for each other if `spec` came under HA, the first one last again.
pub(crate) fn circle(ledger: &Ledger, spec: &VmSpec) -> Option<String> {
    let mut path = [spec.name.clone()].to_vec();
    find_back(ledger, spec, &spec.id, &mut path, &mut BTreeSet::new()).then(|| path.join(", "))
}

fn find_back(
    ledger: &Ledger,
    spec: &VmSpec,
    target: &VmId,
    path: &mut Vec<String>,
    seen: &mut BTreeSet<VmId>,
) -> bool {
    if spec.after.contains(target) {
        path.push(path[0].clone());
        return true;
    }
    for next in spec.after.iter().filter_map(|vm| ledger.vms.get(vm)) {
        if !seen.insert(next.spec.id.clone()) {
            continue;
        }
        path.push(next.spec.name.clone());
        if find_back(ledger, &next.spec, target, path, seen) {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
#[path = "tests/start_order.rs"]
mod tests;
