//! The page: the record that only its node writes on shared storage.

use crate::feature_level::FeatureLevel;
use crate::ids::{Ballot, BootId, Digest, Identity, Incarnation, NodeId, Stamp};
use crate::time::Millis;
use alloc::{collections::BTreeMap, string::String};
use serde::{Deserialize, Serialize};

/// One node's page. At most [`Page::MAX_BYTES`] once encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The writer.
    pub writer: Identity,
    /// The highest feature level that it speaks (`feature_level.rs`).
    #[serde(default, skip_serializing_if = "FeatureLevel::is_oldest")]
    pub level: FeatureLevel,
    /// Counts every write of this page, over all incarnations.
    pub sequence: u64,
    /// Highest ballot this node has begun.
    pub promised: Ballot,
    /// The body this node wrote last.
    pub accepted: Stamp,
    /// Where that body lies: slot 0 or 1 of this node.
    pub slot: u8,
    /// Digest of that body.
    pub digest: Digest,
    /// Watchdog open and lease enforced (PROTOCOL section 5, rule 4).
    pub armed: bool,
    /// L + S that this node enforces on itself, if it states that it is never paused from outside: rule 4's span.
    pub span: Option<Millis>,
    /// The arming commit that `armed` and `span` speak of: rule 4 counts them only for the last one.
    #[serde(default)]
    pub arming: Stamp,
    /// HA is off here by this commit: no lease is enforced, the watchdog may be closed.
    #[serde(default)]
    pub disarmed: Option<Stamp>,
    /// Proved, in this incarnation: no HA VM executes here, and none is permitted to start.
    pub idle: bool,
    /// "None left" for the eviction of this stamp (rule 1).
    pub none_left: Option<Stamp>,
    /// The lease is over and HA VMs may still execute here: what this node would say if these were its last words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_words: Option<String>,
    /// How many nodes its view holds, itself counted.
    pub view_size: u16,
    /// A quorum of the verification IPs answers; `None` when not configured or not yet known.
    pub verification: Option<bool>,
}

impl Page {
    /// Size of a page on disk in bytes, header and checksum included.
    pub const MAX_BYTES: usize = 4096;

    /// Boot the page shows.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.writer.boot
    }

    /// Incarnation the page shows.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.writer.incarnation
    }
}

/// What one read of every slot found: a page, or nothing written yet. A read that could not read *every*
/// slot has not finished and never becomes one of these.
pub type Pages = BTreeMap<NodeId, Option<Page>>;

/// Why storage did not do what it was asked to. Shown to people, never interpreted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageError(pub String);
