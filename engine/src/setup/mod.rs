//! From a bare machine to a member: `steadfast node prepare`, `steadfast cluster init` and what follows.
//!
//! A plan is a list of [`step::Step`]s, and a step a list of [`change::Change`]s: plain values that know whether they are done already.
//! So a plan can be shown before it is done, done twice, and completed after a power cut. What a change is about to overwrite is written
//! down first ([`journal`]), so that it can be put back. Everything lies below one root ([`host::Host`]): tests have one of their own.

pub mod change;
pub mod cluster;
pub mod host;
pub mod journal;
pub mod prepare;
pub mod step;
pub mod tell;
#[cfg(test)]
pub(crate) mod testing;

/// What was there before `node prepare`.
pub const PREPARED: &str = "/var/lib/steadfast/prepared.json";
/// What was there before this node became a member.
pub const JOINED: &str = "/var/lib/steadfast/joined.json";
