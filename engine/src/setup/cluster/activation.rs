//! Has somebody said that this cluster is to begin? A file on each node; a node without one was set up by hand, and begins.

use super::super::host::Host;
use anyhow::{Result, ensure};
use std::path::Path;

/// Its name, in `[run] state_directory`.
const NAME: &str = "activation";
/// Where it usually lies.
pub(crate) const PATH: &str = "/var/lib/steadfast/activation";
pub(crate) const WAITING: &str = "waiting\n";
pub(crate) const ACTIVE: &str = "active\n";

/// The agent may begin.
///
/// # Errors
/// It is to wait, and for what.
pub(crate) fn may_begin(state: &Path) -> Result<()> {
    let text = std::fs::read_to_string(state.join(NAME)).unwrap_or_default();
    ensure!(
        text != WAITING,
        "high availability is not active yet: when all nodes have joined, run `steadfast cluster activate` on one"
    );
    Ok(())
}

/// The cluster of this node was activated.
#[must_use]
pub fn is_active(host: &Host) -> bool {
    host.text(PATH).is_none_or(|text| text != WAITING)
}

/// From now on it is.
///
/// # Errors
/// It cannot be written.
pub(crate) fn activate(host: &Host) -> Result<()> {
    if is_active(host) { Ok(()) } else { host.write(PATH, ACTIVE.as_bytes(), 0o644) }
}
