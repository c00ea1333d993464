//! Routes that change a node: maintenance, and whether it belongs to the cluster.

use super::change::{blocking, change, parse};
use super::errors::Refusal;
use super::read::find_node;
use super::wire::{AddNode, BeginMaintenance, Done};
use crate::driver::Agent;
use crate::pages::StoredNode;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steadfast_core::ids::NodeId;
use steadfast_core::message::Change;
use steadfast_core::snapshot::Snapshot;

/// A newcomer whose agent runs has read the ledger within this time.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(8);
const ASK_AGAIN: Duration = Duration::from_millis(500);

type Shared = State<Arc<Agent>>;
type Answer = Result<Json<Done>, Refusal>;

pub(super) async fn begin_maintenance(
    State(agent): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let BeginMaintenance { restart, reason } = parse(&body)?;
    alter(&agent, &name, |node| Change::BeginMaintenance { node, restart, reason }).await
}

pub(super) async fn end_maintenance(State(agent): Shared, Path(name): Path<String>) -> Answer {
    alter(&agent, &name, Change::EndMaintenance).await
}

pub(super) async fn remove(State(agent): Shared, Path(name): Path<String>) -> Answer {
    alter(&agent, &name, Change::RemoveNode).await
}

async fn alter(agent: &Agent, name: &str, wanted: impl FnOnce(NodeId) -> Change) -> Answer {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    let node = find_node(&snapshot, name)?.id;
    let stamp = change(&live, wanted(node)).await?;
    Ok(Json(Done { stamp: stamp.to_string(), notes: Vec::new() }))
}

/// The slot first: with it the newcomer's agent, which waits for it, reads the ledger and says so. Only then is it
/// configured, because whoever reads that reads its page from then on.
pub(super) async fn add(State(agent): Shared, body: Bytes) -> Answer {
    let AddNode { id, name } = parse(&body)?;
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    check_new(&snapshot, id, &name)?;
    let (node, worker) = (StoredNode { id: NodeId(id), name: name.clone() }, Arc::clone(&live));
    blocking(move || {
        worker.pages.add_node(&node).map_err(|error| {
            Refusal::unavailable(
                format!("{error:#}"),
                "see `steadfast status`: is storage working?",
            )
        })
    })
    .await?;
    let end = Instant::now() + NEWCOMER_PATIENCE;
    loop {
        let wanted = Change::AddNode { node: NodeId(id), name: name.clone() };
        match change(&live, wanted).await {
            Ok(stamp) => return Ok(Json(Done { stamp: stamp.to_string(), notes: Vec::new() })),
            Err(refusal) if refusal.is_stale() || Instant::now() >= end => return Err(refusal),
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}

/// Asking twice for the same node does no harm.
fn check_new(snapshot: &Snapshot, id: u32, name: &str) -> Result<(), Refusal> {
    if id == 0 || name.is_empty() {
        return Err(Refusal::malformed("a node has a corosync id from 1 and a name"));
    }
    let clash =
        |node: &&steadfast_core::snapshot::NodeView| (node.id == NodeId(id)) != (node.name == name);
    match snapshot.nodes.iter().find(clash) {
        None => Ok(()),
        Some(known) => {
            let why = format!("node {} is called {}", known.id, known.name);
            Err(Refusal::refused(why, "give the new node an id and a name that no node has"))
        }
    }
}
