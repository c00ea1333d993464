//! What need not be looked at again. With thousands of VMs most of a step would go into looking at each of them anew, to find
//! what was found in the step before: that there is nothing to do.
//!
//! A [`Brief`] says what there is in one ledger. Ledgers never change, new ones come in their place, so it is made once for each.
//! A [`Rest`] knows in addition what owners say of their VMs: while neither that nor the ledger changes, a leader that found nothing
//! to do for any VM finds nothing again. Only what rests on these two may be left out for it: what waits for a time, or for a
//! migration, keeps the leader from its rest.

use crate::ids::{NodeId, VmId};
use crate::ledger::{Ledger, NodeEntry, VmEntry};
use crate::liveness::Facts;
use crate::start_order::by_priority;
use alloc::{sync::Arc, vec::Vec};

/// One ledger, as one node looks at it.
#[derive(Debug, Default)]
pub(crate) struct Brief {
    of: Option<Arc<Ledger>>,
    /// This node's VMs, in the order in which they are to start.
    pub mine: Arc<Vec<VmId>>,
    /// Those of them that are to be off, or to leave, by id.
    pub unwanted: Arc<Vec<VmId>>,
    /// Some VM is being migrated, or was and has not been resumed yet.
    pub moves: bool,
    /// All that a leader does for VMs rests on what their owners say of them alone.
    is_plain: bool,
}

impl Brief {
    fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, ledger))
    }

    /// Makes itself the brief of `ledger`.
    pub fn read(&mut self, ledger: &Arc<Ledger>, me: NodeId) -> &Self {
        if !self.is_of(ledger) {
            let mine = by_priority(ledger.owned_by(me)).into_iter().map(|(vm, _)| vm.clone());
            let unwanted = ledger.owned_by(me).filter(|(_, entry)| !entry.may_run_here());
            let moves = |entry: &VmEntry| entry.migration.is_some() || entry.resumes;
            *self = Self {
                of: Some(ledger.clone()),
                mine: Arc::new(mine.collect()),
                unwanted: Arc::new(unwanted.map(|(vm, _)| vm.clone()).collect()),
                moves: ledger.vms.values().any(moves),
                is_plain: ledger.vms.values().all(is_plain) && !ledger.nodes.values().any(empties),
            };
        }
        self
    }
}

/// Nothing about it waits for a time, for all nodes' words, or for a better place.
fn is_plain(entry: &VmEntry) -> bool {
    let settled = entry.acknowledged && !entry.unseen && entry.leave.is_none();
    let stays = entry.migration.is_none() && !entry.resumes && entry.home.is_none();
    settled && stays && entry.relocations == 0 && entry.spec.affinity.is_empty()
}

fn empties(node: &NodeEntry) -> bool {
    node.wants_empty() || node.drain().is_some()
}

/// Whether anything has changed since a leader found nothing to do for any VM.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    ledger: Option<Arc<Ledger>>,
    /// What each configured node says of its VMs, by [`crate::beats::Heard::said`]; 0: it says nothing now.
    said: Vec<u64>,
    /// The plan had nothing to change for any VM.
    pub planned: bool,
    /// No owner was to be ordered to start one.
    pub ordered: bool,
}

impl Rest {
    /// Ends it if the ledger or the words of owners are not what they were.
    pub fn look(&mut self, ledger: &Arc<Ledger>, facts: &Facts<'_>) {
        let same = self.ledger.as_ref().is_some_and(|known| Arc::ptr_eq(known, ledger));
        let mut changed = !same;
        if changed {
            self.ledger = Some(ledger.clone());
            self.said = ledger.nodes.keys().map(|_| 0).collect();
        }
        for (known, node) in self.said.iter_mut().zip(ledger.nodes.keys()) {
            let said = facts.word_of(*node).map_or(0, |heard| heard.said);
            changed |= *known != said;
            *known = said;
        }
        if changed {
            (self.planned, self.ordered) = (false, false);
        }
    }

    /// The plan for this ledger and these words leaves every VM as it is.
    pub fn plans_nothing(&mut self, brief: &Brief) {
        self.planned = brief.is_plain;
    }
}
