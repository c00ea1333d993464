//! Routes of the history: events, incidents, availability.

use super::{Answer, Shared};
use crate::api::Refusal;
use crate::clock::Clock;
use crate::watch::Inner;
use crate::watch::history::{Availability, EventsWanted, IncidentsWanted, incident as find};
use axum::Json;
use axum::extract::{Path, Query, State};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Availability of the last 30 days, when nobody says since when.
const SINCE_MS: u64 = 30 * 86_400_000;

pub(super) async fn events(
    State(inner): Shared,
    Path(id): Path<String>,
    Query(wanted): Query<EventsWanted>,
) -> Answer<Vec<Value>> {
    read(&inner, id, move |store, cluster| wanted.find(store, cluster)).await
}

pub(super) async fn incidents(
    State(inner): Shared,
    Path(id): Path<String>,
    Query(wanted): Query<IncidentsWanted>,
) -> Answer<Vec<Value>> {
    read(&inner, id, move |store, cluster| wanted.find(store, cluster)).await
}

pub(super) async fn incident(
    State(inner): Shared,
    Path((id, number)): Path<(String, i64)>,
) -> Answer<Value> {
    let Json(found) = read(&inner, id, move |store, cluster| find(store, cluster, number)).await?;
    found.map(Json).ok_or_else(|| {
        let remedy = "it may have been too old to be kept; see GET .../incidents";
        Refusal::not_found(format!("there is no incident {number}"), remedy)
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    since: Option<u64>,
}

pub(super) async fn availability(
    State(inner): Shared,
    Path(id): Path<String>,
    Query(Since { since }): Query<Since>,
) -> Answer<Availability> {
    let now = Clock.wall_ms();
    let since = since.unwrap_or_else(|| now.saturating_sub(SINCE_MS));
    read(&inner, id, move |store, cluster| Availability::of(store, cluster, since, now)).await
}

/// Reads the history of a cluster that exists.
async fn read<T: Send + 'static>(
    inner: &Arc<Inner>,
    id: String,
    read: impl FnOnce(&Connection, &str) -> rusqlite::Result<T> + Send + 'static,
) -> Answer<T> {
    inner.find(&id)?;
    let history = Arc::clone(&inner.history);
    let found = tokio::task::spawn_blocking(move || history.read(|store| read(store, &id))).await;
    let trouble = match found {
        Ok(Ok(found)) => return Ok(Json(found)),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Refusal::unavailable(
        format!("the history is not read: {trouble}"),
        "see the log of steadfast-watch",
    ))
}
