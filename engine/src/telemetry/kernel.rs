//! The kernel's log of broken hardware, and whether the clock is synchronised.

use super::{Measured, Scene, Trouble, tool};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Records that are read at most; the kernel's ring holds fewer.
const MOST_RECORDS: usize = 20_000;
/// The longest record.
const RECORD: usize = 8_192;
/// What is older does not count: a day, in microseconds.
const DAY: u64 = 86_400_000_000;
/// Words of records about hardware that breaks.
const HARDWARE: [&str; 7] = [
    "Hardware Error",
    "Machine check",
    "machine check events logged",
    "Uncorrected error",
    "severity=Uncorrected",
    "NMI: PCI system error",
    "memory failure",
];
/// Words of records about disks that do not answer.
const DISKS: [&str; 4] =
    ["I/O error, dev ", "critical medium error", "critical target error", "Unrecovered read error"];

/// Errors of the last day.
pub(super) fn log(scene: &Scene<'_>, now_us: u64) -> Measured {
    let path = scene.root.join("dev/kmsg");
    let text = match records(&path) {
        Ok(text) => text,
        Err(error) => {
            return Trouble::Missing(format!("{} is unreadable: {error}", path.display())).into();
        }
    };
    let (hardware, disks) = count(&text, now_us);
    let mut all = Measured::default();
    all.add("kernel.hardware_errors".into(), Some(hardware));
    all.add("kernel.io_errors".into(), Some(disks));
    all
}

/// Everything that is in the ring now, one record a line; never waits for more.
fn records(path: &Path) -> std::io::Result<String> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let (mut text, mut record) = (String::new(), vec![0; RECORD]);
    for _ in 0..MOST_RECORDS {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&record[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // The record that was to be read next has been overwritten meanwhile.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// `6,339,5140900,-;message`: priority, number, microseconds since the boot.
fn count(text: &str, now_us: u64) -> (i64, i64) {
    let (mut hardware, mut disks) = (0, 0);
    for line in text.lines() {
        let Some((head, message)) = line.split_once(';') else { continue };
        let mut words = head.split(',');
        let Some(priority) = words.next().and_then(|word| word.parse::<u32>().ok()) else {
            continue;
        };
        let at = words.nth(1).and_then(|word| word.parse::<u64>().ok());
        // Facility 0 is the kernel: others may write what they like into its log.
        let lately = at.is_some_and(|at| at.saturating_add(DAY) >= now_us);
        if priority >= 8 || !lately {
            continue;
        }
        let says = |known: &[&str]| i64::from(known.iter().any(|words| message.contains(words)));
        hardware += says(&HARDWARE);
        disks += says(&DISKS);
    }
    (hardware, disks)
}

/// Microseconds since the boot, as the kernel's log counts them.
pub(super) fn since_boot() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let (whole, part) = uptime.split_once('.').unwrap_or(("0", "0"));
    let hundredths: u64 = part.get(..2).and_then(|part| part.parse().ok()).unwrap_or(0);
    whole.parse::<u64>().unwrap_or(0) * 1_000_000 + hundredths * 10_000
}

/// By chronyc.
pub(super) fn clock(scene: &Scene<'_>) -> Measured {
    let said = match tool::run("chronyc", &["-c", "tracking"], "", scene.limit) {
        Ok(said) => said,
        Err(trouble) => return trouble.into(),
    };
    let Some((unsynchronised, offset)) = tracking(&said.out) else {
        let why = said.err.lines().chain(said.out.lines()).next().unwrap_or("it says nothing");
        return Trouble::Failed(format!("chronyc: {why}; is chronyd running?")).into();
    };
    let mut all = Measured::default();
    all.add("clock.unsynchronised".into(), Some(unsynchronised));
    all.add("clock.offset_ms".into(), offset);
    all
}

/// The fifth field is the offset in seconds, the last one says whether the clock is synchronised.
fn tracking(line: &str) -> Option<(i64, Option<i64>)> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let (offset, leap) = (fields.get(4)?, fields.get(13)?);
    #[allow(clippy::cast_possible_truncation)]
    let millis = |seconds: f64| (seconds.abs() * 1e3).min(1e12) as i64;
    let unsynchronised = *leap == "Not synchronised";
    let offset = offset.parse().ok().map(millis).filter(|_| !unsynchronised);
    Some((i64::from(unsynchronised), offset))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Root, told};
    use super::*;
    use std::time::Instant;

    #[test]
    fn errors_of_the_last_day_are_counted_and_what_others_write_is_not() {
        let root = Root::new("kmsg", &[("dev/kmsg", include_str!("fixtures/kmsg.txt"))]);
        let found = log(&root.scene(Instant::now()), 90_000_000_000);
        assert_eq!(told(&found), [("kernel.hardware_errors", 2), ("kernel.io_errors", 1)]);
        assert!(log(&Root::new("no-kmsg", &[]).scene(Instant::now()), 0).is_missing());
    }

    #[test]
    fn chrony_says_how_far_the_clock_is_off_and_whether_it_is_held() {
        let good = "50505300,PPS,1,1776153600.123456,0.250000015,0.000000021,0.000000034,-1.234,0.001,0.015,0.000000000,0.000015000,16.0,Normal\n";
        assert_eq!(tracking(good), Some((0, Some(250))));
        let bad = "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n";
        assert_eq!(tracking(bad), Some((1, None)));
        assert_eq!(tracking("506 Cannot talk to daemon\n"), None);
    }

    #[test]
    fn the_time_since_the_boot_is_known() {
        assert!(since_boot() > 0);
    }
}
