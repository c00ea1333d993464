//! How late beats were: the agent's own measure of whether anything keeps its lease path waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use steadfast_core::time::{Instant, Millis};

/// "Lately" is this window and the one before.
const WINDOW: Millis = Millis(30_000);

/// The longest times between two beats that this agent handed to corosync, in milliseconds.
#[derive(Debug, Default)]
pub struct BeatGaps {
    ever_ms: AtomicU64,
    lately_ms: AtomicU64,
    beats: AtomicU64,
    late: AtomicU64,
}

impl BeatGaps {
    /// Since the agent started.
    pub fn ever(&self) -> Millis {
        Millis(self.ever_ms.load(Ordering::Relaxed))
    }

    /// Within the last half minute, or a little longer.
    pub fn lately(&self) -> Millis {
        Millis(self.lately_ms.load(Ordering::Relaxed))
    }

    /// How many were sent.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// How many came more than half an interval too late.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

/// Kept by the lease path.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last: Option<Instant>,
    window: Instant,
    this: u64,
    before: u64,
}

impl Pulse {
    /// A beat is sent now; one is due each `interval`.
    pub(super) fn beat(&mut self, now: Instant, interval: Millis, told: &BeatGaps) {
        let gap = self.last.replace(now).map_or(0, |last| now.since(last).0);
        if now.since(self.window) >= WINDOW {
            (self.before, self.this, self.window) = (self.this, 0, now);
        }
        self.this = self.this.max(gap);
        told.beats.fetch_add(1, Ordering::Relaxed);
        told.late.fetch_add(u64::from(2 * gap > 3 * interval.0), Ordering::Relaxed);
        told.ever_ms.fetch_max(gap, Ordering::Relaxed);
        told.lately_ms.store(self.this.max(self.before), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_kept_and_the_latest_is_forgotten_in_time() {
        let (mut pulse, told) = (Pulse::default(), BeatGaps::default());
        let mut beat = |ms| pulse.beat(Instant(ms), Millis(500), &told);
        [40_000, 40_500, 41_700, 42_200].into_iter().for_each(&mut beat);
        assert_eq!((told.ever(), told.lately()), (Millis(1_200), Millis(1_200)));
        assert_eq!((told.beats(), told.late()), (4, 1));
        (43..200).for_each(|half_second| beat(half_second * 1_000));
        assert_eq!((told.ever(), told.lately()), (Millis(1_200), Millis(1_000)));
    }
}
