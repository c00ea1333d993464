//! Commands that need no agent: `steadfast storage` and `steadfast config`.

use super::args::Init;
use super::client::Failure;
use super::{format, say};
use crate::config::{Config, bounds};
use crate::pages::{self, StoredNode};
use std::path::Path;
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
    pages::init(&init.directory, &init.cluster, &nodes).map_err(Failure::Other)?;
    let (path, count) = (init.directory.display(), nodes.len());
    say(&format!("{path} is ready for cluster {} of {count} nodes\n", init.cluster))
}

/// How long corosync takes is not known here; the lab's default stands in.
const ASSUMED_MEMBERSHIP: Millis = Millis(1_100);

pub(super) fn check_config(file: &Path) -> Result<(), Failure> {
    let usage = |problems: crate::config::Problems| Failure::Usage(problems.to_string());
    let config = Config::load(file).map_err(usage)?;
    let timing = config.timing(ASSUMED_MEMBERSHIP).map_err(usage)?;
    let mut table = format::table(&["FAILURE", "OF", "FENCE AGENT", "BOUND", "SUM"]);
    for bound in bounds(&timing) {
        let agent = if bound.fence_agent { "yes" } else { "no" }.to_string();
        let length = format!("{} ms", bound.bound_ms);
        table.add_row([bound.failure, bound.role, agent, length, bound.sum]);
    }
    say(&format!("{} is good\n\n{}\n", file.display(), table.trim_fmt()))
}
