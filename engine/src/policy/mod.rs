//! Policies: Wasm modules that rank and score, under fuel, deadline and memory limits.
//!
//! The life of a policy file: [`watch`] notices it, [`load`] takes it through its stages ([`inspect`] reads
//! it without running it, [`sandbox`] compiles and runs it), [`store`] gives it a seat. The life of a
//! question: [`store`] asks the active generation, then the last good one, then the built-in twin
//! ([`kind`]); [`verdict`] checks every answer. Nothing here is on the lease path: calls block.

mod error;
mod generation;
mod inspect;
mod kind;
mod limits;
mod load;
mod sandbox;
mod seats;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod ticker;
mod verdict;
mod watch;
mod workbench;

pub use error::{Class, Failure, Stage};
pub use kind::Kind;
pub use limits::Limits;
pub use status::{PolicyStatus, StageTime, State};
pub use store::{Answer, Decider, DeciderKind, PolicyStore};
pub use workbench::{Measured, Workbench};
