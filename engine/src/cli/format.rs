//! Small things of text.

use comfy_table::{ContentArrangement, Table, presets};
use std::fmt::Write as _;
use std::time::Duration;
use steadfast_core::time::Millis;

/// A table without frames, as wide as the terminal.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("expected KEY=VALUE, got {text:?}")),
    }
}

/// `90s`, `30m`, `2h`.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a time such as 90s, 30m or 2h, got {text:?}");
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at));
    let (number, unit) = text.split_at(split.ok_or_else(wrong)?);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(factor).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// `0.4 s`, `12 s`, `3 min`; `-` without a value.
pub(super) fn age(length: Option<Millis>) -> String {
    match length {
        None => "-".into(),
        Some(Millis(ms @ ..10_000)) => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        Some(Millis(ms @ ..120_000)) => format!("{} s", ms / 1_000),
        Some(Millis(ms)) => format!("{} min", ms / 60_000),
    }
}

/// `2026-11-23 03:21:53.120` in UTC.
pub(super) fn utc(wall_ms: u64) -> String {
    let (days, ms) = (wall_ms / 86_400_000, wall_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, rest) = (ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{rest:03}")
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `name` as one segment of a path, or a value of a query.
pub(super) fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_people() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(1_709_210_096_789), "2024-02-29 12:34:56.789");
        assert_eq!(utc(1_795_404_113_120), "2026-11-23 03:21:53.120");
        assert_eq!(age(Some(Millis(450))), "0.4 s");
        assert_eq!(age(Some(Millis(119_000))), "119 s");
        assert_eq!(age(Some(Millis(180_000))), "3 min");
        assert_eq!(age(None), "-");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("web 1/ü"), "web%201%2F%C3%BC");
    }

    #[test]
    fn lengths_have_a_unit() {
        assert_eq!(length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(length("2h"), Ok(Duration::from_secs(7_200)));
        for wrong in ["", "30", "m", "0s", "1d", "-1s", "3\u{fc}"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_need_a_key() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("=b").is_err() && pair("a").is_err());
    }
}
