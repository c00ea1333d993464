//! Files, configurations and VMs of a demonstration.

use super::guests::Domain;
use super::ring::MEMBERSHIP;
use super::world::{Host, World};
use super::{Options, Preset};
use crate::cli::Client;
use crate::pages::{self, ClusterFile, StoredNode};
use crate::threads::{self, lock};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use steadfast_core::ids::{NodeId, VmId};

/// The cluster's name.
pub(super) const CLUSTER: &str = "demo";
const NAMES: [&str; 16] = [
    "web", "db", "mail", "shop", "wiki", "ci", "auth", "dns", "cache", "queue", "files", "backup",
    "chat", "git", "logs", "maps",
];
/// How own folders are called, before a process id; and the file in them that is locked.
const PREFIX: &str = "steadfast-demo-";
const LOCK: &str = "lock";
/// A VM without HA: what happens to it is what happened before.
const UNPROTECTED: &str = "scratch";
/// Memory and CPUs of a small node; more VMs get larger ones.
const MEMORY_MIB: u64 = 32_768;
const VCPUS: u32 = 16;
/// In beats: after this everybody knows who has read what.
const HEARD: u64 = 4;
/// Attempts to remove the files.
const REMOVALS: u32 = 10;
/// How often it is tried to put a VM under HA while the cluster comes up.
const AGAIN: Duration = Duration::from_millis(200);

/// Where everything lies.
#[derive(Debug, Clone)]
pub(super) struct Place {
    folder: PathBuf,
    /// It was made for this demonstration, and goes with it; locked as long as this lives.
    ours: Option<Arc<fs::File>>,
    protected: Arc<(Mutex<bool>, Condvar)>,
}

/// One VM, and where it begins.
struct Vm {
    node: NodeId,
    name: String,
    priority: u16,
    memory_mib: u64,
    vcpus: u32,
}

impl Place {
    pub(super) fn new(folder: Option<&Path>) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = format!("{PREFIX}{}-{number}", std::process::id());
        let (is_ours, folder) = match folder {
            Some(folder) => (false, folder.to_owned()),
            None => (true, std::env::temp_dir().join(own)),
        };
        let made = fs::DirBuilder::new().recursive(!is_ours).mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder.canonicalize().context("the folder is gone")?;
        let ours = is_ours.then(|| lock_folder(&folder)).transpose()?.map(Arc::new);
        Ok(Self { folder, ours, protected: Arc::default() })
    }

    /// Removes what demonstrations left that were killed.
    pub(super) fn tidy() {
        let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
        for entry in entries.filter(|it| it.file_name().to_string_lossy().starts_with(PREFIX)) {
            let lock = fs::File::open(entry.path().join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn drop_folder(&self) -> PathBuf {
        self.folder.join("policies")
    }

    pub(super) fn socket(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.sock"))
    }

    /// Threads that keep records may write their last lines yet.
    pub(super) fn remove(&self) {
        for _ in 0..REMOVALS {
            if self.ours.is_none() || fs::remove_dir_all(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(AGAIN);
        }
        tracing::info!("the demonstration's files could not all be removed");
    }

    /// The store, the drop folder, and the nodes with their VMs.
    pub(super) fn prepare(&self, options: &Options) -> Result<BTreeMap<NodeId, Host>> {
        ensure!((1..=64).contains(&options.nodes), "1 to 64 nodes, not {}", options.nodes);
        ensure!(options.vms <= 10_000, "at most 10,000 VMs, not {}", options.vms);
        let nodes: Vec<StoredNode> = (1..=options.nodes)
            .map(|id| StoredNode { id: NodeId(id), name: name(NodeId(id)) })
            .collect();
        let shared = self.folder.join("shared");
        // Its ledger would say of VMs where they ran then.
        let (folder, old) = (self.folder.display(), shared.exists());
        ensure!(!old, "{folder} holds an earlier demonstration: remove it, or name another folder");
        let store = pages::Place::Directory(shared);
        pages::init(&store, &ClusterFile::new(CLUSTER, &nodes)?, None)?;
        let drop = self.drop_folder();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&drop);
        made.with_context(|| format!("cannot make {}", drop.display()))?;
        for module in &options.policies {
            let to = drop.join(module.file_name().context("a module has a name")?);
            fs::copy(module, &to).with_context(|| format!("cannot copy {}", module.display()))?;
        }
        Ok(hosts(options))
    }

    /// The configuration of one boot's agent, which is left for people to look at.
    pub(super) fn config(&self, node: NodeId, boot: u64, options: &Options) -> Result<String> {
        let (me, folder) = (name(node), &self.folder);
        let run = folder.join(&me).join(format!("run-{boot}"));
        // A boot empties it: it stands for a tmpfs.
        let _ = fs::remove_dir_all(folder.join(&me).join(format!("run-{}", boot.wrapping_sub(1))));
        fs::create_dir_all(&run).with_context(|| format!("cannot make {}", run.display()))?;
        let preset = match options.preset {
            Preset::Fast => "fast",
            Preset::Standard => "standard",
            Preset::Calm => "calm",
        };
        let sources: String =
            crate::telemetry::SOURCES.iter().map(|source| format!("{source} = false\n")).collect();
        let mut text = format!(
            "# An agent of `steadfast demo`. Its network, guests, watchdog and fence agents are not real.\n\
             [cluster]\nname = {CLUSTER:?}\npreset = {preset:?}\n\
             [storage]\ndirectory = {:?}\n\
             [libvirt]\nmigrate_uri = \"demo://{{node}}\"\n\
             [watchdog]\ndevice = \"demo\"\n\
             [verification]\naddresses = [\"192.0.2.1\"]\n\
             [policies]\ndirectory = {:?}\n\
             [proactive]\nmode = \"drain\"\n\
             [telemetry]\ninterval_ms = 5000\n[telemetry.sources]\n{sources}\
             [api]\nsocket = {:?}\n\
             [run]\ndirectory = {run:?}\nstate_directory = {:?}\nnever_paused = true\nrealtime = false\n\
             [node.labels]\nrack = \"{}\"\n",
            folder.join("shared"),
            self.drop_folder(),
            self.socket(&me),
            folder.join(&me).join("state"),
            if node.0 % 2 == 1 { "a" } else { "b" },
        );
        if options.fencing {
            for id in 1..=options.nodes {
                let victim = name(NodeId(id));
                let _ = write!(text, "[[fence]]\nnode = {victim:?}\nagent = \"demo-power\"\n");
            }
        }
        let path = folder.join(&me).join("steadfast.toml");
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(text)
    }

    // --- VMs come under HA ---

    /// Puts the VMs under HA as an operator would, one after the other, on a thread of its own.
    pub(super) fn protect(&self, world: &Arc<World>, options: &Options) -> Result<()> {
        let (place, world, vms) = (self.clone(), Arc::downgrade(world), vms(options));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (nodes, heard) = (options.nodes, options.preset.timing(MEMBERSHIP).beat.0 * HEARD);
        threads::spawn("demo-setup", move || {
            let rest = || {
                std::thread::sleep(AGAIN);
                world.upgrade().is_some_and(|world| world.act(|state| !state.has_ended()))
            };
            for vm in vms {
                while !runtime.block_on(place.enable(&vm)) {
                    if !rest() {
                        return;
                    }
                }
            }
            while !runtime.block_on(place.all_have_read(nodes)) {
                if !rest() {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(heard));
            *lock(&place.protected.0) = true;
            place.protected.1.notify_all();
        })
    }

    async fn enable(&self, vm: &Vm) -> bool {
        let client = Client::new(&self.socket(&name(vm.node)));
        let wanted = json!({ "name": vm.name, "priority": vm.priority });
        let answer = client.post::<serde_json::Value>("/v1/vms", &wanted).await;
        if let Err(failure) = &answer {
            tracing::debug!(vm = vm.name, %failure, "not under HA yet");
        }
        answer.is_ok()
    }

    /// A node that fails before it has heard that a VM is under HA leaves that VM in doubt.
    async fn all_have_read(&self, nodes: u32) -> bool {
        let mut newest = None;
        for node in 1..=nodes {
            let client = Client::new(&self.socket(&name(NodeId(node))));
            // One that lost its power meanwhile is not waited for.
            let Ok(report) = client.status().await else { continue };
            let ledger = report.snapshot.ledger;
            if !ledger.proved || newest.is_some_and(|newest| newest != ledger.stamp) {
                return false;
            }
            newest = Some(ledger.stamp);
        }
        newest.is_some()
    }

    pub(super) fn wait_until_protected(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let left = end.saturating_duration_since(Instant::now());
        let (protected, told) = &*self.protected;
        let waited = told.wait_timeout_while(lock(protected), left, |protected| !*protected);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn lock_folder(folder: &Path) -> Result<fs::File> {
    let path = folder.join(LOCK);
    // Made and locked under another name: whoever tidies up must not find it unlocked.
    let draft = path.with_extension("new");
    let lock = fs::File::create_new(&draft);
    let lock = lock.with_context(|| format!("cannot make {}", draft.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", draft.display()))?;
    fs::rename(&draft, &path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(lock)
}

fn name(node: NodeId) -> String {
    format!("n{}", node.0)
}

/// VMs under HA, spread over the nodes.
fn vms(options: &Options) -> Vec<Vm> {
    let vm = |number: u32| {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let name =
            NAMES.get(index).map_or_else(|| format!("vm{}", number + 1), ToString::to_string);
        Vm {
            node: NodeId(number % options.nodes + 1),
            name,
            priority: [500, 900, 300, 700][index % 4],
            memory_mib: [1_024, 2_048, 1_024, 4_096][index % 4],
            vcpus: [1, 2, 1, 4][index % 4],
        }
    };
    (0..options.vms).map(vm).collect()
}

/// Nodes with room for all VMs on all but one of them, and a little more.
fn hosts(options: &Options) -> BTreeMap<NodeId, Host> {
    let vms = vms(options);
    let others = u64::from(options.nodes.saturating_sub(1).max(1));
    let memory: u64 = vms.iter().map(|vm| vm.memory_mib).sum();
    let vcpus: u32 = vms.iter().map(|vm| vm.vcpus).sum();
    let memory = MEMORY_MIB.max((memory / others * 3 / 2).next_multiple_of(1_024));
    let vcpus = VCPUS.max(vcpus * 3 / 2 / u32::try_from(others).unwrap_or(1));
    let host = |id| (NodeId(id), Host::new(name(NodeId(id)), memory, vcpus));
    let mut hosts: BTreeMap<NodeId, Host> = (1..=options.nodes).map(host).collect();
    for (number, vm) in vms.iter().enumerate() {
        define(&mut hosts, number, vm);
    }
    let (node, name) = (NodeId(options.nodes), UNPROTECTED.to_owned());
    let unprotected = Vm { node, name, priority: 0, memory_mib: 512, vcpus: 1 };
    define(&mut hosts, vms.len(), &unprotected);
    hosts
}

/// It runs with its host until it comes under HA.
fn define(hosts: &mut BTreeMap<NodeId, Host>, number: usize, vm: &Vm) {
    let Some(host) = hosts.get_mut(&vm.node) else { return };
    let id = VmId(format!("00000000-0000-4000-8000-{number:012x}"));
    let Vm { name, memory_mib, vcpus, .. } = vm;
    let xml = format!(
        "<domain type='kvm'>\n  <name>{name}</name>\n  <uuid>{}</uuid>\n  \
         <memory unit='MiB'>{memory_mib}</memory>\n  <vcpu>{vcpus}</vcpu>\n  <devices>\n    \
         <disk type='network'>\n      <driver name='qemu' type='raw' cache='none'/>\n      \
         <source protocol='rbd' name='demo/{name}'/>\n      <target dev='vda' bus='virtio'/>\n    \
         </disk>\n  </devices>\n</domain>\n",
        id.0
    );
    let (name, memory_mib, vcpus) = (name.clone(), *memory_mib, *vcpus);
    host.domains.insert(id, Domain { name, xml, memory_mib, vcpus, autostart: true });
}
