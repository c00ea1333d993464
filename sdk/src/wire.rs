//! What crosses the border between host and policy: ABI 1, JSON.
//!
//! The host asks a *question*, the policy answers with a *verdict*. Fields are only ever added, always
//! with a default, so one policy file serves hosts of different minors. Collections are arrays whose
//! items carry their id; the host sorts them by id, so the same situation is always the same bytes.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use serde::{Deserialize, Serialize};

pub use crate::name::Name;

/// What the host knows of a node when it asks.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Corosync node id.
    pub id: u32,
    /// Name of the node, as in the ledger.
    pub name: String,
    /// Status as people see it ("Leader", "Member", "Suspect", ...).
    pub status: String,
    /// Memory that HA VMs may use, in MiB (host memory less what is kept for the host; source: libvirt).
    pub memory_mib: u64,
    /// Memory that no VM is configured to use, in MiB.
    pub memory_free_mib: u64,
    /// Memory that nothing really uses now, in MiB, in steps of 64 (source: MemAvailable of /proc/meminfo); 0: not known.
    pub real_memory_free_mib: u64,
    /// CPUs of the node (source: libvirt).
    pub vcpus: u32,
    /// Virtual CPUs that VMs on it are configured with.
    pub vcpus_used: u32,
    /// Load average over one minute, per thousand of a CPU (source: /proc/loadavg).
    pub load_permille: u32,
    /// Duration of its last complete storage cycle, in milliseconds.
    pub storage_latency_ms: u64,
    /// Age of its network evidence (majority echo), in milliseconds.
    pub network_age_ms: u64,
    /// How often it left and came back within the flap window.
    pub flaps: u32,
    /// Risk score of proactive HA, 0 (healthy) to 1000 (failing).
    pub risk: u16,
    /// The operator asked not to use it for new work.
    pub cordoned: bool,
    /// Labels from its configuration, e.g. `rack = "a"`.
    pub labels: BTreeMap<String, String>,
}

/// What the host knows of a VM when it asks.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmFacts {
    /// The VM's UUID.
    pub id: String,
    /// Its libvirt name.
    pub name: String,
    /// Configured memory in MiB.
    pub memory_mib: u64,
    /// Configured virtual CPUs.
    pub vcpus: u32,
    /// Restart priority, 0 (last) to 1000 (first).
    pub priority: u16,
    /// Labels given at enrolment, e.g. `group = "db"`.
    pub labels: BTreeMap<String, String>,
    /// The node that owned it until now.
    pub last_node: Option<u32>,
    /// Ids of those VMs of the question that it starts after.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<String>,
    /// Where its operator wants it.
    #[serde(skip_serializing_if = "Affinity::is_empty")]
    pub affinity: Affinity,
}

/// Where a VM must stand, or would rather, by its operator. What it says of "must" the host keeps, whatever a verdict says.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Affinity {
    /// Nodes that it prefers, by name, with how much: the highest number first. Empty: all nodes are equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, u32>,
    /// It must stand on one of `nodes`; otherwise others serve while none of them can.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub strict: bool,
    /// It does not move by itself to a node that it prefers.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub stays: bool,
    /// VMs that share one of these words must share a node.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub together: BTreeSet<String>,
    /// VMs that share one of these words must not share a node.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub apart: BTreeSet<String>,
}

impl Affinity {
    /// It says nothing.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.together.is_empty() && self.apart.is_empty()
    }

    /// How much it prefers the node of this name: 0 is not at all.
    #[must_use]
    #[inline]
    pub fn preference(&self, node: &str) -> u32 {
        if self.nodes.is_empty() {
            return 0;
        }
        self.nodes.get(node).map_or(0, |weight| weight.saturating_add(1))
    }

    /// It may stand on the node of this name, as far as `nodes` goes.
    #[must_use]
    #[inline]
    pub fn allows(&self, node: &str) -> bool {
        !self.strict || self.nodes.is_empty() || self.nodes.contains_key(node)
    }
}

/// VMs that stay where they are, for policies that keep VMs apart or together. The host names only those that share a label, or a
/// word of their affinity, with a VM that needs a place, and only what they share; those that share the same make one row.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resident {
    /// The VM's UUID.
    pub vm: String,
    /// Its owner.
    pub node: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where its operator wants it.
    #[serde(skip_serializing_if = "Affinity::is_empty")]
    pub affinity: Affinity,
    /// More VMs with the same labels and the same affinity: nodes, and how many stand there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alike: Vec<(u32, u32)>,
}

impl Resident {
    /// Nodes on which VMs of this row stand, and how many; a node may come twice.
    pub fn standing(&self) -> impl Iterator<Item = (u32, u32)> {
        core::iter::once((self.node, 1)).chain(self.alike.iter().copied())
    }
}

/// One reason of a score; the terms of a score sum to its value.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Term {
    /// What was looked at, in the operator's words ("free memory").
    pub name: Name,
    /// What it adds to the score.
    pub value: i64,
}

/// A number that explains itself.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Score {
    /// Higher is better (for risk: higher is worse). Range: -1_000_000_000..=1_000_000_000.
    pub value: i64,
    /// Its reasons; none where nobody will ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Term>,
}

/// `node_priority`: how well would this node lead? Each elector asks about itself.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePriorityQuestion {
    /// The asking node's own time in milliseconds. For arithmetic, not for people.
    pub now_ms: u64,
    /// Digest of the rest of the question: the only source of chance a policy may use.
    pub seed: u64,
    /// The node asked about.
    pub node: NodeFacts,
}

/// Verdict of `node_priority`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePriorityVerdict {
    /// Priority of the node; the highest leads, the lowest node id breaks ties.
    pub score: Score,
}

/// `placement`: in which order do these VMs start, and where?
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementQuestion {
    /// The leader's own time in milliseconds.
    pub now_ms: u64,
    /// Digest of the rest of the question.
    pub seed: u64,
    /// Nodes that may take VMs now, by id. Hard constraints are the host's and come after the verdict.
    pub nodes: Vec<NodeFacts>,
    /// VMs that need a place, by id.
    pub vms: Vec<VmFacts>,
    /// VMs that stay where they are and have something in common with those.
    pub residents: Vec<Resident>,
}

/// One node in a VM's ranking.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RankedNode {
    /// Node id; must be one of the question's.
    pub node: u32,
    /// Why it stands here.
    pub score: Score,
}

/// One VM in the order of starts.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RankedVm {
    /// VM UUID; must be one of the question's.
    pub vm: String,
    /// Candidate nodes, best first. A node left out is used for this VM only if none of them can take it.
    pub nodes: Vec<RankedNode>,
}

/// Verdict of `placement`. A VM left out is ranked by the built-in policy.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementVerdict {
    /// VMs in the order in which they shall start.
    pub vms: Vec<RankedVm>,
}

/// One reading of a node's equipment.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// Source and name, e.g. `smart.sda.reallocated`, `psi.memory.some_avg60_permille`.
    pub name: String,
    /// The value, as an integer in the unit its name ends in.
    pub value: i64,
    /// Age in milliseconds.
    pub age_ms: u64,
}

/// `risk`: how likely is this node to fail soon?
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RiskQuestion {
    /// The asking node's own time in milliseconds.
    pub now_ms: u64,
    /// Digest of the rest of the question.
    pub seed: u64,
    /// The node asked about.
    pub node: NodeFacts,
    /// Its equipment telemetry, by name.
    pub telemetry: Vec<Reading>,
}

/// Verdict of `risk`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RiskVerdict {
    /// 0 (healthy) to 1000 (failing); its terms are the reasons.
    pub score: Score,
}
