//! The pure HA machine (see the walk in `machine.rs`).
#![no_std]
extern crate alloc;

pub mod action;
pub mod config;
pub mod decision;
pub mod event;
pub mod guest;
pub mod ids;
pub mod ledger;
pub mod machine;
pub mod message;
pub mod page;
pub mod snapshot;
pub mod step;
pub mod time;
