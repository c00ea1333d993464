//! Overrides, the linter of PROTOCOL section 9, and the bounds that follow from a timing.

use super::Problem;
use serde::{Deserialize, Serialize};
use steadfast_core::config::Timing;
use steadfast_core::time::Millis;

/// How long a clean stop of every guest takes at least.
const CLEAN_STOP: Millis = Millis(1_000);

/// Time-outs that differ from the preset's, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimingOverrides {
    beat_ms: Option<u64>,
    lease_ms: Option<u64>,
    stop_ms: Option<u64>,
    watchdog_ms: Option<u64>,
    full_failure_ms: Option<u64>,
    network_isolation_ms: Option<u64>,
    storage_isolation_ms: Option<u64>,
    election_window_ms: Option<u64>,
    policy_deadline_ms: Option<u64>,
    start_margin_ms: Option<u64>,
    boot_grace_ms: Option<u64>,
    fence_timeout_ms: Option<u64>,
    restart_backoff_ms: Option<u64>,
}

impl TimingOverrides {
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
        put(&mut timing.boot_grace, self.boot_grace_ms);
        put(&mut timing.fence_timeout, self.fence_timeout_ms);
        put(&mut timing.restart_backoff, self.restart_backoff_ms);
        timing.start_margin = timing.start_margin.max(least_start_margin(&timing));
        put(&mut timing.start_margin, self.start_margin_ms);
        timing
    }
}

fn least_start_margin(timing: &Timing) -> Millis {
    let late = (timing.watchdog + timing.beat).0.saturating_sub(timing.stop.0);
    Millis(late.max(timing.beat.0.saturating_mul(2)))
}

/// One inequality: it holds if `left <= right`.
struct Inequality {
    name: &'static str,
    left: Millis,
    right: Millis,
    remedy: String,
}

/// Every inequality of PROTOCOL section 9 that `timing` breaks: its name, the numbers, the nearest safe value.
#[must_use]
pub fn lint(timing: &Timing) -> Vec<Problem> {
    let refuse = |broken: Inequality| {
        let Inequality { name, left, right, remedy } = broken;
        Problem::new(format!("unsafe timing: {name} does not hold: {left} > {right}"), remedy)
    };
    let mut problems = zeros(timing);
    problems.extend(
        inequalities(timing).into_iter().filter(|entry| entry.left > entry.right).map(refuse),
    );
    problems
}

fn zeros(timing: &Timing) -> Vec<Problem> {
    let named = [
        ("beat_ms", timing.beat),
        ("election_window_ms", timing.election_window),
        ("policy_deadline_ms", timing.policy_deadline),
        ("fence_timeout_ms", timing.fence_timeout),
    ];
    let zero = named.into_iter().filter(|(_, value)| value.0 == 0);
    zero.map(|(name, _)| {
        Problem::new(format!("timing.{name} is 0"), "leave it out for the preset's value")
    })
    .collect()
}

fn inequalities(timing: &Timing) -> Vec<Inequality> {
    let mut all = lease_inequalities(timing);
    all.extend(detection_inequalities(timing));
    all
}

fn lease_inequalities(timing: &Timing) -> Vec<Inequality> {
    let Timing { beat, lease, stop, watchdog, start_margin, .. } = *timing;
    let longest = Millis((lease + stop).0.saturating_sub(beat.0 * 2));
    vec![
        Inequality {
            name: "3 beats <= L",
            left: beat * 3,
            right: lease,
            remedy: format!("set lease_ms to at least {}", (beat * 3).0),
        },
        Inequality {
            name: "2 beats <= W",
            left: beat * 2,
            right: watchdog,
            remedy: format!("set watchdog_ms to at least {}", (beat * 2).0),
        },
        Inequality {
            name: "2 W <= L + S - 2 beats",
            left: watchdog * 2,
            right: longest,
            remedy: format!("set watchdog_ms to at most {}", longest.0 / 2),
        },
        Inequality {
            name: "W + 1 s <= S",
            left: watchdog + CLEAN_STOP,
            right: stop,
            remedy: format!("set stop_ms to at least {}", (watchdog + CLEAN_STOP).0),
        },
        Inequality {
            name: "max(2 beats, W - S + 1 beat) <= start margin",
            left: least_start_margin(timing),
            right: start_margin,
            remedy: format!("set start_margin_ms to at least {}", least_start_margin(timing).0),
        },
    ]
}

fn detection_inequalities(timing: &Timing) -> Vec<Inequality> {
    let Timing { beat, lease, stop, watchdog, membership, full_failure, .. } = *timing;
    let shortest = lease.min(Millis((lease + stop).0.saturating_sub(watchdog.0)));
    let least = membership.max(beat * 3);
    vec![
        Inequality {
            name: "token + consensus + 2 beats <= min(L, L + S - W)",
            left: membership + beat * 2,
            right: shortest,
            remedy: format!(
                "in corosync.conf lower token and set token_coefficient to 0 until token + consensus is at \
                 most {}, or raise lease_ms, or take preset = \"calm\"",
                Millis(shortest.0.saturating_sub(beat.0 * 2))
            ),
        },
        Inequality {
            name: "max(3 beats, token + consensus) <= full failure",
            left: least,
            right: full_failure,
            remedy: format!("set full_failure_ms to at least {}", least.0),
        },
    ]
}

/// How long a failure may last until the start is ordered elsewhere, with its sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Row of PROTOCOL section 5.
    pub failure: String,
    /// `member` or `leader`.
    pub role: String,
    /// A fence agent is configured and answers at once.
    pub fence_agent: bool,
    /// The bound in milliseconds.
    pub bound_ms: u64,
    /// How it adds up.
    pub sum: String,
}

/// Worst cases from the fault to the start order. A fence agent's own time comes on top.
#[must_use]
pub fn bounds(timing: &Timing) -> Vec<Bound> {
    let mut all = Vec::new();
    for leads in [false, true] {
        all.push(bound("Full failure", leads, true, full_failure(timing, true), timing));
        all.push(bound("Full failure", leads, false, full_failure(timing, false), timing));
        let network = ("network isolation", timing.network_isolation);
        all.push(bound("Network isolation", leads, false, cycle_then(timing, network), timing));
        let storage = ("storage isolation", timing.storage_isolation);
        all.push(bound("Storage isolation", leads, false, cycle_then(timing, storage), timing));
    }
    all
}

type Terms = Vec<(&'static str, Millis)>;

fn full_failure(timing: &Timing, agent: bool) -> Terms {
    if agent {
        return vec![("full failure", timing.full_failure), ("beat", timing.beat)];
    }
    vec![
        ("beat", timing.beat),
        ("(L + S) * 1.01 + 250 ms", steadfast_core::config::surely_dead(timing.span())),
    ]
}

/// The node reads its eviction in its next cycle, stops its guests cleanly and says so.
fn cycle_then(timing: &Timing, first: (&'static str, Millis)) -> Terms {
    vec![first, ("beat", timing.beat), ("clean stop", CLEAN_STOP), ("beat", timing.beat)]
}

fn bound(failure: &str, leads: bool, fence_agent: bool, terms: Terms, timing: &Timing) -> Bound {
    let mut terms = terms;
    if leads {
        terms.push(("election window", timing.election_window));
        terms.push(("two cycles to begin a term", timing.beat * 2));
    }
    terms.push(("eviction's commit", timing.beat));
    terms.push(("policy deadline", timing.policy_deadline));
    terms.push(("placement's commit", timing.beat));
    let words: Vec<String> =
        terms.iter().map(|(name, length)| format!("{name} {length}")).collect();
    Bound {
        failure: failure.into(),
        role: if leads { "leader" } else { "member" }.into(),
        fence_agent,
        bound_ms: terms.iter().map(|(_, length)| length.0).sum(),
        sum: words.join(" + "),
    }
}
