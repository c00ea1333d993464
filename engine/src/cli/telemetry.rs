//! `steadfast node telemetry`: what this node's agent knows of its equipment.

use super::client::{Client, Failure};
use super::format::{age, table};
use super::{say, say_json};
use crate::telemetry::{PostedReport, SourceReport, State, TelemetryReport};
use std::fmt::Write as _;
use steadfast_core::time::Millis;

pub(super) async fn print(client: &Client, json: bool) -> Result<(), Failure> {
    let report: TelemetryReport = client.get("/v1/telemetry").await?;
    if json { say_json(&report) } else { say(&render(&report)) }
}

fn render(report: &TelemetryReport) -> String {
    let mut sources = table(&["SOURCE", "STATE", "AGE", "TOOK", "NOTE"]);
    for source in &report.sources {
        sources.add_row([
            source.name.clone(),
            words(source.state).into(),
            age(source.age_ms.map(Millis)),
            age(source.age_ms.map(|_| Millis(source.took_ms))),
            source.reason.clone(),
        ]);
    }
    let mut text = format!("{}\n", sources.trim_fmt());
    let _ = write!(text, "\n{}", readings(report));
    let _ = writeln!(text, "\n{}", risk(report));
    text
}

fn words(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Ok => "ok",
        State::Missing => "missing",
        State::TimedOut => "TIMED OUT",
        State::Failed => "FAILED",
        State::Off => "off",
    }
}

fn readings(report: &TelemetryReport) -> String {
    let mut table = table(&["READING", "VALUE", "AGE", "NOTE"]);
    let own = report.sources.iter().flat_map(|source: &SourceReport| &source.readings);
    for reading in own {
        let (value, age) = (reading.value.to_string(), age(Some(Millis(reading.age_ms))));
        table.add_row([reading.name.clone(), value, age, String::new()]);
    }
    for PostedReport { reading, reason, left_ms, .. } in &report.external {
        let (value, old) = (reading.value.to_string(), age(Some(Millis(reading.age_ms))));
        let left = format!("{} left", age(Some(Millis(*left_ms))));
        let note = if reason.is_empty() { left } else { format!("{reason} ({left})") };
        table.add_row([reading.name.clone(), value, old, note]);
    }
    match table.is_empty() {
        true => "nothing was read\n".into(),
        false => format!("{}\n", table.trim_fmt()),
    }
}

fn risk(report: &TelemetryReport) -> String {
    let Some(risk) = &report.risk else { return "the risk policy was not asked yet".into() };
    let (score, decider) = (&risk.assessed.score, &risk.assessed.decider);
    let terms: Vec<String> = score
        .terms
        .iter()
        .filter(|term| term.value != 0)
        .map(|term| format!("{} {:+}", term.name, term.value))
        .collect();
    let why = if terms.is_empty() { String::new() } else { format!(": {}", terms.join(", ")) };
    format!(
        "risk of {} is {} of 1000{why} (by {} {}, {} ago, from {} readings)",
        report.node,
        score.value,
        decider.name,
        decider.version,
        age(Some(Millis(risk.age_ms))),
        risk.readings
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Hub;
    use std::time::Duration;
    use steadfast_core::event::Decider;
    use steadfast_core::proactive::Assessed;
    use steadfast_sdk::wire::{Score, Term};

    #[test]
    fn a_table_shows_what_is_known_and_what_the_policy_makes_of_it() {
        let hub = Hub::default();
        hub.post("dcim", ("risk", 900), "PSU 2 predicts its end", Duration::from_secs(60))
            .expect("room");
        let term = |name: &'static str, value| Term { name: name.into(), value };
        let terms = [term("flaps", 0), term("external verdict", 900)].into();
        let decider = Decider { name: "risk".into(), version: "1".into(), ..Decider::default() };
        hub.assessed(Assessed { score: Score { value: 900, terms }, decider }, 1);
        let text = render(&hub.report("n1"));
        assert!(
            text.contains("external.dcim.risk  900") && text.contains("PSU 2 predicts"),
            "{text}"
        );
        let risk = "risk of n1 is 900 of 1000: external verdict +900 (by risk 1, 0.0 s ago, from 1 readings)";
        assert!(text.contains(risk), "{text}");
    }
}
