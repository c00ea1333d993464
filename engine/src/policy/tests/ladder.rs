//! Who answers when the better ones fail.

use super::*;
use crate::policy::{DeciderKind, State};

/// More than the 32 KiB from which the fixture `fails-when-large` traps.
fn large() -> PlacementQuestion {
    question(20, 200)
}

#[test]
fn a_policy_that_traps_is_replaced_by_the_twin_and_the_answer_says_why() {
    let folder = Folder::new();
    folder.drop_fixture("fails-when-large");
    let store = folder.start();
    let answer = store.ask_placement(&large());
    assert_eq!(answer.decider.kind, DeciderKind::BuiltIn);
    assert_eq!(answer.verdict, steadfast_policy_placement::builtin(&large()));
    let [why] = answer.decider.failures.as_slice() else { panic!("{answer:?}") };
    assert!(why.starts_with("fails-when-large 1.0.0 (generation 1): panic at call: "), "{why}");
    assert_eq!(store.ask_placement(&question(1, 1)).decider.kind, DeciderKind::Active);
}

#[test]
fn the_policy_before_the_active_one_answers_before_the_twin_does() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module("good"));
    let store = folder.start();
    folder.drop_file("x.wasm", &module("fails-when-large"));
    eventually(&store, |status| status.name == "fails-when-large" && status.deciding);
    let decider = store.ask_placement(&large()).decider;
    assert_eq!((decider.name.as_str(), decider.kind), ("good", DeciderKind::LastGood));
}

#[test]
fn three_failures_in_a_row_suspend_a_generation_until_it_is_replaced() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module("fails-when-large"));
    let store = folder.start();
    for _ in 0..3 {
        store.ask_placement(&large());
    }
    // Not even asked what it could answer.
    let decider = store.ask_placement(&question(1, 1)).decider;
    assert_eq!(decider.kind, DeciderKind::BuiltIn);
    assert!(
        decider.failures[0].ends_with("suspended after too many failures in a row"),
        "{decider:?}"
    );
    let status = eventually(&store, |status| status.state == State::Suspended);
    assert_eq!((status.failures, status.breaker.failures_in_row, status.deciding), (3, 3, false));
    folder.drop_file("x.wasm", &module("good"));
    eventually(&store, |status| status.name == "good" && status.deciding);
}

#[test]
fn one_success_between_failures_counts_the_failures_anew() {
    let folder = Folder::new();
    folder.drop_fixture("fails-when-large");
    let store = folder.start();
    for _ in 0..4 {
        store.ask_placement(&large());
        assert_eq!(store.ask_placement(&question(1, 1)).decider.kind, DeciderKind::Active);
    }
}
