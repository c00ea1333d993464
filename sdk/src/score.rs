//! Scores that explain themselves: the value is always the sum of its terms.

use alloc::vec::Vec;

use crate::wire::{Name, Score, Term};

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
    /// While thousands of candidates are only compared, terms are not kept; those of a verdict's best candidates are.
    ///
    /// ```
    /// # use steadfast_sdk::wire::Score;
    /// let score = Score::new().term("free memory", 40).term("flaps", -15).term("risk", 0);
    /// assert_eq!((score.value, score.terms.len()), (25, 2));
    /// ```
    #[must_use]
    #[inline]
    pub fn term(mut self, name: impl Into<Name>, value: i64) -> Self {
        self.add(name, value);
        self
    }

    /// Adds one reason in place: as [`Score::term`], and a little quicker where there are many.
    #[inline]
    pub fn add(&mut self, name: impl Into<Name>, value: i64) {
        if value == 0 {
            return;
        }
        let sum = self.value.wrapping_add(value);
        // Neither is far out, so the sum did not overflow.
        if !is_within(value, 2 * Self::MAX) || !is_within(sum, Self::MAX) {
            self.cut_off(name.into(), value);
            return;
        }
        self.value = sum;
        if !quiet::is_quiet() {
            self.keep(name.into(), value);
        }
    }

    /// Adds what of the reason stays within the range.
    #[cold]
    #[inline(never)]
    fn cut_off(&mut self, name: Name, value: i64) {
        let sum = self.value.saturating_add(value).clamp(Self::MIN, Self::MAX);
        let added = sum.saturating_sub(self.value);
        self.value = sum;
        if added != 0 && !quiet::is_quiet() {
            self.keep(name, added);
        }
    }

    /// Out of line: most scores are only compared.
    #[cold]
    #[inline(never)]
    fn keep(&mut self, name: Name, value: i64) {
        if self.terms.capacity() == 0 {
            self.terms = Vec::with_capacity(quiet::room());
        }
        self.terms.push(Term { name, value });
    }

    /// All reasons of both.
    #[must_use]
    pub fn plus(mut self, mut other: Self) -> Self {
        self.terms.append(&mut other.terms);
        self.value = self.value.saturating_add(other.value);
        self.within(Self::MIN, Self::MAX)
    }

    /// The same, of one that is needed again.
    pub(crate) fn plus_all(mut self, other: &Self) -> Self {
        if !other.terms.is_empty() && self.terms.capacity() == 0 {
            self.terms = Vec::with_capacity(quiet::room());
        }
        self.terms.extend_from_slice(&other.terms);
        self.value = self.value.saturating_add(other.value);
        self.within(Self::MIN, Self::MAX)
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

/// Whether the number is within `-most..=most`.
#[inline]
pub(crate) const fn is_within(number: i64, most: i64) -> bool {
    number.wrapping_add(most).cast_unsigned() <= (2 * most).cast_unsigned()
}

/// Runs `score` without keeping the terms of scores. Their values are the same.
pub(crate) fn quietly<T>(score: impl FnOnce() -> T) -> T {
    let _end = quiet::begin();
    score()
}

/// A score that is kept as one of thousands: nearly as small as it can be. The next one begins with room for as many terms.
pub(crate) fn packed(mut score: Score) -> Score {
    let (many, room) = (score.terms.len(), score.terms.capacity());
    quiet::set_room(many.saturating_add(1));
    if room > many.saturating_add(SPARE) {
        score.terms.shrink_to_fit();
    }
    score
}

/// As many terms as most scores have.
const ROOM: usize = 12;
/// Room for so many terms more than there are is not worth a copy.
const SPARE: usize = 4;

#[cfg(target_arch = "wasm32")]
mod quiet {
    use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    /// A module has one thread (the host refuses shared memories).
    static QUIET: AtomicBool = AtomicBool::new(false);
    static ROOM: AtomicUsize = AtomicUsize::new(super::ROOM);

    pub(super) fn room() -> usize {
        ROOM.load(Relaxed)
    }

    pub(super) fn set_room(room: usize) {
        ROOM.store(room, Relaxed);
    }

    #[inline]
    pub(super) fn is_quiet() -> bool {
        QUIET.load(Relaxed)
    }

    pub(super) fn begin() -> End {
        End(QUIET.swap(true, Relaxed))
    }

    /// Puts back what was before, also when a policy panics.
    pub(super) struct End(bool);

    impl Drop for End {
        fn drop(&mut self) {
            QUIET.store(self.0, Relaxed);
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod quiet {
    use core::cell::Cell;

    std::thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
        static ROOM: Cell<usize> = const { Cell::new(super::ROOM) };
    }

    pub(super) fn room() -> usize {
        ROOM.get()
    }

    pub(super) fn set_room(room: usize) {
        ROOM.set(room);
    }

    #[inline]
    pub(super) fn is_quiet() -> bool {
        QUIET.get()
    }

    pub(super) fn begin() -> End {
        End(QUIET.replace(true))
    }

    /// Puts back what was before, also when a policy panics.
    pub(super) struct End(bool);

    impl Drop for End {
        fn drop(&mut self) {
            QUIET.set(self.0);
        }
    }
}
