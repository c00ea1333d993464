//! What a placement policy is asked, and the same question with one node only: may these VMs stand there?
//!
//! Affinities are those of whole groups (`groups.rs`). A VM that is on its way counts on both nodes: for its memory and for those that
//! must stand apart from it; those that must stand with it go where it goes.

use crate::groups::{Groups, stands_at};
use crate::ids::{Digest, NodeId};
use crate::ledger::VmEntry;
use crate::liveness::Facts;
use crate::placement::admit;
use crate::recovery::{is_orphan, with_copies};
use alloc::{collections::BTreeSet, string::String, vec::Vec};
use steadfast_sdk::residents::Residents;
use steadfast_sdk::wire::{
    Affinity, NodeFacts, PlacementQuestion, PlacementVerdict, RankedNode, RankedVm, Score, VmFacts,
};

/// Where may these VMs go?
pub(crate) fn question(
    vms: &[&VmEntry],
    nodes: Vec<NodeFacts>,
    facts: &Facts<'_>,
) -> PlacementQuestion {
    let ledger = facts.ledger;
    let groups = Groups::wanted(ledger);
    let asked: BTreeSet<_> = vms.iter().map(|entry| &entry.spec.id).collect();
    let stays =
        |entry: &&VmEntry| !asked.contains(&entry.spec.id) && !is_orphan(ledger, entry, facts);
    let vm = |entry: &&VmEntry| {
        let after = entry.spec.after.iter().filter(|vm| asked.contains(vm));
        let after = after.map(|vm| vm.0.clone()).collect();
        VmFacts { after, ..vm_facts(entry, groups.rules(entry)) }
    };
    let vms: Vec<VmFacts> = vms.iter().map(vm).collect();
    let mut residents = Residents::of(&vms);
    let stay = ledger.vms.values().filter(stays);
    stay.for_each(|entry| add_resident(&mut residents, entry, &groups));
    let residents = residents.rows();
    let mut question = PlacementQuestion { now_ms: facts.now.0, seed: 0, nodes, vms, residents };
    question.seed = seed(&question);
    question
}

/// All of these have room there together, and their affinities allow it; otherwise why not.
pub(crate) fn admits(
    entries: &[&VmEntry],
    to: NodeId,
    good: &[NodeFacts],
    facts: &Facts<'_>,
) -> Result<(), String> {
    let target = good.iter().filter(|facts| facts.id == to.0).cloned().collect();
    let question = question(entries, target, facts);
    let ranked = |entry: &&VmEntry| RankedVm {
        vm: entry.spec.id.0.clone(),
        nodes: [RankedNode { node: to.0, score: Score::default() }].into(),
    };
    let verdict = PlacementVerdict { vms: entries.iter().map(ranked).collect() };
    let copies = |entry: &&VmEntry| (entry.spec.id.clone(), with_copies(entry, facts).collect());
    let excluded = entries.iter().map(copies).collect();
    let admitted = admit(&question, &verdict, &PlacementVerdict::default(), &excluded);
    admitted.waiting.into_values().next().map_or(Ok(()), Err)
}

fn vm_facts(entry: &VmEntry, affinity: Affinity) -> VmFacts {
    VmFacts {
        id: entry.spec.id.0.clone(),
        name: entry.spec.name.clone(),
        memory_mib: entry.spec.memory_mib,
        vcpus: entry.spec.vcpus,
        priority: entry.spec.priority,
        labels: entry.spec.labels.clone(),
        last_node: Some(entry.owner.0),
        affinity,
        ..VmFacts::default()
    }
}

/// A VM that is off binds nobody.
fn add_resident(residents: &mut Residents<'_>, entry: &VmEntry, groups: &Groups<'_>) {
    let affinity = if entry.may_run() { groups.rules(entry) } else { Affinity::default() };
    let mut add = |node: NodeId, affinity: &Affinity| {
        residents.add(&entry.spec.id.0, node.0, &entry.spec.labels, affinity);
    };
    let to = stands_at(entry);
    add(to, &affinity);
    if to != entry.owner {
        add(entry.owner, &Affinity { together: BTreeSet::new(), ..affinity });
    }
}

/// The only source of chance a policy may use: a digest of what it is asked.
fn seed(question: &PlacementQuestion) -> u64 {
    let bytes = serde_json::to_vec(question).unwrap_or_default();
    let digest = Digest::of(&bytes);
    u64::from_be_bytes(digest.0[..8].try_into().unwrap_or_default())
}
