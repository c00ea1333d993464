//! Routes of a cluster that is being set up. They work while the agent still waits for its beginning, and only where its configuration lies
//! where `steadfast cluster` puts it.

use super::change::{blocking, parse};
use super::errors::Refusal;
use crate::driver::Agent;
use crate::setup::cluster::facts::{self, Facts};
use crate::setup::cluster::members::{self, Activated, NewCorosync, Taken};
use crate::setup::cluster::{activation, config_file};
use crate::setup::host::Host;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use std::path::Path;
use std::sync::Arc;

type Shared = State<Arc<Agent>>;

pub(super) async fn facts(State(agent): Shared) -> Result<Json<Facts>, Refusal> {
    let host = host(&agent)?;
    let live = agent.live().is_ok();
    blocking(move || Ok(Json(facts::facts(&host, &agent.config, live)))).await
}

pub(super) async fn corosync(State(agent): Shared, body: Bytes) -> Result<Json<Taken>, Refusal> {
    let new: NewCorosync = parse(&body)?;
    let host = host(&agent)?;
    blocking(move || {
        let taken = members::take(&host, &new);
        let remedy = "see /etc/corosync/corosync.conf on both nodes";
        taken.map(Json).map_err(|error| Refusal::refused(format!("{error:#}"), remedy))
    })
    .await
}

pub(super) async fn activate(State(agent): Shared) -> Result<Json<Activated>, Refusal> {
    let host = host(&agent)?;
    blocking(move || {
        let done = activation::activate(&host);
        let remedy = "is there room in /var/lib/steadfast?";
        done.map_err(|error| Refusal::unavailable(format!("{error:#}"), remedy))?;
        Ok(Json(Activated { active: true }))
    })
    .await
}

/// The machine of an agent that `steadfast cluster` has set up.
fn host(agent: &Agent) -> Result<Host, Refusal> {
    let refuse = || {
        let why = "this agent was not set up by `steadfast cluster`";
        Refusal::unavailable(why, format!("let it read {}", config_file::PATH))
    };
    let file = agent.config.file.as_deref().ok_or_else(refuse)?;
    let below = Path::new(config_file::PATH).strip_prefix("/").unwrap_or(Path::new(""));
    if !file.ends_with(below) {
        return Err(refuse());
    }
    let root = file.ancestors().nth(below.components().count()).ok_or_else(refuse)?;
    Ok(Host::new(root))
}
