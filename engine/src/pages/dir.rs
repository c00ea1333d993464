//! The store's folders and files.
//!
//! ```text
//! cluster.json          who is in the cluster; written last by `init`
//! pages/<id>.page       two blocks, written by that node only
//! bodies/<id>.<slot>    the ledger's bodies, slots 0 and 1 of each node
//! catalogue/<digest>    domain XML by content
//! records/<id>.records  the last decisions of each node
//! ```

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use steadfast_core::ids::{Digest, NodeId};

use super::BODY_SLOTS;
use super::cluster::{ClusterFile, FORMAT, StoredNode};
use super::format::BLOCK;
use super::records::RECORDS_BYTES;

/// Paths of a store.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of the store in this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { root: directory.to_owned() }
    }

    /// `cluster.json`.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// A node's page.
    #[must_use]
    pub fn page(&self, node: NodeId) -> PathBuf {
        self.root.join("pages").join(format!("{}.page", node.0))
    }

    /// A node's body in this slot.
    #[must_use]
    pub fn body(&self, node: NodeId, slot: u8) -> PathBuf {
        self.root.join("bodies").join(format!("{}.{slot}", node.0))
    }

    /// A node's records.
    #[must_use]
    pub fn records(&self, node: NodeId) -> PathBuf {
        self.root.join("records").join(format!("{}.records", node.0))
    }

    /// The folder of domain XML.
    #[must_use]
    pub fn catalogue(&self) -> PathBuf {
        self.root.join("catalogue")
    }
}

/// Formats a store. Does nothing if the same store is already there. Blocks: for the command line.
///
/// # Errors
/// The directory holds something else, or storage fails.
pub fn init(directory: &Path, wanted: &ClusterFile) -> Result<()> {
    let layout = Layout::new(directory);
    if let Some(found) = read_cluster_file(&layout)? {
        ensure!(
            found.is_same(wanted),
            "{} already holds {}, asked for {}: use another directory, or remove that store if no node uses it",
            directory.display(),
            found.words(),
            wanted.words(),
        );
        return check_files(&layout, &found);
    }
    create_files(&layout, &wanted.nodes)?;
    // Last, so that a store with this file is whole.
    replace(&layout.cluster(), &serde_json::to_vec_pretty(wanted)?)
}

/// Gives `node` a slot, or its name to the slot that it has. A slot of another node of this name, which was
/// removed from the cluster, loses its entry, but not its files. Blocks.
///
/// # Errors
/// There is no store, or storage fails.
pub fn add_node(layout: &Layout, node: &StoredNode) -> Result<()> {
    let root = layout.root.display();
    let found = read_cluster_file(layout)?.with_context(|| format!("no store in {root}"))?;
    let wanted = found.with(node)?;
    if found == wanted {
        return check_files(layout, &found);
    }
    // What a removed node promised is in its page: it goes on from there when it comes back.
    if !layout.page(node.id).exists() {
        create_files(layout, std::slice::from_ref(node))?;
    }
    // Last, so that a node that is named has a slot.
    replace(&layout.cluster(), &serde_json::to_vec_pretty(&wanted)?)
}

fn create_files(layout: &Layout, nodes: &[StoredNode]) -> Result<()> {
    for folder in ["pages", "bodies", "catalogue", "records"] {
        let path = layout.root.join(folder);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    for node in nodes {
        create_zeroed(&layout.page(node.id), 2 * BLOCK)?;
        for slot in 0..BODY_SLOTS {
            create_zeroed(&layout.body(node.id, slot), BLOCK)?;
        }
        create_zeroed(&layout.records(node.id), RECORDS_BYTES)?;
    }
    ["pages", "bodies", "."].iter().try_for_each(|folder| sync_folder(&layout.root.join(folder)))
}

/// An earlier `init` that did not finish leaves zeroed files; anything else is somebody's data.
fn create_zeroed(path: &Path, size: usize) -> Result<()> {
    let zeroes = vec![0; size];
    match std::fs::read(path) {
        Ok(found) if found.iter().any(|byte| *byte != 0) => bail!(
            "{} holds data although the store has no cluster.json: \
             restore cluster.json, or remove the directory if no node uses it",
            path.display()
        ),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => {}
    }
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&zeroes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot create {}", path.display()))
}

/// A missing page is never made anew: it may have held a promise.
fn check_files(layout: &Layout, cluster: &ClusterFile) -> Result<()> {
    for node in &cluster.nodes {
        let path = layout.page(node.id);
        ensure!(
            path.exists(),
            "{} is missing although cluster.json names its node: \
             restore it, or move the whole cluster to a new store",
            path.display()
        );
    }
    Ok(())
}

/// Reads `cluster.json`; `None` if there is none. Blocks.
///
/// # Errors
/// It cannot be read, is damaged, or of a newer format.
pub fn read_cluster_file(layout: &Layout) -> Result<Option<ClusterFile>> {
    let path = layout.cluster();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let file: ClusterFile = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is damaged: restore it", path.display()))?;
    ensure!(
        file.format <= FORMAT,
        "{} has format {}, known is {FORMAT}: upgrade this node",
        path.display(),
        file.format
    );
    Ok(Some(file))
}

/// Puts `xml` into the catalogue under its digest. Idempotent. Blocks.
///
/// # Errors
/// Storage fails.
pub fn put_catalogue(layout: &Layout, xml: &str) -> Result<Digest> {
    let digest = Digest::of(xml.as_bytes());
    if get_catalogue(layout, digest).is_err() {
        replace(&layout.catalogue().join(digest.to_string()), xml.as_bytes())?;
    }
    Ok(digest)
}

/// Gets what was put under `digest`. Blocks.
///
/// # Errors
/// It is not there, storage fails, or its content has another digest.
pub fn get_catalogue(layout: &Layout, digest: Digest) -> Result<String> {
    let path = layout.catalogue().join(digest.to_string());
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = Digest::of(&bytes);
    let path = path.display();
    ensure!(found == digest, "{path} is damaged: its digest is {found}; enable its VM again");
    String::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))
}

/// Writes beside, syncs, renames, syncs the folder.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Two nodes may put the same content at the same time; their process ids may be equal, too.
    let temporary = folder.join(format!(".{name}.{:x}.new", unique()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    let result = write().with_context(|| format!("cannot write {}", path.display()));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result.and_then(|()| sync_folder(folder))
}

/// Different in every call on every node, as far as the standard library's random hash seeds are.
fn unique() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn sync_folder(folder: &Path) -> Result<()> {
    let sync = || File::open(folder)?.sync_all();
    sync().with_context(|| format!("cannot sync folder {}", folder.display()))
}
