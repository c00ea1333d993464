//! Overrides, and the core's linter and bounds as an operator reads them (PROTOCOL section 9).

use super::{Config, Problem};
use serde::{Deserialize, Serialize};
use steadfast_core::bounds::{self, Assumed, Term};
use steadfast_core::config::Timing;
use steadfast_core::time::Millis;
use steadfast_core::timing_lint::{self, Refusal, least_start_margin};

/// Time-outs that differ from the preset's, in milliseconds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct TimingOverrides {
    #[schemars(range(max = 604_800_000))]
    beat_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    lease_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    stop_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    watchdog_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    full_failure_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    network_isolation_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    storage_isolation_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    election_window_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    policy_deadline_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    start_margin_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    storage_deadline_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    boot_grace_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    fence_timeout_ms: Option<u64>,
    #[schemars(range(max = 604_800_000))]
    restart_backoff_ms: Option<u64>,
}

impl TimingOverrides {
    /// The longest time-out that is checked: a week.
    pub const LONGEST_MS: u64 = 604_800_000;

    /// One that is longer than [`TimingOverrides::LONGEST_MS`].
    #[must_use]
    pub fn too_long(&self) -> Option<u64> {
        let all = [
            self.beat_ms,
            self.lease_ms,
            self.stop_ms,
            self.watchdog_ms,
            self.full_failure_ms,
            self.network_isolation_ms,
            self.storage_isolation_ms,
            self.election_window_ms,
            self.policy_deadline_ms,
            self.start_margin_ms,
            self.storage_deadline_ms,
            self.boot_grace_ms,
            self.fence_timeout_ms,
            self.restart_backoff_ms,
        ];
        all.into_iter().flatten().find(|ms| *ms > Self::LONGEST_MS)
    }

    /// `timing` with these overrides; the start margin follows from the others unless it is given.
    #[must_use]
    pub fn apply(&self, mut timing: Timing) -> Timing {
        let put = |place: &mut Millis, value: Option<u64>| {
            if let Some(value) = value {
                *place = Millis(value);
            }
        };
        put(&mut timing.beat, self.beat_ms);
        put(&mut timing.lease, self.lease_ms);
        put(&mut timing.stop, self.stop_ms);
        put(&mut timing.watchdog, self.watchdog_ms);
        put(&mut timing.full_failure, self.full_failure_ms);
        put(&mut timing.network_isolation, self.network_isolation_ms);
        put(&mut timing.storage_isolation, self.storage_isolation_ms);
        put(&mut timing.election_window, self.election_window_ms);
        put(&mut timing.policy_deadline, self.policy_deadline_ms);
        put(&mut timing.storage_deadline, self.storage_deadline_ms);
        put(&mut timing.boot_grace, self.boot_grace_ms);
        put(&mut timing.fence_timeout, self.fence_timeout_ms);
        put(&mut timing.restart_backoff, self.restart_backoff_ms);
        timing.start_margin = timing.start_margin.max(least_start_margin(&timing));
        put(&mut timing.start_margin, self.start_margin_ms);
        timing
    }
}

/// Every inequality of PROTOCOL section 9 that `timing` breaks: its name, the numbers, the nearest safe value.
#[must_use]
pub fn lint(timing: &Timing) -> Vec<Problem> {
    timing_lint::lint(timing).iter().map(problem).collect()
}

/// A refusal, for people.
fn problem(refusal: &Refusal) -> Problem {
    Problem::new(refusal.what(), refusal.remedy())
}

/// How long a failure may last until the start is ordered elsewhere, with its sum.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Bound {
    /// Row of PROTOCOL section 5.
    pub failure: String,
    /// `member` or `leader`.
    pub role: String,
    /// A fence agent is configured for the node.
    pub fence_agent: bool,
    /// The bound in milliseconds, on an array that works; `None`: see the note.
    pub bound_ms: Option<u64>,
    /// The same if every storage cycle takes as long as its deadline, and the fence agent as long as its time-out.
    pub slowest_ms: Option<u64>,
    /// How `bound_ms` adds up.
    pub sum: String,
    /// The same, term by term.
    pub terms: Vec<Term>,
    /// Why there is no bound.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What the bounds of this node's time-outs assume.
#[must_use]
pub fn assumed(config: &Config) -> Assumed {
    Assumed::working(config.watchdog.is_some() && config.is_never_paused())
}

/// Worst cases from the fault to the start order, for every row of PROTOCOL section 5.
#[must_use]
pub fn bounds(timing: &Timing, assumed: &Assumed) -> Vec<Bound> {
    let slowest = Assumed::slowest(timing, assumed.rule_4);
    let told = bounds::bounds(timing, assumed).into_iter();
    told.zip(bounds::bounds(timing, &slowest))
        .map(|(bound, slowest)| tell(bound, &slowest))
        .collect()
}

fn tell(bound: bounds::Bound, slowest: &bounds::Bound) -> Bound {
    Bound {
        failure: bound.row.words().into(),
        role: bound.role.words().into(),
        fence_agent: bound.fence_agent,
        bound_ms: bound.total.map(|total| total.0),
        slowest_ms: slowest.total.map(|total| total.0),
        sum: bound.sum(),
        terms: bound.terms,
        note: bound.note,
    }
}
