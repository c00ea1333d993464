//! Nodes at risk, as whole machines see them.

use super::own::{REASONS, WORD};
use super::*;
use crate::cluster::{Cluster, Migrating};
use crate::config::Config;
use crate::event::{Decider, Event};
use crate::kit::{id, spec, vm, who};
use crate::ledger::VmSpec;
use crate::message::{Change, RiskReport};
use std::boxed::Box;
use std::string::ToString;
use steadfast_sdk::wire::{Score, Term};

/// Time between two readings.
const PACE: u64 = 1_000;

fn drain(config: &mut Config) {
    let settings = &mut config.limits.proactive;
    (settings.mode, settings.well_after) = (Mode::Drain, Millis(10_000));
}

fn set(mode: Mode) -> impl Fn(&mut Config) {
    move |config| {
        drain(config);
        config.limits.proactive.mode = mode;
    }
}

fn assessed(score: i64) -> Event {
    let term = Term { name: "disk says that it fails".into(), value: score };
    let decider = Decider { name: "risk".into(), version: "1".into(), ..Decider::default() };
    let score = Score { value: score, terms: [term].into() };
    Event::RiskAssessed(Box::new(Assessed { score, decider }))
}

impl Cluster {
    /// These nodes say this of themselves, so many times.
    fn say(&mut self, words: &[(u32, i64)], times: u32) {
        for _ in 0..times {
            for (node, score) in words {
                self.later(*node, 1, assessed(*score));
            }
            self.run(PACE);
        }
    }

    fn held(&self, node: u32) -> Level {
        let ledger = self.leader().ledger();
        ledger.nodes[&id(node)].hold.as_ref().map_or(Level::Calm, |hold| hold.level)
    }

    fn leader(&self) -> &crate::machine::Machine {
        let alive = self.members.values().filter(|member| member.alive);
        let mut leads = alive.filter(|member| member.machine.register.leading().is_some());
        &leads.next().expect("somebody leads").machine
    }

    fn count_on(&self, node: u32) -> usize {
        self.executing.iter().filter(|(_, on)| *on == node).count()
    }

    fn was_told(&self, text: &str) -> bool {
        self.told.iter().any(|(_, told)| told.contains(text))
    }

    fn words_about(&self, node: u32) -> String {
        let now = Instant(self.now);
        let nodes = self.leader().snapshot(now).nodes;
        let view = nodes.into_iter().find(|view| view.id == id(node)).unwrap();
        view.risk.map_or_else(String::new, |risk| risk.text)
    }
}

/// `db` and `web` run on n3.
fn cluster(change: impl Fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::with_vm(change);
    cluster.enable(spec("web"));
    cluster
}

#[test]
fn a_node_at_risk_is_drained_live_and_its_vms_return_when_it_is_well() {
    let mut cluster = cluster(drain);
    cluster.say(&[(3, 900)], 3);
    assert_eq!(cluster.held(3), Level::Drain);
    cluster.say(&[(3, 900)], 10);
    assert_eq!((cluster.count_on(3), cluster.executing.len()), (0, 2));
    assert!(cluster.starts.is_empty() && cluster.destroyed.is_empty(), "live only");
    cluster.say(&[(3, 20)], 5);
    assert_eq!(cluster.held(3), Level::Drain, "it must be well for a while");
    cluster.say(&[(3, 20)], 10);
    assert_eq!(cluster.held(3), Level::Calm);
    cluster.run(20_000);
    assert_eq!(cluster.count_on(3), 2, "they return");
    assert!(cluster.was_told("n3 is used again: its risk is 20 now"), "{:?}", cluster.told);
}

#[test]
fn the_words_say_why_and_which_part_needs_repair() {
    let mut cluster = cluster(drain);
    cluster.say(&[(3, 900)], 4);
    assert!(cluster.was_told("n3 is at risk: 900 of 1000: disk says that it fails +900"));
    assert!(cluster.was_told("n3 needs repair: disk says that it fails +900; its VMs are to move"));
    assert!(cluster.was_told("n3 is drained, live: its risk is 900: disk says"));
    assert!(cluster.words_about(3).contains("it is drained, live (risk 900: disk says"));
}

#[test]
fn one_reading_is_an_accident() {
    let mut cluster = cluster(drain);
    for _ in 0..10 {
        cluster.say(&[(3, 1_000)], 2);
        cluster.say(&[(3, 0)], 1);
    }
    assert_eq!((cluster.held(3), cluster.count_on(3)), (Level::Calm, 2));
    assert!(!cluster.was_told("risk"), "{:?}", cluster.told);
}

#[test]
fn the_same_reading_told_in_every_beat_counts_once() {
    let mut cluster = cluster(drain);
    cluster.say(&[(3, 1_000)], 2);
    cluster.run(60_000);
    assert_eq!(cluster.held(3), Level::Calm);
}

#[test]
fn a_risk_that_nobody_tells_any_more_changes_nothing() {
    let mut cluster = cluster(|config| {
        drain(config);
        config.limits.proactive.stale = Millis(5_000);
    });
    cluster.say(&[(3, 900)], 12);
    assert_eq!((cluster.held(3), cluster.count_on(3)), (Level::Drain, 0));
    cluster.run(120_000);
    assert_eq!((cluster.held(3), cluster.count_on(3)), (Level::Drain, 0));
    let nodes = cluster.leader().snapshot(Instant(cluster.now)).nodes;
    assert_eq!(nodes[2].risk.as_ref().unwrap().report, None, "nothing stale is shown");
    // Silence is no sign of health: what was well before it does not count.
    cluster.say(&[(3, 0)], 2);
    cluster.run(20_000);
    cluster.say(&[(3, 0)], 2);
    assert_eq!(cluster.held(3), Level::Drain);
}

#[test]
fn of_three_nodes_that_are_all_at_risk_one_is_held() {
    let mut cluster = cluster(drain);
    cluster.say(&[(3, 990)], 1);
    cluster.say(&[(1, 800), (2, 800), (3, 990)], 30);
    let held = [1, 2, 3].map(|node| cluster.held(node));
    assert_eq!(held, [Level::Calm, Level::Calm, Level::Drain]);
    assert_eq!(cluster.executing.len(), 2);
    assert!(cluster.was_told("of 3 nodes at most 1 may be held at once (held now: 1)"));
}

#[test]
fn of_eight_nodes_two_may_be_drained_and_two_more_are_avoided() {
    let mut cluster = Cluster::of_with_vm(8, drain);
    let words: Vec<(u32, i64)> = (1..=8).map(|node| (node, 900)).collect();
    cluster.say(&words, 10);
    let count = |level| (1..=8).filter(|node| cluster.held(*node) == level).count();
    assert_eq!((count(Level::Drain), count(Level::Avoid)), (2, 2));
    assert!(cluster.was_told("is drained already, and at most 2 may be at once"));
}

#[test]
fn a_quarter_may_be_drained_and_one_at_least_and_an_operator_may_want_fewer() {
    let most = |nodes| Settings::default().budget(nodes);
    assert_eq!([2, 3, 7, 8, 11, 12, 64].map(most), [1, 1, 1, 2, 2, 3, 16]);
    let set = |max| Settings { max_drained: Some(max), ..Settings::default() };
    assert_eq!((set(0).budget(64), set(3).budget(64), set(40).budget(64)), (0, 3, 16));
}

#[test]
fn a_held_node_takes_what_has_no_other_place() {
    let mut cluster = cluster(drain);
    cluster.say(&[(2, 600)], 5);
    assert_eq!(cluster.held(2), Level::Avoid);
    cluster.kill(3);
    cluster.run(40_000);
    assert_eq!((cluster.count_on(1), cluster.count_on(2)), (2, 0), "n1 goes first");
    cluster.ask_and_watch(2, Change::StopVm(vm("db")));
    cluster.ask_and_watch(2, Change::StopVm(vm("web")));
    let full = steadfast_sdk::wire::NodeFacts { id: 1, vcpus: 8, ..Default::default() };
    cluster.later(1, 1, Event::FactsMeasured(Box::new(full)));
    cluster.ask_and_watch(
        2,
        Change::BeginMaintenance { node: id(1), restart: true, reason: "memory".into() },
    );
    cluster.ask_and_watch(2, Change::StartVm(vm("db")));
    cluster.run(60_000);
    assert_eq!(cluster.homes("db"), [2], "better there than nowhere");
}

#[test]
fn nothing_is_drained_that_the_others_cannot_take() {
    let mut cluster = Cluster::with_vm(drain);
    cluster.enable(VmSpec { memory_mib: 100_000, ..spec("huge") });
    cluster.say(&[(3, 900)], 20);
    assert_eq!((cluster.held(3), cluster.count_on(3)), (Level::Avoid, 2));
    assert!(cluster.was_told("n3 is to be drained, and is not: the others cannot take huge"));
}

#[test]
fn only_important_vms_are_moved() {
    let mut cluster = Cluster::with_vm(|config| {
        drain(config);
        config.limits.proactive.important = 800;
    });
    cluster.enable(VmSpec { priority: 900, ..spec("web") });
    cluster.say(&[(3, 900)], 20);
    assert_eq!((cluster.homes("db"), cluster.count_on(3)), (vec![3], 1));
}

#[test]
fn what_cannot_move_live_is_left_running() {
    let mut cluster = cluster(drain);
    cluster.migrations = Migrating::Fails;
    cluster.say(&[(3, 900)], 120);
    assert_eq!((cluster.count_on(3), cluster.starts.len()), (2, 0));
    assert!(cluster.destroyed.is_empty() && cluster.attempts > 1);
}

#[test]
fn in_shadow_it_says_what_it_would_do_and_moves_nothing() {
    let mut cluster = cluster(set(Mode::Shadow));
    cluster.say(&[(3, 900)], 4);
    cluster.say(&[(1, 800), (3, 900)], 10);
    assert_eq!((cluster.held(3), cluster.count_on(3)), (Level::Calm, 2));
    assert!(cluster.was_told("n3 would be drained, live: its risk is 900"), "{:?}", cluster.told);
    assert!(cluster.was_told("n1 is to be drained, and is not: of 3 nodes at most 1 may be held"));
    assert!(cluster.was_told("n3 needs repair: disk says that it fails +900; nothing is moved"));
    assert!(cluster.words_about(3).contains("would be drained"));
    assert_eq!(cluster.attempts, 0);
}

#[test]
fn warnings_alone_move_nothing_and_off_says_nothing() {
    let mut cluster = cluster(set(Mode::Warn));
    cluster.say(&[(3, 900)], 10);
    assert!(cluster.was_told("n3 is at risk") && cluster.was_told("n3 needs repair"));
    assert_eq!((cluster.held(3), cluster.attempts), (Level::Calm, 0));
    let mut cluster = self::cluster(set(Mode::Off));
    cluster.say(&[(3, 900)], 10);
    assert!(!cluster.was_told("n3 is at risk") && cluster.attempts == 0);
    let nodes = cluster.leader().snapshot(Instant(cluster.now)).nodes;
    assert_eq!(nodes[2].facts.risk, 900, "it is shown all the same");
}

#[test]
fn a_drain_outlives_the_leader() {
    let mut cluster = cluster(drain);
    cluster.migrations = Migrating::Takes(20_000);
    cluster.say(&[(3, 900)], 4);
    assert_eq!(cluster.held(3), Level::Drain);
    cluster.kill(1);
    cluster.say(&[(3, 900)], 120);
    assert_eq!((cluster.held(3), cluster.count_on(2)), (Level::Drain, 2));
}

#[test]
fn an_operators_maintenance_goes_first_and_is_not_ended_by_health() {
    let mut cluster = cluster(drain);
    cluster.say(&[(3, 900)], 15);
    let (node, restart, reason) = (id(3), false, "disk".to_string());
    cluster.ask_and_watch(1, Change::BeginMaintenance { node, restart, reason });
    cluster.say(&[(3, 0)], 30);
    assert_eq!(cluster.held(3), Level::Calm);
    assert!(cluster.leader().ledger().nodes[&node].maintenance.is_some());
    assert_eq!(cluster.count_on(3), 0, "it is the operator's still");
    cluster.ask_and_watch(1, Change::EndMaintenance(node));
    cluster.run(20_000);
    assert_eq!(cluster.count_on(3), 2);
}

#[test]
fn the_end_of_maintenance_does_not_end_a_drain() {
    let mut cluster = cluster(drain);
    cluster.say(&[(3, 900)], 15);
    let (node, restart, reason) = (id(3), false, "disk".to_string());
    cluster.ask_and_watch(1, Change::BeginMaintenance { node, restart, reason });
    cluster.ask_and_watch(1, Change::EndMaintenance(node));
    cluster.say(&[(3, 900)], 20);
    assert_eq!((cluster.held(3), cluster.count_on(3)), (Level::Drain, 0));
}

#[test]
fn no_drain_begins_while_a_node_is_being_emptied_or_evicted() {
    let mut cluster = cluster(drain);
    cluster.migrations = Migrating::Takes(20_000);
    let (node, restart, reason) = (id(3), false, "disk".to_string());
    cluster.ask(1, Change::BeginMaintenance { node, restart, reason });
    cluster.say(&[(2, 900)], 5);
    assert_eq!(cluster.held(2), Level::Avoid);
    assert!(cluster.was_told("n2 is to be drained, and is not: n3 is being emptied"));
    cluster.kill(3);
    cluster.say(&[(2, 900)], 5);
    assert_ne!(cluster.held(2), Level::Drain);
}

#[test]
fn an_operator_is_told_why_nothing_is_moved_to_a_drained_node() {
    let mut cluster = cluster(drain);
    cluster.say(&[(2, 900)], 5);
    cluster.ask_and_watch(1, Change::MigrateVm { vm: vm("db"), to: id(2) });
    let answer = cluster.answers.last().unwrap();
    assert!(answer.contains("proactive HA drains n2: its risk is 900: disk says"), "{answer}");
}

#[test]
fn a_group_goes_as_one_if_one_of_it_is_important() {
    let mut cluster = Cluster::with_vm(|config| {
        drain(config);
        config.limits.proactive.important = 800;
    });
    let affinity = steadfast_sdk::wire::Affinity {
        together: ["shop".to_string()].into(),
        ..Default::default()
    };
    let grouped =
        |name: &str, priority| VmSpec { priority, affinity: affinity.clone(), ..spec(name) };
    cluster.enable(grouped("web", 900));
    cluster.enable(grouped("cache", 100));
    cluster.say(&[(3, 900)], 30);
    assert_eq!((cluster.homes("db"), cluster.count_on(3)), (vec![3], 1));
    assert_eq!(cluster.homes("web"), cluster.homes("cache"));
}

#[test]
fn a_beat_carries_the_weightiest_reasons_and_no_more() {
    let mut own = OwnRisk::default();
    let term = |value: i64| Term { name: "x".repeat(200).into(), value };
    let score = Score { value: 5_000, terms: (0..100).map(term).collect() };
    own.on_assessed(Assessed { score, decider: Decider::default() }, Instant(0));
    let report = own.report(Millis(1_000), Instant(500)).unwrap();
    assert_eq!((report.score, report.age, report.terms.len()), (1_000, Millis(500), REASONS));
    assert_eq!((report.terms[0].value, report.terms[0].name.len()), (99, WORD));
    assert_eq!(own.report(Millis(1_000), Instant(1_000)), None);
}

#[test]
fn a_level_is_left_only_well_below_its_threshold() {
    let settings = Settings { well_after: Millis(0), ..Settings::default() };
    let mut gauge = Gauge::new(Level::Calm);
    let mut number = 0;
    let mut feed = |gauge: &mut Gauge, score: u16| {
        number += 1;
        let (terms, decider) = (Vec::new(), String::new());
        let report = RiskReport { number, score, terms, decider, age: Millis(0) };
        gauge.read(who(1), &report, &settings, Instant(number * 1_000))
    };
    assert_eq!(
        [700, 700, 700].map(|score| feed(&mut gauge, score)),
        [None, None, Some(Level::Calm)]
    );
    assert_eq!([650, 650, 650, 600, 600].map(|score| feed(&mut gauge, score)), [None; 5]);
    assert_eq!(
        [599, 599, 599].map(|score| feed(&mut gauge, score)),
        [None, None, Some(Level::Drain)]
    );
    assert_eq!(gauge.level, Level::Avoid);
}
