//! A cluster is made of one machine, a second joins over loopback, cuts are completed by a repeat.

use super::super::prepare;
use super::super::step::State;
use super::super::tell::Tell;
use super::super::testing::Machine;
use super::config_file::Choices;
use super::init::{self, Init};
use super::invite::{Invite, Inviter};
use super::members::{NewCorosync, take};
use super::ticket::Ticket;
use super::*;
use crate::config::Preset;
use crate::pages::Place;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

fn machine(name: &str) -> Machine {
    let machine = Machine::debian(name);
    machine.put("run/steadfast/api.sock", "");
    let options = prepare::Options { wait_s: 0, ..prepare::Options::default() };
    prepare::prepare(&machine.host(), &options, &mut Tell::nobody()).expect("prepared");
    machine
}

fn wanted(shared: &Path) -> Init {
    Init {
        name: "n1".into(),
        addresses: vec!["127.0.0.1".parse().expect("an address")],
        token_ms: None,
        force: None,
        choices: Choices {
            cluster: "prod".into(),
            preset: Preset::Standard,
            timing: BTreeMap::new(),
            place: Place::Directory(shared.join("shared")),
            shared_paths: vec![],
            verification: vec![],
            fence: vec![],
            never_paused: true,
            watchdog: "/dev/watchdog0".into(),
        },
    }
}

fn first(name: &str) -> Machine {
    let one = machine(name);
    init::init(&one.host(), &wanted(&one.0), &mut Tell::nobody()).expect("made");
    one
}

fn second() -> Invite {
    let addresses = vec!["127.0.0.2".parse().expect("an address")];
    Invite { name: "n2".into(), addresses, port: 0, limit: Duration::from_secs(60) }
}

/// Joins `two` to the cluster of `one`; what the inviter and the newcomer say.
fn join_up(
    one: &super::super::host::Host,
    two: &super::super::host::Host,
) -> (anyhow::Result<()>, anyhow::Result<String>) {
    let limit = Duration::from_secs(if two_is_cut(two) { 1 } else { 60 });
    join_as(one, two, Invite { limit, ..second() })
}

fn join_as(
    one: &super::super::host::Host,
    two: &super::super::host::Host,
    invite: Invite,
) -> (anyhow::Result<()>, anyhow::Result<String>) {
    let inviter = Inviter::begin(one, invite).expect("invited");
    let ticket = Ticket::parse(&inviter.ticket().word()).expect("a ticket");
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || inviter.wait(&mut Tell::nobody()));
        let joined = join::join(two, &ticket, &mut Tell::nobody());
        (waits.join().expect("no panic"), joined)
    })
}

/// It will not come back: it is not waited for as long.
fn two_is_cut(host: &super::super::host::Host) -> bool {
    host.has("/cut")
}

#[test]
fn the_first_node_is_made_once_and_a_repeat_touches_nothing() {
    let one = first("init-twice");
    let conf = Conf::parse(&one.read("etc/corosync/corosync.conf")).expect("ours");
    assert_eq!((conf.members.len(), conf.token_ms), (1, 500));
    assert_eq!(one.read("var/lib/steadfast/activation"), "waiting\n");
    assert!(activation::may_begin(&one.0.join("var/lib/steadfast")).is_err());
    for (file, mode) in [
        ("/etc/corosync/authkey", 0o400),
        ("/etc/steadfast/pki/ca.key", 0o600),
        ("/etc/steadfast/pki/node.key", 0o600),
        ("/etc/steadfast/steadfast.toml", 0o600),
        ("/etc/steadfast/pki", 0o700),
    ] {
        assert_eq!(one.host().mode(file), Some(mode), "{file}");
    }
    assert!(one.0.join("fake/active/corosync.service").exists());
    assert!(one.0.join("fake/enabled/steadfastd.service").exists());
    let times = one.times();
    let again = init::init(&one.host(), &wanted(&one.0), &mut Tell::nobody()).expect("again");
    assert!(again.iter().all(|line| line.state == State::InOrder), "{again:?}");
    assert_eq!(one.times(), times, "something was touched");
    activation::activate(&one.host()).expect("activated");
    init::init(&one.host(), &wanted(&one.0), &mut Tell::nobody()).expect("again");
    assert_eq!(one.read("var/lib/steadfast/activation"), "active\n", "a repeat does not stop it");
}

#[test]
fn another_name_cluster_or_an_unprepared_machine_is_refused_with_both_values() {
    let one = first("init-other");
    let mut other = wanted(&one.0);
    other.choices.cluster = "test".into();
    let told = init::preview(&one.host(), &other).expect_err("another").to_string();
    assert!(told.contains("\"prod\"") && told.contains("\"test\""), "{told}");
    let bare = Machine::debian("init-bare");
    let told = init::init(&bare.host(), &wanted(&bare.0), &mut Tell::nobody());
    assert!(told.expect_err("bare").to_string().contains("node prepare"));
    assert!(!bare.0.join("etc/corosync").exists(), "nothing was changed");
}

#[test]
fn a_cut_at_any_change_of_init_is_completed_by_a_repeat_and_undone_by_leaving() {
    let mut cuts = 0;
    for changes in (0..).step_by(4) {
        let one = machine("init-cut");
        let before = one.tree();
        let host = one.host().with_fuse(changes);
        if init::init(&host, &wanted(&one.0), &mut Tell::nobody()).is_ok() {
            break;
        }
        cuts += 1;
        let done = init::init(&one.host(), &wanted(&one.0), &mut Tell::nobody());
        done.unwrap_or_else(|error| panic!("cut after {changes} changes: {error:#}"));
        Conf::parse(&one.read("etc/corosync/corosync.conf")).expect("whole");
        assert_eq!(one.read("var/lib/steadfast/activation"), "waiting\n");
        let agents = agents::Agents::new(&one.host());
        agents.unwrap_or_else(|error| panic!("cut after {changes} changes: {error:#}"));
        assert!(members::leave(&one.host(), |_| ()).expect("left"));
        let mut after = one.tree();
        after.retain(|path, _| !path.starts_with("shared"));
        let names = |tree: &BTreeMap<_, _>| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(&before), "cut after {changes} changes");
        assert_eq!(after, before, "cut after {changes} changes");
    }
    assert!(cuts > 5, "only {cuts} cuts");
}

#[test]
fn a_prepared_machine_joins_by_ticket_and_both_know_both() {
    let (one, two) = (first("join-one"), machine("join-two"));
    let (waited, joined) = join_up(&one.host(), &two.host());
    let said = joined.expect("joined");
    waited.expect("it came");
    assert!(said.contains("cluster activate"), "{said}");
    let conf = one.read("etc/corosync/corosync.conf");
    assert_eq!(two.read("etc/corosync/corosync.conf"), conf);
    assert_eq!(Conf::parse(&conf).expect("ours").members.len(), 2);
    for same in ["etc/steadfast/steadfast.toml", "etc/steadfast/pki/ca.crt"] {
        assert_eq!(one.read(same), two.read(same), "{same}");
    }
    assert_ne!(one.read("etc/steadfast/pki/node.key"), two.read("etc/steadfast/pki/node.key"));
    let stored = crate::pages::look(&Place::Directory(one.0.join("shared"))).expect("a store");
    assert_eq!(stored.nodes.len(), 2);
    assert_eq!(agents::own(&two.host(), &agents::conf(&two.host()).unwrap()).unwrap().name, "n2");
}

#[test]
fn a_newcomer_that_is_cut_joins_with_another_ticket() {
    for changes in [0, 9, 18] {
        let (one, two) = (first("join-cut-one"), machine("join-cut-two"));
        two.put("cut", "");
        let (waited, joined) = join_up(&one.host(), &two.host().with_fuse(changes));
        assert!(waited.is_err() && joined.is_err(), "cut after {changes} changes");
        std::fs::remove_file(two.0.join("cut")).expect("there");
        let (waited, joined) = join_up(&one.host(), &two.host());
        joined.unwrap_or_else(|error| panic!("cut after {changes} changes: {error:#}"));
        waited.expect("it came");
        let conf = one.read("etc/corosync/corosync.conf");
        assert_eq!(two.read("etc/corosync/corosync.conf"), conf);
        assert_eq!(Conf::parse(&conf).expect("ours").version, 2, "added once");
    }
}

#[test]
fn a_machine_that_is_not_fit_or_does_not_know_the_secret_is_refused_and_nothing_is_changed() {
    let (one, two) = (first("join-refused-one"), Machine::debian("join-refused-two"));
    two.put("cut", "");
    let before = (two.tree(), one.read("etc/corosync/corosync.conf"));
    let (waited, joined) = join_up(&one.host(), &two.host());
    let told = joined.expect_err("refused").to_string();
    assert!(told.contains("run `steadfast node prepare`"), "{told}");
    assert!(waited.is_err());
    let host = one.host();
    let inviter = Inviter::begin(&host, second()).expect("invited");
    let ticket = Ticket { secret: [0; 16], ..inviter.ticket().clone() };
    let waited = std::thread::scope(|scope| {
        let waits = scope.spawn(move || inviter.wait(&mut Tell::nobody()));
        for _ in 0..5 {
            assert!(join::join(&two.host(), &ticket, &mut Tell::nobody()).is_err());
        }
        waits.join().expect("no panic")
    });
    assert!(waited.expect_err("void").to_string().contains("void"));
    assert_eq!((two.tree(), one.read("etc/corosync/corosync.conf")), before);
}

#[test]
fn a_new_corosync_conf_is_taken_only_if_it_is_the_next_one_of_this_cluster_with_this_node() {
    let one = first("take");
    let host = one.host();
    let is = agents::conf(&host).expect("ours");
    let next = is.with("n2", &["127.0.0.2".parse().unwrap()]).expect("added");
    let new = |conf: &Conf, take| NewCorosync { text: conf.render(), take };
    assert_eq!(take(&host, &new(&next, false)).expect("could").version, 1);
    assert_eq!(agents::conf(&host).expect("as it was"), is);
    assert_eq!(take(&host, &new(&next, true)).expect("taken").version, 2);
    assert_eq!(take(&host, &new(&next, true)).expect("twice").version, 2);
    let refused = |conf: &Conf| take(&host, &new(conf, true)).expect_err("refused").to_string();
    assert!(refused(&is).contains("somebody else"));
    assert!(refused(&Conf { cluster: "x".into(), ..next.clone() }).contains("\"prod\""));
    let other = Conf { version: 3, ..next.without("n1").expect("two were there") };
    assert!(refused(&other).contains("does not have n1"));
    let sibling = is.with("n3", &["127.0.0.3".parse().unwrap()]).expect("added");
    assert!(refused(&sibling).contains("differs"));
}

/// The API of a machine's agent, which waits for its activation.
fn serve(runtime: &tokio::runtime::Runtime, machine: &Machine, port: u16) {
    let file = machine.0.join("etc/steadfast/steadfast.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let pki = machine.0.join("etc/steadfast/pki").display().to_string();
    let mut config = crate::config::Config::parse(&text.replace("/etc/steadfast/pki", &pki))
        .unwrap_or_else(|problems| panic!("{problems}"));
    let own = agents::conf(&machine.host()).expect("a member");
    let address = agents::own(&machine.host(), &own).expect("a member").addresses[0];
    config.api.tls.as_mut().expect("TLS").listen = (address, port).into();
    (config.file, config.state) = (Some(file), machine.0.join("var/lib/steadfast"));
    runtime.spawn(crate::api::serve_tls(crate::driver::Agent::new(config)));
}

/// A port that is free, and the same on all nodes from now on.
fn use_free_port(machines: &[&Machine]) -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port();
    for machine in machines {
        let text = machine.read("etc/steadfast/steadfast.toml");
        machine.put("etc/steadfast/steadfast.toml", &text.replace(":7443", &format!(":{port}")));
    }
    port
}

/// Asks until all nodes answer: servers begin in the background.
fn gathered(host: &super::super::host::Host) -> BTreeMap<String, facts::Facts> {
    for _ in 0..200 {
        let told = members::gather(host).expect("a member");
        let good = told.iter().filter_map(|(name, told)| Some((name.clone(), told.clone().ok()?)));
        let good: BTreeMap<_, _> = good.collect();
        if good.len() == told.len() {
            return good;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{:?}", members::gather(host))
}

#[test]
fn members_ask_each_other_over_tls_learn_of_a_third_one_together_and_begin_together() {
    let (one, two, three) = (first("agents-one"), machine("agents-two"), machine("agents-three"));
    join_up(&one.host(), &two.host()).1.expect("joined");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let port = use_free_port(&[&one, &two]);
    serve(&runtime, &one, port);
    serve(&runtime, &two, port);
    let told = gathered(&one.host());
    assert!(told.values().all(|facts| !facts.active && facts.corosync == 2), "{told:?}");
    assert_eq!(told["n1"].store, told["n2"].store);
    let addresses = vec!["127.0.0.3".parse().expect("an address")];
    let invite = Invite { name: "n3".into(), addresses, ..second() };
    let (waited, joined) = join_as(&two.host(), &three.host(), invite);
    joined.expect("joined");
    waited.expect("it came");
    let conf = one.read("etc/corosync/corosync.conf");
    assert_eq!(Conf::parse(&conf).expect("ours").members.len(), 3);
    assert_eq!(conf, two.read("etc/corosync/corosync.conf"));
    assert_eq!(conf, three.read("etc/corosync/corosync.conf"));
    serve(&runtime, &three, port);
    gathered(&three.host());
    let checks = members::requirements(&three.host()).expect("a member");
    let red: Vec<_> =
        checks.iter().filter(|check| check.level == crate::doctor::Level::Red).collect();
    assert_eq!(red, Vec::<&crate::doctor::Check>::new());
    members::activate(&three.host(), &mut Tell::nobody()).expect("activated");
    for machine in [&one, &two, &three] {
        assert_eq!(machine.read("var/lib/steadfast/activation"), "active\n");
    }
    assert!(gathered(&one.host()).values().all(|facts| facts.active));
}

#[test]
fn a_stranger_with_a_certificate_of_another_authority_is_not_let_in() {
    let (one, other) = (first("stranger-one"), first("stranger-other"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let port = use_free_port(&[&one, &other]);
    serve(&runtime, &one, port);
    gathered(&one.host());
    let told = members::gather(&other.host()).expect("a member");
    assert!(told["n1"].is_err(), "{told:?}");
}
