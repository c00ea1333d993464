//! What may execute on this node. Source of truth: processes, not libvirt's word.

use crate::ids::VmId;
use crate::time::Instant;
use alloc::{collections::BTreeSet, string::String};
use serde::{Deserialize, Serialize};

/// A guest as its node reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The VM.
    pub vm: VmId,
    /// Its state there.
    pub state: GuestState,
}

/// State of an HA VM on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestState {
    /// Asked to start; not yet seen.
    Starting,
    /// Its QEMU process exists.
    Running,
    /// Destroy was asked for; its process exists still.
    Stopping,
    /// It could not be started; with libvirt's words.
    Failed(String),
}

/// A scan of processes and of starts in flight (source: `/proc`, and the record of starts on tmpfs).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestScan {
    /// When the scan began.
    pub began: Instant,
    /// Every VM (by UUID) with a QEMU process on this node, HA or not.
    pub present: BTreeSet<VmId>,
    /// VMs for which a start that *any earlier* incarnation of this boot asked for may still be under way.
    pub unresolved: BTreeSet<VmId>,
}
