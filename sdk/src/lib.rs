//! Steadfast's SDK for policy authors.
//!
//! A policy ranks and scores what the host hands it. It never decides quorum, eviction or fencing, and
//! it cannot break a hard constraint: the host checks every verdict. A whole policy:
//!
//! ```
//! use steadfast_sdk::prelude::*;
//!
//! parameters! {
//!     /// The emptiest node first.
//!     pub struct Emptiest {
//!         /// Points for each free MiB.
//!         per_mib: i64 = 1,
//!     }
//! }
//!
//! impl Placement for Emptiest {
//!     fn score(&self, _: &VmFacts, node: &NodeFacts, _: &Situation<'_>) -> Option<Score> {
//!         Some(Score::new().term("free memory", mib(node.memory_free_mib) * self.per_mib))
//!     }
//! }
//!
//! export_policy! { Emptiest: Placement, name = "emptiest", about = "The emptiest node first." }
//! # fn main() {}
//! ```
//!
//! Build it with `cargo build --release --target wasm32-unknown-unknown` and drop the `.wasm` in the
//! agents' policy folder; a `.json` of the same name beside it sets its parameters.
//!
//! - [`wire`]: what is asked and answered.
//! - [`kinds`]: the traits, one a kind of policy. [`situation`]: what a placement looks at.
//!   [`order`]: what starts before what.
//! - [`facts`] and [`math`]: words and arithmetic for scores. [`log`]: lines for the operator.
//! - [`params`]: typed parameters. [`manifest`]: what the macro writes into the module.
//! - [`abi`]: bytes in, bytes out, the same natively and in the sandbox.
//!
//! What follows is for tests and for the host, and not part of a module:
//!
//! - [`fixture`]: clusters built by name. [`run`]: a policy's answer, natively.
//! - [`mod@laws`]: what every policy keeps to, and [`laws!`](crate::laws!), which tests it. [`generate`]: the clusters it is tried with.
//! - [`check`]: whether a verdict has the shape its question allows.
#![no_std]
extern crate alloc;
// For the thread's own state and a module's panic hook. Whatever decides uses only `core` and `alloc`.
extern crate std;
// The macros name this crate by its name, also here.
extern crate self as steadfast_sdk;

pub mod abi;
#[cfg(not(target_arch = "wasm32"))]
pub mod check;
pub mod columns;
mod export;
pub mod facts;
#[cfg(not(target_arch = "wasm32"))]
pub mod fixture;
#[cfg(not(target_arch = "wasm32"))]
pub mod generate;
#[cfg(target_arch = "wasm32")]
pub mod guest;
#[cfg(target_arch = "wasm32")]
mod heap;
mod ids;
pub mod kinds;
mod law_tests;
#[cfg(not(target_arch = "wasm32"))]
pub mod laws;
pub mod log;
pub mod manifest;
pub mod math;
mod name;
pub mod order;
pub mod params;
mod rank;
#[cfg(not(target_arch = "wasm32"))]
pub mod residents;
#[cfg(not(target_arch = "wasm32"))]
pub mod run;
pub mod score;
pub mod situation;
mod sizes;
mod tally;
pub mod wire;
mod words;

pub use serde;
pub use serde_json;

/// Everything that a policy needs.
pub mod prelude {
    pub use crate::kinds::{NodePriority, Placement, Risk};
    pub use crate::math::{lost, mib, permille, points, ramp};
    pub use crate::situation::{Shared, Situation};
    pub use crate::wire::*;
    pub use crate::{export_policy, laws, parameters};
    pub use crate::{log_debug, log_error, log_info, log_warn};
}
