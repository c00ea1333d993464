//! For each row of PROTOCOL section 5: the time from the fault to the last start order elsewhere stays under the bound that the
//! agent itself prints. The table so far is printed after each story; the last one is the whole.

use super::operators::everybody_says;
use super::{Watch, ha_guests_on, lab, nothing_happens, runs_elsewhere};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use steadfast_lab::api::{self, Events};
use steadfast_lab::failover::Role;
use steadfast_lab::faultfs::Mode;
use steadfast_lab::faults::Cut;
use steadfast_lab::lab::{Lab, Node, Options};
use steadfast_lab::sys;

/// Row, role and fence agent, with what was measured and what was promised.
static TABLE: Mutex<BTreeMap<Key, Times>> = Mutex::new(BTreeMap::new());

type Key = (String, &'static str, bool);
/// Measured and promised, in ms; `None`: nothing was moved, and nothing was promised.
type Times = Option<(u64, u64)>;

/// Beyond every bound of the preset `standard`.
const PATIENCE: Duration = Duration::from_secs(90);

fn tell(row: &str, role: Role, fence_agent: bool, times: Times) {
    let mut table = TABLE.lock().expect("the table");
    table.insert((row.to_owned(), role.name(), fence_agent), times);
    println!("\nfrom the fault to the start order   of      fence agent  measured ms  bound ms");
    for ((row, role, agent), times) in &*table {
        let agent = if *agent { "yes" } else { "no" };
        let told = times.map_or(["nothing moved".into(), "-".into()], |(measured, bound)| {
            [measured.to_string(), bound.to_string()]
        });
        println!("{row:35} {role:7} {agent:10} {:>13} {:>9}", told[0], told[1]);
    }
}

/// What the agent of `node` promises.
fn promise(lab: &Lab, node: Node, row: &str, role: Role, fence_agent: bool) -> Result<Option<u64>> {
    let wanted = |bound: &&api::Bound| {
        bound.failure == row && bound.role == role.name() && bound.fence_agent == fence_agent
    };
    let doctor = api::doctor(lab, node)?;
    let bound = doctor.bounds.iter().find(wanted).with_context(|| format!("no row {row}"))?;
    Ok(bound.bound_ms)
}

/// From the fault until the last of `lost` was ordered to start elsewhere, by the clock that all nodes share.
fn last_order(events: &Events, victim: Node, lost: &[String], began: u64) -> Result<u64> {
    let mut waiting: BTreeSet<&String> = lost.iter().collect();
    let (start, mut last) = (Instant::now(), 0);
    while !waiting.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "{waiting:?} were not ordered to start elsewhere");
        let Some(heard) = events.next(Duration::from_millis(50)) else { continue };
        let (event, from) = (heard.event, heard.from);
        let Some(ms) = event.wall_ms.checked_sub(began) else { continue };
        let vm = event.vm.filter(|_| event.kind == "start_ordered" && from != victim);
        if vm.is_some_and(|vm| waiting.remove(&vm)) {
            last = last.max(ms);
        }
    }
    Ok(last)
}

/// The victim has a guest, suffers the fault, and everything that it had is ordered to start elsewhere within the bound.
fn row(
    row: &str,
    role: Role,
    fence_agent: bool,
    fault: fn(&Lab, Node) -> Result<()>,
) -> Result<()> {
    let name = format!("bound-{}", TABLE.lock().expect("the table").len());
    let lab = lab(&name, Options { fence_agent, ..Options::default() })?;
    lab.ensure_guest_on(lab.victim(role, lab.wait_until_good()?))?;
    let victim = lab.victim(role, lab.wait_until_good()?);
    let lost = ha_guests_on(&lab, victim);
    let bound = promise(&lab, victim, row, role, fence_agent)?.context("there is no bound")?;
    let watch = Watch::begin(&lab);
    let events = Events::listen(&lab);
    thread::sleep(Duration::from_millis(300));
    let began = sys::wall_ms();
    fault(&lab, victim)?;
    let measured = last_order(&events, victim, &lost, began)?;
    tell(row, role, fence_agent, Some((measured, bound)));
    ensure!(measured <= bound, "{row} of the {}: {measured} ms, bound {bound} ms", role.name());
    for name in &lost {
        runs_elsewhere(&lab, name, victim, Duration::from_secs(20))?;
    }
    lab.check_single()?;
    watch.end()
}

fn power_cut(lab: &Lab, victim: Node) -> Result<()> {
    lab.kill(victim)
}

fn network_cut(lab: &Lab, victim: Node) -> Result<()> {
    lab.cut(victim, Cut::Network, Mode::Ok)
}

/// Its guests cannot end: they wait in the kernel for their disks. Its pages are written on.
fn network_cut_with_hanging_guests(lab: &Lab, victim: Node) -> Result<()> {
    lab.set_storage(victim, Mode::HangDisks)?;
    lab.cut(victim, Cut::Network, Mode::HangDisks)
}

fn storage_fails(lab: &Lab, victim: Node) -> Result<()> {
    lab.cut(victim, Cut::Storage, Mode::Eio)
}

fn storage_hangs(lab: &Lab, victim: Node) -> Result<()> {
    lab.cut(victim, Cut::Storage, Mode::Hang)
}

macro_rules! rows {
    ($($name:ident: $row:literal, $role:ident, $agent:literal, $fault:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            row($row, Role::$role, $agent, $fault)
        }
    )*};
}

rows! {
    a_dead_member_with_a_fence_agent: "Full failure", Member, true, power_cut;
    a_dead_leader_with_a_fence_agent: "Full failure", Leader, true, power_cut;
    a_dead_member_by_time: "Full failure", Member, false, power_cut;
    a_dead_leader_by_time: "Full failure", Leader, false, power_cut;
    a_member_without_network: "Network isolation", Member, true, network_cut;
    a_leader_without_network: "Network isolation", Leader, true, network_cut;
    a_member_without_network_whose_guests_hang_with_a_fence_agent:
        "Network isolation, guests hang", Member, true, network_cut_with_hanging_guests;
    a_leader_without_network_whose_guests_hang_with_a_fence_agent:
        "Network isolation, guests hang", Leader, true, network_cut_with_hanging_guests;
    a_member_without_network_whose_guests_hang_by_time:
        "Network isolation, guests hang", Member, false, network_cut_with_hanging_guests;
    a_leader_without_network_whose_guests_hang_by_time:
        "Network isolation, guests hang", Leader, false, network_cut_with_hanging_guests;
    a_member_without_storage: "Storage isolation", Member, true, storage_fails;
    a_leader_without_storage: "Storage isolation", Leader, true, storage_fails;
    a_member_without_storage_whose_guests_hang_with_a_fence_agent:
        "Storage isolation, guests hang", Member, true, storage_hangs;
    a_leader_without_storage_whose_guests_hang_with_a_fence_agent:
        "Storage isolation, guests hang", Leader, true, storage_hangs;
    a_member_without_storage_whose_guests_hang_by_time:
        "Storage isolation, guests hang", Member, false, storage_hangs;
    a_leader_without_storage_whose_guests_hang_by_time:
        "Storage isolation, guests hang", Leader, false, storage_hangs;
}

#[test]
fn a_node_that_lost_the_control_network_alone_is_excluded_and_nothing_moves() -> Result<()> {
    let lab = lab("excluded", Options::default())?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let row = "Excluded from HA cluster";
    ensure!(promise(&lab, leader, row, Role::Member, true)?.is_none(), "{row} has a bound");
    nothing_happens(&lab, Duration::from_secs(40), || lab.cut(victim, Cut::Control, Mode::Ok))?;
    let shown = api::status(&lab, leader)?.nodes;
    let status = shown.into_iter().find(|node| node.name == victim.to_string());
    ensure!(status.as_ref().is_some_and(|node| node.status == row), "shown as {status:?}");
    nothing_happens(&lab, Duration::from_secs(10), || lab.heal(victim))?;
    tell(row, Role::Member, true, None);
    lab.wait_until_good()?;
    lab.check_single()
}

#[test]
fn a_node_that_comes_and_goes_is_unstable_and_nothing_moves() -> Result<()> {
    let lab = lab("unstable", Options::default())?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let row = "Network unstable";
    ensure!(promise(&lab, leader, row, Role::Member, true)?.is_none(), "{row} has a bound");
    for _ in 0..4 {
        nothing_happens(&lab, Duration::from_secs(4), || lab.cut(victim, Cut::Control, Mode::Ok))?;
        nothing_happens(&lab, Duration::from_secs(4), || lab.heal(victim))?;
    }
    everybody_says(&lab, "an unstable network", |status| {
        status.nodes.iter().any(|node| node.name == victim.to_string() && node.status == row)
    })?;
    tell(row, Role::Member, true, None);
    lab.check_single()
}
