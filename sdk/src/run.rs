//! A policy run natively, through the very bytes of the ABI: the question is encoded, answered as the module would, decoded and
//! checked as the host does.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use serde::de::DeserializeOwned;

use crate::abi;
use crate::check::Question;

/// An answer as it leaves the module.
pub type Bytes = Vec<u8>;

/// A whole policy, of whatever kinds. [`export_policy!`](crate::export_policy) implements it.
pub trait Policy: Default + DeserializeOwned {
    /// Its kinds in the words of the ABI.
    const KINDS: &'static [&'static str];

    /// What the export of that kind answers, as bytes. `None`: it has no such export.
    fn answer(&self, kind: &str, input: &[u8]) -> Option<Bytes>;
}

/// Calls something and gives the words of its panic. Made by macros: this crate has no `std`.
pub type Guard = fn(&mut dyn FnMut()) -> Result<(), String>;

/// Asks a policy with its default parameters. For tests.
///
/// ```
/// # use steadfast_sdk::{prelude::*, fixture::Fixture, run::run};
/// # parameters! { pub struct Calm {} }
/// # impl Risk for Calm { fn risk(&self, _: &NodeFacts, _: &[Reading]) -> Score { Score::new() } }
/// # export_policy! { Calm: Risk, name = "calm", about = "Nothing ever matters." }
/// # fn main() {
/// let asked = Fixture::cluster(3).telemetry("n1", "md.md0.missing", 1).risk("n1");
/// assert_eq!(run::<Calm, _>(&asked).score.value, 0);
/// # }
/// ```
///
/// # Panics
/// The policy panics, refuses to answer, or answers against the laws.
#[must_use]
pub fn run<P: Policy, Q: Question>(question: &Q) -> Q::Verdict {
    run_with::<P, Q>("", question)
}

/// Asks a policy with parameters, as the `.json` beside the module names them. For tests.
///
/// # Panics
/// As [`run`], and if the policy refuses the parameters.
#[must_use]
pub fn run_with<P: Policy, Q: Question>(parameters: &str, question: &Q) -> Q::Verdict {
    let policy = match abi::parameters::<P>(parameters.as_bytes()) {
        Ok(policy) => policy,
        Err(refusal) => panic!("the policy refuses its parameters: {}", refusal.message),
    };
    let verdict = ask(&policy, question).unwrap_or_else(|error| panic!("{error}"));
    match question.check(&verdict) {
        Ok(()) => verdict,
        Err(fault) => panic!("the verdict is not sound: {fault}"),
    }
}

/// Asks a policy; does not check the verdict.
///
/// # Errors
/// It has no such kind, refuses, or its bytes are no verdict.
pub fn ask<P: Policy, Q: Question>(policy: &P, question: &Q) -> Result<Q::Verdict, String> {
    let input = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    answer_to(policy, question, &input)
}

/// Asks a policy in columns where the question has them; does not check the verdict.
///
/// # Errors
/// As [`ask`].
pub fn ask_in_columns<P: Policy, Q: Question>(
    policy: &P,
    question: &Q,
) -> Result<Q::Verdict, String> {
    match question.to_columns() {
        Some(input) => answer_to(policy, question, &input),
        None => ask(policy, question),
    }
}

fn answer_to<P: Policy, Q: Question>(
    policy: &P,
    question: &Q,
    input: &[u8],
) -> Result<Q::Verdict, String> {
    let none = || format!("the policy has no kind {}: it has {:?}", Q::KIND, P::KINDS);
    let bytes = policy.answer(Q::KIND, input).ok_or_else(none)?;
    match abi::read_answer(question, &bytes) {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(refusal)) => {
            Err(format!("the policy refuses: {}: {}", refusal.code, refusal.message))
        }
        Err(error) => Err(format!("its answer is no verdict: {error}")),
    }
}
