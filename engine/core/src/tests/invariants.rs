use super::*;
use crate::kit::{all_admitted, at, genesis, id, own_vm, stamp, vm, who};
use crate::ledger::{Hold, Standing};

fn homes(words: &[(u32, u64)]) -> Homes {
    words.iter().map(|(node, number)| (id(*node), (who(*node), *number))).collect()
}

#[test]
fn one_home_is_broken_only_by_two_nodes_that_repeat_it() {
    let web = vm("web");
    let first = homes(&[(1, 10), (2, 70)]);
    assert_eq!(one_home(&web, &first, &first), None, "said once");
    assert_eq!(one_home(&web, &first, &homes(&[(1, 14), (2, 71)])), None, "an old beat came late");
    assert_eq!(one_home(&web, &first, &homes(&[(1, 14)])), None, "one of them has stopped it");
    let mut again = homes(&[(1, 12), (2, 72)]);
    assert!(one_home(&web, &first, &again).is_some_and(|text| text.contains("#1 and on node #2")));
    // Another incarnation's count says nothing of the first one's.
    let reborn = Identity { incarnation: crate::ids::Incarnation(2), ..who(2) };
    again.insert(id(2), (reborn, 72));
    assert_eq!(one_home(&web, &first, &again), None);
}

#[test]
fn one_leader_per_term_is_broken_by_a_second_name() {
    assert_eq!(one_leader_per_term(3, id(1), id(1)), None);
    assert!(one_leader_per_term(3, id(1), id(2)).is_some());
}

#[test]
fn no_start_without_proof_names_the_first_thing_that_is_missing() {
    let good = Grounds {
        proved: true,
        admitted: true,
        owner: true,
        lease_ends: Some(at(5_000)),
        not_after: at(4_000),
        margin: Millis(1_000),
        fed: true,
    };
    let web = vm("web");
    assert_eq!(no_start_without_proof(&web, &good), None);
    for (grounds, missing) in [
        (Grounds { proved: false, ..good }, "proof"),
        (Grounds { admitted: false, ..good }, "admission"),
        (Grounds { owner: false, ..good }, "ownership"),
        (Grounds { lease_ends: None, ..good }, "lease"),
        (Grounds { not_after: at(4_001), ..good }, "lease"),
        (Grounds { fed: false, ..good }, "watchdog"),
    ] {
        let found = no_start_without_proof(&web, &grounds).expect("broken");
        assert!(found.contains(missing), "{found}");
    }
}

#[test]
fn ledger_is_linear_is_broken_by_loss_and_by_a_second_content() {
    let (one, other) = (genesis(3), genesis(4));
    let holds = |before, after| ledger_is_linear(before, after).is_none();
    assert!(holds((stamp(1, 1, 4), &one), (stamp(1, 1, 5), &other)));
    assert!(holds((stamp(1, 1, 4), &one), (stamp(2, 3, 4), &one)), "adopted by the next leader");
    assert!(!holds((stamp(1, 1, 4), &one), (stamp(2, 3, 4), &other)), "another content");
    assert!(!holds((stamp(1, 1, 4), &one), (stamp(2, 3, 3), &one)), "a version is lost");
    assert!(!holds((stamp(2, 3, 4), &one), (stamp(1, 1, 5), &one)), "an older ballot");
}

#[test]
fn young_evidence_of_either_kind_forbids_stops_and_resets() {
    let age = |ms: u64| Some(Millis(ms));
    let both =
        Evidence { counts: true, network: age(9_000), storage: age(4_999), lease: Millis(5_000) };
    let network = Evidence { network: age(0), storage: None, ..both };
    for young in [both, network] {
        assert!(no_single_channel(&young).is_some() && calm(&young).is_some());
        let evicted = Evidence { counts: false, ..young };
        assert!(no_single_channel(&evicted).is_none() && calm(&evicted).is_none());
    }
    let over = Evidence { storage: age(5_000), ..both };
    assert!(no_single_channel(&over).is_none() && calm(&over).is_none());
}

#[test]
fn policy_is_advice_is_broken_by_an_owner_that_is_not_admitted() {
    let mut before = all_admitted();
    own_vm(&mut before, "web", 1, stamp(1, 1, 1));
    let mut after = before.clone();
    after.vms.entry(vm("web")).and_modify(|entry| entry.owner = id(2));
    assert_eq!(policy_is_advice(&before, &after), None);
    after.nodes.entry(id(2)).and_modify(|node| node.standing = Standing::New);
    assert!(policy_is_advice(&before, &after).is_some());
    // An owner that loses its admission keeps its VMs until they are placed.
    let mut evicted = before.clone();
    evicted.nodes.entry(id(1)).and_modify(|node| node.standing = Standing::New);
    assert_eq!(policy_is_advice(&before, &evicted), None);
}

#[test]
fn policy_is_advice_is_broken_by_a_second_node_of_three_that_is_drained() {
    let (before, level) = (all_admitted(), Level::Drain);
    let hold = Hold { since: stamp(1, 1, 1), level, score: 900, reason: "disk".into() };
    let drain = |ledger: &mut Ledger, node: u32| {
        ledger.nodes.entry(id(node)).and_modify(|entry| entry.hold = Some(hold.clone()));
    };
    let (mut one, mut two) = (before.clone(), before.clone());
    drain(&mut one, 1);
    assert_eq!(policy_is_advice(&before, &one), None);
    (1..=2).for_each(|node| drain(&mut two, node));
    assert!(policy_is_advice(&one, &two).is_some_and(|text| text.contains("2 of 3 nodes")));
    assert_eq!(policy_is_advice(&two, &two), None, "nodes may have been removed since");
    let before = crate::kit::admitted(8);
    let mut after = before.clone();
    after.nodes.remove(&id(8));
    (1..=2).for_each(|node| drain(&mut after, node));
    assert_eq!(policy_is_advice(&before, &after), None, "one of eight goes in the same commit");
}

#[test]
fn hands_off_and_explained_say_what_was_done() {
    assert_eq!(hands_off(&vm("web"), true), None);
    assert!(hands_off(&vm("other"), false).is_some_and(|text| text.contains("other")));
    assert_eq!(explained("a node is fenced", true), None);
    assert!(explained("a node is fenced", false).is_some_and(|t| t.contains("a node is fenced")));
}

#[test]
fn feed_rule_needs_two_watchdogs_of_time_before_the_deadline() {
    let feed = |last, idle| feed_rule(last, Millis(4_000), Some(at(10_000)), idle);
    assert_eq!(feed(Some(at(2_000)), false), None);
    assert!(feed(Some(at(2_001)), false).is_some());
    assert!(feed(None, false).is_some(), "opening is a feed too");
    assert_eq!(feed(Some(at(9_000)), true), None, "none is left");
    assert!(feed_rule(Some(at(0)), Millis(4_000), None, false).is_some(), "no basis");
}
