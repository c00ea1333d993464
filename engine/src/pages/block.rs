//! The store on a raw shared block device: a LUN that every node sees, without a file system.
//!
//! | bytes | what | written by |
//! |---|---|---|
//! | 0 | header, two copies of 64 KiB: cluster, nodes, geometry | `storage init` |
//! | 1 MiB | pages, 8 KiB a node: two blocks in turn | that node |
//! | 2 MiB | catalogue indices, 128 KiB a node: two copies in turn | that node |
//! | 16 MiB | the ledger's bodies, two slots a node | that node |
//! | then | the last decisions, 1 MiB a node | that node |
//! | then | catalogue blobs, domain XML by content, 64 KiB each | that node |
//!
//! A node's slot is its corosync node id, so ids from 1 to 64 can be used. Every stretch has one writer; what may be
//! torn lies there twice. A body slot of 16 MiB holds the ledger of more than 15,000 VMs. The catalogue takes what the
//! device has left: 256 blobs a node for each GiB beyond 2 GiB.

use super::cluster::{ClusterFile, FORMAT};
use super::direct::{Access, AlignedBuffer, Area, DirectFile};
use super::format::{self, BLOCK, Damage};
use super::records::RECORDS_BYTES;
use super::{BODY_SLOTS, page_size};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steadfast_core::ids::NodeId;

pub mod catalogue;
mod foreign;
mod init;

pub use init::{add_node, init};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const HEADER_MAGIC: &[u8; 8] = b"STEADHD1";
/// Two of them, at the begin.
const HEADER_COPY: usize = 64 << 10;
const PAGES_AT: u64 = MIB;
const INDICES_AT: u64 = 2 * MIB;
/// Two of them a node.
const INDEX_COPY: usize = 64 << 10;
const BODIES_AT: u64 = 16 * MIB;
/// The header is nobody's.
const NOBODY: NodeId = NodeId(0);

/// Largest number of slots, thus largest node id.
pub const MAX_SLOTS: u32 = 64;
/// Blobs of a node that its index can name.
const MAX_BLOBS: u64 = 2_000;
/// Fewer are not worth a store.
const MIN_BLOBS: u64 = 64;

/// How large the parts are. Where they lie follows from it and the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Unit of reads and writes in bytes.
    block: u64,
    /// Node slots: ids from 1 to this.
    slots: u32,
    /// Size of a body slot in bytes.
    body: u64,
    /// Bytes a node for its records; 0 on stores of versions that kept none.
    #[serde(default)]
    records: u64,
    /// Size of a catalogue blob in bytes, its header included.
    blob: u64,
    /// Catalogue blobs a node.
    blobs: u64,
}

impl Geometry {
    const LARGEST: Self = Self {
        block: BLOCK as u64,
        slots: MAX_SLOTS,
        body: 16 * MIB,
        records: RECORDS_BYTES as u64,
        blob: 64 * KIB,
        blobs: MAX_BLOBS,
    };

    /// The largest that fits.
    fn for_size(device: &Path, size: u64) -> Result<Self> {
        let least = Self { blobs: MIN_BLOBS, ..Self::LARGEST };
        ensure!(
            size >= least.end(),
            "{} is too small: it has {}, a store needs at least {}",
            device.display(),
            mebibytes(size),
            mebibytes(least.end())
        );
        let a_blob_each = u64::from(MAX_SLOTS) * least.blob;
        let more = (size - least.end()) / a_blob_each;
        Ok(Self { blobs: (MIN_BLOBS + more).min(MAX_BLOBS), ..least })
    }

    /// What this engine can work with.
    fn check(&self, device: &Path, size: u64) -> Result<()> {
        let device = device.display();
        let block = BLOCK as u64;
        let index = format::body_size(usize::try_from(self.blobs)?.saturating_mul(32));
        ensure!(
            self.block == block
                && (1..=MAX_SLOTS).contains(&self.slots)
                && self.body.is_multiple_of(block)
                && (block..=2 * format::MAX_BODY as u64).contains(&self.body)
                && [0, RECORDS_BYTES as u64].contains(&self.records)
                && self.blob.is_multiple_of(block)
                && (block..=16 * MIB).contains(&self.blob)
                && self.blobs > 0
                && index <= INDEX_COPY,
            "{device} has a geometry that this version cannot use ({self:?}): upgrade this node"
        );
        ensure!(
            self.end() <= size,
            "{device} has {}, but the store on it was made for {}: was the device shrunk, or is this only a part \
             of it? Give it its size back, or restore the store on another device",
            mebibytes(size),
            mebibytes(self.end())
        );
        Ok(())
    }

    fn page(&self, node: NodeId) -> u64 {
        PAGES_AT + slot(node) * page_size()
    }

    fn index(&self, node: NodeId) -> u64 {
        INDICES_AT + slot(node) * 2 * INDEX_COPY as u64
    }

    fn body(&self, node: NodeId, which: u8) -> u64 {
        BODIES_AT + (slot(node) * u64::from(BODY_SLOTS) + u64::from(which)) * self.body
    }

    fn records_at(&self) -> u64 {
        BODIES_AT + u64::from(self.slots) * u64::from(BODY_SLOTS) * self.body
    }

    fn records(&self, node: NodeId) -> u64 {
        self.records_at() + slot(node) * self.records
    }

    fn blobs_at(&self) -> u64 {
        self.records_at() + u64::from(self.slots) * self.records
    }

    fn blob(&self, node: NodeId, number: u64) -> u64 {
        self.blobs_at() + (slot(node) * self.blobs + number) * self.blob
    }

    /// Bytes of the device that the store uses.
    fn end(&self) -> u64 {
        self.blobs_at() + u64::from(self.slots) * self.blobs * self.blob
    }
}

/// Slots count from 0, node ids from 1; callers have checked that it has one.
fn slot(node: NodeId) -> u64 {
    u64::from(node.0.saturating_sub(1))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB ({bytes} bytes)", bytes / MIB)
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    #[serde(flatten)]
    cluster: ClusterFile,
    /// Tells this store from any other one of the same name.
    id: String,
    geometry: Geometry,
}

/// Where everything lies on an open device.
#[derive(Debug, Clone)]
pub struct Layout {
    device: PathBuf,
    geometry: Geometry,
    /// Held while the store is open: nothing on this node can mount, format or partition the device meanwhile.
    _claim: Option<Arc<File>>,
}

impl Layout {
    /// A node's page.
    ///
    /// # Errors
    /// Its id has no slot.
    pub fn page(&self, node: NodeId) -> Result<Area> {
        self.area(node, Geometry::page, page_size())
    }

    /// A node's body in this slot.
    ///
    /// # Errors
    /// Its id has no slot.
    pub fn body(&self, node: NodeId, which: u8) -> Result<Area> {
        self.area(node, |geometry, node| geometry.body(node, which), self.geometry.body)
    }

    /// A node's records.
    ///
    /// # Errors
    /// Its id has no slot.
    pub fn records(&self, node: NodeId) -> Result<Area> {
        self.area(node, Geometry::records, self.geometry.records)
    }

    fn index(&self, node: NodeId) -> Result<Area> {
        self.area(node, Geometry::index, 2 * INDEX_COPY as u64)
    }

    fn blob(&self, node: NodeId, number: u64) -> Result<Area> {
        self.area(node, |geometry, node| geometry.blob(node, number), self.geometry.blob)
    }

    fn area(
        &self,
        node: NodeId,
        start: impl Fn(&Geometry, NodeId) -> u64,
        room: u64,
    ) -> Result<Area> {
        let slots = self.geometry.slots;
        ensure!(
            (1..=slots).contains(&node.0),
            "node {node} has no slot on {}: ids from 1 to {slots} have one; give it such a nodeid in corosync.conf",
            self.device.display()
        );
        Ok(Area { path: self.device.clone(), start: start(&self.geometry, node), room })
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.geometry.slots).map(NodeId)
    }
}

/// Opens the store on `device`. Blocks as long as the device does.
///
/// # Errors
/// It is no block device, used by something else on this node, holds no store or a foreign one, or does not fit its
/// geometry.
pub fn open(device: &Path) -> Result<(Layout, ClusterFile)> {
    let claim = claim(device)?;
    let (layout, cluster) = open_unclaimed(device)?;
    Ok((Layout { _claim: Some(Arc::new(claim)), ..layout }, cluster))
}

/// Also of a plain file.
fn open_unclaimed(device: &Path) -> Result<(Layout, ClusterFile)> {
    let Header { cluster, geometry, .. } = match read_header(device)? {
        Some((_, header)) => header,
        None => bail!(
            "no store on {}{}: run `steadfast storage init {}`, or name another device",
            device.display(),
            foreign::identify(device)?.map_or(String::new(), |what| format!(", but {what}")),
            device.display()
        ),
    };
    geometry.check(device, size_of(device)?)?;
    Ok((Layout { device: device.to_owned(), geometry, _claim: None }, cluster))
}

/// Opens the device for this store alone, as far as this node goes.
fn claim(device: &Path) -> Result<File> {
    let name = device.display();
    let found = std::fs::metadata(device).with_context(|| {
        format!("cannot find {name}: is the array connected? see `lsblk` and `multipath -ll`")
    })?;
    ensure!(
        found.file_type().is_block_device(),
        "{name} is not a block device; a directory is named by [storage] directory, or --directory"
    );
    let exclusive = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device);
    exclusive.map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => anyhow::anyhow!(
            "{name} is in use on this node: it is mounted, part of LVM, RAID or a multipath device (then name that: \
             /dev/mapper/...), or an agent has it open; see `lsblk {name}`"
        ),
        _ => anyhow::Error::new(error).context(format!("cannot open {name}")),
    })
}

fn size_of(device: &Path) -> Result<u64> {
    let size = File::open(device).and_then(|mut file| file.seek(SeekFrom::End(0)));
    size.with_context(|| format!("cannot tell the size of {}", device.display()))
}

/// The header, and which write of it that was; `None`: there is none of ours.
fn read_header(device: &Path) -> Result<Option<(u64, Header)>> {
    let mut copies = AlignedBuffer::new(2 * HEADER_COPY);
    let mut file = DirectFile::new(Area::file(device.to_owned()), Access::Read);
    if file.read(0, copies.get_mut())? < 2 * HEADER_COPY {
        return Ok(None);
    }
    let name = device.display();
    let (sequence, json) = match format::decode_twin(HEADER_MAGIC, copies.get(), NOBODY) {
        Ok(Some(found)) => found,
        Ok(None) | Err(Damage::Magic) => return Ok(None),
        Err(damage) => {
            return Err(damage).with_context(|| format!("the header of {name} is no good"));
        }
    };
    // The format first: a newer header may have other fields.
    let cluster: ClusterFile = serde_json::from_slice(json)
        .with_context(|| format!("the header of {name} is not understood"))?;
    let found = cluster.format;
    ensure!(found <= FORMAT, "{name} has format {found}, known is {FORMAT}: upgrade this node");
    let header = serde_json::from_slice(json);
    let header = header.with_context(|| format!("the header of {name} is not understood"))?;
    Ok(Some((sequence, header)))
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
