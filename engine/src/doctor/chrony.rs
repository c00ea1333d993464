//! chrony's `maxslewrate`. Leases do not follow the wall clock, but the kernel's timers do, a software watchdog's among them:
//! slewed by chrony's default of 8 % they would outlive what everybody waits for.

use super::Check;
use std::fs;
use std::path::{Path, PathBuf};

/// The most that a kernel's timers may run apart from its raw clock, in parts per million.
const MOST: f64 = 4_000.0;
/// chronyd's own default on Linux.
const DEFAULT: f64 = 83_333.333;
/// Where distributions keep its configuration.
const FILES: [&str; 2] = ["etc/chrony/chrony.conf", "etc/chrony.conf"];
/// Files within files are followed this far.
const DEPTH: usize = 3;

pub(super) fn check(root: &Path) -> Check {
    let Some(file) = FILES.iter().map(|file| root.join(file)).find(|file| file.is_file()) else {
        return Check::green(
            "clock",
            "no chrony here; other time services slew by 500 ppm at most",
        );
    };
    let Ok(text) = fs::read_to_string(&file) else {
        let what = format!("{} is unreadable", file.display());
        return Check::yellow("clock", what, format!("see that it has `maxslewrate {MOST}`"));
    };
    let set = slew_rate(root, &text, DEPTH);
    let (rate, how) = set.map_or((DEFAULT, "by its default"), |rate| (rate, "as configured"));
    let text = format!("chrony may slew by {rate:.0} ppm {how} ({})", file.display());
    if rate <= MOST {
        return Check::green("clock", text);
    }
    let remedy = format!("add the line `maxslewrate {MOST}` to it, then restart chronyd");
    Check::red("clock", text, remedy)
}

/// What the last directive says, files within it included.
fn slew_rate(root: &Path, text: &str, depth: usize) -> Option<f64> {
    let mut rate = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next().map(str::to_lowercase).as_deref() {
            Some("maxslewrate") => rate = words.next().and_then(|word| word.parse().ok()).or(rate),
            Some("include") if depth > 0 => {
                rate = words.filter_map(|file| read_within(root, file, depth)).next_back().or(rate);
            }
            Some("confdir") if depth > 0 => {
                let files = words.flat_map(|folder| conf_files(&within(root, folder)));
                let read = |file| slew_rate(root, &fs::read_to_string(file).ok()?, depth - 1);
                rate = files.filter_map(read).next_back().or(rate);
            }
            _ => {}
        }
    }
    rate
}

fn within(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn read_within(root: &Path, file: &str, depth: usize) -> Option<f64> {
    slew_rate(root, &fs::read_to_string(within(root, file)).ok()?, depth - 1)
}

/// In the order in which chrony reads them.
fn conf_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::super::{Level, host::tests::Root};
    use super::*;

    #[test]
    fn without_chrony_there_is_nothing_to_refuse() {
        assert_eq!(check(&Root::new("none", &[]).0).level, Level::Green);
    }

    #[test]
    fn chronys_default_is_refused_with_the_line_to_add() {
        let root = Root::new("default", &[("etc/chrony/chrony.conf", "makestep 1 3\n")]);
        let found = check(&root.0);
        assert_eq!(found.level, Level::Red);
        assert!(found.text.contains("83333 ppm"), "{}", found.text);
        assert!(found.remedy.contains("maxslewrate 4000"), "{}", found.remedy);
    }

    #[test]
    fn the_last_directive_counts_and_comments_do_not() {
        let text = "maxslewrate 100000\n# maxslewrate 90000\n  MaxSlewRate 4000\n";
        let root = Root::new("last", &[("etc/chrony.conf", text)]);
        assert_eq!(check(&root.0).level, Level::Green);
    }

    #[test]
    fn files_within_files_are_read() {
        let root = Root::new(
            "within",
            &[
                ("etc/chrony/chrony.conf", "confdir /etc/chrony/conf.d\n"),
                ("etc/chrony/conf.d/a.conf", "maxslewrate 500\n"),
                ("etc/chrony/conf.d/b.txt", "maxslewrate 90000\n"),
            ],
        );
        assert_eq!(check(&root.0).level, Level::Green);
    }
}
