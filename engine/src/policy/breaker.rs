//! The breaker: a policy that fails time after time is not asked for a while.
//!
//! It comes back by itself, one question at a time, or at once when its file is replaced.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Limits;

/// The pause is doubled by each failure after the first pause, up to so many times itself.
const LONGEST_FACTOR: u32 = 8;

/// How often one generation failed for one kind, without an answer in between.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaker {
    in_row: u32,
    last: Option<Instant>,
}

/// Whether a policy is asked.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It is.
    #[default]
    Closed,
    /// It is not, for now: it failed too often in a row.
    Open,
    /// It failed too often in a row; the next question tries it again.
    HalfOpen,
}

/// The breaker as people see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerStatus {
    /// Whether the policy is asked.
    pub state: BreakerState,
    /// Failures since its last answer.
    pub failures_in_row: u32,
    /// It is tried again after so many milliseconds.
    pub tried_again_in_ms: Option<u64>,
}

impl Breaker {
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.in_row = self.in_row.saturating_add(1);
        self.last = Some(now);
    }

    /// It is not to be asked now.
    pub(super) fn is_open(&self, limits: &Limits, now: Instant) -> bool {
        self.pause_left(limits, now).is_some_and(|left| !left.is_zero())
    }

    pub(super) fn status(&self, limits: &Limits, now: Instant) -> BreakerStatus {
        let left = self.pause_left(limits, now);
        let state = match left {
            None => BreakerState::Closed,
            Some(Duration::ZERO) => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        };
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        BreakerStatus { state, failures_in_row: self.in_row, tried_again_in_ms: left.map(millis) }
    }

    /// What is left of the pause; `None`: it has not failed often enough for one.
    fn pause_left(&self, limits: &Limits, now: Instant) -> Option<Duration> {
        let beyond = self.in_row.checked_sub(limits.failures_in_row)?;
        let factor = 2_u32.checked_pow(beyond).map_or(LONGEST_FACTOR, |it| it.min(LONGEST_FACTOR));
        let pause = Duration::from_millis(limits.suspended_ms).saturating_mul(factor);
        let passed = self.last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        Some(pause.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: fn() -> Limits =
        || Limits { failures_in_row: 3, suspended_ms: 1_000, ..Limits::default() };

    fn failed(times: u32, at: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..times).for_each(|_| breaker.failed(at));
        breaker
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_an_answer_closes_it() {
        let now = Instant::now();
        assert!(!failed(2, now).is_open(&LIMITS(), now));
        let mut breaker = failed(3, now);
        assert!(breaker.is_open(&LIMITS(), now));
        breaker.succeeded();
        assert_eq!(breaker.status(&LIMITS(), now), BreakerStatus::default());
    }

    #[test]
    fn after_the_pause_one_question_tries_it_and_another_failure_doubles_the_pause() {
        let begin = Instant::now();
        let later = |ms| begin + Duration::from_millis(ms);
        let mut breaker = failed(3, begin);
        assert!(breaker.is_open(&LIMITS(), later(999)));
        assert_eq!(breaker.status(&LIMITS(), later(1_000)).state, BreakerState::HalfOpen);
        breaker.failed(later(1_000));
        assert!(breaker.is_open(&LIMITS(), later(2_999)));
        assert!(!breaker.is_open(&LIMITS(), later(3_000)));
        (0..40).for_each(|_| breaker.failed(later(3_000)));
        let left = breaker.status(&LIMITS(), later(3_000)).tried_again_in_ms;
        assert_eq!(left, Some(8_000), "the longest pause is eight times the first");
    }
}
