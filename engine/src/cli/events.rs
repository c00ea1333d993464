//! `steadfast events` and `steadfast watch`.

use super::client::{Client, Failure};
use super::{format, say, status};
use crate::api::wire::DecisionReport;
use anyhow::anyhow;
use http_body_util::BodyExt;
use std::time::Duration;

/// How often `watch` draws.
const REDRAW: Duration = Duration::from_secs(1);
/// Decisions below the tables of `watch`.
const WATCHED: usize = 12;

/// The past, then, with `follow`, what comes.
pub(super) async fn print(client: &Client, follow: bool, json: bool) -> Result<(), Failure> {
    // Subscribed before the past is read, so that nothing falls between.
    let stream = if follow { Some(client.open("/v1/events").await?) } else { None };
    let past: Vec<DecisionReport> = client.get("/v1/decisions?limit=100").await?;
    for report in &past {
        say(&line(report, json))?;
    }
    let Some(mut stream) = stream else { return Ok(()) };
    let last = past.last().map_or(0, |report| report.number);
    let mut lines = Lines::default();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| Failure::Other(error.into()))?;
        for data in lines.feed(frame.data_ref().map_or(&[][..], |bytes| bytes)) {
            let report: DecisionReport =
                serde_json::from_str(&data).map_err(|error| Failure::Other(error.into()))?;
            if report.number > last {
                say(&line(&report, json))?;
            }
        }
    }
    Err(Failure::Other(anyhow!("steadfastd ended; ask again when it is back")))
}

/// Cuts a stream of server-sent events into the values of its `data:` lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return vec![] };
        let complete: Vec<u8> = self.0.drain(..=end).collect();
        let text = String::from_utf8_lossy(&complete).into_owned();
        text.lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.trim().into())
            .collect()
    }
}

fn line(report: &DecisionReport, json: bool) -> String {
    if json {
        return serde_json::to_string(report).unwrap_or_default() + "\n";
    }
    brief(report)
}

/// One decision on one line.
pub(super) fn brief(report: &DecisionReport) -> String {
    let time = format::utc(report.wall_ms);
    let kind = serde_json::to_value(report.kind).unwrap_or_default();
    let about = [&report.node, &report.vm].map(|name| name.as_deref().unwrap_or("-"));
    let kind = kind.as_str().unwrap_or("?");
    format!("{time}  {kind:<14} {:<8} {:<10} {}\n", about[0], about[1], report.text)
}

/// Draws until it is interrupted. An agent that goes away is waited for.
pub(super) async fn watch(client: &Client) -> Result<(), Failure> {
    loop {
        let screen = match screen(client).await {
            Ok(screen) => screen,
            Err(Failure::Other(error)) => return Err(Failure::Other(error)),
            Err(failure) => format!("{failure}\n"),
        };
        say(&format!("\x1b[H\x1b[2J{screen}"))?;
        tokio::time::sleep(REDRAW).await;
    }
}

async fn screen(client: &Client) -> Result<String, Failure> {
    let report = client.status().await?;
    let path = format!("/v1/decisions?limit={WATCHED}");
    let decisions: Vec<DecisionReport> = client.get(&path).await?;
    let events: String = decisions.iter().map(brief).collect();
    Ok(format!("{} UTC\n{}\n{events}", format::utc(report.wall_ms), status::render(&report)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_frames_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"id: 1\ndata: {\"a\""), Vec::<String>::new());
        assert_eq!(lines.feed(b":1}\n\n: comment\ndata: 2\n"), ["{\"a\":1}", "2"]);
    }
}
