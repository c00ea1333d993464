//! Bytes in, bytes out: what a module's exports do, natively too.
//!
//! Results are `{"ok": verdict}` or `{"err": {"code", "message"}}`.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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

/// Answers one question.
pub fn answer<Q: DeserializeOwned, V: Serialize>(
    input: &[u8],
    ask: impl FnOnce(&Q) -> V,
) -> Vec<u8> {
    encode(&match serde_json::from_slice(input) {
        Ok(question) => Envelope::Ok(ask(&question)),
        Err(error) => Envelope::Err(refusal("bad_question", &error)),
    })
}

/// The bytes of a result.
#[must_use]
pub fn encode<V: Serialize>(result: &Envelope<V>) -> Vec<u8> {
    serde_json::to_vec(result).unwrap_or_else(|error| {
        format!(r#"{{"err":{{"code":"bad_verdict","message":"{error}"}}}}"#).into_bytes()
    })
}

fn refusal(code: &str, error: &serde_json::Error) -> GuestError {
    GuestError { code: code.to_string(), message: error.to_string() }
}
