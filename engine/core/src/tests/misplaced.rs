//! VMs that are not where their operator wants them.

use super::*;
use crate::cluster::Cluster;
use crate::ids::Stamp;
use crate::kit::{spec, vm};
use crate::ledger::{Ledger, VmSpec};
use crate::message::Change;
use std::boxed::Box;
use std::vec;
use steadfast_sdk::wire::Affinity;

/// n3 runs `db`, whose operator then changes where it is to stand.
fn with(change: impl Fn(&mut Affinity)) -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    let mut affinity = Affinity::default();
    change(&mut affinity);
    let spec = VmSpec { affinity, ..spec("db") };
    cluster.ask_and_watch(3, Change::EnableVm(Box::new(spec)));
    cluster.run(30_000);
    cluster
}

fn nodes(names: &[(&str, u32)]) -> BTreeMap<String, u32> {
    names.iter().map(|(name, weight)| (String::from(*name), *weight)).collect()
}

#[test]
fn a_vm_on_a_node_that_is_not_one_of_its_own_moves_live() {
    let cluster = with(|affinity| {
        affinity.nodes = nodes(&[("n2", 0)]);
        affinity.strict = true;
    });
    assert_eq!((cluster.homes("db"), cluster.starts.len()), (vec![2], 0));
}

#[test]
fn a_vm_returns_to_a_node_that_it_prefers_unless_it_stays() {
    let prefers = |affinity: &mut Affinity| affinity.nodes = nodes(&[("n1", 2), ("n3", 1)]);
    assert_eq!(with(prefers).homes("db"), [1]);
    let stays = |affinity: &mut Affinity| {
        prefers(affinity);
        affinity.stays = true;
    };
    assert_eq!(with(stays).homes("db"), [3]);
}

#[test]
fn a_vm_without_affinity_or_on_its_best_node_stays() {
    assert_eq!(with(|_| {}).homes("db"), [3]);
    assert_eq!(with(|affinity| affinity.nodes = nodes(&[("n3", 5), ("n1", 1)])).homes("db"), [3]);
}

/// VMs by name, node, and words of `together` and of `apart`: those that are not where they should be.
fn found(vms: &[(&str, u32, &str, &str)], change: impl Fn(&mut Ledger)) -> Vec<String> {
    let mut ledger = crate::kit::all_admitted();
    for (name, owner, together, apart) in vms {
        crate::kit::own_vm(&mut ledger, name, *owner, Stamp::default());
        let affinity = &mut ledger.vms.get_mut(&vm(name)).unwrap().spec.affinity;
        let words =
            |word: &str| (!word.is_empty()).then(|| String::from(word)).into_iter().collect();
        (affinity.together, affinity.apart) = (words(together), words(apart));
    }
    change(&mut ledger);
    let mut stage = crate::stage::Stage::settled();
    stage.ledger = ledger;
    let found = misplaced(&stage.facts());
    found.keys().map(|vm| vm.0.trim_start_matches("uuid-of-").into()).collect()
}

#[test]
fn of_two_that_must_stand_apart_the_first_stays_and_those_that_must_stand_together_gather() {
    let vms = [
        ("a", 1, "", "x"),
        ("b", 1, "", "x"),
        ("c", 2, "y", ""),
        ("d", 2, "y", ""),
        ("e", 3, "y", ""),
    ];
    assert_eq!(found(&vms, |_| {}), ["b", "e"]);
}

#[test]
fn one_that_meets_a_group_from_which_it_must_stand_apart_makes_room() {
    // The stray of the group leaves too: each is judged by itself, and neither waits for the other.
    let vms = [("a", 3, "", "w"), ("b", 1, "y", "w"), ("c", 3, "y", ""), ("d", 1, "y", "")];
    assert_eq!(found(&vms, |_| {}), ["a", "c"]);
}

#[test]
fn a_group_that_is_not_gathered_avoids_the_nodes_of_those_from_which_it_must_stand_apart() {
    let vms = [("a", 1, "x", "w"), ("b", 1, "x", ""), ("c", 3, "x", ""), ("d", 1, "", "w")];
    assert_eq!(found(&vms, |_| {}), ["a", "b", "d"], "n3 is the seat");
}

#[test]
fn what_binds_one_moves_all() {
    let vms = [("a", 1, "x", ""), ("b", 1, "x", ""), ("c", 1, "", "")];
    let strict = |ledger: &mut Ledger| {
        let affinity = &mut ledger.vms.get_mut(&vm("b")).unwrap().spec.affinity;
        (affinity.nodes, affinity.strict) = (nodes(&[("n2", 0)]), true);
    };
    assert_eq!(found(&vms, strict), ["a", "b"]);
}

#[test]
fn a_group_follows_the_first_that_is_on_its_way() {
    let vms = [("a", 1, "x", ""), ("b", 1, "x", ""), ("c", 1, "x", "")];
    let sets_off = |ledger: &mut Ledger| {
        let entry = ledger.vms.get_mut(&vm("b")).unwrap();
        crate::migration::begin(entry, crate::kit::id(2), Stamp::default(), "a wish");
    };
    assert_eq!(found(&vms, sets_off), ["a", "c"]);
}

#[test]
fn a_group_that_returns_home_is_not_sent_elsewhere_meanwhile() {
    let vms = [("a", 2, "x", ""), ("b", 1, "x", "")];
    let returns = |ledger: &mut Ledger| {
        ledger.vms.get_mut(&vm("a")).unwrap().home = Some(crate::kit::id(1));
    };
    assert_eq!(found(&vms, returns), [""; 0]);
    assert_eq!(found(&vms, |_| {}), ["b"]);
}
