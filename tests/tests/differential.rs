//! The shipped policies, compiled to Wasm and to the machine: the same answers, byte for byte, and all laws, over thousands of
//! generated clusters in the agent's own host.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use steadfast_engine::policy::{Answer, DeciderKind, Limits, PolicyStore};
use steadfast_sdk::generate::Generate;
use steadfast_sdk::laws;
use steadfast_tests::modules;

const THREADS: u8 = 2;

fn differ<Q, A>(clusters: usize, ask: A, native: fn(&Q) -> Q::Verdict)
where
    Q: Generate,
    A: Fn(&Q) -> Answer<Q::Verdict> + Sync,
{
    let (begin, asked) = (Instant::now(), AtomicUsize::new(0));
    let one = |question: &Q| {
        asked.fetch_add(1, Ordering::Relaxed);
        let Answer { verdict, decider } = ask(question);
        assert!(decider.fuel > 0 && decider.kind == DeciderKind::Active, "{decider:?}");
        let (wasm, twin) = (json(&verdict), json(&native(question)));
        if wasm == twin { Ok(verdict) } else { Err(format!("module {wasm}, built in {twin}")) }
    };
    let many = clusters / usize::from(THREADS);
    let one = &one;
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            scope.spawn(move || {
                for question in laws::questions::<Q>(seed.into(), many) {
                    if let Err(broken) = laws::check(&question, one) {
                        panic!("{} {broken}\nasked: {}", Q::KIND, json(&question));
                    }
                }
            });
        }
    });
    let (asked, took) = (asked.into_inner(), begin.elapsed());
    println!("{}: {clusters} clusters, {asked} questions in {took:.1?}", Q::KIND);
    assert!(asked > 2 * clusters, "{asked} questions only");
}

fn json<T: serde::Serialize + Debug>(value: &T) -> String {
    serde_json::to_string(value).expect("what is asked and answered is JSON")
}

fn store() -> (std::path::PathBuf, Arc<PolicyStore>) {
    let folder = modules::folder(&["node-priority", "placement", "risk"]);
    // Fuel ends what goes on for too long; a busy machine must not.
    let limits = Limits { wall_ms: 60_000, ..Limits::default() };
    let store = PolicyStore::start(folder.clone(), limits, |_| ()).expect("a sandbox");
    assert!(store.wait_for_scan(1, Duration::from_secs(60)));
    (folder, store)
}

#[test]
fn modules_and_their_built_in_twins_answer_the_same_and_keep_the_laws() {
    let (folder, store) = store();
    // Every cluster is asked about two to four times, as the laws want it.
    differ(10_000, |asked| store.ask_node_priority(asked), steadfast_policy_node_priority::builtin);
    differ(10_000, |asked| store.ask_risk(asked), steadfast_policy_risk::builtin);
    differ(5_000, |asked| store.ask_placement(asked), steadfast_policy_placement::builtin);
    std::fs::remove_dir_all(folder).expect("nobody else removes it");
}
