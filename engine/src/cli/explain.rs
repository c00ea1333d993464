//! `steadfast explain`: why a VM or a node is where and how it is, or how one decision was taken.

use super::client::{Client, Failure};
use super::format::{age, encoded, table, utc};
use super::{say, say_json};
use crate::api::wire::{DecisionReport, Explanation, ReasonsReport};
use std::fmt::Write as _;
use steadfast_core::decision::{Asked, PolicyRecord};
use steadfast_core::proactive::Mode;
use steadfast_core::snapshot::{NodeView, VmView};
use steadfast_sdk::wire::{NodeFacts, Score};

pub(super) async fn print(client: &Client, name: &str, json: bool) -> Result<(), Failure> {
    let explanation = ask(client, name).await?;
    match json {
        true => say_json(&explanation),
        false => say(&tell(&explanation)),
    }
}

pub(super) async fn ask(client: &Client, name: &str) -> Result<Explanation, Failure> {
    client.get(&format!("/v1/explain/{}", encoded(name))).await
}

/// The whole story in words.
pub(super) fn tell(explanation: &Explanation) -> String {
    let Explanation { name, vm, node, decisions, notes } = explanation;
    let mut text = match (vm, node) {
        (Some(vm), _) => about_vm(vm),
        (None, Some(node)) => about_node(node),
        (None, None) if decisions.iter().any(|report| report.id == *name) => String::new(),
        (None, None) => format!("{name} is not under high availability any more.\n"),
    };
    text.extend(decisions.iter().map(chapter));
    if decisions.is_empty() {
        text.push_str("No decision about it is on record.\n");
    }
    text.extend(notes.iter().map(|note| format!("\nNote: {note}\n")));
    text
}

/// A VM: what it does, and why.
fn about_vm(vm: &VmView) -> String {
    let mut text = format!("{} belongs to {} and is {}", vm.name, vm.owner.name, vm.state);
    text.push_str(&because(&vm.reason));
    let _ = writeln!(
        text,
        "It has {} MiB of memory, {} virtual CPUs and priority {}.",
        vm.memory_mib, vm.vcpus, vm.priority
    );
    text
}

/// A node: its status and its two factors.
fn about_node(node: &NodeView) -> String {
    let mut text = format!("{} has the status {}", node.name, node.status_text);
    text.push_str(&because(&node.reason));
    let _ = writeln!(
        text,
        "Its last beat is {} old, its page changed {} ago, and {} of its lease are left.",
        age(node.beat_age),
        age(node.page_age),
        age(node.lease_left)
    );
    if !node.armed {
        text.push_str(
            "Its watchdog is not armed: only a fence agent or itself can free its VMs.\n",
        );
    }
    if let Some(eviction) = &node.eviction {
        let _ = writeln!(text, "It is evicted: {eviction}.");
    }
    if let Some(words) = &node.last_words {
        let _ = writeln!(text, "Its last words: {words}.");
    }
    text + &risk(node)
}

/// What its equipment announces, and what proactive HA does about it, or would do.
fn risk(node: &NodeView) -> String {
    let Some(risk) = &node.risk else {
        return "Its risk policy has said nothing of it lately.\n".into();
    };
    let mut text = String::new();
    if let Some(report) = &risk.report {
        let _ = write!(text, "Its risk is {} of 1000", report.score);
        if !report.terms.is_empty() {
            let _ = write!(text, ": {}", report.reasons());
        }
        let (decider, age) = (&report.decider, age(Some(report.age)));
        let _ = writeln!(text, " (by {decider}, {age} ago).");
    }
    let mode = match risk.mode {
        Mode::Off => "is off",
        Mode::Shadow => "runs in shadow mode: nothing is moved",
        Mode::Warn => "warns only",
        Mode::Drain => "may drain nodes",
    };
    let _ = match risk.text.as_str() {
        "" => writeln!(text, "Proactive HA {mode}, and sees nothing to do."),
        what => writeln!(text, "Proactive HA {mode}: {what}."),
    };
    text
}

fn because(reason: &str) -> String {
    if reason.is_empty() { ".\n".into() } else { format!(": {reason}.\n") }
}

/// One decision: when, what, by which rule, on which facts, and what a policy said.
fn chapter(report: &DecisionReport) -> String {
    let mut text = format!("\n{}  {} [{}]\n", utc(report.wall_ms), report.text, report.rule);
    if !report.id.is_empty() {
        let _ = writeln!(text, "    decision {}, recorded by {}", report.id, report.recorded_by);
    }
    for (name, value) in &report.facts {
        let _ = writeln!(text, "    {name}: {value}");
    }
    if let Some(reasons) = &report.reasons {
        text.push_str(&told(reasons, report));
    }
    if let Some(record) = &report.policy {
        text.push_str(&question(record));
    }
    text
}

/// Who decided, and the scores of the chosen and the rejected.
fn told(reasons: &ReasonsReport, report: &DecisionReport) -> String {
    let decider = &reasons.decider;
    let mut text = format!(
        "    decided by {} {} ({}) in {} us with {} units of fuel, digest {:.8}\n",
        decider.name,
        decider.version,
        decider.kind.replace('_', " "),
        decider.micros,
        decider.fuel,
        decider.digest.to_string()
    );
    for failure in &decider.failures {
        let _ = writeln!(text, "    not by a better policy: {failure}");
    }
    let mut ranking = table(&["CANDIDATE", "SCORE", "BECAUSE OF", ""]);
    for candidate in &reasons.candidates {
        let chosen = report.node.as_ref() == Some(&candidate.node);
        ranking.add_row([
            candidate.node.clone(),
            candidate.score.value.to_string(),
            terms(&candidate.score),
            if chosen { "chosen" } else { "" }.into(),
        ]);
    }
    if !reasons.candidates.is_empty() {
        text.push_str(&indented(&ranking.trim_fmt()));
    }
    for correction in &reasons.corrections {
        let _ = writeln!(text, "    not followed: {correction}");
    }
    if reasons.record != report.id {
        let _ =
            writeln!(text, "    asked together with others: steadfast explain {}", reasons.record);
    }
    text
}

/// What the policy was asked.
fn question(record: &PolicyRecord) -> String {
    let (nodes, rest): (&[NodeFacts], String) = match &record.asked {
        Asked::NodePriority { question, .. } => {
            (std::slice::from_ref(&question.node), String::new())
        }
        Asked::Risk { question, .. } => {
            let readings = question.telemetry.len();
            (std::slice::from_ref(&question.node), format!(" and {readings} readings"))
        }
        Asked::Placement { question, .. } => {
            let (vms, residents) = (question.vms.len(), question.residents.len());
            (&question.nodes, format!(", {vms} VMs to place and {residents} that stay"))
        }
    };
    let mut facts =
        table(&["ASKED ABOUT", "STATUS", "MEMORY FREE", "CPUS", "LOAD", "FLAPS", "RISK"]);
    for node in nodes {
        facts.add_row([
            node.name.clone(),
            node.status.clone(),
            format!("{} of {} MiB", node.memory_free_mib, node.memory_mib),
            format!("{} for {} virtual", node.vcpus, node.vcpus_used),
            format!("{}.{:02}", node.load_permille / 1_000, node.load_permille % 1_000 / 10),
            node.flaps.to_string(),
            node.risk.to_string(),
        ]);
    }
    let count = nodes.len();
    format!("    the question: {count} nodes{rest}\n{}", indented(&facts.trim_fmt()))
}

fn indented(table: &str) -> String {
    table.lines().map(|line| format!("    {line}\n")).collect()
}

/// `free memory +700, load -20`.
fn terms(score: &Score) -> String {
    let terms = score.terms.iter().map(|term| format!("{} {:+}", term.name, term.value));
    terms.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::CandidateReport;
    use std::sync::Arc;
    use steadfast_core::event::Decider;
    use steadfast_core::ids::{NodeId, VmId};
    use steadfast_core::snapshot::NodeName;
    use steadfast_sdk::wire::{PlacementQuestion, PlacementVerdict, Term};

    fn vm() -> VmView {
        VmView {
            id: VmId("u1".into()),
            name: "web".into(),
            owner: NodeName { id: NodeId(2), name: "n2".into() },
            state: "starting".into(),
            reason: String::new(),
            priority: 500,
            memory_mib: 1024,
            vcpus: 2,
            labels: Default::default(),
            desired: Default::default(),
            migrating_to: None,
            home: None,
        }
    }

    fn reasons(record: &str) -> ReasonsReport {
        let term = |name: &'static str, value| Term { name: name.to_string().into(), value };
        let score = |value, terms| Score { value, terms };
        let chosen = score(680, vec![term("free memory", 700), term("load", -20)]);
        let candidate = |node: &str, score| CandidateReport { node: node.into(), score };
        let other = score(10, vec![term("free memory", 10)]);
        ReasonsReport {
            decider: Decider {
                name: "rack-aware".into(),
                version: "1.2.0".into(),
                kind: "last_good".into(),
                failures: vec!["active 1.3.0: out of fuel".into()],
                ..Decider::default()
            },
            candidates: vec![candidate("n2", chosen), candidate("n1", other)],
            corrections: vec!["n3 is not admitted".into()],
            record: record.into(),
        }
    }

    fn explained(decision: DecisionReport) -> Explanation {
        let vm = Some(vm());
        Explanation { name: "web".into(), vm, node: None, decisions: vec![decision], notes: vec![] }
    }

    #[test]
    fn a_vm_is_explained_with_the_scores_of_the_chosen_and_the_rejected() {
        let expected = "\
web belongs to n2 and is starting.
It has 1024 MiB of memory, 2 virtual CPUs and priority 500.

1970-01-01 00:00:00.000  web goes to n2 [PROTOCOL 5]
    decision n1-5-1, recorded by n1
    proof: fenced
    decided by rack-aware 1.2.0 (last good) in 0 us with 0 units of fuel, digest 00000000
    not by a better policy: active 1.3.0: out of fuel
    CANDIDATE  SCORE  BECAUSE OF
    n2         680    free memory +700, load -20  chosen
    n1         10     free memory +10
    not followed: n3 is not admitted
    asked together with others: steadfast explain n1-5-0
";
        let reasons = Some(reasons("n1-5-0"));
        let text = tell(&explained(DecisionReport { reasons, ..DecisionReport::sample() }));
        let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n") + "\n", expected);
    }

    #[test]
    fn a_decision_that_holds_its_question_shows_it() {
        let node = NodeFacts { name: "n2".into(), load_permille: 1_520, ..NodeFacts::default() };
        let question = PlacementQuestion { nodes: vec![node], ..Default::default() };
        let asked = Asked::Placement { question, verdict: PlacementVerdict::default() };
        let (decider, corrections) = (Decider::default(), Vec::new());
        let policy = Some(Arc::new(PolicyRecord { decider, asked, corrections }));
        let decision = DecisionReport { policy, ..DecisionReport::sample() };
        let text = tell(&Explanation { name: "n1-5-1".into(), vm: None, ..explained(decision) });
        assert!(text.contains("the question: 1 nodes, 0 VMs to place and 0 that stay"), "{text}");
        assert!(text.contains("1.52"), "{text}");
    }

    #[test]
    fn what_could_not_be_read_is_said() {
        let note = "shared storage did not answer".to_string();
        let silent = Explanation {
            decisions: vec![],
            notes: vec![note],
            ..explained(DecisionReport::sample())
        };
        let text = tell(&silent);
        assert!(text.contains("No decision") && text.contains("Note: shared storage"), "{text}");
    }
}
