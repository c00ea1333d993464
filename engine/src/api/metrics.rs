//! `GET /metrics`: what this agent sees, for Prometheus. Every name ends in its unit; what is yes or no is a ratio of 1 or 0.

use super::errors::Refusal;
use super::wire::DecisionReport;
use crate::driver::{Agent, Live};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast_core::decision::Kind;
use steadfast_core::snapshot::{NodeView, Snapshot};
use steadfast_core::time::Millis;
use tokio::sync::broadcast::error::RecvError;

/// Upper ends of the histogram of failovers, in milliseconds.
const BUCKETS: [u64; 12] =
    [1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000];
/// How often an agent that waits is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What is counted since the agent started.
#[derive(Debug, Default)]
pub(super) struct Tally {
    started: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    answers: BTreeMap<u16, u64>,
    decisions: BTreeMap<String, u64>,
    /// When the failure of a node began, by this leader's time, and whether it was evicted.
    failing: BTreeMap<String, (u64, bool)>,
    failovers: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum_ms: u64,
}

impl Histogram {
    fn add(&mut self, ms: u64) {
        for (bucket, end) in self.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(ms <= end);
        }
        self.count += 1;
        self.sum_ms += ms;
    }
}

impl Tally {
    /// A request was answered.
    pub(super) fn answered(&self, status: StatusCode) {
        *self.counts().answers.entry(status.as_u16()).or_default() += 1;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn take(&mut self, report: &DecisionReport) {
        let kind = serde_json::to_value(report.kind).unwrap_or_default();
        *self.decisions.entry(kind.as_str().unwrap_or_default().into()).or_default() += 1;
        let node = report.node.clone().unwrap_or_default();
        match report.kind {
            Kind::Suspected => {
                self.failing.entry(node).or_insert((report.at_ms, false));
            }
            Kind::Evicted => self.failing.entry(node).or_insert((report.at_ms, true)).1 = true,
            Kind::Admitted | Kind::Status => drop(self.failing.remove(&node)),
            Kind::StartOrdered => {
                // Of several nodes that fail together the last one counts.
                let evicted = self.failing.values().filter(|(_, evicted)| *evicted);
                if let Some((begun, _)) = evicted.max() {
                    self.failovers.add(report.at_ms.saturating_sub(*begun));
                }
            }
            _ => {}
        }
    }
}

/// Counts decisions for as long as the agent lives. Begun once.
pub(super) fn begin(agent: &Arc<Agent>) {
    if agent.reception.tally.started.swap(true, Ordering::Relaxed) {
        return;
    }
    let agent = Arc::downgrade(agent);
    tokio::spawn(async move {
        let mut decisions = loop {
            let Some(agent) = agent.upgrade() else { return };
            if let Ok(live) = agent.live() {
                break live.decisions.watch();
            }
            drop(agent);
            tokio::time::sleep(LOOK).await;
        };
        loop {
            match decisions.recv().await {
                Ok(report) => {
                    let Some(agent) = agent.upgrade() else { return };
                    agent.reception.tally.counts().take(&report);
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}

pub(super) async fn report(State(agent): State<Arc<Agent>>) -> Result<impl IntoResponse, Refusal> {
    let mut page = Page::default();
    page.one(
        "steadfast_build_info",
        "gauge",
        "Version of the agent.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    if let (Ok(live), Ok(snapshot)) = (agent.live(), agent.snapshot().await) {
        page.lease(&snapshot);
        page.nodes(&snapshot);
        page.beats(&live);
        page.policies(&live);
    }
    page.counts(&agent.reception.tally.counts());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0))
}

/// The text.
#[derive(Default)]
struct Page(String);

/// Milliseconds as Prometheus wants them.
fn seconds(time: Millis) -> String {
    format!("{}.{:03}", time.0 / 1_000, time.0 % 1_000)
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, about: &str) {
        let _ = writeln!(self.0, "# HELP {name} {about}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(
        &mut self,
        name: &str,
        kind: &str,
        about: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        self.head(name, kind, about);
        self.line(name, labels, value);
    }

    fn lease(&mut self, snapshot: &Snapshot) {
        let lease = &snapshot.lease;
        let left = seconds(lease.left.unwrap_or_default());
        self.one(
            "steadfast_lease_left_seconds",
            "gauge",
            "What is left of this node's lease; 0 without one.",
            &[],
            left,
        );
        let name = "steadfast_lease_evidence_age_seconds";
        self.head(name, "gauge", "Age of what the lease rests on; the younger factor counts.");
        for (factor, age) in [("network", lease.network_age), ("storage", lease.storage_age)] {
            if let Some(age) = age {
                self.line(name, &[("factor", factor)], seconds(age));
            }
        }
        let ages = lease.network_age.into_iter().chain(lease.storage_age);
        if let Some(age) = ages.min() {
            self.one(
                "steadfast_lease_age_seconds",
                "gauge",
                "Age of the younger evidence.",
                &[],
                seconds(age),
            );
        }
        let armed = u8::from(lease.armed);
        self.one(
            "steadfast_watchdog_armed_ratio",
            "gauge",
            "1: the watchdog is open and fed.",
            &[],
            armed,
        );
        let quorate = u8::from(snapshot.quorate);
        self.one(
            "steadfast_quorate_ratio",
            "gauge",
            "1: the nodes in the view may act.",
            &[],
            quorate,
        );
        let disarmed = u8::from(snapshot.disarm.is_some());
        self.one("steadfast_disarmed_ratio", "gauge", "1: HA is off for everybody.", &[], disarmed);
        self.one(
            "steadfast_terms_total",
            "counter",
            "Highest leader's term seen.",
            &[],
            snapshot.term,
        );
    }

    fn nodes(&mut self, snapshot: &Snapshot) {
        type Value = fn(&NodeView) -> Option<String>;
        let gauges: [(&str, &str, Value); 5] = [
            (
                "steadfast_node_beat_age_seconds",
                "Since its last beat was heard (network).",
                |node| node.beat_age.map(seconds),
            ),
            ("steadfast_node_page_age_seconds", "Since its page changed (storage).", |node| {
                node.page_age.map(seconds)
            }),
            (
                "steadfast_node_lease_left_seconds",
                "What is left of its lease, by its own word.",
                |node| node.lease_left.map(seconds),
            ),
            ("steadfast_node_recent_flaps", "How often it left and came back lately.", |node| {
                Some(node.facts.flaps.to_string())
            }),
            ("steadfast_node_risk_points", "Its risk, 0 (healthy) to 1000 (failing).", |node| {
                let report = node.risk.as_ref()?.report.as_ref()?;
                Some(report.score.to_string())
            }),
        ];
        for (name, about, value) in gauges {
            self.head(name, "gauge", about);
            for node in &snapshot.nodes {
                if let Some(value) = value(node) {
                    self.line(name, &[("node", &node.name)], value);
                }
            }
        }
        let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
        snapshot
            .nodes
            .iter()
            .for_each(|node| *by_status.entry(node.status.words()).or_default() += 1);
        self.head("steadfast_nodes", "gauge", "Nodes, by their status.");
        by_status
            .iter()
            .for_each(|(status, n)| self.line("steadfast_nodes", &[("status", status)], n));
        let mut by_state: BTreeMap<&str, u64> = BTreeMap::new();
        snapshot.vms.iter().for_each(|vm| *by_state.entry(&vm.state).or_default() += 1);
        self.head("steadfast_vms", "gauge", "VMs under HA, by their state.");
        by_state.iter().for_each(|(state, n)| self.line("steadfast_vms", &[("state", state)], n));
    }

    fn beats(&mut self, live: &Live) {
        let gaps = &live.gaps;
        let interval = seconds(live.timing.beat);
        self.one(
            "steadfast_beat_interval_seconds",
            "gauge",
            "Time between two beats, as configured.",
            &[],
            interval,
        );
        let name = "steadfast_beat_gap_seconds";
        self.head(name, "gauge", "The longest time between two beats of this agent.");
        self.line(name, &[("since", "start")], seconds(gaps.ever()));
        self.line(name, &[("since", "lately")], seconds(gaps.lately()));
        self.one(
            "steadfast_beats_total",
            "counter",
            "Beats that this agent sent.",
            &[],
            gaps.beats(),
        );
        let about = "Beats that came more than half an interval too late.";
        self.one("steadfast_beats_late_total", "counter", about, &[], gaps.late());
    }

    fn policies(&mut self, live: &Live) {
        let status = live.policies.status();
        let policies = || {
            let kinds = status.kinds.iter();
            kinds
                .flat_map(|kind| kind.policies.iter().map(move |policy| (kind.kind.name(), policy)))
        };
        type Value = fn(&crate::policy::PolicyStatus) -> String;
        let told: [(&str, &str, &str, Value); 5] = [
            ("steadfast_policy_calls_total", "counter", "Calls that it answered.", |it| {
                it.calls.to_string()
            }),
            ("steadfast_policy_failures_total", "counter", "Calls that failed.", |it| {
                it.failures.to_string()
            }),
            ("steadfast_policy_last_fuel", "gauge", "Fuel of its last answer.", |it| {
                it.last_fuel.to_string()
            }),
            (
                "steadfast_policy_last_memory_bytes",
                "gauge",
                "Linear memory of its last answer.",
                |it| it.last_memory_bytes.to_string(),
            ),
            ("steadfast_policy_deciding_ratio", "gauge", "1: it decides.", |it| {
                u8::from(it.deciding).to_string()
            }),
        ];
        for (name, kind, about, value) in told {
            self.head(name, kind, about);
            for (decides, it) in policies() {
                let generation = it.generation.to_string();
                let labels = [
                    ("kind", decides),
                    ("policy", it.name.as_str()),
                    ("version", &it.version),
                    ("generation", &generation),
                ];
                self.line(name, &labels, value(it));
            }
        }
    }

    fn counts(&mut self, counts: &Counts) {
        let of = |kind: &str| counts.decisions.get(kind).copied().unwrap_or_default();
        let key = |kind: Kind| {
            let value = serde_json::to_value(kind).unwrap_or_default();
            value.as_str().unwrap_or_default().to_owned()
        };
        let elections = of(&key(Kind::Elected));
        self.one(
            "steadfast_elections_total",
            "counter",
            "Leaders whose term this agent saw begin.",
            &[],
            elections,
        );
        self.head(
            "steadfast_decisions_total",
            "counter",
            "Decisions that this agent recorded, by kind.",
        );
        for (kind, count) in &counts.decisions {
            self.line("steadfast_decisions_total", &[("kind", kind)], count);
        }
        let name = "steadfast_failover_seconds";
        self.head(name, "histogram", "From the first suspicion of a node to the order to start a VM elsewhere, on the leader.");
        let Histogram { buckets, count, sum_ms } = &counts.failovers;
        for (bucket, end) in buckets.iter().zip(BUCKETS) {
            self.line(&format!("{name}_bucket"), &[("le", &seconds(Millis(end)))], bucket);
        }
        self.line(&format!("{name}_bucket"), &[("le", "+Inf")], count);
        self.line(&format!("{name}_sum"), &[], seconds(Millis(*sum_ms)));
        self.line(&format!("{name}_count"), &[], count);
        self.head(
            "steadfast_api_requests_total",
            "counter",
            "Requests, by the status of their answers.",
        );
        for (status, count) in &counts.answers {
            self.line("steadfast_api_requests_total", &[("status", &status.to_string())], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_counts_from_the_first_suspicion_to_each_start() {
        let mut counts = Counts::default();
        let mut tell = |kind, node: &str, at_ms| {
            let node = Some(node.to_owned());
            counts.take(&DecisionReport { kind, node, at_ms, ..DecisionReport::sample() });
        };
        tell(Kind::StartOrdered, "n1", 500);
        tell(Kind::Suspected, "n3", 1_000);
        tell(Kind::Suspected, "n3", 1_700);
        tell(Kind::Evicted, "n3", 2_500);
        tell(Kind::StartOrdered, "n1", 5_200);
        tell(Kind::StartOrdered, "n2", 9_000);
        tell(Kind::Admitted, "n3", 20_000);
        tell(Kind::StartOrdered, "n2", 30_000);
        let Histogram { buckets, count, sum_ms } = &counts.failovers;
        assert_eq!((*count, *sum_ms), (2, 12_200));
        assert_eq!(buckets[3], 1, "4.2 s is at most 5 s");
        assert_eq!(buckets[11], 2);
    }
}
