//! The house is in order: dependence points one way, and files stay short enough to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longer, and a file is read by nobody.
const MOST_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").into()
}

/// Files below the folders that hold our source.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["engine", "sdk", "policies", "tests", "examples"].map(|name| root().join(name)).into();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|known| known == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// A package's name, and those of our packages that it depends on, tests of its own left out.
fn package(manifest: &Path) -> (String, BTreeSet<String>) {
    let text = fs::read_to_string(manifest).expect("a manifest");
    let (mut section, mut name, mut needs) = ("", String::new(), BTreeSet::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let (Some((key, value)), true) = (line.split_once('='), section == "[package]") {
            if key.trim() == "name" {
                name = value.trim().trim_matches('"').into();
            }
        } else if section == "[dependencies]" {
            let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if key.starts_with("steadfast-") {
                needs.insert(key.to_string());
            }
        }
    }
    (name, needs)
}

/// What a package may depend on: policies -> sdk <- core <- engine <- tests.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    const BUILT_IN: [&str; 5] = [
        "steadfast-core",
        "steadfast-sdk",
        "steadfast-policy-node-priority",
        "steadfast-policy-placement",
        "steadfast-policy-risk",
    ];
    match name {
        "steadfast-sdk" => Some(&[]),
        "steadfast-core" => Some(&["steadfast-sdk"]),
        "steadfast-engine" => Some(&BUILT_IN),
        // Nothing depends on tests and the lab, so they may depend on all.
        "steadfast-tests" | "steadfast-lab" => None,
        // Policies, shipped ones and examples: one may build on another.
        _ => Some(&BUILT_IN[1..]),
    }
}

#[test]
fn dependence_points_one_way() {
    let manifests = files("toml").into_iter().filter(|path| path.ends_with("Cargo.toml"));
    let packages: BTreeMap<String, BTreeSet<String>> =
        manifests.map(|manifest| package(&manifest)).collect();
    for known in ["steadfast-sdk", "steadfast-core", "steadfast-engine", "steadfast-tests"] {
        assert!(packages.contains_key(known), "{known} is not found");
    }
    assert!(packages["steadfast-engine"].contains("steadfast-core"), "dependencies are not read");
    for (name, needs) in &packages {
        let Some(allowed) = allowed(name) else { continue };
        let wrong: Vec<_> = needs.iter().filter(|n| !allowed.contains(&n.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn the_core_names_no_clock_no_thread_and_no_file() {
    let core = root().join("engine/core/src");
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    for path in files("rs").into_iter().filter(|path| path.starts_with(&core) && !is_test(path)) {
        let text = fs::read_to_string(&path).expect("source");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for word in ["std::time", "std::thread", "std::fs", "HashMap", "HashSet", "f64", "f32"]
            {
                assert!(!line.contains(word), "{}: {word} in `{line}`", path.display());
            }
        }
    }
}

#[test]
fn files_stay_short() {
    let long: Vec<String> = files("rs")
        .into_iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(&path).ok()?.lines().count();
            (lines > MOST_LINES).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:#?}");
}
