//! `GET /v1/doctor`: is this node set up so that the promises hold? Answered even while the agent waits for something.

use super::errors::Refusal;
use crate::doctor::{Facts, Report};
use crate::driver::Agent;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

pub(super) async fn doctor(State(agent): State<Arc<Agent>>) -> Result<Json<Report>, Refusal> {
    let snapshot = agent.snapshot().await;
    let work = move || {
        let ready = agent.live().and_then(|live| Ok((live, snapshot?)));
        match ready {
            Ok((live, snapshot)) => {
                let facts = Facts {
                    timing: live.timing.clone(),
                    read_back: live.read_back.as_ref().and_then(|said| said.get()),
                    storage: agent.config.storage.to_string(),
                    warnings: agent.warnings_by_finder(),
                };
                Report::live(&agent.config, &snapshot, &facts)
            }
            Err(refusal) => Report::waiting(&agent.config, refusal.detail(), refusal.remedy()),
        }
    };
    // It reads files: never on the threads that serve.
    let told = tokio::task::spawn_blocking(work).await;
    told.map(Json).map_err(|error| Refusal::unavailable(error.to_string(), "report it"))
}
