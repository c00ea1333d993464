//! Who is in the cluster, as the store says it: `cluster.json` in a directory, the header of a device.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::NodeId;

/// Newest format of a store that this engine knows.
pub const FORMAT: u16 = 1;

/// A node as the store names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredNode {
    /// Corosync's node id.
    pub id: NodeId,
    /// Corosync's name of it.
    pub name: String,
}

/// What a store is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Format of the store.
    pub format: u16,
    /// Feature level of the release that made the store: the first ledger is of it.
    #[serde(default, skip_serializing_if = "FeatureLevel::is_oldest")]
    pub level: FeatureLevel,
    /// The cluster's name.
    pub cluster: String,
    /// The nodes that have a slot.
    pub nodes: Vec<StoredNode>,
}

impl ClusterFile {
    /// A store of the newest format.
    ///
    /// # Errors
    /// The cluster has no name or no node, or a node is named twice or badly.
    pub fn new(cluster: &str, nodes: &[StoredNode]) -> Result<Self> {
        ensure!(!cluster.is_empty(), "a cluster needs a name");
        ensure!(!nodes.is_empty(), "cluster {cluster:?} needs at least one node");
        let ids: BTreeSet<NodeId> = nodes.iter().map(|node| node.id).collect();
        let names: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let count = nodes.len();
        ensure!(ids.len() == count, "{count} nodes have only {} different ids", ids.len());
        ensure!(names.len() == count, "{count} nodes have only {} different names", names.len());
        ensure!(!ids.contains(&NodeId(0)), "node ids begin at 1, got 0");
        ensure!(!names.contains(""), "every node needs a name");
        let (cluster, nodes) = (cluster.to_owned(), nodes.to_vec());
        Ok(Self { format: FORMAT, level: FeatureLevel::NEWEST, cluster, nodes })
    }

    /// The same with `node`. Another node of its id or name, which was removed from the cluster, loses its entry.
    ///
    /// # Errors
    /// It is named badly.
    pub fn with(&self, node: &StoredNode) -> Result<Self> {
        let others = self.nodes.iter().filter(|it| it.id != node.id && it.name != node.name);
        let mut nodes: Vec<StoredNode> = others.chain([node]).cloned().collect();
        nodes.sort_by_key(|known| known.id);
        Ok(Self { level: self.level, ..Self::new(&self.cluster, &nodes)? })
    }

    /// The same store, whichever release made it.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self == Self { level: self.level, ..other.clone() }
    }

    /// In words, for refusals.
    #[must_use]
    pub fn words(&self) -> String {
        format!("the store of cluster {:?} with {} nodes", self.cluster, self.nodes.len())
    }
}
