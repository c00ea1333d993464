//! `steadfast cluster`: from prepared machines to a cluster that keeps VMs running.
//!
//! `init` makes the first node, `invite` and `join` bring the others, and `activate` begins: until then agents run and answer, but nobody
//! is elected and no watchdog is opened ([`activation`]). All of it may be repeated after a power cut.

pub mod activation;
pub mod agents;
pub mod config_file;
pub(crate) mod corosync;
pub mod facts;
pub mod init;
pub mod invite;
pub mod join;
pub mod members;
pub mod membership;
mod pki;
#[cfg(test)]
mod tests;
pub mod ticket;
mod wire;

pub use corosync::{Conf, Member, parse_member};
