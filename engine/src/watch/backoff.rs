//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);

/// Twice as long each time, up to a bound.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub(super) fn new(most: Duration) -> Self {
        Self { next: FIRST, most }
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// It failed: what to wait now.
    pub(super) fn pause(&mut self) -> Duration {
        let now = self.next.min(self.most);
        self.next = (now * 2).min(self.most);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_bound() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let pauses: Vec<u128> = (0..5).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 200);
    }
}
