//! Recorded decisions, asked again: of the policy that took them, which must say the same to the byte, or of a candidate, to see what it
//! would have done.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use steadfast_core::decision::{Asked, PolicyRecord};
use steadfast_core::ids::NodeId;
use steadfast_core::placement::places;
use steadfast_sdk::wire::{NodeFacts, PlacementQuestion, PlacementVerdict, Score};

use crate::api::wire::DecisionReport;

use super::kind::Question;
use super::{Failure, Kind, Measured, Workbench};

/// A recorded decision with its whole question.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Id of the decision.
    pub id: String,
    /// The question, the verdict, and who gave it.
    pub record: Arc<PolicyRecord>,
}

/// Reads decisions from a file of JSON lines, or from all `decisions*.jsonl` of a directory, the oldest first. Decisions without a
/// question, and lines that are no decisions, are passed over.
///
/// # Errors
/// There is no such file, or it cannot be read.
pub fn read_recorded(path: &Path) -> Result<Vec<Recorded>> {
    let mut found = Vec::new();
    for file in files(path)? {
        let open = std::fs::File::open(&file);
        let open = open.with_context(|| format!("cannot read {}", file.display()))?;
        for line in BufReader::new(open).split(b'\n') {
            let line = line.with_context(|| format!("cannot read {}", file.display()))?;
            let report = serde_json::from_slice::<DecisionReport>(&line).ok();
            let record = report.and_then(|report| Some((report.id, report.policy?)));
            found.extend(record.map(|(id, record)| Recorded { id, record }));
        }
    }
    Ok(found)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path);
    let entries = entries.with_context(|| format!("cannot read {}", path.display()))?;
    let is_ours = |name: &str| name.starts_with("decisions") && name.ends_with(".jsonl");
    let names = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = names
        .filter(|path| is_ours(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    ensure!(
        !files.is_empty(),
        "no decisions*.jsonl in {}: name the state directory of an agent, or a file of JSON lines",
        path.display()
    );
    // `decisions.3.jsonl` is older than `decisions.1.jsonl`, and `decisions.jsonl` the newest.
    files.sort();
    files.reverse();
    if let Some(newest) = files.iter().position(|path| path.ends_with("decisions.jsonl")) {
        let newest = files.remove(newest);
        files.push(newest);
    }
    Ok(files)
}

/// What came of asking the same policy again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replayed {
    /// The same bytes, with the same fuel.
    Same,
    /// The same bytes, with other fuel: another version of the agent compiled it.
    OtherFuel {
        /// As recorded.
        recorded: u64,
        /// Now.
        now: u64,
    },
    /// Another verdict.
    Other {
        /// As recorded, as JSON.
        recorded: String,
        /// Now.
        now: String,
    },
    /// It has no verdict now.
    Failed(Failure),
    /// It was another policy's decision: none of those that are here.
    Unknown,
}

/// What a candidate would have done with one VM or node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Id of the decision.
    pub decision: String,
    /// Name of the VM or node.
    pub about: String,
    /// What was decided: the name of a node, or a score.
    pub recorded: String,
    /// What the candidate decides.
    pub candidate: String,
}

/// Policies that are asked again.
#[derive(Debug, Default)]
pub struct Player(Vec<Workbench>);

impl Player {
    /// With these modules; the agent's own are always there.
    #[must_use]
    pub fn new(modules: Vec<Workbench>) -> Self {
        Self(modules)
    }

    /// Asks whoever decided.
    #[must_use]
    pub fn replay(&self, recorded: &Recorded) -> Replayed {
        let record = &*recorded.record;
        match &record.asked {
            Asked::NodePriority { question, verdict } => self.again(question, verdict, record),
            Asked::Placement { question, verdict } => self.again(question, verdict, record),
            Asked::Risk { question, verdict } => self.again(question, verdict, record),
        }
    }

    fn again<Q: Question>(
        &self,
        question: &Q,
        was: &Q::Verdict,
        record: &PolicyRecord,
    ) -> Replayed {
        if record.decider.kind == "built_in" {
            return compare(was, &question.builtin(), (0, 0));
        }
        let is_it = |bench: &&Workbench| bench.digest() == record.decider.digest.0;
        let Some(bench) = self.0.iter().find(is_it) else { return Replayed::Unknown };
        match bench.ask(question) {
            Ok(Measured { verdict, fuel, .. }) => {
                compare(was, &verdict, (record.decider.fuel, fuel))
            }
            Err(failure) => Replayed::Failed(failure),
        }
    }
}

fn compare<V: Serialize>(was: &V, is: &V, (recorded, now): (u64, u64)) -> Replayed {
    let text = |verdict: &V| serde_json::to_string(verdict).unwrap_or_default();
    let (old, new) = (text(was), text(is));
    match (old == new, recorded == now) {
        (true, true) => Replayed::Same,
        (true, false) => Replayed::OtherFuel { recorded, now },
        (false, _) => Replayed::Other { recorded: old, now: new },
    }
}

impl Workbench {
    /// How many VMs or nodes a recorded question is about, and what this candidate would have done otherwise; `None`: it does not
    /// decide that kind.
    ///
    /// # Errors
    /// It has no verdict on this question.
    #[must_use]
    pub fn differs(&self, recorded: &Recorded) -> Option<Result<(usize, Vec<Change>), Failure>> {
        let (id, decides) = (&recorded.id, |kind| self.kinds().contains(&kind));
        Some(match &recorded.record.asked {
            Asked::Placement { question, verdict } if decides(Kind::Placement) => {
                self.ask(question).map(|asked| moved(question, verdict, &asked.verdict, id))
            }
            Asked::NodePriority { question, verdict } if decides(Kind::NodePriority) => {
                let asked = self.ask(question);
                asked.map(|is| rescored(&question.node, (&verdict.score, &is.verdict.score), id))
            }
            Asked::Risk { question, verdict } if decides(Kind::Risk) => {
                let asked = self.ask(question);
                asked.map(|is| rescored(&question.node, (&verdict.score, &is.verdict.score), id))
            }
            _ => return None,
        })
    }
}

/// How many VMs the question has, and those that would stand elsewhere: by the host's rules, which correct every verdict.
fn moved(
    question: &PlacementQuestion,
    was: &PlacementVerdict,
    is: &PlacementVerdict,
    decision: &str,
) -> (usize, Vec<Change>) {
    let builtin = question.builtin();
    let (before, after) = (places(question, was, &builtin), places(question, is, &builtin));
    let nodes: BTreeMap<u32, &str> =
        question.nodes.iter().map(|node| (node.id, node.name.as_str())).collect();
    let name = |place: Option<NodeId>| {
        let node = place
            .map(|node| nodes.get(&node.0).map_or_else(|| node.to_string(), |it| (*it).into()));
        node.unwrap_or_else(|| "(waits)".into())
    };
    let changed = question.vms.iter().filter_map(|vm| {
        let id = steadfast_core::ids::VmId(vm.id.clone());
        let (was, is) = (before.get(&id).copied().flatten(), after.get(&id).copied().flatten());
        (was != is).then(|| Change {
            decision: decision.into(),
            about: if vm.name.is_empty() { vm.id.clone() } else { vm.name.clone() },
            recorded: name(was),
            candidate: name(is),
        })
    });
    (question.vms.len(), changed.collect())
}

fn rescored(node: &NodeFacts, (was, is): (&Score, &Score), decision: &str) -> (usize, Vec<Change>) {
    let change = Change {
        decision: decision.into(),
        about: node.name.clone(),
        recorded: was.value.to_string(),
        candidate: is.value.to_string(),
    };
    (1, if was.value == is.value { Vec::new() } else { vec![change] })
}
