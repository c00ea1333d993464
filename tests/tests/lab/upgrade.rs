//! Agents are replaced under running guests, and two releases share a cluster meanwhile.
//!
//! The older release is this build, held at feature level 0 by its configuration; or, if `STEADFAST_LAB_OLDER` names the folder
//! of another build's programs, that one.

use super::operators::everybody_says;
use super::{lab, lab_of, nothing_happens, programs};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::Duration;
use steadfast_lab::api;
use steadfast_lab::failover::Role;
use steadfast_lab::lab::{Lab, Node, Options};

#[test]
fn agents_are_upgraded_in_place_and_no_guest_notices() -> Result<()> {
    let lab = lab("upgrade", Options::default())?;
    for node in lab.nodes() {
        nothing_happens(&lab, Duration::from_secs(10), || {
            lab.stop_agent(node)?;
            lab.start_agent(node)
        })?;
        lab.wait_until_good()?;
    }
    lab.check_single()
}

/// `newer` is the same lab with the programs and the configuration that are new.
fn upgrade(newer: &Lab, node: Node) -> Result<()> {
    nothing_happens(newer, Duration::from_secs(10), || {
        newer.stop_agent(node)?;
        newer.configure_agent(node)?;
        newer.start_agent(node)
    })?;
    newer.wait_until_good().map(drop)
}

#[test]
fn a_rolling_upgrade_uses_what_is_new_when_the_last_node_has_it_and_fails_over_meanwhile()
-> Result<()> {
    let older = std::env::var_os("STEADFAST_LAB_OLDER").map_or_else(programs, PathBuf::from);
    let lab = lab_of(older, "rolling", Options { feature_level: Some(0), ..Options::default() })?;
    let leader = lab.wait_until_good()?;
    let (first, last) = (lab.victim(Role::Member, leader), leader);
    let second = lab.nodes().find(|node| ![first, last].contains(node)).expect("three nodes");
    let options = Options { feature_level: None, ..lab.options.clone() };
    let newer = Lab { options, programs: programs(), ..lab.0.clone() };
    upgrade(&newer, first)?;
    let refused = newer.steadfast(first, &["vm", "priority", "web", "700"]);
    let words = format!("{:#}", refused.expect_err("the leader is older"));
    ensure!(words.contains("feature level 0"), "{words}");
    // In the middle of it the newer node dies; the older leader recovers its guests.
    lab.ensure_guest_on(first)?;
    let failover = lab.failover(first)?;
    println!("rolling: failover of the upgraded node by the older leader {} ms", failover.ms);
    newer.boot(first)?;
    lab.wait_until_good()?;
    upgrade(&newer, second)?;
    ensure!(api::status(&lab, second)?.feature_level == 0, "{last} is not upgraded yet");
    upgrade(&newer, last)?;
    everybody_says(&lab, "the new feature level", |status| status.feature_level == 1)?;
    newer.steadfast(first, &["vm", "priority", "web", "700"])?;
    lab.check_single()
}
