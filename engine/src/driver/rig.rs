//! An agent for tests of the API: real but for its lease path, which does at once what it is asked, and for libvirt.

use super::{Agent, BeatGaps, Inbox, Live, Requests};
use crate::config::Config;
use crate::decisions::{Decisions, Taken};
use crate::driver::inbox::Input;
use crate::hypervisor::Hypervisor;
use crate::libvirt::{self, Settings};
use crate::pages::{self, ClusterFile, Opening, Place, StoredNode};
use crate::policy::PolicyStore;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use steadfast_core::config::{Builtin, Config as MachineConfig, Limits, Timing};
use steadfast_core::decision::{Decision, Kind};
use steadfast_core::event::Event;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::{BootId, Identity, Incarnation, NodeId, Stamp, VmId};
use steadfast_core::ledger::{Desired, Ledger};
use steadfast_core::machine::Machine;
use steadfast_core::message::{Change, Reply, STALE};
use steadfast_core::snapshot::{NodeName, NodeView, Snapshot, VmView};
use steadfast_core::time::{Instant, Millis};
use steadfast_sdk::wire::{NodeFacts, PlacementQuestion, VmFacts};

/// See the module.
pub(crate) struct Rig {
    pub(crate) agent: Arc<Agent>,
    pub(crate) root: PathBuf,
    state: Arc<Mutex<Snapshot>>,
    decisions: Sender<Taken>,
    end: Arc<AtomicBool>,
    meanwhile: Arc<Mutex<Option<Meanwhile>>>,
    shown: Arc<AtomicU64>,
}

/// Begins what is added to the configuration of a rig that keeps it in a file, as an agent of a real node does.
pub(crate) const FROM_FILE: &str = "# from a file\n";

/// What another agent has the leader do.
type Meanwhile = Box<dyn FnOnce(&mut Snapshot) + Send>;

fn me() -> Identity {
    Identity { node: NodeId(1), boot: BootId(1), incarnation: Incarnation(1) }
}

fn names() -> BTreeMap<NodeId, String> {
    (1..=3).map(|n| (NodeId(n), format!("n{n}"))).collect()
}

/// n1 of three; n2 leads.
pub(crate) fn snapshot() -> Snapshot {
    let config = MachineConfig {
        me: me(),
        timing: Timing::standard(Millis(1_100)),
        genesis: Ledger::genesis("c", &names()),
        fence_agents: BTreeSet::new(),
        verification: true,
        never_paused: true,
        inherited: None,
        name: "n1".into(),
        level: FeatureLevel::NEWEST,
        limits: Limits::default(),
        builtin: Builtin {
            node_priority: steadfast_policy_node_priority::builtin,
            placement: steadfast_policy_placement::builtin,
        },
    };
    let (machine, _) = Machine::new(config, Instant(1_000));
    let mut snapshot = machine.snapshot(Instant(1_000));
    snapshot.view = names().keys().copied().collect();
    snapshot.quorate = true;
    snapshot.leader = Some(NodeName { id: NodeId(2), name: "n2".into() });
    snapshot
}

/// An HA VM on n2.
pub(crate) fn vm(name: &str) -> VmView {
    VmView {
        id: VmId(format!("uuid-of-{name}")),
        name: name.into(),
        owner: NodeName { id: NodeId(2), name: "n2".into() },
        state: "running".into(),
        reason: String::new(),
        priority: 500,
        memory_mib: 1_024,
        vcpus: 2,
        labels: BTreeMap::new(),
        desired: Desired::Running,
        migrating_to: None,
        home: None,
    }
}

static COUNT: AtomicU64 = AtomicU64::new(0);

impl Rig {
    /// An agent that lives, with the VMs `web` and `db`; `extra` is added to its configuration.
    pub(crate) fn new(extra: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("sf-rig-{}-{number}", std::process::id()));
        let config = configure(&root, extra);
        let mut begun = snapshot();
        begun.vms = vec![vm("web"), vm("db")];
        let (state, end) = (Arc::new(Mutex::new(begun)), Arc::new(AtomicBool::new(false)));
        let agent = Agent::new(config);
        let inbox = Arc::new(Inbox::default());
        inbox.open();
        let (live, decisions) = live(&agent.config, &inbox);
        let requests = Arc::clone(&live.requests);
        agent.begin(Arc::new(live));
        let (meanwhile, shown) = (Arc::default(), Arc::default());
        let rig = Self { agent, root, state, decisions, end, meanwhile, shown };
        rig.keep_lease(inbox, requests);
        rig
    }

    /// What everybody sees from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.state());
        self.agent.news.ring();
    }

    /// This happens after the agent has looked for the next change, and before the leader hears of it.
    pub(crate) fn change_meanwhile(&self, change: impl FnOnce(&mut Snapshot) + Send + 'static) {
        *self.meanwhile.lock().expect("no panic") = Some(Box::new(change));
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Snapshot> {
        self.state.lock().expect("no test panics with it")
    }

    /// The machine records this.
    pub(crate) fn decide(&self, number: u64, text: &str) {
        let decision = Decision {
            number,
            at: Instant(number),
            kind: Kind::Decided,
            node: None,
            vm: None,
            term: 1,
            stamp: Stamp::default(),
            text: text.into(),
            rule: "PROTOCOL 5",
            facts: Vec::new(),
            reasons: None,
            policy: None,
        };
        let taken = Taken { decision: Box::new(decision), wall_ms: 0 };
        self.decisions.send(taken).expect("the recorder lives");
    }

    /// How often the lease path was asked for its state.
    pub(crate) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }

    fn keep_lease(&self, inbox: Arc<Inbox>, requests: Arc<Requests>) {
        let (state, end) = (Arc::clone(&self.state), Arc::clone(&self.end));
        let (shown, meanwhile) = (Arc::clone(&self.shown), Arc::clone(&self.meanwhile));
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match inbox.pop(Duration::from_millis(100)) {
                    Some(Input::Show(tell)) => {
                        shown.fetch_add(1, Ordering::Relaxed);
                        tell(state.lock().expect("no panic").clone());
                    }
                    Some(Input::WhatIf(node, tell)) => {
                        let state = state.lock().expect("no panic");
                        tell(what_if(&state, node));
                    }
                    Some(Input::Event(Event::ChangeRequested { id, change })) => {
                        let mut state = state.lock().expect("no panic");
                        if let Some(change) = meanwhile.lock().expect("no panic").take() {
                            change(&mut state);
                            state.ledger.stamp.version += 1;
                        }
                        let result = apply(&mut state, *change);
                        requests.answer(&Reply { to: me(), id, result });
                    }
                    _ => {}
                }
            }
        });
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn configure(root: &std::path::Path, extra: &str) -> Config {
    let _ = std::fs::remove_dir_all(root);
    for folder in ["run", "state", "policies"] {
        std::fs::create_dir_all(root.join(folder)).expect("a temporary folder");
    }
    let at = |name: &str| root.join(name).display().to_string();
    let text = format!(
        "[cluster]\nname = \"c\"\n[storage]\ndirectory = {:?}\n[libvirt]\nuri = {:?}\n[run]\ndirectory = {:?}\n\
         state_directory = {:?}\n[policies]\ndirectory = {:?}\n{extra}",
        at("shared"),
        format!("qemu+unix:///system?socket={}", at("nobody.sock")),
        at("run"),
        at("state"),
        at("policies"),
    );
    let file = root.join("steadfast.toml");
    std::fs::write(&file, &text).expect("a temporary folder");
    match extra.starts_with(FROM_FILE) {
        true => Config::load(&file),
        false => Config::parse(&text),
    }
    .expect("the rig's configuration is good")
}

fn live(config: &Config, inbox: &Arc<Inbox>) -> (Live, Sender<Taken>) {
    let events: crate::Sink = Arc::new(drop);
    let stored: Vec<StoredNode> =
        names().into_iter().map(|(id, name)| StoredNode { id, name }).collect();
    let place: &Place = &config.storage;
    let cluster = ClusterFile::new("c", &stored).expect("names");
    pages::init(place, &cluster, None).expect("a store");
    let mut opening = Opening::new(place.clone());
    let pages = opening.open(NodeId(1), &config.run, Arc::clone(&events)).expect("a store");
    let (decisions, queue) =
        Decisions::start("n1", Arc::clone(inbox), &config.state, Arc::clone(&pages))
            .expect("threads");
    let settings = Settings {
        uri: config.libvirt_uri.clone(),
        run_directory: config.run.clone(),
        call_deadline: Duration::from_secs(1),
        incarnation: Incarnation(1),
    };
    let clock = Arc::new(|| crate::clock::Clock.now());
    let (folder, policy_settings) = (config.policies.folder.clone(), &config.policies.settings);
    let live = Live {
        timing: Timing::standard(Millis(1_100)),
        read_back: None,
        inbox: Arc::clone(inbox),
        gaps: Arc::new(BeatGaps::default()),
        requests: Arc::new(Requests::default()),
        decisions,
        policies: PolicyStore::start(folder, policy_settings.clone(), |_| ()).expect("a sandbox"),
        hypervisor: Arc::new(Hypervisor::Libvirt(
            libvirt::Hypervisor::start(settings, clock, events).expect("threads"),
        )),
        pages,
        telemetry: Arc::default(),
        verification: Arc::default(),
    };
    (live, queue)
}

/// `web` goes where room is, `db` after it.
fn what_if(state: &Snapshot, dead: NodeId) -> Option<PlacementQuestion> {
    state.nodes.iter().find(|node| node.id == dead)?;
    let room = |node: &NodeView| NodeFacts {
        id: node.id.0,
        name: node.name.clone(),
        memory_free_mib: 1_500,
        vcpus: 8,
        ..NodeFacts::default()
    };
    let vm = |vm: &VmView| VmFacts {
        id: vm.id.0.clone(),
        name: vm.name.clone(),
        memory_mib: vm.memory_mib,
        vcpus: vm.vcpus,
        ..VmFacts::default()
    };
    Some(PlacementQuestion {
        nodes: state.nodes.iter().filter(|node| node.id != dead).map(room).collect(),
        vms: state.vms.iter().filter(|vm| vm.owner.id == dead).map(vm).collect(),
        ..PlacementQuestion::default()
    })
}

/// What the leader would do, roughly.
fn apply(state: &mut Snapshot, change: Change) -> Result<Stamp, String> {
    match change {
        Change::AsOf { stamp, .. } if stamp != state.ledger.stamp => return Err(STALE.into()),
        Change::AsOf { change, .. } => return apply(state, *change),
        Change::DisableVm(id) => state.vms.retain(|vm| vm.id != id),
        Change::StartVm(id) => wish(state, &id, Desired::Running),
        Change::StopVm(id) => wish(state, &id, Desired::Stopped),
        Change::Arm => state.disarm = None,
        Change::SetPriority { vm: id, priority } => {
            let found = state.vms.iter_mut().find(|vm| vm.id == id);
            found.ok_or("not under HA")?.priority = priority;
        }
        Change::EndMaintenance(_) | Change::MigrateVm { .. } | Change::RelocateVm { .. } => {}
        Change::AddNode { .. } | Change::RemoveNode(_) | Change::BeginMaintenance { .. } => {}
        Change::Disarm { .. } => {}
        other => return Err(format!("the rig does not do {other:?}")),
    }
    state.ledger.stamp.version += 1;
    Ok(state.ledger.stamp)
}

fn wish(state: &mut Snapshot, id: &VmId, desired: Desired) {
    state.vms.iter_mut().filter(|vm| vm.id == *id).for_each(|vm| vm.desired = desired);
}
