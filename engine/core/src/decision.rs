//! Records that explain: what happened, to whom, by which rule, on which facts.

use crate::event::Decider;
use crate::ids::{NodeId, Stamp, VmId};
use crate::time::Instant;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RankedNode,
    RiskQuestion, RiskVerdict,
};

/// What kind of thing a record tells.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A node's status changed to a deadline or an incident.
    Suspected,
    /// A node's status changed, nothing is wrong.
    Status,
    /// A round of an election began, or its winner was computed from the ballots.
    Election,
    /// A leader's term stands.
    Elected,
    /// This node leads no more.
    Deposed,
    /// An eviction was committed.
    Evicted,
    /// A fence agent was ordered.
    FenceOrdered,
    /// A fence agent ended.
    Fenced,
    /// An evicted node is proved to run nothing.
    Proved,
    /// A node was admitted.
    Admitted,
    /// A placement was decided and committed.
    Decided,
    /// A VM waits: nowhere to go, or no proof yet.
    Waiting,
    /// A start was ordered.
    StartOrdered,
    /// A start was refused by the node that was ordered.
    StartRefused,
    /// libvirt could not start a VM.
    StartFailed,
    /// A VM's process exists.
    VmRunning,
    /// A VM's process ended.
    VmExited,
    /// A VM is destroyed on this node.
    VmStopped,
    /// This node's lease ran out, or came back.
    Lease,
    /// This node resets itself, or was reset before its last boot.
    Reset,
    /// The lease is over while HA VMs may execute here: what the node knows.
    LastWords,
    /// HA was switched on or off for a VM, or its settings changed.
    Enrolment,
    /// The configured nodes changed, or are to.
    Membership,
    /// What is wanted of a VM changed: it is to run, or to be off, or to leave its node.
    Wish,
    /// A VM's budgets are spent: nothing is tried until somebody starts it.
    VmFailed,
    /// A live migration began, ended, or was called off.
    Migration,
    /// A node is to be emptied, is empty, or is used again.
    Maintenance,
    /// A node's equipment announces a failure, or does not any more: what proactive HA does, or would do.
    Risk,
    /// HA was switched off or on for everybody, or is about to be.
    Disarm,
    /// The nodes agreed on another node-priority policy.
    Policy,
    /// The feature level was raised: every node speaks it.
    Level,
    /// Something that our reasoning calls impossible, or that needs a person.
    Alarm,
}

/// A record. Every eviction, fence, start, refusal and wait has one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// Counts the records of this incarnation.
    pub number: u64,
    /// Own time of the node that recorded it.
    pub at: Instant,
    /// What it tells.
    pub kind: Kind,
    /// The node it is about.
    pub node: Option<NodeId>,
    /// The VM it is about.
    pub vm: Option<VmId>,
    /// The leader's term then.
    pub term: u64,
    /// The ledger's stamp then.
    pub stamp: Stamp,
    /// The sentence for people: what, why, and what happens next.
    pub text: String,
    /// The rule it rests on, e.g. "PROTOCOL 5.2".
    pub rule: &'static str,
    /// The facts it rests on.
    pub facts: Vec<(String, String)>,
    /// Where a policy had a say: who it was, and what it said of this VM or node.
    pub reasons: Option<Reasons>,
    /// What that policy was asked, in the first of the records that rest on the question.
    pub policy: Option<PolicyRecord>,
}

/// What a policy said of one VM or node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons {
    /// Who decided.
    pub decider: Decider,
    /// Candidates, best first, with the terms of their scores.
    pub candidates: Vec<RankedNode>,
    /// What the host did not follow, and why.
    pub corrections: Vec<String>,
    /// The record of this incarnation that holds the whole question.
    pub record: u64,
}

/// A question to a policy and its verdict: they can be re-executed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Who decided.
    pub decider: Decider,
    /// On what, and how.
    pub asked: Asked,
    /// What the host did not follow, and why.
    pub corrections: Vec<String>,
}

/// A question, to the byte, and the verdict as the policy gave it.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// How well would this node lead?
    NodePriority {
        /// The question.
        question: NodePriorityQuestion,
        /// The verdict.
        verdict: NodePriorityVerdict,
    },
    /// In which order do these VMs start, and where?
    Placement {
        /// The question.
        question: PlacementQuestion,
        /// The verdict.
        verdict: PlacementVerdict,
    },
    /// How likely is this node to fail soon?
    Risk {
        /// The question.
        question: RiskQuestion,
        /// The verdict.
        verdict: RiskVerdict,
    },
}

impl PolicyRecord {
    /// Of a placement, the candidates of each VM by its id.
    #[must_use]
    pub fn ranked(&self) -> BTreeMap<&str, &[RankedNode]> {
        let Asked::Placement { verdict, .. } = &self.asked else { return BTreeMap::new() };
        verdict.vms.iter().map(|ranked| (ranked.vm.as_str(), ranked.nodes.as_slice())).collect()
    }

    /// What it says of a VM with these candidates, told in the record with this number.
    #[must_use]
    pub fn reasons(&self, candidates: &[RankedNode], record: u64) -> Reasons {
        let (decider, corrections) = (self.decider.clone(), self.corrections.clone());
        Reasons { decider, candidates: candidates.to_vec(), corrections, record }
    }

    /// The same for the node that the question was about.
    #[must_use]
    pub fn reasons_for_node(&self, record: u64) -> Reasons {
        let (node, score) = match &self.asked {
            Asked::NodePriority { question, verdict } => (question.node.id, verdict.score.clone()),
            Asked::Risk { question, verdict } => (question.node.id, verdict.score.clone()),
            Asked::Placement { .. } => return self.reasons(&[], record),
        };
        self.reasons(&[RankedNode { node, score }], record)
    }
}
