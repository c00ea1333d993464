//! Small things of text.

pub(super) use crate::clock::utc;
use comfy_table::{ContentArrangement, Table, presets};
use std::fmt::Write as _;
use std::time::Duration;
use steadfast_core::time::Millis;
use steadfast_sdk::wire::Score;

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

/// A node's priority. Below zero its size says nothing to people, the gravest doubt does: `low: status`.
pub(super) fn priority(score: &Score) -> String {
    if score.value >= 0 {
        return score.value.to_string();
    }
    let gravest = score.terms.iter().min_by_key(|term| term.value);
    gravest.map_or_else(|| "low".into(), |term| format!("low: {}", term.name))
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
    fn a_priority_below_zero_is_told_by_its_gravest_doubt() {
        let score = |value| Score::new().term("healthy", 100_000).term("status", value);
        assert_eq!(priority(&score(-180)), "99820");
        assert_eq!(priority(&score(-1_000_000)), "low: status");
        assert_eq!(priority(&Score { value: -1, terms: Vec::new() }), "low");
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
