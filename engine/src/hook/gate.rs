//! The agent's side: knows which VMs are under HA, and lets pass what it has asked libvirt for itself.

use super::list::HaList;
use super::{Answer, Operation, PATIENCE, Places, Question, encode};
use crate::clock::Clock;
use crate::driver::{Agent, Live};
use crate::libvirt::Permission;
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast_core::ids::VmId;
use steadfast_core::snapshot::Snapshot;
use steadfast_core::time::Millis;

/// [`PATIENCE`] in own time.
const STALE: Millis = Millis(2_000);
/// How long the lease path may take to say what it knows.
const LOOK_PATIENCE: Duration = Duration::from_millis(1_000);
/// How often the list is compared with the ledger.
const LEARN_EVERY: Duration = Duration::from_millis(1_000);

/// Answers the hook.
#[derive(Debug)]
pub struct Gate {
    agent: Arc<Agent>,
    list: HaList,
    /// The VM by which the hook is tested, and whether it was asked about.
    test: Mutex<Option<(VmId, bool)>>,
}

/// Starts to answer the hook, and to keep its list.
///
/// # Errors
/// The run directory cannot be written, or the system gives no thread.
pub fn open(agent: &Arc<Agent>) -> Result<Arc<Gate>> {
    let places = Places::of(&agent.config);
    let listener = listen(&places.socket)?;
    let (agent, list) = (Arc::clone(agent), HaList::open(&places.list));
    let gate = Arc::new(Gate { agent, list, test: Mutex::default() });
    let (server, keeper) = (Arc::clone(&gate), Arc::clone(&gate));
    spawn("hook", move || server.serve(&listener))?;
    spawn("hook-list", move || keeper.keep_list())?;
    Ok(gate)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(work).with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

/// Replaces what a dead agent left. Only root may ask.
fn listen(path: &Path) -> Result<UnixListener> {
    let open = || -> std::io::Result<UnixListener> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let hidden = path.with_extension("new");
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        fs::rename(&hidden, path)?;
        Ok(listener)
    };
    open().with_context(|| format!("cannot listen on {}", path.display()))
}

impl Gate {
    fn serve(self: &Arc<Self>, listener: &UnixListener) {
        for socket in listener.incoming().flatten() {
            let gate = Arc::clone(self);
            // libvirt starts VMs side by side: one slow answer must not hold up the others.
            if let Err(error) = spawn("hook-answer", move || gate.answer(&socket)) {
                tracing::warn!(error = format!("{error:#}"), "the hook gets no answer");
            }
        }
    }

    fn answer(&self, mut socket: &UnixStream) {
        let mut line = String::new();
        let timely = socket.set_read_timeout(Some(PATIENCE));
        if timely.is_err() || BufReader::new(socket).read_line(&mut line).is_err() {
            return;
        }
        let question = line.parse::<Question>();
        let answer = question.and_then(|question| {
            let answer = self.judge(&question);
            let (operation, vm) = (question.operation, question.vm);
            tracing::info!(%operation, %vm, ?answer, "libvirt's hook asked");
            answer
        });
        // libvirt may have given up; then it has refused.
        let _ = socket.write_all(encode(&answer).as_bytes());
    }

    fn keep_list(&self) {
        loop {
            if let Ok(live) = self.agent.live() {
                drop(self.look(&live));
            }
            let kept = self.list.keep();
            self.agent.warn("hook list", kept.err().map(|error| format!("{error:#}")));
            std::thread::sleep(LEARN_EVERY);
        }
    }

    fn look(&self, live: &Live) -> Option<Snapshot> {
        let snapshot = live.inbox.snapshot(LOOK_PATIENCE)?;
        self.list.learn(&snapshot);
        Some(snapshot)
    }

    fn judge(&self, question: &Question) -> Answer {
        let (vm, now) = (&question.vm, Clock.now());
        if now.since(question.asked) >= STALE {
            return Err("asked too long ago".into());
        }
        let live = self.agent.live();
        if question.operation == Operation::Release {
            return live.map(|live| live.hypervisor.released(vm)).or(Ok(()));
        }
        if self.is_test(vm) {
            return Err("this is steadfast's own test of its hook; all is well".into());
        }
        // First, and without asking anybody else: a start of ours must not wait.
        let permission = live.as_ref().ok().and_then(|live| live.hypervisor.permission(vm));
        if matches!(permission, Some(Permission::Start(not_after)) if now <= not_after) {
            return Ok(());
        }
        let snapshot = live.as_ref().ok().and_then(|live| self.look(live));
        let known = self.list.known();
        let Some(name) = known.vms.get(vm).filter(|_| !known.disarmed) else { return Ok(()) };
        let live = live.map_err(|_| {
            format!("{name} is under high availability, and steadfastd is not ready: see `steadfast status`")
        })?;
        let Some(permission) = permission else {
            return Err(foreign(name, vm, snapshot.as_ref()));
        };
        still_leased(&live, snapshot.as_ref())?;
        match (permission, question.operation) {
            (Permission::Arrival, Operation::Prepare) => {
                live.hypervisor.pass_arrival(vm).map_err(|error| format!("{name}: {error:#}"))
            }
            _ => Ok(()),
        }
    }

    /// From now on `vm` is the one by which the hook is tested.
    pub(super) fn begin_test(&self, vm: VmId) {
        *self.test() = Some((vm, false));
    }

    /// Whether the hook was asked about it.
    pub(super) fn end_test(&self) -> bool {
        self.test().take().is_some_and(|(_, heard)| heard)
    }

    fn is_test(&self, vm: &VmId) -> bool {
        let mut test = self.test();
        let asked = test.as_mut().filter(|(tested, _)| tested == vm);
        asked.map(|(_, heard)| *heard = true).is_some()
    }

    fn test(&self) -> MutexGuard<'_, Option<(VmId, bool)>> {
        self.test.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rule of a start, asked once more: libvirt may have taken its time.
fn still_leased(live: &Live, snapshot: Option<&Snapshot>) -> Result<(), String> {
    let margin = live.timing.start_margin;
    let left = snapshot.and_then(|snapshot| snapshot.lease.left);
    if left.is_some_and(|left| left >= margin) {
        return Ok(());
    }
    let left = left.map_or_else(|| "no lease".into(), |left| format!("a lease of {left}"));
    Err(format!("too late: this node has {left}, a start needs {margin}"))
}

fn foreign(name: &str, vm: &VmId, snapshot: Option<&Snapshot>) -> String {
    let own = snapshot.map(|snapshot| &snapshot.node);
    let entry = snapshot.and_then(|snapshot| snapshot.vms.iter().find(|entry| entry.id == *vm));
    match (entry, own) {
        (Some(entry), Some(own)) if entry.owner != *own => {
            let owner = &entry.owner.name;
            format!(
                "{name} is under high availability and belongs to {owner}; start it there: `steadfast vm start \
                 {name}`, or bring it here: `steadfast vm migrate {name} {}`",
                own.name
            )
        }
        _ => format!(
            "{name} is under high availability: only steadfastd starts it; \
             see `steadfast explain {name}`, or try: steadfast vm start {name}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::ask;
    use super::*;
    use crate::config::Config;

    const WEB: &str = "4f8b0c1e-0000-4000-8000-00000000000a";

    fn gate(name: &str) -> (Arc<Gate>, Places) {
        let folder =
            std::env::temp_dir().join(format!("steadfast-gate-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let place = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "[cluster]\nname = \"c\"\n[storage]\ndirectory = \"/shared\"\n[run]\ndirectory = {:?}\n\
             state_directory = {:?}\n",
            place("run"),
            place("state")
        );
        let config = Config::parse(&text).expect("good");
        let places = Places::of(&config);
        fs::create_dir_all(folder.join("state")).expect("folder");
        fs::write(&places.list, format!("armed\n{WEB} web\n")).expect("list");
        (open(&Agent::new(config)).expect("open"), places)
    }

    fn prepare(places: &Places, uuid: &str) -> Answer {
        let xml = format!("<domain><uuid>{uuid}</uuid></domain>");
        ask(places, Operation::Prepare, "web", &xml)
    }

    #[test]
    fn an_agent_that_is_not_ready_refuses_ha_vms_and_nobody_elses() {
        let (_gate, places) = gate("waiting");
        let refusal = prepare(&places, WEB).expect_err("refused");
        assert!(refusal.contains("not ready"), "{refusal}");
        assert_eq!(prepare(&places, "4f8b0c1e-0000-4000-8000-00000000000b"), Ok(()));
    }

    #[test]
    fn the_hooks_own_test_is_heard_and_refused() {
        let (gate, places) = gate("test");
        let uuid = "4f8b0c1e-0000-4000-8000-00000000000c";
        gate.begin_test(VmId(uuid.into()));
        assert!(!gate.end_test(), "nobody asked");
        gate.begin_test(VmId(uuid.into()));
        assert!(prepare(&places, uuid).is_err());
        assert!(gate.end_test());
    }

    #[test]
    fn what_was_asked_too_long_ago_is_refused() {
        let (gate, _places) = gate("late");
        let vm = VmId("4f8b0c1e-0000-4000-8000-00000000000d".into());
        let question = |asked| Question { operation: Operation::Prepare, vm: vm.clone(), asked };
        let now = Clock.now();
        assert_eq!(gate.judge(&question(now)), Ok(()));
        assert!(gate.judge(&question(now - STALE)).is_err());
    }
}
