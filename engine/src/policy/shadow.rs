//! Shadows: policies that are asked the same questions off the decision's path. What they say is compared and counted,
//! never obeyed, and never waited for.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use steadfast_sdk::wire::{NodePriorityQuestion, PlacementQuestion, RiskQuestion};

use super::generation::Generation;
use super::kind::{Gist, Question};
use super::sandbox::Sandbox;
use super::status::Difference;
use super::{Class, Failure, Kind, Stage};

/// Questions that wait for the shadows; more are skipped.
const QUEUE: usize = 4;
/// Differences kept a kind.
const KEPT: usize = 32;
/// VMs named in the text of a difference.
const NAMED: usize = 3;

/// One question that was decided, to be asked again of the shadows.
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) question: Vec<u8>,
    pub(super) decided: Gist,
    pub(super) decider: String,
    pub(super) shadows: Vec<Arc<Generation>>,
}

/// The queue to the shadows, and what they said otherwise.
pub(super) struct Shadows {
    queue: SyncSender<Job>,
    differences: Arc<Mutex<[VecDeque<Difference>; 3]>>,
}

impl Shadows {
    pub(super) fn start(sandbox: Arc<Sandbox>) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let differences = Arc::<Mutex<[VecDeque<Difference>; 3]>>::default();
        let theirs = Arc::clone(&differences);
        let thread = std::thread::Builder::new().name("policy-shadow".into());
        thread.spawn(move || {
            super::watch::step_back();
            ask_all(&sandbox, &jobs, &theirs);
        })?;
        Ok(Self { queue, differences })
    }

    /// Queues a question; never blocks.
    pub(super) fn ask(&self, job: Job) {
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.queue.try_send(job)
        {
            for shadow in &job.shadows {
                shadow.tally(job.kind).shadowed.skipped += 1;
            }
        }
    }

    /// What shadows said otherwise of late.
    pub(super) fn differences(&self, kind: Kind) -> Vec<Difference> {
        lock(&self.differences)[kind.seat()].iter().cloned().collect()
    }
}

fn lock(
    differences: &Mutex<[VecDeque<Difference>; 3]>,
) -> MutexGuard<'_, [VecDeque<Difference>; 3]> {
    differences.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask_all(
    sandbox: &Sandbox,
    jobs: &Receiver<Job>,
    differences: &Mutex<[VecDeque<Difference>; 3]>,
) {
    while let Ok(job) = jobs.recv() {
        for shadow in &job.shadows {
            let Some(difference) = ask(sandbox, &job, shadow) else { continue };
            let kept = &mut lock(differences)[job.kind.seat()];
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(difference);
        }
    }
}

/// Asks one shadow and counts; what it said otherwise.
fn ask(sandbox: &Sandbox, job: &Job, shadow: &Generation) -> Option<Difference> {
    let said = match job.kind {
        Kind::NodePriority => gist::<NodePriorityQuestion>(sandbox, job, shadow),
        Kind::Placement => gist::<PlacementQuestion>(sandbox, job, shadow),
        Kind::Risk => gist::<RiskQuestion>(sandbox, job, shadow),
    };
    let mut tally = shadow.tally(job.kind);
    let text = match said {
        Ok(gist) => {
            tally.shadowed.asked += 1;
            let text = difference(&job.decided, &gist)?;
            tally.shadowed.differed += 1;
            text
        }
        Err(failure) => {
            tally.shadowed.failed += 1;
            let text = failure.to_string();
            tally.last_failure = Some(failure);
            text
        }
    };
    Some(Difference {
        wall_ms: crate::clock::Clock.wall_ms(),
        shadow: shadow.to_string(),
        decider: job.decider.clone(),
        text,
    })
}

fn gist<Q: Question>(sandbox: &Sandbox, job: &Job, it: &Generation) -> Result<Gist, Failure> {
    let question: Q = serde_json::from_slice(&job.question).map_err(|error| {
        let remedy = "report it as a fault of the agent";
        Failure::new(Stage::Call, Class::Host, format!("cannot decode: {error}"), remedy)
    })?;
    let (verdict, _) = sandbox.ask(&it.program, &it.parameters, &question)?;
    Ok(question.gist(&verdict))
}

/// In a sentence, what the second says otherwise than the first.
fn difference(decided: &Gist, said: &Gist) -> Option<String> {
    let ids = decided.keys().chain(said.keys().filter(|id| !decided.contains_key(*id)));
    let other: Vec<_> = ids.filter(|id| decided.get(*id) != said.get(*id)).collect();
    let told = |of: &Gist, id: &str| match of.get(id) {
        Some(value) => value.to_string(),
        None => "nothing".into(),
    };
    let mut named: Vec<String> = other
        .iter()
        .take(NAMED)
        .map(|id| format!("{id}: {} instead of {}", told(said, id), told(decided, id)))
        .collect();
    if other.len() > NAMED {
        named.push("...".into());
    }
    let of = decided.len().max(said.len());
    (!other.is_empty()).then(|| format!("{} of {of} otherwise: {}", other.len(), named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_in_a_sentence_and_none_is_not_told() {
        let gist = |all: &[(&str, i64)]| all.iter().map(|(id, at)| (id.to_string(), *at)).collect();
        let decided: Gist = gist(&[("a", 1), ("b", 2)]);
        assert_eq!(difference(&decided, &decided.clone()), None);
        let text = difference(&decided, &gist(&[("a", 1), ("b", 3)])).unwrap();
        assert_eq!(text, "1 of 2 otherwise: b: 3 instead of 2");
        let text = difference(&decided, &gist(&[("a", 1)])).unwrap();
        assert_eq!(text, "1 of 2 otherwise: b: nothing instead of 2");
    }
}
