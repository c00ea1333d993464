//! The kinds of policy, each with its question, its verdict and its built-in twin.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use steadfast_sdk::generate::Generate;
use steadfast_sdk::manifest::Source;
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedVm,
    RiskQuestion, RiskVerdict,
};

/// What a policy decides.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, schemars::JsonSchema, Serialize, Deserialize,
)]
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

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
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

/// What a verdict comes to: for each VM the node that it prefers, for a node its score.
pub type Gist = BTreeMap<String, i64>;

/// A question of one kind, with what the host adds to the SDK's.
pub trait Question: Generate {
    /// Its kind.
    const DECIDES: Kind;
    /// The verdict of the agent itself.
    fn builtin(&self) -> Self::Verdict;
    /// What of the verdict counts, by what it is about: two verdicts with the same gist decide the same.
    fn gist(&self, verdict: &Self::Verdict) -> Gist;
}

impl Question for NodePriorityQuestion {
    const DECIDES: Kind = Kind::NodePriority;

    fn builtin(&self) -> NodePriorityVerdict {
        steadfast_policy_node_priority::builtin(self)
    }

    fn gist(&self, verdict: &NodePriorityVerdict) -> Gist {
        [(self.node.name.clone(), verdict.score.value)].into()
    }
}

impl Question for PlacementQuestion {
    const DECIDES: Kind = Kind::Placement;

    fn builtin(&self) -> PlacementVerdict {
        steadfast_policy_placement::builtin(self)
    }

    fn gist(&self, verdict: &PlacementVerdict) -> Gist {
        let first = |ranked: &RankedVm| {
            ranked.nodes.first().map_or(-1, |candidate| i64::from(candidate.node))
        };
        verdict.vms.iter().map(|ranked| (ranked.vm.clone(), first(ranked))).collect()
    }
}

impl Question for RiskQuestion {
    const DECIDES: Kind = Kind::Risk;

    fn builtin(&self) -> RiskVerdict {
        steadfast_policy_risk::builtin(self)
    }

    fn gist(&self, verdict: &RiskVerdict) -> Gist {
        [(self.node.name.clone(), verdict.score.value)].into()
    }
}
