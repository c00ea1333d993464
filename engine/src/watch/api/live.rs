//! `GET /v1/clusters/{id}/live`: the state and what happens, as server-sent events.

use super::Shared;
use crate::api::Refusal;
use crate::watch::board::Event;
use crate::watch::cluster::Cluster;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Something is said at least this often, so that a client notices when it is alone.
const BREATH: Duration = Duration::from_secs(1);

pub(super) async fn live(
    State(inner): Shared,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let cluster = Arc::clone(inner.find(&id)?);
    let (queue, events) = mpsc::channel(1);
    tokio::spawn(async move { serve(&cluster, &queue).await });
    let bytes = ReceiverStream::new(events)
        .map(|event: Event| Ok::<_, Infallible>(Bytes::from_owner(Shown(event))));
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// An event as bytes, shared by all clients.
struct Shown(Event);

impl AsRef<[u8]> for Shown {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// One client: a slow one keeps nobody waiting but itself.
async fn serve(cluster: &Cluster, queue: &mpsc::Sender<Event>) {
    let (mut next, mut events) = cluster.board.join();
    while queue.send(next).await.is_ok() {
        let received = tokio::select! {
            received = tokio::time::timeout(BREATH, events.recv()) => received,
            () = queue.closed() => return,
        };
        next = match received {
            Err(_) => Event::from(": nothing new\n\n"),
            Ok(Ok(event)) => event,
            Ok(Err(RecvError::Closed)) => return,
            Ok(Err(RecvError::Lagged(_))) => {
                let (whole, after) = cluster.board.join();
                events = after;
                whole
            }
        };
    }
}
