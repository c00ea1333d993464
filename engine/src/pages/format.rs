//! What blocks look like on disk: a header with a checksum, then JSON, then zeroes.
//!
//! Page block, 4096 bytes, little endian; a page file holds two, the newer valid one counts:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic `STEADPG1` |
//! | 8..10 | format |
//! | 10..12 | zero |
//! | 12..16 | length of the payload |
//! | 16..24 | sequence |
//! | 24..28 | node id |
//! | 28..32 | CRC-32 of the whole block with this field zero |
//!
//! Everything else is a record: the same header with another magic, and a CRC over header and payload. A body is one
//! with magic `STEADBD1` and its slot for a sequence.

use steadfast_core::ids::NodeId;
use steadfast_core::page::Page;

/// Unit of reads and writes, of alignment and of atomic hopes, in bytes.
pub const BLOCK: usize = Page::MAX_BYTES;

/// Largest body in bytes: a cluster's ledger is some hundred kilobytes.
pub const MAX_BODY: usize = 64 << 20;

/// Size of the header in bytes.
pub const HEADER: usize = 32;

const PAGE_MAGIC: &[u8; 8] = b"STEADPG1";
const BODY_MAGIC: &[u8; 8] = b"STEADBD1";
const FORMAT: u16 = 1;
const CRC_FIELD: std::ops::Range<usize> = 28..32;

/// Why a block or body is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Nothing was ever written.
    #[error("nothing was written yet")]
    Empty,
    /// No magic.
    #[error("not a block of ours (bad magic)")]
    Magic,
    /// Written by a newer agent.
    #[error("format {0}, known is {FORMAT}: upgrade this node")]
    Format(u16),
    /// Length beyond the limit.
    #[error("length {0} does not fit")]
    Length(u64),
    /// Torn or corrupted.
    #[error("torn or corrupted: checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Computed.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// A file of another node.
    #[error("belongs to node {found}, expected {expected}")]
    Node {
        /// As written.
        found: NodeId,
        /// Whose file it is.
        expected: NodeId,
    },
    /// Checksum good, content not.
    #[error("content not understood: {0}")]
    Content(String),
}

struct Header {
    magic: [u8; 8],
    length: u32,
    sequence: u64,
    node: NodeId,
    crc: u32,
}

impl Header {
    fn write(&self, block: &mut [u8]) {
        block[0..8].copy_from_slice(&self.magic);
        block[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        block[10..12].fill(0);
        block[12..16].copy_from_slice(&self.length.to_le_bytes());
        block[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        block[24..28].copy_from_slice(&self.node.0.to_le_bytes());
        block[CRC_FIELD].copy_from_slice(&self.crc.to_le_bytes());
    }

    /// Magic is checked here; the format only after the checksum, so that a torn block is not called new.
    fn read(block: &[u8], magic: &[u8; 8]) -> Result<Self, Damage> {
        if &block[0..8] != magic {
            return Err(if is_zero(&block[..HEADER]) { Damage::Empty } else { Damage::Magic });
        }
        let word = |at: usize| u32::from_le_bytes(array(block, at));
        let (length, node, crc) = (word(12), NodeId(word(24)), word(CRC_FIELD.start));
        Ok(Self {
            magic: *magic,
            length,
            sequence: u64::from_le_bytes(array(block, 16)),
            node,
            crc,
        })
    }

    fn check(&self, bytes: &[u8], node: NodeId) -> Result<(), Damage> {
        let found = checksum(bytes);
        if found != self.crc {
            return Err(Damage::Checksum { found, expected: self.crc });
        }
        let format = u16::from_le_bytes(array(bytes, 8));
        if format > FORMAT {
            return Err(Damage::Format(format));
        }
        if self.node != node {
            return Err(Damage::Node { found: self.node, expected: node });
        }
        Ok(())
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// CRC-32 with the checksum's own field taken as zero.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_FIELD.start]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[CRC_FIELD.end..]);
    hasher.finalize()
}

/// Where in its file a page of this sequence goes: never over the newest one.
#[must_use]
pub fn page_offset(sequence: u64) -> u64 {
    (sequence % 2) * BLOCK as u64
}

/// Encodes a page of `node` into one block.
///
/// # Errors
/// The page is larger than a block.
pub fn encode_page(page: &Page, node: NodeId, block: &mut [u8]) -> Result<(), Damage> {
    let payload = serde_json::to_vec(page).map_err(|error| Damage::Content(error.to_string()))?;
    if payload.len() > BLOCK - HEADER {
        return Err(Damage::Length(payload.len() as u64));
    }
    block.fill(0);
    block[HEADER..HEADER + payload.len()].copy_from_slice(&payload);
    seal(block, PAGE_MAGIC, payload.len(), page.sequence, node, BLOCK);
    Ok(())
}

/// Encodes a body of `node`; `blocks` is at least [`body_size`] long.
///
/// # Errors
/// The body is larger than [`MAX_BODY`].
pub fn encode_body(body: &[u8], node: NodeId, slot: u8, blocks: &mut [u8]) -> Result<(), Damage> {
    if body.len() > MAX_BODY {
        return Err(Damage::Length(body.len() as u64));
    }
    encode_record(BODY_MAGIC, body, slot.into(), node, blocks)
}

/// Encodes a record; `blocks` is at least [`body_size`] of the payload long.
///
/// # Errors
/// The payload is larger than that.
pub fn encode_record(
    magic: &[u8; 8],
    payload: &[u8],
    sequence: u64,
    node: NodeId,
    blocks: &mut [u8],
) -> Result<(), Damage> {
    if HEADER + payload.len() > blocks.len() {
        return Err(Damage::Length(payload.len() as u64));
    }
    blocks.fill(0);
    blocks[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    seal(blocks, magic, payload.len(), sequence, node, HEADER + payload.len());
    Ok(())
}

/// Decodes a record of `node` at the begin of `blocks`: its sequence and its payload.
///
/// # Errors
/// Nothing was written, it is torn, or of another kind or node.
pub fn decode_record<'a>(
    magic: &[u8; 8],
    blocks: &'a [u8],
    node: NodeId,
) -> Result<(u64, &'a [u8]), Damage> {
    let header = Header::read(blocks, magic)?;
    let extent = HEADER + header.length as usize;
    let bytes = blocks.get(..extent).ok_or(Damage::Length(header.length.into()))?;
    header.check(bytes, node)?;
    Ok((header.sequence, &bytes[HEADER..]))
}

/// Decodes the newer of two copies of a record that are written in turn; `None`: no write was ever completed.
///
/// # Errors
/// Neither copy is good and both were written, or a valid checksum holds what is not ours to read.
pub fn decode_twin<'a>(
    magic: &[u8; 8],
    copies: &'a [u8],
    node: NodeId,
) -> Result<Option<(u64, &'a [u8])>, Damage> {
    let (first, second) = copies.split_at(copies.len() / 2);
    match (decode_record(magic, first, node), decode_record(magic, second, node)) {
        (Ok(a), Ok(b)) => Ok(Some(if a.0 > b.0 { a } else { b })),
        (Err(damage), _) | (_, Err(damage)) if !may_be_torn(&damage) => Err(damage),
        (Ok(good), Err(_)) | (Err(_), Ok(good)) => Ok(Some(good)),
        (Err(Damage::Empty), Err(_)) | (Err(_), Err(Damage::Empty)) => Ok(None),
        (Err(damage), Err(_)) => Err(damage),
    }
}

fn seal(
    block: &mut [u8],
    magic: &[u8; 8],
    length: usize,
    sequence: u64,
    node: NodeId,
    covered: usize,
) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let mut header = Header { magic: *magic, length, sequence, node, crc: 0 };
    header.write(block);
    header.crc = checksum(&block[..covered]);
    header.write(block);
}

/// Size on disk of a body of `length` bytes, in whole blocks.
#[must_use]
pub fn body_size(length: usize) -> usize {
    (HEADER + length).next_multiple_of(BLOCK)
}

/// Decodes a page file: both blocks of `node`'s page. `None`: no write was ever completed.
///
/// A block that is being written, or was when its writer died, is invalid; the other one then counts. The
/// first write of all finds an empty other block: a torn one leaves nothing, as if it had not begun.
///
/// # Errors
/// Neither block is valid and both were written, or a valid checksum holds what is not ours to read.
pub fn decode_pages(blocks: &[u8], node: NodeId) -> Result<Option<Page>, Damage> {
    let (first, second) = blocks.split_at(BLOCK);
    match (decode_page(first, node), decode_page(second, node)) {
        (Ok(a), Ok(b)) => Ok(Some(if a.sequence > b.sequence { a } else { b })),
        (Err(damage), _) | (_, Err(damage)) if !may_be_torn(&damage) => Err(damage),
        (Ok(page), Err(_)) | (Err(_), Ok(page)) => Ok(Some(page)),
        (Err(Damage::Empty), Err(_)) | (Err(_), Err(Damage::Empty)) => Ok(None),
        (Err(damage), Err(_)) => Err(damage),
    }
}

/// Damage that a write that did not finish can leave.
fn may_be_torn(damage: &Damage) -> bool {
    matches!(damage, Damage::Empty | Damage::Magic | Damage::Length(_) | Damage::Checksum { .. })
}

fn decode_page(block: &[u8], node: NodeId) -> Result<Page, Damage> {
    if is_zero(block) {
        return Err(Damage::Empty);
    }
    let header = match Header::read(block, PAGE_MAGIC) {
        // Zeroes where the header should be and something behind: torn.
        Err(Damage::Empty) => return Err(Damage::Magic),
        other => other?,
    };
    let length = header.length as usize;
    if length > BLOCK - HEADER {
        return Err(Damage::Length(length as u64));
    }
    header.check(block, node)?;
    let content = |text: String| Damage::Content(text);
    let page: Page = serde_json::from_slice(&block[HEADER..HEADER + length])
        .map_err(|error| content(error.to_string()))?;
    if page.sequence != header.sequence {
        let (inner, outer) = (page.sequence, header.sequence);
        return Err(content(format!("sequence {inner} in a block of sequence {outer}")));
    }
    Ok(page)
}

/// Length in bytes of the body whose first block this is, header included.
///
/// # Errors
/// It is none, or its length is beyond the limit.
pub fn body_extent(first: &[u8]) -> Result<usize, Damage> {
    let length = Header::read(first, BODY_MAGIC)?.length as usize;
    if length > MAX_BODY {
        return Err(Damage::Length(length as u64));
    }
    Ok(HEADER + length)
}

/// Decodes a body; `bytes` begins with its header and holds at least [`body_extent`] bytes.
///
/// # Errors
/// It is torn, or of another node or slot.
pub fn decode_body(bytes: &[u8], node: NodeId, slot: u8) -> Result<Vec<u8>, Damage> {
    let (found, body) = decode_record(BODY_MAGIC, bytes, node)?;
    if found != u64::from(slot) {
        return Err(Damage::Content(format!("body of slot {found} in the place of slot {slot}")));
    }
    Ok(body.to_vec())
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
