//! True time, and each node's own.

use steadfast_core::time::Instant;

/// True time, in microseconds since the world began. No machine ever sees it.
pub type Time = u64;

/// One millisecond of true time.
pub const MS: Time = 1_000;
/// One second of true time.
pub const SECOND: Time = 1_000_000;

/// A node's own time since a boot. It runs on through pauses and agent restarts, and restarts with the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// True time of the boot.
    pub zero: Time,
    /// What the clock showed then.
    pub offset: u64,
    /// Clock ticks per million of true time: within 5,000 of a million for an honest clock.
    pub rate: u64,
}

impl Clock {
    /// Own time at true time `at`.
    #[must_use]
    pub fn own(&self, at: Time) -> Instant {
        Instant(self.offset + (at.saturating_sub(self.zero)) * self.rate / 1_000_000_000)
    }

    /// First true time at which the clock shows `own` (far futures are cut to an hour from boot).
    #[must_use]
    pub fn when(&self, own: Instant) -> Time {
        let millis = own.0.saturating_sub(self.offset).min(36_000_000);
        self.zero + (millis * 1_000_000_000).div_ceil(self.rate)
    }

    /// How long `millis` of own time are in true time.
    #[must_use]
    pub fn span(&self, millis: u64) -> Time {
        (millis * 1_000_000_000).div_ceil(self.rate)
    }
}
