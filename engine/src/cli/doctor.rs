//! `steadfast doctor`.

use super::client::{Client, Failure};
use super::format::table;
use super::progress::Progress;
use super::{bounds, say, say_json};
use crate::doctor::{Level, Report};
use std::path::Path;

/// Asks the agent; without one, looks at the configuration and the host itself.
pub(super) async fn print(client: &Client, file: &Path, json: bool) -> Result<(), Failure> {
    let report = match client.get::<Report>("/v1/doctor").await {
        Err(failure @ Failure::Unreachable { .. }) => {
            let remedy = "journalctl -u steadfastd says why; below is what can be told without it";
            let _shown = Progress::begin("looking at this host");
            Report::offline(file, &failure.to_string(), remedy)
        }
        answer => answer?,
    };
    if json {
        say_json(&report)?;
    } else {
        say(&render(&report))?;
    }
    if report.level == Level::Green { Ok(()) } else { Err(Failure::Found(report.level)) }
}

fn render(report: &Report) -> String {
    let mut text = head(report);
    let mut checks = table(&["CHECK", "STATE", "WHAT WAS FOUND", "WHAT TO DO"]);
    for check in &report.checks {
        checks.add_row([&check.name, check.level.word(), &check.text, &check.remedy]);
    }
    text.push_str(&format!("{}\n", checks.trim_fmt()));
    if !report.bounds.is_empty() {
        text.push('\n');
        text.push_str(&bounds::render(&report.bounds, &report.assumed));
    }
    text
}

fn head(report: &Report) -> String {
    let count = |level| report.checks.iter().filter(|check| check.level == level).count();
    let (red, yellow, green) = (count(Level::Red), count(Level::Yellow), count(Level::Green));
    let node = report.node.as_deref().unwrap_or("this node");
    let cluster = if report.cluster.is_empty() { "unknown" } else { &report.cluster };
    format!(
        "{node}, cluster {cluster}, preset {}: {red} red, {yellow} yellow, {green} green\n\n",
        report.preset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_says_what_to_do() {
        let report = Report::offline(Path::new("/nonexistent/a.toml"), "no agent", "start it");
        let text = render(&report);
        assert!(text.starts_with("this node, cluster unknown, preset unknown: "), "{text}");
        assert!(text.contains("no agent") && text.contains("start it"), "{text}");
    }
}
