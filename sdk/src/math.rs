//! Integer arithmetic that neither panics nor depends on the machine.

/// `part` of `whole` in thousandths, 0..=1_000_000. Nothing of nothing is 0.
///
/// ```
/// assert_eq!(steadfast_sdk::math::permille(1, 4), 250);
/// assert_eq!(steadfast_sdk::math::permille(1, 0), 1_000_000);
/// assert_eq!(steadfast_sdk::math::permille(0, 0), 0);
/// ```
#[must_use]
#[inline]
pub fn permille(part: u64, whole: u64) -> i64 {
    const MOST: u64 = 1_000_000;
    // Mostly all is small: a division of 64 bits takes twice as long.
    if let (Ok(part @ 0..=4_000_000), Ok(whole @ 1..)) = (u32::try_from(part), u32::try_from(whole))
    {
        return i64::from(part * 1000 / whole).min(MOST.cast_signed());
    }
    // Up to here the product fits; beyond, a thousandth of the whole is exact enough.
    const EXACT: u64 = u64::MAX / 1000;
    if whole == 0 {
        return if part == 0 { 0 } else { MOST.cast_signed() };
    }
    let share = match part {
        ..=EXACT => part.wrapping_mul(1000) / whole,
        _ => part / (whole / 1000).max(1),
    };
    share.min(MOST).cast_signed()
}

/// A size or a count as a signed number, for scores. What does not fit is the largest number.
#[must_use]
pub fn mib(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Where `value` stands between `from` (0) and `to` (1000), in thousandths, 0..=1000.
///
/// ```
/// assert_eq!(steadfast_sdk::math::ramp(75, 50, 100), 500);
/// assert_eq!(steadfast_sdk::math::ramp(10, 50, 100), 0);
/// assert_eq!(steadfast_sdk::math::ramp(500, 50, 100), 1000);
/// ```
#[must_use]
pub fn ramp(value: i64, from: i64, to: i64) -> i64 {
    if value <= from {
        return 0;
    }
    if value >= to {
        return 1000;
    }
    value.saturating_sub(from).saturating_mul(1000) / to.saturating_sub(from).max(1)
}

/// `units` times the points for `each`, without overflow: units are cut to ±1e6, points to ±1e9.
///
/// ```
/// assert_eq!(steadfast_sdk::math::points(3, -50), -150);
/// assert_eq!(steadfast_sdk::math::points(i64::MAX, i64::MAX), 1_000_000_000_000_000);
/// ```
#[must_use]
#[inline]
pub fn points(units: i64, each: i64) -> i64 {
    // Mostly there is nothing. Cut first: a checked product of 64 bits is a function call in WebAssembly.
    if units == 0 {
        return 0;
    }
    units.clamp(-1_000_000, 1_000_000).wrapping_mul(each.clamp(-1_000_000_000, 1_000_000_000))
}

/// The points of a reason that takes points off where it holds.
///
/// ```
/// assert_eq!(steadfast_sdk::math::lost(true, 50), -50);
/// assert_eq!(steadfast_sdk::math::lost(false, 50), 0);
/// ```
#[must_use]
#[inline]
pub fn lost(holds: bool, each: i64) -> i64 {
    if holds { -points(1, each) } else { 0 }
}
