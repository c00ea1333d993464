//! Live migration, whole: the order of things, and every way in which it ends otherwise (PROTOCOL section 7).

use super::*;
use crate::cluster::{Cluster, Migrating};
use crate::guest::GuestReport;
use crate::kit::{id, own_vm, stamp, vm, who};
use crate::ledger::Desired;
use crate::message::Change;
use crate::stage::Stage;

fn to(node: u32) -> Change {
    Change::MigrateVm { vm: vm("db"), to: id(node) }
}

fn entry(cluster: &Cluster) -> VmEntry {
    let alive = cluster.members.values().find(|member| member.alive).unwrap();
    alive.machine.ledger().vms[&vm("db")].clone()
}

/// `db` is on its way from n3 to n2.
fn moving(migrations: Migrating) -> Cluster {
    moving_with(migrations, |_| {})
}

fn moving_with(migrations: Migrating, change: impl Fn(&mut crate::config::Config)) -> Cluster {
    let mut cluster = Cluster::with_vm(change);
    cluster.migrations = migrations;
    cluster.ask(1, to(2));
    cluster.run_until(|cluster| !cluster.paused.is_empty());
    cluster
}

#[test]
fn a_running_vm_moves_and_goes_on_without_being_started() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.ask_and_watch(1, to(2));
    assert_eq!((cluster.homes("db"), cluster.resumes.len()), ([2].into(), 1));
    assert!(cluster.starts.is_empty() && cluster.destroyed.is_empty());
    assert!(cluster.paused.is_empty() && cluster.permitted.is_empty());
    let entry = entry(&cluster);
    assert_eq!((entry.owner, entry.resumes, entry.migration), (id(2), false, None));
    cluster.run(120_000);
    assert!(cluster.starts.is_empty(), "and nobody finds it missing later");
}

#[test]
fn a_migration_that_libvirt_refuses_leaves_the_vm_where_it_is() {
    let mut cluster = Cluster::with_vm(|_| {});
    cluster.migrations = Migrating::Fails;
    cluster.ask_and_watch(1, to(2));
    cluster.run(20_000);
    assert_eq!((cluster.homes("db"), entry(&cluster).migration), ([3].into(), None));
    assert!(cluster.starts.is_empty() && cluster.permitted.is_empty());
    cluster.migrations = Migrating::Takes(500);
    cluster.ask_and_watch(1, to(2));
    assert_eq!(cluster.homes("db"), [2], "a new migration is a new chance");
}

#[test]
fn a_migration_that_takes_too_long_is_aborted() {
    let limit = |config: &mut crate::config::Config| {
        config.limits.migration_timeout = Millis(20_000);
    };
    let mut cluster = moving_with(Migrating::Hangs, limit);
    cluster.run(10_000);
    assert_eq!(cluster.shown(1, "db").0, "migrating");
    cluster.run(20_000);
    assert_eq!((cluster.homes("db"), entry(&cluster).migration), ([3].into(), None));
    assert!(cluster.leaving.is_empty() && cluster.paused.is_empty() && cluster.starts.is_empty());
}

#[test]
fn a_vm_that_is_stopped_on_its_way_stays_and_is_shut_down() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.ask_and_watch(1, Change::StopVm(vm("db")));
    assert!(cluster.homes("db").is_empty() && cluster.paused.is_empty());
    assert_eq!((entry(&cluster).owner, entry(&cluster).desired), (id(3), Desired::Stopped));
}

#[test]
fn when_the_source_dies_the_vm_starts_from_disk_and_the_copy_is_destroyed() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.kill(3);
    cluster.run(60_000);
    assert_eq!((cluster.starts.len(), cluster.resumes.len()), (1, 0));
    assert_eq!(cluster.homes("db").len(), 1);
    assert!(cluster.paused.is_empty());
}

#[test]
fn when_the_target_dies_the_source_goes_on() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.kill(2);
    cluster.run(60_000);
    assert_eq!((cluster.homes("db"), entry(&cluster).migration), ([3].into(), None));
    assert!(cluster.starts.is_empty());
}

#[test]
fn when_the_target_dies_with_the_guest_it_starts_elsewhere() {
    let mut cluster = moving(Migrating::Takes(500));
    cluster.run_until(|cluster| cluster.executing.is_empty());
    cluster.kill(2);
    cluster.run(60_000);
    assert_eq!((cluster.starts.len(), cluster.homes("db").len()), (1, 1));
}

#[test]
fn when_the_sources_agent_is_restarted_the_migration_is_off_and_the_guest_goes_on() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.restart_agent(3);
    cluster.run(30_000);
    assert_eq!((cluster.homes("db"), entry(&cluster).migration), ([3].into(), None));
    assert!(cluster.starts.is_empty() && cluster.paused.is_empty());
}

#[test]
fn when_the_targets_agent_is_restarted_the_migration_is_off_and_its_copy_destroyed() {
    let mut cluster = moving(Migrating::Hangs);
    cluster.restart_agent(2);
    cluster.run(30_000);
    assert_eq!((cluster.homes("db"), entry(&cluster).migration), ([3].into(), None));
    assert!(cluster.starts.is_empty() && cluster.paused.is_empty());
}

/// Nobody vouches for the copy then: the guest is started from disk, once.
#[test]
fn when_the_sources_agent_dies_before_it_says_departed_nothing_is_resumed() {
    let mut cluster = moving(Migrating::Takes(500));
    cluster.run_until(|cluster| cluster.executing.is_empty());
    cluster.restart_agent(3);
    cluster.run(30_000);
    assert_eq!((cluster.starts.len(), cluster.resumes.len()), (1, 0));
    assert_eq!((cluster.homes("db"), cluster.paused.len()), ([3].into(), 0));
}

#[test]
fn when_the_targets_agent_dies_after_the_guest_became_its_own_the_next_one_resumes_it() {
    let mut cluster = moving(Migrating::Takes(500));
    cluster.run_until(|cluster| entry(cluster).owner == id(2));
    assert!(cluster.resumes.is_empty());
    cluster.restart_agent(2);
    cluster.run(30_000);
    assert_eq!((cluster.starts.len(), cluster.resumes.len()), (0, 1));
    assert_eq!(cluster.homes("db"), [2]);
}

#[test]
fn when_the_leader_dies_the_next_one_goes_on_with_the_migration() {
    let mut cluster = moving(Migrating::Takes(20_000));
    cluster.kill(1);
    cluster.run(60_000);
    assert_eq!((cluster.homes("db"), cluster.resumes.len()), ([2].into(), 1));
    assert!(cluster.starts.is_empty());
}

#[test]
fn a_copy_that_is_gone_when_its_turn_comes_is_replaced_from_disk() {
    let mut cluster = moving(Migrating::Takes(500));
    cluster.run_until(|cluster| cluster.executing.is_empty());
    cluster.paused.clear();
    cluster.run(30_000);
    assert_eq!((cluster.starts.len(), cluster.homes("db")), (1, [2].into()));
}

#[test]
fn a_migration_is_refused_with_its_reason() {
    let mut cluster = Cluster::with_vm(|_| {});
    let mut refusal = |change: Change| {
        cluster.answers.clear();
        cluster.ask_and_watch(1, change);
        cluster.answers[0].clone()
    };
    assert!(refusal(to(3)).contains("is on n3 already"));
    assert!(refusal(to(9)).contains("is not a good node now"));
    assert!(refusal(Change::StopVm(vm("db"))).starts_with("Ok"));
    assert!(refusal(to(2)).contains("does not run on n3 in good order"));
    assert!(cluster.paused.is_empty());
}

// --- the leader's judgement, state by state ----------------------------------------------------------------

const OWNED: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 3 };
const BEGUN: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 5 };
const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 6 };
const DEPARTED: GuestState = GuestState::Departed { since: OWNED };
const EXPECTED: GuestState = GuestState::Expected { since: BEGUN };

/// n3 owns `db`, which is to move to n2.
struct Scene {
    stage: Stage,
    migrations: Migrations,
}

impl Scene {
    fn new() -> Self {
        let mut stage = Stage::new();
        own_vm(&mut stage.ledger, "db", 3, OWNED);
        begin(stage.ledger.vms.get_mut(&vm("db")).unwrap(), id(2), BEGUN, "a test");
        stage.run(10_000);
        Self { stage, migrations: Migrations::default() }
    }

    /// Source and target say this for a second; then the leader looks.
    fn say(&mut self, source: Option<GuestState>, target: Option<GuestState>) -> VmEntry {
        for (node, state) in [(3, source), (2, target)] {
            let report = |state| GuestReport { vm: vm("db"), state };
            self.stage.life(node).beat.guests = state.map(report).into_iter().collect();
        }
        self.stage.run(1_000);
        self.look()
    }

    fn look(&mut self) -> VmEntry {
        let mut next = self.stage.ledger.clone();
        let facts = self.stage.facts();
        self.migrations.apply(&mut next, NEXT, &facts, &mut Vec::new());
        next.vms[&vm("db")].clone()
    }
}

#[test]
fn the_vm_changes_hands_only_on_departed_for_this_ownership_and_expected_for_this_migration() {
    let old = || Some(GuestState::Departed { since: stamp(1, 1, 2) });
    let other = || Some(GuestState::Expected { since: stamp(1, 1, 4) });
    for (source, target, moves) in [
        (Some(DEPARTED), Some(EXPECTED), true),
        (old(), Some(EXPECTED), false),
        (Some(DEPARTED), other(), false),
        (Some(DEPARTED), None, false),
        (Some(GuestState::Leaving), Some(EXPECTED), false),
        (None, Some(EXPECTED), false),
    ] {
        let text = format!("{source:?} {target:?}");
        let entry = Scene::new().say(source, target);
        assert_eq!(entry.owner == id(2), moves, "{text}");
        assert_eq!((entry.resumes, entry.since == NEXT), (moves, moves), "{text}");
    }
}

#[test]
fn old_words_of_a_source_that_left_the_view_move_nothing() {
    let mut scene = Scene::new();
    scene.say(Some(GuestState::Leaving), Some(EXPECTED));
    scene.stage.fall_silent(3);
    scene.stage.run(500);
    scene.stage.beats.on_gone(id(3));
    assert_eq!(scene.look().owner, id(3));
}

#[test]
fn another_incarnation_of_the_source_or_of_the_target_ends_the_migration() {
    for node in [2, 3] {
        let mut scene = Scene::new();
        scene.say(Some(GuestState::Leaving), Some(EXPECTED));
        scene.stage.life(node).who.incarnation.0 = 2;
        let entry = scene.say(Some(GuestState::Leaving), Some(EXPECTED));
        assert_eq!((entry.owner, entry.migration), (id(3), None), "n{node}");
    }
}

#[test]
fn each_step_of_a_migration_has_its_time() {
    let still = |scene: &mut Scene| scene.look().migration.is_some();
    let mut scene = Scene::new();
    scene.say(Some(GuestState::Running), None);
    scene.stage.run(14_000);
    assert!(still(&mut scene));
    scene.stage.run(2_000);
    assert!(!still(&mut scene), "the target never expected it");
    let mut scene = Scene::new();
    scene.say(Some(GuestState::Running), Some(EXPECTED));
    scene.stage.run(16_000);
    assert!(!still(&mut scene), "the source never began");
    let mut scene = Scene::new();
    scene.say(Some(GuestState::Leaving), Some(EXPECTED));
    scene.stage.run(590_000);
    assert!(still(&mut scene), "a large guest takes its time");
    scene.stage.run(20_000);
    assert!(!still(&mut scene));
}

#[test]
fn a_source_that_says_running_after_leaving_has_failed() {
    let mut scene = Scene::new();
    assert!(scene.say(Some(GuestState::Running), Some(EXPECTED)).migration.is_some());
    assert!(scene.say(Some(GuestState::Leaving), Some(EXPECTED)).migration.is_some());
    assert!(scene.say(Some(GuestState::Running), Some(EXPECTED)).migration.is_none());
    assert!(scene.migrations.rests(&vm("db"), scene.stage.facts().now));
    assert!(!scene.migrations.rests(&vm("db"), scene.stage.facts().now + REST));
}

#[test]
fn a_target_that_is_silent_for_a_moment_is_waited_for_when_the_source_has_departed() {
    let mut scene = Scene::new();
    scene.say(Some(GuestState::Leaving), Some(EXPECTED));
    scene.stage.life(2).beats = false;
    scene.stage.run(2_000);
    assert!(scene.say(Some(DEPARTED), None).migration.is_some());
    scene.stage.run(10_000);
    assert!(scene.look().migration.is_none());
}

#[test]
fn the_time_of_a_silent_target_begins_when_the_guest_has_left() {
    let mut scene = Scene::new();
    scene.say(Some(GuestState::Leaving), Some(EXPECTED));
    scene.stage.life(2).beats = false;
    scene.stage.run(12_000);
    assert!(scene.say(Some(DEPARTED), None).migration.is_some(), "its copy is complete");
    scene.stage.run(12_000);
    assert!(scene.look().migration.is_none());
}

#[test]
fn the_source_is_ordered_once_the_target_expects_and_named_by_its_incarnation() {
    let mut scene = Scene::new();
    let orders = |scene: &mut Scene, now| {
        let mut out = crate::kit::outbox(1, now);
        scene.migrations.order((7, NEXT), None, &scene.stage.facts(), &mut out);
        crate::kit::sent(&mut out)
    };
    scene.say(Some(GuestState::Running), None);
    assert!(orders(&mut scene, 20_000).is_empty());
    scene.say(Some(GuestState::Running), Some(EXPECTED));
    let order = MigrateOrder { term: 7, stamp: NEXT, vm: vm("db"), since: BEGUN, to: who(3) };
    assert_eq!(orders(&mut scene, 20_000), [Body::MigrateVm(order)]);
    assert!(orders(&mut scene, 20_999).is_empty(), "not at every step");
    scene.say(Some(GuestState::Leaving), Some(EXPECTED));
    assert!(orders(&mut scene, 30_000).is_empty());
}

#[test]
fn a_copy_counts_as_resumed_only_by_a_node_that_has_read_that_it_is_its_own() {
    let mut scene = Scene::new();
    let entry = scene.stage.ledger.vms.get_mut(&vm("db")).unwrap();
    entry.moves_to(id(2), BEGUN);
    entry.resumes = true;
    let running = || Some(GuestState::Running);
    scene.stage.life(2).beat.known = OWNED;
    assert!(scene.say(None, running()).resumes, "a new agent there sees a process, no more");
    scene.stage.life(2).beat.known = BEGUN;
    assert!(!scene.say(None, running()).resumes);
}
