//! Operators who want something of VMs that are under HA already.

use super::clock::{MS, SECOND, Time};
use super::world::World;
use std::collections::BTreeMap;
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use steadfast_core::message::Change;

/// What operators remember.
#[derive(Debug, Default)]
pub struct Wishes {
    /// When a VM that had failed was last started again.
    revived: BTreeMap<VmId, Time>,
}

impl World {
    /// After healing an operator starts what has failed: nobody else will.
    pub fn revive_failed(&mut self) {
        if !self.healed {
            return;
        }
        for n in 0..self.nodes.len() {
            let Some(epoch) = self.epoch(n) else { continue };
            let Some(agent) = self.agent(n, epoch) else { continue };
            let ledger = agent.machine.ledger();
            for (vm, _) in ledger.vms.iter().filter(|(_, entry)| entry.failed.is_some()) {
                let last = self.wishes.revived.get(vm).copied();
                if last.is_some_and(|at| self.now < at + 10 * SECOND) {
                    continue;
                }
                self.wishes.revived.insert(vm.clone(), self.now);
                self.request(n, epoch, Change::StartVm(vm.clone()));
            }
        }
    }

    /// Asks an agent for a change.
    pub fn request(&mut self, n: usize, epoch: u64, change: Change) {
        self.requests += 1;
        let id = self.requests;
        self.note(n, || format!("an operator asks: {change:?}"));
        let delay = self.rng.range(0, 50 * MS);
        let change = Box::new(change);
        self.answer(n, epoch, delay, Event::ChangeRequested { id, change });
    }
}
