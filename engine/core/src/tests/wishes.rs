//! What operators may ask for, and what is refused (PROTOCOL section 7: only VMs under HA are touched).

use super::*;
use crate::cluster::Cluster;
use crate::kit::{all_admitted, id, own_vm, spec, vm};
use crate::stage::Stage;
use std::boxed::Box;

const COMMITTED: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 4 };
const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 5 };

/// Facts of nodes that may take VMs.
pub(crate) fn good(nodes: &[u32]) -> Vec<NodeFacts> {
    let facts = |node: &u32| NodeFacts { id: *node, ..NodeFacts::default() };
    nodes.iter().map(facts).collect()
}

fn enable(name: &str) -> Change {
    Change::EnableVm(Box::new(spec(name)))
}

/// The ledger after `change` was asked for by n2 of a leader with `ledger`, or the refusal.
fn asked(ledger: &Ledger, change: &Change, are_good: bool) -> Result<(bool, Ledger), String> {
    let good = if are_good { good(&[1, 2, 3]) } else { Vec::new() };
    let mut next = ledger.clone();
    let (stage, outlook) = (Stage::new(), Outlook::default());
    let facts = &stage.facts();
    let desk = Desk { stamp: NEXT, good: &good, outlook: &outlook, facts };
    let changed = desk.apply(&mut next, id(2), change, &mut Vec::new())?;
    Ok((changed, next))
}

/// n2 owns `db`, n3 owns `web`.
fn ledger() -> Ledger {
    let mut ledger = all_admitted();
    own_vm(&mut ledger, "db", 2, COMMITTED);
    own_vm(&mut ledger, "web", 3, COMMITTED);
    ledger
}

#[test]
fn an_enabled_vm_belongs_to_who_asked_and_is_not_yet_acknowledged() {
    let (changed, next) = asked(&all_admitted(), &enable("db"), true).unwrap();
    let entry = &next.vms[&vm("db")];
    assert!(changed);
    assert_eq!((entry.owner, entry.since, entry.acknowledged), (id(2), NEXT, false));
}

#[test]
fn enable_is_refused_on_a_node_that_is_not_good() {
    let refused = asked(&all_admitted(), &enable("db"), false);
    assert!(refused.is_err_and(|why| why.contains("n2 is not a good node now")));
}

#[test]
fn enable_is_refused_when_another_vm_has_the_name() {
    let mut twin = spec("twin");
    twin.name = "web".into();
    let refused = asked(&ledger(), &Change::EnableVm(Box::new(twin)), true);
    assert!(refused.is_err_and(|why| why.contains("another VM is called web")));
}

#[test]
fn enable_is_refused_when_the_vm_is_under_ha_on_another_node() {
    let refused = asked(&ledger(), &enable("web"), true);
    assert!(refused.is_err_and(|why| why.contains("on n3; ask there")));
}

#[test]
fn enabling_again_changes_nothing_and_a_changed_spec_keeps_the_ownership() {
    let (changed, next) = asked(&ledger(), &enable("db"), true).unwrap();
    assert!(!changed && next == ledger());
    let larger = crate::ledger::VmSpec { memory_mib: 4_096, ..spec("db") };
    let (changed, next) =
        asked(&ledger(), &Change::EnableVm(Box::new(larger.clone())), true).unwrap();
    let entry = &next.vms[&vm("db")];
    assert!(changed);
    assert_eq!((&entry.spec, entry.owner, entry.since), (&larger, id(2), COMMITTED));
}

#[test]
fn disable_is_idempotent_and_may_be_asked_anywhere() {
    let (changed, next) = asked(&ledger(), &Change::DisableVm(vm("web")), true).unwrap();
    assert!(changed && !next.vms.contains_key(&vm("web")));
    let (changed, again) = asked(&next, &Change::DisableVm(vm("web")), true).unwrap();
    assert!(!changed && again == next);
}

#[test]
fn disable_is_refused_while_the_owner_is_not_good_since_the_entry_remembers_where_it_may_run() {
    let refused = asked(&ledger(), &Change::DisableVm(vm("web")), false);
    assert!(refused.is_err_and(|why| why.contains("may run on n3")));
}

#[test]
fn a_changed_spec_cannot_take_another_vms_name() {
    let renamed = crate::ledger::VmSpec { name: "web".into(), ..spec("db") };
    let refused = asked(&ledger(), &Change::EnableVm(Box::new(renamed)), true);
    assert!(refused.is_err_and(|why| why.contains("another VM is called web")));
}

#[test]
fn a_stopped_vm_keeps_its_owner_and_its_ownership() {
    let (changed, next) = asked(&ledger(), &Change::StopVm(vm("db")), true).unwrap();
    let entry = &next.vms[&vm("db")];
    assert!(changed && !entry.may_run());
    assert_eq!((entry.owner, entry.since), (id(2), COMMITTED));
    let (changed, again) = asked(&next, &Change::StopVm(vm("db")), true).unwrap();
    assert!(!changed && again == next);
}

#[test]
fn a_priority_may_be_set_anywhere_and_keeps_the_ownership() {
    let change = |priority| Change::SetPriority { vm: vm("web"), priority };
    let (changed, next) = asked(&ledger(), &change(900), true).unwrap();
    let entry = &next.vms[&vm("web")];
    assert!(changed);
    assert_eq!((entry.spec.priority, entry.owner, entry.since), (900, id(3), COMMITTED));
    let (changed, again) = asked(&next, &change(900), true).unwrap();
    assert!(!changed && again == next);
    let unknown = Change::SetPriority { vm: vm("nobody"), priority: 1 };
    assert!(asked(&ledger(), &unknown, true).is_err_and(|why| why.contains("not under HA")));
}

#[test]
fn a_failed_vm_that_is_to_be_off_is_off_as_wished() {
    let mut failed = ledger();
    failed.vms.get_mut(&vm("db")).unwrap().failed = Some("it ended 4 times".into());
    let (changed, next) = asked(&failed, &Change::StopVm(vm("db")), true).unwrap();
    let entry = &next.vms[&vm("db")];
    assert!(changed && entry.failed.is_none() && !entry.may_run());
}

#[test]
fn a_vm_that_is_started_again_has_a_new_ownership_and_a_clean_sheet() {
    let mut stopped = ledger();
    let entry = stopped.vms.get_mut(&vm("db")).unwrap();
    entry.desired = Desired::Stopped;
    (entry.failed, entry.relocations) = (Some("it ended 4 times".into()), 3);
    entry.failed_on = [id(1)].into();
    let (changed, next) = asked(&stopped, &Change::StartVm(vm("db")), true).unwrap();
    let entry = &next.vms[&vm("db")];
    assert!(changed && entry.may_run() && entry.failed_on.is_empty());
    assert_eq!((entry.owner, entry.since, entry.relocations), (id(2), NEXT, 0));
}

#[test]
fn starting_what_runs_changes_nothing_and_forgives_its_failures() {
    let start = Change::StartVm(vm("db"));
    let (changed, next) = asked(&ledger(), &start, true).unwrap();
    assert!(!changed && next == ledger());
    let mut shaken = ledger();
    shaken.vms.get_mut(&vm("db")).unwrap().relocations = 2;
    let (changed, next) = asked(&shaken, &start, true).unwrap();
    assert!(changed && next == ledger(), "the ownership stays");
}

#[test]
fn nothing_is_sent_on_its_way_while_ha_is_off_or_about_to_be() {
    let moves = [
        Change::MigrateVm { vm: vm("db"), to: id(3) },
        Change::RelocateVm { vm: vm("db"), to: id(3) },
    ];
    for (pending, words) in [(true, "about to be switched off"), (false, "arm it first")] {
        let mut off = ledger();
        let (since, limit, reason) = (COMMITTED, None, "cables".into());
        off.disarm = Some(crate::ledger::Disarm { since, limit, reason, pending });
        for change in &moves {
            let refused = asked(&off, change, true);
            assert!(refused.is_err_and(|why| why.contains(words)), "{change:?}");
        }
    }
}

#[test]
fn a_vm_without_ha_is_neither_started_nor_stopped() {
    for change in [Change::StartVm(vm("scratch")), Change::StopVm(vm("scratch"))] {
        let refused = asked(&ledger(), &change, true);
        assert!(refused.is_err_and(|why| why.contains("is not under HA")));
    }
}

#[test]
fn switching_ha_on_and_off_is_told_once_each_by_the_leader() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask(1, Change::DisableVm(vm("db")));
    cluster.run(3_000);
    let told: Vec<&str> = cluster.told.iter().map(|(_, text)| text.as_str()).collect();
    let count = |what: &str| told.iter().filter(|text| text.contains(what)).count();
    assert_eq!((count("HA is on for db"), count("HA is off for db")), (1, 1), "{told:?}");
}
