//! A ticket lets one node in once: where to go, whom to trust there, a secret, and until when. One word, to be carried by a person.

use super::super::journal::{hex, unhex};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a ticket begins with; the number is its format.
const BEGIN: &str = "steadfast1-";
/// How long it is good.
pub const GOOD_FOR: Duration = Duration::from_secs(30 * 60);

/// A ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The inviter.
    pub address: SocketAddr,
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
    /// 128 bits.
    pub secret: [u8; 16],
    /// In seconds since 1970.
    pub until_s: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a ticket to {}", self.address)
    }
}

impl Ticket {
    /// Its word.
    #[must_use]
    pub fn word(&self) -> String {
        let mut bytes = match self.address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.extend(self.address.port().to_be_bytes());
        bytes.extend(self.until_s.to_be_bytes());
        bytes.extend(self.fingerprint);
        bytes.extend(self.secret);
        let check = Sha256::digest(&bytes);
        bytes.extend(&check[..2]);
        format!("{BEGIN}{}", hex(&bytes))
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or was not copied whole.
    pub fn parse(word: &str) -> Result<Self> {
        const REST: usize = 2 + 8 + 32 + 16;
        let digits = word.trim().strip_prefix(BEGIN).context("a ticket begins with steadfast1-")?;
        let bytes = unhex(digits).context("the ticket is damaged: copy it again")?;
        let split = bytes.len().checked_sub(2).context("the ticket is too short: copy it again")?;
        let (bytes, check) = bytes.split_at(split);
        ensure!(Sha256::digest(bytes)[..2] == *check, "the ticket is not whole: copy it again");
        let split = bytes.len().checked_sub(REST).context("the ticket is too short")?;
        let (ip, rest) = bytes.split_at(split);
        let ip: IpAddr = match ip.len() {
            4 => <[u8; 4]>::try_from(ip)?.into(),
            16 => <[u8; 16]>::try_from(ip)?.into(),
            other => anyhow::bail!("the ticket has an address of {other} bytes"),
        };
        let port = u16::from_be_bytes(rest[..2].try_into()?);
        Ok(Self {
            address: SocketAddr::new(ip, port),
            until_s: u64::from_be_bytes(rest[2..10].try_into()?),
            fingerprint: rest[10..42].try_into()?,
            secret: rest[42..58].try_into()?,
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_one_word_and_a_damaged_one_is_refused() {
        for address in ["10.0.0.1:7444", "[fd00::1]:7444"] {
            let address = address.parse().expect("an address");
            let ticket =
                Ticket { address, fingerprint: [7; 32], secret: [9; 16], until_s: 1_800_000_000 };
            let word = ticket.word();
            assert!(!word.contains(char::is_whitespace) && word.len() < 170, "{word}");
            assert_eq!(Ticket::parse(&format!(" {word}\n")).expect("whole"), ticket);
            assert!(!format!("{ticket:?}").contains("09"), "a secret is nobody's business");
            let other = word.replace("0707", "0807");
            for wrong in [&word[..word.len() - 2], &word[3..], other.as_str(), "steadfast1-00"] {
                assert!(Ticket::parse(wrong).is_err(), "{wrong}");
            }
        }
    }
}
