//! When do the certificates of the API end? Only their time is read here; whether they are good, TLS itself decides.

use super::Check;
use crate::config::ApiTls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;

/// Seconds of a day.
const DAY: i64 = 86_400;
/// So many days are enough to get a new one, in no hurry.
const SOON: i64 = 30;
const NAME: &str = "certificates";

/// One check of each file of the API's TLS.
pub(crate) fn checks(tls: Option<&ApiTls>, now_seconds: i64) -> Vec<Check> {
    let Some(tls) = tls else { return Vec::new() };
    let files = [Some(&tls.certificate), tls.client_ca.as_ref()];
    files.into_iter().flatten().map(|file| check(file, now_seconds)).collect()
}

fn check(file: &Path, now: i64) -> Check {
    let name = format!("{NAME}: {}", file.display());
    let ends = match first_end(file) {
        Ok(ends) => ends,
        Err(why) => {
            let remedy = "clients that come over TLS will be refused at the next start; see [api]";
            return Check::red(&name, why, remedy);
        }
    };
    let days = (ends - now).div_euclid(DAY);
    let remedy = "put a new one there, then restart steadfastd (guests keep running)";
    match ends - now {
        ..=0 => Check::red(&name, format!("it ended {} days ago", -days), remedy),
        1.. if days < SOON => Check::yellow(&name, format!("it ends in {days} days"), remedy),
        _ => Check::green(&name, format!("good for {days} days")),
    }
}

/// When the first of the file's certificates ends, in seconds since 1970.
fn first_end(file: &Path) -> Result<i64, String> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    let mut ends = Vec::new();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        ends.push(end(&certificate).ok_or("a certificate in it is not understood")?);
    }
    ends.into_iter().min().ok_or_else(|| "there is no certificate in it".into())
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` (RFC 5280, 4.1): the certificate's first part, past version, number, algorithm and issuer.
fn end(certificate: &[u8]) -> Option<i64> {
    let signed = inside(inside(certificate)?)?;
    let version = part(signed)?;
    let mut rest = if version.tag == VERSION { version.rest } else { signed };
    for _ in ["serial number", "algorithm", "issuer"] {
        rest = part(rest)?.rest;
    }
    let from = part(inside(rest)?)?;
    let until = part(from.rest)?;
    seconds(until.tag, until.content)
}

/// What is in the sequence that comes first.
fn inside(bytes: &[u8]) -> Option<&[u8]> {
    part(bytes).filter(|part| part.tag == SEQUENCE).map(|part| part.content)
}

/// One element (X.690, definite lengths).
struct Part<'a> {
    tag: u8,
    content: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
}

fn part(bytes: &[u8]) -> Option<Part<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            let (digits, rest) =
                rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Part { tag, content, rest })
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let clock = two(4)? * 3_600 + two(6)? * 60 + two(8)?;
    Some(days(year, month, day) * DAY + clock)
}

/// Days from 1970 in the Gregorian calendar: years begin in March, so that a leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    /// 1 March 2027, 00:00 UTC.
    const NOW: i64 = 1_803_859_200;

    fn told(name: &str, year: i32, month: u8, day: u8) -> Check {
        let mut params = CertificateParams::new(vec!["n1".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let file = std::env::temp_dir().join(format!("sf-cert-{}-{name}", std::process::id()));
        std::fs::write(&file, pem).expect("written");
        let told = check(&file, NOW);
        std::fs::remove_file(&file).expect("removed");
        told
    }

    #[test]
    fn a_certificate_is_good_until_a_month_before_its_end() {
        let good = told("good", 2027, 3, 31);
        assert_eq!((good.level, good.text.as_str()), (Level::Green, "good for 30 days"));
        let soon = told("soon", 2027, 3, 30);
        assert_eq!((soon.level, soon.text.as_str()), (Level::Yellow, "it ends in 29 days"));
        let ended = told("ended", 2027, 2, 27);
        assert_eq!((ended.level, ended.text.as_str()), (Level::Red, "it ended 2 days ago"));
        // From 2050 on the year has four digits.
        assert_eq!(told("far", 2060, 1, 1).text, "good for 11994 days");
    }

    #[test]
    fn a_file_without_a_certificate_is_red() {
        assert_eq!(check(Path::new("/nonexistent/api.crt"), NOW).level, Level::Red);
        assert_eq!(end(&[SEQUENCE, 0x82, 0xff]), None);
        assert_eq!(checks(None, NOW), []);
    }
}
