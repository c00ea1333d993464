//! Broken and hostile modules: each is refused or contained with its own class, reason and remedy, for each kind that it applies
//! to, while the last good policy keeps deciding.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::policy::{Class, Failure, Stage, State};

const ALL: &[Kind] = &Kind::ALL;
const PLACEMENT: &[Kind] = &[Kind::Placement];
const SCORES: &[Kind] = &[Kind::NodePriority, Kind::Risk];

/// What loading this file says, while the good policy that was there before keeps deciding.
fn refusal(kind: Kind, bytes: &[u8], settings: &Settings) -> Failure {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module_for("good", kind));
    let store = folder.unwatched(settings.clone());
    assert_eq!(deciding(&store, kind).name, "good", "{:#?}", store.status());
    folder.drop_file("x.wasm", bytes);
    store.scan();
    let status = store.status();
    let failed = status.failed.first().unwrap_or_else(|| panic!("nothing failed: {status:#?}"));
    assert_eq!((failed.file.as_str(), failed.state), ("x.wasm", State::Failed));
    let before = deciding(&store, kind);
    assert_eq!((before.name.as_str(), before.state), ("good", State::LastGood));
    assert!(failed.stages.iter().rev().skip(1).all(|stage| stage.passed));
    failed.last_error.clone().unwrap()
}

fn assert_refused(bytes: &[u8], stage: Stage, reason: &str, remedy: &str) {
    let failure = refusal(Kind::Placement, bytes, &small());
    assert_eq!((failure.stage, failure.class), (stage, Class::Refused), "{failure}");
    assert!(failure.reason.contains(reason), "{failure}");
    assert!(failure.remedy.contains(remedy), "{failure}");
}

#[test]
fn every_broken_module_is_refused_for_every_kind_with_its_own_stage_class_and_reason() {
    use Class::{BadOutput, GuestError, Memory, Panic, Refused, Stack, TimeoutFuel};
    use Stage::{Compile, Instantiate, SelfTest};
    let outside = "100 bytes at 1048570, which is outside";
    for (fixture, kinds, stage, class, reason) in [
        ("endless-loop", ALL, SelfTest, TimeoutFuel, "it used up its fuel"),
        ("endless-recursion", ALL, SelfTest, Stack, "524288 bytes of stack"),
        ("memory-bomb", ALL, SelfTest, Memory, "bytes of memory, allowed are 67108864"),
        ("table-bomb", ALL, SelfTest, Memory, "1000001 table elements, allowed are 10000"),
        ("unreachable", ALL, SelfTest, Panic, "unreachable"),
        ("panic-with-words", ALL, SelfTest, Panic, "panicked at lib.rs:7: no such rack"),
        ("guest-error", ALL, SelfTest, GuestError, "no_licence: none left"),
        ("bad-json", ALL, SelfTest, BadOutput, "invalid type: integer `7`"),
        ("no-json", ALL, SelfTest, BadOutput, "it begins with \"ok!\""),
        ("not-a-number", ALL, SelfTest, BadOutput, "expected value"),
        ("outside-of-memory", ALL, SelfTest, BadOutput, outside),
        ("oversized-output", ALL, SelfTest, BadOutput, "2147483647 bytes, allowed are 16777216"),
        ("out-of-range", SCORES, SelfTest, BadOutput, "score 1000000001 is not in"),
        ("unsound-score", SCORES, SelfTest, BadOutput, "score 7 is not the sum of its terms, 5"),
        ("unknown-vm", PLACEMENT, SelfTest, BadOutput, "VM \"nobody\" was not asked about"),
        ("unknown-node", PLACEMENT, SelfTest, BadOutput, "node 77 is not one of the question's"),
        ("same-vm-twice", PLACEMENT, SelfTest, BadOutput, "-000000000001\" stands there twice"),
        ("same-node-twice", PLACEMENT, SelfTest, BadOutput, "node 1 stands there twice"),
        ("loops-at-start", ALL, Instantiate, TimeoutFuel, "it used up its fuel"),
        ("grows-at-start", ALL, Instantiate, Memory, "allowed are 67108864"),
        ("unknown-import", ALL, Compile, Refused, "\"rand\" from \"env\""),
        ("wasi-import", ALL, Compile, Refused, "imports \"clock_time_get\""),
        ("two-memories", ALL, Compile, Refused, "it does not compile"),
    ] {
        for kind in kinds {
            let failure = refusal(*kind, &module_for(fixture, *kind), &small());
            let found = (failure.stage, failure.class);
            assert_eq!(found, (stage, class), "{fixture} for {kind}: {failure}");
            assert!(failure.reason.contains(reason), "{fixture} for {kind}: {failure}");
            assert!(!failure.remedy.is_empty(), "{fixture} for {kind}");
        }
    }
}

#[test]
fn a_policy_that_goes_by_the_order_of_the_question_breaks_a_law() {
    let failure = refusal(Kind::Risk, &module_for("goes-by-order", Kind::Risk), &small());
    assert_eq!((failure.stage, failure.class), (Stage::Laws, Class::LawViolation), "{failure}");
    assert!(failure.reason.contains("the order of nodes, VMs and readings"), "{failure}");
}

#[test]
fn a_policy_that_fails_only_the_largest_question_is_refused_at_its_rehearsal() {
    for (fixture, class, reason) in [
        ("fails-when-large", Class::Panic, "unreachable"),
        ("slow-when-large", Class::TimeoutFuel, "(32 nodes, 2000 VMs) takes"),
        ("keeps-a-lot-when-large", Class::Memory, "bytes of memory of 67108864"),
    ] {
        let failure = refusal(Kind::Placement, &module(fixture), &Settings::default());
        assert_eq!((failure.stage, failure.class), (Stage::Rehearsal, class), "{failure}");
        assert!(failure.reason.contains(reason), "{failure}");
    }
}

#[test]
fn a_flood_of_log_lines_is_cut_and_the_policy_answers() {
    for kind in Kind::ALL {
        let folder = Folder::new();
        folder.drop_file("x.wasm", &module_for("log-flood", kind));
        let store = folder.unwatched(small());
        assert_eq!(deciding(&store, kind).name, "log-flood", "{:#?}", store.status().failed);
    }
}

#[test]
fn a_module_that_fuel_does_not_stop_is_stopped_by_the_wall_deadline() {
    let limits = Limits { fuel: u64::MAX, wall_ms: 50, ..Limits::default() };
    let settings = Settings { limits, ..small() };
    for kind in Kind::ALL {
        let failure = refusal(kind, &module_for("endless-loop", kind), &settings);
        assert_eq!(failure.class, Class::TimeoutWall, "{failure}");
        assert_eq!(failure.reason, "it was still running after 50 ms");
    }
}

#[test]
fn refused_imports_say_what_to_build_for() {
    let wasi = refusal(Kind::Risk, &module_for("wasi-import", Kind::Risk), &small());
    assert!(wasi.remedy.contains("wasm32-unknown-unknown"), "{wasi}");
    let other = refusal(Kind::Risk, &module_for("unknown-import", Kind::Risk), &small());
    assert!(other.remedy.contains("only the log"), "{other}");
}

#[test]
fn exports_and_manifest_must_agree() {
    let module = module("undeclared-kind");
    assert_refused(&module, Stage::Compile, "manifest is silent", "export_policy!");
    let text =
        text_for("good", "other.abi", &[Kind::Risk]).replace("\\\"abi\\\":1", "\\\"abi\\\":2");
    let other_abi = wat::parse_str(text).unwrap();
    assert_refused(&other_abi, Stage::Manifest, "ABI 2, this agent speaks ABI 1", "SDK");
}

#[test]
fn what_is_no_intact_core_module_is_refused_with_what_to_do() {
    let component = [b"\0asm".as_slice(), &[0x0d, 0, 1, 0], &[0; 16]].concat();
    assert_refused(&component, Stage::Manifest, "component", "wasm32-unknown-unknown");
    assert_refused(b"(module (func))", Stage::Manifest, "text", "wat2wasm");
    assert_refused(b"#!/bin/sh\necho", Stage::Manifest, "no WebAssembly module", "build");
    assert_refused(b"", Stage::Manifest, "truncated: 0 bytes", "rename it into place");
    let bare = wat::parse_str("(module)").unwrap();
    assert_refused(
        &bare,
        Stage::Manifest,
        "no custom section \"steadfast:manifest\"",
        "export_policy!",
    );
}

#[test]
fn a_module_truncated_anywhere_is_refused_and_nothing_panics() {
    let whole = module("good");
    let truncated = &whole[..whole.len() - 9];
    assert_refused(truncated, Stage::Manifest, "truncated: the section", "copy the file again");
    let folder = Folder::new();
    let store = folder.unwatched(small());
    let mut passed = Vec::new();
    for len in 0..whole.len() {
        folder.drop_file("x.wasm", &whole[..len]);
        store.scan();
        match store.status().failed.first() {
            Some(failed) => assert_ne!(failed.last_error.as_ref().unwrap().class, Class::Host),
            None => passed.push(len),
        }
    }
    // Without the names for debuggers at its end it is whole.
    assert!(passed.len() <= 1, "{passed:?} of {}", whole.len());
}

#[test]
fn a_flipped_bit_in_any_byte_never_panics_the_host_nor_unseats_the_good_policy() {
    for kind in Kind::ALL {
        let whole = module_for("good", kind);
        let folder = Folder::new();
        folder.drop_file("good.wasm", &whole);
        let store = folder.unwatched(small());
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            folder.drop_file("flip.wasm", &flipped);
            store.scan();
            let host = |it: &PolicyStatus| {
                it.last_error.as_ref().is_some_and(|error| error.class == Class::Host)
            };
            assert!(!store.status().all().any(host), "byte {at}: {:#?}", store.status().failed);
            assert_eq!(deciding(&store, kind).file, "good.wasm", "byte {at}");
        }
    }
}

#[test]
fn too_large_files_are_refused_before_anything_else() {
    let limits = Limits { module_bytes: 1_000, ..Limits::default() };
    let big = [module("good"), vec![0; 1_000]].concat();
    let failure = refusal(Kind::Placement, &big, &Settings { limits, ..small() });
    assert_eq!((failure.stage, failure.class), (Stage::Size, Class::Refused));
    assert!(failure.reason.ends_with("allowed are 1000"), "{failure}");
}

#[test]
fn a_function_too_large_to_compile_in_time_is_refused_uncompiled() {
    let nothing = "(drop (i32.const 0))".repeat(200_000);
    let text = text_for("good", "huge", PLACEMENT)
        .replace("(memory (export", &format!("(func {nothing}) (memory (export"));
    let failure = refusal(Kind::Placement, &wat::parse_str(text).unwrap(), &small());
    assert_eq!((failure.stage, failure.class), (Stage::Limits, Class::Refused), "{failure}");
    assert!(failure.reason.ends_with("bytes, allowed are 524288"), "{failure}");
}

#[test]
fn files_that_others_may_write_are_refused_until_that_is_corrected() {
    let folder = Folder::new();
    folder.drop_fixture("good");
    let file = folder.0.join("good.wasm");
    let set = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    set(0o666);
    let store = folder.start();
    let failed = eventually(&store, |status| status.state == State::Failed).last_error.unwrap();
    assert_eq!(failed.stage, Stage::Permissions);
    assert!(failed.reason.ends_with("can be written by others (mode 0666)"), "{failed}");
    assert!(failed.remedy.contains("chmod go-w"), "{failed}");
    set(0o644);
    eventually(&store, |status| status.name == "good" && status.state == State::Active);
}

#[test]
fn a_folder_that_others_may_write_makes_every_file_in_it_insecure() {
    let folder = Folder::new();
    folder.drop_fixture("good");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
    let store = folder.unwatched(small());
    let failure = store.status().failed[0].last_error.clone().unwrap();
    assert_eq!(failure.stage, Stage::Permissions, "{failure}");
}

#[test]
fn parameters_that_the_policy_does_not_know_are_refused_by_name() {
    let folder = Folder::new();
    folder.drop_file("rack-aware.json", br#"{"shared_rak": 3}"#);
    folder.drop_file("rack-aware.wasm", &built("rack-aware"));
    let store = folder.start();
    let failed = eventually(&store, |status| status.state == State::Failed).last_error.unwrap();
    assert_eq!((failed.stage, failed.class), (Stage::Init, Class::GuestError));
    assert!(failed.reason.contains("unknown field `shared_rak`"), "{failed}");
    folder.drop_file("rack-aware.json", br#"{"shared_rack": 3}"#);
    eventually(&store, |status| status.name == "rack-aware" && status.state == State::Active);
}
