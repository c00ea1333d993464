//! Policies answer on a thread of their own. One that is late only loses its say: the machine goes on with the
//! built-in policy.

use crate::Sink;
use crate::policy::{self, PolicyStore};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use steadfast_core::action::QuestionId;
use steadfast_core::event::{Decider, Event};
use steadfast_core::ids::Digest;
use steadfast_core::proactive::Assessed;
use steadfast_sdk::wire::{NodePriorityQuestion, PlacementQuestion, RiskQuestion};

/// Questions that may wait; a policy that is so far behind is late for all of them.
const QUEUE: usize = 64;

/// One question.
#[derive(Debug)]
pub(super) enum Question {
    /// Of the generation of this digest.
    Priority(QuestionId, Digest, Box<NodePriorityQuestion>),
    Placement(QuestionId, Box<PlacementQuestion>),
}

/// The queue to the policies.
#[derive(Debug)]
pub(super) struct Questions(SyncSender<Question>);

impl Questions {
    /// Starts the thread that asks `store` and answers to `events`.
    pub(super) fn start(store: Arc<PolicyStore>, events: Sink) -> std::io::Result<Self> {
        let (queue, questions) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("policies".into());
        thread.spawn(move || answer_all(&store, &questions, &events))?;
        Ok(Self(queue))
    }

    /// Queues a question; never blocks.
    pub(super) fn ask(&self, question: Question) {
        if self.0.try_send(question).is_err() {
            tracing::warn!(waiting = QUEUE, "policies are too slow: the built-in policy decides");
        }
    }
}

fn answer_all(store: &PolicyStore, questions: &Receiver<Question>, events: &Sink) {
    while let Ok(question) = questions.recv() {
        match question {
            Question::Priority(id, agreed, question) => {
                store.decide_node_priority(agreed.0, &question, |answer| {
                    let decider = decider(answer.decider);
                    events(Event::PriorityAnswered { id, verdict: answer.verdict, decider });
                });
            }
            Question::Placement(id, question) => {
                store.decide_placement(&question, |answer| {
                    let decider = decider(answer.decider);
                    events(Event::PlacementAnswered { id, verdict: answer.verdict, decider });
                });
            }
        }
    }
}

/// What the risk policy says. Not by the queue: nobody who waits for a place waits for that.
pub(super) fn assess(store: &PolicyStore, question: &RiskQuestion) -> Assessed {
    let answer = store.ask_risk(question);
    Assessed { score: answer.verdict.score, decider: decider(answer.decider) }
}

fn decider(from: policy::Decider) -> Decider {
    let kind = match from.kind {
        policy::DeciderKind::Active => "active",
        policy::DeciderKind::LastGood => "last_good",
        policy::DeciderKind::BuiltIn => "built_in",
    };
    Decider {
        name: from.name,
        version: from.version,
        digest: Digest::try_from(from.digest).unwrap_or_default(),
        kind: kind.into(),
        fuel: from.fuel,
        micros: from.micros,
        failures: from.failures,
    }
}
