//! Which VM starts before which (PROTOCOL section 7).

use super::*;
use crate::cluster::Cluster;
use crate::guest::GuestReport;
use crate::kit::{genesis, own_vm, spec, stamp, vm};
use crate::message::Change;
use crate::stage::Stage;
use std::boxed::Box;

/// `web` and `db` on n3; `web` starts after `db`, of which n3 says `state`.
fn stage(state: Option<GuestState>) -> Stage {
    let mut stage = Stage::new();
    for name in ["web", "db"] {
        own_vm(&mut stage.ledger, name, 3, stamp(1, 1, 3));
    }
    stage.ledger.vms.get_mut(&vm("web")).unwrap().spec.after = [vm("db"), vm("scratch")].into();
    let report = |state| GuestReport { vm: vm("db"), state };
    stage.life(3).beat.guests = state.map(report).into_iter().collect();
    stage.run(10_000);
    stage
}

fn held(stage: &Stage) -> Option<String> {
    held_by(&stage.ledger.vms[&vm("web")], &stage.facts())
}

#[test]
fn a_vm_waits_until_those_before_it_run_by_their_owners_word() {
    let waits = |state| held(&stage(state)).is_some_and(|why| why.contains("db"));
    assert!(waits(None));
    assert!(waits(Some(GuestState::Starting)));
    assert!(!waits(Some(GuestState::Running)));
    assert!(!waits(Some(GuestState::Leaving)), "it runs on while it moves");
    let mut stage = stage(Some(GuestState::Running));
    stage.fall_silent(3);
    stage.run(5_000);
    assert!(held(&stage).is_some(), "an old word");
}

#[test]
fn a_vm_that_is_kept_off_holds_nobody_and_one_that_has_failed_does_so_visibly() {
    let mut stage = stage(None);
    let db = |stage: &mut Stage, change: &dyn Fn(&mut VmEntry)| {
        change(stage.ledger.vms.get_mut(&vm("db")).unwrap());
    };
    db(&mut stage, &|entry| entry.failed = Some("it ended 4 times".into()));
    assert!(held(&stage).is_some_and(|why| why.contains("which has failed")));
    db(&mut stage, &|entry| entry.desired = Desired::Stopped);
    assert_eq!(held(&stage), None);
}

#[test]
fn the_highest_priority_starts_first_and_then_the_lowest_id() {
    let mut ledger = genesis(3);
    for (name, priority) in [("a", 10), ("b", 900), ("c", 10)] {
        own_vm(&mut ledger, name, 1, stamp(1, 1, 3));
        ledger.vms.get_mut(&vm(name)).unwrap().spec.priority = priority;
    }
    let order: Vec<VmId> =
        by_priority(ledger.vms.iter()).iter().map(|(vm, _)| (*vm).clone()).collect();
    assert_eq!(order, [vm("b"), vm("a"), vm("c")]);
}

#[test]
fn a_circle_is_named() {
    let mut ledger = genesis(3);
    let after = |names: &[&str]| names.iter().map(|name| vm(name)).collect::<BTreeSet<VmId>>();
    for (name, others) in [("db", &["storage"][..]), ("storage", &["network", "scratch"])] {
        own_vm(&mut ledger, name, 1, stamp(1, 1, 3));
        ledger.vms.get_mut(&vm(name)).unwrap().spec.after = after(others);
    }
    let circle_of = |others| circle(&ledger, &VmSpec { after: after(others), ..spec("network") });
    assert_eq!(circle_of(&["scratch"]), None);
    assert_eq!(circle_of(&["db"]), Some("network, db, storage, network".into()));
    assert_eq!(circle_of(&["network"]), Some("network, network".into()));
}

#[test]
fn a_vm_that_would_close_a_circle_does_not_come_under_ha() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.answers.clear();
    let itself = VmSpec { after: [vm("db")].into(), ..spec("db") };
    cluster.ask_and_watch(3, Change::EnableVm(Box::new(itself)));
    assert!(cluster.answers[0].contains("would wait for the next to run: db, db"));
}

/// `db` and two others run on n3, each after the one before it.
fn chain() -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    for (name, needed) in [("web", "db"), ("cache", "web")] {
        cluster.enable(VmSpec { after: [vm(needed)].into(), priority: 900, ..spec(name) });
    }
    cluster
}

#[test]
fn after_a_failover_vms_start_in_their_order() {
    let mut cluster = chain();
    cluster.kill(3);
    cluster.run(60_000);
    let started: Vec<&str> = cluster.starts.iter().map(|(_, vm, _)| vm.as_str()).collect();
    assert_eq!(started, ["uuid-of-db", "uuid-of-web", "uuid-of-cache"]);
}

#[test]
fn a_node_starts_no_more_at_once_than_it_may() {
    let mut cluster = Cluster::with_vm(|config| config.limits.parallel_starts = 2);
    for name in ["a", "b", "c", "d"] {
        cluster.enable(spec(name));
    }
    cluster.start_takes = 500;
    cluster.kill(3);
    let mut most = 0;
    for _ in 0..30_000 {
        cluster.run(1);
        most = most.max(cluster.members[&1].machine.guests.starting());
    }
    assert_eq!((cluster.starts.len(), most), (5, 2));
}
