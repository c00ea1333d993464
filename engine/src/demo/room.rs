//! Where the agents of nodes with power run: their lease threads, and the runtimes of their APIs.

use super::Options;
use super::seat::Seat;
use super::setup::Place;
use super::world::{Wish, World};
use crate::config::Config;
use crate::driver::edge::Edge;
use crate::driver::{self, Agent, Failure, LeasePath};
use crate::threads::{self, lock};
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::ids::NodeId;
use tokio::runtime::Runtime;

/// How long the end waits for agents whose power was cut.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// How long the next boot waits for the lease thread of the one before.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: Mutex<BTreeMap<NodeId, Room>>,
    over: Mutex<bool>,
    ended: Condvar,
}

#[derive(Debug)]
struct Room {
    boot: u64,
    agent: Arc<Agent>,
    runtime: Runtime,
    lease: LeasePath,
}

impl Rooms {
    /// Starts and ends agents as `wishes` say, on a thread of its own.
    pub(super) fn start(
        world: &Arc<World>,
        place: &Place,
        options: &Options,
        wishes: Receiver<Wish>,
    ) -> Result<Arc<Self>> {
        let rooms = Arc::new(Self::default());
        let (keeper, world) = (Arc::clone(&rooms), Arc::clone(world));
        let (place, options) = (place.clone(), options.clone());
        threads::spawn("demo-rooms", move || {
            keeper.keep(&world, &place, &options, &wishes);
            // Files go last: the threads that write them have ended.
            place.remove();
            *lock(&keeper.over) = true;
            keeper.ended.notify_all();
        })?;
        Ok(rooms)
    }

    pub(super) fn agent(&self, node: NodeId) -> Option<Arc<Agent>> {
        lock(&self.rooms).get(&node).map(|room| Arc::clone(&room.agent))
    }

    pub(super) fn wait_until_empty(&self) {
        let over = lock(&self.over);
        let waited = self.ended.wait_timeout_while(over, LAST_PATIENCE, |over| !*over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn keep(&self, world: &Arc<World>, place: &Place, options: &Options, wishes: &Receiver<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Up(node, boot) => {
                    let Some(seat) = Seat::take(world, node) else { continue };
                    // It may have lost its power since, and have booted again.
                    if seat.number() == boot
                        && let Err(error) = self.open(node, seat, place, options)
                    {
                        let error = format!("{error:#}");
                        tracing::error!(error, node = node.0, "an agent cannot be started");
                    }
                }
                Wish::Down(node, boot) => self.close(node, boot),
                Wish::End => return,
            }
        }
    }

    fn open(&self, node: NodeId, seat: Seat, place: &Place, options: &Options) -> Result<()> {
        let boot = seat.number();
        let text = place.config(node, boot, options)?;
        let config = Config::parse(&text).map_err(|problems| anyhow!("{problems}"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("demo-api")
            .enable_all()
            .build()
            .context("cannot start an API's thread")?;
        let agent = Agent::at(config, Edge::Demo(Arc::new(seat)));
        let lease = driver::keep_lease(Arc::clone(&agent))?;
        runtime.spawn(driver::serve(Arc::clone(&agent)));
        lock(&self.rooms).insert(node, Room { boot, agent, runtime, lease });
        Ok(())
    }

    fn close(&self, node: NodeId, boot: u64) {
        let mut rooms = lock(&self.rooms);
        if rooms.get(&node).is_none_or(|room| room.boot != boot) {
            return;
        }
        let Some(room) = rooms.remove(&node) else { return };
        drop(rooms);
        // Clients lose their connections in the middle of a word, as they should.
        room.runtime.shutdown_background();
        drop(room.agent);
        wait(room.lease, node);
    }
}

/// Whatever ends a lease thread but a power cut is worth a look.
fn wait(lease: LeasePath, node: NodeId) {
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = threads::spawn("demo-end", move || drop(tell.send(lease.blocking_recv())));
    let ended = waiting.is_ok().then(|| told.recv_timeout(END_PATIENCE));
    match ended {
        Some(Ok(Ok(Ok(()) | Err(Failure::PowerCut)))) => {}
        Some(Ok(Ok(Err(failure)))) => tracing::error!(?failure, node = node.0, "an agent failed"),
        Some(Ok(Err(_))) => tracing::error!(node = node.0, "alarm: a lease path panicked"),
        Some(Err(_)) | None => tracing::warn!(node = node.0, "a lease thread is slow to end"),
    }
}
