//! Operators who add nodes and remove them while the cluster runs.

use super::clock::{SECOND, Time};
use super::faults::{Fault, Kind};
use super::node::id;
use super::plan::{Class, Plan};
use super::rng::Rng;
use super::world::World;
use steadfast_core::ledger::Ledger;
use steadfast_core::message::Change;

/// An operator asks again after this.
const ASK_AGAIN: Time = 3 * SECOND;

/// Who is to be in the cluster.
#[derive(Debug, Default)]
pub struct Members {
    /// Nodes that the operator wants out, as bits.
    pub unwanted: u64,
    /// When he last asked.
    pub asked: Time,
}

impl Plan {
    /// In some mixed runs nodes come and go. By chance of its own, so that other seeds keep their stories.
    pub fn draw_members(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x0dd_0e5);
        let mixed = self.class == Class::Swarm && self.plant.is_none() && self.focus.is_none();
        if !mixed || self.nodes < 3 || !rng.chance(300) {
            return;
        }
        self.reconfigured = true;
        if rng.chance(500) {
            self.strangers = 1 << rng.index(self.nodes);
        }
        for _ in 0..rng.range(1, 8) {
            let at = rng.range(10 * SECOND, self.heal);
            self.faults.push((at, Fault::draw(Kind::Reconfigure, self, &mut rng)));
        }
    }
}

impl World {
    /// The operator changes his mind about these nodes; two must stay.
    pub fn reconfigure(&mut self, nodes: u64) {
        let unwanted = self.members.unwanted ^ nodes;
        if (self.plan.all() & !unwanted).count_ones() >= 2 {
            self.members.unwanted = unwanted;
        }
    }

    /// Asks for what is not so yet, one node at a time.
    pub fn keep_members(&mut self) {
        let newest = self.check.chain.newest().cloned();
        let Some(ledger) = newest.filter(|_| self.plan.reconfigured) else { return };
        if self.now < self.members.asked + ASK_AGAIN {
            return;
        }
        let differs = |n: &usize| wants(&ledger, *n) != (self.members.unwanted >> n & 1 == 0);
        let Some(n) = (0..self.nodes.len()).find(differs) else { return };
        let from = self.rng.index(self.nodes.len());
        let Some(epoch) = self.epoch(from) else { return };
        let (node, name) = (id(n), self.nodes[n].name.clone());
        let change = match wants(&ledger, n) {
            true => Change::RemoveNode(node),
            false => Change::AddNode { node, name },
        };
        self.members.asked = self.now;
        self.request(from, epoch, change);
    }
}

/// It is in the cluster, and is to stay.
fn wants(ledger: &Ledger, n: usize) -> bool {
    ledger.nodes.get(&id(n)).is_some_and(|entry| !entry.leaving)
}
