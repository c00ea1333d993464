//! Broken and hostile modules: each is refused or contained with its own class, reason and remedy.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::policy::{Class, Failure, Stage, State};

/// What loading this file says, while the agent's own policy decides.
fn refusal(name: &str, bytes: &[u8]) -> Failure {
    refusal_under(name, bytes, Limits::default())
}

fn refusal_under(name: &str, bytes: &[u8], limits: Limits) -> Failure {
    let folder = Folder::new();
    folder.drop_file(name, bytes);
    let store = folder.start_with(limits);
    assert_eq!(deciding(&store, Kind::Placement).state, State::BuiltIn);
    let failed = eventually(&store, |status| status.state == State::Failed);
    assert_eq!(failed.file, name);
    failed.last_error.unwrap()
}

fn assert_refused(bytes: &[u8], stage: Stage, reason: &str, remedy: &str) {
    let failure = refusal("x.wasm", bytes);
    assert_eq!((failure.stage, failure.class), (stage, Class::Refused), "{failure}");
    assert!(failure.reason.contains(reason), "{failure}");
    assert!(failure.remedy.contains(remedy), "{failure}");
}

#[test]
fn every_broken_module_fails_its_self_test_with_its_own_class_and_reason() {
    for (fixture, class, reason) in [
        ("endless-loop", Class::TimeoutFuel, "it used up its fuel"),
        ("endless-recursion", Class::Stack, "524288 bytes of stack"),
        ("memory-bomb", Class::Memory, "bytes of memory, allowed are 67108864"),
        ("table-bomb", Class::Memory, "1000001 table elements, allowed are 10000"),
        ("unreachable", Class::Panic, "unreachable"),
        ("panic-with-words", Class::Panic, "panicked at lib.rs:7: no such rack"),
        ("bad-json", Class::BadOutput, "invalid type: integer `7`"),
        ("unknown-vm", Class::BadOutput, "vms[0]: VM \"nobody\" was not asked about"),
        ("guest-error", Class::GuestError, "no_licence: none left"),
        ("outside-of-memory", Class::BadOutput, "100 bytes at 1048570, which is outside"),
        ("oversized-output", Class::BadOutput, "2147483647 bytes, allowed are 16777216"),
    ] {
        let failure = refusal(&format!("{fixture}.wasm"), &module(fixture));
        assert_eq!(
            (failure.stage, failure.class),
            (Stage::SelfTest, class),
            "{fixture}: {failure}"
        );
        assert!(failure.reason.contains(reason), "{fixture}: {failure}");
        assert!(!failure.remedy.is_empty());
    }
}

#[test]
fn a_module_that_fuel_does_not_stop_is_stopped_by_the_wall_deadline() {
    let limits = Limits { fuel: u64::MAX, wall_ms: 50, ..Limits::default() };
    let failure = refusal_under("loop.wasm", &module("endless-loop"), limits);
    assert_eq!(failure.class, Class::TimeoutWall, "{failure}");
    assert_eq!(failure.reason, "it was still running after 50 ms");
}

#[test]
fn imports_other_than_the_log_are_refused_by_name() {
    let wasi = module("wasi-import");
    assert_refused(&wasi, Stage::Compile, "imports \"clock_time_get\"", "wasm32-unknown-unknown");
    assert_refused(
        &module("unknown-import"),
        Stage::Compile,
        "\"rand\" from \"env\"",
        "only the log",
    );
}

#[test]
fn exports_and_manifest_must_agree() {
    let module = module("undeclared-kind");
    assert_refused(&module, Stage::Compile, "manifest is silent", "export_policy!");
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
    for len in 0..whole.len() {
        assert!(crate::policy::inspect::manifest(&whole[..len]).is_err() || len > 8);
    }
}

#[test]
fn a_flipped_bit_never_panics_the_host() {
    let folder = Folder::new();
    let whole = module("good");
    for at in (8..whole.len()).step_by(whole.len() / 24) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        folder.drop_file(&format!("flip-{at}.wasm"), &flipped);
    }
    let store = folder.start();
    let host = |status: &PolicyStatus| {
        status.last_error.as_ref().is_some_and(|error| error.class == Class::Host)
    };
    assert!(!store.status().all().any(host), "{:#?}", store.status());
    assert!(store.ask_placement(&question(3, 3)).verdict.vms.len() <= 3);
}

#[test]
fn too_large_files_are_refused_before_anything_else() {
    let limits = Limits { module_bytes: 100, ..Limits::default() };
    let failure = refusal_under("big.wasm", &module("good"), limits);
    assert_eq!((failure.stage, failure.class), (Stage::Size, Class::Refused));
    assert!(failure.reason.ends_with("allowed are 100"), "{failure}");
}

#[test]
fn a_function_too_large_to_compile_in_time_is_refused_uncompiled() {
    let limits = Limits { function_bytes: 10, ..Limits::default() };
    let failure = refusal_under("huge.wasm", &module("good"), limits);
    assert_eq!(failure.stage, Stage::Limits, "{failure}");
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
