//! `steadfast policy run` and `bench`: what a policy file answers and what that costs, without an agent.

use super::args::PolicyFile;
use super::client::Failure;
use super::format::table;
use super::policy_file::settings;
use super::progress::Progress;
use super::{say, say_json};
use crate::policy::{Kind, Largest, Limits, Measured, Workbench};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// Clusters that a policy is tried with: nodes, VMs that need a place, and how often it is asked.
const SIZES: [(u32, u32, usize); 4] = [(3, 10, 51), (5, 50, 51), (63, 160, 21), (64, 10_000, 5)];

/// One size of question.
#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    nodes: u32,
    vms: u32,
    /// `None`: it failed, and why.
    measured: Option<Measured<()>>,
    failure: Option<String>,
}

pub(super) fn run(
    file: &PolicyFile,
    question: &Path,
    kind: Option<Kind>,
    json: bool,
) -> Result<(), Failure> {
    let text = match question.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(question),
    };
    let text = text.map_err(|error| {
        Failure::Usage(format!("cannot read the question {}: {error}", question.display()))
    })?;
    let progress = Progress::begin("compiling and asking the policy");
    let bench =
        Workbench::open(&file.file, settings(file.config.as_deref())?).map_err(Failure::Other)?;
    let kind = match (kind, bench.kinds()) {
        (Some(kind), _) | (None, &[kind]) => kind,
        (None, kinds) => {
            let kinds = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
            let which = format!("the policy decides {kinds}: say which with --kind");
            return Err(Failure::Usage(which));
        }
    };
    let measured = bench.run(kind, &text).map_err(Failure::Other)?;
    drop(progress);
    if json {
        return say_json(&measured);
    }
    let verdict = serde_json::to_string_pretty(&measured.verdict).unwrap_or_default();
    say(&format!("{verdict}\n\n{}", costs(&measured, bench.limits())))
}

pub(super) fn bench(file: &PolicyFile, json: bool) -> Result<(), Failure> {
    let progress = Progress::begin("compiling the policy");
    let bench =
        Workbench::open(&file.file, settings(file.config.as_deref())?).map_err(Failure::Other)?;
    let mut rows = Vec::new();
    for kind in bench.kinds() {
        // One node is asked about at a time; its size does not depend on the cluster's.
        let sizes = if *kind == Kind::Placement { &SIZES[..] } else { &SIZES[..1] };
        for (nodes, vms, times) in sizes {
            progress.tell(format!("asking {kind} for {vms} VMs on {nodes} nodes"));
            let asked = bench.bench(*kind, Largest { nodes: *nodes, vms: *vms }, *times);
            let (measured, failure) = match asked {
                Ok(measured) => (Some(measured), None),
                Err(failure) => (None, Some(failure.to_string())),
            };
            rows.push(Row { kind: *kind, nodes: *nodes, vms: *vms, measured, failure });
        }
    }
    drop(progress);
    if json { say_json(&rows) } else { say(&shown(&rows, bench.limits())) }
}

fn shown(rows: &[Row], limits: &Limits) -> String {
    let header = ["KIND", "NODES", "VMS", "QUESTION", "VERDICT", "FUEL", "MEMORY", "TIME"];
    let mut cells = table(&header);
    let mut failures = String::new();
    for Row { kind, nodes, vms, measured, failure } in rows {
        let mut row = vec![kind.to_string(), nodes.to_string(), vms.to_string()];
        match measured {
            Some(it) => row.extend([
                format!("{} B", it.question_bytes),
                format!("{} B", it.verdict_bytes),
                format!("{} of {}", it.fuel, it.fuel_limit),
                format!("{} of {} KiB", it.memory_bytes >> 10, limits.memory_bytes >> 10),
                millis(it.total),
            ]),
            None => row.push("failed".into()),
        }
        cells.add_row(row);
        if let Some(failure) = failure {
            let _ = writeln!(failures, "{kind}, {vms} VMs on {nodes} nodes: {failure}");
        }
    }
    let wall = limits.wall_ms;
    format!("{}\n{failures}time: the median call, of {wall} ms allowed\n", cells.trim_fmt())
}

fn costs<V>(it: &Measured<V>, limits: &Limits) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<24} {value}");
    };
    line("question", format!("{} bytes", it.question_bytes));
    line("verdict", format!("{} bytes of {}", it.verdict_bytes, limits.output_bytes));
    line("fuel", format!("{} of {}", it.fuel, it.fuel_limit));
    line("memory", format!("{} bytes of {}", it.memory_bytes, limits.memory_bytes));
    line("time", format!("{} of {} ms", millis(it.total), limits.wall_ms));
    it.parts.iter().for_each(|(name, took)| line(name, millis(*took)));
    text
}

fn millis(took: std::time::Duration) -> String {
    format!("{:.3} ms", took.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_table_shows_what_was_used_of_what_is_allowed_and_why_a_size_failed() {
        let measured = Measured {
            verdict: (),
            fuel: 70,
            fuel_limit: 900,
            memory_bytes: 2 << 20,
            question_bytes: 12,
            verdict_bytes: 34,
            total: Duration::from_micros(1_500),
            parts: vec![("module: scored".to_string(), Duration::from_micros(7))],
        };
        assert!(costs(&measured, &Limits::default()).contains("module: scored           0.007 ms"));
        let row = |measured, failure| Row { kind: Kind::Risk, nodes: 3, vms: 9, measured, failure };
        let rows = [row(Some(measured), None), row(None, Some("out of fuel".to_string()))];
        let text = shown(&rows, &Limits::default());
        assert!(text.contains("70 of 900") && text.contains("1.500 ms"), "{text}");
        assert!(text.contains("risk, 9 VMs on 3 nodes: out of fuel"), "{text}");
    }
}
