//! `GET /v1/about` and `GET /v1/clusters`.

use super::{Answer, Shared};
use crate::watch::cluster::{AgentStatus, Cluster};
use crate::watch::health::{Health, health};
use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `GET /v1/about`.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct About {
    version: &'static str,
    started_wall_ms: u64,
    demo: bool,
}

pub(super) async fn about(State(inner): Shared) -> Json<About> {
    Json(About {
        version: env!("CARGO_PKG_VERSION"),
        started_wall_ms: inner.started_wall_ms,
        demo: inner.settings.demo,
    })
}

/// One item of `GET /v1/clusters`.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct Summary {
    id: String,
    name: String,
    connected: bool,
    via: Option<String>,
    agents: BTreeMap<String, AgentStatus>,
    #[serde(flatten)]
    health: Health,
}

pub(super) async fn all(State(inner): Shared) -> Answer<Vec<Summary>> {
    Ok(Json(inner.clusters.iter().map(|cluster| summary(cluster)).collect()))
}

fn summary(cluster: &Cluster) -> Summary {
    let own = cluster.own();
    let id = cluster.settings.id.clone();
    let (name, health) = cluster.board.look(|state| {
        let name = state.get("cluster").and_then(Value::as_str).map(Into::into);
        (name, health(state, own.connected))
    });
    Summary {
        name: name.unwrap_or_else(|| id.clone()),
        id,
        connected: own.connected,
        via: own.via,
        agents: cluster.agent_statuses(),
        health,
    }
}
