//! Decisions for people: the last ones in memory, a live stream of them, and a readable log.
//!
//! Runs on a thread of its own; the lease path only queues.

use super::Inbox;
use crate::api::wire::{DeciderName, DecisionReport};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::decision::{Decision, Kind};
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::snapshot::Snapshot;
use tokio::sync::broadcast;

/// Decisions kept in memory.
const KEPT: usize = 1_000;
/// Decisions that a slow watcher may be behind.
const BEHIND: usize = 1_024;
/// How long names are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// The last decisions, and whoever watches them.
#[derive(Debug)]
pub struct Decisions {
    ring: Mutex<VecDeque<Arc<DecisionReport>>>,
    watchers: broadcast::Sender<Arc<DecisionReport>>,
    names: Mutex<Names>,
}

/// A decision and when it was taken, for people.
pub(super) struct Taken {
    pub(super) decision: Box<Decision>,
    pub(super) wall_ms: u64,
}

#[derive(Debug, Default)]
struct Names {
    nodes: BTreeMap<NodeId, String>,
    vms: BTreeMap<VmId, String>,
}

impl Decisions {
    /// Starts the recorder; decisions go to the queue that it returns.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(inbox: Arc<Inbox>) -> std::io::Result<(Arc<Self>, Sender<Taken>)> {
        let decisions = Arc::new(Self {
            ring: Mutex::default(),
            watchers: broadcast::channel(BEHIND).0,
            names: Mutex::default(),
        });
        let (queue, taken) = channel();
        let recorder = Arc::clone(&decisions);
        let thread = std::thread::Builder::new().name("decisions".into());
        thread.spawn(move || recorder.record_all(&taken, &inbox))?;
        Ok((decisions, queue))
    }

    /// Decisions to come.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<DecisionReport>> {
        self.watchers.subscribe()
    }

    /// The newest `limit` decisions that `wanted` wants, oldest first.
    #[must_use]
    pub fn last(
        &self,
        limit: usize,
        wanted: impl Fn(&DecisionReport) -> bool,
    ) -> Vec<Arc<DecisionReport>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = ring.iter().rev().filter(|report| wanted(report)).take(limit).cloned();
        let mut found: Vec<_> = newest.collect();
        found.reverse();
        found
    }

    /// Learns the names in `snapshot`; a name is kept after its VM is gone.
    pub fn learn(&self, snapshot: &Snapshot) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.nodes.extend(snapshot.nodes.iter().map(|node| (node.id, node.name.clone())));
        names.vms.extend(snapshot.vms.iter().map(|vm| (vm.id.clone(), vm.name.clone())));
    }

    fn record_all(&self, taken: &Receiver<Taken>, inbox: &Inbox) {
        while let Ok(taken) = taken.recv() {
            if !self.knows(&taken.decision)
                && let Some(snapshot) = inbox.snapshot(PATIENCE)
            {
                self.learn(&snapshot);
            }
            self.record(self.report(taken));
        }
    }

    fn knows(&self, decision: &Decision) -> bool {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        decision.node.is_none_or(|node| names.nodes.contains_key(&node))
            && decision.vm.as_ref().is_none_or(|vm| names.vms.contains_key(vm))
    }

    fn report(&self, Taken { decision, wall_ms }: Taken) -> DecisionReport {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let node = |id: NodeId| names.nodes.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let vm = |id: &VmId| names.vms.get(id).cloned().unwrap_or_else(|| id.to_string());
        DecisionReport {
            number: decision.number,
            at_ms: decision.at.0,
            wall_ms,
            kind: decision.kind,
            node: decision.node.map(node),
            vm: decision.vm.as_ref().map(vm),
            vm_id: decision.vm,
            term: decision.term,
            stamp: decision.stamp.to_string(),
            text: decision.text,
            rule: decision.rule.into(),
            facts: decision.facts,
            decider: decision.placement.as_ref().map(|record| DeciderName::of(&record.decider)),
            placement: decision.placement,
        }
    }

    fn record(&self, report: DecisionReport) {
        log(&report);
        let report = Arc::new(report);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&report));
        drop(ring);
        // Nobody watching is not an error.
        let _ = self.watchers.send(report);
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
