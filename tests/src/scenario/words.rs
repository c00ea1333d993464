//! Words of stories: names, lengths of time, numbers.

use crate::sim::clock::{MS, SECOND, Time};

/// Names that a story may use.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Number of nodes; they are called n1, n2 and so on.
    pub nodes: usize,
    /// Names of VMs, in the order of the world's indices.
    pub vms: Vec<String>,
}

impl Names {
    /// Index of a node.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn node(&self, word: &str) -> Result<usize, String> {
        let number = word.strip_prefix('n').and_then(|digits| digits.parse::<usize>().ok());
        let index = number.and_then(|n| n.checked_sub(1)).filter(|n| *n < self.nodes);
        index.ok_or_else(|| format!("no such node: {word}; nodes are n1 to n{}", self.nodes))
    }

    /// Nodes as bits: `all`, or their names.
    ///
    /// # Errors
    /// If one of them does not exist, or none is named.
    pub fn mask(&self, words: &[&str]) -> Result<u64, String> {
        match words {
            [] => Err("which nodes?".into()),
            ["all"] => Ok((1 << self.nodes) - 1),
            _ => words.iter().try_fold(0, |mask, word| Ok(mask | 1 << self.node(word)?)),
        }
    }

    /// Index of a VM.
    ///
    /// # Errors
    /// If there is no such VM.
    pub fn vm(&self, word: &str) -> Result<usize, String> {
        let known = || format!("no such VM: {word}; VMs are {}", self.vms.join(", "));
        self.vms.iter().position(|name| name == word).ok_or_else(known)
    }
}

/// "n1 n3", for people.
#[must_use]
pub fn node_words(mask: u64) -> String {
    crate::sim::network::mask_words(mask)
}

/// A length: `250ms`, `1.5s`, `2min`.
///
/// # Errors
/// If it is none.
pub fn length(word: &str) -> Result<Time, String> {
    let bad = || format!("not a length of time: {word}; write 250ms, 1.5s or 2min");
    let units = [("ms", MS), ("min", 60 * SECOND), ("s", SECOND)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(suffix, unit)| Some((word.strip_suffix(suffix)?, unit)))
        .ok_or_else(bad)?;
    decimal(number, unit).ok_or_else(bad)
}

/// `number` times `unit`, with up to six decimals and without floats.
fn decimal(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let (whole, fraction) = (whole.parse::<u64>().ok()?, fraction.parse::<u64>().ok()?);
    Some(whole * unit + fraction * unit / scale)
}

/// `+0.5%` as ticks per million.
///
/// # Errors
/// If it is none.
pub fn rate(word: &str) -> Result<u64, String> {
    let bad = || format!("not a rate: {word}; write +0.5% or -0.5%");
    let body = word.strip_suffix('%').ok_or_else(bad)?;
    let (slower, digits) = match body.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, body.strip_prefix('+').ok_or_else(bad)?),
    };
    let part = decimal(digits, 10_000).filter(|part| *part < 1_000_000).ok_or_else(bad)?;
    Ok(if slower { 1_000_000 - part } else { 1_000_000 + part })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_to_the_microsecond() {
        assert_eq!(length("250ms"), Ok(250_000));
        assert_eq!(length("0.3ms"), Ok(300));
        assert_eq!(length("1.5s"), Ok(1_500_000));
        assert_eq!(length("2min"), Ok(120_000_000));
        assert!(length("5").is_err());
        assert!(length("fives").is_err());
        assert!(length("1.s").is_err());
    }

    #[test]
    fn rates_are_ticks_per_million() {
        assert_eq!(rate("+0.5%"), Ok(1_005_000));
        assert_eq!(rate("-0.5%"), Ok(995_000));
        assert!(rate("0.5%").is_err());
        assert!(rate("-100%").is_err());
    }

    #[test]
    fn nodes_are_named_by_their_numbers() {
        let names = Names { nodes: 3, vms: vec!["web".into()] };
        assert_eq!(names.mask(&["n1", "n3"]), Ok(0b101));
        assert_eq!(names.mask(&["all"]), Ok(0b111));
        assert!(names.node("n4").is_err());
        assert!(names.node("n0").is_err());
        assert!(names.mask(&[]).is_err());
    }
}
