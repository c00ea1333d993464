//! The HA agent around the machine of `steadfast-core`: adapters on real parts, the loop that drives it, the API
//! and the command line.

pub mod api;
pub mod cli;
pub mod config;
pub mod driver;
pub mod enrol;
pub mod guests;
pub mod journal;
pub mod libvirt;
pub mod policy;
pub mod telemetry;
