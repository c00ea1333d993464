//! Policies on real files, in a real sandbox.

mod broken;
mod choice;
mod folder;
mod golden;
mod ladder;
mod reload;
mod replay;
mod shipped;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use steadfast_sdk::wire::{NodeFacts, PlacementQuestion, VmFacts};

use super::{Kind, Largest, Limits, PolicyStatus, PolicyStore, Settings};

const PATIENCE: Duration = Duration::from_secs(60);

/// A policy folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("steadfast-policy-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name).join("policies");
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Drops a file as an operator should: under another name first.
    fn drop_file(&self, name: &str, bytes: &[u8]) {
        let part = self.0.join(format!(".{name}.part"));
        fs::write(&part, bytes).unwrap();
        fs::rename(part, self.0.join(name)).unwrap();
    }

    fn drop_fixture(&self, fixture: &str) {
        self.drop_file(&format!("{fixture}.wasm"), &module(fixture));
    }

    fn start(&self) -> Arc<PolicyStore> {
        self.start_with(small())
    }

    /// A store that reads the folder once, and again only when it is told to.
    fn unwatched(&self, settings: impl Into<Settings>) -> Arc<PolicyStore> {
        let store = PolicyStore::unwatched(self.0.clone(), settings).unwrap();
        store.scan();
        store
    }

    fn start_with(&self, settings: impl Into<Settings>) -> Arc<PolicyStore> {
        let store = PolicyStore::start(self.0.clone(), settings, |_| ()).unwrap();
        assert!(store.wait_for_scan(1, PATIENCE));
        store
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// With a short rehearsal.
fn small() -> Settings {
    Settings { largest: Largest { nodes: 3, vms: 4 }, ..Settings::default() }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A module from `tests/wat` for placement.
pub(crate) fn module(fixture: &str) -> Vec<u8> {
    module_for(fixture, Kind::Placement)
}

/// A module from `tests/wat` for one kind.
fn module_for(fixture: &str, kind: Kind) -> Vec<u8> {
    wat::parse_str(text_for(fixture, fixture, &[kind])).unwrap()
}

/// The text of a module from `tests/wat`, under another name.
fn text_for(fixture: &str, name: &str, kinds: &[Kind]) -> String {
    let read =
        |name: &str| fs::read_to_string(root().join(format!("tests/wat/{name}.wat"))).unwrap();
    let all = |of: &dyn Fn(&Kind) -> String, between| {
        kinds.iter().map(of).collect::<Vec<_>>().join(between)
    };
    let skeleton = read("skeleton").replace("{{NAME}}", name);
    let skeleton = skeleton.replace("{{KINDS}}", &all(&|kind| format!("\\\"{kind}\\\""), ","));
    let export = |kind: &Kind| format!("(export \"{}\")", kind.export());
    let skeleton = skeleton.replace("{{EXPORTS}}", &all(&export, " "));
    skeleton.replace("{{FIXTURE}}", &read(fixture))
}

/// A shipped or example policy as `policies/build` builds it.
fn built(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let done = Command::new(root().join("policies/build")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    });
    fs::read(root().join(format!("policies/out/{name}.wasm"))).unwrap()
}

fn node(id: u32) -> NodeFacts {
    NodeFacts {
        id,
        name: format!("n{id}"),
        status: "Member".into(),
        memory_mib: 64_000,
        memory_free_mib: 40_000 + u64::from(id),
        vcpus: 32,
        vcpus_used: 4,
        labels: [("rack".to_string(), format!("r{}", id % 2))].into(),
        ..NodeFacts::default()
    }
}

fn vm(number: u32) -> VmFacts {
    VmFacts {
        id: format!("00000000-0000-4000-8000-{number:012}"),
        name: format!("vm-{number}"),
        memory_mib: 512,
        vcpus: 2,
        labels: [("group".to_string(), format!("g{}", number % 40))].into(),
        ..VmFacts::default()
    }
}

fn question(nodes: u32, vms: u32) -> PlacementQuestion {
    PlacementQuestion {
        now_ms: 1,
        seed: 7,
        nodes: (1..=nodes).map(node).collect(),
        vms: (1..=vms).map(vm).collect(),
        residents: Vec::new(),
    }
}

/// The first status that matches, as soon as there is one.
fn eventually(store: &PolicyStore, wanted: impl Fn(&PolicyStatus) -> bool) -> PolicyStatus {
    let begin = Instant::now();
    loop {
        let status = store.status();
        if let Some(found) = status.all().find(|status| wanted(status)) {
            return found.clone();
        }
        assert!(begin.elapsed() < PATIENCE, "nothing of the kind in {status:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn deciding(store: &PolicyStore, kind: Kind) -> PolicyStatus {
    let status = store.status();
    let found = status.all().find(|status| status.kind == Some(kind) && status.deciding);
    found.unwrap_or_else(|| panic!("nobody decides {kind}: {status:#?}")).clone()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
