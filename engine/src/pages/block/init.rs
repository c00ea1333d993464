//! `steadfast storage init DEVICE`.

use super::super::cluster::{ClusterFile, StoredNode};
use super::super::direct::{Access, AlignedBuffer, Area, DirectFile};
use super::super::format::{self, BLOCK};
use super::{
    BODIES_AT, BODY_SLOTS, Geometry, HEADER_COPY, HEADER_MAGIC, Header, INDEX_COPY, INDICES_AT,
    Layout, MAX_SLOTS, NOBODY, PAGES_AT, claim, foreign, page_size, read_header, size_of,
};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::Duration;
use steadfast_core::ids::NodeId;
use steadfast_core::page::Page;

/// Zeroes are written in pieces of this many bytes.
const PIECE: usize = 1 << 20;
/// A store whose pages change within this is in use: longer than three beats of the slowest preset.
const LIVE_WATCH: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 4_000 });

/// Formats a store on `device`. Does nothing if the same store is already there. Blocks: for the command line.
///
/// A device that holds anything else is left alone, unless `force` names it once more, and even then if agents use it.
///
/// # Errors
/// It is no block device, in use, too small, holds something else; a node is named twice or badly; storage fails.
pub fn init(device: &Path, wanted: &ClusterFile, force: Option<&Path>) -> Result<()> {
    let _claim = claim(device)?;
    format(device, wanted, force)
}

/// Also of a plain file.
pub(super) fn format(device: &Path, wanted: &ClusterFile, force: Option<&Path>) -> Result<()> {
    check_ids(&wanted.nodes)?;
    let geometry = Geometry::for_size(device, size_of(device)?)?;
    let header = read_header(device);
    if let Ok(Some((_, found))) = &header
        && found.cluster.is_same(wanted)
    {
        return found.geometry.check(device, size_of(device)?);
    }
    must_be_free(device, &header, wanted, force)?;
    write(device, &Header { cluster: wanted.clone(), id: new_id()?, geometry })
}

fn check_ids(nodes: &[StoredNode]) -> Result<()> {
    let beyond = nodes.iter().find(|node| node.id.0 > MAX_SLOTS);
    let Some(StoredNode { id, name }) = beyond else { return Ok(()) };
    bail!(
        "node {name} has id {id}, a device has slots for ids from 1 to {MAX_SLOTS}: give it such a nodeid in \
         corosync.conf"
    )
}

/// It is empty, or the operator says its name twice and nobody uses it.
fn must_be_free(
    device: &Path,
    header: &Result<Option<(u64, Header)>>,
    wanted: &ClusterFile,
    force: Option<&Path>,
) -> Result<()> {
    let found = match header {
        Ok(Some((_, header))) => Some(format!("it holds {}", header.cluster.words())),
        _ => foreign::identify(device)?.or_else(|| foreign::probe(device)),
    };
    let name = device.display();
    let Some(found) = found else { return Ok(()) };
    match force {
        None => bail!(
            "{name} is not empty: {found}. Asked for was {}. Name another device; or, if all that may be lost, say \
             so by its name: --force {name}",
            wanted.words()
        ),
        Some(named) if named != device => {
            bail!("--force names {}, the device is {name}: nothing was written", named.display())
        }
        Some(_) => match header {
            Ok(Some((_, header))) => must_be_quiet(device, header),
            _ => Ok(()),
        },
    }
}

/// No agent writes to the store that is there.
fn must_be_quiet(device: &Path, header: &Header) -> Result<()> {
    let layout = Layout { device: device.to_owned(), geometry: header.geometry, _claim: None };
    let before = read_pages(&layout)?;
    std::thread::sleep(LIVE_WATCH);
    let after = read_pages(&layout)?;
    ensure!(
        before == after,
        "{} is the store of cluster {:?} and its agents write to it just now: stop them first",
        device.display(),
        header.cluster.cluster
    );
    Ok(())
}

/// Pages that can be read.
fn read_pages(layout: &Layout) -> Result<Vec<Option<Page>>> {
    let mut blocks = AlignedBuffer::new(2 * BLOCK);
    layout
        .nodes()
        .map(|node| {
            DirectFile::new(layout.page(node)?, Access::Read).read(0, blocks.get_mut())?;
            Ok(format::decode_pages(blocks.get(), node).unwrap_or_default())
        })
        .collect()
}

fn write(device: &Path, header: &Header) -> Result<()> {
    let mut file = DirectFile::new(Area::file(device.to_owned()), Access::Write);
    // What was there is gone first, at both ends, so that nothing takes the device for it again.
    let size = size_of(device)?;
    let end = (size / BLOCK as u64 * BLOCK as u64).saturating_sub(foreign::END as u64);
    zero(&mut file, 0, foreign::BEGIN as u64)?;
    zero(&mut file, end, foreign::END as u64)?;
    let geometry = &header.geometry;
    let slots = u64::from(geometry.slots);
    zero(&mut file, PAGES_AT, slots * page_size())?;
    zero(&mut file, INDICES_AT, slots * 2 * INDEX_COPY as u64)?;
    for node in (1..=geometry.slots).map(NodeId) {
        zero(&mut file, geometry.records(node), geometry.records)?;
    }
    for body in 0..slots * u64::from(BODY_SLOTS) {
        zero(&mut file, BODIES_AT + body * geometry.body, BLOCK as u64)?;
    }
    // Last, so that a store with a header is whole.
    (1..=2).try_for_each(|sequence| write_header(&mut file, header, sequence))
}

/// Names `node` in the header: every id has a slot already, and what a removed node promised in it stays.
///
/// # Errors
/// Its id is beyond the slots; somebody else changes the header at this moment; storage fails.
pub fn add_node(layout: &Layout, node: &StoredNode) -> Result<()> {
    check_ids(std::slice::from_ref(node))?;
    let device = &layout.device;
    let read = || read_header(device)?.with_context(|| format!("no store on {}", device.display()));
    let (sequence, found) = read()?;
    let wanted = Header { cluster: found.cluster.with(node)?, ..found.clone() };
    if found == wanted {
        return Ok(());
    }
    let mut file = DirectFile::new(Area::file(device.clone()), Access::Write);
    write_header(&mut file, &wanted, sequence + 1)?;
    ensure!(
        read()?.1 == wanted,
        "somebody else changed the header of {} at the same time: try again",
        device.display()
    );
    Ok(())
}

/// Over the older copy.
fn write_header(file: &mut DirectFile, header: &Header, sequence: u64) -> Result<()> {
    let json = serde_json::to_vec(header)?;
    let mut copy = AlignedBuffer::new(HEADER_COPY);
    let encoded = format::encode_record(HEADER_MAGIC, &json, sequence, NOBODY, copy.get_mut());
    encoded.context("the names of the nodes are too long for the header")?;
    file.write(sequence % 2 * HEADER_COPY as u64, copy.get())
}

fn zero(file: &mut DirectFile, start: u64, length: u64) -> Result<()> {
    let mut at = start;
    while at < start + length {
        let piece = (start + length - at).min(PIECE as u64);
        file.write(at, AlignedBuffer::new(usize::try_from(piece)?).get())?;
        at += piece;
    }
    Ok(())
}

fn new_id() -> Result<String> {
    const SOURCE: &str = "/proc/sys/kernel/random/uuid";
    let id = std::fs::read_to_string(SOURCE).with_context(|| format!("cannot read {SOURCE}"))?;
    Ok(id.trim().to_owned())
}
