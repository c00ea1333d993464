//! Admission control: a policy ranks, the host decides what is legal. A verdict changes order and place only, never
//! safety, never liveness (PROTOCOL section 8, `policy_is_advice`).

use crate::ids::{NodeId, VmId};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use steadfast_sdk::wire::{NodeFacts, PlacementQuestion, PlacementVerdict, RankedVm, VmFacts};

/// Virtual CPUs that a physical one may carry, all VMs of the node together.
const VCPU_OVERCOMMIT: u32 = 8;

/// A VM and the node it is to start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub vm: VmId,
    pub node: NodeId,
}

/// What is legal of a verdict, and what the host did not follow.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub assignments: Vec<Assignment>,
    /// VMs without a place, and why.
    pub waiting: BTreeMap<VmId, String>,
    pub corrections: Vec<String>,
}

struct Room<'a> {
    facts: &'a NodeFacts,
    memory_mib: u64,
    vcpus: u32,
}

impl Room<'_> {
    fn refuse(&self, vm: &VmFacts) -> Option<String> {
        let name = &self.facts.name;
        if vm.memory_mib > self.memory_mib {
            return Some(alloc::format!(
                "{name}: needs {} MiB, free {} MiB",
                vm.memory_mib,
                self.memory_mib
            ));
        }
        if vm.vcpus > self.facts.vcpus {
            return Some(alloc::format!(
                "{name}: needs {} vCPUs, has {} CPUs",
                vm.vcpus,
                self.facts.vcpus
            ));
        }
        let limit = self.facts.vcpus.saturating_mul(VCPU_OVERCOMMIT);
        let sum = self.vcpus.saturating_add(vm.vcpus);
        (sum > limit).then(|| alloc::format!("{name}: {sum} vCPUs in all, limit {limit}"))
    }

    fn take(&mut self, vm: &VmFacts) {
        self.memory_mib = self.memory_mib.saturating_sub(vm.memory_mib);
        self.vcpus = self.vcpus.saturating_add(vm.vcpus);
    }
}

/// Validates `verdict`: only ids that were asked about, none twice, hard constraints kept. A VM that the verdict leaves
/// out is ranked by `fallback`; nodes that it leaves out of a VM's ranking are not used for that VM.
/// `excluded` names the nodes on which a VM could not be started.
pub(crate) fn admit(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
    fallback: &PlacementVerdict,
    excluded: &BTreeMap<VmId, BTreeSet<NodeId>>,
) -> Admitted {
    let mut admitted = Admitted::default();
    let mut rooms: BTreeMap<u32, Room<'_>> =
        question.nodes.iter().map(|n| (n.id, room(n))).collect();
    let mut seen = BTreeSet::new();
    for (ranked, left_out) in in_order(question, verdict, fallback, &mut admitted.corrections) {
        let Some(vm) = question.vms.iter().find(|vm| vm.id == ranked.vm) else { continue };
        if !seen.insert(&vm.id) {
            admitted.corrections.push(alloc::format!("{}: ranked twice, first counts", vm.name));
            continue;
        }
        if left_out {
            admitted.corrections.push(alloc::format!("{}: left out, built-in ranks it", vm.name));
        }
        let id = VmId(vm.id.clone());
        let never = excluded.get(&id);
        match first_fit(vm, ranked, &mut rooms, never, &mut admitted.corrections) {
            Ok(node) => admitted.assignments.push(Assignment { vm: id, node }),
            Err(why) => {
                admitted.waiting.insert(id, why);
            }
        }
    }
    admitted
}

fn room(facts: &NodeFacts) -> Room<'_> {
    Room { facts, memory_mib: facts.memory_free_mib, vcpus: facts.vcpus_used }
}

fn in_order<'a>(
    question: &PlacementQuestion,
    verdict: &'a PlacementVerdict,
    fallback: &'a PlacementVerdict,
    corrections: &mut Vec<String>,
) -> Vec<(&'a RankedVm, bool)> {
    let asked = |ranked: &&RankedVm| question.vms.iter().any(|vm| vm.id == ranked.vm);
    for stranger in verdict.vms.iter().filter(|ranked| !asked(ranked)) {
        corrections.push(alloc::format!("unknown VM {:?} in the verdict", stranger.vm));
    }
    let ranked = verdict.vms.iter().filter(asked).map(|ranked| (ranked, false));
    let left_out = |r: &&RankedVm| !verdict.vms.iter().any(|given| given.vm == r.vm);
    ranked.chain(fallback.vms.iter().filter(left_out).map(|ranked| (ranked, true))).collect()
}

fn first_fit(
    vm: &VmFacts,
    ranked: &RankedVm,
    rooms: &mut BTreeMap<u32, Room<'_>>,
    never: Option<&BTreeSet<NodeId>>,
    corrections: &mut Vec<String>,
) -> Result<NodeId, String> {
    let mut reasons = Vec::new();
    for candidate in &ranked.nodes {
        let Some(room) = rooms.get_mut(&candidate.node) else {
            corrections.push(alloc::format!("{}: unknown node {}", vm.name, candidate.node));
            continue;
        };
        let node = NodeId(candidate.node);
        if never.is_some_and(|nodes| nodes.contains(&node)) {
            reasons.push(alloc::format!("{}: could not start it", room.facts.name));
            continue;
        }
        match room.refuse(vm) {
            None => {
                room.take(vm);
                return Ok(node);
            }
            Some(why) => reasons.push(why),
        }
    }
    if reasons.is_empty() {
        return Err("no candidate node".into());
    }
    Err(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::wire::RankedNode;

    fn question() -> PlacementQuestion {
        let node = |id: u32, free| NodeFacts {
            id,
            name: alloc::format!("n{id}"),
            memory_free_mib: free,
            vcpus: 2,
            ..NodeFacts::default()
        };
        let vm = |id: &str, memory_mib| VmFacts {
            id: id.into(),
            name: id.into(),
            memory_mib,
            vcpus: 1,
            ..VmFacts::default()
        };
        PlacementQuestion {
            nodes: [node(1, 100), node(2, 50)].into(),
            vms: [vm("a", 60), vm("b", 60)].into(),
            ..PlacementQuestion::default()
        }
    }

    fn ranking(vm: &str, nodes: &[u32]) -> RankedVm {
        let node = |id: &u32| RankedNode { node: *id, ..RankedNode::default() };
        RankedVm { vm: vm.into(), nodes: nodes.iter().map(node).collect() }
    }

    fn verdict(vms: &[RankedVm]) -> PlacementVerdict {
        PlacementVerdict { vms: vms.to_vec() }
    }

    #[test]
    fn memory_taken_by_the_first_vm_is_not_given_to_the_second() {
        let ranked = verdict(&[ranking("a", &[1, 2]), ranking("b", &[1, 2])]);
        let admitted = admit(&question(), &ranked, &verdict(&[]), &BTreeMap::new());
        assert_eq!(admitted.assignments, [Assignment { vm: VmId("a".into()), node: NodeId(1) }]);
        let why = &admitted.waiting[&VmId("b".into())];
        assert!(why.contains("n1: needs 60 MiB, free 40 MiB"), "{why}");
        assert!(why.contains("n2: needs 60 MiB, free 50 MiB"), "{why}");
    }

    #[test]
    fn a_vm_that_the_policy_leaves_out_is_ranked_by_the_builtin() {
        let ranked = verdict(&[ranking("a", &[1])]);
        let fallback = verdict(&[ranking("a", &[2]), ranking("b", &[1])]);
        let mut question = question();
        question.nodes[0].memory_free_mib = 200;
        let admitted = admit(&question, &ranked, &fallback, &BTreeMap::new());
        assert_eq!(admitted.assignments.len(), 2);
        assert!(admitted.corrections.iter().any(|c| c.contains("left out")));
    }

    #[test]
    fn unknown_ids_and_doubles_change_nothing_and_are_told() {
        let ranked = verdict(&[ranking("ghost", &[1]), ranking("a", &[9, 1]), ranking("a", &[2])]);
        let admitted = admit(&question(), &ranked, &verdict(&[]), &BTreeMap::new());
        assert_eq!(admitted.assignments, [Assignment { vm: VmId("a".into()), node: NodeId(1) }]);
        assert_eq!(admitted.corrections.len(), 3);
    }

    #[test]
    fn a_node_that_could_not_start_the_vm_is_not_used_again() {
        let ranked = verdict(&[ranking("a", &[1])]);
        let excluded = [(VmId("a".into()), [NodeId(1)].into())].into();
        let admitted = admit(&question(), &ranked, &verdict(&[]), &excluded);
        assert!(admitted.waiting[&VmId("a".into())].contains("could not start it"));
    }
}
