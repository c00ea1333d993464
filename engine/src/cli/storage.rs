//! Commands that need no agent: `steadfast storage` and `steadfast config`.

use super::args::Init;
use super::client::Failure;
use super::progress::Progress;
use super::{format, say};
use crate::config::{Config, assumed, bounds};
use crate::pages::{self, ClusterFile, Place, StoredNode};
use std::path::Path;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::NodeId;
use steadfast_core::time::Millis;

/// `ID=NAME`.
pub(super) fn node(text: &str) -> Result<(u32, String), String> {
    let (id, name) = format::pair(text).map_err(|_| format!("expected ID=NAME, got {text:?}"))?;
    match id.parse() {
        Ok(number) if number > 0 => Ok((number, name)),
        _ => Err(format!("expected a corosync node id from 1, got {id:?}")),
    }
}

pub(super) fn init(init: &Init) -> Result<(), Failure> {
    let stored = |(id, name): &(u32, String)| StoredNode { id: NodeId(*id), name: name.clone() };
    let nodes: Vec<StoredNode> = init.nodes.iter().map(stored).collect();
    let place = place(init)?;
    let mut wanted = ClusterFile::new(&init.cluster, &nodes).map_err(Failure::Other)?;
    if let Some(level) = init.feature_level.map(FeatureLevel) {
        wanted.level = level;
    }
    let progress = Progress::begin(format!("preparing {place}"));
    pages::init(&place, &wanted, init.force.as_ref()).map_err(Failure::Other)?;
    drop(progress);
    let count = nodes.len();
    say(&format!("{place} is ready for cluster {} of {count} nodes\n", init.cluster))
}

/// What the operator names, as a place.
fn place(init: &Init) -> Result<Place, Failure> {
    match (&init.directory, &init.device) {
        (Some(directory), None) => Ok(Place::Directory(directory.clone())),
        (None, Some(device)) => Ok(Place::Device(device.clone())),
        _ => Err(Failure::Usage("give a device, or --directory".into())),
    }
}

/// How long corosync takes is not known here; the lab's default stands in.
const ASSUMED_MEMBERSHIP: Millis = Millis(1_100);

pub(super) fn check_config(file: &Path) -> Result<(), Failure> {
    let usage = |problems: crate::config::Problems| Failure::Usage(problems.to_string());
    let config = Config::load(file).map_err(usage)?;
    let timing = config.timing(ASSUMED_MEMBERSHIP).map_err(usage)?;
    let assumed = assumed(&config);
    let table = super::bounds::render(&bounds(&timing, &assumed), &assumed);
    say(&format!("{} is good\n\n{table}", file.display()))
}
