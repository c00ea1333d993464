//! `steadfast disarm` and `steadfast arm`.

use super::client::{Client, Failure};
use super::{say, say_json};
use crate::api::wire::{Disarm, Done};
use std::time::Duration;

pub(super) async fn disarm(
    client: &Client,
    limit: Option<Duration>,
    reason: &str,
    json: bool,
) -> Result<(), Failure> {
    let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let body = Disarm { limit_ms: limit.map(millis), reason: reason.into() };
    let done = client.post("/v1/disarm", &body).await?;
    let end = match limit {
        Some(limit) => format!("for {} s", limit.as_secs()),
        None => "until `steadfast arm`".into(),
    };
    tell(&done, &format!("high availability is off for the whole cluster, {end}"), json)
}

pub(super) async fn arm(client: &Client, json: bool) -> Result<(), Failure> {
    tell(&client.post("/v1/arm", &()).await?, "high availability is on again", json)
}

pub(super) fn tell(done: &Done, what: &str, json: bool) -> Result<(), Failure> {
    if json {
        return say_json(done);
    }
    let notes: String = done.notes.iter().map(|note| format!("  {note}\n")).collect();
    say(&format!("{what} (ledger {})\n{notes}", done.stamp))
}
