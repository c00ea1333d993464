//! A dry run: one question to one policy, for people. Nothing is decided, counted or obeyed.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{
    NodePriorityQuestion, PlacementQuestion, PlacementVerdict, RiskQuestion,
};

use super::generation::hex;
use super::kind::Question;
use super::load::micros;
use super::settings::is_called;
use super::{Failure, Kind, PolicyStore};

/// What a policy would have said.
#[derive(Debug, Clone, PartialEq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Evaluation {
    /// Who was asked.
    pub policy: String,
    /// Its version.
    pub version: String,
    /// Digest of module, parameters and limits.
    pub digest: String,
    /// The verdict, if it is a valid one.
    pub verdict: Option<serde_json::Value>,
    /// Why there is none.
    pub failure: Option<Failure>,
    /// Fuel it used; 0 for the agent's own.
    pub fuel: u64,
    /// Its largest linear memory, in bytes.
    pub memory_bytes: usize,
    /// Duration in microseconds.
    pub micros: u64,
}

/// Why nobody was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEvaluated {
    /// The question is none of this kind.
    #[error("it is no {0} question: {1}")]
    Question(Kind, String),
    /// The folder has no such policy.
    #[error("no policy for {kind} is called {name:?}; there are: {known}")]
    Unknown {
        /// The kind.
        kind: Kind,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

impl PolicyStore {
    /// Asks the policy of this name or file, or whoever decides the kind. Blocks as long as a call may.
    ///
    /// # Errors
    /// The question is not one of this kind, or there is no such policy.
    pub fn evaluate(
        &self,
        kind: Kind,
        question: &serde_json::Value,
        name: Option<&str>,
    ) -> Result<Evaluation, NotEvaluated> {
        match kind {
            Kind::NodePriority => self.try_out::<NodePriorityQuestion>(question, name),
            Kind::Placement => self.try_out::<PlacementQuestion>(question, name),
            Kind::Risk => self.try_out::<RiskQuestion>(question, name),
        }
    }

    /// Who would decide where VMs go, and what it would say; the agent's own answers where that fails. Nothing is counted.
    /// Blocks as long as a call may.
    pub fn rehearse_placement(&self, question: &PlacementQuestion) -> (String, PlacementVerdict) {
        let first = self.book().first(Kind::Placement, &self.settings);
        if let Some(it) = first
            && let Ok((verdict, _)) = self.sandbox.ask(&it.program, &it.parameters, question)
        {
            return (format!("{} {}", it.manifest.name, it.manifest.version), verdict);
        }
        let twin = Kind::Placement.twin();
        (format!("{} {}", twin.name, twin.version), question.builtin())
    }

    fn try_out<Q: Question>(
        &self,
        question: &serde_json::Value,
        name: Option<&str>,
    ) -> Result<Evaluation, NotEvaluated> {
        let question: Q = serde_json::from_value(question.clone())
            .map_err(|error| NotEvaluated::Question(Q::DECIDES, error.to_string()))?;
        let known = self.book().known(Q::DECIDES);
        let found = match name {
            None => self.book().first(Q::DECIDES, &self.settings),
            Some(name) => {
                // Of several generations of one name, the newest.
                let found = known.iter().rev().find(|it| is_it(it, name)).cloned();
                Some(found.ok_or_else(|| unknown(Q::DECIDES, name, &known))?)
            }
        };
        let begin = Instant::now();
        let Some(it) = found else { return Ok(ask_twin(&question)) };
        let called = self.sandbox.ask(&it.program, &it.parameters, &question);
        let took = micros(begin);
        let (verdict, usage, failure) = match called {
            Ok((verdict, usage)) => (serde_json::to_value(verdict).ok(), usage, None),
            Err(failure) => (None, <_>::default(), Some(failure)),
        };
        Ok(Evaluation {
            policy: it.manifest.name.clone(),
            version: it.manifest.version.clone(),
            digest: hex(&it.digests.all),
            verdict,
            failure,
            fuel: usage.fuel,
            memory_bytes: usage.memory_bytes,
            micros: took,
        })
    }
}

fn is_it(it: &super::generation::Generation, name: &str) -> bool {
    is_called(name, &it.manifest.name, &it.file)
}

fn unknown(
    kind: Kind,
    name: &str,
    known: &[std::sync::Arc<super::generation::Generation>],
) -> NotEvaluated {
    let known: Vec<&str> = known.iter().map(|it| it.file.as_str()).collect();
    NotEvaluated::Unknown { kind, name: name.into(), known: known.join(", ") }
}

fn ask_twin<Q: Question>(question: &Q) -> Evaluation {
    let (twin, begin) = (Q::DECIDES.twin(), Instant::now());
    let verdict = question.builtin();
    Evaluation {
        policy: twin.name.into(),
        version: twin.version.into(),
        digest: hex(&Q::DECIDES.twin_digest()),
        verdict: serde_json::to_value(verdict).ok(),
        failure: None,
        fuel: 0,
        memory_bytes: 0,
        micros: micros(begin),
    }
}
