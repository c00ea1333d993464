//! `steadfast policy replay` and `diff`: recorded decisions, asked again. Without an agent.

use super::args::{PolicyDiff, PolicyReplay};
use super::client::Failure;
use super::format::table;
use super::policy_file::settings;
use super::progress::Progress;
use super::{say, say_json};
use crate::policy::{Change, Player, Recorded, Replayed, Workbench, read_recorded};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Changes that are told one by one.
const TOLD: usize = 40;
/// Characters of a verdict that are told.
const SHOWN: usize = 300;

#[derive(Debug, Serialize)]
struct ReplayLine {
    decision: String,
    decider: String,
    result: Replayed,
}

pub(super) fn replay(args: &PolicyReplay, json: bool) -> Result<(), Failure> {
    let settings = settings(args.config.as_deref())?;
    let progress = Progress::begin("compiling the policies");
    let open = |file| Workbench::open(file, settings.clone());
    let modules =
        args.files.iter().map(|file| open(file).with_context(|| file.display().to_string()));
    let player = Player::new(modules.collect::<anyhow::Result<_>>().map_err(Failure::Other)?);
    let recorded = recorded(&args.decisions)?;
    progress.tell(format!("asking again for {} decisions", recorded.len()));
    let lines: Vec<ReplayLine> = recorded.iter().map(|one| line(&player, one)).collect();
    drop(progress);
    if json {
        say_json(&lines)?;
    } else {
        say(&replayed(&lines))?;
    }
    let is_sound =
        |line: &ReplayLine| !matches!(line.result, Replayed::Other { .. } | Replayed::Failed(_));
    if lines.iter().all(is_sound) { Ok(()) } else { Err(Failure::Told) }
}

fn recorded(path: &Path) -> Result<Vec<Recorded>, Failure> {
    let recorded = read_recorded(path).map_err(Failure::Other)?;
    match recorded.is_empty() {
        false => Ok(recorded),
        true => Err(Failure::Usage(format!(
            "{} holds no decision of a policy yet: elections, placements and risk scores leave them",
            path.display()
        ))),
    }
}

fn line(player: &Player, recorded: &Recorded) -> ReplayLine {
    let decider = &recorded.record.decider;
    ReplayLine {
        decision: recorded.id.clone(),
        decider: format!("{} {} {:.8}", decider.name, decider.version, decider.digest.to_string()),
        result: player.replay(recorded),
    }
}

fn replayed(lines: &[ReplayLine]) -> String {
    let mut text = String::new();
    let mut unknown: BTreeMap<&str, usize> = BTreeMap::new();
    for ReplayLine { decision, decider, result } in lines {
        let _ = match result {
            Replayed::Same => Ok(()),
            Replayed::Unknown => {
                *unknown.entry(decider).or_default() += 1;
                Ok(())
            }
            Replayed::OtherFuel { recorded, now } => writeln!(
                text,
                "{decision}: the same verdict with {now} units of fuel, recorded are {recorded}: another version of the agent?"
            ),
            Replayed::Other { recorded, now } => {
                writeln!(
                    text,
                    "{decision}: ANOTHER VERDICT by {decider}\n  recorded {recorded:.SHOWN$}\n  now      {now:.SHOWN$}"
                )
            }
            Replayed::Failed(failure) => {
                writeln!(text, "{decision}: NO VERDICT by {decider}: {failure}")
            }
        };
    }
    for (decider, count) in unknown {
        let _ = writeln!(
            text,
            "{count} decisions of {decider} were not asked again: name its .wasm file"
        );
    }
    let same = lines.iter().filter(|line| matches!(line.result, Replayed::Same)).count();
    let _ = writeln!(text, "{same} of {} decisions: the same bytes, the same fuel", lines.len());
    text
}

#[derive(Debug, Default, Serialize)]
struct Diff {
    questions: usize,
    asked_about: usize,
    changes: Vec<Change>,
    failures: Vec<String>,
}

pub(super) fn diff(args: &PolicyDiff, json: bool) -> Result<(), Failure> {
    let settings = settings(args.config.as_deref())?;
    let progress = Progress::begin("compiling the policy, and asking it for each decision");
    let candidate = Workbench::open(&args.file, settings).map_err(Failure::Other)?;
    let mut diff = Diff::default();
    for recorded in recorded(&args.decisions)? {
        match candidate.differs(&recorded) {
            None => continue,
            Some(Ok((count, changes))) => {
                diff.asked_about += count;
                diff.changes.extend(changes);
            }
            Some(Err(failure)) => diff.failures.push(format!("{}: {failure}", recorded.id)),
        }
        diff.questions += 1;
    }
    drop(progress);
    if json {
        return say_json(&diff);
    }
    let manifest = candidate.manifest();
    say(&differing(&format!("{} {}", manifest.name, manifest.version), &diff))
}

fn differing(candidate: &str, diff: &Diff) -> String {
    let Diff { questions, asked_about, changes, failures } = diff;
    let count = changes.len();
    let mut text = format!(
        "{candidate} would have decided otherwise for {count} of {asked_about} VMs and nodes, in {questions} recorded questions\n"
    );
    let mut rows = table(&["DECISION", "VM OR NODE", "RECORDED", "CANDIDATE"]);
    for Change { decision, about, recorded, candidate } in changes.iter().take(TOLD) {
        rows.add_row([decision, about, recorded, candidate]);
    }
    if count > 0 {
        let _ = writeln!(text, "{}", rows.trim_fmt());
    }
    if count > TOLD {
        let _ = writeln!(text, "and {} more: --json has all", count - TOLD);
    }
    for failure in failures {
        let _ = writeln!(text, "NO VERDICT {failure}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(result: Replayed) -> ReplayLine {
        ReplayLine { decision: "n1-5-1".into(), decider: "rack-aware 1.0 0a".into(), result }
    }

    #[test]
    fn what_differs_is_told_and_what_could_not_be_asked_is_counted() {
        let other = Replayed::Other { recorded: "1".into(), now: "2".into() };
        let text = replayed(&[line(Replayed::Same), line(other), line(Replayed::Unknown)]);
        assert!(text.contains("n1-5-1: ANOTHER VERDICT by rack-aware"), "{text}");
        assert!(text.contains("1 decisions of rack-aware 1.0 0a were not asked again"), "{text}");
        assert!(text.contains("1 of 3 decisions: the same bytes, the same fuel"), "{text}");
    }

    #[test]
    fn a_candidate_is_told_by_what_it_would_have_changed() {
        let change = Change {
            decision: "n1-5-1".into(),
            about: "web".into(),
            recorded: "n2".into(),
            candidate: "n3".into(),
        };
        let diff = Diff { questions: 1, asked_about: 120, changes: vec![change], failures: vec![] };
        let text = differing("pack 2", &diff);
        assert!(text.contains("otherwise for 1 of 120"), "{text}");
        assert!(text.contains("web") && text.contains("n3"), "{text}");
    }
}
