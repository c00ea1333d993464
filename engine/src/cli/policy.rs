//! `steadfast policy`.

use super::args::NewPolicy;
use super::client::{Client, Failure};
use super::format::table;
use super::{say, say_json};
use crate::policy::Kind;
use crate::scaffold::{self, New};
use serde::Deserialize;

/// The part of a policy's status that people read in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PolicyLine {
    kind: Option<String>,
    name: String,
    version: String,
    file: String,
    state: String,
    deciding: bool,
    digest: String,
    calls: u64,
    failures: u64,
    p99_micros: Option<u64>,
    last_error: Option<PolicyError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PolicyError {
    stage: String,
    class: String,
    reason: String,
    remedy: String,
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

pub(super) async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    if json {
        return say_json(&client.get::<serde_json::Value>("/v1/policies").await?);
    }
    let lines: Vec<PolicyLine> = client.get("/v1/policies").await?;
    say(&render(&lines))
}

fn render(lines: &[PolicyLine]) -> String {
    let header = ["KIND", "DECIDES", "POLICY", "FILE", "STATE", "DIGEST", "CALLS", "FAILED", "P99"];
    let mut table = table(&header);
    for line in lines {
        table.add_row([
            line.kind.clone().unwrap_or_else(|| "?".into()),
            if line.deciding { "yes" } else { "" }.into(),
            format!("{} {}", line.name, line.version),
            if line.file.is_empty() { "(built in)" } else { &line.file }.into(),
            line.state.clone(),
            line.digest.chars().take(8).collect(),
            line.calls.to_string(),
            line.failures.to_string(),
            line.p99_micros.map(|micros| format!("{micros} us")).unwrap_or_default(),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for line in lines {
        if let Some(PolicyError { stage, class, reason, remedy }) = &line.last_error {
            text.push_str(&format!("{}: {class} at {stage}: {reason}; {remedy}\n", line.file));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_policy_says_why_and_what_to_do() {
        let error = PolicyError {
            stage: "read".into(),
            class: "refused".into(),
            reason: "the file is truncated".into(),
            remedy: "copy it again".into(),
        };
        let line = PolicyLine { file: "a.wasm".into(), last_error: Some(error), ..<_>::default() };
        let text = render(&[line]);
        assert!(text.contains("a.wasm: refused at read: the file is truncated; copy it again"));
    }
}
