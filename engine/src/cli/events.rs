//! `steadfast events`.

use super::args::EventsArgs;
use super::client::{Client, Failure};
use super::live::Events;
use super::{format, say};
use crate::api::wire::DecisionReport;

/// How many decisions are looked through for those about one VM or node.
const MOST: usize = 10_000;

/// The past, then, if that was asked for, what comes.
pub(super) async fn print(client: &Client, args: &EventsArgs, json: bool) -> Result<(), Failure> {
    // Subscribed before the past is read, so that nothing falls between.
    let stream = match args.follow {
        true => Some(Events::open(client, "/v1/events").await?),
        false => None,
    };
    let looked_at = if args.about.is_some() { args.limit.max(MOST) } else { args.limit };
    let past = past(client, looked_at).await?;
    let wanted: Vec<_> = past.iter().filter(|report| is_wanted(report, args)).collect();
    for report in &wanted[wanted.len().saturating_sub(args.limit)..] {
        say(&line(report, json))?;
    }
    let Some(mut stream) = stream else { return Ok(()) };
    let last = past.last().map_or(0, |report| report.number);
    loop {
        let frame = stream.next().await?;
        let report: DecisionReport =
            serde_json::from_str(&frame.data).map_err(Failure::not_understood)?;
        if report.number > last && is_wanted(&report, args) {
            say(&line(&report, json))?;
        }
    }
}

/// The last decisions of this node's agent, the newest last.
pub(super) async fn past(client: &Client, limit: usize) -> Result<Vec<DecisionReport>, Failure> {
    client.get(&format!("/v1/decisions?limit={limit}")).await
}

fn is_wanted(report: &DecisionReport, args: &EventsArgs) -> bool {
    let names = [&report.node, &report.vm];
    let is_about = |name: &String| {
        names.iter().any(|known| known.as_ref() == Some(name))
            || report.vm_id.as_ref().is_some_and(|id| id.0 == **name)
    };
    args.about.as_ref().is_none_or(is_about)
}

fn line(report: &DecisionReport, json: bool) -> String {
    if json {
        return serde_json::to_string(report).unwrap_or_default() + "\n";
    }
    let [time, kind, node, vm, text] = columns(report);
    format!("{time}  {kind:<14} {node:<8} {vm:<10} {text}\n")
}

/// When, what kind, about which node and VM, and the sentence.
pub(super) fn columns(report: &DecisionReport) -> [String; 5] {
    let kind = serde_json::to_value(report.kind).unwrap_or_default();
    let [node, vm] = [&report.node, &report.vm].map(|name| name.clone().unwrap_or("-".into()));
    let kind = kind.as_str().unwrap_or("?").into();
    [format::utc(report.wall_ms), kind, node, vm, report.text.clone()]
}
