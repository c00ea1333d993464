//! Whether a verdict has the shape that its question allows: only ids that were given, none twice, scores in range that are the
//! sum of their terms. The host, the laws and an author's tests all ask here.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::fmt;

use crate::abi::Wire;
use crate::ids::Ids;
use crate::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedVm,
    RiskQuestion, RiskVerdict, Score,
};

/// A question, the verdict that answers it, and what that may say.
pub trait Question: Wire<Verdict: Clone + PartialEq + fmt::Debug> + Clone + fmt::Debug {
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
    const KIND: &'static str = "node_priority";

    fn check(&self, verdict: &NodePriorityVerdict) -> Result<(), Fault> {
        score(|| "score".to_string(), &verdict.score, Score::MIN, Score::MAX)
    }
}

impl Question for RiskQuestion {
    const KIND: &'static str = "risk";

    fn check(&self, verdict: &RiskVerdict) -> Result<(), Fault> {
        score(|| "score".to_string(), &verdict.score, 0, 1000)
    }
}

impl Question for PlacementQuestion {
    const KIND: &'static str = "placement";

    fn check(&self, verdict: &PlacementVerdict) -> Result<(), Fault> {
        let mut vms = Ids::of(&self.vms);
        let mut seen = vec![false; vms.len()];
        let mut nodes = Nodes::of(self);
        for (at, ranked) in verdict.vms.iter().enumerate() {
            let path = || format!("vms[{at}]");
            let Some(number) = vms.find(&ranked.vm) else {
                return fault(path(), format!("VM {:?} was not asked about", ranked.vm));
            };
            if core::mem::replace(&mut seen[number], true) {
                return fault(path(), format!("VM {:?} stands there twice", ranked.vm));
            }
            candidates(at, ranked, &mut nodes)?;
        }
        Ok(())
    }
}

/// Nodes of a question by id, each with the number of the VM in whose ranking it was seen last.
struct Nodes(Vec<(u32, usize)>);

impl Nodes {
    fn of(question: &PlacementQuestion) -> Self {
        let mut nodes: Vec<_> = question.nodes.iter().map(|node| (node.id, usize::MAX)).collect();
        nodes.sort_unstable();
        Self(nodes)
    }

    /// In whose ranking the node was seen last, now that it is seen in that of `vm`.
    fn see(&mut self, node: u32, vm: usize) -> Option<usize> {
        let at = self.0.binary_search_by_key(&node, |(id, _)| *id).ok()?;
        Some(core::mem::replace(&mut self.0[at].1, vm))
    }
}

fn candidates(vm: usize, ranked: &RankedVm, nodes: &mut Nodes) -> Result<(), Fault> {
    for (at, candidate) in ranked.nodes.iter().enumerate() {
        let (node, path) = (candidate.node, || format!("vms[{vm}].nodes[{at}]"));
        match nodes.see(node, vm) {
            None => return fault(path(), format!("node {node} is not one of the question's")),
            Some(last) if last == vm => {
                return fault(path(), format!("node {node} stands there twice"));
            }
            Some(_) => {}
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
