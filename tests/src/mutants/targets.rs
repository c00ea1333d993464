//! Which faults aim at which planted bug.

use crate::sim::faults::Kind;
use crate::sim::focus::Focus;

/// How one planted bug is hunted.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name in `engine/core/src/mutants.rs`.
    pub name: &'static str,
    /// The faults that it needs.
    pub focus: Focus,
    /// Number of nodes, if it matters.
    pub nodes: Option<usize>,
}

const fn target(name: &'static str, focus: Focus) -> Target {
    Target { name, focus, nodes: None }
}

/// One for each planted bug.
pub const TARGETS: &[Target] = &[
    target("RumourIsProof", Focus::ANY),
    target("CommitWithoutReadBack", Focus::ANY),
    target("BodyInNamedSlot", Focus::ANY),
    target("FreshPageAfterBoot", Focus::ANY),
    target("NetworkBasisAtEnd", Focus::ANY),
    target("StorageBasisAtEnd", Focus::ANY),
    target("ForgottenStart", Focus::at(&[Kind::SlowStarts, Kind::Isolate, Kind::StallSome])),
    target("RelocatedWithoutProof", Focus::ANY),
    target("FencedByFailure", Focus::at(&[Kind::FenceDown, Kind::Entomb]).with_fencing()),
];

/// The target of this name.
///
/// # Errors
/// Names those that exist.
pub fn find(name: &str) -> Result<&'static Target, String> {
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let found = TARGETS.iter().find(|target| target.name == name);
    found.ok_or_else(|| format!("no planted bug is called {name}; there are: {}", names()))
}
