//! `GET /v1/alarms` and `POST /v1/alarms/{id}/acknowledge`.

use super::{Answer, Shared};
use crate::api::Refusal;
use crate::watch::access::Who;
use crate::watch::alarms::Alarm;
use axum::extract::{Path, State};
use axum::{Extension, Json};

/// Newest first.
pub(super) async fn all(State(inner): Shared) -> Answer<Vec<Alarm>> {
    Ok(Json(inner.alarms.all()))
}

pub(super) async fn acknowledge(
    State(inner): Shared,
    Path(id): Path<i64>,
    Extension(Who(name)): Extension<Who>,
) -> Answer<Alarm> {
    let alarm = inner.alarms.acknowledge(id, &name, &inner.clusters);
    alarm
        .map(Json)
        .ok_or_else(|| Refusal::not_found(format!("there is no alarm {id}"), "see GET /v1/alarms"))
}
