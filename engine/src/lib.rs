//! The HA agent around the machine of `steadfast-core`: adapters on real parts, the loop that drives it, the API
//! and the command line.
//!
//! Adapters are thin. They never block their caller: each works on threads of its own and answers with
//! [`Event`]s.

#[cfg(steadfast_mutants)]
compile_error!(
    "planted bugs are for the simulator alone: build the agent without --cfg steadfast_mutants"
);

use std::sync::Arc;
use steadfast_core::event::Event;

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod corosync;
pub mod decisions;
pub mod demo;
pub mod doctor;
pub mod driver;
pub mod enrol;
pub mod fence;
pub mod guests;
pub mod hook;
pub mod hypervisor;
pub mod journal;
pub mod last_words;
pub mod libvirt;
pub mod pages;
mod patch;
pub mod policy;
pub mod realtime;
pub mod record;
pub mod reset;
mod ring;
pub mod scaffold;
pub mod setup;
mod sse;
pub mod systemd;
pub mod telemetry;
mod threads;
pub mod verify_ip;
pub mod virtualization;
pub mod watch;
pub mod watchdog;

/// Where adapters put their events. Must not block: it is called on the threads that own the devices.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;
