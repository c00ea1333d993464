//! Who gets the seat, and how an operator changes that: bind, rollback, shadows, signatures, a dry run.

use steadfast_sdk::wire::NodePriorityQuestion;

use super::*;
use crate::policy::{
    BreakerState, Class, DeciderKind, Key, NotEvaluated, Shadow, Stage, StageTime, State,
};

/// A folder with the good policy as `x.wasm`, replaced by the other good one.
fn replaced(settings: &Settings) -> (Folder, Arc<PolicyStore>) {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module("good"));
    let store = folder.unwatched(settings.clone());
    folder.drop_file("x.wasm", &module("other-good"));
    store.scan();
    assert_eq!(decides(&store), "other-good");
    (folder, store)
}

fn decides(store: &PolicyStore) -> String {
    let name = deciding(store, Kind::Placement).name;
    assert_eq!(store.ask_placement(&question(2, 2)).decider.name, name);
    name
}

#[test]
fn what_is_compiled_ahead_decides_nothing_and_only_the_file_that_is_read_counts() {
    let (folder, store) = replaced(&small());
    folder.drop_file("x.wasm", &module("good"));
    store.look_ahead();
    assert_eq!(decides(&store), "other-good");
    store.scan();
    assert_eq!(decides(&store), "good");
    let compiled = |stage: &&StageTime| stage.stage == Stage::Compile && stage.passed;
    let stages = deciding(&store, Kind::Placement).stages;
    assert_eq!(stages.iter().filter(compiled).count(), 1);
    folder.drop_file("x.wasm", &module("other-good"));
    store.look_ahead();
    let third = wat::parse_str(text_for("good", "third", &[Kind::Placement])).unwrap();
    folder.drop_file("x.wasm", &third);
    store.scan();
    assert_eq!(decides(&store), "third");
}

fn bound_to(name: &str) -> Settings {
    Settings { bind: [(Kind::Placement, name.to_string())].into(), ..small() }
}

#[test]
fn of_several_policies_the_bound_one_decides_by_its_name_or_its_files() {
    for name in ["other-good", "b.wasm", "b"] {
        let folder = Folder::new();
        folder.drop_file("a.wasm", &module("good"));
        folder.drop_file("b.wasm", &module("other-good"));
        let store = folder.unwatched(bound_to(name));
        assert_eq!(decides(&store), "other-good");
        let status = &store.status().kinds[1];
        assert!(!status.ambiguous && status.bind.as_deref() == Some(name));
    }
}

#[test]
fn a_bound_policy_that_is_deleted_decides_on_and_no_other_takes_its_place() {
    let folder = Folder::new();
    folder.drop_file("a.wasm", &module("good"));
    let store = folder.unwatched(bound_to("good"));
    folder.drop_file("b.wasm", &module("other-good"));
    fs::remove_file(folder.0.join("a.wasm")).unwrap();
    store.scan();
    assert_eq!(
        (decides(&store), deciding(&store, Kind::Placement).state),
        ("good".into(), State::LastGood)
    );
    let unbound = folder.unwatched(small());
    assert_eq!(decides(&unbound), "other-good");
}

#[test]
fn an_ambiguous_pair_is_told_and_nobody_is_unseated() {
    for kind in Kind::ALL {
        let folder = Folder::new();
        folder.drop_file("a.wasm", &module_for("good", kind));
        let store = folder.unwatched(small());
        folder.drop_file("b.wasm", &module_for("other-good", kind));
        store.scan();
        assert_eq!(deciding(&store, kind).name, "good");
        let status = store.status();
        assert!(status.kinds.iter().any(|it| it.kind == kind && it.ambiguous));
        assert!(status.all().any(|it| it.name == "other-good" && it.state == State::Ambiguous));
    }
}

#[test]
fn a_rollback_lets_the_generation_before_decide_until_the_file_changes() {
    let (folder, store) = replaced(&small());
    assert_eq!(store.roll_back(Kind::Placement).unwrap(), "other-good 1.0.0 (generation 2)");
    store.scan();
    assert_eq!(decides(&store), "good");
    assert!(
        store.status().all().any(|it| it.name == "other-good" && it.state == State::RolledBack)
    );
    assert!(store.status().kinds[1].rolled_back_from.is_some());
    folder.drop_file("x.wasm", &module("log-flood"));
    store.scan();
    assert_eq!(decides(&store), "log-flood");
    assert_eq!(store.status().kinds[1].rolled_back_from, None);
    // What was rolled back from may come again once the folder has said something else.
    folder.drop_file("x.wasm", &module("other-good"));
    store.scan();
    assert_eq!(decides(&store), "other-good");
}

#[test]
fn before_the_first_generation_a_rollback_leads_to_the_agents_own_and_no_further() {
    let (_folder, store) = replaced(&small());
    store.roll_back(Kind::Placement).unwrap();
    assert_eq!(store.roll_back(Kind::Placement).unwrap(), "good 1.0.0 (generation 1)");
    store.scan();
    assert_eq!(deciding(&store, Kind::Placement).state, State::BuiltIn);
    assert_eq!(store.roll_back(Kind::Placement), None);
    assert!(store.undo_roll_back(Kind::Placement));
    assert_eq!(decides(&store), "other-good");
    assert!(!store.undo_roll_back(Kind::Placement));
}

#[test]
fn what_is_turned_away_before_it_is_loaded_does_not_decide_when_it_comes() {
    let (elsewhere, other) = replaced(&small());
    elsewhere.drop_file("x.wasm", &module("log-flood"));
    other.scan();
    let digest = other.digest(Kind::Placement);
    let (folder, store) = replaced(&small());
    store.turn_away(Kind::Placement, digest);
    store.scan();
    assert_eq!(decides(&store), "other-good", "nothing else is rolled back instead");
    folder.drop_file("x.wasm", &module("log-flood"));
    store.scan();
    assert_eq!(decides(&store), "other-good");
    assert!(store.status().kinds[1].rolled_back_from.is_some());
    assert!(store.undo_roll_back(Kind::Placement));
    assert_eq!(decides(&store), "log-flood");
}

#[test]
fn a_rollback_outlives_the_agent() {
    let state = Folder::new();
    let settings = Settings { state: Some(state.0.clone()), ..small() };
    let (folder, store) = replaced(&settings);
    store.roll_back(Kind::Placement).unwrap();
    drop(store);
    let store = folder.unwatched(settings.clone());
    assert_eq!(deciding(&store, Kind::Placement).state, State::BuiltIn);
    folder.drop_file("x.wasm", &module("good"));
    store.scan();
    drop(store);
    let store = folder.unwatched(settings);
    assert_eq!(
        (decides(&store), store.status().kinds[1].rolled_back_from.clone()),
        ("good".into(), None)
    );
}

#[test]
fn of_many_generations_only_a_few_are_kept() {
    let folder = Folder::new();
    let store = folder.unwatched(small());
    let mut seen = Vec::new();
    for round in 0..20 {
        folder.drop_file("x.json", format!("{{\"round\":{round}}}").as_bytes());
        folder.drop_file("x.wasm", &module("good"));
        store.scan();
        let newest = store.book().first(Kind::Placement, &store.settings).unwrap();
        seen.push(Arc::downgrade(&newest));
    }
    let alive = seen.iter().filter(|it| it.upgrade().is_some()).count();
    assert_eq!(alive, 4, "the active one and three before it");
    assert_eq!(deciding(&store, Kind::Placement).generation, 20);
}

#[test]
fn a_shadow_is_asked_and_compared_and_never_obeyed() {
    let folder = Folder::new();
    folder.drop_file("placement.wasm", &built("placement"));
    folder.drop_file("good.wasm", &module("good"));
    let settings = Settings {
        bind: [(Kind::Placement, "steadfast.default.placement".into())].into(),
        shadow: Shadow::Named(vec!["good".into()]),
        ..small()
    };
    let store = folder.unwatched(settings);
    store.decide_placement(&question(3, 3), |answer| {
        assert_eq!(answer.decider.name, "steadfast.default.placement");
        assert_eq!(answer.verdict.vms.len(), 3);
    });
    let shadow = eventually(&store, |it| it.name == "good" && it.shadowed.differed == 1);
    assert!(shadow.shadow && !shadow.deciding && shadow.calls == 0);
    let differences = store.status().kinds[1].differences.clone();
    assert!(differences[0].text.starts_with("3 of 3 otherwise: "), "{differences:?}");
    assert_eq!(differences[0].shadow, "good 1.0.0 (generation 1)");
}

#[test]
fn a_shadow_that_loops_delays_nobody_and_is_skipped() {
    let folder = Folder::new();
    folder.drop_file("good.wasm", &module("good"));
    folder.drop_file("slow.wasm", &module("slow-when-large"));
    let limits = Limits { fuel_per_byte: 1_000_000, ..Limits::default() };
    let shadow = Shadow::All;
    let settings = Settings { limits, shadow, ..bound_to("good") };
    let store = folder.unwatched(settings);
    let begin = Instant::now();
    for _ in 0..20 {
        store.decide_placement(&question(64, 400), |it| assert_eq!(it.decider.name, "good"));
    }
    // Whoever waited for it would wait for 20 of its deadlines.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    eventually(&store, |it| it.name == "slow-when-large" && it.shadowed.skipped > 0);
}

#[test]
fn a_suspended_policy_comes_back_after_its_pause_with_one_question() {
    let folder = Folder::new();
    folder.drop_fixture("fails-when-large");
    let limits = Limits { suspended_ms: 200, ..Limits::default() };
    let store = folder.unwatched(Settings { limits, ..small() });
    for _ in 0..3 {
        store.ask_placement(&question(20, 200));
    }
    assert_eq!(store.ask_placement(&question(1, 1)).decider.kind, DeciderKind::BuiltIn);
    let status = store.status();
    let suspended = status.all().find(|it| it.state == State::Suspended).unwrap();
    assert_eq!(suspended.breaker.state, BreakerState::Open);
    assert!(suspended.breaker.tried_again_in_ms.is_some_and(|left| left <= 200));
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(store.ask_placement(&question(1, 1)).decider.kind, DeciderKind::Active);
    assert_eq!(deciding(&store, Kind::Placement).breaker.state, BreakerState::Closed);
}

#[test]
fn node_priority_is_asked_of_the_generation_that_the_nodes_agreed_on() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", &module_for("good", Kind::NodePriority));
    let store = folder.unwatched(small());
    let old = store.digest(Kind::NodePriority);
    folder.drop_file("x.wasm", &module_for("other-good", Kind::NodePriority));
    store.scan();
    let asked = NodePriorityQuestion::default();
    let agreed = |digest| {
        let mut decider = None;
        store.decide_node_priority(digest, &asked, |answer| decider = Some(answer.decider));
        decider.unwrap()
    };
    assert_eq!(agreed(old).name, "good");
    assert_eq!(agreed(store.digest(Kind::NodePriority)).name, "other-good");
    let stranger = agreed([7; 32]);
    assert_eq!(stranger.kind, DeciderKind::BuiltIn);
    assert!(stranger.failures[0].contains("07070707"), "{stranger:?}");
}

const KEY: &str = "RWRzdGVhZGZzdLxTGdaY2oriBZsJvkIlxYnNJuXpc/jOyeSXcfq/JqqL";
const OTHER_KEY: &str = "RWRhbm90aGVya8Lt6vq8ziKpGdx16tyt0XSsol1sw5pwLg5ArwUTj9IU";
const SIGNED: &[u8] = b"signed words, no module\n";
const SIGNATURE: &str = "untrusted comment: signature of a test
RURzdGVhZGZzdG7njFkXhyqXdm/YnAUSMS2ODkuKS2QUVd32pGVLYT93pWdkdido9kVOfb7KigRMf9+MhiYF7GDJ3QAicZQQVAU=
trusted comment: a test
Mba93WZQxoJ3Kmur1oqWEG+Ah8Ncxw6qpAcIiPGUNWVxQAKIicbtKhtTJkZtNXjBP0kJKpEGDaRW3l0c0cWACA==
";

/// At which stage, and why, the folder's only file is refused.
fn refused_by(folder: &Folder, keys: &[&str]) -> (Stage, String) {
    let keys = keys.iter().map(|key| Key::parse(key).unwrap()).collect();
    let store = folder.unwatched(Settings { keys, ..small() });
    let failure = store.status().failed[0].last_error.clone().unwrap();
    assert_eq!(failure.class, Class::Refused);
    (failure.stage, failure.reason)
}

#[test]
fn where_keys_are_named_only_signed_files_get_further() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", SIGNED);
    let (stage, reason) = refused_by(&folder, &[KEY]);
    assert_eq!(
        (stage, reason.as_str()),
        (Stage::Signature, "x.wasm has no signature: there is no x.wasm.minisig")
    );
    folder.drop_file("x.wasm.minisig", SIGNATURE.as_bytes());
    // It is no module: what was refused for its signature is refused for that now.
    assert_eq!(refused_by(&folder, &[OTHER_KEY, KEY]).0, Stage::Manifest);
    let (stage, reason) = refused_by(&folder, &[OTHER_KEY]);
    assert_eq!(
        (stage, reason.as_str()),
        (Stage::Signature, "x.wasm was signed by none of the 1 keys, or was changed since")
    );
    folder.drop_file("x.wasm", b"signed words, no module!");
    assert_eq!(refused_by(&folder, &[KEY]).0, Stage::Signature);
}

#[test]
fn parameters_need_a_signature_of_their_own() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", SIGNED);
    folder.drop_file("x.wasm.minisig", SIGNATURE.as_bytes());
    folder.drop_file("x.json", b"{}\n");
    let (stage, reason) = refused_by(&folder, &[KEY]);
    assert_eq!(
        (stage, reason.as_str()),
        (Stage::Signature, "x.json has no signature: there is no x.json.minisig")
    );
    folder.drop_file("x.json.minisig", SIGNATURE.as_bytes());
    assert!(refused_by(&folder, &[KEY]).1.starts_with("x.json was signed by none"));
}

#[test]
fn a_signature_that_comes_later_is_noticed() {
    let folder = Folder::new();
    folder.drop_file("x.wasm", SIGNED);
    let keys = vec![Key::parse(KEY).unwrap()];
    let store = folder.unwatched(Settings { keys, ..small() });
    let stage = || store.status().failed[0].last_error.clone().unwrap().stage;
    assert_eq!(stage(), Stage::Signature);
    folder.drop_file("x.wasm.minisig", SIGNATURE.as_bytes());
    store.scan();
    assert_eq!(stage(), Stage::Manifest);
}

#[test]
fn the_rehearsal_publishes_its_headroom_and_every_stage_its_time() {
    let folder = Folder::new();
    folder.drop_file("placement.wasm", &built("placement"));
    let store = folder.unwatched(Settings::default());
    let status = deciding(&store, Kind::Placement);
    let headroom = status.headroom.unwrap();
    assert_eq!((headroom.nodes, headroom.vms), (32, 2_000));
    assert!(headroom.fuel > 0 && headroom.fuel_percent() >= 200, "{headroom:?}");
    assert!(headroom.memory_bytes > 0 && headroom.memory_percent() >= 200, "{headroom:?}");
    use Stage::*;
    let stages: Vec<Stage> = status.stages.iter().map(|it| it.stage).collect();
    let all = [
        Read,
        Size,
        Digest,
        Permissions,
        Manifest,
        Limits,
        Compile,
        Instantiate,
        Init,
        SelfTest,
        Laws,
        Rehearsal,
        Staged,
    ];
    assert_eq!(stages, all);
    assert!(status.laws_tried >= 12, "{}", status.laws_tried);
}

#[test]
fn a_dry_run_asks_whom_you_name_and_counts_nowhere() {
    let folder = Folder::new();
    folder.drop_file("placement.wasm", &built("placement"));
    folder.drop_file("good.wasm", &module("good"));
    let store = folder.unwatched(bound_to("placement"));
    let asked = serde_json::to_value(question(3, 3)).unwrap();
    let told = store.evaluate(Kind::Placement, &asked, None).unwrap();
    assert_eq!(told.policy, "steadfast.default.placement");
    assert!(told.fuel > 0 && told.memory_bytes > 0 && told.failure.is_none());
    assert_eq!(told.verdict.unwrap()["vms"].as_array().unwrap().len(), 3);
    assert_eq!(store.evaluate(Kind::Placement, &asked, Some("good")).unwrap().policy, "good");
    assert!(store.status().all().all(|it| it.calls == 0));
    let unknown = store.evaluate(Kind::Placement, &asked, Some("nobody"));
    assert!(matches!(unknown, Err(NotEvaluated::Unknown { .. })), "{unknown:?}");
    let wrong = store.evaluate(Kind::Placement, &serde_json::json!({"vms": 3}), None);
    assert!(matches!(wrong, Err(NotEvaluated::Question(..))), "{wrong:?}");
    let twin = store.evaluate(Kind::Risk, &serde_json::json!({}), None).unwrap();
    assert_eq!((twin.policy.as_str(), twin.fuel), ("steadfast.default.risk", 0));
}

#[test]
fn a_file_is_checked_and_inspected_without_an_agent() {
    let folder = Folder::new();
    folder.drop_file("placement.wasm", &built("placement"));
    folder.drop_fixture("endless-loop");
    let settings = Settings::default();
    let path = |name: &str| folder.0.join(name);
    let good = crate::policy::check_file(&path("placement.wasm"), &settings).unwrap();
    assert!(good.failure.is_none() && good.headroom.len() == 1 && good.insecure.is_none());
    let bad = crate::policy::check_file(&path("endless-loop.wasm"), &settings).unwrap();
    assert_eq!(bad.failure.unwrap().stage, Stage::SelfTest);
    assert!(bad.stages.last().is_some_and(|stage| !stage.passed));
    let found = crate::policy::inspect_file(&path("placement.wasm"), &settings).unwrap();
    assert_eq!(found.manifest.name, "steadfast.default.placement");
    assert!(found.sections.iter().any(|(name, _)| name == "custom \"steadfast:manifest\""));
    assert!(found.largest_function_bytes.0 > 100 && !found.manifest.parameters.is_empty());
}
