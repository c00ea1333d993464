//! `steadfast policy`: who decides, and who would.

use super::args::{NewPolicy, PolicyCommand};
use super::client::{Client, Failure};
use super::format::{table, utc};
use super::{say, say_json};
use crate::api::wire::{Evaluate, RollBack, RolledBack};
use crate::policy::{
    BreakerState, Evaluation, Headroom, Kind, KindStatus, PoliciesStatus, PolicyStatus, StageTime,
};
use crate::scaffold::{self, New};
use std::fmt::Write as _;
use std::path::Path;

pub(super) async fn run(
    client: &Client,
    command: &PolicyCommand,
    json: bool,
) -> Result<(), Failure> {
    match command {
        PolicyCommand::List => list(client, json).await,
        PolicyCommand::Show { kind } => {
            let status: KindStatus = client.get(&route(*kind, "")).await?;
            if json { say_json(&status) } else { say(&details(&status)) }
        }
        PolicyCommand::Rollback { kind, undo } => roll_back(client, *kind, *undo, json).await,
        PolicyCommand::Evaluate { kind, question, policy } => {
            let question = read_question(question)?;
            let body = Evaluate { question, policy: policy.clone() };
            let told: Evaluation = client.post(&route(*kind, "/evaluate"), &body).await?;
            if json { say_json(&told) } else { say(&evaluated(&told)) }
        }
        // Those that need no agent.
        _ => Ok(()),
    }
}

fn route(kind: Kind, what: &str) -> String {
    format!("/v1/policies/{kind}{what}")
}

fn read_question(path: &Path) -> Result<serde_json::Value, Failure> {
    let text = match path.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(path),
    };
    let usage = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    serde_json::from_str(&text.map_err(|error| usage(error.to_string()))?)
        .map_err(|error| usage(error.to_string()))
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let status: PoliciesStatus = client.get("/v1/policies").await?;
    if json { say_json(&status) } else { say(&render(&status)) }
}

async fn roll_back(client: &Client, kind: Kind, undo: bool, json: bool) -> Result<(), Failure> {
    let route = route(kind, "/rollback");
    let told: RolledBack = if undo {
        client.delete(&route).await?
    } else {
        client.post(&route, &RollBack::default()).await?
    };
    if json {
        return say_json(&told);
    }
    let RolledBack { kind, from, decides } = &told;
    say(&match from {
        Some(from) => format!(
            "{kind}: {decides} instead of {from} on this node, until the folder says something else\n"
        ),
        None => format!("{kind}: the rollback is taken back, {decides} is in its place\n"),
    })
}

/// A kind by its name; a dash is as good as an underscore.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let wanted = text.replace('-', "_");
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == wanted);
    found.ok_or_else(|| format!("expected {}, got {text:?}", Kind::ALL.map(Kind::name).join(", ")))
}

pub(super) fn create(new: &NewPolicy) -> Result<(), Failure> {
    let NewPolicy { name, kinds, sdk, into } = new;
    let new =
        New { name: name.clone(), kinds: kinds.clone(), sdk: sdk.clone(), into: into.clone() };
    let folder = scaffold::create(&new).map_err(Failure::Other)?;
    say(&format!(
        "wrote {0}; next:\n  cd {0}\n  cargo test\n  cargo build --release --target wasm32-unknown-unknown\n",
        folder.display()
    ))
}

fn render(status: &PoliciesStatus) -> String {
    let header =
        ["KIND", "DECIDES", "POLICY", "FILE", "STATE", "DIGEST", "NODES", "CALLS", "FAILED", "P99"];
    let mut table = table(&header);
    let kinds = status.kinds.iter().flat_map(|kind| kind.policies.iter().map(move |it| (kind, it)));
    for (kind, policy) in kinds {
        table.add_row([
            kind.kind.to_string(),
            if policy.deciding { "yes" } else { "" }.into(),
            format!("{} {}", policy.name, policy.version),
            if policy.file.is_empty() { "(built in)" } else { &policy.file }.into(),
            state(policy),
            policy.digest.chars().take(8).collect(),
            users(kind, policy),
            policy.calls.to_string(),
            policy.failures.to_string(),
            policy.p99_micros.map(|micros| format!("{micros} us")).unwrap_or_default(),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for kind in &status.kinds {
        let _ = writeln!(text, "{}: {}", kind.kind, agreement(kind));
    }
    status.all().filter_map(trouble).for_each(|line| text.push_str(&line));
    text
}

fn agreement(kind: &KindStatus) -> String {
    let mut text = kind.agreement.clone();
    if let Some(bound) = &kind.bind {
        let _ = write!(text, "; bound to {bound}");
    }
    if kind.ambiguous {
        text.push_str("; several policies claim it: bind one with policies.bind");
    }
    if let Some(from) = &kind.rolled_back_from {
        let _ = write!(text, "; rolled back from {}", from.chars().take(8).collect::<String>());
    }
    text
}

/// How many live nodes use it, of how many.
fn users(kind: &KindStatus, policy: &PolicyStatus) -> String {
    let live = || kind.peers.iter().filter(|peer| peer.live);
    let using = live().filter(|peer| peer.active == policy.digest).count();
    format!("{using}/{}", live().count())
}

fn state(policy: &PolicyStatus) -> String {
    let state = word(&policy.state);
    if policy.shadow { format!("{state}, shadow") } else { state }
}

fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().replace('_', " ")
}

fn trouble(policy: &PolicyStatus) -> Option<String> {
    let error = policy.last_error.as_ref()?;
    let crate::policy::Failure { stage, class, reason, remedy } = error;
    Some(format!("{}: {class} at {stage}: {reason}; {remedy}\n", policy.file))
}

fn details(status: &KindStatus) -> String {
    let mut text = format!("{}: {}\n", status.kind, agreement(status));
    for peer in &status.peers {
        let brief = |digest: &str| match digest.get(..8) {
            Some(brief) => brief.to_string(),
            None => "-".into(),
        };
        let live = if peer.live { "" } else { " (not heard)" };
        let (staged, active) = (brief(&peer.staged), brief(&peer.active));
        let _ = writeln!(text, "  {}: uses {active}, holds {staged}{live}", peer.node);
    }
    for policy in &status.policies {
        text.push('\n');
        text.push_str(&detail(policy));
    }
    if !status.differences.is_empty() {
        text.push_str("\nWhat shadows said otherwise:\n");
    }
    for it in &status.differences {
        let _ = writeln!(
            text,
            "  {} {} against {}: {}",
            utc(it.wall_ms),
            it.shadow,
            it.decider,
            it.text
        );
    }
    text
}

fn detail(policy: &PolicyStatus) -> String {
    let decides = if policy.deciding { ", decides" } else { "" };
    let mut text = format!("{} {} ({}{decides})\n", policy.name, policy.version, state(policy));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    line("about", policy.about.clone());
    line("digest", policy.digest.clone());
    if policy.generation > 0 {
        line("file", format!("{}, {} bytes", policy.file, policy.module_bytes));
        let loaded = utc(policy.loaded_ms);
        line("generation", format!("{}, loaded {loaded}", policy.generation));
        line("stages", stages(&policy.stages));
        line("laws", format!("kept on {} generated questions", policy.laws_tried));
    }
    if let Some(headroom) = &policy.headroom {
        line("rehearsal", rehearsal(headroom));
    }
    let micros = |value: Option<u64>| value.map_or("-".into(), |value| format!("{value} us"));
    let (half, most) = (micros(policy.p50_micros), micros(policy.p99_micros));
    let (calls, failures) = (policy.calls, policy.failures);
    line(
        "calls",
        format!("{calls} answered, {failures} failed, half within {half}, 99 % within {most}"),
    );
    if policy.breaker.state != BreakerState::Closed {
        let left = policy.breaker.tried_again_in_ms.unwrap_or(0) / 1_000;
        let row = policy.breaker.failures_in_row;
        line(
            "breaker",
            format!("{row} failures in a row; tried again in {left} s, or when replaced"),
        );
    }
    let shadowed = &policy.shadowed;
    if policy.shadow || shadowed.asked + shadowed.failed > 0 {
        let (asked, differed) = (shadowed.asked, shadowed.differed);
        let (failed, skipped) = (shadowed.failed, shadowed.skipped);
        line(
            "shadow",
            format!("{asked} answered, {differed} otherwise, {failed} failed, {skipped} skipped"),
        );
    }
    if let Some(error) = &policy.last_error {
        line("last error", error.to_string());
    }
    text
}

/// `read 0.3 ms, compile 120.0 ms`.
pub(super) fn stages(stages: &[StageTime]) -> String {
    let told: Vec<String> = stages
        .iter()
        .map(|it| {
            let failed = if it.passed { "" } else { " FAILED" };
            format!("{} {}.{} ms{failed}", it.stage, it.micros / 1_000, it.micros % 1_000 / 100)
        })
        .collect();
    told.join(", ")
}

/// What the rehearsal used of its limits.
pub(super) fn rehearsal(it: &Headroom) -> String {
    let times = |percent: u64| format!("{}.{:02}", percent / 100, percent % 100);
    format!(
        "{} nodes, {} VMs, {} KiB: fuel {} of {} ({} times), memory {} of {} KiB ({} times), {}.{} ms",
        it.nodes,
        it.vms,
        it.question_bytes / 1_024,
        it.fuel,
        it.fuel_limit,
        times(it.fuel_percent()),
        it.memory_bytes / 1_024,
        it.memory_limit_bytes / 1_024,
        times(it.memory_percent()),
        it.micros / 1_000,
        it.micros % 1_000 / 100,
    )
}

fn evaluated(told: &Evaluation) -> String {
    let Evaluation { policy, version, fuel, memory_bytes, micros, .. } = told;
    let mut text =
        format!("{policy} {version}: {fuel} fuel, {} KiB, {micros} us\n", memory_bytes / 1_024);
    match (&told.verdict, &told.failure) {
        (Some(verdict), _) => {
            let shown = serde_json::to_string_pretty(verdict).unwrap_or_default();
            let _ = writeln!(text, "{shown}");
        }
        (None, Some(failure)) => {
            let _ = writeln!(text, "{failure}");
        }
        (None, None) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Class, Peer, Stage, State};

    #[test]
    fn a_refused_policy_says_why_and_what_to_do() {
        let error = crate::policy::Failure::new(
            Stage::Read,
            Class::Refused,
            "the file is truncated",
            "copy it again",
        );
        let failed = PolicyStatus {
            file: "a.wasm".into(),
            state: State::Failed,
            last_error: Some(error),
            ..<_>::default()
        };
        let text = render(&PoliciesStatus { kinds: vec![], failed: vec![failed] });
        assert!(text.contains("a.wasm: refused at read: the file is truncated; copy it again"));
    }

    #[test]
    fn the_list_shows_how_many_nodes_use_a_policy_and_who_differs() {
        let policy = PolicyStatus { digest: "aa".into(), deciding: true, ..<_>::default() };
        let peer = |node: &str, digest: &str| Peer {
            node: node.into(),
            live: true,
            staged: digest.into(),
            active: digest.into(),
        };
        let kind = KindStatus {
            kind: Kind::Placement,
            agreement: "1 of 2 use aa; n2 uses bb".into(),
            ambiguous: true,
            peers: vec![peer("n1", "aa"), peer("n2", "bb")],
            policies: vec![policy],
            ..<_>::default()
        };
        let text = render(&PoliciesStatus { kinds: vec![kind], failed: vec![] });
        assert!(text.contains(" 1/2 "), "{text}");
        assert!(text.contains("placement: 1 of 2 use aa; n2 uses bb; several policies"), "{text}");
    }
}
