//! What all routes share that ask the leader for a change.

use super::errors::Refusal;
use super::subject::{Subject, matches, tag};
use crate::driver::{Agent, Live, Outcome};
use axum::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::Stamp;
use steadfast_core::message::{Change, STALE};

/// How long an operator waits for the leader; after it the outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a change is asked for whose subject is as it was while other things change.
const TRIES: u32 = 20;
/// This agent reads what was committed a moment after the leader.
const BREATH: Duration = Duration::from_millis(100);

/// The request's body: an object. An empty one stands for one without fields.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::malformed(error.to_string());
    let bytes: &[u8] = if body.is_empty() { b"{}" } else { body };
    let mut value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    if !value.is_object() {
        // Serde alone would take a list of its fields' values.
        return Err(Refusal::malformed("the body is not an object, as in {\"name\": …}"));
    }
    write_whole(&mut value);
    serde_json::from_value(value).map_err(malformed)
}

/// 7.0 is the integer 7 for JSON Schema, so it is for us.
fn write_whole(value: &mut Value) {
    /// Up to this each integer has a number of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|it| number.is_f64() && it.fract() == 0.0);
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and below 2^53")]
            if let Some(whole) = float.filter(|it| it.abs() <= EXACT) {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole),
        Value::Object(map) => map.values_mut().for_each(write_whole),
        _ => {}
    }
}

/// What must still be so when the leader makes the change: what `if-match` says.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) agent: Arc<Agent>,
    pub(super) subject: Subject,
    pub(super) name: String,
    pub(super) wanted: String,
}

tokio::task_local! {
    /// The condition of the request that this task serves.
    pub(super) static CONDITION: Condition;
}

impl Condition {
    /// The ledger in which it holds, if it does.
    async fn holds(&self) -> Result<Stamp, Refusal> {
        let snapshot = self.agent.snapshot().await?;
        let seen = self.subject.find(&self.agent, &snapshot, &self.name);
        let tag = seen.as_ref().map(tag);
        if matches(&self.wanted, tag.as_deref()) {
            return Ok(snapshot.ledger.stamp);
        }
        Err(Refusal::stale(&self.wanted, tag.as_deref()))
    }
}

/// Asks the leader; the stamp that holds the change.
pub(super) async fn change(live: &Live, change: Change) -> Result<Stamp, Refusal> {
    match CONDITION.try_with(Clone::clone) {
        Ok(condition) => change_if(live, &condition, change).await,
        Err(_) => ask(live, change).await?.map_err(refused),
    }
}

/// The leader makes it only in the ledger that was looked at. If something else was committed meanwhile, this looks again.
async fn change_if(live: &Live, condition: &Condition, change: Change) -> Result<Stamp, Refusal> {
    for _ in 0..TRIES {
        let change = Box::new(change.clone());
        let stamp = condition.holds().await?;
        match ask(live, Change::AsOf { stamp, change }).await? {
            Err(why) if why == STALE => tokio::time::sleep(BREATH).await,
            outcome => return outcome.map_err(refused),
        }
    }
    let why = format!("something else was committed {TRIES} times meanwhile");
    Err(Refusal::unavailable(why, "ask again in a few seconds"))
}

fn refused(why: String) -> Refusal {
    Refusal::refused(why, "see `steadfast status`")
}

async fn ask(live: &Live, change: Change) -> Result<Outcome, Refusal> {
    let (id, told) = live.requests.begin();
    live.inbox.push(Event::ChangeRequested { id, change: Box::new(change) });
    let outcome = tokio::time::timeout(PATIENCE, told).await;
    live.requests.forget(id);
    outcome.ok().and_then(Result::ok).ok_or_else(Refusal::unknown)
}

/// Work that blocks, on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Refusal::unavailable(error.to_string(), "report it")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{CheckSettings, PostTelemetry, SetPriority};

    fn parsed<T: DeserializeOwned>(text: &'static str) -> Option<T> {
        parse(&Bytes::from_static(text.as_bytes())).ok()
    }

    #[test]
    fn a_list_of_values_is_no_object_at_any_depth() {
        assert!(parsed::<SetPriority>("[7]").is_none());
        assert!(parsed::<CheckSettings>(r#"{"timing": [null, 7]}"#).is_none());
        assert!(parsed::<CheckSettings>(r#"{"timing": null}"#).is_none());
        assert!(parsed::<CheckSettings>(r#"{"timing": {"lease_ms": 7}}"#).is_some());
        let post = r#"{"source": "s", "ttl_ms": 1000, "readings": [["a", 1]]}"#;
        assert!(parsed::<PostTelemetry>(post).is_none());
        let post = r#"{"source": "s", "ttl_ms": 1000, "readings": [{"name": "a", "value": 1}]}"#;
        assert!(parsed::<PostTelemetry>(post).is_some());
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_fraction() {
        let priority = |text| parsed::<SetPriority>(text).map(|it| it.priority);
        assert_eq!(priority(r#"{"priority": 393.0}"#), Some(393));
        assert_eq!(priority(r#"{"priority": 393.5}"#), None);
        assert_eq!(priority(r#"{"priority": 1e300}"#), None);
    }
}
