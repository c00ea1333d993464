//! A cluster in one process: what a newcomer sees first, without root, corosync or libvirt.
//!
//! Each node is a real agent: the machine, its lease thread, its pages in a shared directory, its policies, its API. Only what
//! they reach is not real (`driver/edge.rs`): messages go from inbox to inbox ([`ring`]), guests are entries of a table
//! ([`guests`]), a watchdog or a fence agent cuts a power that is a flag ([`world`]), and storage has a gate before it that can be
//! shut (`pages/gate.rs`). A witness that no agent asks notes what executed where ([`truth`]).

mod guests;
mod page;
mod ring;
mod room;
mod routes;
mod script;
mod seat;
mod setup;
mod tell;
#[cfg(test)]
mod tests;
mod truth;
mod world;

use crate::driver::Agent;
use anyhow::{Context, Result};
use room::Rooms;
use serde::{Deserialize, Serialize};
use setup::Place;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use steadfast_core::ids::NodeId;
use steadfast_core::time::Millis;
use world::World;

pub use crate::config::Preset;
pub use page::Page;
pub use script::{Deed, Script};
pub use seat::Seat;
pub use tell::{Teller, Told};
pub use truth::{Line, Run, Truth};

/// What a demonstration has.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes, from 1 to 64.
    pub nodes: u32,
    /// VMs under HA. There is one more, without.
    pub vms: u32,
    /// Time-outs of its agents.
    pub preset: Preset,
    /// Its nodes have fence agents.
    pub fencing: bool,
    /// Where its files are; `None`: a new folder, removed at the end.
    pub folder: Option<PathBuf>,
    /// Modules that are in the drop folder from the beginning.
    pub policies: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            vms: 12,
            preset: Preset::Standard,
            fencing: true,
            folder: None,
            policies: Vec::new(),
        }
    }
}

/// A cluster in this process. It ends, and its files go, when this is dropped.
#[derive(Debug)]
pub struct Demo {
    world: Arc<World>,
    rooms: Arc<Rooms>,
    place: Place,
    names: BTreeMap<String, NodeId>,
}

/// `GET /v1/demo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoReport {
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeReport>,
    /// The drop folder of policies, of all nodes.
    pub folder: PathBuf,
}

/// What there really is of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// It has power.
    pub up: bool,
    /// Its networks are plugged in.
    pub network: bool,
    /// Its storage answers.
    pub storage: bool,
    /// Since when not, in milliseconds.
    pub storage_stall_ms: Option<u64>,
}

impl Demo {
    /// Starts it. Returns at once; see [`Demo::wait_until_ready`].
    ///
    /// # Errors
    /// Its files cannot be written, or the system gives no threads.
    pub fn start(options: &Options) -> Result<Self> {
        Place::tidy();
        let place = Place::new(options.folder.as_deref())?;
        let hosts = place.prepare(options)?;
        let names = hosts.iter().map(|(node, host)| (host.name.clone(), *node)).collect();
        let nodes: Vec<NodeId> = hosts.keys().copied().collect();
        let (wish, wishes) = mpsc::channel();
        let world = World::start(hosts, wish)?;
        let rooms = Rooms::start(&world, &place, options, wishes)?;
        for node in nodes {
            world.act(|state| state.boot(node, Millis(0)));
        }
        let demo = Self { world, rooms, place, names };
        demo.place.protect(&demo.world, options)?;
        Ok(demo)
    }

    /// Names of its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The agent of a node that has power.
    #[must_use]
    pub fn agent(&self, node: &str) -> Option<Arc<Agent>> {
        self.rooms.agent(*self.names.get(node)?)
    }

    /// The socket of a node's API.
    #[must_use]
    pub fn socket(&self, node: &str) -> PathBuf {
        self.place.socket(node)
    }

    /// The drop folder of policies.
    #[must_use]
    pub fn drop_folder(&self) -> PathBuf {
        self.place.drop_folder()
    }

    /// Where all its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Every VM that is to be under HA is, and runs. False if that is not so within `patience`.
    #[must_use]
    pub fn wait_until_ready(&self, patience: Duration) -> bool {
        self.place.wait_until_protected(patience)
    }

    /// Does something to the world.
    ///
    /// # Errors
    /// There is no such node.
    pub fn act(&self, deed: &Deed) -> Result<()> {
        if let Some(name) = deed.node() {
            let known = || self.nodes().collect::<Vec<_>>().join(", ");
            let node = self.names.get(name);
            let node = node.with_context(|| format!("no node {name}: there are {}", known()))?;
            self.world.act(|state| deed.apply(state, Some(*node)));
        } else {
            self.world.act(|state| deed.apply(state, None));
        }
        Ok(())
    }

    /// What there really is.
    #[must_use]
    pub fn report(&self) -> DemoReport {
        let nodes = self.world.act(|state| {
            let now = state.now;
            let report = |host: &world::Host| NodeReport {
                up: host.up,
                network: host.plugged,
                storage: host.stalled.is_none(),
                storage_stall_ms: host.stalled.map(|since| now.since(since).0),
            };
            state.hosts.values().map(|host| (host.name.clone(), report(host))).collect()
        });
        DemoReport { nodes, folder: self.drop_folder() }
    }

    /// What really ran where.
    #[must_use]
    pub fn truth(&self) -> Truth {
        self.world.act(|state| state.truth.clone())
    }

    /// Lines for people after the one with this number.
    #[must_use]
    pub fn lines_after(&self, number: u64) -> Vec<Line> {
        self.world.act(|state| state.truth.lines_after(number).cloned().collect())
    }

    /// When it began, in milliseconds of own time.
    pub(crate) fn began(&self) -> u64 {
        self.world.act(|state| state.now.0 - state.truth.at(state.now))
    }

    /// Time since it began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.world.act(|state| state.truth.at(state.now)))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.world.end();
        self.rooms.wait_until_empty();
    }
}
