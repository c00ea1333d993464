//! Tells a story: step by step, until the end, an expectation that fails, or a broken promise.

use super::condition::Condition;
use super::stage::Stage;
use super::story::{PATIENCE, Step, Story, What, When, Within, split_at_colon};
use crate::sim::clock::{SECOND, Time};
use crate::sim::report::guarded;

/// What came of a story.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The log.
    pub log: Vec<String>,
    /// The first thing that was not as it should be, the log apart.
    pub failure: Option<String>,
    /// The simulator's trace, if asked for, in time since the world began.
    pub trace: Vec<String>,
    /// When the story began, in that time.
    pub begin: Time,
}

/// Tells it.
#[must_use]
pub fn tell(story: &Story, trace: bool) -> Outcome {
    tell_on(story, trace).0
}

/// Tells it, and leaves the stage as it is at the end.
#[must_use]
pub fn tell_on(story: &Story, trace: bool) -> (Outcome, Stage) {
    let mut stage = Stage::new(&story.setup, trace);
    let end = guarded(|| play(story, &mut stage));
    let failure = match end {
        Err(panic) => Some(format!("a machine panicked: {panic}")),
        Ok(played) => {
            let broken = stage.world.violation.as_ref();
            let broken = broken.map(|v| format!("violation of {}: {}", v.rule, v.text));
            broken.or(played.err())
        }
    };
    let outcome = Outcome {
        log: stage.watch.log.print(stage.begin),
        failure,
        trace: std::mem::take(&mut stage.world.trace.lines),
        begin: stage.begin,
    };
    (outcome, stage)
}

fn play(story: &Story, stage: &mut Stage) -> Result<(), String> {
    stage.set_up()?;
    for step in &story.steps {
        let line = story.text.lines().nth(step.line - 1).unwrap_or_default();
        let at = |why: String| format!("line {}: {line}\n    {why}", step.line);
        wait(step, stage).map_err(at)?;
        take(step, stage, line).map_err(at)?;
        if stage.world.violation.is_some() {
            return Ok(());
        }
    }
    if !matches!(story.steps.last().map(|step| &step.what), Some(What::End)) {
        return Err("a story ends: `end 60s`".into());
    }
    stage.watch.conclude(&stage.world);
    if story.setup.heals { come_right(stage) } else { Ok(()) }
}

fn wait(step: &Step, stage: &mut Stage) -> Result<(), String> {
    match &step.when {
        When::Now => {}
        When::At(time) => {
            let at = stage.begin + time;
            if at < stage.world.now {
                return Err(format!("it is later already: {}", time_words(stage)));
            }
            stage.pass(at);
        }
        When::After(time) => stage.pass(stage.world.now + time),
        When::Once(condition) => await_condition(condition, PATIENCE, stage)?,
    }
    Ok(())
}

fn take(step: &Step, stage: &mut Stage, line: &str) -> Result<(), String> {
    match &step.what {
        What::Do(deed, lasting) => {
            stage.act(deed, *lasting, without_time(line));
            Ok(())
        }
        What::Expect(condition, Within::Now) => expect(condition, stage),
        What::Expect(condition, Within::Becomes(time)) => await_condition(condition, *time, stage),
        What::Expect(condition, Within::Stays(time)) => stays(condition, *time, stage),
        What::End => Ok(()),
    }
}

/// "at 10s: power n2 off # why" -> "power n2 off".
fn without_time(text: &str) -> &str {
    let text = text.split('#').next().unwrap_or_default().trim();
    split_at_colon(text).map_or(text, |(_, rest)| rest)
}

fn time_words(stage: &Stage) -> String {
    let passed = stage.world.now.saturating_sub(stage.begin);
    format!("at {}.{:03} s", passed / SECOND, passed % SECOND / 1_000)
}

fn expect(condition: &Condition, stage: &Stage) -> Result<(), String> {
    if condition.holds(stage) {
        return Ok(());
    }
    Err(format!("not so {}", time_words(stage)))
}

fn await_condition(condition: &Condition, limit: Time, stage: &mut Stage) -> Result<(), String> {
    let until = stage.world.now + limit;
    while !condition.holds(stage) {
        if stage.world.violation.is_some() {
            return Ok(());
        }
        if !stage.step_before(until) {
            stage.world.now = until;
            return expect(condition, stage);
        }
    }
    Ok(())
}

fn stays(condition: &Condition, time: Time, stage: &mut Stage) -> Result<(), String> {
    let until = stage.world.now + time;
    loop {
        expect(condition, stage)?;
        if stage.world.violation.is_some() || !stage.step_before(until) {
            stage.world.now = stage.world.now.max(until);
            return Ok(());
        }
    }
}

/// After the end all faults are over: every VM under HA must come to run (`eventually_up`).
fn come_right(stage: &mut Stage) -> Result<(), String> {
    let lines = stage.watch.log.count();
    stage.heal();
    let limit = stage.world.now + stage.world.plan.bound + 20 * SECOND;
    while stage.world.violation.is_none() && !stage.world.check.done {
        if !stage.step_before(limit) {
            return Err("not everything ran in time after the end".into());
        }
    }
    if stage.world.violation.is_none() {
        stage.watch.log.truncate(lines);
    }
    Ok(())
}
