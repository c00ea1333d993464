//! What concerns all members: corosync's configuration, requirements, activation, leaving.

use super::super::JOINED;
use super::super::change;
use super::super::host::Host;
use super::super::journal::Journal;
use super::super::tell::Tell;
use super::agents::Agents;
use super::facts::{self, Facts};
use super::{Conf, Member, agents, corosync, invite};
use crate::doctor::Check;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// `POST /v1/setup/corosync`.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NewCorosync {
    /// The whole file.
    pub text: String,
    /// Take it; otherwise only say whether it could be taken.
    #[serde(default)]
    pub take: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Taken {
    /// Version of the file that is there now.
    pub version: u64,
}

/// Checks a new corosync.conf, and takes it if that is wanted.
///
/// # Errors
/// It is for another cluster, older than what is there, or without this node.
pub fn take(host: &Host, new: &NewCorosync) -> Result<Taken> {
    let (is, next) = (agents::conf(host)?, Conf::parse(&new.text)?);
    ensure!(
        is.cluster == next.cluster,
        "it is for cluster {:?}, this is {:?}",
        next.cluster,
        is.cluster
    );
    ensure!(
        next.version >= is.version,
        "it has version {}, here is {}: somebody else changes the cluster",
        next.version,
        is.version
    );
    ensure!(
        next.version > is.version || next == is,
        "version {} differs from this node's: somebody else changes the cluster",
        next.version
    );
    let own = agents::own(host, &is)?;
    ensure!(next.member(&own.name) == Some(own), "it does not have {} as it is here", own.name);
    if !new.take {
        return Ok(Taken { version: is.version });
    }
    if next != is {
        host.write(corosync::PATH, new.text.as_bytes(), 0o644)?;
    }
    Ok(Taken { version: next.version })
}

/// Brings `next` to all its members but `newcomer`: everybody must be able to take it before anybody does.
///
/// # Errors
/// Somebody cannot, or does not answer.
pub(super) fn spread(host: &Host, next: &Conf, newcomer: Option<&str>) -> Result<()> {
    let own = agents::own(host, next)?.name.clone();
    let others: Vec<&Member> = next
        .members
        .iter()
        .filter(|member| member.name != own && Some(member.name.as_str()) != newcomer)
        .collect();
    let agents = Agents::new(host)?;
    for take_it in [false, true] {
        let new = NewCorosync { text: next.render(), take: take_it };
        for member in &others {
            let _: Taken = agents.post(member, "/v1/setup/corosync", &new)?;
        }
        take(host, &new)?;
    }
    host.run("corosync-cfgtool", &["-R"])
        .context("corosync does not read its new configuration")?;
    Ok(())
}

/// What each node says of itself, or why it does not.
///
/// # Errors
/// This node is no member.
pub fn gather(host: &Host) -> Result<BTreeMap<String, Result<Facts, String>>> {
    let conf = agents::conf(host)?;
    let agents = Agents::new(host)?;
    let ask = |member: &Member| {
        let facts: Result<Facts> = agents.get(member, "/v1/setup/facts");
        facts.map_err(|error| format!("{error:#}"))
    };
    Ok(std::thread::scope(|scope| {
        let asked: Vec<_> = conf
            .members
            .iter()
            .map(|member| (member.name.clone(), scope.spawn(|| ask(member))))
            .collect();
        let told = asked.into_iter().map(|(name, asked)| {
            (name, asked.join().unwrap_or_else(|_| Err("asking it panicked".into())))
        });
        told.collect()
    }))
}

/// All requirement checks on all nodes: a fresh token is written first, for everybody to read.
///
/// # Errors
/// This node is no member.
pub fn requirements(host: &Host) -> Result<Vec<Check>> {
    let config = invite::read_config(host)?;
    let token = facts::write_token(&config.storage);
    let mut checks = facts::compare(&gather(host)?);
    if let Err(error) = token {
        let remedy = "see the storage's mount on this node";
        checks.push(Check::red("token on shared storage", format!("{error:#}"), remedy));
    }
    Ok(checks)
}

/// Lets every agent begin.
///
/// # Errors
/// One does not answer: a repeat goes on there.
pub fn activate(host: &Host, tell: &mut Tell) -> Result<()> {
    let conf = agents::conf(host)?;
    let agents = Agents::new(host)?;
    for member in &conf.members {
        tell.doing(&format!("{} begins", member.name));
        let _: Activated = agents.post(member, "/v1/setup/activate", &())?;
    }
    Ok(())
}

/// `POST /v1/setup/activate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Activated {
    /// It is.
    pub active: bool,
}

/// Empties a node, takes it out of the ledger, and out of everybody's corosync.conf.
///
/// # Errors
/// A step failed: a repeat goes on there.
pub fn remove_node(host: &Host, name: &str, limit: Duration, tell: &mut Tell) -> Result<()> {
    let conf = agents::conf(host)?;
    let own = agents::own(host, &conf)?;
    ensure!(own.name != name, "run this on a node that stays");
    ensure!(
        super::activation::is_active(host),
        "the cluster is not active yet: activate it first (its store already counts {name} as a node)"
    );
    let next = conf.without(name)?;
    let agents = Agents::new(host)?;
    tell.begin("remove", "its VMs move away, then nobody counts it any more");
    tell.doing(&format!("{name} leaves the ledger"));
    if is_in_ledger(&agents, own, name)? {
        let path = format!("/v1/nodes/{name}");
        let _: serde_json::Value = agents.ask_to_delete(own, &path)?;
    }
    let end = Instant::now() + limit;
    while is_in_ledger(&agents, own, name)? {
        if Instant::now() >= end {
            bail!("{name} is still being emptied, see `steadfast status`; repeat this later");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    tell.doing("all others learn of it");
    spread(host, &next, None)
}

fn is_in_ledger(agents: &Agents, own: &Member, name: &str) -> Result<bool> {
    let nodes: Vec<steadfast_core::snapshot::NodeView> = agents.get(own, "/v1/nodes")?;
    Ok(nodes.iter().any(|node| node.name == name))
}

/// This node forgets its cluster: its keys and configuration go, and what was there before comes back.
///
/// # Errors
/// Guests run here, or something cannot be put back: a repeat goes on there.
pub fn leave(host: &Host, tell: impl FnMut(&str)) -> Result<bool> {
    let journal = Journal::open(host, JOINED)?;
    if journal.is_empty() {
        return Ok(false);
    }
    let guests = host.ask("virsh", &["list", "--name"]).out;
    let running: Vec<&str> =
        guests.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    ensure!(
        running.is_empty(),
        "guests run here: {}; move them away, or shut them down",
        running.join(", ")
    );
    change::undo(host, journal, tell)?;
    Ok(true)
}
