//! What an agent's parts reach: the host, or a demonstration's world. Everything behind it is the same code.

use super::Inbox;
use crate::corosync::{self, ClusterFacts, Corosync};
use crate::demo::Seat;
use crate::fence::FenceAgents;
use crate::last_words::LastWords;
use crate::pages::{Opening, Place};
use crate::record::read_boot_id;
use crate::reset::reset_node;
use crate::{Sink, realtime};
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::ids::{BootId, NodeId, Stamp};
use steadfast_core::message::Message;

/// Where the agent is.
#[derive(Debug, Clone)]
pub(crate) enum Edge {
    /// On a host: corosync, libvirt, a watchdog, fence agents.
    Host,
    /// In a demonstration: all of that in this process's memory.
    Demo(Arc<Seat>),
}

impl Edge {
    /// This boot.
    pub(super) fn boot(&self) -> Result<BootId> {
        match self {
            Self::Host => read_boot_id(),
            Self::Demo(seat) => Ok(seat.boot()),
        }
    }

    /// Which node this is, and how long its network needs to notice a silent one.
    pub(super) fn cluster(&self, patience: Duration) -> Result<ClusterFacts> {
        match self {
            Self::Host => corosync::read_cluster(patience),
            Self::Demo(seat) => Ok(seat.cluster()),
        }
    }

    /// The store, behind what the demonstration puts before it.
    pub(super) fn opening(&self, place: Place) -> Opening {
        let opening = Opening::new(place);
        match self {
            Self::Host => opening,
            Self::Demo(seat) => opening.behind(seat.gate()),
        }
    }

    /// From now on events come, and the power may be cut.
    pub(super) fn begin(&self, inbox: &Arc<Inbox>) {
        if let Self::Demo(seat) = self {
            seat.begin(inbox);
        }
    }

    /// Joins the group.
    pub(super) fn network(&self, events: &Sink) -> Result<Network> {
        match self {
            Self::Host => Corosync::start("steadfast", Arc::clone(events)).map(Network::Corosync),
            Self::Demo(seat) => {
                seat.join();
                Ok(Network::Demo(Arc::clone(seat)))
            }
        }
    }

    /// Last words go to the host's console, if there is one.
    pub(super) fn last_words(&self, directory: &Path, boot: BootId) -> LastWords {
        let words = LastWords::new(directory, boot);
        if self.is_demo() { words.without_console() } else { words }
    }

    /// The lease path goes first, where that can be had.
    pub(super) fn raise(&self) -> Option<String> {
        if self.is_demo() { None } else { realtime::raise().err() }
    }

    /// The last resort. A host does not come back from it; in a demonstration nothing follows but the power cut.
    pub(super) fn reset(&self, sysrq: &Path, last_words: &LastWords, reason: &str) {
        match self {
            Self::Host => reset_node(sysrq, last_words, reason),
            Self::Demo(seat) => {
                last_words.speak_before_reset(&format!("resetting this node: {reason}"));
                seat.reset(reason);
            }
        }
    }

    /// It is a demonstration.
    pub(crate) fn is_demo(&self) -> bool {
        matches!(self, Self::Demo(_))
    }
}

/// What carries messages.
#[derive(Debug)]
pub(super) enum Network {
    Corosync(Arc<Corosync>),
    Demo(Arc<Seat>),
}

impl Network {
    /// Multicasts to the group. Never blocks.
    pub(super) fn send(&self, message: Message) {
        match self {
            Self::Corosync(corosync) => corosync.send(message),
            Self::Demo(seat) => seat.send(message),
        }
    }
}

/// What switches other nodes off.
#[derive(Debug)]
pub(super) enum Fence {
    Agents(FenceAgents),
    Demo(Arc<Seat>),
}

impl Fence {
    /// `Action::Fence` -> `Event::FenceEnded`. Never blocks.
    pub(super) fn fence(&self, victim: NodeId, eviction: Stamp) {
        match self {
            Self::Agents(agents) => agents.fence(victim, eviction),
            Self::Demo(seat) => seat.fence(victim, eviction),
        }
    }
}
