//! What crosses the agent's socket, for both of its ends.

mod admin;
mod live;

use crate::config::Bound;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use steadfast_core::decision::{Kind, PolicyRecord};
use steadfast_core::event::Decider;
use steadfast_core::ids::VmId;
use steadfast_core::ledger::{OnShutdown, default_budget};
use steadfast_core::snapshot::{NodeView, Snapshot, VmView};
use steadfast_sdk::wire::Score;

pub use admin::{
    AuditEntry, CheckSettings, CheckedSettings, Disarmed, SetPriority, SettingProblem, Settings,
    Uploaded, Verification,
};
pub(crate) use live::Beside;
pub use live::{LiveState, NodePlan, Restart, timing_by_key};

/// An object; serde alone would take a list of its fields' values too.
pub(crate) fn object<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = Value::deserialize(from)?;
    if !value.is_object() {
        return Err(D::Error::custom(format!("expected an object, got {value}")));
    }
    serde_json::from_value(value).map_err(D::Error::custom)
}

fn objects<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let values = Vec::<Value>::deserialize(from)?;
    values.into_iter().map(|value| object(value).map_err(D::Error::custom)).collect()
}

/// `GET /v1/status`.
#[derive(Debug, Clone, schemars::JsonSchema, Serialize)]
pub struct StatusReport {
    /// Version of the agent.
    pub version: String,
    /// Wall-clock time in milliseconds since 1970, for people.
    pub wall_ms: u64,
    /// Worst cases from a fault to the start elsewhere.
    pub bounds: Vec<Bound>,
    /// What a person should put right on this node.
    pub warnings: Vec<String>,
    /// How late this node's beats were.
    pub beats: BeatReport,
    /// The state, from this node's point of view.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

/// How late beats were: whether anything kept the lease path waiting.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize,
)]
pub struct BeatReport {
    /// Time between two beats, as configured.
    pub interval_ms: u64,
    /// The longest time between two beats since the agent started; corosync's absence counts too.
    pub longest_gap_ms: u64,
    /// The same within the last half minute, or a little longer.
    pub longest_gap_lately_ms: u64,
}

impl StatusReport {
    /// Reads what the agent wrote. Twice over, because serde's flattening cannot read boot ids (128 bits).
    ///
    /// # Errors
    /// It is not a status report.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            version: String,
            wall_ms: u64,
            bounds: Vec<Bound>,
            #[serde(default)]
            warnings: Vec<String>,
            #[serde(default)]
            beats: BeatReport,
        }
        let Head { version, wall_ms, bounds, warnings, beats } = serde_json::from_slice(bytes)?;
        let snapshot = serde_json::from_slice(bytes)?;
        Ok(Self { version, wall_ms, bounds, warnings, beats, snapshot })
    }
}

/// `GET /v1/decisions`, and one item of `GET /v1/events`.
#[derive(Debug, Clone, schemars::JsonSchema, Serialize, Deserialize)]
pub struct DecisionReport {
    /// Names it among all decisions of the cluster: node, when its agent started, number.
    #[serde(default)]
    pub id: String,
    /// Name of the node that recorded it.
    #[serde(default)]
    pub recorded_by: String,
    /// Counts the records of this incarnation.
    pub number: u64,
    /// Own time of the node that recorded it.
    pub at_ms: u64,
    /// Wall-clock time, for people.
    pub wall_ms: u64,
    /// What it tells.
    pub kind: Kind,
    /// Name of the node it is about.
    pub node: Option<String>,
    /// Name of the VM it is about.
    pub vm: Option<String>,
    /// UUID of that VM.
    pub vm_id: Option<VmId>,
    /// The leader's term then.
    pub term: u64,
    /// The ledger's stamp then.
    pub stamp: String,
    /// The sentence for people.
    pub text: String,
    /// The rule it rests on.
    pub rule: String,
    /// The facts it rests on.
    pub facts: Vec<(String, String)>,
    /// Where a policy had a say: who it was, and what it said of this VM or node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<ReasonsReport>,
    /// The whole question and verdict, in the first decision that rests on them. Neither in the stream nor on shared storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<PolicyRecord>>,
}

/// What a policy said of one VM or node.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct ReasonsReport {
    /// Who decided.
    pub decider: Decider,
    /// Candidates, best first.
    pub candidates: Vec<CandidateReport>,
    /// What the host did not follow, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<String>,
    /// Id of the decision that holds the whole question.
    pub record: String,
}

/// One node that a policy ranked.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct CandidateReport {
    /// Name of the node.
    pub node: String,
    /// Its score, with terms.
    pub score: Score,
}

impl DecisionReport {
    /// The same without what may be megabytes.
    #[must_use]
    pub fn without_question(&self) -> Self {
        Self { policy: None, ..self.clone() }
    }
}

#[cfg(test)]
impl DecisionReport {
    /// `web` goes to `n2`.
    pub(crate) fn sample() -> Self {
        Self {
            id: "n1-5-1".into(),
            recorded_by: "n1".into(),
            number: 1,
            at_ms: 5,
            wall_ms: 0,
            kind: Kind::Decided,
            node: Some("n2".into()),
            vm: Some("web".into()),
            vm_id: Some(VmId("u1".into())),
            term: 3,
            stamp: "3.1v9".into(),
            text: "web goes to n2".into(),
            rule: "PROTOCOL 5".into(),
            facts: vec![("proof".into(), "fenced".into())],
            reasons: None,
            policy: None,
        }
    }
}

/// `POST /v1/policies/{kind}/evaluate`.
#[derive(Debug, Clone, Default, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The question, as the policy would get it: its fields follow from the kind.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub question: serde_json::Value,
    /// A policy of the folder, by its name or its file's; without it whoever decides.
    #[serde(default)]
    pub policy: Option<String>,
}

/// `POST /v1/policies/{kind}/rollback`.
#[derive(Debug, Clone, Default, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// What is to decide no more (SHA-256, as in `GET /v1/policies`), also where it is not loaded yet; without it whoever decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// `POST` and `DELETE /v1/policies/{kind}/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct RolledBack {
    /// The kind.
    pub kind: crate::policy::Kind,
    /// What decided until now; `None`: the rollback was taken back.
    pub from: Option<String>,
    /// What this node would use now.
    pub decides: String,
}

/// `GET /v1/explain/{name}`: of a VM, a node, or a decision.
#[derive(Debug, Clone, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub name: String,
    /// It is an HA VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmView>,
    /// It is a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeView>,
    /// Decisions about it by any node, oldest first; or the one with this id and the one that holds its question.
    pub decisions: Vec<DecisionReport>,
    /// What could not be read, and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// `POST /v1/vms`.
#[derive(Debug, Clone, Default, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnableVm {
    /// libvirt name of a VM that is defined on this node.
    pub name: String,
    /// Restart priority, 0 (last) to 1000 (first).
    #[serde(default = "EnableVm::default_priority")]
    #[schemars(range(max = 1000))]
    pub priority: u16,
    /// Labels for policies.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Restarts on its node before it is relocated.
    #[serde(default = "default_budget")]
    pub max_restarts: u32,
    /// Relocations after failed starts before it is given up.
    #[serde(default = "default_budget")]
    pub max_relocations: u32,
    /// What to do when its guest shuts itself down.
    #[serde(default)]
    pub on_shutdown: OnShutdown,
    /// HA VMs, by name or UUID, that must run before it is started.
    #[serde(default)]
    pub after: Vec<String>,
}

impl EnableVm {
    /// Priority when none is given.
    #[must_use]
    pub fn default_priority() -> u16 {
        500
    }
}

/// `GET /v1/domains/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Defined {
    /// Its UUID.
    pub id: VmId,
    /// Its name.
    pub name: String,
}

/// `POST /v1/vms/{name}/migrate` and `relocate`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveVm {
    /// Name of the node to move it to.
    pub to: String,
}

/// `POST /v1/nodes/{name}/maintenance`.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeginMaintenance {
    /// VMs that cannot move live are stopped and started elsewhere; otherwise they stay.
    pub restart: bool,
    /// The operator's words.
    pub reason: String,
}

/// `POST /v1/nodes/{name}/telemetry`: readings of another system.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostTelemetry {
    /// Who posts, in one word: a reading becomes `external.<source>.<name>`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub source: String,
    /// They count for so many milliseconds.
    #[schemars(range(min = 1_000, max = 604_800_000))]
    pub ttl_ms: u64,
    /// The readings.
    #[serde(deserialize_with = "objects")]
    pub readings: Vec<PostedReading>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostedReading {
    /// Words with dots between them.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"), length(max = 64))]
    pub name: String,
    /// An integer, in the unit that its name ends in.
    pub value: i64,
}

/// `POST /v1/nodes/{name}/risk`: another system's verdict, which becomes the reading `external.<source>.risk`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostRisk {
    /// Who says so, in one word.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub source: String,
    /// It counts for so many milliseconds.
    #[schemars(range(min = 1_000, max = 604_800_000))]
    pub ttl_ms: u64,
    /// 0 (healthy) to 1000 (failing).
    #[schemars(range(max = 1000))]
    pub score: u16,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// How many readings were kept, or withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Posted {
    /// Their number.
    pub readings: usize,
}

/// `POST /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddNode {
    /// Its corosync node id.
    #[schemars(range(min = 1))]
    pub id: u32,
    /// Its name, as corosync's node list has it.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// `POST /v1/disarm`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DisarmRequest")]
pub struct Disarm {
    /// Armed again after this many milliseconds; without it, when somebody arms.
    #[serde(default)]
    #[schemars(range(min = 1, max = 31_536_000_000_u64))]
    pub limit_ms: Option<u64>,
    /// The operator's words.
    #[schemars(regex(pattern = r"\S"))]
    pub reason: String,
}

/// Answer to a change that is of no VM.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Done {
    /// The ledger's stamp that holds the change.
    pub stamp: String,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Answer to a change of a VM.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Changed {
    /// Name of the VM.
    pub vm: String,
    /// UUID of the VM.
    pub id: VmId,
    /// The ledger's stamp that holds the change.
    pub stamp: String,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An error as RFC 9457 has it, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Problem {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// This case.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// Where a policy was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<crate::policy::Stage>,
    /// The class of its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<crate::policy::Class>,
}
