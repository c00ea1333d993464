//! Telemetry: is there a source that used to say something and does not any more?

use super::Check;
use crate::telemetry::{SourceReport, State, TelemetryReport};

/// So many of its intervals without news are too many.
const LATE: u64 = 4;
const NAME: &str = "telemetry";

/// One check of all sources.
pub(crate) fn check(report: &TelemetryReport) -> Check {
    let silent: Vec<String> = report.sources.iter().filter_map(silence).collect();
    let heard = report.sources.iter().filter(|source| source.state == State::Ok).count();
    if silent.is_empty() {
        return Check::green(NAME, format!("{heard} sources are read, none is silent"));
    }
    let remedy = "the risk policy judges this node without it; see `steadfast node telemetry`, or \
                  switch it off in [telemetry]";
    Check::yellow(NAME, format!("{heard} sources are read; {}", silent.join(", ")), remedy)
}

fn silence(source: &SourceReport) -> Option<String> {
    let SourceReport { name, state, reason, age_ms, interval_ms, .. } = source;
    match state {
        State::TimedOut | State::Failed => Some(format!("{name}: {reason}")),
        State::Ok | State::Missing => {
            let age = age_ms.filter(|age| *age > interval_ms.saturating_mul(LATE))?;
            Some(format!("{name}: silent for {} s", age / 1_000))
        }
        State::Waiting | State::Off => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn source(name: &str, state: State, age_ms: u64) -> SourceReport {
        SourceReport {
            name: name.into(),
            state,
            reason: "it was killed after 20 s".into(),
            age_ms: Some(age_ms),
            took_ms: 5,
            interval_ms: 30_000,
            readings: Vec::new(),
        }
    }

    fn told(sources: Vec<SourceReport>) -> Check {
        check(&TelemetryReport { node: "n1".into(), sources, external: Vec::new(), risk: None })
    }

    #[test]
    fn a_source_that_fails_or_grows_old_is_yellow_and_one_that_is_not_there_is_not() {
        let good = source("edac", State::Ok, 29_000);
        let absent = source("ipmi", State::Missing, 1_000);
        let off = source("smart", State::Off, 900_000);
        let check = told(vec![good.clone(), absent, off]);
        assert_eq!(
            (check.level, check.text.as_str()),
            (Level::Green, "1 sources are read, none is silent")
        );
        let old = source("heat", State::Ok, 121_000);
        let check = told(vec![good, old, source("smart", State::TimedOut, 0)]);
        assert_eq!(check.level, Level::Yellow);
        assert!(check.text.contains("heat: silent for 121 s, smart: it was killed"), "{check:?}");
    }
}
