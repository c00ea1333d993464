//! The pure HA machine (see the walk in `machine.rs`).
#![no_std]
extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

pub mod action;
mod beats;
pub mod bounds;
pub mod config;
mod cycle;
pub mod decision;
mod duty;
mod election;
mod enrolment;
pub mod event;
mod eviction;
pub mod guest;
mod heartbeat;
pub mod ids;
mod lead;
mod lease;
pub mod ledger;
mod liveness;
pub mod machine;
pub mod message;
mod outbox;
pub mod page;
mod placement;
mod plan;
mod recovery;
mod register;
mod report;
pub mod snapshot;
pub mod step;
pub mod time;
pub mod timing_lint;
mod view;

#[cfg(test)]
#[path = "tests/cluster.rs"]
mod cluster;
#[cfg(test)]
#[path = "tests/kit.rs"]
mod kit;
#[cfg(test)]
#[path = "tests/stage.rs"]
mod stage;
