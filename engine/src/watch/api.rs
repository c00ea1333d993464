//! HA-watch's own API, and its page.

mod alarms;
mod clusters;
mod forward;
mod history;
mod live;
mod openapi;
mod page;
mod routes;

use super::Inner;
use super::access::admit;
use super::cluster::Cluster;
use crate::api::{Refusal, no_such_route, speak_plainly};
use crate::config::ApiUser;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get};
use std::sync::Arc;

#[cfg(test)]
pub(super) use openapi::document;

type Shared = axum::extract::State<Arc<Inner>>;
type Answer<T> = Result<axum::Json<T>, Refusal>;

/// A policy's module is the largest that is sent.
const MOST_BYTES: usize = 32 << 20;

pub(super) fn router(inner: Arc<Inner>) -> Router {
    let users: Arc<[ApiUser]> = inner.settings.access.users.clone().into();
    let mut router = Router::new()
        .route("/", get(page::front))
        .route("/assets/{*path}", get(page::asset))
        .route("/v1/clusters/{id}/agent/v1/{*path}", any(forward::forward));
    for (operation, handler) in routes::table() {
        router = router.route(operation.path, handler);
    }
    router
        .fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(from_fn_with_state(users, admit))
        .layer(from_fn(speak_plainly))
        .with_state(inner)
}

impl Inner {
    /// The cluster of this id.
    fn find(&self, id: &str) -> Result<&Arc<Cluster>, Refusal> {
        self.clusters.iter().find(|cluster| cluster.settings.id == id).ok_or_else(|| {
            let ids: Vec<&str> =
                self.clusters.iter().map(|cluster| cluster.settings.id.as_str()).collect();
            let remedy = format!("clusters are {}", ids.join(", "));
            Refusal::not_found(format!("no cluster {id} is followed"), remedy)
        })
    }
}
