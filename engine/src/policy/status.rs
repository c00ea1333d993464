//! What the API, the CLI and the page show of policies. The agent writes it and the command line reads it.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use steadfast_sdk::manifest::ParameterFacts;

use super::breaker::BreakerStatus;
use super::generation::{Digests, Generation, hex};
use super::rehearsal::Headroom;
use super::{Failure, Kind, Limits, Stage};

/// Whether a policy decides, or why it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It decides.
    Active,
    /// It is ready: it decides as soon as all live nodes hold it (node priority only).
    Staged,
    /// It decides although its file is gone or has been replaced by one that failed, or it is one before the active
    /// one: asked when that fails.
    LastGood,
    /// It is good, but another one decides: a bound policy wins over a custom one, a custom one over a default one.
    Standby,
    /// Several custom policies claim the kind: none of them is chosen.
    Ambiguous,
    /// It did not pass loading.
    Failed,
    /// It failed too often in a row and is not asked for a while.
    Suspended,
    /// An operator rolled back from it; it waits until the folder says something else.
    RolledBack,
    /// The agent's own.
    BuiltIn,
}

/// How long a stage of loading took.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// Duration in microseconds.
    pub micros: u64,
    /// Whether it was passed.
    pub passed: bool,
}

/// `GET /v1/policies`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct PoliciesStatus {
    /// Every kind, with all policies that are for it.
    pub kinds: Vec<KindStatus>,
    /// Files of the folder that did not pass loading.
    pub failed: Vec<PolicyStatus>,
}

/// `GET /v1/policies/{kind}`: who decides the kind, and who else might.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct KindStatus {
    /// What is decided.
    pub kind: Kind,
    /// The policy that the configuration binds to it.
    pub bind: Option<String>,
    /// Several policies claim it, and none is bound.
    pub ambiguous: bool,
    /// Digest of the generation that an operator rolled back from.
    pub rolled_back_from: Option<String>,
    /// Whether the nodes agree, in words.
    pub agreement: String,
    /// What the nodes hold, by their beats.
    pub peers: Vec<Peer>,
    /// All policies for it that this node knows, by generation; the agent's own first.
    pub policies: Vec<PolicyStatus>,
    /// What shadows said otherwise, the newest last.
    pub differences: Vec<Difference>,
}

/// What one node holds for a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// The node.
    pub node: String,
    /// It is in the view and heard.
    pub live: bool,
    /// Digest of what it would use: staged.
    pub staged: String,
    /// Digest of what it uses.
    pub active: String,
}

/// A verdict of a shadow that was not the decider's.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct Difference {
    /// Wall-clock time in milliseconds since 1970.
    pub wall_ms: u64,
    /// The shadow: name, version and generation.
    pub shadow: String,
    /// Who decided.
    pub decider: String,
    /// What it would have done otherwise, in a sentence.
    pub text: String,
}

/// How a shadow has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct ShadowStatus {
    /// Questions that it answered.
    pub asked: u64,
    /// Questions that it answered otherwise than the decider.
    pub differed: u64,
    /// Questions that it failed.
    pub failed: u64,
    /// Questions that it was not asked, since it was busy with another.
    pub skipped: u64,
}

/// One policy and one kind that it is for.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
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
    /// Its parameters, from its manifest.
    pub parameters: Vec<ParameterFacts>,
    /// SHA-256 of the module, in hex.
    pub wasm_sha256: String,
    /// SHA-256 of the parameters, in hex.
    pub parameters_sha256: String,
    /// SHA-256 of module, parameters and limits, in hex: the same on all nodes that hold the same.
    pub digest: String,
    /// Size of the module, in bytes.
    pub module_bytes: usize,
    /// Counts up with every load since the agent started; 0 for the agent's own.
    pub generation: u64,
    /// Wall-clock time of its loading in milliseconds since 1970.
    pub loaded_ms: u64,
    /// Whether it decides, or why not.
    pub state: State,
    /// Whether the next question of the kind goes to it first.
    pub deciding: bool,
    /// Whether it is asked without deciding.
    pub shadow: bool,
    /// Stages of its loading, or of the last attempt at its file.
    pub stages: Vec<StageTime>,
    /// The last failure of loading its file, else of calling it.
    pub last_error: Option<Failure>,
    /// Generated questions on which it kept the laws when it was loaded.
    pub laws_tried: usize,
    /// What the largest question took of its limits.
    pub headroom: Option<Headroom>,
    /// Calls that were answered.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Whether it is asked after its last failures.
    pub breaker: BreakerStatus,
    /// Half of the last 256 answers took at most so many microseconds.
    pub p50_micros: Option<u64>,
    /// 99 of 100 did.
    pub p99_micros: Option<u64>,
    /// Fuel of the last answer.
    pub last_fuel: u64,
    /// Linear memory of the last answer, in bytes.
    pub last_memory_bytes: usize,
    /// How it has done as a shadow.
    pub shadowed: ShadowStatus,
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
            parameters: Vec::new(),
            wasm_sha256: String::new(),
            parameters_sha256: String::new(),
            digest: String::new(),
            module_bytes: 0,
            generation: 0,
            loaded_ms: 0,
            state,
            deciding: false,
            shadow: false,
            stages: Vec::new(),
            last_error: None,
            laws_tried: 0,
            headroom: None,
            calls: 0,
            failures: 0,
            breaker: BreakerStatus::default(),
            p50_micros: None,
            p99_micros: None,
            last_fuel: 0,
            last_memory_bytes: 0,
            shadowed: ShadowStatus::default(),
        }
    }

    pub(super) fn of(it: &Generation, kind: Kind, state: State, limits: &Limits) -> Self {
        let Digests { wasm, parameters, all } = &it.digests;
        let tally = it.tally(kind).clone();
        Self {
            kind: Some(kind),
            name: it.manifest.name.clone(),
            version: it.manifest.version.clone(),
            about: it.manifest.about.clone(),
            parameters: it.manifest.parameters.clone(),
            wasm_sha256: hex(wasm),
            parameters_sha256: hex(parameters),
            digest: hex(all),
            module_bytes: it.module_bytes,
            generation: it.number,
            loaded_ms: it.loaded_ms,
            stages: it.stages.clone(),
            laws_tried: it.laws_tried,
            headroom: it.headroom.iter().find(|headroom| headroom.kind == kind).cloned(),
            calls: tally.calls,
            failures: tally.failures,
            breaker: tally.breaker.status(limits, Instant::now()),
            p50_micros: tally.percentile(50),
            p99_micros: tally.percentile(99),
            last_fuel: tally.last_fuel,
            last_memory_bytes: tally.last_memory_bytes,
            shadowed: tally.shadowed,
            last_error: tally.last_failure,
            ..Self::empty(&it.file, state)
        }
    }

    /// What a listener wants to hear of: not the counters.
    pub(super) fn news(&self) -> impl PartialEq + use<> {
        let error = self.last_error.clone();
        (self.kind, self.file.clone(), self.digest.clone(), self.state, self.deciding, error)
    }
}

impl Default for PolicyStatus {
    fn default() -> Self {
        Self::empty("", State::Standby)
    }
}

impl KindStatus {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            bind: None,
            ambiguous: false,
            rolled_back_from: None,
            agreement: String::new(),
            peers: Vec::new(),
            policies: Vec::new(),
            differences: Vec::new(),
        }
    }
}

impl Default for KindStatus {
    fn default() -> Self {
        Self::new(Kind::Placement)
    }
}

impl PoliciesStatus {
    /// All policies of all kinds, and the files that failed.
    pub fn all(&self) -> impl Iterator<Item = &PolicyStatus> {
        self.kinds.iter().flat_map(|kind| &kind.policies).chain(&self.failed)
    }
}
