//! Whether a verdict has the shape its question allows: only ids that were given, none twice, scores in
//! range that are the sum of their terms. The core checks again; legality of a start is the core's alone.

use std::collections::BTreeSet;

use steadfast_sdk::wire::{
    NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedVm, RiskVerdict, Score,
};

use super::{Class, Failure, Stage};

pub(super) fn node_priority(verdict: &NodePriorityVerdict) -> Result<(), Failure> {
    score(|| "verdict".to_string(), &verdict.score, Score::MIN, Score::MAX)
}

pub(super) fn risk(verdict: &RiskVerdict) -> Result<(), Failure> {
    score(|| "verdict".to_string(), &verdict.score, 0, 1000)
}

pub(super) fn placement(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
) -> Result<(), Failure> {
    let vms: BTreeSet<&str> = question.vms.iter().map(|vm| vm.id.as_str()).collect();
    let nodes: BTreeSet<u32> = question.nodes.iter().map(|node| node.id).collect();
    let mut seen = BTreeSet::new();
    for (at, ranked) in verdict.vms.iter().enumerate() {
        let path = format!("vms[{at}]");
        if !vms.contains(ranked.vm.as_str()) {
            return Err(bad(&path, format!("VM {:?} was not asked about", ranked.vm)));
        }
        if !seen.insert(ranked.vm.as_str()) {
            return Err(bad(&path, format!("VM {:?} stands there twice", ranked.vm)));
        }
        candidates(&path, ranked, &nodes)?;
    }
    Ok(())
}

fn candidates(path: &str, ranked: &RankedVm, nodes: &BTreeSet<u32>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for (at, candidate) in ranked.nodes.iter().enumerate() {
        let (node, path) = (candidate.node, || format!("{path}.nodes[{at}]"));
        if !nodes.contains(&node) {
            return Err(bad(&path(), format!("node {node} is not one of the question's")));
        }
        if !seen.insert(node) {
            return Err(bad(&path(), format!("node {node} stands there twice")));
        }
        score(path, &candidate.score, Score::MIN, Score::MAX)?;
    }
    Ok(())
}

fn score(path: impl Fn() -> String, score: &Score, low: i64, high: i64) -> Result<(), Failure> {
    if !(low..=high).contains(&score.value) {
        return Err(bad(&path(), format!("score {} is not in {low}..={high}", score.value)));
    }
    if !score.is_sound() {
        let sum: i128 = score.terms.iter().map(|term| i128::from(term.value)).sum();
        return Err(bad(
            &path(),
            format!("score {} is not the sum of its terms, {sum}", score.value),
        ));
    }
    Ok(())
}

fn bad(path: &str, fault: String) -> Failure {
    Failure::new(
        Stage::Call,
        Class::BadOutput,
        format!("{path}: {fault}"),
        "correct the policy: answer only with what the question names, each once",
    )
}
