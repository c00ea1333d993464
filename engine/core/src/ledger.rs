//! The ledger's value: who is admitted, who leads, which node owns which VM. Only a commit changes it
//! (`register.rs`), and only the leader commits.

use crate::ids::{BootId, Digest, NodeId, Stamp, VmId};
use crate::time::Millis;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use serde::{Deserialize, Serialize};

/// Version of the body format. A body of a higher major is refused.
pub const LEDGER_FORMAT: u16 = 1;

/// The whole state, written as one body. `BTreeMap`, so that equal ledgers are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Format, see [`LEDGER_FORMAT`].
    pub format: u16,
    /// Name of the cluster.
    pub cluster: String,
    /// Configured nodes; their number is N.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// VMs under HA.
    pub vms: BTreeMap<VmId, VmEntry>,
}

/// A configured node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// May it run HA VMs?
    pub standing: Standing,
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
        let entry = |(id, name): (&NodeId, &String)| {
            (*id, NodeEntry { name: name.clone(), standing: Standing::New })
        };
        Self {
            format: LEDGER_FORMAT,
            cluster: cluster.into(),
            nodes: nodes.iter().map(entry).collect(),
            vms: BTreeMap::new(),
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
        if got != expected {
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
