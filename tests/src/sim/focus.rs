//! Faults with a direction: what a planted bug needs to show, drawn far oftener than a mixed run would.

use super::clock::{SECOND, Time};
use super::faults::Kind;
use super::plan::Plan;

/// A direction for the faults of a plan. What it leaves open the seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Focus {
    /// Fault kinds, all of them; empty: a random subset, as in any mixed run.
    pub kinds: &'static [Kind],
    /// At most this long between two faults, on average.
    pub pace: Time,
    /// Every node has a fence agent, or none has.
    pub fencing: Option<bool>,
}

impl Focus {
    /// No direction: a mixed run.
    pub const ANY: Self = Self { kinds: &[], pace: 25 * SECOND, fencing: None };

    /// Only these kinds of faults.
    #[must_use]
    pub const fn at(kinds: &'static [Kind]) -> Self {
        Self { kinds, ..Self::ANY }
    }

    /// Only time, a word or another boot proves anything.
    #[must_use]
    pub const fn without_fencing(self) -> Self {
        Self { fencing: Some(false), ..self }
    }

    /// Every node has a fence agent.
    #[must_use]
    pub const fn with_fencing(self) -> Self {
        Self { fencing: Some(true), ..self }
    }

    /// A fault every few seconds.
    #[must_use]
    pub const fn fast(self) -> Self {
        Self { pace: 4 * SECOND, ..self }
    }
}

impl Plan {
    /// Fixes what the focus fixes.
    pub fn take_focus(&mut self) {
        let Some(focus) = self.focus else { return };
        if let Some(fencing) = focus.fencing {
            self.fence_agents = if fencing { self.all() } else { 0 };
            // Without fence agents the rule of time is the only way out for the dead.
            self.never_paused |= !fencing;
        }
    }
}
