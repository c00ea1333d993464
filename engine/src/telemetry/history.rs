//! Counters that only grow, and how fast they do.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Samples kept of one counter.
const MOST: usize = 512;

/// Counters over the last hour.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<String, VecDeque<(Instant, i64)>>);

impl History {
    /// Takes a reading, and says by how much the counter grew within `window`. One that began anew grew by what it shows; one that is
    /// seen for the first time has not grown.
    pub fn growth(&mut self, name: &str, value: i64, window: Duration, now: Instant) -> i64 {
        let samples = self.0.entry(name.into()).or_default();
        if samples.len() >= MOST {
            samples.pop_front();
        }
        samples.push_back((now, value));
        // The last one before the window is where it begins.
        while samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= window) {
            samples.pop_front();
        }
        let steps = samples.iter().zip(samples.iter().skip(1));
        let grown = steps.map(|((_, old), (_, new))| if new >= old { new - old } else { *new });
        grown.fold(0, i64::saturating_add)
    }

    /// Growth within a minute, from what there is of it.
    pub fn per_minute(&mut self, name: &str, value: i64, now: Instant) -> i64 {
        let minute = Duration::from_secs(60);
        let grown = self.growth(name, value, minute, now);
        let samples = self.0.get(name).and_then(VecDeque::front);
        let span = samples.map_or(minute, |(at, _)| now.duration_since(*at)).max(minute);
        grown.saturating_mul(60_000) / i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
    }

    /// Growth within an hour.
    pub fn per_hour(&mut self, name: &str, value: i64, now: Instant) -> i64 {
        self.growth(name, value, Duration::from_secs(3_600), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_as_fast_as_it_grew_lately() {
        let (mut history, begin) = (History::default(), Instant::now());
        let mut at = |s: u64, value| history.per_hour("x", value, begin + Duration::from_secs(s));
        assert_eq!([at(0, 100), at(60, 101), at(1_800, 110)], [0, 1, 10]);
        assert_eq!(at(3_700, 110), 9, "the first minute is more than an hour ago");
        assert_eq!(at(9_000, 110), 0);
    }

    #[test]
    fn a_counter_that_began_anew_has_grown_by_what_it_shows() {
        let (mut history, begin) = (History::default(), Instant::now());
        history.per_hour("x", 1_000, begin);
        assert_eq!(history.per_hour("x", 3, begin + Duration::from_secs(9)), 3);
    }

    #[test]
    fn a_minute_is_a_minute_however_seldom_it_is_looked_at() {
        let (mut history, begin) = (History::default(), Instant::now());
        history.per_minute("x", 0, begin);
        assert_eq!(history.per_minute("x", 600, begin + Duration::from_secs(300)), 120);
        assert_eq!(history.per_minute("y", 600, begin), 0);
    }
}
