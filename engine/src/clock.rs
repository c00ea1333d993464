//! Own time: the only place where the agent reads a clock.
//!
//! Own time = `CLOCK_MONOTONIC_RAW` + (`CLOCK_BOOTTIME` - `CLOCK_MONOTONIC`). NTP slewing must not bend a
//! lease, therefore RAW; suspended time counts, therefore the difference, which is the time spent suspended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steadfast_core::time::Instant;

/// Time spent suspended since boot in nanoseconds: the largest lower bound seen.
static SUSPENDED: AtomicU64 = AtomicU64::new(0);

/// Reads own time. Every copy reads the same time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// Own time now, rounded down to milliseconds. Never goes back.
    #[must_use]
    pub fn now(self) -> Instant {
        // RAW first: a suspend between the reads then counts. The other order would lose it.
        let raw = read(libc::CLOCK_MONOTONIC_RAW);
        Instant((raw + suspended()) / 1_000_000)
    }

    /// Wall-clock time in milliseconds since 1970, for people only: it may jump.
    #[must_use]
    pub fn wall_ms(self) -> u64 {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long until `instant`; zero if it has passed.
    #[must_use]
    pub fn until(self, instant: Instant) -> Duration {
        Duration::from_millis(instant.since(self.now()).0)
    }

    /// Sleeps until `instant` or somewhat later. Timers may be late: read the clock again after it.
    pub fn sleep_until(self, instant: Instant) {
        std::thread::sleep(self.until(instant));
    }
}

/// Wall-clock time for people: `2026-11-23 03:21:53.120` in UTC.
#[must_use]
pub fn utc(wall_ms: u64) -> String {
    let (days, ms) = (wall_ms / 86_400_000, wall_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, rest) = (ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{rest:03}")
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Wakes one waiting thread before its time.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Wakes the waiter, or the next one that waits.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until `instant`, or for ever if there is none. True if it was rung. May wake up late, never early.
    pub fn wait_until(&self, clock: Clock, instant: Option<Instant>) -> bool {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            let left = instant.map_or(Duration::MAX, |instant| clock.until(instant));
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(rung, left.min(Duration::from_secs(3600)));
            rung = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *rung = false;
        true
    }
}

/// Time spent suspended. The two clocks cannot be read at once: `MONOTONIC` read last makes the difference a
/// lower bound, and the maximum of all lower bounds never goes back, however late the thread was in between.
fn suspended() -> u64 {
    let boot = read(libc::CLOCK_BOOTTIME);
    let lower = boot.saturating_sub(read(libc::CLOCK_MONOTONIC));
    SUSPENDED.fetch_max(lower, Ordering::Relaxed).max(lower)
}

/// Nanoseconds on one of the kernel's clocks.
#[allow(unsafe_code)]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes for the whole call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    // It fails only for clocks that the kernel does not know; all of ours are older than Linux 2.6.39.
    assert_eq!(result, 0, "clock {clock} cannot be read: own time is unknown");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::time::Millis;

    #[test]
    fn own_time_never_goes_back() {
        let mut last = Clock.now();
        for _ in 0..10_000 {
            let now = Clock.now();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
        }
    }

    #[test]
    fn the_bell_waits_no_less_than_asked() {
        let bell = Bell::default();
        let end = Clock.now() + Millis(20);
        assert!(!bell.wait_until(Clock, Some(end)));
        assert!(Clock.now() >= end);
        bell.ring();
        assert!(bell.wait_until(Clock, None));
    }
}
