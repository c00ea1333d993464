//! The live state of an agent: `GET /v1/live`, as a stream of changes or, with `?once=1`, as one answer.

use super::BeatReport;
use crate::config::Bound;
use crate::policy::PoliciesStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use steadfast_core::config::Timing;
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::ledger::Disarm;
use steadfast_core::snapshot::{
    ElectionView, LeaseView, LedgerView, NodeName, NodeView, Snapshot, VmView,
};
use steadfast_core::time::{Instant, Millis};

/// Everything that a page or a terminal shows of a cluster, from one node's point of view. Lists are maps, so that a merge patch
/// (RFC 7396) of a change is small. In the stream a missing key and `null` are the same.
#[derive(Debug, Clone, PartialEq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct LiveState {
    /// Version of the agent.
    pub version: String,
    /// Wall-clock time in milliseconds since 1970, for people.
    pub wall_ms: u64,
    /// Own time of the node that tells, in milliseconds.
    pub at: Instant,
    /// Worst cases from a fault to the start elsewhere.
    pub bounds: Vec<Bound>,
    /// What a person should put right on this node.
    pub warnings: Vec<String>,
    /// How late this node's beats were.
    pub beats: BeatReport,
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
    /// Members of its view; empty without corosync.
    pub view: Vec<NodeId>,
    /// The nodes in the view may act.
    pub quorate: bool,
    /// Own lease.
    pub lease: LeaseView,
    /// The election, running or last.
    pub election: ElectionView,
    /// HA is switched off for everybody.
    #[serde(default)]
    pub disarm: Option<Disarm>,
    /// All configured nodes, by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// All HA VMs, by UUID.
    pub vms: BTreeMap<VmId, VmView>,
    /// What would happen if a node died now, by its name; absent until known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<BTreeMap<String, NodePlan>>,
    /// Policies, as `GET /v1/policies` has them.
    pub policies: PoliciesStatus,
    /// The time-outs in use, by their TOML keys, in milliseconds.
    pub timing: BTreeMap<String, u64>,
}

/// What would happen if this node died now, in short: counts, and the first [`NodePlan::LISTED`] VMs of each list, by UUID.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePlan {
    /// HA VMs on it that are to run.
    pub vms: usize,
    /// How many would start elsewhere at once.
    pub fits: usize,
    /// How many would wait for others to start first.
    pub waits: usize,
    /// How many would have no place.
    pub lacks: usize,
    /// Those that would start elsewhere, and where.
    pub restart: Vec<Restart>,
    /// Those that would wait for others.
    pub wait: Vec<VmId>,
    /// Those that would have no place.
    pub unfit: Vec<VmId>,
    /// Memory that the other nodes would still have free, in MiB.
    pub headroom_mib: u64,
    /// The policy that says so, by name and version.
    pub decider: String,
    /// Why VMs would have no place. Not in the live state.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<VmId, String>,
}

impl NodePlan {
    /// VMs of each list that are told in the live state.
    pub const LISTED: usize = 50;

    /// As the live state has it.
    #[must_use]
    pub(crate) fn in_short(mut self) -> Self {
        self.restart.truncate(Self::LISTED);
        self.wait.truncate(Self::LISTED);
        self.unfit.truncate(Self::LISTED);
        self.reasons.clear();
        self
    }
}

/// A VM that would start elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct Restart {
    /// Its UUID.
    pub vm: VmId,
    /// Name of the node.
    pub to: String,
}

/// What a snapshot does not know.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) wall_ms: u64,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) warnings: Vec<String>,
    pub(crate) beats: BeatReport,
    pub(crate) plan: Option<BTreeMap<String, NodePlan>>,
    pub(crate) policies: PoliciesStatus,
    pub(crate) timing: BTreeMap<String, u64>,
}

impl LiveState {
    pub(crate) fn new(snapshot: &Snapshot, beside: Beside) -> Self {
        let Beside { wall_ms, bounds, warnings, beats, plan, policies, timing } = beside;
        let it = snapshot.clone();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            wall_ms,
            at: it.at,
            bounds,
            warnings,
            beats,
            cluster: it.cluster,
            node: it.node,
            leader: it.leader,
            term: it.term,
            ledger: it.ledger,
            view: it.view,
            quorate: it.quorate,
            lease: it.lease,
            election: it.election,
            disarm: it.disarm,
            nodes: it.nodes.into_iter().map(|node| (node.name.clone(), node)).collect(),
            vms: it.vms.into_iter().map(|vm| (vm.id.clone(), vm)).collect(),
            plan,
            policies,
            timing,
        }
    }
}

/// The time-outs, by their TOML keys, in milliseconds; and `membership_ms`, which is corosync's.
#[must_use]
pub fn timing_by_key(timing: &Timing) -> BTreeMap<String, u64> {
    let pairs: [(&str, Millis); 15] = [
        ("beat_ms", timing.beat),
        ("lease_ms", timing.lease),
        ("stop_ms", timing.stop),
        ("watchdog_ms", timing.watchdog),
        ("membership_ms", timing.membership),
        ("full_failure_ms", timing.full_failure),
        ("network_isolation_ms", timing.network_isolation),
        ("storage_isolation_ms", timing.storage_isolation),
        ("election_window_ms", timing.election_window),
        ("policy_deadline_ms", timing.policy_deadline),
        ("start_margin_ms", timing.start_margin),
        ("storage_deadline_ms", timing.storage_deadline),
        ("boot_grace_ms", timing.boot_grace),
        ("fence_timeout_ms", timing.fence_timeout),
        ("restart_backoff_ms", timing.restart_backoff),
    ];
    pairs.into_iter().map(|(key, value)| (key.into(), value.0)).collect()
}
