//! Measurements: `cargo test --release -p steadfast-engine --lib policy::tests::measure -- --ignored
//! --nocapture`.

use steadfast_sdk::wire::{NodePriorityQuestion, Resident, RiskQuestion};

use super::*;
use crate::policy::store::{Answer, DeciderKind};

pub(super) fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn median<T>(times: u32, mut work: impl FnMut() -> T) -> Duration {
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(work());
            begin.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

fn row<V>(what: &str, times: u32, ask: impl Fn() -> Answer<V>, native: impl Fn() -> V) {
    let decider = ask().decider;
    assert_eq!(decider.kind, DeciderKind::Active, "{decider:?}");
    let (wasm, twin) = (median(times, &ask), median(times, native));
    println!("{what:44} wasm {wasm:>10.1?}  native {twin:>10.1?}  fuel {:>11}", decider.fuel);
}

fn with_residents(nodes: u32, vms: u32, residents: u32) -> PlacementQuestion {
    let mut asked = question(nodes, vms);
    let resident = |at: u32| Resident {
        vm: vm(100_000 + at).id,
        node: at % nodes + 1,
        labels: vm(at).labels,
        ..Resident::default()
    };
    asked.residents = (0..residents).map(resident).collect();
    asked
}

#[test]
#[ignore = "prints measurements"]
fn measure() {
    let modules = ["node-priority", "placement", "risk"].map(|name| (name, built(name)));
    let before = resident_kib();
    let folder = Folder::new();
    for (name, bytes) in &modules {
        folder.drop_file(&format!("{name}.wasm"), bytes);
    }
    let begin = Instant::now();
    let limits = Limits { fuel: 10_000_000_000, wall_ms: 20_000, ..Limits::default() };
    let store = folder.start_with(limits);
    println!("three modules loaded in {:?}", begin.elapsed());
    for status in store.status().all().filter(|status| !status.stages.is_empty()) {
        let stages = status.stages.iter().map(|it| format!("{} {}us", it.stage, it.micros));
        println!("  {}: {}", status.name, stages.collect::<Vec<_>>().join(", "));
    }
    println!("resident: {before} KiB before, {} KiB with them", resident_kib());
    let node_question = NodePriorityQuestion { node: node(1), ..Default::default() };
    let twin = || steadfast_policy_node_priority::builtin(&node_question);
    row("node priority", 500, || store.ask_node_priority(&node_question), twin);
    let risk_question = RiskQuestion { node: node(1), ..Default::default() };
    let twin = || steadfast_policy_risk::builtin(&risk_question);
    row("risk", 500, || store.ask_risk(&risk_question), twin);
    for (nodes, vms, residents, times) in [
        (3, 3, 0, 500),
        (5, 50, 200, 200),
        (64, 160, 0, 50),
        (63, 160, 9_840, 50),
        (64, 10_000, 0, 3),
    ] {
        let asked = with_residents(nodes, vms, residents);
        let bytes = serde_json::to_vec(&asked).unwrap().len();
        let what =
            format!("{vms} VMs on {nodes} nodes, {residents} residents, {} KiB", bytes / 1024);
        let twin = || steadfast_policy_placement::builtin(&asked);
        row(&what, times, || store.ask_placement(&asked), twin);
    }
    println!("resident: {} KiB after all", resident_kib());
    reloads(&folder, &store);
}

fn reloads(folder: &Folder, store: &PolicyStore) {
    let modules = [module("good"), module("other-good")];
    let mut slowest = Duration::ZERO;
    let before = resident_kib();
    for round in 0..10_u64 {
        let begin = Instant::now();
        folder.drop_file("x.wasm", &modules[usize::try_from(round % 2).unwrap()]);
        eventually(store, |status| status.deciding && status.generation == 4 + round);
        slowest = slowest.max(begin.elapsed());
    }
    println!(
        "10 reloads: slowest drop-to-active {slowest:?}, resident {before} -> {} KiB",
        resident_kib()
    );
}
