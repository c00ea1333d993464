//! Room that is promised and not taken yet. A node measures what it has free every few seconds only, so a VM that was given to it a
//! moment ago is in none of its figures: without this the next VM would be given the same memory again.

use crate::guest::GuestState;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Ledger, VmEntry};
use crate::liveness::Facts;
use crate::time::{Instant, Millis};
use alloc::collections::BTreeMap;
use steadfast_sdk::wire::NodeFacts;

/// What a node says it has free was measured within this (source: telemetry, every 5 s, and a survey behind it).
const MEASURED_WITHIN: Millis = Millis(12_000);

/// What this leader gave to whom, and when. A new leader promises nothing but what does not run yet.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    given: BTreeMap<VmId, (Stamp, Instant)>,
}

impl Promises {
    /// A commit gave VMs to nodes.
    pub fn on_committed(&mut self, before: &Ledger, after: &Ledger, now: Instant) {
        self.given.retain(|vm, _| after.vms.contains_key(vm));
        for (vm, entry) in &after.vms {
            let moved = before.vms.get(vm).is_some_and(|old| old.since != entry.since);
            if moved {
                self.given.insert(vm.clone(), (entry.since, now));
            }
        }
    }

    /// Takes off what `nodes` have free what is promised to others than the VMs that are asked about.
    pub fn take_off(
        &self,
        nodes: &mut [NodeFacts],
        is_asked: impl Fn(&VmId) -> bool,
        facts: &Facts<'_>,
    ) {
        for (vm, entry) in &facts.ledger.vms {
            let Some(to) = self.promised_to(entry, facts).filter(|_| !is_asked(vm)) else {
                continue;
            };
            for node in nodes.iter_mut().filter(|node| node.id == to.0) {
                node.memory_free_mib = node.memory_free_mib.saturating_sub(entry.spec.memory_mib);
                node.vcpus_used = node.vcpus_used.saturating_add(entry.spec.vcpus);
            }
        }
    }

    /// The node that is to run the VM, while its figures may not say so.
    fn promised_to(&self, entry: &VmEntry, facts: &Facts<'_>) -> Option<NodeId> {
        if let Some(migration) = &entry.migration {
            return Some(migration.to);
        }
        let state = facts.state_of(entry.owner, &entry.spec.id);
        let waits = matches!(state, None | Some(GuestState::Starting));
        let fresh = self.given.get(&entry.spec.id).is_some_and(|(since, at)| {
            *since == entry.since && facts.now.since(*at) < MEASURED_WITHIN
        });
        let here = facts.ledger.admission(entry.owner).is_some() && entry.may_run();
        (here && (waits || fresh)).then_some(entry.owner)
    }
}

#[cfg(test)]
#[path = "tests/promised.rs"]
mod tests;
