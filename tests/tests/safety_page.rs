//! `engine/SAFETY.md` tells the truth: each invariant that it names has its function, its simulator check and its stories, and
//! its numbers are the presets'.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use steadfast_core::config::{Timing, surely_dead};
use steadfast_core::time::Millis;
use steadfast_core::timing_lint;

/// PROTOCOL section 8.
const INVARIANTS: [&str; 10] = [
    "one_home",
    "one_leader_per_term",
    "no_start_without_proof",
    "ledger_is_linear",
    "no_single_channel",
    "calm",
    "policy_is_advice",
    "hands_off",
    "eventually_up",
    "explained",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").into()
}

fn page() -> String {
    fs::read_to_string(root().join("engine/SAFETY.md")).expect("the page")
}

/// All of the simulator's source: its judge is spread over several files.
fn simulator() -> String {
    let folder = fs::read_dir(root().join("tests/src/sim")).expect("the simulator");
    let files = folder.filter_map(Result::ok).map(|entry| entry.path());
    files.filter_map(|file| fs::read_to_string(file).ok()).collect()
}

/// Cells of every table row, trimmed.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let lines = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Names in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_invariant_has_its_function_its_check_and_its_stories() {
    let (page, simulator) = (page(), simulator());
    let agent = fs::read_to_string(root().join("engine/core/src/invariants.rs")).expect("source");
    let mut named = BTreeSet::new();
    for row in rows(&page).into_iter().filter(|row| row.len() == 7 && row[0].starts_with('`')) {
        let name = quoted(row[0])[0];
        named.insert(name.to_string());
        for function in quoted(row[4]) {
            assert!(agent.contains(&format!("pub fn {function}(")), "{name}: no fn {function}");
        }
        for check in quoted(row[5]) {
            let judged = simulator.contains(&format!("\"{check}\""));
            assert!(judged, "{name}: the simulator has no check {check}");
        }
        let stories = quoted(row[6]);
        assert!(!stories.is_empty(), "{name} has no story");
        for story in stories {
            let file = root().join(format!("tests/scenarios/{story}.txt"));
            assert!(file.is_file(), "{name}: there is no story {story}");
        }
    }
    assert_eq!(named, INVARIANTS.map(String::from).into());
}

#[test]
fn every_other_check_that_the_page_names_is_the_simulators() {
    let (page, simulator) = (page(), simulator());
    let carriers = page.split_once("What carries them").expect("the paragraph").1;
    let carriers = carriers.split_once("\n\n").expect("its end").0;
    for check in quoted(carriers) {
        assert!(simulator.contains(&format!("\"{check}\"")), "the simulator has no check {check}");
    }
    let plants =
        rows(&page).into_iter().filter(|row| row.len() == 3).flat_map(|row| quoted(row[2]));
    for plant in plants {
        assert!(simulator.contains(&format!("{plant},")), "the simulator plants no {plant}");
    }
}

#[test]
fn the_numbers_are_those_of_the_presets() {
    let membership = Millis(1_100);
    let presets =
        [Timing::fast(membership), Timing::standard(membership), Timing::calm(membership)];
    let page = page();
    let told = |name: &str| {
        let rows = rows(&page);
        let row = rows.iter().find(|row| row.len() == 4 && row[0] == name);
        let cells = row.unwrap_or_else(|| panic!("the page does not say {name}"))[1..].iter();
        cells.map(|cell| cell.parse().expect("a number")).collect::<Vec<u64>>()
    };
    let check = |name: &str, of: &dyn Fn(&Timing) -> u64| {
        assert_eq!(told(name), presets.iter().map(of).collect::<Vec<_>>(), "{name}");
    };
    check("beat", &|t| t.beat.0);
    check("L", &|t| t.lease.0);
    check("S", &|t| t.stop.0);
    check("W", &|t| t.watchdog.0);
    check("full failure", &|t| t.full_failure.0);
    check("network isolation", &|t| t.network_isolation.0);
    check("storage isolation", &|t| t.storage_isolation.0);
    check("start margin", &|t| t.start_margin.0);
    check("storage cycle deadline", &|t| t.storage_deadline.0);
    check("last feed decided on: B + L + S - 2 W", &|t| t.span().0 - 2 * t.watchdog.0);
    check("time is proof: (L + S) * 1.01 + 250", &|t| surely_dead(t.span()).0);
}

#[test]
fn every_inequality_that_the_linter_refuses_is_explained() {
    let page = page();
    let rows = rows(&page);
    let explained: Vec<&str> = rows.iter().filter(|row| row.len() == 2).map(|row| row[0]).collect();
    for name in timing_lint::names() {
        // That nothing may be 0 needs no proof.
        let trivial = name.starts_with("1 ms <= ");
        assert!(trivial || explained.contains(&name), "SAFETY.md does not explain {name}");
    }
}

#[test]
fn the_time_line_is_that_of_the_standard_preset() {
    let timing = Timing::standard(Millis(1_100));
    let page = page();
    let line = page.split("```").nth(1).expect("the time line");
    let (lease, span, watchdog) = (timing.lease.0, timing.span().0, timing.watchdog.0);
    for instant in [span - 2 * watchdog, lease, span - watchdog, span - 250, span] {
        assert!(line.contains(&format!("B + {instant:>5} ")), "B + {instant} is not on the line");
    }
    assert!(line.contains(&surely_dead(timing.span()).0.to_string()));
}
