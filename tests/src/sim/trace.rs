//! The story of one world: one line a state change.

use super::clock::Time;

/// Lines, if anybody wants them.
#[derive(Debug, Default)]
pub struct Trace {
    /// Keep lines?
    pub on: bool,
    /// Keep every event and action too?
    pub verbose: bool,
    /// What was kept.
    pub lines: Vec<String>,
}

impl Trace {
    /// Adds a line. `node` is empty for the world's own doings.
    pub fn add(&mut self, now: Time, node: &str, what: &str) {
        let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
        self.lines.push(format!("{seconds:>5}.{micros:06}  {node:<4}{what}"));
    }
}
