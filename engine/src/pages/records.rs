//! The last decisions of every node on shared storage: what a dead node recorded can be read by the others.
//!
//! Each node has a stretch of its own and goes round in it. A record is a batch of JSON lines behind a header with a sequence and a
//! checksum (`format.rs`), begins at a block, and is found again by looking at every block. Nothing of the protocol rests on it: what
//! is torn, or written over, is not there.

use super::backend::Layout;
use super::direct::{Access, AlignedBuffer, DirectFile};
use super::format::{self, BLOCK};
use anyhow::{Context, Result, ensure};
use steadfast_core::ids::NodeId;

/// Bytes that a node has for its records.
pub const RECORDS_BYTES: usize = 1 << 20;
/// Largest record in bytes, so that at least four are kept.
pub const MAX_RECORD: usize = RECORDS_BYTES / 4 - format::HEADER;

const MAGIC: &[u8; 8] = b"STEADDR1";

/// Appends this node's records. Everything blocks: for a thread of its own.
#[derive(Debug)]
pub struct RecordWriter {
    me: NodeId,
    file: DirectFile,
    /// Sequence of the next record, and where it goes, in bytes.
    next: (u64, usize),
}

impl RecordWriter {
    /// Goes on behind the newest record that is there.
    pub(super) fn open(layout: &Layout, me: NodeId) -> Result<Self> {
        let newest = read(layout, me)?.into_iter().max_by_key(|record| record.sequence);
        let next = newest.map_or((1, 0), |record| (record.sequence + 1, record.end));
        Ok(Self { me, file: DirectFile::new(layout.records(me)?, Access::Write), next })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// It is larger than [`MAX_RECORD`], or storage fails.
    pub fn append(&mut self, lines: &[u8]) -> Result<()> {
        let length = lines.len();
        ensure!(length <= MAX_RECORD, "a record of {length} bytes, at most {MAX_RECORD} fit");
        let (sequence, at) = self.next;
        let mut blocks = AlignedBuffer::new(format::body_size(length));
        let size = blocks.get().len();
        let at = if at + size > RECORDS_BYTES { 0 } else { at };
        format::encode_record(MAGIC, lines, sequence, self.me, blocks.get_mut())?;
        self.file.write(at as u64, blocks.get())?;
        self.next = (sequence + 1, at + size);
        Ok(())
    }
}

struct Found {
    sequence: u64,
    /// Behind its last block, in bytes.
    end: usize,
    lines: Vec<u8>,
}

/// The records of `node`, oldest first, each a batch of JSON lines. Blocks.
pub(super) fn lines(layout: &Layout, node: NodeId) -> Result<Vec<Vec<u8>>> {
    let mut found = read(layout, node)?;
    found.sort_by_key(|record| record.sequence);
    Ok(found.into_iter().map(|record| record.lines).collect())
}

fn read(layout: &Layout, node: NodeId) -> Result<Vec<Found>> {
    let area = layout.records(node)?;
    let mut blocks = AlignedBuffer::new(RECORDS_BYTES);
    let got = DirectFile::new(area, Access::Read).read(0, blocks.get_mut());
    let got = got.with_context(|| format!("cannot read the decisions of node {node}"))?;
    Ok(scan(&blocks.get()[..got], node))
}

fn scan(blocks: &[u8], node: NodeId) -> Vec<Found> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(rest) = blocks.get(at..).filter(|rest| rest.len() >= BLOCK) {
        at += match format::decode_record(MAGIC, rest, node) {
            Ok((sequence, lines)) => {
                let size = format::body_size(lines.len());
                found.push(Found { sequence, end: at + size, lines: lines.to_vec() });
                size
            }
            Err(_) => BLOCK,
        };
    }
    found
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
