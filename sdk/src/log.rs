//! What a policy may say to the operator besides its verdict.

/// How important a line is. The host bounds the number and the length of lines a call may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// The last words of a policy that panics. Written by the SDK.
    Panic = 0,
    /// The verdict is likely to be wrong.
    Error = 1,
    /// The operator should look at it.
    Warn = 2,
    /// Good to know.
    Info = 3,
    /// For the policy's author.
    Debug = 4,
    /// How far a call has come ("decoded", "scored", "encoded"). Written by the SDK, for a host that measures.
    Phase = 5,
}

/// Writes a line to the host's log. Natively (in tests) it goes nowhere.
pub fn write(level: Level, line: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::log(level, line);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (level, line);
}

/// Whether the host wants lines of this level. Natively it wants all, so that a test tries the words too.
#[must_use]
pub fn wants(level: Level) -> bool {
    #[cfg(target_arch = "wasm32")]
    return level as i32 <= crate::guest::level();
    #[cfg(not(target_arch = "wasm32"))]
    return level <= Level::Debug;
}

/// Writes a formatted line at the level [`Level::Error`]. Nothing is formatted that the host does not want.
#[macro_export]
macro_rules! log_error {
    ($($part:tt)+) => { $crate::__log!(Error, $($part)+) };
}

/// Writes a formatted line at the level [`Level::Warn`].
#[macro_export]
macro_rules! log_warn {
    ($($part:tt)+) => { $crate::__log!(Warn, $($part)+) };
}

/// Writes a formatted line at the level [`Level::Info`].
#[macro_export]
macro_rules! log_info {
    ($($part:tt)+) => { $crate::__log!(Info, $($part)+) };
}

/// Writes a formatted line at the level [`Level::Debug`].
#[macro_export]
macro_rules! log_debug {
    ($($part:tt)+) => { $crate::__log!(Debug, $($part)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($part:tt)+) => {
        if $crate::log::wants($crate::log::Level::$level) {
            $crate::log::write($crate::log::Level::$level, &$crate::log::__format!($($part)+));
        }
    };
}

#[doc(hidden)]
pub use alloc::format as __format;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_formatted_natively_too_so_that_its_words_are_tried() {
        let mut formatted = 0;
        let mut count = || {
            formatted += 1;
            formatted
        };
        log_info!("{} of {}", count(), count());
        log_debug!("{}", count());
        assert_eq!(formatted, 3);
        assert!(wants(Level::Error) && wants(Level::Warn));
    }
}
