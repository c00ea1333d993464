//! The drop folder: what is noticed, and who gets the seat.

use super::*;
use crate::policy::State;

fn is(name: &'static str, state: State) -> impl Fn(&PolicyStatus) -> bool {
    move |status| status.name == name && status.state == state
}

#[test]
fn a_missing_folder_means_the_built_in_twin_until_the_folder_appears() {
    let folder = Folder::new();
    fs::remove_dir(&folder.0).unwrap();
    let store = folder.start();
    assert_eq!(deciding(&store, Kind::Placement).state, State::BuiltIn);
    fs::create_dir(&folder.0).unwrap();
    folder.drop_fixture("good");
    eventually(&store, is("good", State::Active));
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_watched_again() {
    let folder = Folder::new();
    folder.drop_fixture("good");
    let store = folder.start();
    fs::remove_dir_all(&folder.0).unwrap();
    eventually(&store, is("good", State::LastGood));
    fs::create_dir(&folder.0).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    folder.drop_fixture("other-good");
    eventually(&store, is("other-good", State::Active));
}

#[test]
fn a_replaced_file_is_used_for_the_next_question() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module("good"));
    let store = folder.start();
    let before = store.ask_placement(&question(3, 3)).decider;
    folder.drop_file("x.wasm", &module("other-good"));
    eventually(&store, is("other-good", State::Active));
    let after = store.ask_placement(&question(3, 3)).decider;
    assert_eq!((before.name.as_str(), after.name.as_str()), ("good", "other-good"));
    assert_ne!(before.digest, after.digest);
    assert_eq!(deciding(&store, Kind::Placement).generation, 2);
}

#[test]
fn a_file_replaced_by_a_broken_one_keeps_deciding() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module("good"));
    let store = folder.start();
    folder.drop_file("x.wasm", &module("good")[..50]);
    let failed = eventually(&store, |status| status.state == State::Failed);
    assert_eq!(failed.file, "x.wasm");
    assert!(deciding(&store, Kind::Placement).state == State::LastGood);
    assert_eq!(store.ask_placement(&question(3, 3)).decider.name, "good");
    folder.drop_file("x.wasm", &module("good"));
    eventually(&store, is("good", State::Active));
    assert!(!store.status().all().any(|status| status.state == State::Failed));
}

#[test]
fn a_touched_file_is_not_loaded_again() {
    let folder = Folder::new();
    folder.drop_fixture("good");
    let store = folder.start();
    let bytes = module("good");
    folder.drop_file("good.wasm", &bytes);
    fs::write(folder.0.join("good.wasm"), &bytes).unwrap();
    assert!(store.wait_for_scan(2, PATIENCE));
    assert_eq!(deciding(&store, Kind::Placement).generation, 1);
}

#[test]
fn a_deleted_policy_decides_until_another_takes_its_place() {
    let folder = Folder::new();
    folder.drop_fixture("good");
    let store = folder.start();
    fs::remove_file(folder.0.join("good.wasm")).unwrap();
    eventually(&store, is("good", State::LastGood));
    assert_eq!(store.ask_placement(&question(3, 3)).decider.name, "good");
    folder.drop_fixture("other-good");
    eventually(&store, is("other-good", State::Active));
    assert_eq!(store.ask_placement(&question(3, 3)).decider.name, "other-good");
}

#[test]
fn a_custom_policy_wins_over_a_shipped_one_which_returns_when_it_is_deleted() {
    let folder = Folder::new();
    folder.drop_file("placement.wasm", &built("placement"));
    let store = folder.start();
    let shipped = "steadfast.default.placement";
    assert_eq!(deciding(&store, Kind::Placement).state, State::Active);
    folder.drop_file("rack-aware.wasm", &built("rack-aware"));
    eventually(&store, is("rack-aware", State::Active));
    // Before the custom one, it is also the last good one.
    assert_eq!(deciding(&store, Kind::Placement).name, "rack-aware");
    assert!(store.status().all().any(is(shipped, State::LastGood)));
    fs::remove_file(folder.0.join("rack-aware.wasm")).unwrap();
    eventually(&store, is(shipped, State::Active));
}

#[test]
fn of_two_custom_policies_neither_takes_the_seat_from_the_active_one() {
    let folder = Folder::new();
    folder.drop_fixture("good");
    let store = folder.start();
    folder.drop_fixture("other-good");
    eventually(&store, is("other-good", State::Ambiguous));
    assert_eq!(deciding(&store, Kind::Placement).name, "good");
    fs::remove_file(folder.0.join("good.wasm")).unwrap();
    eventually(&store, is("other-good", State::Active));
}

#[test]
fn changed_parameters_are_another_generation_with_another_digest() {
    let folder = Folder::new();
    folder.drop_file("rack-aware.wasm", &built("rack-aware"));
    let store = folder.start();
    let before = store.digest(Kind::Placement);
    folder.drop_file("rack-aware.json", br#"{"shared_rack": 0}"#);
    eventually(&store, |status| status.deciding && status.generation == 2);
    assert_ne!(before, store.digest(Kind::Placement));
}

#[test]
fn listeners_hear_of_changes_once() {
    let folder = Folder::new();
    let (tell, told) = std::sync::mpsc::channel();
    let tell = move |status: &PolicyStatus| tell.send((status.name.clone(), status.state)).unwrap();
    let store = PolicyStore::start(folder.0.clone(), Limits::default(), tell).unwrap();
    assert!(store.wait_for_scan(1, PATIENCE));
    folder.drop_fixture("good");
    eventually(&store, is("good", State::Active));
    let heard = |wanted: State| {
        std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok()).find(|(_, state)| *state == wanted)
    };
    assert_eq!(heard(State::Active), Some(("good".to_string(), State::Active)));
}
