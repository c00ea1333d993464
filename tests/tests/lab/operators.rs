//! What operators do: maintenance, moves, stops, disarming, upgrades.

use super::count::Counts;
use super::{ha_guests_on, lab, nothing_happens, other_cuts, runs_elsewhere};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use steadfast_lab::failover::Role;
use steadfast_lab::lab::{Lab, Node, Options};
use steadfast_lab::power_log::Cause;
use steadfast_lab::{api, wait};

/// A live migration stops its guest for a moment; a guest counts once a second, with the seconds of its own timer.
const LONGEST_PAUSE: Duration = Duration::from_millis(2_500);

pub fn runs_on(lab: &Lab, name: &str, node: Node, limit: Duration) -> Result<Duration> {
    let begin = Instant::now();
    wait::until(&format!("{name} on {node}"), limit, || {
        let homes = lab.homes(name);
        Ok((homes.len() == 1 && homes[0].node == node).then_some(()))
    })?;
    Ok(begin.elapsed())
}

/// Waits until every agent that answers says so.
pub fn everybody_says(lab: &Lab, what: &str, is_so: impl Fn(&api::Status) -> bool) -> Result<()> {
    wait::until(what, Duration::from_secs(60), || {
        let states: Vec<_> = lab.nodes().filter_map(|node| api::status(lab, node).ok()).collect();
        Ok((!states.is_empty() && states.iter().all(&is_so)).then_some(()))
    })
}

pub fn starts(lab: &Lab, name: &str) -> usize {
    lab.nodes().map(|node| lab.console(name, node).matches("GUEST-UP").count()).sum()
}

#[test]
fn a_node_in_maintenance_is_emptied_live_and_its_guests_return() -> Result<()> {
    let lab = lab("maintenance", Options::default())?;
    let leader = lab.wait_until_good()?;
    let node = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(node)?;
    let moved = ha_guests_on(&lab, node);
    let before: Vec<usize> = moved.iter().map(|name| starts(&lab, name)).collect();
    let counts = Counts::begin(&lab, &moved);
    let begin = ["node", "maintenance", "begin", &node.to_string(), "--reason", "new memory"]
        .map(String::from);
    lab.steadfast(leader, &begin.each_ref().map(String::as_str))?;
    for name in &moved {
        let took = runs_elsewhere(&lab, name, node, Duration::from_secs(60))?;
        println!("maintenance: {name} left after {} ms", took.as_millis());
    }
    everybody_says(&lab, "maintenance", |status| {
        status
            .nodes
            .iter()
            .any(|other| other.name == node.to_string() && other.status == "Maintenance")
    })?;
    lab.steadfast(leader, &["node", "maintenance", "end", &node.to_string()])?;
    for name in &moved {
        let took = runs_on(&lab, name, node, Duration::from_secs(60))?;
        println!("maintenance: {name} returned after {} ms", took.as_millis());
    }
    lab.wait_until_good()?;
    let pause = counts.end()?;
    println!("maintenance: longest pause of a guest's counter {} ms", pause.as_millis());
    ensure!(pause <= LONGEST_PAUSE, "a guest paused for {pause:?}");
    let after: Vec<usize> = moved.iter().map(|name| starts(&lab, name)).collect();
    ensure!(before == after, "guests were started anew: {before:?}, then {after:?}");
    ensure!(lab.power_cuts()?.is_empty(), "power was cut: {:?}", lab.power_cuts()?);
    lab.check_single()
}

fn begin_maintenance(lab: &Lab, node: Node) -> Result<()> {
    lab.steadfast(node, &["node", "maintenance", "begin", &node.to_string()]).map(drop)
}

#[test]
fn an_empty_node_in_maintenance_may_stop_its_agent_and_lose_power_and_nobody_fences_it()
-> Result<()> {
    let lab = lab("empty", Options::default())?;
    let node = lab.victim(Role::Member, lab.wait_until_good()?);
    lab.ensure_guest_on(node)?;
    let moved = ha_guests_on(&lab, node);
    begin_maintenance(&lab, node)?;
    let is_node = |name: &str| name == node.to_string();
    let in_maintenance = |status: &api::Status| {
        let own = |vm: &api::VmStatus| vm.owner.as_ref().is_some_and(|owner| is_node(&owner.name));
        let is_empty = status.vms.iter().all(|vm| vm.state == "running" && !own(vm));
        let shown = status.nodes.iter().find(|other| is_node(&other.name));
        is_empty && shown.is_some_and(|shown| shown.status == "Maintenance")
    };
    everybody_says(&lab, "maintenance", in_maintenance)?;
    nothing_happens(&lab, Duration::from_secs(25), || lab.stop_agent(node))?;
    nothing_happens(&lab, Duration::from_secs(5), || lab.start_agent(node))?;
    everybody_says(&lab, "maintenance after an upgrade", in_maintenance)?;
    lab.kill(node)?;
    std::thread::sleep(Duration::from_secs(15));
    lab.boot(node)?;
    everybody_says(&lab, "maintenance after a reboot", in_maintenance)?;
    let others = other_cuts(&lab, Cause::Kill)?;
    ensure!(others.is_empty(), "power was cut: {others:?}");
    lab.steadfast(node, &["node", "maintenance", "end", &node.to_string()])?;
    for name in &moved {
        runs_on(&lab, name, node, Duration::from_secs(60))?;
    }
    lab.wait_until_good()?;
    lab.check_single()
}

#[test]
fn a_vm_is_stopped_started_relocated_and_may_switch_itself_off() -> Result<()> {
    let lab = lab("operated", Options::default())?;
    lab.wait_until_good()?;
    let (name, home) = ("web", lab.homes("web")[0].node);
    lab.steadfast(home, &["vm", "stop", name])?;
    gone(&lab, name)?;
    ensure!(lab.console(name, home).ends_with('S'), "it was not asked to shut down");
    nothing_happens(&lab, Duration::from_secs(8), || Ok(()))?;
    lab.steadfast(home, &["vm", "start", name])?;
    runs_on(&lab, name, home, Duration::from_secs(30))?;
    lab.wait_until_good()?;
    let other = lab.nodes().find(|node| *node != home).context("another node")?;
    lab.steadfast(home, &["vm", "relocate", name, &other.to_string()])?;
    let took = runs_on(&lab, name, other, Duration::from_secs(60))?;
    println!("operated: relocated after {} ms", took.as_millis());
    lab.wait_until_good()?;
    // It switches itself off: by default it is to run.
    lab.exec(other, "virsh", &["shutdown", name])?;
    wait::until("its new start", Duration::from_secs(30), || {
        Ok((starts(&lab, name) >= 4 && lab.homes(name).len() == 1).then_some(()))
    })?;
    lab.wait_until_good()?;
    lab.steadfast(other, &["vm", "enable", name, "--on-shutdown", "stop"])?;
    lab.exec(other, "virsh", &["shutdown", name])?;
    gone(&lab, name)?;
    nothing_happens(&lab, Duration::from_secs(8), || Ok(()))?;
    lab.steadfast(other, &["vm", "start", name])?;
    runs_on(&lab, name, other, Duration::from_secs(30))?;
    lab.wait_until_good()?;
    lab.check_single()
}

fn gone(lab: &Lab, name: &str) -> Result<()> {
    wait::until(&format!("end of {name}"), Duration::from_secs(90), || {
        Ok(lab.homes(name).is_empty().then_some(()))
    })
}

#[test]
fn while_disarmed_agents_may_stop_and_afterwards_everything_is_guarded_again() -> Result<()> {
    let lab = lab("disarm", Options::default())?;
    let leader = lab.wait_until_good()?;
    let disarmed = |status: &api::Status| status.nodes.iter().all(|node| node.status == "Disarmed");
    nothing_happens(&lab, Duration::from_secs(3), || {
        lab.steadfast(leader, &["disarm", "--reason", "the lab tries it"]).map(drop)
    })?;
    everybody_says(&lab, "disarming", disarmed)?;
    nothing_happens(&lab, Duration::from_secs(30), || {
        lab.nodes().try_for_each(|node| lab.kill_agent(node))
    })?;
    nothing_happens(&lab, Duration::from_secs(20), || {
        lab.nodes().try_for_each(|node| lab.start_agent(node))
    })?;
    lab.wait_for_leader()?;
    everybody_says(&lab, "agents that know of it", disarmed)?;
    nothing_happens(&lab, Duration::from_secs(15), || lab.steadfast(Node(1), &["arm"]).map(drop))?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(Role::Member, leader);
    lab.ensure_guest_on(victim)?;
    let failover = lab.failover(victim)?;
    println!("disarm: failover after arming {} ms", failover.ms);
    lab.check_single()
}
