//! The stories again, with the shipped policies as Wasm modules in the agent's own host: whoever decides by a module decides as the
//! policy that is built into the agent, story by story.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use steadfast_core::config::Builtin;
use steadfast_engine::policy::{Answer, DeciderKind, Limits, PolicyStore};
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict,
};
use steadfast_tests::modules;
use steadfast_tests::scenario::{files, runner::tell};
use steadfast_tests::sim::policy::Mood;

const WASM: Builtin = Builtin { node_priority, placement };
static STORE: OnceLock<Arc<PolicyStore>> = OnceLock::new();
static PRIORITIES: AtomicUsize = AtomicUsize::new(0);
static PLACEMENTS: AtomicUsize = AtomicUsize::new(0);

fn store() -> &'static PolicyStore {
    STORE.get().expect("the test starts it first")
}

fn node_priority(question: &NodePriorityQuestion) -> NodePriorityVerdict {
    counted(store().ask_node_priority(question), &PRIORITIES)
}

fn placement(question: &PlacementQuestion) -> PlacementVerdict {
    counted(store().ask_placement(question), &PLACEMENTS)
}

/// Only what a module decided counts.
fn counted<V>(answer: Answer<V>, calls: &AtomicUsize) -> V {
    assert_eq!(answer.decider.kind, DeciderKind::Active, "{:?}", answer.decider);
    assert!(answer.decider.fuel > 0 && answer.decider.failures.is_empty());
    calls.fetch_add(1, Ordering::Relaxed);
    answer.verdict
}

#[test]
fn every_story_goes_the_same_way_whether_wasm_modules_or_the_built_in_policies_decide() {
    let folder = modules::folder(&["node-priority", "placement"]);
    // Fuel ends what goes on for too long; a busy machine must not.
    let limits = Limits { wall_ms: 60_000, ..Limits::default() };
    let store = PolicyStore::start(folder.clone(), limits, |_| ()).unwrap();
    assert!(store.wait_for_scan(1, Duration::from_secs(60)));
    STORE.set(store).unwrap();
    let mut told = 0;
    for path in files::all().unwrap() {
        let mut story = files::read(&path).unwrap();
        if story.setup.mood != Mood::Honest {
            continue;
        }
        story.setup.shipped = true;
        let native = tell(&story, false);
        story.setup.host = Some(WASM);
        let wasm = tell(&story, false);
        let name = path.file_stem().unwrap().to_string_lossy();
        assert_eq!((&wasm.failure, &wasm.log), (&native.failure, &native.log), "{name}");
        let violation =
            wasm.failure.filter(|why| why.contains("violation") || why.contains("panicked"));
        assert_eq!(violation, None, "{name}");
        told += 1;
    }
    let asked = (PRIORITIES.load(Ordering::Relaxed), PLACEMENTS.load(Ordering::Relaxed));
    println!("{told} stories, {} priorities and {} placements by Wasm modules", asked.0, asked.1);
    assert!(told > 100 && asked.0 > told && asked.1 > told, "{told} stories asked {asked:?}");
    std::fs::remove_dir_all(folder).unwrap();
}
