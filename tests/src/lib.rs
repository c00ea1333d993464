//! The simulator, its scenarios, and what tests on real parts share.

pub mod modules;
pub mod mutants;
pub mod pve;
pub mod scenario;
pub mod sim;
#[cfg(feature = "browser")]
pub mod stage;
