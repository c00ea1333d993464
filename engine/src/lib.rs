//! The HA agent: one adapter a file, and the loop that drives the machine of `steadfast-core`.

pub mod enrol;
pub mod guests;
pub mod libvirt;
