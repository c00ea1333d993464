//! Messages on the control network. Only what a message *says* counts, never its timing.

use crate::feature_level::FeatureLevel;
use crate::guest::GuestReport;
use crate::ids::{BootId, Digest, Identity, Incarnation, NodeId, Stamp, VmId};
use crate::time::Millis;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{NodeFacts, Score, Term};

/// Version of the message format; a message of a higher major is ignored and reported.
pub const MESSAGE_FORMAT: u16 = 1;

/// A message with its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Format, see [`MESSAGE_FORMAT`].
    pub format: u16,
    /// The sender. A message whose node differs from corosync's sender is dropped.
    pub from: Identity,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Multicast every beat interval.
    Beat(alloc::boxed::Box<Beat>),
    /// A ledger version was committed; read it.
    Committed(Committed),
    /// Election, see `election.rs`.
    Ballot(ElectionBallot),
    /// No more ballots in this round.
    Close {
        /// The round.
        round: u64,
    },
    /// "I computed this winner."
    Confirm {
        /// The round.
        round: u64,
        /// The winner.
        winner: NodeId,
    },
    /// "I won and cannot lead."
    Decline {
        /// The round.
        round: u64,
        /// Why.
        reason: String,
    },
    /// "My term stands in the ledger."
    Leading {
        /// The term.
        term: u64,
    },
    /// Leader to a VM's owner: the ledger says that you run it.
    StartVm(StartOrder),
    /// Leader to a VM's owner: the target expects it, migrate it.
    MigrateVm(MigrateOrder),
    /// Any node to the leader.
    Request(Request),
    /// Leader to a requester.
    Reply(Reply),
}

/// The numbered message of one node, with its echoes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts beats of this incarnation from 1.
    pub number: u64,
    /// As in its page: a node that is yet to be added has a page that nobody reads.
    #[serde(default, skip_serializing_if = "FeatureLevel::is_oldest")]
    pub level: FeatureLevel,
    /// Newest beat heard of each node that this one echoes.
    pub echoes: Vec<Echo>,
    /// Highest term this node has seen.
    pub term: u64,
    /// This node leads that term.
    pub leading: bool,
    /// Highest body this node has read.
    pub known: Stamp,
    /// Age of its storage evidence's basis; `None` before the first complete cycle.
    pub storage_age: Option<Millis>,
    /// Age of its network evidence's basis.
    pub network_age: Option<Millis>,
    /// What is left of its lease; `None` without a lease.
    pub lease_left: Option<Millis>,
    /// As in its page.
    pub armed: bool,
    /// As in its page.
    pub span: Option<Millis>,
    /// As in its page.
    pub arming: Stamp,
    /// As in its page.
    pub disarmed: Option<Stamp>,
    /// As in its page.
    pub idle: bool,
    /// As in its page.
    pub none_left: Option<Stamp>,
    /// As in its page.
    pub verification: Option<bool>,
    /// Promises about evicted nodes (rule 4).
    pub bounds: Vec<Bound>,
    /// HA VMs it knows to execute here, and those that ended.
    pub guests: Vec<GuestReport>,
    /// What policies are told of this node.
    pub facts: NodeFacts,
    /// Digest of its active node-priority policy.
    pub policy: Digest,
    /// What its host of policies holds ready.
    #[serde(default)]
    pub policies: PolicyDigests,
    /// What its risk policy says of it, while that is not stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<RiskReport>,
}

/// What a node's risk policy says of it, as the node tells it.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskReport {
    /// Counts the policy's answers in this incarnation, from 1.
    pub number: u64,
    /// 0 (healthy) to 1000 (failing).
    pub score: u16,
    /// Its weightiest reasons, the weightiest first.
    pub terms: Vec<Term>,
    /// Who decided: name and version of the policy.
    pub decider: String,
    /// Age of the answer.
    pub age: Millis,
}

/// Which generation of each kind of policy a node would use: SHA-256 of module, parameters and limits. All zero: it has none
/// loaded yet.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyDigests {
    /// Node priority: staged. It counts once every live voter holds the same (`policy.rs`).
    pub node_priority: Digest,
    /// Placement: only the leader's counts.
    pub placement: Digest,
    /// Risk: each node's own counts.
    pub risk: Digest,
}

/// "The newest beat that I heard of this node."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The node heard.
    pub node: NodeId,
    /// Its boot then.
    pub boot: BootId,
    /// Its incarnation then.
    pub incarnation: Incarnation,
    /// The number of that beat.
    pub beat: u64,
}

/// "I shall never echo that admission again, and this is how long ago I last heard what I ever echoed."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The evicted node.
    pub victim: NodeId,
    /// The eviction, as the ledger names it.
    pub eviction: Stamp,
    /// Age of the receipt of the newest beat of the victim that this node ever echoed, or of the beginning of this
    /// incarnation, whichever is younger.
    pub age: Millis,
}

/// News of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// What was committed.
    pub stamp: Stamp,
    /// Every eviction in force in it: a node that finds itself here stops at once.
    pub evicted: Vec<(NodeId, Stamp)>,
}

/// One elector's ballot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionBallot {
    /// The round; rounds count up over all elections.
    pub round: u64,
    /// What its node-priority policy says of itself.
    pub priority: Score,
    /// Who computed the priority (policy name).
    pub decider: String,
    /// Digest of that policy; if digests differ the built-in priority counts for all.
    pub policy: Digest,
    /// Built-in priority of the same facts.
    pub builtin: i64,
    /// May lead: not in maintenance, agent in order.
    pub eligible: bool,
    /// Its last storage cycle is younger than the lease.
    pub storage_ok: bool,
    /// Highest term it has seen.
    pub term: u64,
}

impl ElectionBallot {
    /// What counts, in the order in which it counts.
    pub(crate) fn summary(&self, builtin: bool) -> String {
        let priority = if builtin { self.builtin } else { self.priority.value };
        let eligible = if self.eligible { "" } else { "may not lead, " };
        let storage = if self.storage_ok { "" } else { "storage does not work, " };
        alloc::format!("{eligible}{storage}priority {priority} by {}", self.decider)
    }
}

/// Leader to owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOrder {
    /// The leader's term; orders of an older term are refused.
    pub term: u64,
    /// The leader's ledger: the owner's read with proof must be of this stamp or a later one.
    pub stamp: Stamp,
    /// The VM.
    pub vm: VmId,
    /// The ownership ordered: the commit that gave it.
    pub since: Stamp,
    /// Who is to start it: one incarnation, so that an order never outlives what its owner has said.
    pub to: Identity,
}

/// Leader to the source of a live migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateOrder {
    /// The leader's term; orders of an older term are refused.
    pub term: u64,
    /// The leader's ledger: the source's read with proof must be of this stamp or a later one.
    pub stamp: Stamp,
    /// The VM.
    pub vm: VmId,
    /// The migration ordered: the commit that began it.
    pub since: Stamp,
    /// Who is to migrate it: one incarnation.
    pub to: Identity,
}

/// What a node asks of the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Unique per sender incarnation.
    pub id: u64,
    /// What is asked.
    pub change: Change,
}

/// Changes an operator may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Put a VM under HA; the sender runs or defines it.
    EnableVm(alloc::boxed::Box<crate::ledger::VmSpec>),
    /// Take a VM out of HA; it is left as it is.
    DisableVm(VmId),
    /// Let a VM run; forgives its failures.
    StartVm(VmId),
    /// Shut a VM down and keep it off.
    StopVm(VmId),
    /// Start a VM earlier or later than others after a failure.
    SetPriority {
        /// The VM.
        vm: VmId,
        /// Restart priority, 0 (last) to 1000 (first).
        priority: u16,
    },
    /// Move a running VM live to a node.
    MigrateVm {
        /// The VM.
        vm: VmId,
        /// The target.
        to: NodeId,
    },
    /// Stop a VM and start it on another node.
    RelocateVm {
        /// The VM.
        vm: VmId,
        /// The target.
        to: NodeId,
    },
    /// Empty a node and keep it empty; its VMs move live.
    BeginMaintenance {
        /// The node.
        node: NodeId,
        /// VMs that cannot move live are stopped and started elsewhere.
        restart: bool,
        /// The operator's words.
        reason: String,
    },
    /// Use a node again; VMs that were moved off it return.
    EndMaintenance(NodeId),
    /// The sender's host goes down on purpose.
    StopHost {
        /// The sender.
        who: Identity,
        /// It reboots; otherwise it is switched off.
        reboot: bool,
    },
    /// Switch HA off for everybody.
    Disarm {
        /// Armed again after this; `None`: until somebody arms.
        limit: Option<Millis>,
        /// The operator's words.
        reason: String,
    },
    /// Switch HA on again.
    Arm,
    /// Configure another node.
    AddNode {
        /// Its corosync id.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// Drain a node, then take it out of the cluster.
    RemoveNode(NodeId),
    /// A change only if nothing was committed since its sender looked; refused with [`STALE`] otherwise.
    AsOf {
        /// The ledger that the sender looked at.
        stamp: Stamp,
        /// The change.
        change: alloc::boxed::Box<Change>,
    },
}

/// Why a [`Change::AsOf`] is refused: its sender looks again, and decides again.
pub const STALE: &str = "something was committed meanwhile; look again, then ask again";

/// The leader's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Who asked.
    pub to: Identity,
    /// Which request.
    pub id: u64,
    /// The stamp that holds the change, or why it was refused.
    pub result: Result<Stamp, String>,
}
