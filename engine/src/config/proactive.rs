//! Nodes at risk: the `[proactive]` and `[telemetry]` sections.

use super::Problem;
use crate::telemetry::{self, Redfish};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use steadfast_core::proactive::{Mode, Settings};
use steadfast_core::time::Millis;

/// `[proactive]`: what differs from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawProactive {
    mode: Option<Mode>,
    warn: Option<u16>,
    avoid: Option<u16>,
    drain: Option<u16>,
    margin: Option<u16>,
    readings: Option<u32>,
    well_after_ms: Option<u64>,
    stale_ms: Option<u64>,
    max_drained: Option<usize>,
    important: Option<u16>,
}

impl RawProactive {
    /// The settings, with what is wrong with them in `problems`.
    pub(super) fn resolve(&self, problems: &mut Vec<Problem>) -> Settings {
        let usual = Settings::default();
        let [warn, avoid, drain] = usual.thresholds;
        let millis = |given: Option<u64>, usual: Millis| given.map_or(usual, Millis);
        let settings = Settings {
            mode: self.mode.unwrap_or(usual.mode),
            thresholds: [
                self.warn.unwrap_or(warn),
                self.avoid.unwrap_or(avoid),
                self.drain.unwrap_or(drain),
            ],
            margin: self.margin.unwrap_or(usual.margin),
            readings: self.readings.unwrap_or(usual.readings),
            well_after: millis(self.well_after_ms, usual.well_after),
            stale: millis(self.stale_ms, usual.stale),
            max_drained: self.max_drained,
            important: self.important.unwrap_or(usual.important),
        };
        check(&settings, problems);
        settings
    }
}

fn check(settings: &Settings, problems: &mut Vec<Problem>) {
    let [warn, avoid, drain] = settings.thresholds;
    if !(1..=avoid).contains(&warn) || avoid > drain || drain > 1_000 {
        problems.push(Problem::new(
            format!("proactive.warn, avoid and drain are {warn}, {avoid} and {drain}"),
            "set them from 1 to 1000, none lower than the one before",
        ));
    }
    if settings.margin >= warn {
        problems.push(Problem::new(
            format!(
                "proactive.margin is {}, proactive.warn {warn}: no node could be well again",
                settings.margin
            ),
            format!("set margin to {} or less", warn.saturating_sub(1)),
        ));
    }
    if settings.readings == 0 {
        let remedy = "set it to 1 or more";
        problems.push(Problem::new("proactive.readings is 0", remedy));
    }
}

/// `[telemetry]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTelemetry {
    sources: BTreeMap<String, bool>,
    interval_ms: Option<u64>,
    tool_interval_ms: Option<u64>,
    timeout_ms: Option<u64>,
    root: Option<PathBuf>,
    disks: Vec<String>,
    links: Vec<String>,
    ipmi: Vec<String>,
    redfish: Option<RawRedfish>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRedfish {
    url: String,
    credentials: Option<PathBuf>,
    insecure: bool,
}

impl RawTelemetry {
    /// The settings, with what is wrong with them in `problems`.
    pub(super) fn resolve(self, problems: &mut Vec<Problem>) -> telemetry::Settings {
        let usual = telemetry::Settings::default();
        for name in self.sources.keys().filter(|name| !telemetry::SOURCES.contains(&name.as_str()))
        {
            problems.push(Problem::new(
                format!("telemetry.sources names {name:?}, which is none"),
                format!("sources are {}", telemetry::SOURCES.join(", ")),
            ));
        }
        let redfish = self.redfish.map(|raw| {
            if !raw.url.starts_with("https://") && !raw.url.starts_with("http://") {
                problems.push(Problem::new(
                    format!("telemetry.redfish.url is {:?}", raw.url),
                    "write e.g. https://bmc-n1.example",
                ));
            }
            Redfish { url: raw.url, credentials: raw.credentials, insecure: raw.insecure }
        });
        let length =
            |name: &str, given: Option<u64>, usual: Duration, problems: &mut Vec<Problem>| {
                if let Some(short) = given.filter(|given| *given < 100) {
                    let what = format!("telemetry.{name} is {short}, less than 100");
                    problems.push(Problem::new(what, "set it to 100 or more"));
                }
                given.map_or(usual, Duration::from_millis)
            };
        telemetry::Settings {
            off: self.sources.into_iter().filter(|(_, on)| !on).map(|(name, _)| name).collect(),
            interval: length("interval_ms", self.interval_ms, usual.interval, problems),
            tool_interval: length(
                "tool_interval_ms",
                self.tool_interval_ms,
                usual.tool_interval,
                problems,
            ),
            limit: length("timeout_ms", self.timeout_ms, usual.limit, problems),
            root: self.root.unwrap_or(usual.root),
            disks: self.disks,
            links: self.links,
            ipmi: self.ipmi,
            redfish,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proactive(text: &str) -> (Settings, Vec<String>) {
        let raw: RawProactive = toml::from_str(text).expect("readable");
        let mut problems = Vec::new();
        let settings = raw.resolve(&mut problems);
        (settings, problems.iter().map(ToString::to_string).collect())
    }

    fn telemetry(text: &str) -> (telemetry::Settings, Vec<String>) {
        let raw: RawTelemetry = toml::from_str(text).expect("readable");
        let mut problems = Vec::new();
        let settings = raw.resolve(&mut problems);
        (settings, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(proactive(""), (Settings::default(), vec![]));
        assert_eq!(telemetry(""), (telemetry::Settings::default(), vec![]));
        let (settings, problems) = proactive("mode = \"drain\"\nwarn = 200\nmax_drained = 0");
        assert_eq!(
            (settings.mode, settings.thresholds, problems),
            (Mode::Drain, [200, 500, 700], vec![])
        );
    }

    #[test]
    fn thresholds_rise_and_leave_room_for_health() {
        let (_, problems) = proactive("warn = 600\nmargin = 700\nreadings = 0");
        assert!(problems[0].contains("600, 500 and 700"), "{problems:?}");
        assert!(problems[1].contains("set margin to 599 or less"), "{problems:?}");
        assert!(problems[2].contains("readings is 0"), "{problems:?}");
    }

    #[test]
    fn a_source_that_does_not_exist_is_refused_by_name() {
        let (settings, problems) = telemetry("[sources]\nsmart = false\nedca = true");
        assert!(settings.off.contains("smart"));
        assert!(problems[0].contains("\"edca\"") && problems[0].contains("edac"), "{problems:?}");
        let (_, problems) = telemetry("timeout_ms = 5\n[redfish]\nurl = \"bmc\"");
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
