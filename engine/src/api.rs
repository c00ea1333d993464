//! The agent's HTTP API on a unix socket (mode 0600: root only).

mod change;
mod cluster;
mod doctor;
mod errors;
mod events;
mod explain;
mod nodes;
mod policies;
mod read;
mod telemetry;
mod vms;
pub mod wire;

use crate::driver::Agent;
use anyhow::{Context, Result};
use axum::Router;
use axum::routing::{delete, get, post};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;

pub use errors::Refusal;

/// Listens on `path`, replacing what a dead agent left there. The socket shows up only once it is private.
///
/// # Errors
/// The directory cannot be written.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let describe = || format!("cannot listen on {}: is its directory writable?", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(describe)?;
    }
    let hidden = path.with_extension("new");
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).with_context(describe)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))
        .with_context(describe)?;
    std::fs::rename(&hidden, path).with_context(describe)?;
    Ok(listener)
}

/// Serves the API for as long as the process lives.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>) -> Result<()> {
    axum::serve(listener, router(agent)).await.context("the API ended")
}

fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/v1/status", get(read::status))
        .route("/v1/nodes", get(read::nodes).post(nodes::add))
        .route("/v1/nodes/{name}", delete(nodes::remove))
        .route(
            "/v1/nodes/{name}/maintenance",
            post(nodes::begin_maintenance).delete(nodes::end_maintenance),
        )
        .route("/v1/telemetry", get(telemetry::report))
        .route("/v1/nodes/{name}/telemetry", post(telemetry::post).delete(telemetry::withdraw))
        .route("/v1/nodes/{name}/risk", post(telemetry::post_risk).delete(telemetry::withdraw_risk))
        .route("/v1/disarm", post(cluster::disarm))
        .route("/v1/arm", post(cluster::arm))
        .route("/v1/vms", get(read::vms).post(vms::enable))
        .route("/v1/vms/{name}", get(read::vm).delete(vms::disable))
        .route("/v1/vms/{name}/start", post(vms::start))
        .route("/v1/vms/{name}/stop", post(vms::stop))
        .route("/v1/vms/{name}/migrate", post(vms::migrate))
        .route("/v1/vms/{name}/relocate", post(vms::relocate))
        .route("/v1/election", get(read::election))
        .route("/v1/doctor", get(doctor::doctor))
        .route("/v1/policies", get(policies::all))
        .route("/v1/policies/{kind}", get(policies::one))
        .route(
            "/v1/policies/{kind}/rollback",
            post(policies::roll_back).delete(policies::undo_roll_back),
        )
        .route("/v1/policies/{kind}/evaluate", post(policies::evaluate))
        .route("/v1/decisions", get(explain::decisions))
        .route("/v1/explain/{name}", get(explain::explain))
        .route("/v1/events", get(events::stream))
        .fallback(errors::no_such_route)
        .with_state(agent)
}
