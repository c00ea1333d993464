//! Scores that explain themselves: the value is always the sum of its terms.

use alloc::{borrow::Cow, vec::Vec};

use crate::wire::{Score, Term};

impl Score {
    /// The lowest value a score may have.
    pub const MIN: i64 = -1_000_000_000;
    /// The highest value a score may have.
    pub const MAX: i64 = 1_000_000_000;

    /// Nothing yet: value 0, no terms.
    #[must_use]
    pub const fn new() -> Self {
        Self { value: 0, terms: Vec::new() }
    }

    /// Adds one reason. What would leave [`Score::MIN`]..=[`Score::MAX`] is cut; nothing (0) is left out.
    ///
    /// ```
    /// # use steadfast_sdk::wire::Score;
    /// let score = Score::new().term("free memory", 40).term("flaps", -15).term("risk", 0);
    /// assert_eq!((score.value, score.terms.len()), (25, 2));
    /// ```
    #[must_use]
    pub fn term(mut self, name: impl Into<Cow<'static, str>>, value: i64) -> Self {
        if value == 0 {
            return self;
        }
        let sum = self.value.saturating_add(value).clamp(Self::MIN, Self::MAX);
        let added = sum.saturating_sub(self.value);
        if added != 0 {
            self.value = sum;
            self.terms.push(Term { name: name.into(), value: added });
        }
        self
    }

    /// Cuts the value to `low..=high` by a last term that says so.
    #[must_use]
    pub fn within(self, low: i64, high: i64) -> Self {
        let missing = self.value.clamp(low, high).saturating_sub(self.value);
        self.term("limit", missing)
    }

    /// Whether the terms sum to the value and the value is in range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sum = self.terms.iter().fold(0_i64, |sum, term| sum.saturating_add(term.value));
        (Self::MIN..=Self::MAX).contains(&self.value)
            && (self.terms.is_empty() || sum == self.value)
    }
}
