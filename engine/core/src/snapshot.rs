//! What people and the API see: the state of one machine at one instant, as values.

use crate::feature_level::FeatureLevel;
use crate::ids::{Ballot, BootId, Digest, Incarnation, NodeId, Stamp, VmId};
use crate::ledger::{Desired, Disarm, Hold, Maintenance};
use crate::message::{PolicyDigests, RiskReport};
use crate::proactive::{Level, Mode};
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{NodeFacts, Score};

/// Status of a node, by the seed's names and ours (PROTOCOL section 5).
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// The leader in its cluster.
    Leader,
    /// A simple member.
    Member,
    /// Configured and alive, not admitted yet.
    Joining,
    /// A deadline is running.
    Suspect,
    /// Out of the view, page alive, verification IPs unreachable for it.
    #[serde(rename = "Network isolation")]
    NetworkIsolation,
    /// In the view, its storage cycles fail.
    #[serde(rename = "Storage isolation")]
    StorageIsolation,
    /// Neither beats nor pages.
    #[serde(rename = "Full failure")]
    FullFailure,
    /// Out of the view, page alive, otherwise in order.
    #[serde(rename = "Excluded from HA cluster")]
    Excluded,
    /// Evicted; see the reason.
    Evicted,
    /// This node has no majority view: what it says of others is old.
    #[serde(rename = "No quorum")]
    NoQuorum,
    /// Nobody has storage: nobody is isolated.
    #[serde(rename = "Storage outage")]
    StorageOutage,
    /// It left and came back too often lately. Shown, fed to policies, never acted on.
    #[serde(rename = "Network unstable")]
    NetworkUnstable,
    /// Alive; an operator wants it empty.
    Maintenance,
    /// HA is switched off for everybody.
    Disarmed,
}

impl Status {
    /// The words people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Leader => "Leader",
            Self::Member => "Member",
            Self::Joining => "Joining",
            Self::Suspect => "Suspect",
            Self::NetworkIsolation => "Network isolation",
            Self::StorageIsolation => "Storage isolation",
            Self::FullFailure => "Full failure",
            Self::Excluded => "Excluded from HA cluster",
            Self::Evicted => "Evicted",
            Self::NoQuorum => "No quorum",
            Self::StorageOutage => "Storage outage",
            Self::NetworkUnstable => "Network unstable",
            Self::Maintenance => "Maintenance",
            Self::Disarmed => "Disarmed",
        }
    }
}

/// Everything, from one node's point of view.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Own time of the snapshot.
    pub at: Instant,
    /// Name of the cluster.
    pub cluster: String,
    /// The node that tells.
    pub node: NodeName,
    /// The leader it obeys, if any.
    pub leader: Option<NodeName>,
    /// Highest term seen.
    pub term: u64,
    /// Newest ledger body read.
    pub ledger: LedgerView,
    /// Members of its CPG view; empty without corosync.
    pub view: Vec<NodeId>,
    /// The nodes in the view may act: a majority of the configured ones, or half of them and the witness.
    pub quorate: bool,
    /// Own lease.
    pub lease: LeaseView,
    /// The election, running or last.
    pub election: ElectionView,
    /// All configured nodes.
    pub nodes: Vec<NodeView>,
    /// All HA VMs.
    pub vms: Vec<VmView>,
    /// HA is switched off for everybody.
    #[serde(default)]
    pub disarm: Option<Disarm>,
    /// Feature level in force.
    #[serde(default)]
    pub feature_level: FeatureLevel,
}

/// A node, named.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeName {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
}

/// Newest ledger body read.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerView {
    /// Its stamp.
    pub stamp: Stamp,
    /// Proved committed; otherwise a rumour.
    pub proved: bool,
    /// Highest ballot any page promised.
    pub promised: Ballot,
}

/// Own lease.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// What is left; `None` without a lease.
    pub left: Option<Millis>,
    /// Age of the basis by network evidence.
    pub network_age: Option<Millis>,
    /// Age of the basis by storage evidence.
    pub storage_age: Option<Millis>,
    /// The watchdog is open and fed.
    pub armed: bool,
    /// In words: why there is no lease, or "good".
    pub text: String,
}

/// An election.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionView {
    /// Its round.
    pub round: u64,
    /// `idle`, `collecting`, `confirming`, `claiming`, `leading`, `following`, `waiting`.
    pub phase: String,
    /// Why it began.
    pub reason: String,
    /// Ballots by node.
    pub ballots: Vec<BallotView>,
    /// Winner of the round, once computed.
    pub winner: Option<NodeId>,
}

/// One ballot.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BallotView {
    /// The elector.
    pub node: NodeId,
    /// What its policy says of it, with terms.
    pub priority: Score,
    /// Who computed it.
    pub decider: String,
    /// May it lead?
    pub eligible: bool,
}

/// One configured node.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Status.
    pub status: Status,
    /// The status as people read it.
    pub status_text: String,
    /// Why, and what happens next, if anything is wrong.
    pub reason: String,
    /// Boot it shows.
    pub boot: Option<BootId>,
    /// Incarnation it shows.
    pub incarnation: Option<Incarnation>,
    /// In this node's CPG view.
    pub in_view: bool,
    /// Factor 1, network: age of its last beat.
    pub beat_age: Option<Millis>,
    /// Factor 2, storage: since its page last changed.
    pub page_age: Option<Millis>,
    /// What is left of its lease, by its own word.
    pub lease_left: Option<Millis>,
    /// Watchdog open and lease enforced, by its own word.
    pub armed: bool,
    /// Its verification IPs answer, by its own word.
    pub verification: Option<bool>,
    /// What policies are told of it.
    pub facts: NodeFacts,
    /// Digest of its active node-priority policy.
    pub policy: Digest,
    /// What its host of policies holds ready.
    #[serde(default)]
    pub policies: PolicyDigests,
    /// Eviction in force: stamp, reason, proof.
    pub eviction: Option<String>,
    /// Its lease is over, or was when it wrote its page, while HA VMs may execute there: what it says of it.
    #[serde(default)]
    pub last_words: Option<String>,
    /// An operator wants it empty.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
    /// An operator wants it out of the cluster.
    #[serde(default)]
    pub leaving: bool,
    /// What its risk policy says of it, and what proactive HA makes of that.
    #[serde(default)]
    pub risk: Option<RiskView>,
    /// The feature level that it speaks, by its page; `None`: no page of it was seen.
    #[serde(default)]
    pub speaks: Option<FeatureLevel>,
}

/// A node's risk.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskView {
    /// 0 (healthy) to 1000 (failing), by the node's own policy; `None`: it says nothing, or what it said is stale.
    pub report: Option<RiskReport>,
    /// What is done now.
    pub hold: Option<Hold>,
    /// What it calls for: by the leader's hysteresis, or elsewhere by the newest reading alone.
    pub level: Level,
    /// How far proactive HA goes on the node that tells.
    pub mode: Mode,
    /// In words: what is done, or would be, and what speaks against it.
    pub text: String,
}

/// One HA VM.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmView {
    /// Its UUID.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// Its owner by the ledger.
    pub owner: NodeName,
    /// `running`, `starting`, `stopping`, `stopped`, `orphan`, `waiting`, `failed`, `unknown`.
    pub state: String,
    /// Why, and what happens next, if it does not run.
    pub reason: String,
    /// Restart priority.
    pub priority: u16,
    /// Configured memory in MiB.
    pub memory_mib: u64,
    /// Configured virtual CPUs.
    pub vcpus: u32,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What the operator wants of it.
    #[serde(default)]
    pub desired: Desired,
    /// Where a live migration under way takes it.
    #[serde(default)]
    pub migrating_to: Option<NodeName>,
    /// It was moved off this node for maintenance, and returns.
    #[serde(default)]
    pub home: Option<NodeName>,
}
