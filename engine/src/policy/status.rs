//! What the API, the CLI and the page show of policies.

use serde::Serialize;

use super::generation::{Digests, Generation, hex};
use super::{Failure, Kind, Stage};

/// Whether a policy decides, or why it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It decides.
    Active,
    /// It decides although its file is gone or has been replaced by one that failed, or it is the one
    /// before the active one.
    LastGood,
    /// It is good, but another one decides: a custom policy wins over a default one.
    Standby,
    /// Several custom policies claim the kind: none of them is chosen.
    Ambiguous,
    /// It did not pass loading.
    Failed,
    /// It failed too often in a row and is not asked again until it is replaced.
    Suspended,
    /// The agent's own.
    BuiltIn,
}

/// How long a stage of loading took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// Duration in microseconds.
    pub micros: u64,
    /// Whether it was passed.
    pub passed: bool,
}

/// One policy and one kind that it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// What it decides. `None`: its file did not get far enough to tell.
    pub kind: Option<Kind>,
    /// Name from its manifest.
    pub name: String,
    /// Version from its manifest.
    pub version: String,
    /// Name of its file in the folder; empty for the agent's own.
    pub file: String,
    /// One sentence from its manifest.
    pub about: String,
    /// SHA-256 of the module, in hex.
    pub wasm_sha256: String,
    /// SHA-256 of the parameters, in hex.
    pub parameters_sha256: String,
    /// SHA-256 of module, parameters and limits, in hex: the same on all nodes that hold the same.
    pub digest: String,
    /// Counts up with every load since the agent started; 0 for the agent's own.
    pub generation: u64,
    /// Whether it decides, or why not.
    pub state: State,
    /// Whether the next question of the kind goes to it first.
    pub deciding: bool,
    /// Stages of the last load of its file.
    pub stages: Vec<StageTime>,
    /// The last failure of loading its file, else of calling it.
    pub last_error: Option<Failure>,
    /// Calls that were answered.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Failures since the last answer.
    pub failures_in_row: u32,
    /// Half of the last 256 answers took at most so many microseconds.
    pub p50_micros: Option<u64>,
    /// 99 of 100 did.
    pub p99_micros: Option<u64>,
    /// Fuel of the last answer.
    pub last_fuel: u64,
    /// Linear memory of the last answer, in bytes.
    pub last_memory_bytes: usize,
}

impl PolicyStatus {
    pub(super) fn built_in(kind: Kind, deciding: bool) -> Self {
        let twin = kind.twin();
        let digest = hex(&kind.twin_digest());
        Self {
            kind: Some(kind),
            name: twin.name.into(),
            version: twin.version.into(),
            about: twin.about.into(),
            digest,
            deciding,
            ..Self::empty("", State::BuiltIn)
        }
    }

    pub(super) fn empty(file: &str, state: State) -> Self {
        Self {
            kind: None,
            name: String::new(),
            version: String::new(),
            file: file.into(),
            about: String::new(),
            wasm_sha256: String::new(),
            parameters_sha256: String::new(),
            digest: String::new(),
            generation: 0,
            state,
            deciding: false,
            stages: Vec::new(),
            last_error: None,
            calls: 0,
            failures: 0,
            failures_in_row: 0,
            p50_micros: None,
            p99_micros: None,
            last_fuel: 0,
            last_memory_bytes: 0,
        }
    }

    pub(super) fn of(generation: &Generation, kind: Kind, state: State, deciding: bool) -> Self {
        let Digests { wasm, parameters, all } = &generation.digests;
        let tally = generation.tally(kind).clone();
        Self {
            kind: Some(kind),
            name: generation.manifest.name.clone(),
            version: generation.manifest.version.clone(),
            about: generation.manifest.about.clone(),
            wasm_sha256: hex(wasm),
            parameters_sha256: hex(parameters),
            digest: hex(all),
            generation: generation.number,
            deciding,
            calls: tally.calls,
            failures: tally.failures,
            failures_in_row: tally.failures_in_row,
            p50_micros: tally.percentile(50),
            p99_micros: tally.percentile(99),
            last_fuel: tally.last_fuel,
            last_memory_bytes: tally.last_memory_bytes,
            last_error: tally.last_failure,
            ..Self::empty(&generation.file, state)
        }
    }

    /// What a listener wants to hear of: not the counters.
    pub(super) fn news(&self) -> impl PartialEq + use<> {
        let error = self.last_error.clone();
        (self.kind, self.file.clone(), self.digest.clone(), self.state, self.deciding, error)
    }
}
