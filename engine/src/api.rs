//! The agent's HTTP API: on a unix socket (mode 0600: root only) and, where the configuration says so, over TLS.
//!
//! `routes.rs` has every operation; each request passes its gate (`gate.rs`).

mod audit;
mod callers;
mod change;
mod cluster;
mod doctor;
mod errors;
mod events;
mod explain;
mod gate;
mod live;
mod metrics;
mod nodes;
mod openapi;
mod plan;
mod policies;
mod read;
mod reception;
mod routes;
mod settings;
mod setup;
mod subject;
mod telemetry;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod upload;
mod vms;
pub mod wire;

use crate::driver::Agent;
use anyhow::{Context, Result, ensure};
use axum::Extension;
use axum::extract::ConnectInfo;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};

pub(crate) use callers::{Caller, identify, is_foreign};
pub use callers::{Peer, Role};
pub use errors::Refusal;
pub(crate) use errors::no_such_route;
pub(crate) use gate::speak_plainly;
pub(crate) use live::Feed;
pub(crate) use openapi::bound;
pub(crate) use reception::Reception;
pub(crate) use routes::role_needed;
pub(crate) use tls::TlsListener;

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

/// Serves root on this machine for as long as the process lives.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: UnixListener, agent: Arc<Agent>) -> Result<()> {
    metrics::begin(&agent);
    let router = routes::router(&agent).layer(Extension(ConnectInfo(Peer::Unix)));
    axum::serve(listener, router).await.context("the API ended")
}

/// Serves whoever is on this machine: for `steadfast demo`, where nothing is at stake. Pages of other sites are kept out.
///
/// # Errors
/// The listener failed, or others than this machine could reach it.
pub async fn serve_loopback(listener: TcpListener, agent: Arc<Agent>) -> Result<()> {
    let address = listener.local_addr().context("no address")?;
    ensure!(address.ip().is_loopback(), "{address} is no loopback address");
    metrics::begin(&agent);
    let router = routes::router(&agent).layer(Extension(ConnectInfo(Peer::Loopback)));
    axum::serve(listener, router).await.context("the API ended")
}

/// Serves over TLS whom the configuration names, if it says so. Returns at once if it does not.
///
/// # Errors
/// The certificate, its key or the address are not good.
pub async fn serve_tls(agent: Arc<Agent>) -> Result<()> {
    let Some(listener) = tls::TlsListener::start(&agent.config.api).await? else { return Ok(()) };
    let service = routes::router(&agent).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).await.context("the API over TLS ended")
}
