//! What an operator has to know before a failure teaches it: is this node set up so that the promises hold?
//!
//! Each check is green, yellow (works, but not as well or as fast as it could) or red (a promise does not hold), and says what
//! to do. The agent answers for itself; without an agent the command line looks at the configuration and the host.

mod agent;
pub(crate) mod certificates;
mod chrony;
mod device;
pub(crate) mod elsewhere;
pub(crate) mod feature_level;
mod host;
pub(crate) mod links;
pub(crate) mod outlook;
pub(crate) mod sources;

use crate::config::{Bound, Config, Problems, assumed, bounds};
use crate::hook::install;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use steadfast_core::bounds::Assumed;
use steadfast_core::config::Timing;
use steadfast_core::snapshot::Snapshot;
use steadfast_core::time::Millis;

pub use agent::Facts;

/// Token + consensus where corosync was not asked: the lab's.
pub const ASSUMED_MEMBERSHIP: Millis = Millis(1_100);

/// How good it is, best first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, schemars::JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In order.
    Green,
    /// Works; could be better or quicker.
    Yellow,
    /// A promise does not hold.
    Red,
}

impl Level {
    /// The word people see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }

    /// The exit code of `steadfast doctor`: 0 green, 1 yellow, 2 red.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Green => 0,
            Self::Yellow => 1,
            Self::Red => 2,
        }
    }
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Check {
    pub(crate) fn green(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Green, text: text.into(), remedy: String::new() }
    }

    pub(crate) fn yellow(name: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Yellow, remedy: remedy.into(), ..Self::green(name, text) }
    }

    pub(crate) fn red(name: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Red, remedy: remedy.into(), ..Self::green(name, text) }
    }
}

/// `GET /v1/doctor`.
#[derive(Debug, Clone, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Report {
    /// Name of the cluster, as configured.
    pub cluster: String,
    /// Name of the node, if its agent knows it.
    pub node: Option<String>,
    /// The preset.
    pub preset: String,
    /// The worst of all checks.
    pub level: Level,
    /// All checks.
    pub checks: Vec<Check>,
    /// Time-outs that the bounds follow from; `None`: they are unsafe.
    pub timing: Option<Timing>,
    /// What the bounds assume.
    pub assumed: Assumed,
    /// Worst cases from a fault to the start elsewhere.
    pub bounds: Vec<Bound>,
}

impl Report {
    /// An agent whose machine runs.
    #[must_use]
    pub fn live(config: &Config, snapshot: &Snapshot, facts: &Facts) -> Self {
        let mut checks = agent::checks(config, snapshot, facts);
        checks.extend(host::checks());
        checks.extend(host::own_process());
        checks.extend(device::checks(config));
        checks.extend(hook_and_warnings(&facts.warnings));
        checks.extend(facts.asked.iter().cloned());
        let report = Self::compose(config, Some(facts.timing.clone()), checks);
        Self { node: Some(snapshot.node.name.clone()), ..report }
    }

    /// An agent that waits for something, or none at all (`why`, and what to do).
    #[must_use]
    pub fn waiting(config: &Config, why: &str, remedy: &str) -> Self {
        let mut checks = vec![Check::red("agent", why, remedy)];
        let timing = config.timing(ASSUMED_MEMBERSHIP);
        checks
            .extend(timing.as_ref().err().into_iter().flat_map(|found| problems("timing", found)));
        checks.extend(host::checks());
        checks.extend(device::checks(config));
        checks.push(host::hook(Path::new(install::HOOKS)));
        Self::compose(config, timing.ok(), checks)
    }

    /// No agent answers: what can be told from the configuration at `path` and the host.
    #[must_use]
    pub fn offline(path: &Path, why: &str, remedy: &str) -> Self {
        match Config::load(path) {
            Ok(config) => Self::waiting(&config, why, remedy),
            Err(found) => {
                let mut checks = vec![Check::red("agent", why, remedy)];
                checks.extend(problems("configuration", &found));
                checks.extend(host::checks());
                Self::of(String::new(), "unknown".into(), None, Assumed::working(false), checks)
            }
        }
    }

    fn compose(config: &Config, timing: Option<Timing>, checks: Vec<Check>) -> Self {
        let preset = format!("{:?}", config.preset).to_lowercase();
        Self::of(config.cluster.clone(), preset, timing, assumed(config), checks)
    }

    fn of(
        cluster: String,
        preset: String,
        timing: Option<Timing>,
        assumed: Assumed,
        checks: Vec<Check>,
    ) -> Self {
        let level = checks.iter().map(|check| check.level).max().unwrap_or(Level::Green);
        let bounds = timing.as_ref().map(|timing| bounds(timing, &assumed)).unwrap_or_default();
        Self { cluster, node: None, preset, level, checks, timing, assumed, bounds }
    }
}

/// What the agent has found by trying: its hook first of all.
fn hook_and_warnings(warnings: &BTreeMap<&'static str, String>) -> Vec<Check> {
    let trouble = |(finder, text): (&&'static str, &String)| {
        let name = if *finder == "hook" { "libvirt hook" } else { finder };
        Check::red(name, text.clone(), "")
    };
    let mut checks: Vec<Check> = warnings.iter().map(trouble).collect();
    if !warnings.contains_key("hook") {
        checks.push(host::hook(Path::new(install::HOOKS)));
    }
    checks
}

fn problems(name: &'static str, found: &Problems) -> impl Iterator<Item = Check> {
    let check = move |problem: &crate::config::Problem| {
        let line = problem.line.map_or(String::new(), |line| format!("line {line}: "));
        Check::red(name, format!("{line}{}", problem.what), problem.remedy.clone())
    };
    found.0.iter().map(check).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[cluster]\nname = \"c\"\n[storage]\ndirectory = \"/shared\"\n";

    #[test]
    fn a_node_without_an_agent_is_red_and_still_shows_its_bounds() {
        let config = Config::parse(LEAST).expect("good");
        let report = Report::waiting(&config, "steadfastd does not answer", "start it");
        assert_eq!((report.level, report.level.exit_code()), (Level::Red, 2));
        assert_eq!(report.preset, "standard");
        assert!(report.bounds.iter().any(|bound| bound.bound_ms.is_some()));
        let json = serde_json::to_string(&report).expect("told");
        let read: Report = serde_json::from_str(&json).expect("understood");
        assert_eq!(read.checks, report.checks);
    }

    #[test]
    fn a_missing_configuration_is_one_more_red_check() {
        let report = Report::offline(Path::new("/nonexistent/a.toml"), "no agent", "start it");
        let names: Vec<_> = report.checks.iter().map(|check| check.name.as_str()).collect();
        assert!(names.starts_with(&["agent", "configuration"]), "{names:?}");
        assert_eq!(report.timing, None);
    }
}
