//! The threads that touch storage. Their I/O has no deadline, because a deadline does not end a write: silence is the
//! answer of a storage that hangs.

use super::BODY_SLOTS;
use super::backend::{Batch, Layout};
use super::cluster::ClusterFile;
use super::direct::{self, Access, AlignedBuffer, DirectFile};
use super::format::{self, BLOCK};
use super::gate::Gate;
use crate::Sink;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use steadfast_core::action::{ReadId, WriteId};
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_core::page::{Page, Pages, StorageError};

/// Bodies are read in one go up to this size.
const FIRST_READ: usize = 64 * 1024;

/// A request to the writing thread.
pub(super) enum WriteRequest {
    Page(WriteId, Box<Page>),
    Body(WriteId, u8, Arc<[u8]>),
}

/// A request to the reading thread.
pub(super) enum ReadRequest {
    Pages(ReadId, Arc<BTreeSet<NodeId>>),
    Body(ReadId, NodeId, u8),
}

/// The thread that writes: one write at a time.
pub(super) struct Writer {
    me: NodeId,
    page: DirectFile,
    bodies: Vec<DirectFile>,
    block: AlignedBuffer,
    /// Sequence of the last write begun.
    last: Option<u64>,
    events: Sink,
}

impl Writer {
    pub(super) fn new(layout: &Layout, me: NodeId, events: Sink) -> Result<Self> {
        let body = |slot| Ok(DirectFile::new(layout.body(me, slot)?, Access::Write));
        Ok(Self {
            me,
            page: DirectFile::new(layout.page(me)?, Access::Write),
            bodies: (0..BODY_SLOTS).map(body).collect::<Result<_>>()?,
            block: AlignedBuffer::new(BLOCK),
            last: None,
            events,
        })
    }

    pub(super) fn run(mut self, queue: &mpsc::Receiver<WriteRequest>, gate: &Gate) {
        for request in queue {
            if !gate.pass() {
                return;
            }
            let (id, result) = match request {
                WriteRequest::Page(id, page) => (id, self.write_page(&page)),
                WriteRequest::Body(id, slot, bytes) => (id, self.write_body(slot, &bytes)),
            };
            if !gate.pass() {
                return;
            }
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
pub(super) struct Reader {
    layout: Layout,
    /// Whose pages were asked for last, and how they are read. A node may be added later.
    nodes: Arc<BTreeSet<NodeId>>,
    batches: Vec<BatchReader>,
    /// Of the nodes that were there when the store was opened, for people.
    names: BTreeMap<NodeId, String>,
    events: Sink,
}

impl Reader {
    pub(super) fn new(layout: &Layout, cluster: &ClusterFile, events: Sink) -> Self {
        let names = cluster.nodes.iter().map(|node| (node.id, node.name.clone())).collect();
        let (nodes, batches) = (Arc::default(), Vec::new());
        Self { layout: layout.clone(), nodes, batches, names, events }
    }

    pub(super) fn run(mut self, queue: &mpsc::Receiver<ReadRequest>, gate: &Gate) {
        for request in queue {
            if !gate.pass() {
                return;
            }
            let event = match request {
                ReadRequest::Pages(id, nodes) => {
                    Event::PagesRead { id, result: self.read_pages(nodes) }
                }
                ReadRequest::Body(id, node, slot) => {
                    let result = self.read_body(node, slot).map_err(told);
                    Event::BodyRead { id, result }
                }
            };
            if !gate.pass() {
                return;
            }
            (self.events)(event);
        }
    }

    /// Every slot that is asked for, or an error that names each that could not be read.
    fn read_pages(&mut self, nodes: Arc<BTreeSet<NodeId>>) -> Result<Pages, StorageError> {
        if self.nodes != nodes {
            let batches = self.layout.batches(&nodes).map_err(told)?;
            self.batches = batches.into_iter().map(BatchReader::new).collect();
            self.nodes = nodes;
        }
        let (mut pages, mut failures) = (Pages::new(), Vec::new());
        for batch in &mut self.batches {
            batch.read(&mut pages, &mut failures);
        }
        let words = |(node, error): (NodeId, String)| {
            let name = self.names.get(&node).map_or("a new node", String::as_str);
            format!("page of {name} ({node}): {error}")
        };
        if failures.is_empty() {
            return Ok(pages);
        }
        let failures: Vec<String> = failures.into_iter().map(words).collect();
        Err(StorageError(failures.join("; ")))
    }

    fn read_body(&self, node: NodeId, slot: u8) -> Result<Vec<u8>> {
        let extent = |first: &[u8]| format::body_extent(first).map_err(anyhow::Error::from);
        let area = self.layout.body(node, slot)?;
        let body = direct::read_fresh(&area, extent, FIRST_READ)
            .and_then(|blocks| Ok(format::decode_body(blocks.get(), node, slot)?));
        body.with_context(|| {
            format!("body {slot} of node {node} at byte {} of {}", area.start, area.path.display())
        })
    }
}

/// Pages that are read at once, kept open.
struct BatchReader {
    nodes: Vec<(NodeId, usize)>,
    file: DirectFile,
    blocks: AlignedBuffer,
}

impl BatchReader {
    fn new(Batch { area, nodes }: Batch) -> Self {
        let length = nodes.iter().map(|(_, offset)| offset + 2 * BLOCK).max().unwrap_or(0);
        let file = DirectFile::new(area, Access::Read);
        Self { nodes, file, blocks: AlignedBuffer::new(length) }
    }

    fn read(&mut self, pages: &mut Pages, failures: &mut Vec<(NodeId, String)>) {
        let read = self.file.read(0, self.blocks.get_mut());
        let mut fail =
            |node: &NodeId, error: &anyhow::Error| failures.push((*node, format!("{error:#}")));
        let got = match read {
            Ok(got) => got,
            Err(error) => return self.nodes.iter().for_each(|(node, _)| fail(node, &error)),
        };
        for (node, offset) in &self.nodes {
            let end = (offset + 2 * BLOCK).min(got);
            match decode(*node, &self.blocks.get()[(*offset).min(end)..end]) {
                Ok(page) => drop(pages.insert(*node, page)),
                Err(error) => fail(node, &error),
            }
        }
    }
}

fn decode(node: NodeId, blocks: &[u8]) -> Result<Option<Page>> {
    let (got, expected) = (blocks.len(), 2 * BLOCK);
    ensure!(got == expected, "{got} bytes, expected {expected}: restore it");
    format::decode_pages(blocks, node).context(
        "both blocks are unusable: if its agent runs it repairs them with its next write; \
         otherwise restore it",
    )
}

fn told(error: anyhow::Error) -> StorageError {
    StorageError(format!("{error:#}"))
}
