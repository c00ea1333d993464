//! Routes that only look.

use super::errors::Refusal;
use super::wire::{BeatReport, Disarmed, StatusReport};
use crate::clock::Clock;
use crate::config::{assumed, bounds};
use crate::driver::Agent;
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use std::sync::Arc;
use steadfast_core::snapshot::{ElectionView, NodeView, Snapshot, VmView};

type Shared = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// How many of something, at most, as a query says it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "usize")]
pub(super) struct Limit(usize);

impl Limit {
    /// More than this is a mistake.
    pub(super) const MOST: usize = 1_000_000;
}

impl TryFrom<usize> for Limit {
    type Error = String;

    fn try_from(asked: usize) -> Result<Self, String> {
        let most = Self::MOST;
        (asked <= most).then_some(Self(asked)).ok_or(format!("limit is {asked}, at most {most}"))
    }
}

impl From<Limit> for usize {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

pub(super) async fn status(State(agent): Shared) -> Answer<StatusReport> {
    let live = agent.live()?;
    let snapshot = agent.snapshot().await?;
    Ok(Json(StatusReport {
        version: env!("CARGO_PKG_VERSION").into(),
        wall_ms: Clock.wall_ms(),
        bounds: bounds(&live.timing, &assumed(&agent.config)),
        warnings: agent.warnings(),
        beats: BeatReport {
            interval_ms: live.timing.beat.0,
            longest_gap_ms: live.gaps.ever().0,
            longest_gap_lately_ms: live.gaps.lately().0,
        },
        snapshot: Snapshot::clone(&snapshot),
    }))
}

pub(super) async fn nodes(State(agent): Shared) -> Answer<Vec<NodeView>> {
    Ok(Json(agent.snapshot().await?.nodes.clone()))
}

pub(super) async fn node(State(agent): Shared, Path(name): Path<String>) -> Answer<NodeView> {
    find_node(&*agent.snapshot().await?, &name).cloned().map(Json)
}

pub(super) async fn disarm(State(agent): Shared) -> Answer<Disarmed> {
    Ok(Json(Disarmed { disarm: agent.snapshot().await?.disarm.clone() }))
}

pub(super) async fn vms(State(agent): Shared) -> Answer<Vec<VmView>> {
    Ok(Json(agent.snapshot().await?.vms.clone()))
}

pub(super) async fn vm(State(agent): Shared, Path(name): Path<String>) -> Answer<VmView> {
    find_vm(&*agent.snapshot().await?, &name).cloned().map(Json)
}

pub(super) async fn election(State(agent): Shared) -> Answer<ElectionView> {
    Ok(Json(agent.snapshot().await?.election.clone()))
}

/// A VM by name or UUID.
pub(super) fn find_vm<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a VmView, Refusal> {
    let found = snapshot.vms.iter().find(|vm| vm.name == name || vm.id.0 == name);
    found.ok_or_else(|| {
        let remedy = format!("see `steadfast vm list`, or enable it: `steadfast vm enable {name}`");
        Refusal::not_found(format!("no HA VM is called {name}"), remedy)
    })
}

/// A node by name.
pub(super) fn find_node<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a NodeView, Refusal> {
    let found = snapshot.nodes.iter().find(|node| node.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = snapshot.nodes.iter().map(|node| node.name.as_str()).collect();
        let remedy = format!("the nodes are {}", names.join(", "));
        Refusal::not_found(format!("no node is called {name}"), remedy)
    })
}
