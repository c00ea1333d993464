use super::*;
use steadfast_sdk::fixture::Fixture;
use steadfast_sdk::run::run_with;

fn node(id: u32, free: u64) -> NodeFacts {
    NodeFacts {
        id,
        name: format!("n{id}"),
        status: "Member".into(),
        memory_mib: 10_000,
        memory_free_mib: free,
        vcpus: 16,
        ..Default::default()
    }
}

fn vm(id: &str, memory_mib: u64) -> VmFacts {
    VmFacts { id: id.to_string(), memory_mib, vcpus: 1, ..Default::default() }
}

fn labelled(id: &str, key: &str, value: &str) -> VmFacts {
    let mut vm = vm(id, 100);
    vm.labels.insert(key.into(), value.into());
    vm
}

fn question(nodes: &[NodeFacts], vms: &[VmFacts]) -> PlacementQuestion {
    PlacementQuestion { nodes: nodes.to_vec(), vms: vms.to_vec(), ..Default::default() }
}

fn first_choices(question: &PlacementQuestion) -> Vec<(&str, u32)> {
    let verdict = builtin(question);
    let chosen = |id: &str| {
        let ranked = verdict.vms.iter().find(|ranked| ranked.vm == id).expect("every VM is ranked");
        assert!(ranked.nodes.iter().all(|node| node.score.is_sound()));
        ranked.nodes[0].node
    };
    question.vms.iter().map(|vm| (vm.id.as_str(), chosen(&vm.id))).collect()
}

#[test]
fn vms_start_by_priority_and_then_by_id() {
    let mut vms = [vm("a", 1), vm("b", 1), vm("c", 1)];
    vms[2].priority = 900;
    let verdict = builtin(&question(&[node(1, 10_000)], &vms));
    let order: Vec<_> = verdict.vms.iter().map(|ranked| ranked.vm.as_str()).collect();
    assert_eq!(order, ["c", "a", "b"]);
}

#[test]
fn every_vm_sees_those_placed_before_it() {
    let nodes = [node(1, 9_000), node(2, 8_000)];
    let asked = question(&nodes, &[vm("a", 3_000), vm("b", 3_000), vm("c", 100)]);
    assert_eq!(first_choices(&asked), [("a", 1), ("b", 2), ("c", 1)]);
}

#[test]
fn vms_that_must_stand_apart_do_even_on_a_fuller_node() {
    let nodes = [node(1, 9_000), node(2, 700)];
    let vms = [labelled("a", KEEP_APART, "db"), labelled("b", KEEP_APART, "db")];
    assert_eq!(first_choices(&question(&nodes, &vms)), [("a", 1), ("b", 2)]);
}

#[test]
fn a_resident_counts_for_its_group() {
    let mut asked = question(&[node(1, 9_000), node(2, 8_000)], &[labelled("a", GROUP, "web")]);
    let labels = asked.vms[0].labels.clone();
    asked.residents.push(Resident { vm: "r".into(), node: 1, labels, ..Default::default() });
    assert_eq!(first_choices(&asked), [("a", 2)]);
}

#[test]
fn a_node_without_room_comes_last_but_is_ranked() {
    let nodes = [node(1, 50), node(2, 60), node(3, 500)];
    let verdict = builtin(&question(&nodes, &[vm("a", 100)]));
    let ranked: Vec<_> = verdict.vms[0].nodes.iter().map(|ranked| ranked.node).collect();
    assert_eq!((ranked.len(), ranked[0]), (3, 3));
}

#[test]
fn a_risky_node_is_used_only_when_the_others_are_full() {
    let mut nodes = [node(1, 9_000), node(2, 5_000)];
    nodes[0].risk = 800;
    assert_eq!(first_choices(&question(&nodes, &[vm("a", 100)])), [("a", 2)]);
    assert_eq!(first_choices(&question(&nodes, &[vm("a", 6_000)])), [("a", 1)]);
}

#[test]
fn the_order_of_nodes_and_vms_in_the_question_does_not_matter() {
    let nodes = [node(1, 9_000), node(2, 9_000), node(3, 100)];
    let vms = [vm("a", 10), vm("b", 2_000), vm("c", 300)];
    let asked = question(&nodes, &vms);
    let mut turned = asked.clone();
    turned.nodes.reverse();
    turned.vms.reverse();
    assert_eq!(builtin(&asked), builtin(&turned));
}

#[test]
fn no_nodes_and_no_vms_are_answered_too() {
    assert_eq!(builtin(&PlacementQuestion::default()), PlacementVerdict::default());
    let verdict = builtin(&question(&[], &[vm("a", 1)]));
    assert!(verdict.vms[0].nodes.is_empty());
}

#[test]
fn absurd_sizes_neither_panic_nor_leave_the_range() {
    let mut huge = node(1, u64::MAX);
    huge.vcpus_used = u32::MAX;
    huge.flaps = u32::MAX;
    huge.risk = u16::MAX;
    let mut vm = vm("a", u64::MAX);
    vm.vcpus = u32::MAX;
    first_choices(&question(&[huge, NodeFacts::default()], &[vm]));
}

fn on_nodes(id: &str, nodes: &[(&str, u32)], strict: bool) -> VmFacts {
    let mut vm = vm(id, 100);
    vm.affinity.nodes = nodes.iter().map(|(name, weight)| (name.to_string(), *weight)).collect();
    vm.affinity.strict = strict;
    vm
}

#[test]
fn a_preferred_node_wins_over_an_emptier_one() {
    let nodes = [node(1, 9_000), node(2, 3_000), node(3, 2_000)];
    let asked = question(&nodes, &[on_nodes("a", &[("n2", 1), ("n3", 2)], false)]);
    assert_eq!(first_choices(&asked), [("a", 3)]);
}

#[test]
fn a_vm_leaves_its_preferred_node_when_that_is_full() {
    let nodes = [node(1, 9_000), node(2, 50)];
    let asked = question(&nodes, &[on_nodes("a", &[("n2", 1)], false)]);
    assert_eq!(first_choices(&asked), [("a", 1)]);
}

#[test]
fn vms_that_must_share_a_node_go_where_all_of_them_fit() {
    let nodes = [node(1, 900), node(2, 1_500)];
    let mut vms = [vm("a", 800), vm("b", 600)];
    vms.iter_mut().for_each(|vm| vm.affinity.together = ["shop".to_string()].into());
    assert_eq!(first_choices(&question(&nodes, &vms)), [("a", 2), ("b", 2)]);
}

#[test]
fn a_vm_joins_the_resident_that_it_must_share_a_node_with() {
    let mut asked = question(&[node(1, 900), node(2, 9_000)], &[vm("a", 100)]);
    asked.vms[0].affinity.together.insert("shop".into());
    let affinity = asked.vms[0].affinity.clone();
    asked.residents.push(Resident { vm: "r".into(), node: 1, affinity, ..Default::default() });
    assert_eq!(first_choices(&asked), [("a", 1)]);
}

#[test]
fn vms_that_must_not_share_a_node_do_not() {
    let mut vms = [vm("a", 100), vm("b", 100)];
    vms.iter_mut().for_each(|vm| vm.affinity.apart = ["db".to_string()].into());
    assert_eq!(
        first_choices(&question(&[node(1, 9_000), node(2, 200)], &vms)),
        [("a", 1), ("b", 2)]
    );
}

fn racks() -> Fixture {
    let cluster = Fixture::cluster(4).label("n1", "rack", "a").label("n2", "rack", "a");
    cluster.label("n3", "rack", "b").label("n4", "rack", "b")
}

#[test]
fn a_vm_goes_back_to_where_it_ran_unless_there_is_something_against_it() {
    let cluster = Fixture::cluster(3).vm("a").change("a", |vm| vm.last_node = Some(3));
    let placed = |cluster: &Fixture| cluster.place::<PlacementDefault>()["a"].clone();
    assert_eq!(placed(&cluster), "n3");
    assert_eq!(placed(&cluster.clone().node("n3", |node| node.risk = 100)), "n1");
    assert_eq!(placed(&cluster.clone().node("n3", |node| node.status = "Suspect".into())), "n1");
    assert_eq!(placed(&cluster.node("n3", |node| node.memory_free_mib = 4_000)), "n1");
}

#[test]
fn a_group_is_spread_over_racks_before_it_is_over_nodes() {
    let vms = ["a", "b", "c"];
    let cluster = vms.iter().fold(racks(), |it, vm| it.vm(vm).vm_label(vm, "group", "db"));
    let placed = cluster.place::<PlacementDefault>();
    assert_eq!([&*placed["a"], &*placed["b"], &*placed["c"]], ["n1", "n3", "n2"]);
}

#[test]
fn what_counts_as_a_failure_domain_is_a_parameter() {
    let cluster = racks().label("n1", "room", "x").label("n2", "room", "y");
    let cluster = cluster.label("n3", "room", "x").label("n4", "room", "x");
    let cluster = cluster.vm("a").vm_label("a", "keep-apart", "p").resident("r", "n1");
    let asked = cluster.vm_label("r", "keep-apart", "p");
    let first = |json| asked.chosen(&run_with::<PlacementDefault, _>(json, &asked.placement()));
    assert_eq!(first("{}")["a"], "n3");
    assert_eq!(first(r#"{"domain": "room"}"#)["a"], "n2");
    assert_eq!(first(r#"{"domain": ""}"#)["a"], "n2");
}

#[test]
fn vms_that_would_be_near_each_other_are_where_that_costs_little() {
    let cluster = Fixture::cluster(3).resident("cache", "n3").vm("shop");
    let cluster = cluster.vm_label("cache", "near", "shop").vm_label("shop", "near", "shop");
    let placed = |cluster: &Fixture| cluster.place::<PlacementDefault>()["shop"].clone();
    assert_eq!(placed(&cluster), "n3");
    assert_eq!(placed(&cluster.node("n3", |node| node.flaps = 3)), "n1");
}

#[test]
fn memory_that_is_really_used_counts_whatever_is_configured() {
    let cluster = Fixture::cluster(2).vm("a").node("n1", |node| {
        node.real_memory_free_mib = 1_000;
    });
    assert_eq!(cluster.place::<PlacementDefault>()["a"], "n2");
    let unknown = cluster.node("n1", |node| node.real_memory_free_mib = 0);
    assert_eq!(unknown.place::<PlacementDefault>()["a"], "n1");
}

#[test]
fn memory_that_is_really_free_is_used_up_by_what_was_placed_before() {
    let cluster = Fixture::cluster(2).node("n2", |node| node.memory_free_mib = 30_000);
    let cluster = cluster.node("n1", |node| node.real_memory_free_mib = 3_000);
    let placed = cluster.vm("a").vm("b").place::<PlacementDefault>();
    assert_eq!((&*placed["a"], &*placed["b"]), ("n1", "n2"));
}

#[test]
fn among_equals_the_idle_node_wins() {
    let busy = |node: &mut NodeFacts| node.load_permille = 12_000;
    assert_eq!(Fixture::cluster(2).node("n1", busy).vm("a").place::<PlacementDefault>()["a"], "n2");
}

#[test]
fn a_vm_starts_behind_those_that_it_starts_after() {
    let cluster = Fixture::cluster(2).vm("mail").vm("shop").vm("database");
    let cluster = cluster.change("shop", |vm| vm.priority = 900).starts_after("shop", "database");
    assert_eq!(cluster.order::<PlacementDefault>(), ["database", "shop", "mail"]);
}

#[test]
fn a_score_is_that_of_the_pair_and_that_of_the_node_together() {
    let policy = PlacementDefault::default();
    for asked in steadfast_sdk::laws::questions::<PlacementQuestion>(8, 100) {
        let now = Situation::new(&asked);
        for (vm, node) in asked.vms.iter().flat_map(|vm| asked.nodes.iter().map(move |it| (vm, it)))
        {
            let pair = policy.pair_score(vm, node, &now).unwrap();
            assert_eq!(policy.score(vm, node, &now), Some(pair.plus(policy.node_score(node))));
        }
    }
}

/// Those of [`Placement::pair_score`], as the verdict is made of them.
fn values_of(
    policy: &PlacementDefault,
    vm: &VmFacts,
    now: &Situation<'_>,
) -> (Option<Vec<i64>>, Vec<i64>) {
    let nodes = now.nodes();
    let size = now.load_of(vm);
    let mut quick: Vec<i64> =
        nodes.iter().map(|node| policy.size_score(size, node).value).collect();
    let told = policy.add_pair_values(vm, now, &mut quick);
    let exact = nodes.iter().map(|node| policy.pair_score(vm, node, now).unwrap().value).collect();
    (told.then_some(quick), exact)
}

#[test]
fn the_values_of_all_nodes_at_once_are_those_of_each_pair() {
    let weighty = r#"{"keep_apart": 300000000, "near": -900000000, "same_domain": 70000000}"#;
    let parameters = ["{}", r#"{"pack": true, "domain": "zone", "near": 7, "group": -3}"#, weighty];
    for (parameters, least, refused) in
        parameters.iter().zip([(1800, 0), (1800, 0), (300, 300)]).map(|(it, (a, b))| (it, a, b))
    {
        let policy: PlacementDefault = steadfast_sdk::serde_json::from_str(parameters).unwrap();
        let (mut told, mut silent) = (0, 0);
        for asked in steadfast_sdk::laws::questions::<PlacementQuestion>(9, 400) {
            let mut now = Situation::new(&asked);
            for vm in &asked.vms {
                let (quick, exact) = values_of(&policy, vm, &now);
                match quick {
                    Some(quick) => assert_eq!(quick, exact, "{parameters}"),
                    None => silent += 1,
                }
                told += exact.len();
                let best = asked.nodes.iter().find(|node| node.id % 3 == vm.priority as u32 % 3);
                best.into_iter().for_each(|node| now.place(vm, node.id));
            }
        }
        println!("{parameters}: {told} told, {silent} silent");
        assert!(told >= least && silent >= refused, "{told} {silent}");
    }
}

#[test]
fn both_encodings_have_the_same_answer_and_the_one_of_the_twin() {
    use steadfast_sdk::{laws, run};
    let policy = PlacementDefault::default();
    for question in laws::questions::<PlacementQuestion>(11, 500) {
        let verdict = run::ask(&policy, &question).expect("a verdict in JSON");
        assert_eq!(run::ask_in_columns(&policy, &question).as_ref(), Ok(&verdict));
        assert_eq!(verdict, builtin(&question));
    }
}
