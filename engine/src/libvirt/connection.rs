//! The connection: opened on threads that can be abandoned, kept alive by probes, replaced when it
//! is lost or clogged. libvirt itself reconnects nothing and has no time-out for any call.

use super::callbacks::{self, Notices};
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
/// libvirtd serves 5 requests of one client at a time; a connection this clogged is replaced.
const MAX_HUNG_ON_LINK: usize = 4;
/// Between attempts to connect. Connecting to a missing socket costs microseconds.
const RETRY: Duration = Duration::from_millis(500);
/// The loss of a link is told by a callback; clogging is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A hanging attempt is left alone and another one made after this many deadlines.
const PATIENT_DEADLINES: u32 = 10;
/// Seconds between probes, and how many may be lost: a hung libvirtd is noticed after 4 s.
const PROBE: (i32, u32) = (1, 3);
/// Command names of the daemons that start QEMU.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// Called when libvirt is reached, and at every life-cycle event.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// One open connection.
pub struct Link {
    connect: Connect,
    /// The daemons that were there when it was opened.
    pub daemons: Vec<ProcessId>,
    notices: Arc<Notices>,
    lifecycle: c_int,
    hung: AtomicUsize,
}

/// The connection over all its lives.
pub struct Connection {
    uri: String,
    deadline: Duration,
    state: Mutex<State>,
    moved: Condvar,
    hung: Arc<AtomicUsize>,
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
    link: Arc<Link>,
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
        })
    }

    /// Connects for ever, on a thread of its own.
    pub fn run(self: &Arc<Self>, changed: Changed) -> anyhow::Result<()> {
        callbacks::start_event_loop()?;
        let connection = self.clone();
        thread("libvirt", move || connection.connect_for_ever(&changed))
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

    /// The present link.
    pub fn link(&self) -> anyhow::Result<Arc<Link>> {
        let state = lock(&self.state);
        state.link.clone().ok_or_else(|| anyhow!(state.reason.clone()))
    }

    /// Runs `work` and waits up to the deadline.
    pub fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connect) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let pending = self.begin(self.link()?, what, move |link| work(&link.connect))?;
        pending.wait(self.deadline).unwrap_or_else(|| {
            let millis = self.deadline.as_millis();
            Err(anyhow!("libvirt did not answer ({what}) within {millis} ms; is libvirtd hung?"))
        })
    }

    /// Runs `work` on a thread of its own.
    pub fn begin<T: Send + 'static>(
        &self,
        link: Arc<Link>,
        what: &'static str,
        work: impl FnOnce(&Link) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<Pending<T>> {
        let hung = self.hung.load(Ordering::Relaxed);
        if hung >= MAX_HUNG {
            bail!(clogged(hung));
        }
        let (sender, result) = mpsc::sync_channel(1);
        let total = self.hung.clone();
        let end = Arc::new(End { counted: Mutex::new(Some(false)), total, link: link.clone() });
        let ended = EndOnDrop(end.clone());
        thread("libvirt-call", move || {
            let _ended = ended;
            let _ = sender.send(work(&link));
        })?;
        Ok(Pending { result, end, what })
    }

    fn connect_for_ever(self: &Arc<Self>, changed: &Changed) {
        let (sender, opened) = mpsc::channel();
        let mut warned = false;
        loop {
            match self.open(&sender, &opened, changed) {
                Ok(link) => {
                    warned = false;
                    tracing::info!(uri = self.uri, daemons = ?link.daemons, "libvirt connected");
                    self.set(Some(link.clone()), String::new());
                    changed();
                    self.wait_until_useless(&link);
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

    /// Opens a link on another thread; several may be at it, the first to succeed counts.
    fn open(
        self: &Arc<Self>,
        sender: &mpsc::Sender<anyhow::Result<Link>>,
        opened: &mpsc::Receiver<anyhow::Result<Link>>,
        changed: &Changed,
    ) -> anyhow::Result<Arc<Link>> {
        let (uri, changed, sender) = (self.uri.clone(), changed.clone(), sender.clone());
        let (hung, moved) = (self.hung.clone(), Arc::downgrade(self));
        if hung.fetch_add(1, Ordering::Relaxed) >= MAX_HUNG {
            hung.fetch_sub(1, Ordering::Relaxed);
            std::thread::sleep(self.deadline);
            bail!(clogged(MAX_HUNG));
        }
        let finished = hung.clone();
        thread("libvirt-open", move || {
            let result = Link::open(&uri, changed, moved);
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
                Err(_) => self.set(None, self.silent()),
            }
        }
        bail!(self.silent())
    }

    fn silent(&self) -> String {
        let millis = self.deadline.as_millis();
        format!("libvirtd accepts no connection at {} within {millis} ms; restart it", self.uri)
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

    fn wait_until_useless(&self, link: &Link) {
        let mut state = lock(&self.state);
        while !link.is_useless() {
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
        match self.result.recv_timeout(patience) {
            Ok(result) => Some(result),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.end.count();
                None
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Err(self.died())),
        }
    }

    /// The result, however long it takes.
    pub fn wait_for_ever(&self) -> anyhow::Result<T> {
        self.result.recv().unwrap_or_else(|_| Err(self.died()))
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
            self.link.hung.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct EndOnDrop(Arc<End>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if lock(&self.0.counted).take() == Some(true) {
            self.0.total.fetch_sub(1, Ordering::Relaxed);
            self.0.link.hung.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Link {
    fn open(uri: &str, changed: Changed, owner: Weak<Connection>) -> anyhow::Result<Self> {
        let on_loss = Box::new(move || {
            if let Some(owner) = owner.upgrade() {
                owner.ring();
            }
        });
        let notices = Arc::new(Notices { lost: false.into(), changed, on_loss });
        let connect = Connect::open(Some(uri))?;
        let (daemons, hung) = (Vec::new(), 0.into());
        // From here on dropping it closes the connection.
        let mut link = Self { connect, daemons, notices, lifecycle: -1, hung };
        link.connect.set_keep_alive(PROBE.0, PROBE.1).context("cannot switch probes on")?;
        link.daemons = named(Path::new("/proc"), &DAEMONS)?;
        if link.daemons.is_empty() {
            bail!("no process named {DAEMONS:?} is visible; run the agent in their PID namespace");
        }
        link.lifecycle = callbacks::register(&link.connect, &link.notices)?;
        Ok(link)
    }

    /// libvirt's handle.
    pub fn connect(&self) -> &Connect {
        &self.connect
    }

    /// Whether an answer of libvirtd may have been lost with it.
    pub fn is_lost(&self) -> bool {
        self.notices.lost.load(Ordering::Acquire) || !self.connect.is_alive().unwrap_or(false)
    }

    fn is_useless(&self) -> bool {
        self.is_lost() || self.hung.load(Ordering::Relaxed) >= MAX_HUNG_ON_LINK
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        callbacks::unregister(&self.connect, self.lifecycle);
        if let Err(error) = self.connect.close() {
            tracing::debug!(%error, "a connection to libvirt was not closed");
        }
    }
}
