//! The control network: one CPG group of corosync, on a thread of its own.
//!
//! The library's habits (tried): callbacks are plain functions that run under a global lock, so they only
//! push to a queue; one thread owns the handle; `initialize` blocks for ever while corosync is stopped, so
//! connecting happens on a thread that can be abandoned; a multicast can return OK and send nothing, so
//! sends are confirmed by self-delivery.

use crate::Sink;
use crate::realtime;
use crate::threads::lock;
use anyhow::{Context, Result, anyhow, bail};
use rust_corosync::{CsError, DispatchFlags, cpg};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_core::message::{MESSAGE_FORMAT, Message};

mod links;
mod map;

pub use links::{Link, Links, read_links};
pub use map::{ClusterFacts, read_cluster, read_membership_time};

/// Largest message in bytes; corosync's own limit is 1,047,552.
pub const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// Messages that may wait for corosync's flow control.
const MAX_WAITING: usize = 1_024;
/// Corosync answers `initialize` and `join` within a millisecond; after this it is called lost.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// An own message that was not delivered after this is worth a warning.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// How long flow control is given before a refused send is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(2);
const REMEDY: &str = "see `systemctl status corosync` and `corosync-cfgtool -s` on this node";

/// What callbacks saw, in order. Static because callbacks are plain functions.
static SEEN: Mutex<Vec<Seen>> = Mutex::new(Vec::new());

enum Seen {
    Delivery { group: String, sender: u32, process: u32, bytes: Vec<u8> },
    Members { group: String, members: BTreeSet<NodeId> },
}

/// The group. One per process.
#[derive(Debug)]
pub struct Corosync {
    local_node: AtomicU32,
    outbox: Mutex<VecDeque<Vec<u8>>>,
    waker: UnixStream,
}

impl Corosync {
    /// Starts to join `group` and stays in it until the process ends. Returns at once; the view comes as
    /// `ViewChanged`, messages as `MessageReceived`, the loss of corosync, once each time, as `CorosyncLost`.
    ///
    /// # Errors
    /// The thread or its wake-up socket cannot be made.
    pub fn start(group: &str, events: Sink) -> Result<Arc<Self>> {
        let (waker, woken) = UnixStream::pair().context("cannot make a socket pair")?;
        waker.set_nonblocking(true).context("cannot set a socket pair non-blocking")?;
        woken.set_nonblocking(true).context("cannot set a socket pair non-blocking")?;
        let shared = Arc::new(Self {
            local_node: AtomicU32::new(0),
            outbox: Mutex::new(VecDeque::new()),
            waker,
        });
        let owner = Owner {
            shared: Arc::clone(&shared),
            group: group.to_owned(),
            events,
            woken,
            unconfirmed: VecDeque::new(),
            in_view: false,
            reported: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name("corosync".into());
        thread.spawn(move || owner.run()).context("cannot start the corosync thread")?;
        Ok(shared)
    }

    /// Multicasts to the group. Never blocks. A message is dropped while corosync is away: it would say
    /// what was true before.
    pub fn send(&self, message: Message) {
        let bytes = match serde_json::to_vec(&message) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "alarm: message cannot be encoded"),
        };
        if bytes.len() > MAX_MESSAGE_BYTES {
            let (size, limit) = (bytes.len(), MAX_MESSAGE_BYTES);
            return tracing::error!(size, limit, "alarm: message too large, not sent");
        }
        let mut outbox = lock(&self.outbox);
        if outbox.len() >= MAX_WAITING {
            return tracing::error!(
                limit = MAX_WAITING,
                "alarm: corosync takes no messages, one dropped"
            );
        }
        outbox.push_back(bytes);
        drop(outbox);
        // A full socket means that the owner has a wake-up pending.
        let _ = (&self.waker).write(&[1]);
    }

    /// This node's id by corosync's word; `None` before the first connection.
    #[must_use]
    pub fn local_node(&self) -> Option<NodeId> {
        Some(self.local_node.load(Ordering::Relaxed)).filter(|id| *id != 0).map(NodeId)
    }
}

/// The thread that owns the handle.
struct Owner {
    shared: Arc<Corosync>,
    group: String,
    events: Sink,
    woken: UnixStream,
    /// When each own message that has not come back was sent.
    unconfirmed: VecDeque<Instant>,
    in_view: bool,
    /// What was already said about a sender's messages.
    reported: BTreeMap<NodeId, &'static str>,
}

/// A joined group.
struct Session {
    handle: cpg::Handle,
    fd: RawFd,
    local: NodeId,
}

impl Owner {
    fn run(mut self) {
        // What is wrong with it is told by the lease path, which asks for the same.
        let _ = realtime::raise();
        let mut connector = Connector::default();
        let mut lost = false;
        loop {
            let reason = match connector.connect(&self.group) {
                Ok(session) => {
                    lost = false;
                    let error = self.serve(&session);
                    connector.retire(session);
                    error
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut lost, true) {
                (self.events)(Event::CorosyncLost { reason: format!("{reason:#}; {REMEDY}") });
            }
            std::thread::sleep(RECONNECT_EVERY);
        }
    }

    /// Serves one session until it breaks; returns why.
    fn serve(&mut self, session: &Session) -> anyhow::Error {
        tracing::info!(node = session.local.0, group = self.group, "joined the group");
        self.shared.local_node.store(session.local.0, Ordering::Relaxed);
        lock(&self.shared.outbox).clear();
        self.unconfirmed.clear();
        self.in_view = false;
        loop {
            if let Err(error) = self.turn(session) {
                return error;
            }
        }
    }

    fn turn(&mut self, session: &Session) -> Result<()> {
        let blocked = self.flush(session)?;
        let patience = if blocked { Some(RETRY_AFTER) } else { self.until_suspicion() };
        let [corosync, woken] = poll([session.fd, self.woken.as_raw_fd()], patience)?;
        if woken {
            let _ = self.woken.read(&mut [0; 256]);
        }
        if corosync {
            let result = cpg::dispatch(&session.handle, DispatchFlags::All);
            // What arrived before the end is still told.
            self.tell(session)?;
            result.map_err(|error| anyhow!("corosync ended the connection: {error}"))?;
        }
        self.suspect_unconfirmed();
        Ok(())
    }

    /// Sends what waits, in order. True if flow control refused the rest for now.
    fn flush(&mut self, session: &Session) -> Result<bool> {
        loop {
            let Some(bytes) = lock(&self.shared.outbox).pop_front() else { return Ok(false) };
            match cpg::mcast_joined(&session.handle, cpg::Guarantee::TypeAgreed, &bytes) {
                Ok(()) => self.unconfirmed.push_back(Instant::now()),
                Err(CsError::CsErrTryAgain) => {
                    lock(&self.shared.outbox).push_front(bytes);
                    return Ok(true);
                }
                Err(error) => bail!("corosync refused a message of {} bytes: {error}", bytes.len()),
            }
        }
    }

    fn tell(&mut self, session: &Session) -> Result<()> {
        let seen = std::mem::take(&mut *lock(&SEEN));
        for item in seen {
            match item {
                Seen::Delivery { group, sender, process, bytes } if group == self.group => {
                    if sender == session.local.0 && process == std::process::id() {
                        self.unconfirmed.pop_front();
                    }
                    self.deliver(NodeId(sender), &bytes);
                }
                Seen::Members { group, members } if group == self.group => {
                    self.change_view(session, members)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn change_view(&mut self, session: &Session, members: BTreeSet<NodeId>) -> Result<()> {
        if !members.contains(&session.local) {
            bail!("corosync took this process out of group {}", self.group);
        }
        self.in_view = true;
        self.reported.retain(|sender, _| members.contains(sender));
        (self.events)(Event::ViewChanged { members });
        Ok(())
    }

    fn deliver(&mut self, sender: NodeId, bytes: &[u8]) {
        match decode(sender, bytes) {
            Ok(message) => (self.events)(Event::MessageReceived { sender, message }),
            Err((kind, detail)) => {
                if self.reported.insert(sender, kind) != Some(kind) {
                    tracing::warn!(sender = sender.0, kind, detail, "message dropped");
                }
            }
        }
    }

    /// How long until the oldest unconfirmed message becomes suspect.
    fn until_suspicion(&self) -> Option<Duration> {
        let sent = self.unconfirmed.front().filter(|_| self.in_view)?;
        Some(CONFIRM_WITHIN.saturating_sub(sent.elapsed()).max(RETRY_AFTER))
    }

    fn suspect_unconfirmed(&mut self) {
        let oldest = self.unconfirmed.front().filter(|_| self.in_view);
        if oldest.is_none_or(|sent| sent.elapsed() < CONFIRM_WITHIN) {
            return;
        }
        let (messages, limit_ms) = (self.unconfirmed.len(), CONFIRM_WITHIN.as_millis());
        tracing::warn!(messages, limit_ms, "own messages are not delivered, {REMEDY}");
        self.unconfirmed.clear();
    }
}

/// Why a message is dropped: a constant kind to say it once, and the details.
type Dropped = (&'static str, String);

fn decode(sender: NodeId, bytes: &[u8]) -> Result<Box<Message>, Dropped> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u16,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|e| ("undecodable", e.to_string()))?;
    if head.format > MESSAGE_FORMAT {
        let detail = format!("format {}, known up to {MESSAGE_FORMAT}: upgrade here", head.format);
        return Err(("newer format", detail));
    }
    let message: Message =
        serde_json::from_slice(bytes).map_err(|e| ("undecodable", e.to_string()))?;
    if message.from.node != sender {
        return Err(("wrong sender", format!("says {}, came from {sender}", message.from.node)));
    }
    Ok(Box::new(message))
}

/// Connects on a thread that can be abandoned. While one is stuck no second one is started; should it come
/// back after all, its session is used.
#[derive(Default)]
struct Connector {
    pending: Option<mpsc::Receiver<Result<Session>>>,
    retiring: Option<std::thread::JoinHandle<()>>,
}

impl Connector {
    fn connect(&mut self, group: &str) -> Result<Session> {
        if self.retiring.as_ref().is_some_and(|thread| !thread.is_finished()) {
            bail!("corosync does not let go of the last connection");
        }
        let answer = match self.pending.take() {
            Some(answer) => answer,
            None => spawn_for_answer({
                let group = group.to_owned();
                move || join(&group)
            })?,
        };
        match answer.recv_timeout(CONNECT_PATIENCE) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.pending = Some(answer);
                bail!("corosync does not answer within {} ms", CONNECT_PATIENCE.as_millis())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the corosync library panicked"),
        }
    }

    /// Drops a session where it may block.
    fn retire(&mut self, session: Session) {
        let thread = std::thread::Builder::new().name("corosync-end".into());
        self.retiring = thread.spawn(move || drop(session)).ok();
    }
}

fn spawn_for_answer<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<mpsc::Receiver<T>> {
    let (answer, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name("corosync-join".into());
    thread.spawn(move || drop(answer.send(work()))).context("cannot start a thread")?;
    Ok(receiver)
}

fn join(group: &str) -> Result<Session> {
    lock(&SEEN).clear();
    let callbacks = cpg::ModelData::ModelV1(cpg::Model1Data {
        flags: cpg::Model1Flags::None,
        deliver_fn: Some(on_deliver),
        confchg_fn: Some(on_members),
        totem_confchg_fn: None,
    });
    let handle = cpg::initialize(&callbacks, 0).context("cannot connect to corosync")?;
    let fd = cpg::fd_get(&handle).context("corosync gave no descriptor")?;
    let local = cpg::local_get(&handle).context("corosync gave no node id")?;
    join_patiently(&handle, group)?;
    Ok(Session { handle, fd, local: NodeId(local.into()) })
}

/// Corosync says "try again" while it forms a ring.
fn join_patiently(handle: &cpg::Handle, group: &str) -> Result<()> {
    loop {
        match cpg::join(handle, group) {
            Err(CsError::CsErrTryAgain) => std::thread::sleep(Duration::from_millis(20)),
            result => return result.with_context(|| format!("cannot join group {group}")),
        }
    }
}

fn on_deliver(
    _: &cpg::Handle,
    group: String,
    sender: rust_corosync::NodeId,
    process: u32,
    message: &[u8],
    _: usize,
) {
    let bytes = message.to_vec();
    lock(&SEEN).push(Seen::Delivery { group, sender: sender.into(), process, bytes });
}

fn on_members(
    _: &cpg::Handle,
    group: &str,
    members: Vec<cpg::Address>,
    _: Vec<cpg::Address>,
    _: Vec<cpg::Address>,
) {
    // Two processes of one node are one member.
    let members = members.iter().map(|member| NodeId(member.nodeid.into())).collect();
    lock(&SEEN).push(Seen::Members { group: group.to_owned(), members });
}

/// Waits until one of the descriptors is readable or broken; `None` waits for ever.
#[allow(unsafe_code)]
fn poll<const N: usize>(fds: [RawFd; N], patience: Option<Duration>) -> Result<[bool; N]> {
    let mut entries = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let milliseconds = patience.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(-1));
    // SAFETY: `entries` lives through the call, and its length is given.
    let result = unsafe { libc::poll(entries.as_mut_ptr(), N as libc::nfds_t, milliseconds) };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot poll corosync's descriptor");
        }
        return Ok([false; N]);
    }
    Ok(entries.map(|entry| entry.revents != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_named() {
        let kind = |bytes: &[u8]| decode(NodeId(1), bytes).unwrap_err().0;
        assert_eq!(kind(b"\xff"), "undecodable");
        assert_eq!(kind(br#"{"format":1}"#), "undecodable");
        assert_eq!(kind(br#"{"format":2,"new":[]}"#), "newer format");
        let stranger = br#"{"format":1,"from":{"node":2,"boot":"01","incarnation":1},
            "body":{"Leading":{"term":1}}}"#;
        assert_eq!(kind(stranger), "wrong sender");
        assert!(decode(NodeId(2), stranger).is_ok());
    }
}
