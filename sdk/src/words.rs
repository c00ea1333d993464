//! Numbers for words, in the order in which they are first seen: a hash table of a few lines, the same everywhere.

use alloc::{vec, vec::Vec};

/// Pairs of words (a label's key and value; a word alone has nothing beside it), numbered.
#[derive(Debug, Default)]
pub(crate) struct Words<'a> {
    known: Vec<(&'a str, &'a str)>,
    /// Numbers plus one, by hash; 0 is free. Its length is a power of two, at least twice that of `known`.
    slots: Vec<u32>,
}

impl<'a> Words<'a> {
    /// All pairs, by number.
    pub(crate) fn known(&self) -> &[(&'a str, &'a str)] {
        &self.known
    }

    /// The number of the pair, if it is known.
    pub(crate) fn find(&self, pair: (&str, &str)) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        usize::try_from(self.slots[self.slot(pair)]).ok()?.checked_sub(1)
    }

    /// The number of the pair, which is known from now on.
    pub(crate) fn add(&mut self, pair: (&'a str, &'a str)) -> usize {
        if self.slots.len() <= self.known.len() * 2 {
            self.grow();
        }
        let slot = self.slot(pair);
        if self.slots[slot] == 0 {
            self.known.push(pair);
            self.slots[slot] = u32::try_from(self.known.len()).unwrap_or(0);
        }
        self.slots[slot] as usize - 1
    }

    /// Where the pair is, or the free slot where it would be.
    fn slot(&self, pair: (&str, &str)) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(pair) & mask;
        while let Some(known) = (self.slots[slot] as usize).checked_sub(1) {
            let (first, second) = self.known[known];
            if same(first, pair.0) && same(second, pair.1) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![0; (self.slots.len() * 2).max(64)];
        for number in 0..self.known.len() {
            let slot = self.slot(self.known[number]);
            self.slots[slot] = u32::try_from(number + 1).unwrap_or(0);
        }
    }
}

/// Whether two texts are equal, without a call: they are short, and there are hundreds of thousands of them.
pub(crate) fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let (ones, others) = (one.chunks_exact(8), other.chunks_exact(8));
    end(one) == end(other) && ones.zip(others).all(|(one, other)| word(one) == word(other))
}

fn hash((first, second): (&str, &str)) -> usize {
    let sum = add(add(first.len() as u64, first.as_bytes()), second.as_bytes());
    // The high half is the well mixed one.
    (sum >> 32) as u32 as usize
}

fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    for chunk in bytes.chunks_exact(8) {
        sum = (sum.rotate_left(5) ^ word(chunk)).wrapping_mul(MIX);
    }
    (sum.rotate_left(5) ^ end(bytes)).wrapping_mul(MIX)
}

/// The last eight bytes as a number; of fewer all. Texts of one length that agree in it agree in all that `chunks_exact(8)` leaves.
fn end(bytes: &[u8]) -> u64 {
    if let Some(last) = bytes.last_chunk() {
        return u64::from_le_bytes(*last);
    }
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        _ => bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    }
}

/// Eight bytes as a number.
fn word(chunk: &[u8]) -> u64 {
    chunk.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String};

    #[test]
    fn words_are_numbered_in_the_order_in_which_they_are_seen() {
        let texts: Vec<String> = (0..5_000).map(|number| format!("word {number}")).collect();
        let mut words = Words::default();
        assert_eq!(words.find(("word 1", "")), None);
        for _ in 0..2 {
            for (number, text) in texts.iter().enumerate() {
                assert_eq!(words.add((text, "")), number);
                assert_eq!(words.find((text, "")), Some(number));
            }
        }
        assert_eq!((words.find(("", "word 1")), words.known().len()), (None, texts.len()));
    }

    #[test]
    fn texts_of_all_lengths_are_equal_only_to_themselves() {
        let text = "0123456789abcdefghij";
        for from in 0..text.len() {
            for to in from..text.len() {
                let part = &text[from..to];
                assert!(same(part, &String::from(part)));
                assert!(part.is_empty() || !same(part, &part.replace(&part[..1], "_")));
                assert!(!same(part, &text[from..=to]));
            }
        }
    }
}
