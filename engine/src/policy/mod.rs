//! Policies: Wasm modules that rank and score, under fuel, deadline and memory limits.
//!
//! The life of a policy file: [`watch`] notices it, [`load`] takes it through its stages ([`files`] reads it, [`signature`] looks
//! who signed it, [`inspect`] reads it without running it, [`sandbox`] compiles and runs it, [`trial`] asks it for the
//! laws and the [`rehearsal`]), [`seats`] gives it a seat, with the generations before it.
//!
//! The life of a question: [`store`] asks the active generation, then the last good one, then the built-in twin
//! ([`kind`]); [`verdict`] checks every answer, [`breaker`] spares those that only fail, [`shadow`] asks others what
//! they would have said. Nothing here is on the lease path: calls block.

mod arena;
mod book;
mod breaker;
mod error;
mod evaluate;
mod files;
mod generation;
mod inspect;
mod kind;
mod limits;
mod load;
mod offline;
mod rehearsal;
mod replay;
mod rollback;
mod sandbox;
mod seats;
mod settings;
mod shadow;
mod signature;
mod status;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod ticker;
mod trial;
mod verdict;
mod watch;
mod workbench;

pub use breaker::{BreakerState, BreakerStatus};
pub use error::{Class, Failure, Stage};
pub use evaluate::{Evaluation, NotEvaluated};
pub use kind::Kind;
pub use limits::Limits;
pub use offline::{Check, Inspection, check_file, inspect_file};
pub use rehearsal::{Headroom, Largest};
pub use replay::{Change, Player, Recorded, Replayed, read_recorded};
pub use settings::{Settings, Shadow};
pub use signature::Key;
pub use status::{
    Difference, KindStatus, Peer, PoliciesStatus, PolicyStatus, ShadowStatus, StageTime, State,
};
pub use store::{Answer, Decider, DeciderKind, PolicyStore};
pub use workbench::{Measured, Workbench};
