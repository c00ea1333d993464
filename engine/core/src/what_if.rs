//! The standing plan: what would be asked if a node died now. Nothing is decided by it; any node may tell, by what it hears of the
//! others.

use crate::ids::NodeId;
use crate::ledger::VmEntry;
use crate::liveness::facts_of;
use crate::machine::Machine;
use crate::maintenance;
use crate::question::question;
use crate::recovery;
use crate::time::Instant;
use alloc::vec::Vec;
use steadfast_sdk::wire::{NodeFacts, PlacementQuestion};

impl Machine {
    /// Where would the VMs of `node` go that are to run? `None`: it is not configured. Room that is promised to others and not
    /// taken yet is not counted (`promised.rs`): the next plan knows better.
    #[must_use]
    pub fn what_if_died(&self, node: NodeId, now: Instant) -> Option<PlacementQuestion> {
        let ledger = self.register.ledger();
        if !ledger.nodes.contains_key(&node) {
            return None;
        }
        let facts = facts_of!(self, &ledger);
        let lost = |entry: &&VmEntry| entry.owner == node && entry.may_run();
        let vms: Vec<&VmEntry> = ledger.vms.values().filter(lost).collect();
        let own_good = self.lease.may_start(&self.config, now).is_ok();
        let takers = recovery::candidates(&facts, &self.own_facts(), own_good).into_iter();
        let stays = |taker: &NodeFacts| {
            taker.id != node.0 && !maintenance::is_emptied(&ledger, NodeId(taker.id))
        };
        let takers = takers.filter(stays).map(|taker| {
            let cordoned = taker.cordoned || ledger.is_held(NodeId(taker.id));
            NodeFacts { cordoned, ..taker }
        });
        Some(question(&vms, takers.collect(), &facts))
    }
}

#[cfg(test)]
#[path = "tests/what_if.rs"]
mod tests;
