//! Every output of the machine. Imperative: do it, then answer with the event named here.

use crate::decision::Decision;
use crate::ids::{Digest, NodeId, Stamp, VmId};
use crate::message::{Message, Reply};
use crate::page::Page;
use crate::time::Instant;
use alloc::{boxed::Box, collections::BTreeSet, string::String, sync::Arc};
use serde::Serialize;
use steadfast_sdk::wire::{NodePriorityQuestion, PlacementQuestion};

/// Names a write until it ends.
pub type WriteId = u64;
/// Names a read until it ends.
pub type ReadId = u64;
/// Names a question until it is answered.
pub type QuestionId = u64;

/// An output. Actions of one step are done in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Action {
    /// Multicast to the group. Self-delivery confirms it.
    Send(Box<Message>),
    /// Write own page -> `WriteEnded`. Never two writes in flight.
    WritePage {
        /// Names the write.
        id: WriteId,
        /// The page.
        page: Box<Page>,
    },
    /// Write a body into one of the own slots -> `WriteEnded`.
    WriteBody {
        /// Names the write.
        id: WriteId,
        /// Own slot, 0 or 1.
        slot: u8,
        /// The body.
        bytes: Arc<[u8]>,
    },
    /// Read every node's page -> `PagesRead`.
    ReadPages {
        /// Names the read.
        id: ReadId,
        /// Whose: every node configured now, or before a change that is under way.
        nodes: Arc<BTreeSet<NodeId>>,
    },
    /// Read a body -> `BodyRead`.
    ReadBody {
        /// Names the read.
        id: ReadId,
        /// Whose.
        node: NodeId,
        /// Which slot.
        slot: u8,
    },
    /// Feed (or open) the watchdog -> `WatchdogFed`. Not after `not_after`: then answer nothing and wake the machine.
    FeedWatchdog {
        /// Basis of the lease, recorded on tmpfs with the boot id before the feed.
        basis: Option<Instant>,
        /// End of the newest feed that this decision knew: one that ended later spends it.
        last: Option<Instant>,
        /// The feed must not begin after this instant.
        not_after: Instant,
    },
    /// Disarmed, and the page on disk says so: close the watchdog without letting it fire -> `WatchdogClosed`.
    CloseWatchdog,
    /// Reset this node now: sysrq, and let the watchdog run out.
    ResetNode {
        /// Why, for the console and the last words.
        reason: String,
    },
    /// Scan processes -> `GuestsScanned`.
    ScanGuests,
    /// Record on tmpfs that this start is permitted, fetch the XML, define and create -> `StartEnded`.
    StartVm {
        /// The VM.
        vm: VmId,
        /// Digest of its domain XML in the catalogue.
        xml: Digest,
        /// The start must not be handed to libvirt after this instant.
        not_after: Instant,
    },
    /// Destroy -> `StopEnded`; its exit is seen by scan or pidfd.
    DestroyVm {
        /// The VM.
        vm: VmId,
        /// Why.
        reason: String,
    },
    /// Ask the guest to shut down (ACPI); no answer, its exit is seen. A guest that does not is destroyed later.
    ShutDownVm {
        /// The VM.
        vm: VmId,
    },
    /// Migrate it live to the node of this name, leaving the target paused -> `MigrationEnded`. Never begun after `not_after`.
    MigrateVm {
        /// The VM.
        vm: VmId,
        /// The target.
        to: NodeId,
        /// The target's name.
        name: String,
        /// The migration must not be handed to libvirt after this instant.
        not_after: Instant,
    },
    /// The migration is off: end libvirt's job, if there is one; no answer but `MigrationEnded`.
    AbortMigration {
        /// The VM.
        vm: VmId,
    },
    /// Record on tmpfs that this VM may arrive here, paused, by live migration; no answer. The hook asks for it.
    PermitArrival {
        /// The VM.
        vm: VmId,
    },
    /// Remove that record; no answer.
    ForbidArrival {
        /// The VM.
        vm: VmId,
    },
    /// It arrived here and is this node's now: let it run -> `ResumeEnded`.
    ResumeVm {
        /// The VM.
        vm: VmId,
        /// It must not be resumed after this instant.
        not_after: Instant,
    },
    /// The VM belongs elsewhere: undefine its domain here if it does not run; no answer.
    UndefineVm {
        /// The VM.
        vm: VmId,
    },
    /// Switch autostart off and watch the process; the VM is under HA here; no answer.
    AdoptVm {
        /// The VM.
        vm: VmId,
    },
    /// Run the fence agent for this node -> `FenceEnded`.
    Fence {
        /// The node.
        victim: NodeId,
        /// The eviction, for the answer.
        eviction: Stamp,
    },
    /// Ask the node-priority policy -> `PriorityAnswered`.
    AskPriority {
        /// Names the question.
        id: QuestionId,
        /// The generation that the nodes have agreed on; all zero: none yet. Without it the built-in policy answers.
        policy: Digest,
        /// The question.
        question: Box<NodePriorityQuestion>,
    },
    /// Ask the placement policy -> `PlacementAnswered`.
    AskPlacement {
        /// Names the question.
        id: QuestionId,
        /// The question.
        question: Box<PlacementQuestion>,
    },
    /// No HA guest is left that the host must wait for: the agent may end, and the host go down; no answer.
    LetHostStop,
    /// Answer an operator's request.
    Answer(Reply),
    /// Record a decision, and tell it to whoever watches.
    Record(Box<Decision>),
}
