//! Which faults aim at which planted bug.

use crate::sim::aim::Aim;
use crate::sim::faults::Kind;

/// How one planted bug is hunted.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name in `engine/core/src/mutants.rs`.
    pub name: &'static str,
    /// The faults that it needs.
    pub aim: Aim,
    /// Number of nodes, if it matters.
    pub nodes: Option<usize>,
}

const fn target(name: &'static str, aim: Aim) -> Target {
    Target { name, aim, nodes: None }
}

/// One for each planted bug.
pub const TARGETS: &[Target] = &[
    target("RumourIsProof", Aim::ANY),
    target("CommitWithoutReadBack", Aim::ANY),
    target("BodyInNamedSlot", Aim::ANY),
    target("FreshPageAfterBoot", Aim::ANY),
    target("NetworkBasisAtEnd", Aim::ANY),
    target("StorageBasisAtEnd", Aim::ANY),
    target("ForgottenStart", Aim::at(&[Kind::SlowStarts, Kind::Isolate, Kind::StallSome])),
    target("RelocatedWithoutProof", Aim::ANY),
    target("FencedByFailure", Aim::at(&[Kind::FenceDown, Kind::Entomb]).with_fencing()),
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
