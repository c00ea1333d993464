//! Whether a verdict has the shape that its question allows: only ids that were given, none twice, scores in range that are the
//! sum of their terms. The host, the laws and an author's tests all ask here.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
};
use core::fmt;
use serde::{Serialize, de::DeserializeOwned};

use crate::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedVm,
    RiskQuestion, RiskVerdict, Score,
};

/// A question, the verdict that answers it, and what that may say.
pub trait Question: Serialize + DeserializeOwned + Clone + fmt::Debug {
    /// What answers it.
    type Verdict: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug;

    /// Its kind in the words of the ABI: `node_priority`, `placement` or `risk`.
    const KIND: &'static str;

    /// Whether the verdict has the shape that this question allows.
    ///
    /// # Errors
    /// The first thing in it that is wrong, with its place.
    fn check(&self, verdict: &Self::Verdict) -> Result<(), Fault>;
}

/// What is wrong with a verdict, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place in the verdict, e.g. `vms[3].nodes[0]`.
    pub path: String,
    /// What is wrong there, in words.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

impl core::error::Error for Fault {}

impl Question for NodePriorityQuestion {
    type Verdict = NodePriorityVerdict;
    const KIND: &'static str = "node_priority";

    fn check(&self, verdict: &NodePriorityVerdict) -> Result<(), Fault> {
        score(|| "score".to_string(), &verdict.score, Score::MIN, Score::MAX)
    }
}

impl Question for RiskQuestion {
    type Verdict = RiskVerdict;
    const KIND: &'static str = "risk";

    fn check(&self, verdict: &RiskVerdict) -> Result<(), Fault> {
        score(|| "score".to_string(), &verdict.score, 0, 1000)
    }
}

impl Question for PlacementQuestion {
    type Verdict = PlacementVerdict;
    const KIND: &'static str = "placement";

    fn check(&self, verdict: &PlacementVerdict) -> Result<(), Fault> {
        let vms: BTreeSet<&str> = self.vms.iter().map(|vm| vm.id.as_str()).collect();
        let nodes: BTreeSet<u32> = self.nodes.iter().map(|node| node.id).collect();
        let mut seen = BTreeSet::new();
        for (at, ranked) in verdict.vms.iter().enumerate() {
            let path = || format!("vms[{at}]");
            if !vms.contains(ranked.vm.as_str()) {
                return fault(path(), format!("VM {:?} was not asked about", ranked.vm));
            }
            if !seen.insert(ranked.vm.as_str()) {
                return fault(path(), format!("VM {:?} stands there twice", ranked.vm));
            }
            candidates(at, ranked, &nodes)?;
        }
        Ok(())
    }
}

fn candidates(vm: usize, ranked: &RankedVm, nodes: &BTreeSet<u32>) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for (at, candidate) in ranked.nodes.iter().enumerate() {
        let (node, path) = (candidate.node, || format!("vms[{vm}].nodes[{at}]"));
        if !nodes.contains(&node) {
            return fault(path(), format!("node {node} is not one of the question's"));
        }
        if !seen.insert(node) {
            return fault(path(), format!("node {node} stands there twice"));
        }
        score(|| path() + ".score", &candidate.score, Score::MIN, Score::MAX)?;
    }
    Ok(())
}

fn score(path: impl Fn() -> String, score: &Score, low: i64, high: i64) -> Result<(), Fault> {
    if !(low..=high).contains(&score.value) {
        return fault(path(), format!("score {} is not in {low}..={high}", score.value));
    }
    if !score.is_sound() {
        let sum: i128 = score.terms.iter().map(|term| i128::from(term.value)).sum();
        return fault(path(), format!("score {} is not the sum of its terms, {sum}", score.value));
    }
    Ok(())
}

fn fault(path: String, what: String) -> Result<(), Fault> {
    Err(Fault { path, what })
}
