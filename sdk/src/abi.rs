//! Bytes in, bytes out: what a module's exports do, natively too.
//!
//! Results are `{"ok": verdict}` or `{"err": {"code", "message"}}`. A question in [`columns`] has a verdict in columns;
//! what went wrong is always told in JSON.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::columns::{self, Malformed, placement};
use crate::log::{self, Level};
use crate::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RiskQuestion,
    RiskVerdict,
};

/// Export that marks the ABI's major.
pub const MARKER: &str = "steadfast_policy_abi_1";
/// Module name of the host's imports.
pub const IMPORTS: &str = "steadfast_1";
/// Export that hands out memory for the input: `(len) -> ptr`.
pub const ALLOC: &str = "steadfast_alloc";
/// Export that takes the parameters: `(ptr, len) -> ptr << 32 | len`.
pub const INIT: &str = "steadfast_init";

/// A refusal by the policy itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestError {
    /// For programs: `bad_parameters`, `bad_question`, or the policy's own.
    pub code: String,
    /// For people.
    pub message: String,
}

/// What every export returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope<V> {
    /// The verdict.
    Ok(V),
    /// Why there is none.
    Err(GuestError),
}

/// Reads parameters; no bytes mean the defaults.
///
/// # Errors
/// `bad_parameters` if it is no JSON, or names a parameter that the policy does not have.
pub fn parameters<P: Default + DeserializeOwned>(json: &[u8]) -> Result<P, GuestError> {
    if json.is_empty() {
        return Ok(P::default());
    }
    serde_json::from_slice(json).map_err(|error| refusal("bad_parameters", &error))
}

/// A question as it crosses the border: always in JSON, a large one also in [`columns`].
pub trait Wire: Serialize + DeserializeOwned {
    /// What answers it.
    type Verdict: Serialize + DeserializeOwned;

    /// The question in columns. `None`: it has only JSON.
    fn to_columns(&self) -> Option<Vec<u8>> {
        None
    }

    /// The question out of columns.
    ///
    /// # Errors
    /// The bytes are no such question.
    fn of_columns(_: &[u8]) -> Result<Self, Malformed> {
        Err(Malformed { section: 0, what: "this question has no columns" })
    }

    /// A verdict on this question in columns. `None`: it has only JSON.
    fn verdict_to_columns(&self, _: &Self::Verdict) -> Option<Vec<u8>> {
        None
    }

    /// A verdict on this question out of columns.
    ///
    /// # Errors
    /// The bytes are no such verdict.
    fn verdict_of_columns(&self, _: &[u8]) -> Result<Self::Verdict, Malformed> {
        Err(Malformed { section: 0, what: "this verdict has no columns" })
    }
}

impl Wire for NodePriorityQuestion {
    type Verdict = NodePriorityVerdict;
}

impl Wire for RiskQuestion {
    type Verdict = RiskVerdict;
}

impl Wire for PlacementQuestion {
    type Verdict = PlacementVerdict;

    fn to_columns(&self) -> Option<Vec<u8>> {
        Some(placement::question_to_columns(self))
    }

    fn of_columns(message: &[u8]) -> Result<Self, Malformed> {
        placement::question_of_columns(message)
    }

    fn verdict_to_columns(&self, verdict: &PlacementVerdict) -> Option<Vec<u8>> {
        placement::verdict_to_columns(self, verdict)
    }

    fn verdict_of_columns(&self, message: &[u8]) -> Result<PlacementVerdict, Malformed> {
        placement::verdict_of_columns(self, message)
    }
}

/// Answers one question, in the encoding in which it was asked.
pub fn answer<Q: Wire>(input: &[u8], ask: impl FnOnce(&Q) -> Q::Verdict) -> Vec<u8> {
    let in_columns = input.first() == Some(&columns::MAGIC);
    let question = if in_columns {
        Q::of_columns(input).map_err(|error| refusal("bad_question", &error))
    } else {
        serde_json::from_slice(input).map_err(|error| refusal("bad_question", &error))
    };
    let question = match question {
        Ok(question) => question,
        Err(error) => return encode(&Envelope::<Q::Verdict>::Err(error)),
    };
    phase("decoded");
    let verdict = ask(&question);
    phase("scored");
    // Only what cannot be said in columns, an id that was not in the question, goes as JSON.
    let bytes = if in_columns { question.verdict_to_columns(&verdict) } else { None };
    let verdict = Envelope::Ok(verdict);
    let bytes = bytes.unwrap_or_else(|| encode(&verdict));
    phase("encoded");
    // A module's memory is dropped as a whole: nothing is taken apart before that.
    #[cfg(target_arch = "wasm32")]
    core::mem::forget((question, verdict));
    bytes
}

/// Reads what [`answer`] returned.
///
/// # Errors
/// The policy refused (the inner error), or the bytes are no verdict.
pub fn read_answer<Q: Wire>(
    question: &Q,
    bytes: &[u8],
) -> Result<Result<Q::Verdict, GuestError>, String> {
    if bytes.first() == Some(&columns::MAGIC) {
        return question.verdict_of_columns(bytes).map(Ok).map_err(|error| error.to_string());
    }
    match serde_json::from_slice(bytes) {
        Ok(Envelope::Ok(verdict)) => Ok(Ok(verdict)),
        Ok(Envelope::Err(error)) => Ok(Err(error)),
        Err(error) => Err(error.to_string()),
    }
}

/// For `steadfast policy bench`: the host notes when a module has come so far. Otherwise nobody asks for it.
fn phase(name: &str) {
    if log::wants(Level::Phase) {
        log::write(Level::Phase, name);
    }
}

/// The bytes of a result.
#[must_use]
pub fn encode<V: Serialize>(result: &Envelope<V>) -> Vec<u8> {
    serde_json::to_vec(result).unwrap_or_else(|error| {
        format!(r#"{{"err":{{"code":"bad_verdict","message":"{error}"}}}}"#).into_bytes()
    })
}

fn refusal(code: &str, error: &impl ToString) -> GuestError {
    GuestError { code: code.to_string(), message: error.to_string() }
}
