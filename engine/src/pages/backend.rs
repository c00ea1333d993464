//! The two kinds of store, a directory and a device, behind one face.

use super::block::{self, catalogue::Catalogue};
use super::cluster::{ClusterFile, StoredNode};
use super::direct::Area;
use super::{dir, page_size};
use anyhow::{Result, anyhow};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use steadfast_core::ids::{Digest, NodeId};

/// Where the store is, as the operator says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory on a shared file system.
    Directory(PathBuf),
    /// A shared block device.
    Device(PathBuf),
}

impl Place {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Device(path) => path,
        }
    }

    /// The key that names it in the configuration.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Directory(_) => "storage.directory",
            Self::Device(_) => "storage.device",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// Where everything lies.
#[derive(Debug, Clone)]
pub(super) enum Layout {
    Directory(dir::Layout),
    Device(block::Layout),
}

impl Layout {
    /// Opens the store at `place`. Blocks.
    pub(super) fn open(place: &Place) -> Result<(Self, ClusterFile)> {
        match place {
            Place::Directory(directory) => {
                let layout = dir::Layout::new(directory);
                let cluster = dir::read_cluster_file(&layout)?.ok_or_else(|| {
                    anyhow!(
                        "no store in {place}: mount the shared file system, or run `steadfast storage init`"
                    )
                })?;
                Ok((Self::Directory(layout), cluster))
            }
            Place::Device(device) => {
                let (layout, cluster) = block::open(device)?;
                Ok((Self::Device(layout), cluster))
            }
        }
    }

    /// A node's page.
    pub(super) fn page(&self, node: NodeId) -> Result<Area> {
        match self {
            Self::Directory(layout) => Ok(Area::file(layout.page(node))),
            Self::Device(layout) => layout.page(node),
        }
    }

    /// A node's body in this slot.
    pub(super) fn body(&self, node: NodeId, slot: u8) -> Result<Area> {
        match self {
            Self::Directory(layout) => Ok(Area::file(layout.body(node, slot))),
            Self::Device(layout) => layout.body(node, slot),
        }
    }

    /// A node's records.
    pub(super) fn records(&self, node: NodeId) -> Result<Area> {
        match self {
            Self::Directory(layout) => Ok(Area::file(layout.records(node))),
            Self::Device(layout) => layout.records(node),
        }
    }

    /// Gives `node` a slot, or its name to the slot that it has. Blocks.
    pub(super) fn add_node(&self, node: &StoredNode) -> Result<()> {
        match self {
            Self::Directory(layout) => dir::add_node(layout, node),
            Self::Device(layout) => block::add_node(layout, node),
        }
    }

    /// The pages of these nodes, in as few reads as possible.
    pub(super) fn batches(&self, nodes: &BTreeSet<NodeId>) -> Result<Vec<Batch>> {
        match self {
            Self::Directory(_) => nodes
                .iter()
                .map(|node| Ok(Batch { area: self.page(*node)?, nodes: vec![(*node, 0)] }))
                .collect(),
            Self::Device(layout) => Batch::of_neighbours(layout, nodes),
        }
    }
}

/// Pages that lie side by side and are read at once: on a device all of them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) area: Area,
    /// Each with the offset of its page in `area`.
    pub(super) nodes: Vec<(NodeId, usize)>,
}

impl Batch {
    fn of_neighbours(layout: &block::Layout, nodes: &BTreeSet<NodeId>) -> Result<Vec<Self>> {
        let areas = nodes.iter().map(|node| layout.page(*node)).collect::<Result<Vec<Area>>>()?;
        let Some(first) = areas.iter().min_by_key(|area| area.start) else { return Ok(Vec::new()) };
        let start = first.start;
        let last = areas.iter().map(|area| area.start).max().unwrap_or(start);
        let area = Area { room: last - start + page_size(), ..first.clone() };
        let offset = |area: &Area| usize::try_from(area.start - start);
        let placed = nodes.iter().zip(&areas).map(|(node, area)| Ok((*node, offset(area)?)));
        Ok(vec![Self { nodes: placed.collect::<Result<_>>()?, area }])
    }
}

/// The catalogue of domain XML. Everything blocks: for worker threads.
#[derive(Debug)]
pub(super) enum Shelf {
    Directory(dir::Layout),
    Device(Box<Catalogue>),
}

impl Shelf {
    pub(super) fn new(layout: &Layout, me: NodeId, cluster: &ClusterFile) -> Self {
        match layout {
            Layout::Directory(layout) => Self::Directory(layout.clone()),
            Layout::Device(layout) => {
                Self::Device(Box::new(Catalogue::new(layout.clone(), me, cluster)))
            }
        }
    }

    pub(super) fn put(&self, xml: &str) -> Result<Digest> {
        match self {
            Self::Directory(layout) => dir::put_catalogue(layout, xml),
            Self::Device(catalogue) => catalogue.put(xml),
        }
    }

    pub(super) fn get(&self, digest: Digest) -> Result<String> {
        match self {
            Self::Directory(layout) => dir::get_catalogue(layout, digest),
            Self::Device(catalogue) => catalogue.get(digest),
        }
    }
}
