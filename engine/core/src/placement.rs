//! Admission control: a policy ranks, the host decides what is legal. A verdict changes order and place only, never
//! safety, never liveness (PROTOCOL section 8, `policy_is_advice`).
//!
//! Hard constraints are kept here: memory, CPUs, nodes that could not start the VM, and what its operator's affinity forbids. VMs
//! that must share a node are placed together or not at all.

use crate::ids::{NodeId, VmId};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use steadfast_sdk::wire::{
    Affinity, NodeFacts, PlacementQuestion, PlacementVerdict, RankedVm, VmFacts,
};

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

/// What is left of one node.
#[derive(Clone)]
struct Room<'a> {
    facts: &'a NodeFacts,
    memory_mib: u64,
    vcpus: u32,
}

impl<'a> Room<'a> {
    fn of(facts: &'a NodeFacts) -> Self {
        Self { facts, memory_mib: facts.memory_free_mib, vcpus: facts.vcpus_used }
    }

    /// Why it has no room for the VM, if it has none.
    fn refuse(&self, vm: &VmFacts) -> Option<String> {
        if vm.memory_mib > self.memory_mib {
            return Some(alloc::format!(
                "needs {} MiB, free {} MiB",
                vm.memory_mib,
                self.memory_mib
            ));
        }
        let cpus = self.facts.vcpus;
        if vm.vcpus > cpus {
            return Some(alloc::format!("needs {} vCPUs, has {cpus} CPUs", vm.vcpus));
        }
        let limit = cpus.saturating_mul(VCPU_OVERCOMMIT);
        let sum = self.vcpus.saturating_add(vm.vcpus);
        (sum > limit).then(|| alloc::format!("{sum} vCPUs in all, limit {limit}"))
    }

    fn take(&mut self, vm: &VmFacts) {
        self.memory_mib = self.memory_mib.saturating_sub(vm.memory_mib);
        self.vcpus = self.vcpus.saturating_add(vm.vcpus);
    }
}

/// On which nodes VMs with each word of `together` and `apart` stand. Those of one group share words of both: they stand together.
#[derive(Default)]
struct Standing<'a> {
    together: BTreeMap<&'a str, BTreeSet<u32>>,
    apart: BTreeMap<&'a str, Vec<(u32, &'a BTreeSet<String>)>>,
}

impl<'a> Standing<'a> {
    fn add(&mut self, affinity: &'a Affinity, node: u32) {
        for word in &affinity.together {
            self.together.entry(word).or_default().insert(node);
        }
        for word in &affinity.apart {
            self.apart.entry(word).or_default().push((node, &affinity.together));
        }
    }

    /// Why the VM's affinity forbids the node, if it does.
    fn refuse(&self, affinity: &Affinity, node: &NodeFacts) -> Option<String> {
        if !affinity.allows(&node.name) {
            return Some("not one of its nodes".into());
        }
        let is_other = |(there, own): &(u32, &BTreeSet<String>)| {
            *there == node.id && own.is_disjoint(&affinity.together)
        };
        let meets = |word: &&String| {
            self.apart.get(word.as_str()).is_some_and(|holders| holders.iter().any(is_other))
        };
        if let Some(word) = affinity.apart.iter().find(meets) {
            return Some(alloc::format!("must stand apart from others of {word:?}"));
        }
        let elsewhere = |word: &&String| {
            self.together.get(word.as_str()).is_some_and(|nodes| !nodes.contains(&node.id))
        };
        let away = affinity.together.iter().find(elsewhere);
        away.map(|word| alloc::format!("must stand with the others of {word:?}"))
    }
}

/// Places VMs one after the other, or those together that must share a node.
struct Admission<'a> {
    question: &'a PlacementQuestion,
    excluded: &'a BTreeMap<VmId, BTreeSet<NodeId>>,
    rooms: BTreeMap<u32, Room<'a>>,
    standing: Standing<'a>,
    done: BTreeSet<&'a str>,
    admitted: Admitted,
}

/// Validates `verdict`: only ids that were asked about, none twice, hard constraints kept. A VM that the verdict leaves
/// out is ranked by `fallback`; nodes that it leaves out of a VM's ranking are used for that VM only when none of its ranking can
/// take it: a verdict changes order and place, never whether a VM runs.
/// `excluded` names the nodes on which a VM could not be started.
pub(crate) fn admit(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
    fallback: &PlacementVerdict,
    excluded: &BTreeMap<VmId, BTreeSet<NodeId>>,
) -> Admitted {
    let mut admission = Admission {
        question,
        excluded,
        rooms: question.nodes.iter().map(|facts| (facts.id, Room::of(facts))).collect(),
        standing: Standing::default(),
        done: BTreeSet::new(),
        admitted: Admitted::default(),
    };
    for resident in &question.residents {
        for (node, _) in resident.standing() {
            admission.standing.add(&resident.affinity, node);
        }
    }
    let asked: BTreeMap<&str, &VmFacts> =
        question.vms.iter().map(|vm| (vm.id.as_str(), vm)).collect();
    for (ranked, left_out) in admission.in_order(verdict, fallback, &asked) {
        let Some(vm) = asked.get(ranked.vm.as_str()) else { continue };
        admission.place(vm, ranked, left_out);
    }
    admission.admitted
}

/// Where each VM of the question goes by this verdict, all hard constraints kept; `None`: nowhere. What replays compare.
#[must_use]
pub fn places(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
    fallback: &PlacementVerdict,
) -> BTreeMap<VmId, Option<NodeId>> {
    let admitted = admit(question, verdict, fallback, &BTreeMap::new());
    let mut places: BTreeMap<VmId, Option<NodeId>> =
        question.vms.iter().map(|vm| (VmId(vm.id.clone()), None)).collect();
    places.extend(admitted.assignments.into_iter().map(|it| (it.vm, Some(it.node))));
    places
}

/// What a verdict comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// VMs that have a place, in the order of their starts.
    pub places: Vec<(VmId, NodeId)>,
    /// VMs without one, and why.
    pub unfit: BTreeMap<VmId, String>,
}

/// What would become of the VMs of the question by this verdict, all hard constraints kept. VMs that the verdict leaves out are
/// ranked by `fallback`.
#[must_use]
pub fn plan(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
    fallback: &PlacementVerdict,
) -> Plan {
    let admitted = admit(question, verdict, fallback, &BTreeMap::new());
    let places: Vec<(VmId, NodeId)> =
        admitted.assignments.into_iter().map(|it| (it.vm, it.node)).collect();
    let mut unfit = admitted.waiting;
    let placed: BTreeSet<VmId> = places.iter().map(|(vm, _)| vm.clone()).collect();
    let missing = question.vms.iter().map(|vm| VmId(vm.id.clone()));
    let missing = missing.filter(|vm| !placed.contains(vm) && !unfit.contains_key(vm));
    let missing: Vec<VmId> = missing.collect();
    unfit.extend(missing.into_iter().map(|vm| (vm, String::from("no candidate node"))));
    Plan { places, unfit }
}

impl<'a> Admission<'a> {
    fn in_order<'v>(
        &mut self,
        verdict: &'v PlacementVerdict,
        fallback: &'v PlacementVerdict,
        asked: &BTreeMap<&str, &VmFacts>,
    ) -> Vec<(&'v RankedVm, bool)> {
        let mut given = BTreeSet::new();
        let mut order = Vec::new();
        for ranked in &verdict.vms {
            let Some(vm) = asked.get(ranked.vm.as_str()) else {
                self.correct(alloc::format!("unknown VM {:?} in the verdict", ranked.vm));
                continue;
            };
            if given.insert(ranked.vm.as_str()) {
                order.push((ranked, false));
            } else {
                self.correct(alloc::format!("{}: ranked twice, first counts", vm.name));
            }
        }
        let left_out = |ranked: &&RankedVm| !given.contains(ranked.vm.as_str());
        order.extend(fallback.vms.iter().filter(left_out).map(|ranked| (ranked, true)));
        order
    }

    fn correct(&mut self, what: String) {
        self.admitted.corrections.push(what);
    }

    fn place(&mut self, vm: &'a VmFacts, ranked: &RankedVm, left_out: bool) {
        if self.done.contains(vm.id.as_str()) {
            return;
        }
        if left_out {
            self.correct(alloc::format!("{}: left out, built-in ranks it", vm.name));
        }
        let group = self.group_of(vm);
        match self.first_fit(&group, ranked) {
            Ok(node) => group.iter().for_each(|member| self.settle(member, node)),
            Err(why) => {
                for member in group {
                    self.done.insert(&member.id);
                    self.admitted.waiting.insert(VmId(member.id.clone()), why.clone());
                }
            }
        }
    }

    /// The VM, and those of the question that must share its node and have none yet.
    fn group_of(&self, vm: &'a VmFacts) -> Vec<&'a VmFacts> {
        let mut group = [vm].to_vec();
        if vm.affinity.together.is_empty() {
            return group;
        }
        let shares = |other: &&VmFacts| {
            other.id != vm.id
                && !self.done.contains(other.id.as_str())
                && !other.affinity.together.is_disjoint(&vm.affinity.together)
        };
        group.extend(self.question.vms.iter().filter(shares));
        group
    }

    /// Nodes that the ranking leaves out, those with the most memory free first: better there than nowhere.
    fn left_out(&self, ranked: &RankedVm) -> Vec<u32> {
        let listed = |node: &u32| ranked.nodes.iter().any(|candidate| candidate.node == *node);
        let mut nodes: Vec<(&u32, &Room<'_>)> =
            self.rooms.iter().filter(|(node, _)| !listed(node)).collect();
        nodes.sort_by_key(|(node, room)| (core::cmp::Reverse(room.memory_mib), **node));
        nodes.into_iter().map(|(node, _)| *node).collect()
    }

    fn first_fit(&mut self, group: &[&VmFacts], ranked: &RankedVm) -> Result<u32, String> {
        let mut reasons = Vec::new();
        let listed = |node: u32| ranked.nodes.iter().any(|candidate| candidate.node == node);
        let mut candidates: Vec<u32> =
            ranked.nodes.iter().map(|candidate| candidate.node).collect();
        candidates.extend(self.left_out(ranked));
        // Whatever the verdict says, a cordoned node comes last; better there than nowhere.
        candidates.sort_by_key(|node| self.rooms.get(node).is_some_and(|room| room.facts.cordoned));
        for node in candidates {
            let Some(room) = self.rooms.get(&node) else {
                self.correct(alloc::format!("{}: unknown node {node}", group[0].name));
                continue;
            };
            let name = &room.facts.name;
            match self.refuse(group, room.clone()) {
                None if listed(node) => return Ok(node),
                None => {
                    let what = &group[0].name;
                    let text = alloc::format!("{what}: no ranked node can take it, {name} is used");
                    self.correct(text);
                    return Ok(node);
                }
                Some(why) => reasons.push(alloc::format!("{name}: {why}")),
            }
        }
        if reasons.is_empty() {
            return Err("no candidate node".into());
        }
        Err(reasons.join("; "))
    }

    /// Why the group cannot stand there, if it cannot.
    fn refuse(&self, group: &[&VmFacts], mut room: Room<'_>) -> Option<String> {
        for vm in group {
            let never = self.excluded.get(&VmId(vm.id.clone()));
            let node = NodeId(room.facts.id);
            let why = match never {
                Some(nodes) if nodes.contains(&node) => Some("could not start it".into()),
                _ => self.standing.refuse(&vm.affinity, room.facts).or_else(|| room.refuse(vm)),
            };
            if let Some(why) = why {
                let other = vm.id != group[0].id;
                return Some(if other { alloc::format!("{}: {why}", vm.name) } else { why });
            }
            room.take(vm);
        }
        None
    }

    fn settle(&mut self, vm: &'a VmFacts, node: u32) {
        if let Some(room) = self.rooms.get_mut(&node) {
            room.take(vm);
        }
        self.standing.add(&vm.affinity, node);
        self.done.insert(&vm.id);
        let assignment = Assignment { vm: VmId(vm.id.clone()), node: NodeId(node) };
        self.admitted.assignments.push(assignment);
    }
}

#[cfg(test)]
#[path = "tests/placement.rs"]
mod tests;
