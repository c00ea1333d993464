//! What happens, line by line, for people: what really happened, and what agents decided.

use super::Demo;
use crate::api::wire::DecisionReport;
use crate::driver::Agent;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use steadfast_core::decision::Kind;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// The same words of another node within this are no news, in milliseconds.
const COMMON_MS: u64 = 3_000;

/// Follows a demonstration.
#[derive(Debug, Default)]
pub struct Teller {
    /// The last line of the world's that was told.
    told: u64,
    watched: BTreeMap<String, Watched>,
    /// What several nodes record, by its first words, and when it was told last.
    common: BTreeMap<String, u64>,
    /// The cluster was seen to work: before that everybody suspects everybody.
    ready: bool,
}

#[derive(Debug)]
struct Watched {
    agent: Weak<Agent>,
    decisions: Receiver<Arc<DecisionReport>>,
    /// The last one that was told.
    told: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Milliseconds of own time.
    at_ms: u64,
    /// As it is printed.
    pub text: String,
}

impl Teller {
    /// What is new, in order.
    pub fn news(&mut self, demo: &Demo) -> Vec<Told> {
        let began = demo.began();
        let mut news = Vec::new();
        for line in demo.lines_after(self.told) {
            self.told = line.number;
            news.push(told(began, line.at_ms + began, "", "", &line.text));
        }
        for report in self.decisions(demo) {
            if !is_milestone(report.kind) || self.is_known(&report) {
                continue;
            }
            let kind = serde_json::to_value(report.kind).unwrap_or_default();
            let kind = kind.as_str().unwrap_or_default().replace('_', " ");
            news.push(told(began, report.at_ms, &report.recorded_by, &kind, &report.text));
        }
        news.sort_by_key(|told| told.at_ms);
        news
    }

    /// From now on suspicions are worth telling.
    pub fn is_ready(&mut self) {
        self.ready = true;
    }

    /// All nodes record these: one is enough.
    fn is_known(&mut self, report: &DecisionReport) -> bool {
        if !matches!(report.kind, Kind::Suspected | Kind::Elected | Kind::Disarm) {
            return false;
        }
        let gist = report.text.split(':').next().unwrap_or_default().to_owned();
        let before = self.common.insert(gist, report.at_ms);
        let again = before.is_some_and(|before| report.at_ms.abs_diff(before) < COMMON_MS);
        again || (report.kind == Kind::Suspected && !self.ready)
    }

    fn decisions(&mut self, demo: &Demo) -> Vec<Arc<DecisionReport>> {
        let mut found = Vec::new();
        for node in demo.nodes() {
            let Some(agent) = demo.agent(node) else { continue };
            let known = self.watched.get(node);
            if known.is_none_or(|it| !std::ptr::eq(it.agent.as_ptr(), Arc::as_ptr(&agent))) {
                let Ok(live) = agent.live() else { continue };
                let (agent, decisions) = (Arc::downgrade(&agent), live.decisions.watch());
                let past = live.decisions.last(usize::MAX, |_| true);
                let told = past.last().map_or(0, |report| report.number);
                found.extend(past);
                self.watched.insert(node.to_owned(), Watched { agent, decisions, told });
            }
            if let Some(watched) = self.watched.get_mut(node) {
                watched.collect(&mut found);
            }
        }
        found
    }
}

impl Watched {
    fn collect(&mut self, found: &mut Vec<Arc<DecisionReport>>) {
        loop {
            match self.decisions.try_recv() {
                Ok(report) if report.number > self.told => {
                    self.told = report.number;
                    found.push(report);
                }
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }
}

fn told(began: u64, at_ms: u64, who: &str, kind: &str, text: &str) -> Told {
    let at = at_ms.saturating_sub(began);
    let (seconds, ms) = (at / 1_000, at % 1_000);
    let line = match kind {
        "" => format!("{seconds:>5}.{ms:03}  * {text}"),
        _ => format!("{seconds:>5}.{ms:03}  {who:<4} {kind:<14} {text}"),
    };
    Told { at_ms, text: line }
}

/// Of every node's records, those that tell a story.
fn is_milestone(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Suspected
            | Kind::Elected
            | Kind::Deposed
            | Kind::Evicted
            | Kind::Fenced
            | Kind::Proved
            | Kind::Admitted
            | Kind::Decided
            | Kind::Waiting
            | Kind::StartFailed
            | Kind::Reset
            | Kind::LastWords
            | Kind::VmFailed
            | Kind::Migration
            | Kind::Maintenance
            | Kind::Risk
            | Kind::Disarm
            | Kind::Policy
            | Kind::Alarm
    )
}
