//! What the newest committed ledger says, held against the world: who runs nothing runs nothing, who starts owns, who is
//! admitted is not shot. A bug shows here long before two nodes execute the same guest.

use super::faults::bits;
use super::network::mask_words;
use super::node::{id, index};
use super::world::World;
use steadfast_core::ids::Stamp;
use steadfast_core::ledger::{Proof, VmEntry};

impl World {
    /// `proofs_are_true`: a node that is proved to run nothing runs nothing.
    pub fn check_proofs(&mut self) {
        let Some(ledger) = self.check.chain.newest().cloned() else { return };
        for (victim, eviction) in ledger.evictions() {
            let Some(proof) = eviction.proof else { continue };
            // What the owner had not read yet is covered by its kernel's end alone.
            let kernel_ended = matches!(proof, Proof::Fenced | Proof::BootChanged);
            let covered = |entry: &&VmEntry| entry.acknowledged || kernel_ended;
            let owned = ledger.owned_by(victim).map(|(_, entry)| entry).filter(covered);
            let mask = bits(owned.map(|entry| self.vm_index(&entry.spec.id)));
            let n = index(victim);
            let left = self.executing(n) & mask;
            if left > 0 {
                let text =
                    format!("n{} runs {left:b}, and {proof:?} proves that it does not", n + 1);
                self.fail("proofs_are_true", text);
            }
        }
    }

    /// `starts_where_it_belongs`: whoever begins to execute a guest is its owner, and not proved to run nothing.
    pub fn check_place(&mut self, n: usize, vm: usize) {
        let Some(ledger) = self.check.chain.newest().cloned() else { return };
        let Some(entry) = ledger.vms.get(&self.vms[vm]) else { return };
        let name = &self.vms[vm];
        if entry.owner != id(n) {
            let text = format!("{name} starts on n{}, and belongs to {}", n + 1, entry.owner);
            return self.fail("starts_where_it_belongs", text);
        }
        if let Some(proof) = ledger.eviction(id(n)).and_then(|eviction| eviction.proof) {
            let text = format!("{name} starts on n{}, which runs nothing by {proof:?}", n + 1);
            self.fail("starts_where_it_belongs", text);
        }
    }

    /// `no_late_shot`: a fence agent never hits a node that was admitted after the eviction it was ordered for.
    pub fn check_shot(&mut self, victim: usize, eviction: Stamp) {
        let Some(ledger) = self.check.chain.newest() else { return };
        if ledger.admission(id(victim)).is_some_and(|(_, since)| since > eviction) {
            let text = format!("n{} is shot for {eviction}, and was admitted again", victim + 1);
            self.fail("no_late_shot", text);
        }
    }

    /// `eventually_up` for nodes: after healing all are admitted.
    pub fn who_is_out(&self) -> Option<String> {
        let ledger = self.check.chain.newest()?;
        let out =
            bits((0..self.nodes.len()).filter(|n| {
                ledger.nodes.contains_key(&id(*n)) && ledger.admission(id(*n)).is_none()
            }));
        (out > 0).then(|| format!("{} is not admitted", mask_words(out)))
    }
}
