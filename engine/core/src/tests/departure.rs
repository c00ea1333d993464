//! The source's side of a live migration.

use super::*;
use crate::cluster::{Cluster, Migrating};
use crate::event::Event;
use crate::kit::{config, id, stamp, vm, who};
use crate::message::Change;

/// `db` is on its way from n3 to n2, and will not get there by itself.
fn leaving() -> Cluster {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.migrations = Migrating::Hangs;
    cluster.ask(1, Change::MigrateVm { vm: vm("db"), to: id(2) });
    cluster.run_until(|cluster| !cluster.paused.is_empty());
    cluster
}

fn ends(cluster: &mut Cluster, result: Result<(), String>) {
    cluster.leaving.clear();
    cluster.tell(3, Event::MigrationEnded { vm: vm("db"), result });
    cluster.run(1_000);
}

fn dies(cluster: &mut Cluster) {
    cluster.end_guest("db", false);
    cluster.run(1_000);
}

#[test]
fn a_process_that_is_gone_is_not_replaced_before_libvirt_has_said_how_the_migration_ended() {
    let mut cluster = leaving();
    dies(&mut cluster);
    cluster.run(60_000);
    assert!(cluster.starts.is_empty() && cluster.resumes.is_empty());
    assert_eq!(cluster.shown(1, "db").0, "migrating");
    ends(&mut cluster, Ok(()));
    cluster.run(5_000);
    assert_eq!((cluster.starts.len(), cluster.homes("db")), (0, [2].into()));
}

#[test]
fn a_guest_that_is_lost_on_its_way_starts_again_at_its_source() {
    let mut cluster = leaving();
    dies(&mut cluster);
    ends(&mut cluster, Err("the target is gone".into()));
    cluster.run(30_000);
    assert_eq!((cluster.starts.len(), cluster.resumes.len()), (1, 0));
    assert_eq!((cluster.homes("db"), cluster.paused.len()), ([3].into(), 0));
}

#[test]
fn libvirts_success_over_a_process_that_exists_moves_nothing_until_that_process_is_gone() {
    let mut cluster = leaving();
    ends(&mut cluster, Ok(()));
    cluster.run(5_000);
    assert_eq!((cluster.homes("db"), cluster.resumes.len()), ([3].into(), 0));
    cluster.run(10_000);
    assert_eq!((cluster.destroyed.len(), cluster.homes("db")), (1, [2].into()));
    assert_eq!((cluster.resumes.len(), cluster.starts.len()), (1, 0));
}

#[test]
fn each_migration_is_tried_once() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.migrations = Migrating::Fails;
    cluster.ask(1, Change::MigrateVm { vm: vm("db"), to: id(2) });
    cluster.run(60_000);
    assert_eq!(cluster.attempts, 1);
}

#[test]
fn an_order_of_an_older_term_or_to_another_incarnation_is_refused() {
    let order = |term, to| MigrateOrder {
        term,
        stamp: stamp(1, 1, 1),
        vm: vm("db"),
        since: stamp(1, 1, 5),
        to,
    };
    let kept = |order| {
        let mut machine = Machine::new(config(3), Instant(0)).0;
        machine.election.highest_term = 5;
        machine.on_migrate_order(order);
        machine.departures.ordered.len()
    };
    let mut other = who(3);
    other.incarnation.0 = 2;
    assert_eq!(kept(order(5, who(3))), 1);
    assert_eq!(kept(order(4, who(3))), 0);
    assert_eq!(kept(order(5, other)), 0);
}

#[test]
fn a_source_whose_lease_ends_destroys_the_guest_wherever_its_migration_stands() {
    let mut cluster = leaving();
    cluster.split(&[&[1, 2], &[3]], 100);
    cluster.storage(3, false);
    cluster.run(60_000);
    assert!(cluster.destroyed.iter().any(|(_, _, node)| *node == 3));
    assert_eq!((cluster.starts.len(), cluster.resumes.len()), (1, 0));
    assert_eq!(cluster.homes("db").len(), 1);
}
