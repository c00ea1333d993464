//! The kinds of policy, each with its question, its verdict and its built-in twin.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};
use steadfast_sdk::abi::Wire;
use steadfast_sdk::manifest::Source;
use steadfast_sdk::wire::{
    Affinity, NodeFacts, NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion,
    PlacementVerdict, Reading, Resident, RiskQuestion, RiskVerdict, VmFacts,
};

use super::{Failure, verdict};

/// What a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// How well a node would lead.
    NodePriority,
    /// Order of starts, and where.
    Placement,
    /// How likely a node is to fail soon.
    Risk,
}

impl Kind {
    /// All of them, in the order of their seats.
    pub const ALL: [Self; 3] = [Self::NodePriority, Self::Placement, Self::Risk];

    /// Its name in manifests and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodePriority => "node_priority",
            Self::Placement => "placement",
            Self::Risk => "risk",
        }
    }

    /// The module's export that answers it.
    pub(super) const fn export(self) -> &'static str {
        match self {
            Self::NodePriority => "steadfast_node_priority",
            Self::Placement => "steadfast_placement",
            Self::Risk => "steadfast_risk",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its place in arrays of seats.
    pub(super) const fn seat(self) -> usize {
        self as usize
    }

    /// The built-in twin's manifest.
    pub(super) const fn twin(self) -> Source {
        match self {
            Self::NodePriority => steadfast_policy_node_priority::MANIFEST,
            Self::Placement => steadfast_policy_placement::MANIFEST,
            Self::Risk => steadfast_policy_risk::MANIFEST,
        }
    }

    /// The built-in twin's digest: of its name and version, since it is part of the agent.
    pub(super) fn twin_digest(self) -> [u8; 32] {
        let twin = self.twin();
        Sha256::digest(format!("built-in {} {}", twin.name, twin.version)).into()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A question of one kind.
pub trait Question: Wire {
    /// Its kind.
    const KIND: Kind;
    /// The verdict of the agent itself.
    fn builtin(&self) -> Self::Verdict;
    /// Whether the verdict has the shape that this question allows.
    fn check(&self, verdict: &Self::Verdict) -> Result<(), Failure>;
    /// Questions that every policy must answer before it may decide.
    fn samples() -> Vec<Self>;
}

impl Question for NodePriorityQuestion {
    const KIND: Kind = Kind::NodePriority;

    fn builtin(&self) -> NodePriorityVerdict {
        steadfast_policy_node_priority::builtin(self)
    }

    fn check(&self, verdict: &NodePriorityVerdict) -> Result<(), Failure> {
        verdict::check(self, verdict)
    }

    fn samples() -> Vec<Self> {
        vec![Self { now_ms: 1_000, seed: 1, node: sample_node(1) }, Self::default()]
    }
}

impl Question for PlacementQuestion {
    const KIND: Kind = Kind::Placement;

    fn builtin(&self) -> PlacementVerdict {
        steadfast_policy_placement::builtin(self)
    }

    fn check(&self, verdict: &PlacementVerdict) -> Result<(), Failure> {
        verdict::check(self, verdict)
    }

    fn samples() -> Vec<Self> {
        let nodes: Vec<_> = (1..=3).map(sample_node).collect();
        let vms: Vec<_> = (1..=4).map(sample_vm).collect();
        let labels = vms[0].labels.clone();
        let vm = "sample-resident".into();
        let residents = vec![Resident { vm, node: 1, labels, ..Resident::default() }];
        let full = Self { now_ms: 1_000, seed: 1, nodes, vms, residents };
        let nowhere = Self { nodes: Vec::new(), ..full.clone() };
        vec![full, nowhere, Self::default()]
    }
}

impl Question for RiskQuestion {
    const KIND: Kind = Kind::Risk;

    fn builtin(&self) -> RiskVerdict {
        steadfast_policy_risk::builtin(self)
    }

    fn check(&self, verdict: &RiskVerdict) -> Result<(), Failure> {
        verdict::check(self, verdict)
    }

    fn samples() -> Vec<Self> {
        let reading = |name: &str, value| Reading { name: name.into(), value, age_ms: 1_000 };
        let telemetry = vec![reading("psi.io.full_avg60_permille", 900), reading("unheard.of", -1)];
        let full = Self { now_ms: 1_000, seed: 1, node: sample_node(1), telemetry };
        vec![full, Self::default()]
    }
}

fn sample_node(id: u32) -> NodeFacts {
    NodeFacts {
        id,
        name: format!("sample-{id}"),
        status: "Member".into(),
        memory_mib: 65_536,
        memory_free_mib: 32_768 / u64::from(id),
        vcpus: 16,
        vcpus_used: 8,
        load_permille: 2_000,
        storage_latency_ms: 5,
        network_age_ms: 100,
        flaps: id - 1,
        labels: [("rack".to_string(), format!("r{}", id % 2))].into(),
        ..NodeFacts::default()
    }
}

fn sample_vm(number: u16) -> VmFacts {
    VmFacts {
        id: format!("00000000-0000-4000-8000-{number:012}"),
        name: format!("sample-{number}"),
        memory_mib: 2_048 * u64::from(number),
        vcpus: 2,
        priority: 100 * number,
        labels: [("group".to_string(), "sample".to_string())].into(),
        last_node: Some(9),
        affinity: Affinity::default(),
    }
}
