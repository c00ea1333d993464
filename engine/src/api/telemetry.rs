//! Telemetry of this node's equipment, and what other systems (a DCIM) know of it: they post to the agent of the node that
//! they speak of. What they post has an end, so that a system that is gone does not speak for ever.

use super::change::parse;
use super::errors::Refusal;
use super::read::find_node;
use super::wire::{PostRisk, PostTelemetry, Posted};
use crate::driver::Agent;
use crate::telemetry::{Hub, TelemetryReport};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Under this name a source posts its verdict.
const RISK: &str = "risk";
/// The longest name of a source or a reading.
const LONGEST: usize = 64;
/// The longest words with a verdict.
const LONGEST_REASON: usize = 200;
/// What is posted lasts from a second to a week.
const TIMES_TO_LIVE: std::ops::RangeInclusive<u64> = 1_000..=604_800_000;

type Shared = State<Arc<Agent>>;
type Answer = Result<Json<Posted>, Refusal>;

/// Whose readings are withdrawn.
#[derive(Debug, Deserialize)]
pub(super) struct Whose {
    source: String,
    #[serde(default)]
    name: Option<String>,
}

pub(super) async fn report(State(agent): Shared) -> Result<Json<TelemetryReport>, Refusal> {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    Ok(Json(live.telemetry.report(&snapshot.node.name)))
}

pub(super) async fn post(State(agent): Shared, Path(node): Path<String>, body: Bytes) -> Answer {
    let hub = own_hub(&agent, &node).await?;
    let PostTelemetry { source, ttl_ms, readings } = parse(&body)?;
    let lasts = check(&source, ttl_ms)?;
    for reading in &readings {
        check_name(&reading.name)?;
        if reading.name == RISK {
            let why = format!("{RISK} is the name of a verdict");
            return Err(Refusal::refused(why, format!("post it to /v1/nodes/{node}/risk")));
        }
    }
    for reading in &readings {
        keep(&hub, &source, (&reading.name, reading.value), "", lasts)?;
    }
    Ok(Json(Posted { readings: readings.len() }))
}

pub(super) async fn post_risk(
    State(agent): Shared,
    Path(node): Path<String>,
    body: Bytes,
) -> Answer {
    let hub = own_hub(&agent, &node).await?;
    let PostRisk { source, ttl_ms, score, reason } = parse(&body)?;
    let lasts = check(&source, ttl_ms)?;
    if score > 1_000 {
        return Err(Refusal::malformed(format!("score is {score}; 0 (healthy) to 1000 (failing)")));
    }
    let reason: String = reason.chars().take(LONGEST_REASON).collect();
    keep(&hub, &source, (RISK, score.into()), &reason, lasts)?;
    tracing::info!(source, score, reason, "another system's verdict about this node");
    Ok(Json(Posted { readings: 1 }))
}

pub(super) async fn withdraw(
    State(agent): Shared,
    Path(node): Path<String>,
    Query(whose): Query<Whose>,
) -> Answer {
    let hub = own_hub(&agent, &node).await?;
    Ok(Json(Posted { readings: hub.withdraw(&whose.source, whose.name.as_deref()) }))
}

pub(super) async fn withdraw_risk(
    State(agent): Shared,
    Path(node): Path<String>,
    Query(whose): Query<Whose>,
) -> Answer {
    let hub = own_hub(&agent, &node).await?;
    Ok(Json(Posted { readings: hub.withdraw(&whose.source, Some(RISK)) }))
}

/// What is known of a node is kept by its own agent only.
async fn own_hub(agent: &Agent, node: &str) -> Result<Arc<Hub>, Refusal> {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    let own = &snapshot.node.name;
    if own == node {
        return Ok(Arc::clone(&live.telemetry));
    }
    find_node(&snapshot, node)?;
    Err(Refusal::refused(
        format!(
            "this is the agent of {own}; what is known of {node} is kept by the agent of {node}"
        ),
        format!("post it on {node}, to its agent's socket"),
    ))
}

fn keep(
    hub: &Hub,
    source: &str,
    reading: (&str, i64),
    reason: &str,
    lasts: Duration,
) -> Result<(), Refusal> {
    let full = |why| Refusal::refused(why, "withdraw some, or post fewer");
    hub.post(source, reading, reason, lasts).map_err(full)
}

fn check(source: &str, ttl_ms: u64) -> Result<Duration, Refusal> {
    check_name(source)?;
    if source.contains('.') {
        return Err(Refusal::malformed(format!("source is {source:?}; write it without dots")));
    }
    if !TIMES_TO_LIVE.contains(&ttl_ms) {
        let (least, most) = (TIMES_TO_LIVE.start(), TIMES_TO_LIVE.end());
        return Err(Refusal::malformed(format!("ttl_ms is {ttl_ms}; write {least} to {most}")));
    }
    Ok(Duration::from_millis(ttl_ms))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_word = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !word.is_empty() && word.chars().all(plain)
    };
    if name.len() <= LONGEST && name.split('.').all(is_word) {
        return Ok(());
    }
    Err(Refusal::malformed(format!(
        "{name:?} is no name: write words of letters, digits, _ and -, with dots between them, {LONGEST} \
         characters at most"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_with_dots_between_them() {
        for good in ["psu.2.failed", "inlet_c", "a-b"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_posted_has_an_end_and_a_source_of_one_word() {
        assert_eq!(check("dcim", 60_000), Ok(Duration::from_secs(60)));
        assert!(check("dcim", 0).is_err() && check("dcim", u64::MAX).is_err());
        assert!(check("dc.im", 60_000).is_err());
    }
}
