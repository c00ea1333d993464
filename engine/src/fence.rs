//! Fence agents of the `fence-agents` kind: key=value lines on stdin, exit status 0 for success.

use crate::Sink;
use anyhow::{Context, Result, bail};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use steadfast_core::event::Event;
use steadfast_core::ids::{NodeId, Stamp};

/// Output kept of each stream, in bytes.
const KEEP_OUTPUT: usize = 4_096;
/// How long output is waited for after the agent has ended: a process of its own may hold the pipe.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(200);
/// How long a killed agent may take to go.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// How a node is fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceConfig {
    /// The node.
    pub node: NodeId,
    /// The agent's program.
    pub agent: PathBuf,
    /// Its options as its manual names them; `action` is ours.
    pub options: BTreeMap<String, String>,
    /// It is killed after this.
    pub timeout: Duration,
}

/// Which nodes' agents run, and for which eviction.
type Running = Arc<Mutex<BTreeMap<NodeId, Stamp>>>;

/// Runs fence agents, each order on a thread of its own.
pub struct FenceAgents {
    agents: BTreeMap<NodeId, FenceConfig>,
    running: Running,
    events: Sink,
}

impl std::fmt::Debug for FenceAgents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FenceAgents").field("nodes", &self.nodes()).finish_non_exhaustive()
    }
}

impl FenceAgents {
    /// Knows these agents.
    #[must_use]
    pub fn new(configs: Vec<FenceConfig>, events: Sink) -> Self {
        let agents = configs.into_iter().map(|config| (config.node, config)).collect();
        Self { agents, running: Arc::default(), events }
    }

    /// Nodes that can be fenced.
    #[must_use]
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.agents.keys().copied().collect()
    }

    /// Switches `victim` off -> `FenceEnded`. Never blocks. While an agent runs, an order for the same
    /// eviction is ignored, its answer comes; one for another eviction fails at once, because what runs
    /// began before it.
    pub fn fence(&self, victim: NodeId, eviction: Stamp) {
        let events = Arc::clone(&self.events);
        let Some(config) = self.agents.get(&victim).cloned() else {
            let result = Err(format!("no fence agent is configured for node {victim}"));
            return events(Event::FenceEnded { victim, eviction, result });
        };
        let running = Arc::clone(&self.running);
        // The lock is not held while an event is told.
        let older = match lock(&running).entry(victim) {
            Entry::Vacant(free) => {
                free.insert(eviction);
                None
            }
            Entry::Occupied(taken) => Some(*taken.get()),
        };
        match older {
            None => {}
            Some(older) if older == eviction => {
                return tracing::info!(victim = victim.0, %eviction, "fence agent runs, order ignored");
            }
            Some(older) => {
                let reason = "an agent for an older eviction is still running";
                let result = Err(format!("{reason} ({older}): it ends within its time-out"));
                return events(Event::FenceEnded { victim, eviction, result });
            }
        }
        let answer = Arc::clone(&events);
        let thread = std::thread::Builder::new().name("fence".into());
        let started = thread.spawn(move || {
            let result = run(&config).map_err(|error| format!("{error:#}"));
            lock(&running).remove(&victim);
            answer(Event::FenceEnded { victim, eviction, result });
        });
        if let Err(error) = started {
            lock(&self.running).remove(&victim);
            let result = Err(format!("cannot start a thread: {error}"));
            events(Event::FenceEnded { victim, eviction, result });
        }
    }
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Stamp>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(config: &FenceConfig) -> Result<()> {
    let agent = config.agent.display();
    let (status, said) = ask(config, "off")?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("fence agent {agent}: {}: {said}", describe(status)),
        None => {
            let limit = config.timeout.as_millis();
            bail!("fence agent {agent}: killed after {limit} ms: {said}")
        }
    }
}

/// Whether the node is switched on, by its fence agent: that it answers is what counts. Blocks as long as the agent may take.
///
/// # Errors
/// It does not answer, or cannot tell.
pub(crate) fn status(config: &FenceConfig) -> Result<&'static str> {
    // Exit statuses of the `fence-agents` kind.
    const ON: i32 = 0;
    const OFF: i32 = 2;
    let agent = config.agent.display();
    let (status, said) = ask(config, "status")?;
    match status.map(|status| (status, status.code())) {
        Some((_, Some(ON))) => Ok("on"),
        Some((_, Some(OFF))) => Ok("off"),
        Some((status, _)) => bail!("fence agent {agent}: {}: {said}", describe(status)),
        None => {
            bail!("fence agent {agent}: killed after {} ms: {said}", config.timeout.as_millis())
        }
    }
}

/// How it ended (`None`: killed at its time-out), and what it said.
fn ask(config: &FenceConfig, action: &str) -> Result<(Option<ExitStatus>, String)> {
    let agent = config.agent.display();
    let begun = Instant::now();
    tracing::info!(victim = config.node.0, %agent, action, "fence agent started");
    let mut child = start(config).with_context(|| {
        format!("cannot run fence agent {agent}: install fence-agents, or correct its path")
    })?;
    let output = [collect(child.stdout.take()), collect(child.stderr.take())];
    give_options(config, action, &mut child);
    let status = wait(&mut child, config.timeout.saturating_sub(begun.elapsed()))?;
    let took_ms = begun.elapsed().as_millis();
    tracing::info!(victim = config.node.0, %agent, action, took_ms, ?status, "fence agent ended");
    let said = match status {
        Some(status) if status.success() => String::new(),
        _ => words(&output),
    };
    Ok((status, said))
}

fn start(config: &FenceConfig) -> std::io::Result<Child> {
    let mut command = Command::new(&config.agent);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that its helpers are killed with it.
    command.process_group(0).spawn()
}

/// The options are far smaller than a pipe, so that writing them does not block.
fn give_options(config: &FenceConfig, action: &str, child: &mut Child) {
    let mut lines = String::new();
    for (key, value) in config.options.iter().filter(|(key, _)| *key != "action") {
        let _ = writeln!(lines, "{key}={value}");
    }
    let _ = writeln!(lines, "action={action}");
    if let Some(mut stdin) = child.stdin.take() {
        // An agent that does not read its options says so by its exit status.
        let _ = stdin.write_all(lines.as_bytes());
    }
}

/// Waits for the agent's end; kills its whole group at the time-out (`None`).
fn wait(child: &mut Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let ended = wait_for_exit(child, timeout);
    if !matches!(ended, Ok(true)) {
        kill_group(child);
        if !wait_for_exit(child, DEATH_PATIENCE)? {
            bail!("the fence agent does not die of a kill: it hangs in the kernel");
        }
    }
    let status = child.wait().context("cannot wait for the fence agent")?;
    Ok(ended?.then_some(status))
}

/// True when the child has ended. It is not reaped here, so that its group id stays its own.
#[allow(unsafe_code)]
fn wait_for_exit(child: &Child, timeout: Duration) -> Result<bool> {
    let process = child.id();
    // SAFETY: no memory is passed; the child is not reaped, so that the id is its own.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let Ok(number) = i32::try_from(number) else { bail!("pidfd_open gave {number}") };
    if number < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot watch the fence agent");
    }
    // SAFETY: the descriptor was just made for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number) };
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let mut entry = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, alive through the call.
        match unsafe { libc::poll(&raw mut entry, 1, milliseconds) } {
            0 => return Ok(false),
            1 => return Ok(true),
            _ => {
                let error = std::io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error).context("cannot watch the fence agent");
                }
            }
        }
    }
}

#[allow(unsafe_code)]
fn kill_group(child: &Child) {
    let Ok(group) = i32::try_from(child.id()) else { return };
    // SAFETY: no memory is passed; the child leads its group and is not reaped, so that the id is its own.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    }
}

type Output = Option<mpsc::Receiver<String>>;

/// Reads a stream to its end on a thread, keeps its last part.
fn collect(stream: Option<impl Read + Send + 'static>) -> Output {
    let mut stream = stream?;
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("fence-output".into());
    let read = move || {
        let (mut kept, mut chunk) = (Vec::new(), [0; KEEP_OUTPUT]);
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..count]);
            kept.drain(..kept.len().saturating_sub(KEEP_OUTPUT));
        }
        let _ = sender.send(String::from_utf8_lossy(&kept).trim().replace('\n', " | "));
    };
    thread.spawn(read).ok().map(|_| receiver)
}

fn words(outputs: &[Output]) -> String {
    let words = outputs.iter().flatten().filter_map(|o| o.recv_timeout(OUTPUT_PATIENCE).ok());
    let words: Vec<String> = words.filter(|text| !text.is_empty()).collect();
    if words.is_empty() { "it said nothing".to_owned() } else { words.join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const VICTIM: NodeId = NodeId(2);

    struct Script(PathBuf);

    impl Script {
        fn new(name: &str, text: &str) -> Self {
            let unique = format!("steadfast-fence-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(unique);
            // Written by a process of its own: a fork of another test's thread may hold a file that this
            // one has open for writing, and then the kernel refuses to run it (ETXTBSY).
            let mut shell = Command::new("sh");
            shell.args(["-c", "cat > \"$1\"", "sh"]).arg(&path).stdin(Stdio::piped());
            let mut writer = shell.spawn().unwrap();
            let script = format!("#!/bin/sh\n{text}\n");
            writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(writer.wait().unwrap().success());
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            Self(path)
        }

        fn config(&self, timeout: Duration) -> FenceConfig {
            let options = [("ip", "192.0.2.1"), ("action", "on")];
            let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
            FenceConfig { node: VICTIM, agent: self.0.clone(), options: options.into(), timeout }
        }

        fn run(&self, timeout: Duration) -> Result<(), String> {
            let (sender, received) = mpsc::channel();
            let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
            FenceAgents::new(vec![self.config(timeout)], sink).fence(VICTIM, Stamp::default());
            match received.recv_timeout(Duration::from_secs(10)).unwrap() {
                Event::FenceEnded { victim: VICTIM, result, .. } => result,
                other => panic!("{other:?}"),
            }
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn success_is_exit_status_zero_after_off() {
        let text = "in=$(cat); [ \"$in\" = \"ip=192.0.2.1\naction=off\" ] || exit 3";
        assert_eq!(Script::new("good", text).run(Duration::from_secs(5)), Ok(()));
    }

    #[test]
    fn a_status_is_on_or_off_and_whatever_else_is_no_answer() {
        let script = |code| {
            let text = format!(
                "in=$(cat); [ \"$in\" = \"ip=192.0.2.1\naction=status\" ] || exit 9; exit {code}"
            );
            let script = Script::new(&format!("status-{code}"), &text);
            status(&script.config(Duration::from_secs(5))).map_err(|error| error.to_string())
        };
        assert_eq!((script(0), script(2)), (Ok("on"), Ok("off")));
        assert!(script(1).unwrap_err().contains("exit status 1"));
    }

    #[test]
    fn failure_is_told_with_status_and_words() {
        let script = Script::new("bad", "echo on the way; echo no route >&2; exit 7");
        let reason = script.run(Duration::from_secs(5)).unwrap_err();
        assert!(reason.contains("exit status 7"), "{reason}");
        assert!(reason.contains("on the way | no route"), "{reason}");
    }

    #[test]
    fn a_hanging_agent_is_killed_with_its_helpers() {
        let script = Script::new("hang", "sleep 1000 & echo helper is $!; wait");
        let begun = Instant::now();
        let reason = script.run(Duration::from_millis(300)).unwrap_err();
        assert!(reason.contains("killed after 300 ms: helper is"), "{reason}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let helper = reason.rsplit(' ').next().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{helper}/stat")).unwrap_or_default();
        let is_dead = || state().is_empty() || state().contains(") Z ");
        assert!((0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            is_dead()
        }));
    }

    #[test]
    fn a_missing_agent_is_told_with_a_remedy() {
        let reason = Script(PathBuf::from("/nonexistent/fence_x")).run(Duration::from_secs(5));
        assert!(reason.unwrap_err().contains("install fence-agents"));
    }

    #[test]
    fn a_second_order_is_ignored_and_an_unknown_node_refused() {
        let script = Script::new("twice", "sleep 0.3");
        let (sender, received) = mpsc::channel();
        let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
        let agents = FenceAgents::new(vec![script.config(Duration::from_secs(5))], sink);
        agents.fence(VICTIM, Stamp::default());
        agents.fence(VICTIM, Stamp::default());
        let ok = Event::FenceEnded { victim: VICTIM, eviction: Stamp::default(), result: Ok(()) };
        assert_eq!(received.recv_timeout(Duration::from_secs(5)), Ok(ok));
        assert!(received.recv_timeout(Duration::from_millis(300)).is_err());
        agents.fence(NodeId(9), Stamp::default());
        assert!(matches!(received.recv(), Ok(Event::FenceEnded { result: Err(_), .. })));
    }

    #[test]
    fn an_order_for_another_eviction_while_an_agent_runs_fails_at_once_and_may_be_given_again() {
        let script = Script::new("other", "sleep 0.3");
        let (sender, received) = mpsc::channel();
        let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
        let agents = FenceAgents::new(vec![script.config(Duration::from_secs(5))], sink);
        let (old, new) = (Stamp::default(), Stamp { version: 9, ..Stamp::default() });
        let next = || match received.recv_timeout(Duration::from_secs(5)).unwrap() {
            Event::FenceEnded { victim: VICTIM, eviction, result } => (eviction, result),
            other => panic!("{other:?}"),
        };
        agents.fence(VICTIM, old);
        agents.fence(VICTIM, new);
        let (eviction, result) = next();
        assert_eq!(eviction, new);
        assert!(result.unwrap_err().contains("an agent for an older eviction is still running"));
        assert_eq!(next(), (old, Ok(())));
        agents.fence(VICTIM, new);
        assert_eq!(next(), (new, Ok(())));
    }
}
