//! Routes that change the whole cluster: high availability off and on for everybody.

use super::change::{change, parse};
use super::errors::Refusal;
use super::wire::{Disarm, Done};
use crate::driver::Agent;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use std::sync::Arc;
use steadfast_core::message::Change;
use steadfast_core::time::Millis;

/// HA is not switched off by a clock for longer than a year.
const LONGEST_MS: u64 = 31_536_000_000;

type Shared = State<Arc<Agent>>;
type Answer = Result<Json<Done>, Refusal>;

pub(super) async fn disarm(State(agent): Shared, body: Bytes) -> Answer {
    let Disarm { limit_ms, reason } = parse(&body)?;
    if reason.trim().is_empty() {
        return Err(Refusal::malformed("say why: \"reason\" is empty"));
    }
    if let Some(ms) = limit_ms.filter(|ms| !(1..=LONGEST_MS).contains(ms)) {
        let why = format!("\"limit_ms\" is {ms}: leave it out, or write 1 to {LONGEST_MS}");
        return Err(Refusal::malformed(why));
    }
    let live = agent.live()?;
    let stamp = change(&live, Change::Disarm { limit: limit_ms.map(Millis), reason }).await?;
    Ok(Json(Done { stamp: stamp.to_string(), notes: Vec::new() }))
}

pub(super) async fn arm(State(agent): Shared) -> Answer {
    let stamp = change(&*agent.live()?, Change::Arm).await?;
    Ok(Json(Done { stamp: stamp.to_string(), notes: Vec::new() }))
}
