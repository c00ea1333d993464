//! What all routes share that ask the leader for a change.

use super::errors::Refusal;
use crate::driver::Live;
use axum::body::Bytes;
use serde::de::DeserializeOwned;
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::Stamp;
use steadfast_core::message::Change;

/// How long an operator waits for the leader; after it the outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(15);

/// The request's body. An empty one stands for one without fields.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let bytes: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(bytes).map_err(|error| Refusal::malformed(error.to_string()))
}

/// Asks the leader; the stamp that holds the change.
pub(super) async fn change(live: &Live, change: Change) -> Result<Stamp, Refusal> {
    let (id, told) = live.requests.begin();
    live.inbox.push(Event::ChangeRequested { id, change: Box::new(change) });
    let outcome = tokio::time::timeout(PATIENCE, told).await;
    live.requests.forget(id);
    match outcome {
        Ok(Ok(Ok(stamp))) => Ok(stamp),
        Ok(Ok(Err(why))) => Err(Refusal::refused(why, "see `steadfast status`")),
        Ok(Err(_)) | Err(_) => Err(Refusal::unknown()),
    }
}

/// Work that blocks, on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Refusal::unavailable(error.to_string(), "report it")))
}
