//! Connections: one that listens, opened on threads that can be abandoned, kept alive by probes and
//! replaced when it is lost; and one for every call. libvirt itself reconnects nothing and has no
//! time-out for any call.
//!
//! Why one for every call: two threads that share a connection can crash the process in libvirt
//! before 10.4 (CVE-2024-4418; seen here with 9.0 when calls hung), and libvirtd serves only 5
//! requests of one connection at a time. A connection over the local socket costs milliseconds.

use super::callbacks::{self, Listener, Notices};
use super::{Settings, lock, thread};
use crate::guests::{ProcessId, named};
use anyhow::{Context as _, anyhow, bail};
use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak, mpsc};
use std::time::Duration;
use virt::connect::Connect;

/// Threads that may hang inside libvirt before no further call is tried.
const MAX_HUNG: usize = 8;
/// Between attempts to connect. Connecting to a missing socket costs microseconds.
const RETRY: Duration = Duration::from_millis(500);
/// The loss of a link is told by a callback, and looked for this often in case that was missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A hanging attempt is left alone and another one made after this many deadlines.
const PATIENT_DEADLINES: u32 = 10;
/// Seconds between probes, and how many may be lost: a hung libvirtd is noticed after 4 s.
const PROBE: (i32, u32) = (1, 3);
/// Command names of the daemons that start QEMU.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// The connection that listens.
struct Link {
    connect: Connect,
    notices: Arc<Notices>,
    lifecycle: c_int,
}

/// The connection of one call, used by one thread only.
pub struct Lane(pub Connect);

/// The connection over all its lives.
pub struct Connection {
    uri: String,
    deadline: Duration,
    state: Mutex<State>,
    moved: Condvar,
    hung: Arc<AtomicUsize>,
    /// How often it was made.
    made: AtomicUsize,
}

struct State {
    link: Option<Arc<Link>>,
    /// Why there is none.
    reason: String,
}

/// A call under way on its own thread.
pub struct Pending<T> {
    result: mpsc::Receiver<anyhow::Result<T>>,
    end: Arc<End>,
    what: &'static str,
}

/// Counts a call as hung from its deadline to its end.
struct End {
    counted: Mutex<Option<bool>>,
    total: Arc<AtomicUsize>,
}

impl Connection {
    pub fn new(settings: &Settings) -> Arc<Self> {
        let reason = "libvirt is not connected yet".to_owned();
        Arc::new(Self {
            uri: settings.uri.clone(),
            deadline: settings.call_deadline,
            state: Mutex::new(State { link: None, reason }),
            moved: Condvar::new(),
            hung: Arc::default(),
            made: AtomicUsize::new(0),
        })
    }

    /// Connects for ever, on a thread of its own.
    pub fn run(self: &Arc<Self>, listener: Arc<dyn Listener>) -> anyhow::Result<()> {
        callbacks::start_event_loop()?;
        let connection = self.clone();
        thread("libvirt", move || connection.connect_for_ever(&listener))
    }

    pub fn healthy(&self) -> Result<(), String> {
        let state = lock(&self.state);
        if state.link.is_none() {
            return Err(state.reason.clone());
        }
        match self.hung.load(Ordering::Relaxed) {
            hung if hung >= MAX_HUNG => Err(clogged(hung)),
            _ => Ok(()),
        }
    }

    /// How often the connection was made: it counts up when libvirtd was restarted.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Runs `work` and waits up to the deadline.
    pub fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connect) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.begin(what, work)?.wait(self.deadline).unwrap_or_else(|| {
            let millis = self.deadline.as_millis();
            Err(anyhow!("libvirt did not answer ({what}) within {millis} ms; is libvirtd hung?"))
        })
    }

    /// Runs `work` on a thread and over a connection of its own.
    pub fn begin<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connect) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<Pending<T>> {
        self.healthy().map_err(anyhow::Error::msg)?;
        let (sender, result) = mpsc::sync_channel(1);
        let total = self.hung.clone();
        let end = Arc::new(End { counted: Mutex::new(Some(false)), total });
        let ended = EndOnDrop(end.clone());
        let uri = self.uri.clone();
        thread("libvirt-call", move || {
            let _ended = ended;
            let lane = match Lane::open(&uri) {
                Ok(lane) => lane,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let _ = sender.send(work(&lane.0));
        })?;
        Ok(Pending { result, end, what })
    }

    fn connect_for_ever(self: &Arc<Self>, to: &Arc<dyn Listener>) {
        let (sender, opened) = mpsc::channel();
        let mut warned = false;
        loop {
            match self.open(&sender, &opened, to, &mut warned) {
                Ok(link) => {
                    warned = false;
                    tracing::info!(uri = self.uri, "libvirt connected");
                    self.made.fetch_add(1, Ordering::Relaxed);
                    self.set(Some(link.clone()), String::new());
                    to.changed();
                    self.warm_up();
                    self.wait_until_lost(&link);
                    self.set(None, format!("the connection to libvirt ({}) was lost", self.uri));
                    tracing::info!(uri = self.uri, "libvirt connection lost; reconnecting");
                    // Closing talks to libvirtd: not on this thread.
                    let _ = thread("libvirt-close", move || drop(link));
                }
                Err(error) => {
                    self.unreachable(&error, &mut warned);
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    /// libvirtd asks QEMU what it can do when it first needs to know, which takes seconds: let it
    /// not be in the middle of a failover.
    fn warm_up(&self) {
        let asked = self.begin("ask for capabilities", |connect| Ok(connect.get_capabilities()?));
        if let Err(error) = asked {
            tracing::debug!(error = format!("{error:#}"), "libvirt was not warmed up");
        }
    }

    /// Opens a link on another thread; several may be at it, the first to succeed counts.
    fn open(
        self: &Arc<Self>,
        sender: &mpsc::Sender<anyhow::Result<Link>>,
        opened: &mpsc::Receiver<anyhow::Result<Link>>,
        listener: &Arc<dyn Listener>,
        warned: &mut bool,
    ) -> anyhow::Result<Arc<Link>> {
        let (uri, listener, sender) = (self.uri.clone(), listener.clone(), sender.clone());
        let (hung, moved) = (self.hung.clone(), Arc::downgrade(self));
        if hung.fetch_add(1, Ordering::Relaxed) >= MAX_HUNG {
            hung.fetch_sub(1, Ordering::Relaxed);
            std::thread::sleep(self.deadline);
            bail!(clogged(MAX_HUNG));
        }
        let finished = hung.clone();
        thread("libvirt-open", move || {
            let result = Link::open(&uri, listener, moved);
            finished.fetch_sub(1, Ordering::Relaxed);
            let _ = sender.send(result);
        })?;
        for _ in 0..PATIENT_DEADLINES {
            match opened.recv_timeout(self.deadline) {
                Ok(result) => {
                    let link = result?;
                    if !link.is_lost() {
                        return Ok(Arc::new(link));
                    }
                    bail!("the connection was lost while it was made");
                }
                Err(_) => self.unreachable(&self.silent(), warned),
            }
        }
        Err(self.silent())
    }

    fn silent(&self) -> anyhow::Error {
        let millis = self.deadline.as_millis();
        anyhow!("libvirtd accepts no connection within {millis} ms; is it stopped or hung?")
    }

    fn unreachable(&self, error: &anyhow::Error, warned: &mut bool) {
        let reason = format!("libvirt cannot be reached at {}: {error:#}", self.uri);
        if !std::mem::replace(warned, true) {
            tracing::warn!(
                reason,
                "libvirt cannot be reached: no VM can be started here; start libvirtd (or \
                 virtqemud) and check the URI; trying again all the time"
            );
        }
        self.set(None, reason);
    }

    fn set(&self, link: Option<Arc<Link>>, reason: String) {
        let old = {
            let mut state = lock(&self.state);
            state.reason = reason;
            std::mem::replace(&mut state.link, link)
        };
        // Its last owner closes it, and that is the caller: outside the lock.
        drop(old);
        self.moved.notify_all();
    }

    fn wait_until_lost(&self, link: &Link) {
        let mut state = lock(&self.state);
        while !link.is_lost() {
            let wait = self.moved.wait_timeout(state, LOOK_AGAIN);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn ring(&self) {
        let _state = lock(&self.state);
        self.moved.notify_all();
    }
}

fn clogged(hung: usize) -> String {
    format!(
        "{hung} calls to libvirt hang, the most that is allowed; they end when storage or \
         libvirtd answers, or when libvirtd is restarted (guests keep running)"
    )
}

impl<T> Pending<T> {
    /// The result, or `None` if there is none yet: the call is then counted as hung.
    pub fn wait(&self, patience: Duration) -> Option<anyhow::Result<T>> {
        let result = self.look(patience);
        if result.is_none() {
            self.end.count();
        }
        result
    }

    /// The result, or `None` if there is none yet, of a call that may take its time.
    pub fn look(&self, patience: Duration) -> Option<anyhow::Result<T>> {
        match self.result.recv_timeout(patience) {
            Ok(result) => Some(result),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Err(self.died())),
        }
    }

    fn died(&self) -> anyhow::Error {
        anyhow!("the thread of a libvirt call ({}) died; this is a bug of steadfast", self.what)
    }
}

impl End {
    fn count(&self) {
        let mut counted = lock(&self.counted);
        if *counted == Some(false) {
            *counted = Some(true);
            self.total.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct EndOnDrop(Arc<End>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if lock(&self.0.counted).take() == Some(true) {
            self.0.total.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Link {
    fn open(
        uri: &str,
        listener: Arc<dyn Listener>,
        owner: Weak<Connection>,
    ) -> anyhow::Result<Self> {
        let on_loss = Box::new(move || {
            if let Some(owner) = owner.upgrade() {
                owner.ring();
            }
        });
        let notices = Arc::new(Notices { lost: false.into(), listener, on_loss });
        let connect = Connect::open(Some(uri))?;
        // From here on dropping it closes the connection.
        let mut link = Self { connect, notices, lifecycle: -1 };
        link.connect.set_keep_alive(PROBE.0, PROBE.1).context("cannot switch probes on")?;
        link.lifecycle = callbacks::register(&link.connect, &link.notices)?;
        Ok(link)
    }

    fn is_lost(&self) -> bool {
        self.notices.lost.load(Ordering::Acquire) || !self.connect.is_alive().unwrap_or(false)
    }
}

impl Lane {
    pub fn open(uri: &str) -> anyhow::Result<Self> {
        let lane = Self(Connect::open(Some(uri))?);
        lane.0.set_keep_alive(PROBE.0, PROBE.1).context("cannot switch probes on")?;
        Ok(lane)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            tracing::debug!(%error, "a connection to libvirt was not closed");
        }
    }
}

/// libvirt's daemons that can start QEMU here, now.
///
/// # Errors
/// If processes cannot be read, or none is visible.
pub fn daemons() -> anyhow::Result<Vec<ProcessId>> {
    let daemons = named(Path::new("/proc"), &DAEMONS)?;
    if daemons.is_empty() {
        bail!("no process named {DAEMONS:?} is visible; run the agent in their PID namespace");
    }
    Ok(daemons)
}

impl Drop for Link {
    fn drop(&mut self) {
        callbacks::unregister(&self.connect, self.lifecycle);
        if let Err(error) = self.connect.close() {
            tracing::debug!(%error, "a connection to libvirt was not closed");
        }
    }
}
