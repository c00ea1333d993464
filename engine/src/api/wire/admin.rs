//! What administrators read and change: settings, priorities, verification IPs, policies, and who changed what.

use crate::config::{Bound, Preset, TimingOverrides};
use crate::policy::{Headroom, Kind, StageTime};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use steadfast_core::ledger;

/// `GET /v1/settings`: the time-outs that this agent runs with.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Settings {
    /// The set that they begin with.
    pub preset: Preset,
    /// All of them, by their TOML keys, in milliseconds; `membership_ms` is corosync's.
    pub timing: BTreeMap<String, u64>,
    /// Worst cases from a fault to the start elsewhere.
    pub bounds: Vec<Bound>,
}

/// `POST /v1/settings/check`: would these be safe? Nothing is changed.
#[derive(Debug, Clone, Default, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckSettings {
    /// Begin with this set instead of the time-outs in use.
    pub preset: Option<Preset>,
    /// Time-outs that differ.
    #[serde(deserialize_with = "super::object")]
    pub timing: TimingOverrides,
}

/// Whether they would be.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct CheckedSettings {
    /// Every inequality holds.
    pub ok: bool,
    /// Those that do not.
    pub problems: Vec<SettingProblem>,
    /// All time-outs that were checked.
    pub timing: BTreeMap<String, u64>,
    /// Worst cases with them.
    pub bounds: Vec<Bound>,
}

/// An inequality that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SettingProblem {
    /// With the numbers, and the nearest safe values.
    pub text: String,
    /// The inequality.
    pub inequality: String,
}

/// `PUT /v1/vms/{name}/priority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPriority {
    /// Restart priority, 0 (last) to 1000 (first).
    #[schemars(range(max = 1000))]
    pub priority: u16,
}

/// How an address is written.
struct Address;

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let of = |format: &str| json_schema!({ "type": "string", "format": format });
        json_schema!({ "anyOf": [of("ipv4"), of("ipv6")] })
    }
}

/// `GET` and `PUT /v1/verification`: addresses that tell whether the VM network of this node is alive.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The addresses.
    #[schemars(with = "Vec<Address>", length(max = 32))]
    pub addresses: Vec<IpAddr>,
    /// How many of them must answer; without it more than half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<usize>,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// `PUT /v1/policies/{kind}/module`: what was kept.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Uploaded {
    /// What it decides, among others.
    pub kind: Kind,
    /// Name from its manifest.
    pub name: String,
    /// Version from its manifest.
    pub version: String,
    /// Its file in the folder.
    pub file: String,
    /// SHA-256 of module, parameters and limits, in hex.
    pub digest: String,
    /// The stages of its check.
    pub stages: Vec<StageTime>,
    /// What the largest question took of its limits.
    pub headroom: Vec<Headroom>,
    /// What to know about it.
    pub notes: Vec<String>,
}

/// `GET /v1/disarm`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Disarmed {
    /// HA is off for everybody, or about to be; `null`: it is on.
    pub disarm: Option<ledger::Disarm>,
}

/// `GET /v1/audit`: one change that somebody asked this agent for.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditEntry {
    /// Counts up.
    pub number: u64,
    /// Wall-clock time in milliseconds since 1970.
    pub at_wall_ms: u64,
    /// Who asked: the name in the configuration, or `local` for the unix socket.
    pub who: String,
    /// For whom, if a service asked for somebody else: that service's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Over what: `unix`, `tls` or `loopback`.
    pub via: String,
    /// The method and the path.
    pub what: String,
    /// The request's body, or its size and digest if it is large or no JSON.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub body: serde_json::Value,
    /// What it was before; absent if there was nothing.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub before: serde_json::Value,
    /// What it was after; absent if there is nothing.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub after: serde_json::Value,
    /// The answer's HTTP status; 0: there was none yet, or the agent ended meanwhile.
    pub status: u16,
    /// The answer's words, if it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
