//! Chance: xoshiro256** seeded by splitmix64. Every choice of a world comes from here.

/// A source of chance. Equal seeds, equal choices, on every machine and for ever.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
    still: bool,
}

impl Rng {
    /// Chance from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mix = seed;
        let mut next = || {
            mix = mix.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = mix;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self { state: [next(), next(), next(), next()], still: false }
    }

    /// No chance at all: always the middle of what is possible, whatever was asked before. For stories, whose logs
    /// must not change when somebody draws a number more.
    #[must_use]
    pub fn still() -> Self {
        Self { still: true, ..Self::new(0) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        if self.still {
            return u64::MAX / 2;
        }
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `limit` (0 if `limit` is 0).
    #[allow(clippy::cast_possible_truncation)] // The upper half of a 128 bit product has 64 bits.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Like [`Rng::range`], but small numbers are much likelier: most things are quick, some are not.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let shift = self.below(8);
        self.range(low, low + ((high.saturating_sub(low)) >> shift))
    }

    /// True in `permille` of 1000 cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// An index below `length`.
    #[allow(clippy::cast_possible_truncation)] // It is below a usize.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of `items`.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }
}
