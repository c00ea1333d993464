//! The agent around the pure core: adapters on real parts, the driver, the API.
//!
//! Adapters are thin. They never block their caller: each works on threads of its own and answers with
//! [`Event`](steadfast_core::event::Event)s.

use std::sync::Arc;
use steadfast_core::event::Event;

pub mod clock;
pub mod corosync;
pub mod enrol;
pub mod fence;
pub mod guests;
pub mod libvirt;
pub mod pages;
pub mod policy;
pub mod record;
pub mod reset;
pub mod verify_ip;
pub mod watchdog;

/// Where adapters put their events. Must not block: it is called on the threads that own the devices.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;
