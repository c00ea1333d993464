//! Steps: what they are for, what they would change, and the one loop that does them.

use super::change::Change;
use super::host::Host;
use super::journal::{Before, Journal};
use super::tell::Tell;
use crate::doctor::{Check, Level};
use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Part of a plan.
#[derive(Debug)]
pub struct Step {
    /// A word or two.
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub why: String,
    /// What must be so.
    pub changes: Vec<Change>,
    /// Commands to run after a change, once all are made.
    pub after: Vec<Vec<String>>,
    /// What else there is to say of it. Red: the plan ends here.
    pub checks: Vec<Check>,
    /// Looked at after the changes: what they were for.
    pub verify: Option<fn(&Host) -> Check>,
}

impl Step {
    /// A step without changes yet.
    #[must_use]
    pub fn new(name: &'static str, why: impl Into<String>) -> Self {
        let (changes, after, checks) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, why: why.into(), changes, after, checks, verify: None }
    }

    /// With this change.
    #[must_use]
    pub fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// With all of these.
    #[must_use]
    pub fn with_all(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.changes.extend(changes);
        self
    }

    /// A command that makes changes count.
    #[must_use]
    pub fn then(mut self, command: &[&str]) -> Self {
        self.after.push(command.iter().map(ToString::to_string).collect());
        self
    }

    /// Something to say.
    #[must_use]
    pub fn say(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    fn open(&self, host: &Host, journal: &Journal) -> Result<(Vec<&Change>, Vec<&Vec<String>>)> {
        let mut open = Vec::new();
        for change in &self.changes {
            if !change.is_done(host)? {
                open.push(change);
            }
        }
        let any = !open.is_empty();
        let owed = self.after.iter().filter(|command| any || journal.owes(&command.join(" ")));
        Ok((open, owed.collect()))
    }
}

/// One thing after the other; each is looked at when its turn comes, because it may rest on those before it.
pub type Plan<'a> = Vec<Box<dyn Fn(&Host) -> Result<Step> + 'a>>;

/// How a step stands, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing to do.
    InOrder,
    /// It would change something.
    WouldChange,
    /// It changed something.
    Changed,
    /// The machine is not fit for it.
    Refused,
}

/// What is told of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name.
    pub step: &'static str,
    /// How it stands.
    pub state: State,
    /// What it is for.
    pub why: String,
    /// What it changes.
    pub changes: Vec<String>,
    /// What else there is to say.
    pub checks: Vec<Check>,
}

impl Line {
    fn of(step: &Step, state: State, changes: Vec<String>) -> Self {
        let (step, why, checks) = (step.name, step.why.clone(), step.checks.clone());
        Self { step, state, why, changes, checks }
    }
}

/// What `plan` would do now. Changes nothing.
///
/// # Errors
/// The machine cannot be looked at.
pub fn preview(host: &Host, journal_at: &'static str, plan: &Plan<'_>) -> Result<Vec<Line>> {
    let journal = Journal::open(host, journal_at)?;
    plan.iter().map(|step| preview_step(host, &journal, &step(host)?)).collect()
}

fn preview_step(host: &Host, journal: &Journal, step: &Step) -> Result<Line> {
    let (open, owed) = step.open(host, journal)?;
    let run = owed.iter().map(|command| command.join(" "));
    let changes: Vec<String> = open.iter().map(|change| change.words()).chain(run).collect();
    let state = match changes.is_empty() {
        _ if is_refused(&step.checks) => State::Refused,
        true => State::InOrder,
        false => State::WouldChange,
    };
    Ok(Line::of(step, state, changes))
}

/// Does `plan`, step by step. What was there goes to the journal at `journal_at`.
///
/// # Errors
/// A step failed, or the machine is not fit: a repeat goes on where it ended.
pub fn perform(
    host: &Host,
    journal_at: &'static str,
    plan: &Plan<'_>,
    tell: &mut Tell,
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for step in plan {
        let step = step(host)?;
        tell.begin(step.name, &step.why);
        let line = perform_step(host, journal_at, step, tell)?;
        tell.end(&line);
        if line.state == State::Refused {
            let red = line.checks.iter().find(|check| check.level == Level::Red);
            let (text, remedy) = red.map_or(("", ""), |red| (&red.text, &red.remedy));
            bail!("{}: {text}; {remedy}", line.step);
        }
        lines.push(line);
    }
    Ok(lines)
}

fn perform_step(
    host: &Host,
    journal_at: &'static str,
    mut step: Step,
    tell: &mut Tell,
) -> Result<Line> {
    if is_refused(&step.checks) {
        return Ok(Line::of(&step, State::Refused, Vec::new()));
    }
    let mut journal = Journal::open(host, journal_at)?;
    let (open, owed) = step.open(host, &journal)?;
    let mut done = Vec::new();
    if !open.is_empty() || !owed.is_empty() {
        keep_journal(host, &mut journal)?;
    }
    // Written down before the first change: a power cut in between owes them still.
    for command in &owed {
        journal.owe(host, &command.join(" "))?;
    }
    for change in &open {
        tell.doing(&change.words());
        let name = step.name;
        change.apply(host, &mut journal).with_context(|| format!("{name}: {}", change.words()))?;
        done.push(change.words());
    }
    for command in owed {
        let words = command.join(" ");
        tell.doing(&words);
        let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        host.run(&command[0], &arguments).with_context(|| step.name)?;
        journal.pay(host, &words)?;
        done.push(words);
    }
    if let Some(verify) = step.verify {
        tell.doing("looking whether it works");
        step.checks.push(verify(host));
    }
    let state = match done.is_empty() {
        _ if is_refused(&step.checks) => State::Refused,
        true => State::InOrder,
        false => State::Changed,
    };
    Ok(Line::of(&step, state, done))
}

/// The journal's own folder is the first thing that was not there.
fn keep_journal(host: &Host, journal: &mut Journal) -> Result<()> {
    const FOLDERS: [&str; 3] = ["/var", "/var/lib", "/var/lib/steadfast"];
    let missing: Vec<&str> = FOLDERS.into_iter().filter(|path| !host.has(path)).collect();
    missing.iter().try_for_each(|path| host.make_folder(path, 0o755))?;
    for path in missing {
        journal.note(host, Before::Folder { path: path.into() })?;
    }
    Ok(())
}

fn is_refused(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.level == Level::Red)
}
