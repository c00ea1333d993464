//! Clusters that grow and shrink, and the smallest one.

use super::operators::{everybody_says, runs_on};
use super::{Watch, ha_guests_on, lab, runs_elsewhere, without_fence_agent};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use steadfast_lab::failover::Role;
use steadfast_lab::lab::Options;
use steadfast_lab::wait;

#[test]
fn a_node_is_added_used_emptied_and_removed_without_a_restart() -> Result<()> {
    let mut lab = lab("grown", Options::default())?;
    lab.wait_until_good()?;
    let agents: Vec<_> = lab.nodes().flat_map(|node| lab.named(node, "steadfastd")).collect();
    let node = lab.0.add_node()?;
    let (name, home) = ("web", lab.homes("web")[0].node);
    lab.steadfast(home, &["node", "add", &format!("{}={node}", node.0)])?;
    lab.wait_until_good()?;
    // It is a member a moment before it has measured how much room it has.
    let migrate = ["vm", "migrate", name, &node.to_string()];
    wait::until("room on the new node", Duration::from_secs(15), || {
        Ok(lab.steadfast(home, &migrate).ok())
    })?;
    let took = runs_on(&lab, name, node, Duration::from_secs(60))?;
    println!("grown: {name} on the new node after {} ms", took.as_millis());
    lab.wait_until_good()?;
    lab.steadfast(home, &["node", "remove", &node.to_string()])?;
    let took = runs_elsewhere(&lab, name, node, Duration::from_secs(60))?;
    println!("grown: {name} off it after {} ms", took.as_millis());
    everybody_says(&lab, "removal of the node", |status| {
        status.node.as_ref().is_some_and(|own| own.name == node.to_string())
            || status.nodes.len() == 3
    })?;
    lab.0.remove_node()?;
    lab.wait_until_good()?;
    ensure!(agents.iter().all(|agent| agent.is_alive()), "an agent was restarted");
    lab.check_single()
}

/// Two nodes: half of them is all that is left.
fn last_of_two(name: &str, role: Role, options: Options, limit_ms: u64) -> Result<()> {
    let lab = lab(name, Options { nodes: 2, ..options })?;
    let leader = lab.wait_until_good()?;
    let victim = lab.victim(role, leader);
    lab.ensure_guest_on(victim)?;
    let bystander = lab.bystander().context("the guest without HA runs")?;
    let watch = Watch::begin(&lab);
    let failover = lab.failover(victim)?;
    println!("{name}: {} ms, {:?}", failover.ms, failover.milestones);
    ensure!(failover.ms <= limit_ms, "took {} ms, limit {limit_ms} ms", failover.ms);
    lab.check_single()?;
    lab.check_bystander(&bystander, bystander.node == victim)?;
    watch.end()?;
    lab.boot(victim)?;
    lab.wait_until_good()?;
    ensure!(!ha_guests_on(&lab, leader).is_empty() || role == Role::Leader, "nothing runs");
    lab.check_single()
}

#[test]
fn of_two_nodes_the_leader_takes_over_from_a_dead_member() -> Result<()> {
    last_of_two("two-member", Role::Member, Options::default(), 12_000)
}

#[test]
fn of_two_nodes_the_member_takes_over_from_a_dead_leader() -> Result<()> {
    last_of_two("two-leader", Role::Leader, Options::default(), 16_000)
}

#[test]
fn of_two_nodes_without_a_fence_agent_time_proves_the_dead_one() -> Result<()> {
    last_of_two("two-time", Role::Member, without_fence_agent(), 20_000)
}
