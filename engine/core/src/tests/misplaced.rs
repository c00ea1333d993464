//! VMs that are not where their operator wants them.

use super::*;
use crate::cluster::Cluster;
use crate::kit::{spec, vm};
use crate::ledger::VmSpec;
use crate::message::Change;
use std::boxed::Box;
use std::vec;

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

#[test]
fn of_two_that_must_stand_apart_the_first_stays_and_those_that_must_stand_together_gather() {
    let mut ledger = crate::kit::all_admitted();
    for (name, owner, together, apart) in [
        ("a", 1, "", "x"),
        ("b", 1, "", "x"),
        ("c", 2, "y", ""),
        ("d", 2, "y", ""),
        ("e", 3, "y", ""),
    ] {
        crate::kit::own_vm(&mut ledger, name, owner, crate::ids::Stamp::default());
        let affinity = &mut ledger.vms.get_mut(&vm(name)).unwrap().spec.affinity;
        let words =
            |word: &str| (!word.is_empty()).then(|| String::from(word)).into_iter().collect();
        (affinity.together, affinity.apart) = (words(together), words(apart));
    }
    let mut stage = crate::stage::Stage::settled();
    stage.ledger = ledger;
    let found = misplaced(&stage.facts());
    assert_eq!(found.keys().copied().cloned().collect::<Vec<_>>(), [vm("b"), vm("e")]);
}
