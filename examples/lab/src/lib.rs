//! The lab: a cluster of real nodes on one machine, and every fault it is made for.
//!
//! [`lab::Lab`] is a lab in a folder. `Lab::new(…).up()` starts it; `guests` is the ground truth
//! of what runs where; `kill`, `cut`, `stall`, `heal` and `boot` do what their names say;
//! `api::status` and `api::Events` ask the agents; `failover::measure` cuts a node's power and
//! takes the times. Nothing outlives `down`, which [`guard::Guard`] calls when it is dropped.

pub mod agent;
pub mod api;
pub mod cluster;
pub mod corosync;
pub mod demo;
pub mod failover;
pub mod faultfs;
pub mod faults;
pub mod fence;
pub mod guard;
pub mod guests;
pub mod init;
pub mod lab;
pub mod libvirt;
pub mod measure;
pub mod net;
pub mod node;
pub mod power;
pub mod power_log;
pub mod qemu;
pub mod san;
pub mod status;
pub mod sys;
pub mod wait;
pub mod watchdog;
