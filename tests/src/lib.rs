//! The simulator, its scenarios, and what tests on real parts share.

pub mod pve;
pub mod scenario;
pub mod sim;
