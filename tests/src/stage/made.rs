//! State as agents tell it, made up: any number of nodes and VMs, all well.

use serde_json::{Map, Value, json};
use steadfast_core::bounds::{self, Assumed, Bound};
use steadfast_core::config::Timing;
use steadfast_core::time::Millis;
use steadfast_core::timing_lint::{Key, lint};

/// Corosync's token and consensus with its defaults.
const MEMBERSHIP: Millis = Millis(1_000);
const MEMORY_MIB: u64 = 786_432;
const NAMES: [&str; 16] = [
    "web", "db", "mail", "cache", "queue", "auth", "files", "build", "metrics", "search", "proxy",
    "shop", "wiki", "backup", "voice", "ldap",
];

pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn state(nodes: u32, vms: u32) -> Value {
    let per_node = vms / nodes.max(1);
    let all: Map<String, Value> =
        (1..=nodes).map(|id| (node_name(id), node(id, per_node))).collect();
    let timing = Timing::standard(MEMBERSHIP);
    json!({
        "version": "0.1.0", "wall_ms": wall_ms(), "at": 5_000_000,
        "bounds": told(&timing), "warnings": [],
        "beats": {"interval_ms": 500, "longest_gap_ms": 512, "longest_gap_lately_ms": 503},
        "cluster": "prod", "node": {"id": 1, "name": "n1"}, "leader": {"id": 1, "name": "n1"}, "term": 3,
        "ledger": {"stamp": {"ballot": {"term": 3, "node": 1}, "version": 41}, "proved": true, "promised": {"term": 3, "node": 1}},
        "view": (1..=nodes).collect::<Vec<_>>(), "quorate": true,
        "lease": {"left": 4_800, "network_age": 200, "storage_age": 300, "armed": true, "text": "good"},
        "election": {"round": 7, "phase": "leading", "reason": "the leader n2 was restarted for an upgrade",
            "ballots": (1..=nodes).map(ballot).collect::<Vec<_>>(), "winner": 1},
        "nodes": all,
        "vms": (0..vms).map(|number| (vm_id(number), vm(number, nodes))).collect::<Map<_, _>>(),
        "plan": (1..=nodes).map(|id| (node_name(id), plan(per_node))).collect::<Map<_, _>>(),
        "policies": policies(nodes), "timing": by_key(&timing),
        "watch": {"connected": true, "via": "n1", "since_wall_ms": wall_ms(), "agents": {}, "alarms_open": 0,
            "self_vm": {"id": vm_id(0), "name": vm_name(0), "protected": false}},
    })
}

pub(super) fn node_name(id: u32) -> String {
    format!("n{id}")
}

pub(super) fn vm_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub(super) fn vm_name(number: u32) -> String {
    let kind = NAMES[number as usize % NAMES.len()];
    match number as usize / NAMES.len() {
        0 => kind.into(),
        more => format!("{kind}-{}", more + 1),
    }
}

fn node(id: u32, vms: u32) -> Value {
    let used = u64::from(vms) * 4_096 % MEMORY_MIB;
    let rack = ["a", "b", "c"][id as usize % 3];
    json!({
        "id": id, "name": node_name(id), "status": if id == 1 { "Leader" } else { "Member" },
        "status_text": if id == 1 { "Leader" } else { "Member" }, "reason": "", "in_view": true,
        "beat_age": 120 + id * 7 % 400, "page_age": 200 + id * 13 % 400, "lease_left": 4_600 + id * 11 % 300,
        "armed": true, "verification": true, "policy": "", "leaving": false,
        "facts": {"id": id, "name": node_name(id), "status": "Member", "memory_mib": MEMORY_MIB,
            "memory_free_mib": MEMORY_MIB - used, "real_memory_free_mib": MEMORY_MIB - used / 2, "vcpus": 64,
            "vcpus_used": vms * 2, "load_permille": 9_000 + id * 977 % 20_000, "storage_latency_ms": 4 + id % 5,
            "network_age_ms": 150, "flaps": 0, "risk": 0, "cordoned": false, "labels": {"rack": rack}},
        "risk": {"report": {"number": 9, "score": id * 37 % 90, "terms": [{"name": "temperature", "value": id * 37 % 90}],
            "decider": "steadfast.default.risk 1.0.0", "age": 900}, "hold": null, "level": "calm", "mode": "shadow",
            "text": "its equipment is well"},
    })
}

fn vm(number: u32, nodes: u32) -> Value {
    let owner = number % nodes + 1;
    json!({
        "id": vm_id(number), "name": vm_name(number), "owner": {"id": owner, "name": node_name(owner)}, "state": "running",
        "reason": "", "priority": 100 + number * 67 % 900, "memory_mib": 4_096, "vcpus": 2, "labels": {}, "desired": "Running",
    })
}

/// What a node's policy says of it.
pub(super) fn ballot(id: u32) -> Value {
    let (free, load, kept) =
        (420 - i64::from(id * 29 % 160), -i64::from(id * 13 % 90), if id == 1 { 100 } else { 0 });
    json!({
        "node": id, "decider": "steadfast.default.node-priority 1.0.0", "eligible": true,
        "priority": {"value": free + load + kept + 250, "terms": [
            {"name": "fresh evidence", "value": 250}, {"name": "free CPU", "value": free}, {"name": "storage latency", "value": load},
            {"name": "leads already", "value": kept}]},
    })
}

fn plan(vms: u32) -> Value {
    json!({"vms": vms, "fits": vms, "waits": 0, "lacks": 0, "restart": [], "wait": [], "unfit": [], "headroom_mib": 240_000})
}

fn policies(nodes: u32) -> Value {
    let kinds = ["node_priority", "placement", "risk"].map(|kind| {
        json!({"kind": kind, "bind": null, "ambiguous": false, "rolled_back_from": null,
            "agreement": format!("{nodes} of {nodes} use 5f3c9a1e"), "peers": [], "differences": [],
            "policies": [policy(kind, "active", true), policy(kind, "built_in", false)]})
    });
    json!({"kinds": kinds, "failed": []})
}

/// A policy that passed all stages, or the agent's own.
pub(super) fn policy(kind: &str, state: &str, deciding: bool) -> Value {
    let name = format!("steadfast.default.{}", kind.replace('_', "-"));
    if state == "built_in" {
        return json!({"kind": kind, "name": name, "version": "1.0.0", "file": "", "about": "The agent's own.", "digest": "ab".repeat(32),
            "state": state, "deciding": deciding, "generation": 0, "calls": 0, "failures": 0, "stages": []});
    }
    let stages = [
        "read",
        "size",
        "digest",
        "permissions",
        "signature",
        "manifest",
        "limits",
        "compile",
        "instantiate",
        "init",
        "self_test",
        "laws",
        "rehearsal",
        "staged",
    ];
    let stages: Vec<Value> = stages
        .iter()
        .zip(1_u32..)
        .map(|(stage, at)| json!({"stage": stage, "micros": at * at * 173, "passed": true}))
        .collect();
    json!({
        "kind": kind, "name": name, "version": "1.0.0", "file": format!("{name}.wasm"), "about": "The policy that Steadfast ships.",
        "parameters": [], "digest": "5f3c9a1e".repeat(8), "module_bytes": 84_213, "generation": 1, "loaded_ms": wall_ms(),
        "state": state, "deciding": deciding, "shadow": false, "stages": stages, "last_error": null, "laws_tried": 256,
        "headroom": {"kind": kind, "nodes": 64, "vms": 10_000, "question_bytes": 310_000, "fuel": 18_000_000_u64, "fuel_limit": 400_000_000_u64,
            "memory_bytes": 3_400_000, "memory_limit_bytes": 33_554_432, "micros": 9_400},
        "calls": 1_204, "failures": 0, "breaker": {"state": "closed", "failures_in_row": 0}, "p50_micros": 212, "p99_micros": 640,
        "last_fuel": 91_300, "last_memory_bytes": 1_310_720, "shadowed": {"asked": 0, "differed": 0, "failed": 0, "skipped": 0},
    })
}

/// The real linter's word on time-outs, by their keys.
pub(super) fn check(wanted: &Value) -> Value {
    let mut timing = Timing::standard(MEMBERSHIP);
    for key in Key::ALL {
        if let Some(ms) = wanted["timing"][key.name()].as_u64() {
            *key.place(&mut timing) = Millis(ms);
        }
    }
    let problem = |text: String, inequality: &str| json!({"text": text, "inequality": inequality});
    let problems: Vec<Value> = lint(&timing)
        .iter()
        .map(|it| {
            problem(
                format!("{}; {}", it.what(), it.remedy()),
                &format!("{}: {} > {}", it.inequality, it.left, it.right),
            )
        })
        .collect();
    json!({"ok": problems.is_empty(), "problems": problems, "bounds": told(&timing)})
}

fn told(timing: &Timing) -> Vec<Value> {
    let slowest = bounds::bounds(timing, &Assumed::slowest(timing, true));
    let tell = |(bound, slowest): (Bound, Bound)| {
        json!({"failure": bound.row.words(), "role": bound.role.words(), "fence_agent": bound.fence_agent,
            "bound_ms": bound.total.map(|it| it.0), "slowest_ms": slowest.total.map(|it| it.0), "sum": bound.sum(), "note": bound.note})
    };
    bounds::bounds(timing, &Assumed::working(true)).into_iter().zip(slowest).map(tell).collect()
}

fn by_key(timing: &Timing) -> Map<String, Value> {
    Key::ALL.iter().map(|key| (key.name().to_owned(), json!(key.get(timing).0))).collect()
}
