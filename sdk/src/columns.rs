//! The second encoding, `columns`: a tenth of JSON's work for the same question, for modules whose manifest names it.
//!
//! A message is [`MAGIC`], then sections: a tag (one byte), a length (four bytes, little-endian), so many bytes. A section
//! holds one field of all rows of a table, each as a number of seven bits a byte, lowest first (the high bit: more follow).
//! A section that is missing means the field's default in every row; one that is unknown is skipped: so fields can be added, as in
//! JSON. Words that come again and again are written once and named by number.

pub(crate) mod placement;
#[cfg(test)]
mod tests;

use alloc::{string::String, vec::Vec};

use crate::words::Words;

/// First byte of a message. No JSON begins with it.
pub const MAGIC: u8 = 0xc1;
/// Name of this encoding in a manifest.
pub const NAME: &str = "columns";
/// So many literals are looked at before one is looked up.
const LITERALS: usize = 16;
/// Section of the words: their number, their lengths, then all of them.
const WORDS: u8 = 0;

/// The bytes are no message of this encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The section's tag.
    pub section: u8,
    /// What is wrong in it.
    pub what: &'static str,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "section {}: {}", self.section, self.what)
    }
}

impl core::error::Error for Malformed {}

/// A message under construction.
#[derive(Debug)]
struct Writer<'a> {
    bytes: Vec<u8>,
    words: Words<'a>,
    /// Which literal is likely to come next.
    next: usize,
}

impl<'a> Writer<'a> {
    fn with_capacity(bytes: usize) -> Self {
        let mut new = Self::part(bytes);
        new.bytes.push(MAGIC);
        new
    }

    /// A section's payload, written on its own.
    fn part(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), words: Words::default(), next: 0 }
    }

    fn payload(&mut self, tag: u8, payload: &[u8]) {
        self.section(tag, |writer| writer.bytes.extend_from_slice(payload));
    }

    /// The message. Words come last, when all are known.
    fn finish(mut self) -> Vec<u8> {
        let words = core::mem::take(&mut self.words);
        self.texts(WORDS, words.known().iter().map(|(word, _)| *word));
        self.bytes
    }

    fn section(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        self.bytes.extend_from_slice(&[tag, 0, 0, 0, 0]);
        let from = self.bytes.len();
        fill(self);
        let len = u32::try_from(self.bytes.len() - from).unwrap_or(u32::MAX);
        self.bytes[from - 4..from].copy_from_slice(&len.to_le_bytes());
    }

    /// One number a row; no section if all are 0.
    fn numbers(&mut self, tag: u8, rows: impl Iterator<Item = u64> + Clone) {
        if rows.clone().any(|number| number != 0) {
            self.section(tag, |writer| rows.for_each(|number| writer.number(number)));
        }
    }

    /// One text a row, each only once seen: their lengths, then all of them.
    fn texts<'t>(&mut self, tag: u8, rows: impl Iterator<Item = &'t str> + Clone) {
        self.section(tag, |writer| {
            writer.number(rows.clone().count() as u64);
            rows.clone().for_each(|text| writer.number(text.len() as u64));
            rows.for_each(|text| writer.bytes.extend_from_slice(text.as_bytes()));
        });
    }

    #[inline]
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(low_bits(number) | 0x80);
            number >>= 7;
        }
        self.bytes.push(low_bits(number));
    }

    /// A number with a sign: the sign is the lowest bit, so that small ones stay short.
    #[inline]
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    #[inline]
    fn word(&mut self, word: &'a str) {
        let number = self.words.add((word, ""));
        self.number(number as u64);
    }

    /// The same for one that mostly is a literal, and so the same piece of memory again: that is seen without hashing. They mostly
    /// come in the same order, with some left out.
    #[inline]
    fn literal(&mut self, word: &'a str) {
        let known = self.words.known();
        if known.get(self.next).is_some_and(|it| core::ptr::eq(it.0, word)) {
            self.number(self.next as u64);
            self.next += 1;
            return;
        }
        let from = self.next.min(known.len());
        let is_it = |it: &(&str, &str)| core::ptr::eq(it.0, word);
        let behind = known[from..].iter().take(LITERALS).position(is_it).map(|at| from + at);
        let guess = behind.or_else(|| known[..from].iter().take(LITERALS).position(is_it));
        let number = guess.unwrap_or_else(|| self.words.add((word, "")));
        self.next = number + 1;
        self.number(number as u64);
    }
}

fn low_bits(number: u64) -> u8 {
    (number & 0x7f) as u8
}

/// The sections of a message.
#[derive(Debug)]
struct Sections<'m> {
    sections: Vec<(u8, &'m [u8])>,
}

impl<'m> Sections<'m> {
    fn of(message: &'m [u8]) -> Result<Self, Malformed> {
        let cut = Malformed { section: 0, what: "the message ends too early" };
        let (magic, mut rest) = message.split_first().ok_or(cut)?;
        if *magic != MAGIC {
            return Err(Malformed { what: "the message does not begin as one", ..cut });
        }
        let mut sections = Vec::new();
        while let Some((tag, after)) = rest.split_first() {
            let (len, after) = after.split_first_chunk::<4>().ok_or(cut)?;
            let len = u32::from_le_bytes(*len) as usize;
            let (payload, after) = after.split_at_checked(len).ok_or(cut)?;
            sections.push((*tag, payload));
            rest = after;
        }
        Ok(Self { sections })
    }

    fn reader(&self, tag: u8) -> Option<Reader<'m>> {
        let found = self.sections.iter().find(|(own, _)| *own == tag);
        found.map(|(_, rest)| Reader { section: tag, rest })
    }

    /// Reads one number for each row, if the section is there.
    fn numbers<R>(
        &self,
        tag: u8,
        rows: &mut [R],
        set: impl Fn(&mut R, u64),
    ) -> Result<(), Malformed> {
        let Some(mut reader) = self.reader(tag) else { return Ok(()) };
        for row in rows {
            set(row, reader.number()?);
        }
        reader.end()
    }

    /// The texts of a section: none if it is missing.
    fn texts(&self, tag: u8) -> Result<Vec<&'m str>, Malformed> {
        let Some(mut reader) = self.reader(tag) else { return Ok(Vec::new()) };
        let count = reader.count()?;
        let lengths: Vec<usize> = (0..count).map(|_| reader.size()).collect::<Result<_, _>>()?;
        // Checked as a whole: that is much quicker than each.
        let wrong = Malformed { section: tag, what: "texts that are no UTF-8 or too short" };
        let mut rest = core::str::from_utf8(reader.rest).map_err(|_| wrong)?;
        let mut text = |len| {
            let (text, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(text)
        };
        lengths.into_iter().map(|len| text(len).ok_or(wrong)).collect()
    }
}

/// What is left of a section.
#[derive(Debug)]
struct Reader<'m> {
    section: u8,
    rest: &'m [u8],
}

impl<'m> Reader<'m> {
    #[inline]
    fn number(&mut self) -> Result<u64, Malformed> {
        match self.rest.split_first() {
            Some((byte, rest)) if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, Malformed> {
        // Up to four bytes, as nearly all have, without a loop.
        let four = self.rest.first_chunk().map_or(0x8080_8080, |four| u32::from_le_bytes(*four));
        let ends = !four & 0x8080_8080;
        if ends != 0 {
            let len = ends.trailing_zeros() / 8 + 1;
            let own = four & (u32::MAX >> (32 - 8 * len));
            self.rest = &self.rest[len as usize..];
            let number =
                own & 0x7f | own >> 1 & 0x3f80 | own >> 2 & 0x1f_c000 | own >> 3 & 0xfe0_0000;
            return Ok(number.into());
        }
        let mut number = 0_u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        self.fail("a number is cut off or has more than 64 bits")
    }

    #[inline]
    fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number of things that follow, at least a byte each.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.size()?;
        if count > self.rest.len() {
            return self.fail("it has fewer rows than it says");
        }
        Ok(count)
    }

    #[inline]
    fn size(&mut self) -> Result<usize, Malformed> {
        let number = self.number()?;
        usize::try_from(number).or_else(|_| self.fail("a size is out of range"))
    }

    #[inline]
    fn word(&mut self, words: &[&'m str]) -> Result<&'m str, Malformed> {
        let number = self.size()?;
        match words.get(number) {
            Some(word) => Ok(word),
            None => self.fail("there is no word of that number"),
        }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { self.fail("it has more rows than its table") }
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { section: self.section, what })
    }
}

/// A number as a field's type; what does not fit is the largest.
fn fit<T: TryFrom<u64>>(number: u64, most: T) -> T {
    T::try_from(number).unwrap_or(most)
}

fn owned(text: &str) -> String {
    String::from(text)
}
