//! Shared storage: every node's page, the ledger's bodies, the catalogue of domain XML.
//!
//! What makes the ledger true on real disks (PROTOCOL section 3) is here: one write in flight, ever; past
//! the client's cache; double-buffered pages with checksums; a read is of every slot or an error; and an
//! exclusive local lock that the I/O threads share, so that a dead agent's stuck write keeps it.

use crate::Sink;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use steadfast_core::action::{ReadId, WriteId};
use steadfast_core::event::Event;
use steadfast_core::ids::{Digest, NodeId};
use steadfast_core::page::{Page, Pages, StorageError};

pub mod dir;
pub mod direct;
pub mod format;

use dir::{BODY_SLOTS, Layout};
pub use dir::{ClusterFile, StoredNode, init};
use direct::{Access, AlignedBuffer, DirectFile};
use format::BLOCK;

/// How long opening waits for `cluster.json`.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// Bodies are read in one go up to this size.
const FIRST_READ: usize = 64 * 1024;
const LOCK_NAME: &str = "steadfastd.lock";

/// The store as this node uses it. Its requests never block; its I/O has no deadline, because a deadline
/// does not end a write: silence is the answer of a storage that hangs.
#[derive(Debug)]
pub struct PageStore {
    layout: Layout,
    cluster: ClusterFile,
    writes: mpsc::Sender<WriteRequest>,
    reads: mpsc::Sender<ReadRequest>,
}

/// A request to the writing thread.
enum WriteRequest {
    Page(WriteId, Box<Page>),
    Body(WriteId, u8, Arc<[u8]>),
}

/// A request to the reading thread.
enum ReadRequest {
    Pages(ReadId, Arc<BTreeSet<NodeId>>),
    Body(ReadId, NodeId, u8),
}

/// Opens the store in `directory` as node `me`. Blocks up to 10 s. Takes the exclusive lock in `lock_dir`
/// (local, on tmpfs) before it reads anything and keeps it until every I/O thread has ended.
///
/// # Errors
/// Another agent holds the lock; storage does not answer; there is no store; the store does not know `me`.
pub fn open(
    directory: &Path,
    me: NodeId,
    lock_dir: PathBuf,
    events: Sink,
) -> Result<Arc<PageStore>> {
    let lock = Arc::new(take_lock(&lock_dir)?);
    let layout = Layout::new(directory);
    let cluster = read_cluster_patiently(&layout, directory)?;
    let known = cluster.nodes.iter().any(|node| node.id == me);
    let name = &cluster.cluster;
    ensure!(
        known,
        "node {me} has no slot in the store of cluster {name:?}: see cluster.json there"
    );

    let (writes, write_queue) = mpsc::channel();
    let (reads, read_queue) = mpsc::channel();
    let writer = Writer::new(&layout, me, Arc::clone(&events));
    let reader = Reader::new(&layout, &cluster, events);
    spawn("page-writer", Arc::clone(&lock), move || writer.run(&write_queue))?;
    spawn("page-reader", lock, move || reader.run(&read_queue))?;
    Ok(Arc::new(PageStore { layout, cluster, writes, reads }))
}

/// Each thread holds the lock until it has ended.
fn spawn(name: &str, lock: Arc<File>, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    let held = move || {
        work();
        drop(lock);
    };
    thread.spawn(held).with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

fn take_lock(lock_dir: &Path) -> Result<File> {
    let path = lock_dir.join(LOCK_NAME);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.with_context(|| format!("cannot open lock {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(anyhow!(
                "another steadfastd (pid {}) holds {}: stop it; if it was killed, a write of it hangs \
                 in storage, and this node needs that write to end, or a reboot",
                holder.trim(),
                path.display()
            ));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

fn read_cluster_patiently(layout: &Layout, directory: &Path) -> Result<ClusterFile> {
    let (answer, receiver) = mpsc::channel();
    let reader = layout.clone();
    let thread = std::thread::Builder::new().name("store-open".into());
    thread.spawn(move || answer.send(dir::read_cluster_file(&reader)))?;
    let found = receiver.recv_timeout(OPEN_PATIENCE).map_err(|_| {
        let (path, seconds) = (directory.display(), OPEN_PATIENCE.as_secs());
        anyhow!("storage at {path} does not answer within {seconds} s: see its mount on this node")
    })??;
    found.ok_or_else(|| {
        let path = directory.display();
        anyhow!("no store in {path}: mount the shared file system, or run `steadfast storage init`")
    })
}

impl PageStore {
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
        dir::add_node(&self.layout, node)
    }

    /// Puts domain XML into the catalogue. Idempotent. Blocks: for worker threads.
    ///
    /// # Errors
    /// Storage fails.
    pub fn put_catalogue(&self, xml: &str) -> Result<Digest> {
        dir::put_catalogue(&self.layout, xml)
    }

    /// Gets domain XML from the catalogue. Blocks: for worker threads.
    ///
    /// # Errors
    /// It is not there, damaged, or storage fails.
    pub fn get_catalogue(&self, digest: Digest) -> Result<String> {
        dir::get_catalogue(&self.layout, digest)
    }
}

/// The thread that writes: one write at a time.
struct Writer {
    me: NodeId,
    page: DirectFile,
    bodies: [DirectFile; BODY_SLOTS as usize],
    block: AlignedBuffer,
    /// Sequence of the last write begun.
    last: Option<u64>,
    events: Sink,
}

impl Writer {
    fn new(layout: &Layout, me: NodeId, events: Sink) -> Self {
        let body = |slot| DirectFile::new(layout.body(me, slot), Access::Write);
        Self {
            me,
            page: DirectFile::new(layout.page(me), Access::Write),
            bodies: [body(0), body(1)],
            block: AlignedBuffer::new(BLOCK),
            last: None,
            events,
        }
    }

    fn run(mut self, queue: &mpsc::Receiver<WriteRequest>) {
        for request in queue {
            let (id, result) = match request {
                WriteRequest::Page(id, page) => (id, self.write_page(&page)),
                WriteRequest::Body(id, slot, bytes) => (id, self.write_body(slot, &bytes)),
            };
            (self.events)(Event::WriteEnded { id, result: result.map_err(told) });
        }
    }

    fn write_page(&mut self, page: &Page) -> Result<()> {
        // The block of sequence - 1 must stay whole while this one is written.
        let allowed =
            self.last.is_none_or(|last| page.sequence == last || page.sequence == last + 1);
        let (last, next) = (self.last.unwrap_or(0), page.sequence);
        ensure!(
            allowed,
            "alarm: page {next} after page {last} could tear the newest one, not written"
        );
        format::encode_page(page, self.me, self.block.get_mut())?;
        self.last = Some(page.sequence);
        self.page.write(format::page_offset(page.sequence), self.block.get())
    }

    fn write_body(&mut self, slot: u8, bytes: &[u8]) -> Result<()> {
        let file = self.bodies.get_mut(usize::from(slot));
        let file = file.with_context(|| format!("alarm: body slot {slot} of {BODY_SLOTS}"))?;
        let mut blocks = AlignedBuffer::new(format::body_size(bytes.len()));
        format::encode_body(bytes, self.me, slot, blocks.get_mut())?;
        file.write(0, blocks.get())
    }
}

/// The thread that reads.
struct Reader {
    layout: Layout,
    /// Opened when they are first read: a node may be added later.
    pages: BTreeMap<NodeId, DirectFile>,
    /// Of the nodes that were there when the store was opened, for people.
    names: BTreeMap<NodeId, String>,
    blocks: AlignedBuffer,
    events: Sink,
}

impl Reader {
    fn new(layout: &Layout, cluster: &ClusterFile, events: Sink) -> Self {
        Self {
            layout: layout.clone(),
            pages: BTreeMap::new(),
            names: cluster.nodes.iter().map(|node| (node.id, node.name.clone())).collect(),
            blocks: AlignedBuffer::new(2 * BLOCK),
            events,
        }
    }

    fn run(mut self, queue: &mpsc::Receiver<ReadRequest>) {
        for request in queue {
            let event = match request {
                ReadRequest::Pages(id, nodes) => {
                    Event::PagesRead { id, result: self.read_pages(&nodes) }
                }
                ReadRequest::Body(id, node, slot) => {
                    let result = self.read_body(node, slot).map_err(told);
                    Event::BodyRead { id, result }
                }
            };
            (self.events)(event);
        }
    }

    /// Every slot that is asked for, or an error that names each that could not be read.
    fn read_pages(&mut self, nodes: &BTreeSet<NodeId>) -> Result<Pages, StorageError> {
        self.pages.retain(|node, _| nodes.contains(node));
        let (mut pages, mut failures) = (Pages::new(), Vec::new());
        for node in nodes {
            let open = || DirectFile::new(self.layout.page(*node), Access::Read);
            let file = self.pages.entry(*node).or_insert_with(open);
            match read_page(*node, file, &mut self.blocks) {
                Ok(page) => drop(pages.insert(*node, page)),
                Err(error) => {
                    let name = self.names.get(node).map_or("a new node", String::as_str);
                    failures.push(format!("page of {name} ({node}): {error:#}"));
                }
            }
        }
        if failures.is_empty() { Ok(pages) } else { Err(StorageError(failures.join("; "))) }
    }

    fn read_body(&self, node: NodeId, slot: u8) -> Result<Vec<u8>> {
        let path = self.layout.body(node, slot);
        let extent = |first: &[u8]| format::body_extent(first).map_err(anyhow::Error::from);
        let body = direct::read_fresh(&path, extent, FIRST_READ)
            .and_then(|blocks| Ok(format::decode_body(blocks.get(), node, slot)?));
        body.with_context(|| format!("body {}", path.display()))
    }
}

fn read_page(
    node: NodeId,
    file: &mut DirectFile,
    blocks: &mut AlignedBuffer,
) -> Result<Option<Page>> {
    let got = file.read(0, blocks.get_mut())?;
    ensure!(got == 2 * BLOCK, "{got} bytes, expected {}: restore the file", 2 * BLOCK);
    format::decode_pages(blocks.get(), node).context(
        "both blocks are unusable: if its agent runs it repairs them with its next write; \
         otherwise restore the file",
    )
}

fn told(error: anyhow::Error) -> StorageError {
    StorageError(format!("{error:#}"))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
