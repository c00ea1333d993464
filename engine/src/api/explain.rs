//! `GET /v1/decisions` and `GET /v1/explain/{name}`: what was decided, by whom, on which facts; also by nodes that are dead.

use super::errors::Refusal;
use super::read::{Limit, find_node, find_vm};
use super::wire::{DecisionReport, Explanation};
use crate::decisions::OfCluster;
use crate::driver::{Agent, Live};
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::snapshot::Snapshot;

type Shared = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// How long shared storage is waited for.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Decisions that are told when nobody says how many.
const LIMIT: usize = 100;
/// The same for an explanation.
const TOLD: usize = 12;

/// Whose decisions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// Those of this agent since it started.
    #[default]
    Node,
    /// Everybody's, those of dead nodes included.
    Cluster,
}

/// Filter of decisions.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    vm: Option<String>,
    node: Option<String>,
    limit: Option<Limit>,
    #[serde(default)]
    scope: Scope,
}

impl Wanted {
    fn wants(&self, report: &DecisionReport) -> bool {
        self.vm.as_deref().is_none_or(|name| is_vm(report, name))
            && self.node.as_deref().is_none_or(|name| report.node.as_deref() == Some(name))
    }
}

fn is_vm(report: &DecisionReport, name: &str) -> bool {
    report.vm.as_deref() == Some(name) || report.vm_id.as_ref().is_some_and(|id| id.0 == name)
}

pub(super) async fn decisions(
    State(agent): Shared,
    Query(wanted): Query<Wanted>,
) -> Answer<Vec<Arc<DecisionReport>>> {
    let (live, limit) = (agent.live()?, wanted.limit.map_or(LIMIT, usize::from));
    Ok(Json(match wanted.scope {
        Scope::Node => live.decisions.last(limit, |report| wanted.wants(report)),
        Scope::Cluster => {
            of_cluster(live, limit, move |report| wanted.wants(report)).await?.decisions
        }
    }))
}

/// The limit of an explanation.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Depth {
    limit: Option<Limit>,
}

pub(super) async fn explain(
    State(agent): Shared,
    Path(name): Path<String>,
    Query(depth): Query<Depth>,
) -> Answer<Explanation> {
    let live = agent.live()?;
    let snapshot = agent.snapshot().await?;
    live.decisions.learn(&snapshot);
    let vm = find_vm(&snapshot, &name).ok().cloned();
    // A VM that is called like a node is explained first: both names are the operator's choice.
    let node = find_node(&snapshot, &name).ok().filter(|_| vm.is_none()).cloned();
    let (asked, is_node) = (name.clone(), node.is_some());
    let about = move |report: &DecisionReport| match is_node {
        true => report.node.as_deref() == Some(asked.as_str()),
        false => report.id == asked || is_vm(report, &asked),
    };
    let limit = depth.limit.map_or(TOLD, usize::from);
    let OfCluster { decisions, notes } = of_cluster(Arc::clone(&live), limit, about).await?;
    if vm.is_none() && node.is_none() && decisions.is_empty() {
        return Err(nothing(&name, &snapshot));
    }
    let decisions = decisions.iter().map(|report| whole(&live, report)).collect();
    Ok(Json(Explanation { name, vm, node, decisions, notes }))
}

/// What this agent still knows in full, with the question to the policy.
fn whole(live: &Live, report: &Arc<DecisionReport>) -> DecisionReport {
    let own = live.decisions.last(1, |own| own.id == report.id);
    DecisionReport::clone(own.first().unwrap_or(report))
}

async fn of_cluster(
    live: Arc<Live>,
    limit: usize,
    wanted: impl Fn(&DecisionReport) -> bool + Send + 'static,
) -> Result<OfCluster, Refusal> {
    let read = move || live.decisions.last_of_cluster(limit, PATIENCE, wanted);
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Refusal::unavailable(error.to_string(), "report it"))
}

fn nothing(name: &str, snapshot: &Snapshot) -> Refusal {
    let nodes: Vec<&str> = snapshot.nodes.iter().map(|node| node.name.as_str()).collect();
    let remedy = format!(
        "nodes are {}; VMs: steadfast vm list; decisions: steadfast events",
        nodes.join(", ")
    );
    Refusal::not_found(format!("{name} is no HA VM, no node and no decision"), remedy)
}
