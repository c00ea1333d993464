//! Shared storage: every node's page, the ledger's bodies, the catalogue of domain XML.
//!
//! What makes the ledger true on real disks (PROTOCOL section 3) is here: one write in flight, ever; past
//! the client's cache; double-buffered pages with checksums; a read is of every slot or an error; and an
//! exclusive local lock that the I/O threads share, so that a dead agent's stuck write keeps it.
//!
//! A store is a directory on a shared file system (`dir.rs`) or a raw shared device (`block.rs`).

use crate::Sink;
use crate::threads;
use anyhow::{Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use steadfast_core::action::{ReadId, WriteId};
use steadfast_core::ids::{Digest, NodeId};
use steadfast_core::page::Page;

mod backend;
pub mod block;
pub mod cluster;
pub mod dir;
pub mod direct;
pub mod format;
mod gate;
mod lock;
pub mod records;
mod workers;

pub use backend::Place;
use backend::{Layout, Shelf};
pub use cluster::{ClusterFile, StoredNode};
pub use gate::Gate;
use records::RecordWriter;
use workers::{ReadRequest, Reader, WriteRequest, Writer};

/// Slots for bodies a node has.
pub const BODY_SLOTS: u8 = 2;
/// How long opening waits for storage.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that a node's page takes: two blocks, written in turn.
const fn page_size() -> u64 {
    2 * format::BLOCK as u64
}

/// The store as this node uses it. Its requests never block; its I/O has no deadline, because a deadline
/// does not end a write: silence is the answer of a storage that hangs.
#[derive(Debug)]
pub struct PageStore {
    layout: Layout,
    cluster: ClusterFile,
    catalogue: Shelf,
    me: NodeId,
    gate: Gate,
    writes: mpsc::Sender<WriteRequest>,
    reads: mpsc::Sender<ReadRequest>,
}

/// A store that is being opened. Storage may take its time: an attempt that does not answer is kept, not repeated.
#[derive(Debug)]
pub struct Opening {
    place: Place,
    gate: Gate,
    patience: Duration,
    pending: Option<mpsc::Receiver<Result<(Layout, ClusterFile)>>>,
}

impl Opening {
    /// Of the store at `place`.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self { place, gate: Gate::default(), patience: OPEN_PATIENCE, pending: None }
    }

    /// The same, with a gate before it.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Opens the store as node `me`. Blocks up to 10 s. Takes the exclusive lock in `lock_dir`
    /// (local, on tmpfs) before it reads anything and keeps it until every I/O thread has ended.
    ///
    /// # Errors
    /// Another agent holds the lock; storage does not answer; there is no store; the store does not know `me`.
    pub fn open(&mut self, me: NodeId, lock_dir: &Path, events: Sink) -> Result<Arc<PageStore>> {
        let lock = Arc::new(lock::take(lock_dir)?);
        let (layout, cluster) = self.layout()?;
        let known = cluster.nodes.iter().any(|node| node.id == me);
        let (name, place) = (&cluster.cluster, &self.place);
        ensure!(
            known,
            "node {me} has no slot in the store of cluster {name:?}: see its list of nodes in {place}"
        );
        PageStore::start((layout, self.gate.clone()), cluster, me, lock, events).map(Arc::new)
    }

    fn layout(&mut self) -> Result<(Layout, ClusterFile)> {
        let receiver = match self.pending.take() {
            Some(receiver) => receiver,
            None => {
                let (answer, receiver) = mpsc::channel();
                let (place, gate) = (self.place.clone(), self.gate.clone());
                let open = move || gate.through().and_then(|()| Layout::open(&place));
                threads::spawn("store-open", move || drop(answer.send(open())))?;
                receiver
            }
        };
        match receiver.recv_timeout(self.patience) {
            Ok(opened) => opened,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.pending = Some(receiver);
                let (place, seconds) = (&self.place, self.patience.as_secs());
                Err(anyhow!(
                    "storage at {place} does not answer within {seconds} s: see its mount, or its paths, on this node"
                ))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(anyhow!("opening the store panicked")),
        }
    }
}

/// Each thread holds the lock until it has ended.
fn spawn(name: &str, lock: Arc<File>, work: impl FnOnce() + Send + 'static) -> Result<()> {
    threads::spawn(name, move || {
        work();
        drop(lock);
    })
}

/// Makes a store. Does nothing if the same store is already there. Blocks: for the command line.
///
/// A device that holds something else is left alone, unless `force` names it once more.
///
/// # Errors
/// The place holds something else or is unfit, or storage fails.
pub fn init(place: &Place, wanted: &ClusterFile, force: Option<&PathBuf>) -> Result<()> {
    match place {
        Place::Directory(directory) => dir::init(directory, wanted),
        Place::Device(device) => block::init(device, wanted, force.map(PathBuf::as_path)),
    }
}

/// Who has a slot in the store at `place`. Blocks: for the command line.
///
/// # Errors
/// There is no store, or storage fails.
pub fn look(place: &Place) -> Result<ClusterFile> {
    Layout::open(place).map(|(_, cluster)| cluster)
}

/// Gives a node a slot in the store at `place`. Idempotent. Blocks: for the command line.
///
/// # Errors
/// There is no store, or storage fails.
pub fn add_node(place: &Place, node: &StoredNode) -> Result<()> {
    Layout::open(place)?.0.add_node(node)
}

impl PageStore {
    fn start(
        (layout, gate): (Layout, Gate),
        cluster: ClusterFile,
        me: NodeId,
        lock: Arc<File>,
        events: Sink,
    ) -> Result<Self> {
        let (writes, write_queue) = mpsc::channel();
        let (reads, read_queue) = mpsc::channel();
        let writer = Writer::new(&layout, me, Arc::clone(&events))?;
        let reader = Reader::new(&layout, &cluster, events);
        let (write_gate, read_gate) = (gate.clone(), gate.clone());
        spawn("page-writer", Arc::clone(&lock), move || writer.run(&write_queue, &write_gate))?;
        spawn("page-reader", lock, move || reader.run(&read_queue, &read_gate))?;
        let catalogue = Shelf::new(&layout, me, &cluster);
        Ok(Self { layout, cluster, catalogue, me, gate, writes, reads })
    }

    /// Who has a slot.
    #[must_use]
    pub fn cluster(&self) -> &ClusterFile {
        &self.cluster
    }

    /// Writes the own page -> `WriteEnded`.
    pub fn write_page(&self, id: WriteId, page: Page) {
        // The threads end only after the store: sending cannot fail while it is here, unless they panicked.
        let _ = self.writes.send(WriteRequest::Page(id, Box::new(page)));
    }

    /// Writes a body into an own slot -> `WriteEnded`.
    pub fn write_body(&self, id: WriteId, slot: u8, bytes: Arc<[u8]>) {
        let _ = self.writes.send(WriteRequest::Body(id, slot, bytes));
    }

    /// Reads the pages of `nodes`, all of them or none -> `PagesRead`.
    pub fn read_pages(&self, id: ReadId, nodes: Arc<BTreeSet<NodeId>>) {
        let _ = self.reads.send(ReadRequest::Pages(id, nodes));
    }

    /// Reads a body -> `BodyRead`.
    pub fn read_body(&self, id: ReadId, node: NodeId, slot: u8) {
        let _ = self.reads.send(ReadRequest::Body(id, node, slot));
    }

    /// Gives a node that is to be added to the cluster its slot. Idempotent. Blocks: for worker threads.
    ///
    /// # Errors
    /// Storage fails.
    pub fn add_node(&self, node: &StoredNode) -> Result<()> {
        self.gate.through()?;
        self.layout.add_node(node)
    }

    /// What appends this node's decisions. Blocks: for the thread that does it.
    ///
    /// # Errors
    /// Storage fails, or the store was made by a version that kept no decisions.
    pub fn record_writer(&self) -> Result<RecordWriter> {
        self.gate.through()?;
        RecordWriter::open(&self.layout, self.me)
    }

    /// The last decisions of `node`, oldest first: batches of JSON lines. Blocks: for worker threads.
    ///
    /// # Errors
    /// Storage fails.
    pub fn read_records(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.gate.through()?;
        records::lines(&self.layout, node)
    }

    /// Puts domain XML into the catalogue. Idempotent. Blocks: for worker threads.
    ///
    /// # Errors
    /// Storage fails, or has no place for it.
    pub fn put_catalogue(&self, xml: &str) -> Result<Digest> {
        self.gate.through()?;
        self.catalogue.put(xml)
    }

    /// Gets domain XML from the catalogue. Blocks: for worker threads.
    ///
    /// # Errors
    /// It is not there, damaged, or storage fails.
    pub fn get_catalogue(&self, digest: Digest) -> Result<String> {
        self.gate.through()?;
        self.catalogue.get(digest)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
