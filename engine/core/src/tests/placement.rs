use super::*;
use steadfast_sdk::wire::{RankedNode, Resident};

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
fn a_node_that_the_policy_leaves_out_is_used_when_no_other_can_take_the_vm() {
    let mut question = question();
    question.nodes[1].memory_free_mib = 200;
    for ranked in [ranking("a", &[9]), ranking("a", &[])] {
        let admitted = admit(&question, &verdict(&[ranked]), &verdict(&[]), &BTreeMap::new());
        assert_eq!(admitted.assignments, [Assignment { vm: VmId("a".into()), node: NodeId(2) }]);
        assert!(admitted.corrections.iter().any(|c| c.contains("n2 is used")));
    }
    let admitted =
        admit(&question, &verdict(&[ranking("a", &[1])]), &verdict(&[]), &BTreeMap::new());
    assert_eq!(admitted.assignments[0].node, NodeId(1), "the ranked one can");
}

#[test]
fn a_node_that_could_not_start_the_vm_is_not_used_again() {
    let ranked = verdict(&[ranking("a", &[1])]);
    let excluded = [(VmId("a".into()), [NodeId(1)].into())].into();
    let admitted = admit(&question(), &ranked, &verdict(&[]), &excluded);
    assert!(admitted.waiting[&VmId("a".into())].contains("could not start it"));
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| String::from(*word)).collect()
}

#[test]
fn a_verdict_against_an_operators_affinity_is_not_followed() {
    let mut question = question();
    question.vms[0].affinity.nodes = [("n2".into(), 1)].into();
    question.vms[0].affinity.strict = true;
    question.vms[1].memory_mib = 10;
    question.vms[1].affinity.apart = words(&["db"]);
    let affinity = question.vms[1].affinity.clone();
    question.residents.push(Resident { vm: "r".into(), node: 1, affinity, ..Resident::default() });
    let ranked = verdict(&[ranking("a", &[1]), ranking("b", &[1, 2])]);
    let admitted = admit(&question, &ranked, &verdict(&[]), &BTreeMap::new());
    assert_eq!(admitted.assignments, [Assignment { vm: VmId("b".into()), node: NodeId(2) }]);
    assert!(admitted.waiting[&VmId("a".into())].contains("n1: not one of its nodes"));
}

#[test]
fn vms_that_must_share_a_node_are_placed_together_or_not_at_all() {
    let mut question = question();
    question.nodes[1].memory_free_mib = 200;
    question.vms.iter_mut().for_each(|vm| vm.affinity.together = words(&["shop"]));
    let ranked = verdict(&[ranking("a", &[1, 2]), ranking("b", &[1, 2])]);
    let admitted = admit(&question, &ranked, &verdict(&[]), &BTreeMap::new());
    assert!(admitted.assignments.iter().all(|assignment| assignment.node == NodeId(2)));
    assert_eq!(admitted.assignments.len(), 2);
    question.nodes[1].memory_free_mib = 100;
    let admitted = admit(&question, &ranked, &verdict(&[]), &BTreeMap::new());
    assert!(admitted.assignments.is_empty());
    let why = &admitted.waiting[&VmId("a".into())];
    assert!(why.contains("n1: b: needs 60 MiB, free 40 MiB"), "{why}");
}
