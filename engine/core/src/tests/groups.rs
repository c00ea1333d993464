//! VMs that must stand together share what binds one of them.

use super::*;
use crate::ids::Stamp;
use crate::kit::{all_admitted, id, own_vm, vm};

fn set(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(String::from).collect()
}

/// VMs by name, node, and words of `together` and of `apart`.
fn ledger(vms: &[(&str, u32, &str, &str)]) -> Ledger {
    let mut ledger = all_admitted();
    for (name, owner, together, apart) in vms {
        own_vm(&mut ledger, name, *owner, Stamp::default());
        let affinity = &mut ledger.vms.get_mut(&vm(name)).unwrap().spec.affinity;
        (affinity.together, affinity.apart) = (set(together), set(apart));
    }
    ledger
}

fn affinity<'a>(ledger: &'a mut Ledger, name: &str) -> &'a mut Affinity {
    &mut ledger.vms.get_mut(&vm(name)).unwrap().spec.affinity
}

fn names(group: &Group<'_>) -> Vec<String> {
    group.members.iter().map(|member| member.spec.name.clone()).collect()
}

#[test]
fn words_connect_through_as_many_vms_as_it_takes() {
    let ledger = ledger(&[
        ("a", 1, "x", ""),
        ("b", 1, "z", ""),
        ("c", 2, "x y", ""),
        ("d", 2, "y z", "far"),
        ("e", 3, "", "far"),
        ("f", 3, "", ""),
    ]);
    let groups = Groups::wanted(&ledger);
    let found: Vec<_> = groups.groups.iter().map(names).collect();
    assert_eq!(found, [["a", "b", "c", "d"].as_slice(), ["e"].as_slice()]);
    assert!(groups.get(&vm("f")).is_none());
    let rules = groups.rules(&ledger.vms[&vm("a")]);
    assert_eq!((rules.together, rules.apart), (set("x y z"), set("far")));
    assert!(groups.groups[0].is_apart_from(&groups.groups[1]));
    assert!(!groups.groups[0].is_apart_from(&groups.groups[0]));
}

#[test]
fn nodes_that_one_must_have_bind_all_and_wishes_add_up() {
    let mut ledger = ledger(&[("a", 1, "x", ""), ("b", 1, "x", "")]);
    *affinity(&mut ledger, "a") = Affinity {
        nodes: [("n1".into(), 2), ("n2".into(), 1)].into(),
        ..affinity(&mut ledger, "a").clone()
    };
    affinity(&mut ledger, "b").nodes = [("n2".into(), 4)].into();
    let groups = Groups::wanted(&ledger);
    let rules = &groups.groups[0].rules;
    assert_eq!((rules.preference("n1"), rules.preference("n2")), (3, 6));
    affinity(&mut ledger, "b").strict = true;
    let groups = Groups::wanted(&ledger);
    let rules = &groups.groups[0].rules;
    assert!(rules.allows("n2") && !rules.allows("n1"));
    affinity(&mut ledger, "a").strict = true;
    affinity(&mut ledger, "b").nodes = [("n3".into(), 0)].into();
    let groups = Groups::wanted(&ledger);
    let rules = &groups.groups[0].rules;
    assert!(!["n1", "n2", "n3"].iter().any(|node| rules.allows(node)), "none in common");
}

#[test]
fn what_is_off_or_has_failed_binds_nobody() {
    let mut ledger = ledger(&[("a", 1, "x", "far"), ("b", 1, "x", "")]);
    ledger.vms.get_mut(&vm("a")).unwrap().failed = Some("it ended 4 times".into());
    assert!(Groups::wanted(&ledger).get(&vm("b")).unwrap().rules.apart.is_empty());
}

#[test]
fn the_larger_group_stays_then_the_one_with_the_first_vm() {
    let ledger =
        ledger(&[("a", 1, "", "w"), ("b", 1, "x", "w"), ("c", 1, "x", ""), ("d", 1, "", "w")]);
    let groups = Groups::wanted(&ledger);
    let of = |name: &str| groups.get(&vm(name)).unwrap();
    assert!(of("b").outranks(of("a")) && of("a").outranks(of("d")));
    assert!(!of("a").outranks(of("b")) && !of("d").outranks(of("a")));
}

#[test]
fn a_vm_on_its_way_touches_both_nodes_and_stands_where_it_goes() {
    let mut ledger = ledger(&[("a", 1, "x", "")]);
    let entry = ledger.vms.get_mut(&vm("a")).unwrap();
    crate::migration::begin(entry, id(2), Stamp::default(), "a wish");
    assert_eq!(stands_at(entry), id(2));
    assert!(touches(entry, id(1)) && touches(entry, id(2)) && !touches(entry, id(3)));
}
