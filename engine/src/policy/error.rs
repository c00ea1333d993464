//! What can go wrong with a policy: where, of which class, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Classes of failure, never merged: each asks for another remedy.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, schemars::JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The file is not what a policy file must be.
    Refused,
    /// It used up its fuel.
    TimeoutFuel,
    /// It was still running at the wall deadline.
    TimeoutWall,
    /// It wanted more memory or table elements than it may have.
    Memory,
    /// It called too deeply.
    Stack,
    /// It panicked or trapped.
    Panic,
    /// It answered with an error of its own.
    GuestError,
    /// Its answer is not a valid verdict.
    BadOutput,
    /// It broke a law that every policy keeps.
    LawViolation,
    /// The host failed: a fault of ours.
    Host,
}

/// Stages of loading, in order, and the call.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, schemars::JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the module and its parameters.
    Read,
    /// Size of the files.
    Size,
    /// SHA-256 of both.
    Digest,
    /// Who may write the files and the folder.
    Permissions,
    /// Who signed them, where the configuration asks for it.
    Signature,
    /// The module's structure and its manifest.
    Manifest,
    /// Limits that can be checked without compiling.
    Limits,
    /// Compiling to native code; imports and exports.
    Compile,
    /// The first instance.
    Instantiate,
    /// Parameters.
    Init,
    /// Small known questions.
    SelfTest,
    /// What every policy keeps to: the same question, permuted or repeated, has the same answer.
    Laws,
    /// The largest question that the configured cluster can ask.
    Rehearsal,
    /// It may decide as soon as it is its turn.
    Staged,
    /// It decides.
    Active,
    /// A question of the cluster.
    Call,
}

macro_rules! display_as_serialized {
    ($($name:ty),+) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = serde_json::to_value(self).map_err(|_| fmt::Error)?;
                f.write_str(text.as_str().unwrap_or_default())
            }
        }
    )+ };
}
display_as_serialized!(Class, Stage);

/// One failure, complete enough to act on.
#[derive(
    Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize, thiserror::Error,
)]
#[error("{class} at {stage}: {reason} (remedy: {remedy})")]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Of which class.
    pub class: Class,
    /// Why, with the values.
    pub reason: String,
    /// What the operator or the policy's author can do.
    pub remedy: String,
}

impl Failure {
    /// A failure at a stage.
    pub fn new(
        stage: Stage,
        class: Class,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { stage, class, reason: reason.into(), remedy: remedy.into() }
    }

    /// A file that is not what it must be.
    pub(super) fn refused(
        stage: Stage,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(stage, Class::Refused, reason, remedy)
    }

    /// The same failure, met at another stage.
    pub(super) fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }
}
