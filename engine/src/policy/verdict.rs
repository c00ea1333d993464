//! Whether a verdict has the shape its question allows: the SDK's check, in the words of a failure. The core checks again; legality of
//! a start is the core's alone.

use steadfast_sdk::check::Question;

use super::{Class, Failure, Stage};

pub(super) fn check<Q: Question>(question: &Q, verdict: &Q::Verdict) -> Result<(), Failure> {
    question.check(verdict).map_err(|fault| {
        let remedy = "correct the policy: answer only with what the question names, each once";
        Failure::new(Stage::Call, Class::BadOutput, fault.to_string(), remedy)
    })
}
