//! Decisions for people: the last ones in memory, a live stream of them, a readable log, all of them as JSON lines on this node
//! (`keep.rs`), and the last ones of every node on shared storage, where others read them when this one is dead (`share.rs`).
//!
//! Runs on threads of its own; the lease path only queues.

mod keep;
mod share;

use crate::api::wire::{CandidateReport, DecisionReport, ReasonsReport};
use crate::clock::Clock;
use crate::driver::Inbox;
use crate::pages::PageStore;
use keep::Keeper;
use share::Sharer;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast_core::decision::{Decision, Kind, Reasons};
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::snapshot::Snapshot;
use tokio::sync::broadcast;

/// Decisions kept in memory.
const KEPT: usize = 1_000;
/// Bytes (as JSON) of questions to policies kept in memory; older ones are in the files only.
const QUESTION_BYTES: usize = 4 << 20;
/// Decisions that a slow watcher may be behind.
const BEHIND: usize = 1_024;
/// How long names are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// The last decisions, and whoever watches them.
#[derive(Debug)]
pub struct Decisions {
    /// Name of this node, and of this incarnation among all.
    me: (String, String),
    ring: Mutex<Kept>,
    watchers: broadcast::Sender<Arc<DecisionReport>>,
    names: Mutex<Names>,
    sharer: Sharer,
}

/// A decision and when it was taken, for people.
pub(crate) struct Taken {
    pub(crate) decision: Box<Decision>,
    pub(crate) wall_ms: u64,
}

#[derive(Debug, Default)]
struct Names {
    nodes: BTreeMap<NodeId, String>,
    vms: BTreeMap<VmId, String>,
}

#[derive(Debug, Default)]
struct Kept {
    reports: VecDeque<(Arc<DecisionReport>, usize)>,
    question_bytes: usize,
}

/// Decisions of all nodes, as far as they could be read.
#[derive(Debug, Default)]
pub struct OfCluster {
    /// Decisions, oldest first.
    pub decisions: Vec<Arc<DecisionReport>>,
    /// Whose decisions could not be read, and why.
    pub notes: Vec<String>,
}

impl Decisions {
    /// Starts the recorder of node `name`; decisions go to the queue that it returns. Files go to `directory`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start(
        name: &str,
        inbox: Arc<Inbox>,
        directory: &Path,
        pages: Arc<PageStore>,
    ) -> std::io::Result<(Arc<Self>, Sender<Taken>)> {
        let begun = Clock.wall_ms() / 1_000;
        let stored = pages.cluster().nodes.iter();
        let nodes = stored.map(|node| (node.id, node.name.clone())).collect();
        let decisions = Arc::new(Self {
            me: (name.into(), format!("{name}-{begun:x}")),
            ring: Mutex::default(),
            watchers: broadcast::channel(BEHIND).0,
            names: Mutex::new(Names { nodes, vms: BTreeMap::new() }),
            sharer: Sharer::start(pages)?,
        });
        let keeper = Keeper::start(directory)?;
        let (queue, taken) = channel();
        let recorder = Arc::clone(&decisions);
        let thread = std::thread::Builder::new().name("decisions".into());
        thread.spawn(move || recorder.record_all(&taken, &inbox, &keeper))?;
        Ok((decisions, queue))
    }

    /// Decisions to come.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<DecisionReport>> {
        self.watchers.subscribe()
    }

    /// The newest `limit` decisions of this incarnation that `wanted` wants, oldest first.
    #[must_use]
    pub fn last(
        &self,
        limit: usize,
        wanted: impl Fn(&DecisionReport) -> bool,
    ) -> Vec<Arc<DecisionReport>> {
        let ring = self.kept();
        let reports = ring.reports.iter().rev().map(|(report, _)| report);
        let mut found: Vec<_> =
            reports.filter(|report| wanted(report)).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// The same of all nodes, dead or alive, and of earlier incarnations: from shared storage. Blocks up to `patience`.
    #[must_use]
    pub fn last_of_cluster(
        &self,
        limit: usize,
        patience: Duration,
        wanted: impl Fn(&DecisionReport) -> bool,
    ) -> OfCluster {
        let nodes = self.names().nodes.clone().into_iter().collect();
        let (shared, notes) = self.sharer.read(nodes, patience);
        let own = self.last(KEPT, &wanted);
        let known = |report: &DecisionReport| own.iter().any(|own| own.id == report.id);
        let others = shared.into_iter().filter(|report| wanted(report) && !known(report));
        let mut decisions: Vec<_> = others.map(Arc::new).collect();
        decisions.extend(own);
        decisions.sort_by(|a, b| (a.wall_ms, &a.id).cmp(&(b.wall_ms, &b.id)));
        decisions.drain(..decisions.len().saturating_sub(limit));
        OfCluster { decisions, notes }
    }

    /// Learns the names in `snapshot`; a name is kept after its VM is gone.
    pub fn learn(&self, snapshot: &Snapshot) {
        let mut names = self.names();
        names.nodes.extend(snapshot.nodes.iter().map(|node| (node.id, node.name.clone())));
        names.vms.extend(snapshot.vms.iter().map(|vm| (vm.id.clone(), vm.name.clone())));
    }

    fn record_all(&self, taken: &Receiver<Taken>, inbox: &Inbox, keeper: &Keeper) {
        while let Ok(taken) = taken.recv() {
            if !self.knows(&taken.decision)
                && let Some(snapshot) = inbox.snapshot(PATIENCE)
            {
                self.learn(&snapshot);
            }
            self.record(self.report(taken), keeper);
        }
    }

    fn knows(&self, decision: &Decision) -> bool {
        let names = self.names();
        decision.node.is_none_or(|node| names.nodes.contains_key(&node))
            && decision.vm.as_ref().is_none_or(|vm| names.vms.contains_key(vm))
    }

    fn report(&self, Taken { decision, wall_ms }: Taken) -> DecisionReport {
        let names = self.names();
        let vm = |id: &VmId| names.vms.get(id).cloned().unwrap_or_else(|| id.to_string());
        let (me, incarnation) = &self.me;
        DecisionReport {
            id: format!("{incarnation}-{}", decision.number),
            recorded_by: me.clone(),
            number: decision.number,
            at_ms: decision.at.0,
            wall_ms,
            kind: decision.kind,
            node: decision.node.map(|id| names.node(id)),
            vm: decision.vm.as_ref().map(vm),
            vm_id: decision.vm,
            term: decision.term,
            stamp: decision.stamp.to_string(),
            text: decision.text,
            rule: decision.rule.into(),
            facts: decision.facts,
            reasons: decision.reasons.map(|reasons| names.reasons(reasons, incarnation)),
            policy: decision.policy.map(Arc::new),
        }
    }

    fn record(&self, report: DecisionReport, keeper: &Keeper) {
        log(&report);
        let line = serde_json::to_vec(&report).unwrap_or_default();
        let report = Arc::new(report);
        self.sharer.share(&report, &line);
        self.kept().push(Arc::clone(&report), line.len());
        keeper.keep(line);
        // Nobody watching is not an error.
        let _ = self.watchers.send(report);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn node(&self, id: NodeId) -> String {
        self.nodes.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    fn reasons(&self, reasons: Reasons, incarnation: &str) -> ReasonsReport {
        let Reasons { decider, candidates, corrections, record } = reasons;
        let candidate = |ranked: steadfast_sdk::wire::RankedNode| {
            let node = self.node(NodeId(ranked.node));
            CandidateReport { node, score: ranked.score }
        };
        ReasonsReport {
            decider,
            candidates: candidates.into_iter().map(candidate).collect(),
            corrections,
            record: format!("{incarnation}-{record}"),
        }
    }
}

impl Kept {
    fn push(&mut self, report: Arc<DecisionReport>, bytes: usize) {
        let bytes = if report.policy.is_some() { bytes } else { 0 };
        if self.reports.len() == KEPT
            && let Some((_, gone)) = self.reports.pop_front()
        {
            self.question_bytes -= gone;
        }
        self.question_bytes += bytes;
        self.reports.push_back((report, bytes));
        for (report, bytes) in &mut self.reports {
            if self.question_bytes <= QUESTION_BYTES {
                return;
            }
            if *bytes > 0 {
                *report = Arc::new(report.without_question());
                self.question_bytes -= std::mem::take(bytes);
            }
        }
    }
}

fn log(report: &DecisionReport) {
    let DecisionReport { kind, node, vm, term, text, rule, .. } = report;
    let (node, vm) = (node.as_deref().unwrap_or("-"), vm.as_deref().unwrap_or("-"));
    let wakes_someone =
        [Kind::Evicted, Kind::Reset, Kind::LastWords, Kind::Alarm, Kind::StartFailed];
    if wakes_someone.contains(kind) {
        tracing::warn!(?kind, node, vm, term, rule, text, "decision");
    } else {
        tracing::info!(?kind, node, vm, term, rule, text, "decision");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::decision::{Asked, PolicyRecord};
    use steadfast_sdk::wire::{NodePriorityQuestion, NodePriorityVerdict};

    fn report(number: u64) -> Arc<DecisionReport> {
        let (question, verdict) = (NodePriorityQuestion::default(), NodePriorityVerdict::default());
        let asked = Asked::NodePriority { question, verdict };
        let (decider, corrections) = (Default::default(), Vec::new());
        let policy = Some(Arc::new(PolicyRecord { decider, asked, corrections }));
        Arc::new(DecisionReport { number, policy, ..DecisionReport::sample() })
    }

    #[test]
    fn the_newest_decisions_are_kept_and_of_large_questions_only_the_last() {
        let mut kept = Kept::default();
        for number in 0..KEPT as u64 + 10 {
            kept.push(report(number), QUESTION_BYTES / 3);
        }
        let with_question = |(report, _): &&(Arc<DecisionReport>, usize)| report.policy.is_some();
        let whole: Vec<u64> =
            kept.reports.iter().filter(with_question).map(|(report, _)| report.number).collect();
        assert_eq!((kept.reports.len(), kept.reports[0].0.number), (KEPT, 10));
        assert_eq!(whole, [1_007, 1_008, 1_009]);
    }
}
