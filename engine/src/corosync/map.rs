//! Corosync's configuration map: who is in the cluster, how fast a silent node is noticed.

use super::{CONNECT_PATIENCE, REMEDY, spawn_for_answer};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rust_corosync::cmap;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char, c_int, c_void};
use std::time::Duration;
use steadfast_core::ids::NodeId;
use steadfast_core::time::Millis;

/// What corosync's configuration map says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFacts {
    /// This node.
    pub local: NodeId,
    /// Token + consensus as they run: how long corosync needs to notice a silent node.
    pub membership: Millis,
    /// The node list: id and name (the first address where no name is given).
    pub nodes: BTreeMap<NodeId, String>,
}

/// Reads corosync's configuration map. Blocks at most `patience`: for start-up and tools, not for the lease path.
///
/// # Errors
/// Corosync is not there, does not answer, or its map lacks something; the error says what to do.
pub fn read_cluster(patience: Duration) -> Result<ClusterFacts> {
    ask_for(patience, read_map)
}

/// Corosync's libraries wait without end: they are asked on a thread that nobody waits for.
pub(super) fn ask_for<T: Send + 'static>(patience: Duration, read: fn() -> Result<T>) -> Result<T> {
    let answer = spawn_for_answer(read)?;
    let result = answer.recv_timeout(patience);
    let result = result.map_err(|_| anyhow!("no answer within {} ms", patience.as_millis()));
    result.flatten().with_context(|| format!("cannot read corosync's map; {REMEDY}"))
}

/// Token + consensus as they run, see [`read_cluster`].
///
/// # Errors
/// See [`read_cluster`].
pub fn read_membership_time() -> Result<Millis> {
    read_cluster(CONNECT_PATIENCE).map(|facts| facts.membership)
}

fn read_map() -> Result<ClusterFacts> {
    let map = cmap::initialize(cmap::Map::Icmap).context("cannot connect")?;
    let token = number(&map, "runtime.config.totem.token")?;
    let consensus = number(&map, "runtime.config.totem.consensus")?;
    let own_position = number(&map, "nodelist.local_node_pos")?;
    let local = number(&map, &format!("nodelist.node.{own_position}.nodeid"))?;
    let names = Names::connect()?;
    let mut nodes = BTreeMap::new();
    for position in node_positions(&map)? {
        let key = |field: &str| format!("nodelist.node.{position}.{field}");
        let id = number(&map, &key("nodeid"))?;
        let name =
            names.text(&key("name"))?.map_or_else(|| names.required(&key("ring0_addr")), Ok)?;
        nodes.insert(NodeId(id), name);
    }
    let membership = Millis(u64::from(token) + u64::from(consensus));
    Ok(ClusterFacts { local: NodeId(local), membership, nodes })
}

/// Positions in the node list need not be dense after a node was removed at run time.
fn node_positions(map: &cmap::Handle) -> Result<BTreeSet<u32>> {
    let keys = cmap::CmapIterStart::new(map, "nodelist.node.").context("cannot list the nodes")?;
    let position = |key: &str| key.split('.').nth(2)?.parse().ok();
    Ok(keys.into_iter().filter_map(|item| position(item.key_name())).collect())
}

fn number(map: &cmap::Handle, key: &str) -> Result<u32> {
    match cmap::get(map, key).with_context(|| format!("cannot read {key}"))? {
        cmap::Data::UInt32(value) => Ok(value),
        other => bail!("{key} is {other}, expected a 32-bit number"),
    }
}

/// A connection for texts alone: rust-corosync 3.2.0 cannot read one longer than 15 bytes (it offers libcmap a
/// buffer of 16), and a node's name is often longer.
struct Names(u64);

const CS_OK: c_int = 1;
const CS_ERR_NOT_EXIST: c_int = 12;
const CMAP_MAP_ICMAP: c_int = 0;
const CMAP_VALUETYPE_STRING: c_int = 11;
/// Longest value libcmap gives, in bytes.
const MAX_TEXT: usize = 4_096;

// libcmap is linked by rust-corosync.
#[allow(unsafe_code)]
unsafe extern "C" {
    fn cmap_initialize_map(handle: *mut u64, map: c_int) -> c_int;
    fn cmap_get(
        handle: u64,
        key: *const c_char,
        value: *mut c_void,
        length: *mut usize,
        kind: *mut c_int,
    ) -> c_int;
    fn cmap_finalize(handle: u64) -> c_int;
}

impl Names {
    #[allow(unsafe_code)]
    fn connect() -> Result<Self> {
        let mut handle = 0;
        // SAFETY: `handle` is valid for writes through the call.
        let result = unsafe { cmap_initialize_map(&raw mut handle, CMAP_MAP_ICMAP) };
        ensure!(result == CS_OK, "cannot connect: corosync error {result}");
        Ok(Self(handle))
    }

    fn required(&self, key: &str) -> Result<String> {
        self.text(key)?.with_context(|| format!("{key} is missing"))
    }

    /// `None` if there is no such key.
    #[allow(unsafe_code)]
    fn text(&self, key: &str) -> Result<Option<String>> {
        let name = CString::new(key)?;
        let (mut value, mut length, mut kind) = (vec![0_u8; MAX_TEXT], MAX_TEXT, 0);
        let buffer = value.as_mut_ptr().cast();
        // SAFETY: the buffer holds `length` bytes; all pointers are valid through the call.
        let result =
            unsafe { cmap_get(self.0, name.as_ptr(), buffer, &raw mut length, &raw mut kind) };
        if result == CS_ERR_NOT_EXIST {
            return Ok(None);
        }
        ensure!(result == CS_OK, "cannot read {key}: corosync error {result}");
        ensure!(kind == CMAP_VALUETYPE_STRING, "{key} is of type {kind}, expected text");
        value.truncate(length);
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        value.truncate(end);
        Ok(Some(String::from_utf8(value).with_context(|| format!("{key} is not UTF-8"))?))
    }
}

impl Drop for Names {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the handle is open and used by nobody else.
        unsafe { cmap_finalize(self.0) };
    }
}
