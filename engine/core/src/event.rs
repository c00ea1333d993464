//! Every input of the machine. Past tense: it has happened.

use crate::action::{QuestionId, ReadId, WriteId};
use crate::guest::GuestScan;
use crate::ids::{Digest, NodeId, Stamp, VmId};
use crate::message::{Change, Message, PolicyDigests};
use crate::page::{Pages, StorageError};
use crate::proactive::Assessed;
use crate::time::Instant;
use alloc::{boxed::Box, collections::BTreeSet, string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{NodeFacts, NodePriorityVerdict, PlacementVerdict};

/// An input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Time passed; nothing else happened. Late wake-ups are normal.
    Woke,
    /// Corosync delivered a configuration change of our group.
    ViewChanged {
        /// Members now.
        members: BTreeSet<NodeId>,
    },
    /// Corosync is gone; there is no view until it is back.
    CorosyncLost {
        /// What the library said.
        reason: String,
    },
    /// A message was delivered, own ones included.
    MessageReceived {
        /// Sender by corosync's word.
        sender: NodeId,
        /// The message.
        message: Box<Message>,
    },
    /// A page or body write returned.
    WriteEnded {
        /// Which.
        id: WriteId,
        /// How. A failed write is repeated identically.
        result: Result<(), StorageError>,
    },
    /// Every slot was read, or the read failed.
    PagesRead {
        /// Which read.
        id: ReadId,
        /// All slots, or why not.
        result: Result<Pages, StorageError>,
    },
    /// A body was read, or the read failed.
    BodyRead {
        /// Which read.
        id: ReadId,
        /// The bytes. Their digest is checked by the machine.
        result: Result<Vec<u8>, StorageError>,
    },
    /// The watchdog was fed.
    WatchdogFed {
        /// When the feed had returned.
        ended: Instant,
    },
    /// The watchdog could not be opened or fed.
    WatchdogFailed {
        /// Why.
        reason: String,
    },
    /// The watchdog was closed without firing.
    WatchdogClosed,
    /// What this node said before it was reset was found after the boot (source: a file).
    LastWordsFound {
        /// When, and the words.
        text: String,
    },
    /// Processes were scanned.
    GuestsScanned(GuestScan),
    /// A start order's work ended (the process may or may not exist; a scan tells).
    StartEnded {
        /// The VM.
        vm: VmId,
        /// libvirt's word.
        result: Result<(), String>,
    },
    /// A destroy returned. Not proof of anything.
    StopEnded {
        /// The VM.
        vm: VmId,
        /// libvirt's word.
        result: Result<(), String>,
    },
    /// A QEMU process of this VM exited (source: pidfd).
    GuestExited {
        /// The VM.
        vm: VmId,
    },
    /// The guest shut itself down (source: libvirt's event). Its exit is told by `GuestExited`, before or after.
    GuestShutDown {
        /// The VM.
        vm: VmId,
    },
    /// A live migration from here ended. Not proof of anything: a scan tells whether the process is gone.
    MigrationEnded {
        /// The VM.
        vm: VmId,
        /// libvirt's word.
        result: Result<(), String>,
    },
    /// A resume returned.
    ResumeEnded {
        /// The VM.
        vm: VmId,
        /// libvirt's word.
        result: Result<(), String>,
    },
    /// A fence agent ended.
    FenceEnded {
        /// The node it was run for.
        victim: NodeId,
        /// The eviction it was run for.
        eviction: Stamp,
        /// Success (exit status 0), or why not.
        result: Result<(), String>,
    },
    /// The verification IPs were asked.
    VerificationChecked {
        /// A quorum of them answered.
        reachable: bool,
    },
    /// What policies shall be told of this node (source: libvirt, /proc).
    FactsMeasured(Box<NodeFacts>),
    /// The risk policy said how likely this node is to fail.
    RiskAssessed(Box<Assessed>),
    /// The host of policies holds these ready.
    PoliciesStaged(PolicyDigests),
    /// A node-priority policy answered.
    PriorityAnswered {
        /// Which question.
        id: QuestionId,
        /// Verdict.
        verdict: NodePriorityVerdict,
        /// Who decided.
        decider: Decider,
    },
    /// A placement policy answered.
    PlacementAnswered {
        /// Which question.
        id: QuestionId,
        /// Verdict, not yet validated.
        verdict: PlacementVerdict,
        /// Who decided.
        decider: Decider,
    },
    /// An operator asks for a change, on this node. A VM to be enabled is defined here, its domain XML in the catalogue already.
    ChangeRequested {
        /// Names the request in the reply.
        id: u64,
        /// What is asked.
        change: Box<Change>,
    },
    /// The host is on its way down (source: systemd's jobs); `LetHostStop` answers when HA guests are cared for.
    HostStopping {
        /// It reboots; otherwise it is switched off.
        reboot: bool,
    },
    /// The agent is about to stop; nothing is destroyed.
    ShutdownRequested,
}

/// Who answered a question.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Decider {
    /// Policy name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of module and parameters.
    pub digest: Digest,
    /// `active`, `last_good` or `built_in`.
    pub kind: String,
    /// Fuel used (wasmtime's unit), 0 for the built-in.
    pub fuel: u64,
    /// Time used in microseconds.
    pub micros: u64,
    /// Why better deciders were not used.
    pub failures: Vec<String>,
}
