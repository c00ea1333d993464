//! Nodes that are emptied, and filled again.

use super::*;
use crate::cluster::{Cluster, Migrating};
use crate::kit::{admitted, at, id, own_vm, spec, vm};
use crate::ledger::{Changing, Desired, Disarm, Migration};
use crate::message::Change;
use crate::time::Millis;

fn empty(node: u32, restart: bool) -> Change {
    Change::BeginMaintenance { node: id(node), restart, reason: "memory".into() }
}

/// `db`, `web` and `mail` run on n3.
fn cluster() -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.enable(spec("web"));
    cluster.enable(spec("mail"));
    assert!(cluster.starts.is_empty());
    cluster
}

fn entry(cluster: &Cluster, name: &str) -> VmEntry {
    cluster.members[&1].machine.ledger().vms[&vm(name)].clone()
}

fn on(cluster: &Cluster, node: u32) -> usize {
    cluster.executing.iter().filter(|(_, on)| *on == node).count()
}

#[test]
fn a_node_in_maintenance_is_emptied_live_and_filled_again_when_it_is_over() {
    let mut cluster = cluster();
    cluster.ask_and_watch(1, empty(3, false));
    cluster.run(20_000);
    assert_eq!((on(&cluster, 3), cluster.executing.len(), cluster.resumes.len()), (0, 3, 3));
    cluster.kill(2);
    cluster.run(60_000);
    assert_eq!(on(&cluster, 1), 3, "nothing is placed on a node in maintenance");
    cluster.ask_and_watch(1, Change::EndMaintenance(id(3)));
    cluster.run(20_000);
    assert_eq!(on(&cluster, 3), 3, "they return");
    assert!(cluster.destroyed.is_empty());
    assert_eq!(entry(&cluster, "db").home, None);
}

#[test]
fn no_more_vms_move_at_once_than_may() {
    let mut cluster = cluster();
    cluster.ask(1, empty(3, false));
    let mut most = 0;
    for _ in 0..20_000 {
        cluster.run(1);
        most = most.max(cluster.leaving.len());
    }
    assert_eq!((on(&cluster, 3), most), (0, 2));
}

#[test]
fn a_vm_that_cannot_move_live_stays_unless_it_may_be_restarted() {
    let mut cluster = cluster();
    cluster.migrations = Migrating::Fails;
    cluster.ask_and_watch(1, empty(3, false));
    cluster.run(60_000);
    assert_eq!((on(&cluster, 3), cluster.starts.len()), (3, 0));
    cluster.ask_and_watch(1, empty(3, true));
    cluster.run(120_000);
    assert_eq!((on(&cluster, 3), cluster.starts.len()), (0, 3));
    assert!(cluster.destroyed.is_empty(), "their guests were shut down");
    let db = entry(&cluster, "db");
    assert_eq!((db.home, db.relocations, db.leave), (Some(id(3)), 0, None));
}

#[test]
fn a_vm_that_ends_on_a_node_in_maintenance_starts_elsewhere_at_no_cost() {
    let mut cluster = cluster();
    cluster.migrations = Migrating::Fails;
    cluster.ask_and_watch(1, empty(3, false));
    cluster.end_guest("db", false);
    cluster.run(20_000);
    assert_ne!(cluster.homes("db"), [3]);
    let db = entry(&cluster, "db");
    assert_eq!((db.relocations, db.failed_on.len(), db.home), (0, 0, Some(id(3))));
}

#[test]
fn a_vm_that_is_off_is_started_elsewhere_when_its_node_is_in_maintenance() {
    let mut cluster = cluster();
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    cluster.ask_and_watch(1, empty(3, false));
    assert_eq!(entry(&cluster, "db").owner, id(3), "off, it may stay");
    cluster.ask_and_watch(1, Change::StartVm(vm("db")));
    cluster.run(20_000);
    assert!(cluster.homes("db") == [1] || cluster.homes("db") == [2]);
}

#[test]
fn a_node_that_leaves_the_cluster_keeps_not_even_what_is_off() {
    let mut cluster = cluster();
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    let mut ledger = (*cluster.members[&1].machine.ledger()).clone();
    assert_eq!(reason_to_give_up(&ledger, &ledger.vms[&vm("db")]), None);
    ledger.nodes.get_mut(&id(3)).unwrap().leaving = true;
    assert!(reason_to_give_up(&ledger, &ledger.vms[&vm("db")]).is_some());
}

#[test]
fn maintenance_outlives_the_leader_and_the_node() {
    let mut cluster = cluster();
    cluster.migrations = Migrating::Takes(30_000);
    cluster.ask(1, empty(3, false));
    cluster.run(5_000);
    cluster.kill(1);
    cluster.run(120_000);
    assert_eq!((on(&cluster, 2), on(&cluster, 3)), (3, 0));
    cluster.kill(3);
    cluster.run(30_000);
    let ledger = cluster.members[&2].machine.ledger();
    assert!(ledger.nodes[&id(3)].maintenance.is_some());
}

#[test]
fn the_last_node_is_not_put_into_maintenance() {
    let mut cluster = cluster();
    cluster.answers.clear();
    for node in [3, 2, 1] {
        cluster.ask_and_watch(2, empty(node, false));
    }
    assert!(cluster.answers[0].starts_with("Ok") && cluster.answers[1].starts_with("Ok"));
    assert!(cluster.answers[2].contains("the last node"), "{:?}", cluster.answers);
}

#[test]
fn a_vm_is_relocated_by_a_shutdown_and_a_start_and_that_costs_no_budget() {
    let mut cluster = cluster();
    cluster.ask_and_watch(1, Change::RelocateVm { vm: vm("db"), to: id(2) });
    assert_eq!((cluster.homes("db"), cluster.starts.len()), ([2].into(), 1));
    assert_eq!((cluster.resumes.len(), cluster.destroyed.len()), (0, 0));
    let db = entry(&cluster, "db");
    assert_eq!((db.relocations, db.leave, db.home), (0, None, None));
}

#[test]
fn a_guest_that_does_not_listen_is_destroyed_before_it_is_relocated() {
    let limit = |config: &mut crate::config::Config| {
        config.limits.shutdown_timeout = Millis(20_000);
    };
    let mut cluster = Cluster::with_vm(limit);
    cluster.guests_listen = false;
    cluster.ask_and_watch(1, Change::RelocateVm { vm: vm("db"), to: id(2) });
    assert_eq!(cluster.homes("db"), [3]);
    cluster.run(20_000);
    assert_eq!((cluster.destroyed.len(), cluster.homes("db")), (1, [2].into()));
}

#[test]
fn a_vm_whose_target_dies_after_it_was_shut_down_starts_somewhere_else() {
    let mut cluster = cluster();
    cluster.ask(1, Change::RelocateVm { vm: vm("db"), to: id(2) });
    cluster.run_until(|cluster| cluster.homes("db").is_empty());
    cluster.kill(2);
    cluster.run(120_000);
    assert_eq!(cluster.homes("db").len(), 1);
}

#[test]
fn a_relocation_is_refused_with_its_reason() {
    let mut cluster = cluster();
    let mut refusal = |change: Change| {
        cluster.answers.clear();
        cluster.ask_and_watch(1, change);
        cluster.answers[0].clone()
    };
    let mut to = |node| refusal(Change::RelocateVm { vm: vm("db"), to: id(node) });
    assert!(to(3).contains("is on n3 already"));
    assert!(to(9).contains("is not a good node now"));
    assert!(refusal(empty(2, false)).starts_with("Ok"));
    let refused = refusal(Change::RelocateVm { vm: vm("db"), to: id(2) });
    assert!(refused.contains("n2 is to be emptied"), "{refused}");
    assert!(refusal(Change::EndMaintenance(id(9))).contains("not configured"));
}

fn shown(cluster: &Cluster, node: u32, name: &str) -> (String, String) {
    let snapshot = cluster.members[&node].machine.snapshot(at(cluster.now));
    let view = snapshot.vms.into_iter().find(|view| view.id == vm(name)).unwrap();
    (view.state, view.reason)
}

#[test]
fn a_vm_that_cannot_leave_is_shown_as_running_and_the_leader_says_why_it_stays() {
    let mut cluster = cluster();
    cluster.migrations = Migrating::Fails;
    cluster.ask_and_watch(1, empty(3, false));
    cluster.run(30_000);
    let (state, reason) = shown(&cluster, 1, "db");
    assert_eq!(state, "running");
    assert!(reason.starts_with("it is to leave n3: its migration to n"), "{reason}");
    assert!(reason.contains("was called off"), "{reason}");
    let (state, reason) = shown(&cluster, 2, "db");
    assert_eq!((state.as_str(), reason.contains("ask n1, which leads")), ("running", true));
    cluster.ask_and_watch(1, Change::EndMaintenance(id(3)));
    cluster.run(5_000);
    assert_eq!(shown(&cluster, 1, "db"), ("running".into(), String::new()));
}

/// n3 is in maintenance, n2 has `web`; `change` is what else the ledger says.
fn spares(change: impl Fn(&mut Ledger, &mut VmEntry)) -> bool {
    let mut ledger = admitted(3);
    own_vm(&mut ledger, "web", 2, Stamp::default());
    let (since, reason) = (Stamp::default(), String::new());
    let n3 = ledger.nodes.get_mut(&id(3)).unwrap();
    n3.maintenance = Some(Maintenance { since, restart: false, reason });
    let mut web = ledger.vms[&vm("web")].clone();
    change(&mut ledger, &mut web);
    ledger.vms.insert(vm("web"), web);
    is_spared(&ledger, id(3))
}

#[test]
fn an_empty_node_in_maintenance_is_spared_until_somebody_needs_to_know_what_it_runs() {
    let (since, reason) = (Stamp::default(), String::new());
    let migration = Migration { to: id(3), since, reason: reason.clone() };
    let disarm = Disarm { since, limit: None, reason, pending: true };
    let changing = Changing { before: [id(3)].into(), since };
    assert!(spares(|_, _| {}));
    assert!(spares(|_, web| (web.owner, web.desired) = (id(3), Desired::Stopped)));
    assert!(!spares(|ledger, _| ledger.nodes.get_mut(&id(3)).unwrap().maintenance = None));
    assert!(!spares(|ledger, _| ledger.nodes.get_mut(&id(3)).unwrap().leaving = true));
    assert!(!spares(|ledger, _| ledger.disarm = Some(disarm.clone())));
    assert!(!spares(|ledger, _| ledger.changing = Some(changing.clone())));
    assert!(!spares(|_, web| web.owner = id(3)));
    assert!(!spares(|_, web| web.migration = Some(migration.clone())));
    assert!(!spares(|_, web| web.unseen = true));
}
