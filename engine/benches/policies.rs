//! What a policy costs: `cargo bench -p steadfast-engine --bench policies`, on the modules that `policies/build` builds.
//!
//! Every case asks the shipped module and its native twin the same question in the same run. A module's time goes from the typed
//! question to the typed, checked verdict: encoding, a fresh instance, copying, the policy, decoding and checking are in it. The twin's is
//! the policy alone, from the same typed question to its typed verdict. All are medians.
//!
//! `-- --reloads 1000` says how often a module is replaced (each takes a third of a second), `-- --short` leaves the reloads out.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has no result")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use steadfast_engine::policy::{Limits, Measured, PolicyStore, Workbench};
use steadfast_sdk::generate::Dice;
use steadfast_sdk::residents::Residents;
use steadfast_sdk::wire::{
    NodeFacts, NodePriorityQuestion, PlacementQuestion, Reading, RiskQuestion, VmFacts,
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().skip_while(|it| *it != name).nth(1);
    let built = Command::new(root().join("policies/build")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let [priority, placement, risk] = ["node-priority", "placement", "risk"].map(open);
    heading();
    let asked = NodePriorityQuestion { node: node(1, 9_000), ..Default::default() };
    let twin = || steadfast_policy_node_priority::builtin(&asked);
    row("node priority", 1_000, &asked, || priority.ask(&asked).unwrap(), twin);
    let asked = risk_question();
    let twin = || steadfast_policy_risk::builtin(&asked);
    row("risk, 12 readings", 1_000, &asked, || risk.ask(&asked).unwrap(), twin);
    let cases = [
        ("placement: 50 VMs on 5 nodes", after_blackout(5, 50), 500),
        ("placement: 160 of 10,000 VMs, 63 nodes", one_node_of(10_000, 64), 200),
        ("placement: 10,000 VMs on 64 nodes", after_blackout(64, 10_000), 15),
    ];
    for (what, asked, times) in &cases {
        let twin = || steadfast_policy_placement::builtin(asked);
        row(what, *times, asked, || placement.ask(asked).unwrap(), twin);
    }
    for (what, asked, times) in &cases {
        println!("\n{what}, in parts:");
        parts(*times, || placement.ask_in_parts(asked).unwrap());
    }
    gathering();
    if !arguments.iter().any(|it| it == "--short") {
        reloads(after("--reloads").map_or(20, |number| number.parse().unwrap()));
    }
}

fn heading() {
    let [module, twin, ratio] = ["module", "twin", "ratio"];
    println!(
        "{:40} {:>10} {module:>9} {twin:>9} {ratio:>6} {:>12} {:>9}",
        "medians", "question", "fuel", "memory"
    );
}

fn row<Q: serde::Serialize, V: PartialEq + std::fmt::Debug>(
    what: &str,
    times: usize,
    question: &Q,
    ask: impl Fn() -> Measured<V>,
    native: impl Fn() -> V,
) {
    let measured = ask();
    assert!(measured.verdict == native(), "module and twin differ: {what}");
    let json = serde_json::to_vec(question).unwrap().len();
    let (module, twin) = (median(times, &ask), median(times, &native));
    let ratio = module.as_secs_f64() / twin.as_secs_f64();
    let Measured { fuel, memory_bytes, question_bytes, .. } = measured;
    let size = format!("{:.1} KB", question_bytes as f64 / 1e3);
    let memory = format!("{:.1} MiB", memory_bytes as f64 / f64::from(1 << 20));
    let (module, twin) = (shown(module), shown(twin));
    println!("{what:40} {size:>10} {module:>9} {twin:>9} {ratio:>6.1} {fuel:>12} {memory:>9}");
    if json != question_bytes {
        println!(
            "{:40} {:>10}",
            "   the same question in JSON",
            format!("{:.1} KB", json as f64 / 1e3)
        );
    }
}

/// The median of each part, over several calls.
fn parts<V>(times: usize, ask: impl Fn() -> Measured<V>) {
    let calls: Vec<_> = (0..times).map(|_| ask().parts).collect();
    for (at, (name, _)) in calls[0].iter().enumerate() {
        let mut took: Vec<Duration> = calls.iter().map(|parts| parts[at].1).collect();
        took.sort_unstable();
        println!("  {name:30} {:>9}", shown(took[took.len() / 2]));
    }
}

/// What the leader does before it asks: which of all the VMs matter to the orphans.
fn gathering() {
    let (orphans, others) = cluster(10_000, 64);
    let took = median(50, || residents(&orphans, &others));
    println!("\nbefore the question: {} VMs looked through in {}", others.len(), shown(took));
}

fn reloads(times: u64) {
    let folder = Folder::new();
    let bytes = |name: &str| std::fs::read(module(name)).unwrap();
    let [placement, risk, other] = ["placement", "risk", "node-priority"].map(bytes);
    let store = PolicyStore::start(folder.0.clone(), Limits::default(), |_| ()).unwrap();
    assert!(store.wait_for_scan(1, Duration::from_secs(60)));
    let mut generation = 0;
    let mut replace = |bytes: &[u8]| {
        let begin = Instant::now();
        folder.replace("policy.wasm", bytes);
        generation += 1;
        let active = || {
            store.status().all().any(|status| status.deciding && status.generation == generation)
        };
        while !active() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{:#?}", store.status());
            std::thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    };
    println!("\ndrop to active, 300 ms of settling in it:");
    println!("  the placement module, {} bytes: {}", placement.len(), shown(replace(&placement)));
    (0..4).for_each(|round| _ = replace([&risk, &other][round % 2]));
    let before = resident_kib();
    let mut took: Vec<Duration> =
        (0..times).map(|round| replace(if round % 2 == 0 { &risk } else { &other })).collect();
    took.sort_unstable();
    let (middle, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("  {times} reloads: median {}, slowest {}", shown(middle), shown(slowest));
    println!("  resident memory: {before} KiB before, {} KiB after them", resident_kib());
}

fn shown(took: Duration) -> String {
    match took.as_nanos() {
        nanos @ 0..1_000 => format!("{nanos} ns"),
        nanos @ 1_000..1_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        nanos => format!("{:.2} ms", nanos as f64 / 1e6),
    }
}

fn median<T>(times: usize, mut work: impl FnMut() -> T) -> Duration {
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            let result = std::hint::black_box(work());
            let took = begin.elapsed();
            drop(result);
            took
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn module(name: &str) -> PathBuf {
    root().join(format!("policies/out/{name}.wasm"))
}

fn open(name: &str) -> Workbench {
    Workbench::open(&module(name), Limits::default()).unwrap()
}

/// A policy folder that goes with the measurement.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("steadfast-bench-{}", std::process::id());
        let path = std::env::temp_dir().join(name).join("policies");
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn replace(&self, name: &str, bytes: &[u8]) {
        let part = self.0.join(".part");
        std::fs::write(&part, bytes).unwrap();
        std::fs::rename(part, self.0.join(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

fn node(id: u32, memory_free_mib: u64) -> NodeFacts {
    let labels = [("rack", id % 8), ("room", id % 2)];
    NodeFacts {
        id,
        name: format!("node-{id:02}.example.net"),
        status: if id == 1 { "Leader" } else { "Member" }.into(),
        memory_mib: 1_048_576,
        memory_free_mib,
        real_memory_free_mib: 0,
        vcpus: 128,
        vcpus_used: 40,
        load_permille: 20_000 + id,
        storage_latency_ms: 5,
        network_age_ms: 100,
        flaps: u32::from(id == 7),
        risk: if id == 9 { 40 } else { 0 },
        cordoned: id == 11,
        labels: labels.map(|(key, value)| (key.to_string(), format!("{key}-{value}"))).into(),
    }
}

/// One VM in twenty must stand apart from its like, all belong to one of 40 groups.
fn vm(number: u32, dice: &mut Dice) -> VmFacts {
    let mut labels = BTreeMap::from([("group".to_string(), format!("group-{}", dice.small(40)))]);
    if dice.rarely(20) {
        labels.insert("keep-apart".to_string(), format!("pair-{}", dice.small(200)));
    }
    VmFacts {
        id: format!("{:08x}-0000-4000-8000-{number:012}", dice.small(u32::MAX)),
        name: format!("customer-{number:05}"),
        memory_mib: 512 << dice.small(5),
        vcpus: 1 + dice.small(4),
        priority: u16::try_from(dice.below(6) * 200).unwrap(),
        labels,
        last_node: Some(number % 64 + 1),
        ..VmFacts::default()
    }
}

fn after_blackout(nodes: u32, vms: u32) -> PlacementQuestion {
    let mut dice = Dice::new(1);
    let mut vms: Vec<_> = (0..vms).map(|number| vm(number, &mut dice)).collect();
    vms.sort_by(|one, other| one.id.cmp(&other.id));
    let nodes = (1..=nodes).map(|id| node(id, 1_000_000 + u64::from(id))).collect();
    PlacementQuestion { now_ms: 1, seed: 7, nodes, vms, residents: Vec::new() }
}

/// The VMs of the last node, and all others with their nodes.
fn cluster(vms: u32, nodes: u32) -> (Vec<VmFacts>, Vec<(VmFacts, u32)>) {
    let mut dice = Dice::new(2);
    let orphans = 160;
    let mut all: Vec<_> = (0..vms).map(|number| vm(number, &mut dice)).collect();
    let mut others: Vec<_> = all.split_off(orphans).into_iter().zip((1..nodes).cycle()).collect();
    all.sort_by(|one, other| one.id.cmp(&other.id));
    others.sort_by(|one, other| one.0.id.cmp(&other.0.id));
    (all, others)
}

fn residents(vms: &[VmFacts], others: &[(VmFacts, u32)]) -> Vec<steadfast_sdk::wire::Resident> {
    let mut residents = Residents::of(vms);
    others.iter().for_each(|(vm, node)| residents.add(&vm.id, *node, &vm.labels, &vm.affinity));
    residents.rows()
}

fn one_node_of(vms: u32, nodes: u32) -> PlacementQuestion {
    let (vms, others) = cluster(vms, nodes);
    let residents = residents(&vms, &others);
    let nodes = (1..nodes).map(|id| node(id, 300_000 + u64::from(id) * 1_000)).collect();
    PlacementQuestion { now_ms: 1, seed: 7, nodes, vms, residents }
}

fn risk_question() -> RiskQuestion {
    let names = [
        "edac.mc0.correctable_per_hour",
        "kernel.hardware_errors",
        "link.eth0.errors_per_minute",
        "md.md0.missing",
        "multipath.mpatha.failed_paths",
        "power_supply.psu1.failed",
        "psi.io.full_avg60_permille",
        "psi.memory.full_avg60_permille",
        "smart.sda.media_errors",
        "smart.sda.pending",
        "smart.sda.reallocated",
        "temperature.cpu0.below_critical_c",
    ];
    let reading = |name: &&str| Reading { name: (*name).to_string(), value: 30, age_ms: 1_000 };
    RiskQuestion {
        node: node(1, 9_000),
        telemetry: names.iter().map(reading).collect(),
        ..RiskQuestion::default()
    }
}
