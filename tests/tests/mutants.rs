//! The table of planted bugs: each is described, planted somewhere, and hunted. `cargo sim mutants` does the hunting.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use steadfast_tests::mutants::targets::TARGETS;

/// A planted bug, as its source says.
#[derive(Debug)]
struct Planted {
    name: String,
    text: String,
    section: String,
}

fn core() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/core/src")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entries of `planted! { .. }`: a sentence, then `Name = "section",`.
fn planted() -> Vec<Planted> {
    let source = read(&core().join("mutants.rs"));
    let table = source.split("planted! {\n").nth(1).expect("a table of planted bugs");
    let table = table.split("\n}").next().expect("its end");
    let mut text = String::new();
    let mut found = Vec::new();
    for line in table.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            text = format!("{text}{words}");
        } else if let Some((name, section)) = line.split_once(" = ") {
            let section = section.trim_matches(['"', ',']).to_string();
            let text = std::mem::take(&mut text).trim().to_string();
            found.push(Planted { name: name.to_string(), text, section });
        }
    }
    found
}

/// Every `mutant!(Name)` in the core.
fn places() -> Vec<String> {
    let files = std::fs::read_dir(core()).expect("the core's source");
    let files = files.map(|entry| entry.expect("a file").path());
    let mut names = Vec::new();
    for path in files.filter(|path| path.extension().is_some_and(|ending| ending == "rs")) {
        let source = read(&path);
        let after = source.split("mutant!(").skip(1);
        names.extend(after.filter_map(|rest| Some(rest.split_once(')')?.0.to_string())));
    }
    names
}

#[test]
fn every_planted_bug_is_one_sentence_about_one_section_of_the_protocol() {
    for Planted { name, text, section } in planted() {
        assert!(text.len() > 20 && text.ends_with('.'), "{name}: {text:?}");
        assert!(["3", "4", "5", "6", "7"].contains(&section.as_str()), "{name}: {section:?}");
    }
}

#[test]
fn every_planted_bug_breaks_a_promise_that_the_judge_knows() {
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim");
    let files = std::fs::read_dir(judge).expect("the simulator's source");
    let judge: String = files.map(|entry| read(&entry.expect("a file").path())).collect();
    for target in TARGETS {
        assert!(!target.rules.is_empty(), "{} breaks nothing", target.name);
        for rule in target.rules {
            assert!(judge.contains(&format!("\"{rule}\"")), "{}: no rule {rule}", target.name);
        }
    }
}

#[test]
fn every_planted_bug_stands_in_the_core() {
    let places: BTreeSet<String> = places().into_iter().collect();
    let names: BTreeSet<String> = planted().into_iter().map(|planted| planted.name).collect();
    assert_eq!(places, names);
}

#[test]
fn every_planted_bug_is_hunted() {
    let names: Vec<String> = planted().into_iter().map(|planted| planted.name).collect();
    let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(targets, names);
}
