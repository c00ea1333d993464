//! An example to copy: a VM with a label `licence` stands on the few hosts that have it, and others leave those free.
//!
//! A host lists what it has in a label of the same name: `licence = "oracle, windows"`. A policy ranks and cannot veto: if no host with
//! the licence can take the VM, it starts on another rather than nowhere. Where that must not be, give the VM a strict affinity.
use steadfast_policy_placement::PlacementDefault;
use steadfast_sdk::prelude::*;

parameters! {
    /// Which label, and what a licensed host is worth.
    pub struct LicenceBound {
        /// The default placement's own parameters.
        base: PlacementDefault = PlacementDefault::default(),
        /// Label of VMs and hosts that names licences.
        label: String = "licence".into(),
        /// Points lost on a host with licences by a VM that needs none.
        keep_free: i64 = 10_000,
    }
}

impl Placement for LicenceBound {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let score = self.base.score(vm, node, now)?;
        let has = node.labels.get(&self.label);
        let Some(needed) = vm.labels.get(&self.label) else {
            return Some(score.term("kept for licences", lost(has.is_some(), self.keep_free)));
        };
        let licensed = has.is_some_and(|has| has.split(',').any(|one| one.trim() == needed));
        licensed.then_some(score)
    }
}

export_policy! {
    LicenceBound: Placement,
    name = "licence-bound",
    about = "VMs with a licence stand on the hosts that have it; others leave those free.",
}

laws!(LicenceBound);

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::{fixture::Fixture, run::run};

    fn cluster() -> Fixture {
        let cluster = Fixture::cluster(3).label("n3", "licence", "windows, oracle");
        cluster.vm("a").vm("b").vm_label("b", "licence", "oracle")
    }

    #[test]
    fn a_licensed_vm_goes_to_the_host_with_its_licence_and_others_keep_off() {
        let placed = cluster().place::<LicenceBound>();
        assert_eq!((&*placed["a"], &*placed["b"]), ("n1", "n3"));
    }

    #[test]
    fn no_other_host_is_named_for_a_licensed_vm() {
        let asked = cluster().placement();
        let verdict = run::<LicenceBound, _>(&asked);
        let ranked = verdict.vms.iter().find(|ranked| ranked.vm == asked.vms[1].id).unwrap();
        assert_eq!(ranked.nodes.iter().map(|ranked| ranked.node).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn an_unlicensed_vm_uses_the_licensed_host_when_the_others_are_full() {
        let full = |node: &mut NodeFacts| node.memory_free_mib = 100;
        let cluster = cluster().node("n1", full).node("n2", full);
        assert_eq!(cluster.place::<LicenceBound>()["a"], "n3");
    }
}
