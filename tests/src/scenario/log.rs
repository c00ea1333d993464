//! A story's log: time, who, what, in columns. Times are rounded to tenths of seconds.

use crate::sim::clock::{MS, Time};

/// One line.
#[derive(Debug, Clone)]
struct Line {
    at: Time,
    who: String,
    what: String,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Log {
    lines: Vec<Line>,
    mark: usize,
}

impl Log {
    /// Adds a line.
    pub fn add(&mut self, at: Time, who: &str, what: &str) {
        self.lines.push(Line { at, who: who.into(), what: in_tenths(what) });
    }

    /// Forgets everything: the story begins here.
    pub fn clear(&mut self) {
        (self.mark, self.lines) = (0, Vec::new());
    }

    /// How many lines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// Keeps the first lines.
    pub fn truncate(&mut self, count: usize) {
        self.lines.truncate(count);
    }

    /// Something is done: what is logged from here on may come of it.
    pub fn mark(&mut self) {
        self.mark = self.lines.len();
    }

    /// Lines since the mark, as "who what".
    pub fn since_mark(&self) -> impl Iterator<Item = String> {
        self.lines[self.mark..].iter().map(Line::words)
    }

    /// All lines, as "who what".
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.lines.iter().map(Line::words)
    }

    /// The log as people read it, in time since `begin`.
    #[must_use]
    pub fn print(&self, begin: Time) -> Vec<String> {
        let width = self.lines.iter().map(|line| line.who.len()).max().unwrap_or(0).max(2);
        let print = |line: &Line| {
            let tenths = (line.at.saturating_sub(begin) + 50 * MS) / (100 * MS);
            let (whole, tenth) = (tenths / 10, tenths % 10);
            format!("{whole:>5}.{tenth}  {:<width$}  {}", line.who, line.what)
        };
        self.lines.iter().map(print).collect()
    }
}

impl Line {
    fn words(&self) -> String {
        format!("{} {}", self.who, self.what)
    }
}

/// "2499 ms" -> "2.5 s", so that a millisecond more or less changes no log.
fn in_tenths(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut k = 0;
    while k < words.len() {
        let unit = words.get(k + 1).copied().unwrap_or_default();
        let rest = unit.strip_prefix("ms");
        let millis = words[k].parse::<u64>();
        match (millis, rest) {
            (Ok(millis), Some(rest)) if !rest.starts_with(char::is_alphanumeric) => {
                let tenths = (millis + 50) / 100;
                out.push(format!("{}.{} s{rest}", tenths / 10, tenths % 10));
                k += 2;
            }
            _ => {
                out.push(words[k].into());
                k += 1;
            }
        }
    }
    out.join(" ")
}

/// "FullFailure" -> "full failure".
#[must_use]
pub fn plain(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_rounded() {
        let mut log = Log::default();
        log.add(10_049_999, ">", "power n2 off");
        log.add(110_050_000, "n2", "waits 2449 ms, or more");
        let expected = ["   10.0  >   power n2 off", "  110.1  n2  waits 2.4 s, or more"];
        assert_eq!(log.print(0), expected);
    }

    #[test]
    fn names_of_variants_become_words() {
        assert_eq!(plain("FullFailure"), "full failure");
        assert_eq!(plain("Rebooted"), "rebooted");
    }
}
