//! The catalogue on a device: blobs of domain XML by content, in areas of one writer each.
//!
//! A node puts blobs into its own area only, and names them in its own index: 32 bytes a blob, zeroes where it is
//! free; two copies, written in turn. Readers look through the indices of all. A blob is written before the index that
//! names it. One that no ledger names any more keeps its place until its node needs it.

use super::super::cluster::ClusterFile;
use super::super::direct::{self, Access, AlignedBuffer, DirectFile};
use super::super::format::{self, BLOCK};
use super::{BODY_SLOTS, INDEX_COPY, Layout};
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use steadfast_core::ids::{Digest, NodeId};
use steadfast_core::ledger::{LEDGER_FORMAT, Ledger};

const INDEX_MAGIC: &[u8; 8] = b"STEADIX1";
const BLOB_MAGIC: &[u8; 8] = b"STEADCT1";
const ENTRY: usize = 32;
const FREE: Digest = Digest([0; 32]);

/// A blob put this recently may be named by a change that no ledger on disk shows yet. So may one of an earlier
/// incarnation, until this incarnation is as old.
const IN_FLIGHT: Duration = Duration::from_secs(120);

/// The catalogue as one node uses it. Everything here blocks as long as the device does: for worker threads.
#[derive(Debug)]
pub struct Catalogue {
    layout: Layout,
    me: NodeId,
    /// Whose indices are looked through first.
    nodes: Vec<NodeId>,
    opened: Instant,
    /// Where blobs were seen. A blob that is not there any more is looked for again.
    known: Mutex<BTreeMap<Digest, (NodeId, u64)>>,
    /// One writer at a time; when each blob was put by this incarnation.
    put: Mutex<BTreeMap<Digest, Instant>>,
}

/// One node's index.
struct Index {
    sequence: u64,
    blobs: Vec<Digest>,
}

impl Catalogue {
    /// Of an open device.
    #[must_use]
    pub fn new(layout: Layout, me: NodeId, cluster: &ClusterFile) -> Self {
        let others = cluster.nodes.iter().map(|node| node.id).filter(|id| *id != me);
        let nodes = std::iter::once(me).chain(others).collect();
        let (known, put) = (Mutex::default(), Mutex::default());
        Self { layout, me, nodes, opened: Instant::now(), known, put }
    }

    /// Puts `xml` into the own area, if it is not there. A copy in another area does not count: its node may give its
    /// place away.
    ///
    /// # Errors
    /// It is too long, the area is full, or the device fails.
    pub fn put(&self, xml: &str) -> Result<Digest> {
        let digest = Digest::of(xml.as_bytes());
        let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.read_index(self.me)?;
        let there = index.blobs.iter().position(|blob| *blob == digest);
        let is_good = |number: &usize| self.read_blob(self.me, *number as u64, digest).is_ok();
        if there.as_ref().is_none_or(|number| !is_good(number)) {
            let number = match there.or_else(|| index.free()) {
                Some(number) => number,
                None => self.give_away(&mut index, &put)?,
            };
            self.write_blob(number as u64, xml)?;
            index.blobs[number] = digest;
            self.write_index(&index)?;
        }
        put.insert(digest, Instant::now());
        Ok(digest)
    }

    /// Gets what was put under `digest`, by whichever node.
    ///
    /// # Errors
    /// It is not there, or the device fails.
    pub fn get(&self, digest: Digest) -> Result<String> {
        if let Some((node, number)) = self.known().get(&digest).copied()
            && let Ok(xml) = self.read_blob(node, number, digest)
        {
            return Ok(xml);
        }
        let mut trouble = None;
        let rest = self.layout.nodes().filter(|node| !self.nodes.contains(node));
        for node in self.nodes.iter().copied().chain(rest) {
            match self.find(node, digest) {
                Ok(Some(xml)) => return Ok(xml),
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
        }
        let device = self.layout.device.display();
        let missing = || anyhow!("{digest} is not in the catalogue on {device}");
        Err(trouble.unwrap_or_else(missing)).context("enable its VM again")
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, (NodeId, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, node: NodeId, digest: Digest) -> Result<Option<String>> {
        let index = self.read_index(node)?;
        let named = index.blobs.iter().zip(0_u64..).filter(|(blob, _)| **blob != FREE);
        self.known().extend(named.map(|(blob, number)| (*blob, (node, number))));
        match index.blobs.iter().position(|blob| *blob == digest) {
            Some(number) => self.read_blob(node, number as u64, digest).map(Some),
            None => Ok(None),
        }
    }

    fn read_index(&self, node: NodeId) -> Result<Index> {
        let mut copies = AlignedBuffer::new(2 * INDEX_COPY);
        let mut file = DirectFile::new(self.layout.index(node)?, Access::Read);
        file.read(0, copies.get_mut())?;
        let found = format::decode_twin(INDEX_MAGIC, copies.get(), node);
        let found = found.with_context(|| format!("catalogue index of node {node}"))?;
        let (sequence, entries) = found.unwrap_or((0, &[]));
        let mut blobs = vec![FREE; usize::try_from(self.layout.geometry.blobs)?];
        for (blob, entry) in blobs.iter_mut().zip(entries.chunks_exact(ENTRY)) {
            blob.0.copy_from_slice(entry);
        }
        Ok(Index { sequence, blobs })
    }

    /// Over the older copy.
    fn write_index(&self, index: &Index) -> Result<()> {
        let sequence = index.sequence + 1;
        let entries: Vec<u8> = index.blobs.iter().flat_map(|blob| blob.0).collect();
        let mut copy = AlignedBuffer::new(INDEX_COPY);
        format::encode_record(INDEX_MAGIC, &entries, sequence, self.me, copy.get_mut())?;
        let mut file = DirectFile::new(self.layout.index(self.me)?, Access::Write);
        file.write(sequence % 2 * INDEX_COPY as u64, copy.get())
    }

    fn read_blob(&self, node: NodeId, number: u64, digest: Digest) -> Result<String> {
        let area = self.layout.blob(node, number)?;
        let mut blob = AlignedBuffer::new(usize::try_from(area.room)?);
        DirectFile::new(area, Access::Read).read(0, blob.get_mut())?;
        let what = || format!("blob {number} of node {node} in the catalogue");
        let (_, bytes) = format::decode_record(BLOB_MAGIC, blob.get(), node).with_context(what)?;
        let found = Digest::of(bytes);
        ensure!(found == digest, "{} is damaged: its digest is {found}", what());
        String::from_utf8(bytes.to_vec()).with_context(what)
    }

    fn write_blob(&self, number: u64, xml: &str) -> Result<()> {
        let area = self.layout.blob(self.me, number)?;
        let (length, room) = (xml.len(), usize::try_from(area.room)? - format::HEADER);
        ensure!(
            length <= room,
            "a domain XML of {length} bytes does not fit, {} takes up to {room}: shorten its <metadata>",
            self.layout.device.display()
        );
        let mut blob = AlignedBuffer::new(format::body_size(length));
        format::encode_record(BLOB_MAGIC, xml.as_bytes(), number, self.me, blob.get_mut())?;
        DirectFile::new(area, Access::Write).write(0, blob.get())
    }

    /// The area is full: frees every own blob that no ledger names, and gives the place of one of them.
    fn give_away(&self, index: &mut Index, put: &BTreeMap<Digest, Instant>) -> Result<usize> {
        let (all, device) = (index.blobs.len(), self.layout.device.display());
        ensure!(
            self.opened.elapsed() >= IN_FLIGHT,
            "all {all} places of this node in the catalogue on {device} are taken, and unused ones are not told \
             within {} s of the agent's start: try again later, or enable the VM on another node",
            IN_FLIGHT.as_secs()
        );
        let mut used = self.used()?;
        used.extend(put.iter().filter(|(_, at)| at.elapsed() < IN_FLIGHT).map(|(blob, _)| *blob));
        for blob in index.blobs.iter_mut().filter(|blob| !used.contains(blob)) {
            *blob = FREE;
        }
        let number = index.free().with_context(|| {
            format!(
                "all {all} places of this node in the catalogue on {device} are in use: enable the VM on another \
                 node, or move the cluster to a larger device"
            )
        })?;
        // Before the first of them is written over. The place of the older copy changes with the sequence.
        self.write_index(index)?;
        index.sequence += 1;
        Ok(number)
    }

    /// What any ledger on the device names: of every node the body that its page names, and the one before it, which a
    /// new leader may have adopted in the meantime.
    fn used(&self) -> Result<BTreeSet<Digest>> {
        let mut used = BTreeSet::new();
        for node in self.layout.nodes() {
            for which in 0..BODY_SLOTS {
                if let Some(ledger) = self.ledger(node, which)? {
                    used.extend(ledger.vms.values().map(|entry| entry.spec.xml));
                }
            }
        }
        Ok(used)
    }

    fn ledger(&self, node: NodeId, which: u8) -> Result<Option<Ledger>> {
        let what = || format!("the ledger of node {node} in slot {which} cannot be read now");
        let bytes = match self.body(node, which)? {
            Ok(bytes) => bytes,
            Err(format::Damage::Empty) => return Ok(None),
            // It is being written, or its writer died meanwhile: nobody knows it yet.
            Err(_) if self.named_slot(node)? != Some(which) => return Ok(None),
            Err(damage) => return Err(damage).with_context(what),
        };
        let ledger: Ledger = serde_json::from_slice(&bytes).with_context(what)?;
        ensure!(ledger.format <= LEDGER_FORMAT, "{}: it is of a newer format", what());
        Ok(Some(ledger))
    }

    fn body(&self, node: NodeId, which: u8) -> Result<Result<Vec<u8>, format::Damage>> {
        let area = self.layout.body(node, which)?;
        let extent = |first: &[u8]| Ok(format::body_extent(first).unwrap_or(0));
        let blocks = direct::read_fresh(&area, extent, BLOCK)?;
        Ok(format::decode_body(blocks.get(), node, which))
    }

    /// The slot that a node's page names.
    fn named_slot(&self, node: NodeId) -> Result<Option<u8>> {
        let mut blocks = AlignedBuffer::new(2 * BLOCK);
        DirectFile::new(self.layout.page(node)?, Access::Read).read(0, blocks.get_mut())?;
        Ok(format::decode_pages(blocks.get(), node)?.map(|page| page.slot))
    }
}

impl Index {
    fn free(&self) -> Option<usize> {
        self.blobs.iter().position(|blob| *blob == FREE)
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
