//! The machine (interface first; being filled in).

use crate::config::Config;
use crate::event::Event;
use crate::snapshot::Snapshot;
use crate::step::Step;
use crate::time::Instant;

/// One node's whole reasoning.
#[derive(Debug)]
pub struct Machine {
    config: Config,
}

impl Machine {
    /// A machine for one incarnation, and what it wants done first.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> (Self, Step) {
        let machine = Self { config };
        (machine, Step { actions: alloc::vec![], wake_at: (now, "start") })
    }

    /// One event, at own time `now`.
    pub fn step(&mut self, _event: Event, _now: Instant) -> Step {
        unimplemented!()
    }

    /// The state, for people.
    #[must_use]
    pub fn snapshot(&self, _now: Instant) -> Snapshot {
        unimplemented!("{:?}", self.config.me)
    }
}
