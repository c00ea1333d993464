//! What really ran where, whatever agents believe: the demonstration's own witness.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use steadfast_core::ids::NodeId;
use steadfast_core::time::Instant;

/// Runs and lines that are kept.
const KEPT: usize = 10_000;

/// One run of a VM on a node, in milliseconds since the demonstration began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the VM.
    pub vm: String,
    /// Name of the node.
    pub node: String,
    /// It began to execute.
    pub began_ms: u64,
    /// It executes no more.
    pub ended_ms: Option<u64>,
}

/// Something that happened, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts the lines, from 1.
    pub number: u64,
    /// Milliseconds since the demonstration began.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// Everything that executed.
#[derive(Debug, Clone)]
pub struct Truth {
    began: Instant,
    runs: VecDeque<(NodeId, Run)>,
    lines: VecDeque<Line>,
    told: u64,
    twice: Vec<String>,
}

impl Truth {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, runs: VecDeque::new(), lines: VecDeque::new(), told: 0, twice: Vec::new() }
    }

    /// All runs, the oldest first.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().map(|(_, run)| run)
    }

    /// Each time that a VM executed in two places: none, ever.
    #[must_use]
    pub fn twice(&self) -> &[String] {
        &self.twice
    }

    /// Lines after the one with this number.
    pub fn lines_after(&self, number: u64) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.number > number)
    }

    /// Where `vm` executes now.
    pub fn places(&self, vm: &str) -> Vec<&str> {
        let here = |run: &&Run| run.vm == vm && run.ended_ms.is_none();
        self.runs().filter(here).map(|run| run.node.as_str()).collect()
    }

    /// Milliseconds since the demonstration began.
    pub(super) fn at(&self, now: Instant) -> u64 {
        now.since(self.began).0
    }

    pub(super) fn note(&mut self, now: Instant, text: String) {
        self.told += 1;
        let line = Line { number: self.told, at_ms: self.at(now), text };
        self.lines.push_back(line);
        self.lines.drain(..self.lines.len().saturating_sub(KEPT));
    }

    /// `vm` begins to execute; false if it does so elsewhere already.
    pub(super) fn began(&mut self, now: Instant, (node, name): (NodeId, &str), vm: &str) -> bool {
        let elsewhere: Vec<&str> = self.places(vm);
        let alone = elsewhere.is_empty();
        if !alone {
            let text = format!("{vm} begins on {name} and runs on {}", elsewhere.join(", "));
            self.twice.push(text);
        }
        let (vm, began_ms) = (vm.to_owned(), self.at(now));
        self.runs.push_back((node, Run { vm, node: name.to_owned(), began_ms, ended_ms: None }));
        if self.runs.len() > KEPT
            && let Some(oldest) = self.runs.iter().position(|(_, run)| run.ended_ms.is_some())
        {
            self.runs.remove(oldest);
        }
        alone
    }

    /// `vm` executes on `node` no more.
    pub(super) fn ended(&mut self, now: Instant, node: NodeId, vm: &str) {
        let at = self.at(now);
        let open = |(there, run): &&mut (NodeId, Run)| {
            *there == node && run.vm == vm && run.ended_ms.is_none()
        };
        if let Some((_, run)) = self.runs.iter_mut().find(open) {
            run.ended_ms = Some(at);
        }
    }
}
