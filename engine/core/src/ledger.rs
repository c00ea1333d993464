//! The ledger's value: who is admitted, who leads, which node owns which VM. Only a commit changes it
//! (`register.rs`), and only the leader commits.

use crate::feature_level::FeatureLevel;
use crate::ids::{BootId, Digest, Identity, NodeId, Stamp, VmId};
use crate::proactive::Level;
use crate::time::Millis;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::Affinity;

/// Version of the body format. A body of a higher major is refused.
pub const LEDGER_FORMAT: u16 = 1;

/// The whole state, written as one body. `BTreeMap`, so that equal ledgers are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Format, see [`LEDGER_FORMAT`].
    pub format: u16,
    /// Feature level in force: what every configured node speaks (`feature_level.rs`).
    #[serde(default, skip_serializing_if = "FeatureLevel::is_oldest")]
    pub level: FeatureLevel,
    /// Name of the cluster.
    pub cluster: String,
    /// Configured nodes; their number is N.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// VMs under HA.
    pub vms: BTreeMap<VmId, VmEntry>,
    /// HA is switched off by an operator; `None`: armed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disarm: Option<Disarm>,
    /// The commit that armed last: rule 4 counts only for nodes that have acknowledged it.
    #[serde(default)]
    pub armed_since: Stamp,
    /// The configured nodes before a change that not every old member has acknowledged yet: majorities and halves must
    /// hold in both sets meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing: Option<Changing>,
}

/// A change of the configured nodes, by one node, that is not acknowledged by everybody yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changing {
    /// The configured nodes before it.
    pub before: BTreeSet<NodeId>,
    /// The commit that made it.
    pub since: Stamp,
}

/// HA is off for everybody: nothing is started, stopped, evicted or fenced.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disarm {
    /// The commit that disarmed: what a node's page says when it has read it.
    pub since: Stamp,
    /// Armed again after this, counted by the leader from when it first leads with it; `None`: until somebody arms.
    pub limit: Option<Millis>,
    /// The operator's words.
    pub reason: String,
    /// It is put off while a node is evicted without proof, a VM has no place, or one is being moved: HA is still on.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub pending: bool,
}

/// A configured node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// May it run HA VMs?
    pub standing: Standing,
    /// The operator wants it empty: its VMs move away, nothing is placed there, it does not lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// The operator wants it out of the cluster: drained, then evicted, then removed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub leaving: bool,
    /// Its host is being shut down or rebooted, or is down because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<HostStop>,
    /// Its equipment announces a failure: what proactive HA does about it. No operator's wish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// A node at risk is used less, or emptied in advance; see `proactive.rs`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The commit that began it, or changed its level.
    pub since: Stamp,
    /// What is done.
    pub level: Level,
    /// The node's risk then, 0 to 1000.
    pub score: u16,
    /// The score's reasons, for people.
    pub reason: String,
}

impl NodeEntry {
    /// A node that was never admitted.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let (maintenance, leaving, stopping, hold) = (None, false, None, None);
        Self { name: name.into(), standing: Standing::New, maintenance, leaving, stopping, hold }
    }

    /// Proactive HA drains it, and why.
    #[must_use]
    pub fn drain(&self) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.level == Level::Drain)
    }

    /// VMs may move there of themselves: nobody wants it empty, and it is not at risk.
    #[must_use]
    pub fn is_welcoming(&self) -> bool {
        !self.wants_empty() && self.hold.is_none()
    }

    /// No VM is placed there, and it does not lead: in maintenance, on its way out, or its host goes down. Its VMs are to move
    /// away, unless they are to wait for their host.
    #[must_use]
    pub fn wants_empty(&self) -> bool {
        self.maintenance.is_some() || self.leaving || self.stopping.is_some()
    }

    /// What moves off it returns when it can, and what cannot move live may be restarted elsewhere.
    #[must_use]
    pub fn lends_its_vms(&self) -> bool {
        self.maintenance.is_some() || self.stopping.as_ref().is_some_and(|s| s.way == Way::Migrate)
    }
}

/// A node is being emptied, or is empty.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The commit that began it.
    pub since: Stamp,
    /// VMs that cannot be moved live are stopped and started elsewhere; otherwise they stay.
    pub restart: bool,
    /// The operator's words.
    pub reason: String,
}

/// A host goes down on purpose; see `host_shutdown.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStop {
    /// The commit that began it.
    pub since: Stamp,
    /// The agent that said so. A later incarnation, or another boot that is admitted, ends it.
    pub who: Identity,
    /// What becomes of its VMs.
    pub way: Way,
    /// It reboots; otherwise it is switched off.
    pub reboot: bool,
}

/// What becomes of the VMs of a host that goes down on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// They move away live and return.
    Migrate,
    /// They are shut down and started elsewhere.
    Failover,
    /// They are shut down and wait for it.
    Freeze,
}

/// May a node run HA VMs?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Configured, never admitted.
    New,
    /// May run HA VMs under this boot, as long as its lease is good.
    Admitted {
        /// The one boot that is admitted.
        boot: BootId,
        /// The commit that admitted it.
        since: Stamp,
    },
    /// May not.
    Evicted(Eviction),
}

/// An eviction in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// The boot whose admission it removed.
    pub boot: BootId,
    /// The commit that evicted: the eviction's name everywhere.
    pub since: Stamp,
    /// Why, in the operator's words.
    pub reason: EvictionReason,
    /// Its admission was seen armed, and this is the L + S that it enforces: rule 4 may be used.
    pub span: Option<Millis>,
    /// Fence orders recorded, each before the agent ran.
    pub fence_orders: u32,
    /// Proof that it runs nothing; `None` while fencing is under way.
    pub proof: Option<Proof>,
}

/// Why a node was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictionReason {
    /// Neither beats nor pages.
    FullFailure,
    /// Pages, but no beats, and its verification IPs are unreachable.
    NetworkIsolation,
    /// Beats, but its storage cycles fail.
    StorageIsolation,
    /// It came back under another boot id.
    Rebooted,
    /// An operator removes it from the cluster; it was drained before.
    Removed,
}

/// The proofs of PROTOCOL section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// 1: its own "none left" for this eviction.
    NoneLeft,
    /// 2: a fence agent's success for this eviction.
    Fenced,
    /// 3: it shows another boot id than the evicted one.
    BootChanged,
    /// 4: its lease and its watchdog have run out by now.
    TimeExpired,
}

/// What an operator says of a VM when it comes under HA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// libvirt UUID.
    pub id: VmId,
    /// libvirt name.
    pub name: String,
    /// Digest of its domain XML in the catalogue.
    pub xml: Digest,
    /// Configured memory in MiB.
    pub memory_mib: u64,
    /// Configured virtual CPUs.
    pub vcpus: u32,
    /// Restart priority, 0 (last) to 1000 (first).
    pub priority: u16,
    /// Labels for policies.
    pub labels: BTreeMap<String, String>,
    /// Restarts on its node before it is relocated; the budget comes back with time.
    #[serde(default = "default_budget")]
    pub max_restarts: u32,
    /// Relocations after failed starts before it is `failed`; the budget comes back with time.
    #[serde(default = "default_budget")]
    pub max_relocations: u32,
    /// What to do when the guest shuts itself down.
    #[serde(default)]
    pub on_shutdown: OnShutdown,
    /// Where it must stand, or would rather.
    #[serde(default, skip_serializing_if = "Affinity::is_empty")]
    pub affinity: Affinity,
    /// VMs that must run before it is started, by UUID.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<VmId>,
}

impl VmSpec {
    /// A VM with default budgets, no labels and no dependencies.
    #[must_use]
    pub fn new(id: VmId, name: &str, xml: Digest) -> Self {
        Self {
            id,
            name: name.into(),
            xml,
            memory_mib: 0,
            vcpus: 1,
            priority: 500,
            labels: BTreeMap::new(),
            max_restarts: default_budget(),
            max_relocations: default_budget(),
            on_shutdown: OnShutdown::default(),
            affinity: Affinity::default(),
            after: BTreeSet::new(),
        }
    }
}

/// Restarts, and relocations, that a VM has by default.
#[must_use]
pub const fn default_budget() -> u32 {
    3
}

/// The guest shut itself down: what its operator wants then.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnShutdown {
    /// Start it again: HA means that it runs.
    #[default]
    Restart,
    /// Leave it off until somebody starts it.
    Stop,
}

/// What the operator wants of a VM.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It is to run.
    #[default]
    Running,
    /// It is to be off; its owner keeps it.
    Stopped,
}

/// A live migration under way: the source owns the VM until it has said that its process is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// The target.
    pub to: NodeId,
    /// The commit that began it.
    pub since: Stamp,
    /// Why, for people.
    pub reason: String,
}

/// A VM is to leave its node by being shut down there and started elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Where to; `None`: where the placement policy says.
    pub to: Option<NodeId>,
    /// The commit that said so.
    pub since: Stamp,
    /// Why, for people.
    pub reason: String,
}

/// A VM under HA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmEntry {
    /// What it is.
    pub spec: VmSpec,
    /// The one node that may run it.
    pub owner: NodeId,
    /// The commit that made it the owner.
    pub since: Stamp,
    /// The owner has said that it read this enrolment. Before that, only the end of the owner's kernel proves that the VM,
    /// which ran there before it came under HA, runs no more.
    pub acknowledged: bool,
    /// Nodes that could not start it since it last ran.
    pub failed_on: BTreeSet<NodeId>,
    /// HA was off, and may have been moved by hand then: nobody starts it before every node that may run it has looked since the
    /// arming, and says nothing of it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub unseen: bool,
    /// What the operator wants.
    #[serde(default)]
    pub desired: Desired,
    /// This ownership came with a live migration that the source completed: the paused guest found here is resumed. Otherwise
    /// a guest found paused is an unfinished copy, and is destroyed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub resumes: bool,
    /// A live migration under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    /// Its owner is to shut it down and to give it up, so that it is started elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave: Option<Leave>,
    /// It was moved off this node for maintenance, and returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<NodeId>,
    /// Relocations after failures since it last ran for long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub relocations: u32,
    /// Its budgets are spent: why. Nothing is tried until an operator starts it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl VmEntry {
    /// A VM that has just come under HA on `owner`, by the commit `since`.
    #[must_use]
    pub fn new(spec: VmSpec, owner: NodeId, since: Stamp) -> Self {
        Self {
            spec,
            owner,
            since,
            acknowledged: mutant!(EnrolledUnread),
            failed_on: BTreeSet::new(),
            unseen: false,
            desired: Desired::Running,
            resumes: false,
            migration: None,
            leave: None,
            home: None,
            relocations: 0,
            failed: None,
        }
    }

    /// It belongs to `owner` from the commit `since` on, to be started from disk.
    pub fn moves_to(&mut self, owner: NodeId, since: Stamp) {
        (self.owner, self.since, self.acknowledged) = (owner, since, true);
        (self.migration, self.leave, self.resumes) = (None, None, false);
    }

    /// It is wanted running, and not to leave its owner first.
    #[must_use]
    pub fn may_run_here(&self) -> bool {
        self.may_run() && self.leave.is_none()
    }

    /// It is wanted running, and there is hope: only then is it started, or an orphan.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.desired == Desired::Running && self.failed.is_none()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Why a body cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Torn or overwritten.
    #[error("mismatched digest of ledger body {stamp}: expected {expected}, got {got}")]
    Digest {
        /// Which body.
        stamp: Stamp,
        /// What its page says.
        expected: Digest,
        /// What was read.
        got: Digest,
    },
    /// Of a newer release than this node's.
    #[error(
        "ledger body {stamp} is of feature level {level}, this release speaks {spoken}: upgrade steadfastd on this node"
    )]
    Level {
        /// Which body.
        stamp: Stamp,
        /// Its level.
        level: FeatureLevel,
        /// What is spoken here.
        spoken: FeatureLevel,
    },
    /// Not ours, or of a newer major.
    #[error("unreadable ledger body {stamp}: {reason}; was it written by a newer steadfastd?")]
    Format {
        /// Which body.
        stamp: Stamp,
        /// The parser's words.
        reason: String,
    },
}

impl Ledger {
    /// The ledger before the first leader: `nodes` configured, none admitted, no VM.
    #[must_use]
    pub fn genesis(cluster: &str, nodes: &BTreeMap<NodeId, String>) -> Self {
        let entry = |(id, name): (&NodeId, &String)| (*id, NodeEntry::new(name));
        Self {
            format: LEDGER_FORMAT,
            level: FeatureLevel::NEWEST,
            cluster: cluster.into(),
            nodes: nodes.iter().map(entry).collect(),
            vms: BTreeMap::new(),
            disarm: None,
            armed_since: Stamp::default(),
            changing: None,
        }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The ledger in `bytes`, if they are what the page that names them says.
    ///
    /// # Errors
    /// [`LedgerError`] if they are torn or of a format that this engine does not know.
    pub fn decode(stamp: Stamp, expected: Digest, bytes: &[u8]) -> Result<Self, LedgerError> {
        let got = Digest::of(bytes);
        if got != expected && !mutant!(TornBodyAccepted) {
            return Err(LedgerError::Digest { stamp, expected, got });
        }
        let ledger: Self = serde_json::from_slice(bytes)
            .map_err(|error| LedgerError::Format { stamp, reason: alloc::format!("{error}") })?;
        if ledger.format > LEDGER_FORMAT {
            let reason = alloc::format!("format {}, known {LEDGER_FORMAT}", ledger.format);
            return Err(LedgerError::Format { stamp, reason });
        }
        Ok(ledger)
    }

    /// N/2 + 1 of the configured nodes.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// Boot and commit of a node's admission, if it is admitted.
    #[must_use]
    pub fn admission(&self, node: NodeId) -> Option<(BootId, Stamp)> {
        match self.nodes.get(&node)?.standing {
            Standing::Admitted { boot, since } => Some((boot, since)),
            Standing::New | Standing::Evicted(_) => None,
        }
    }

    /// A node's eviction, if it is evicted.
    #[must_use]
    pub fn eviction(&self, node: NodeId) -> Option<&Eviction> {
        match &self.nodes.get(&node)?.standing {
            Standing::Evicted(eviction) => Some(eviction),
            Standing::New | Standing::Admitted { .. } => None,
        }
    }

    /// Every eviction in force.
    pub fn evictions(&self) -> impl Iterator<Item = (NodeId, &Eviction)> {
        self.nodes.keys().filter_map(|node| self.eviction(*node).map(|eviction| (*node, eviction)))
    }

    /// The operator wants `node` empty; see [`NodeEntry::wants_empty`].
    #[must_use]
    pub fn wants_empty(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(NodeEntry::wants_empty)
    }

    /// VMs owned by `node`.
    pub fn owned_by(&self, node: NodeId) -> impl Iterator<Item = (&VmId, &VmEntry)> {
        self.vms.iter().filter(move |(_, entry)| entry.owner == node)
    }

    /// Name of a node, for people.
    #[must_use]
    pub fn name(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| alloc::format!("{node}"), |entry| entry.name.clone())
    }
}
