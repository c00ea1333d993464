//! The watchdog: cuts this node's power when nothing feeds it in time (PROTOCOL section 4).
//!
//! Opening the device, setting its time-out and pinging are all feeds; each is checked against the lease
//! immediately before. One decision is good for one feed: the rule `end of last feed + 2 W` allows no second
//! one before the machine knows of the first. The device is never disarmed once it was fed: dropping it
//! leaves it counting.
//!
//! Two kinds of device: `/dev/watchdogN`, and `unix:/path`, a socket whose line `timeout <ms>` arms, feeds
//! and is answered by the same line (the lab's power switch). The descriptor outlives the agent in systemd's
//! store if the unit sets `NotifyAccess=main` and `FileDescriptorStoreMax=1`.

use crate::Sink;
use crate::clock::Clock;
use crate::record::RunRecord;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::config::Timing;
use steadfast_core::event::Event;
use steadfast_core::time::{Instant, Millis};
use steadfast_core::timing_lint;

const WDIOC_KEEPALIVE: libc::c_ulong = 0x8004_5705;
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;
const WDIOC_GETTIMEOUT: libc::c_ulong = 0x8004_5707;

/// The name of the descriptor in systemd's store.
const STORED_NAME: &str = "watchdog";
/// A failure that goes on is repeated this often.
const REPEAT_FAILURE: Millis = Millis(30_000);
/// The lab's socket answers at once.
const SOCKET_PATIENCE: Duration = Duration::from_secs(1);

/// Feeds the watchdog, on a thread of its own.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    read_back: ReadBack,
}

/// W as the device said it last; known once it is open.
#[derive(Debug, Clone, Default)]
pub struct ReadBack(Arc<AtomicU64>);

impl ReadBack {
    /// What the device said.
    #[must_use]
    pub fn get(&self) -> Option<Millis> {
        Some(Millis(self.0.load(Ordering::Relaxed))).filter(|said| said.0 > 0)
    }

    fn set(&self, said: Millis) {
        self.0.store(said.0, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Shared {
    next: Mutex<Option<Request>>,
    asked: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    basis: Option<Instant>,
    last: Option<Instant>,
    not_after: Instant,
}

impl Watchdog {
    /// Prepares to feed `device` with this W, and refuses a device that says another one that is unsafe. A descriptor kept by systemd is taken over; otherwise
    /// nothing is opened before the first feed.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        device: &str,
        timing: &Timing,
        record: RunRecord,
        clock: Clock,
        events: Sink,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let read_back = ReadBack::default();
        let keeper = Keeper {
            name: device.to_owned(),
            timeout: timing.watchdog,
            timing: timing.clone(),
            read_back: read_back.clone(),
            fed_this_boot: record.inherited(clock.now()).is_some(),
            ended: None,
            record,
            clock,
            events,
            device: stored_descriptor().map(|descriptor| Device::from_store(device, descriptor)),
            ready: false,
            rest_until: None,
            failures: BTreeMap::new(),
        };
        let requests = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watchdog".into());
        let run = move || keeper.run(&requests);
        thread.spawn(run).context("cannot start the watchdog thread")?;
        Ok(Self { shared, read_back })
    }

    /// Where the device's own W will be told.
    #[must_use]
    pub fn read_back(&self) -> ReadBack {
        self.read_back.clone()
    }

    /// Feeds the watchdog, unless it is later than `not_after` when it comes to that, or a feed has ended
    /// after `last`, the newest that this decision knew (then the answer is `Woke`). Answers `WatchdogFed` or
    /// `WatchdogFailed`. Never blocks; a newer request replaces a waiting one.
    pub fn feed(&self, basis: Option<Instant>, last: Option<Instant>, not_after: Instant) {
        let mut next = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(Request { basis, last, not_after });
        self.shared.asked.notify_one();
    }
}

impl Shared {
    fn wait(&self) -> Request {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(request) = next.take() {
                return request;
            }
            next = self.asked.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread that owns the device.
struct Keeper {
    name: String,
    timeout: Millis,
    /// What W must be safe with.
    timing: Timing,
    read_back: ReadBack,
    record: RunRecord,
    clock: Clock,
    events: Sink,
    device: Option<Device>,
    /// The time-out is set.
    ready: bool,
    /// No attempt before: a device that had to be disarmed again is not tried each beat.
    rest_until: Option<Instant>,
    /// An incarnation of this boot has fed it: from then on it is never disarmed.
    fed_this_boot: bool,
    /// End of this incarnation's last feed.
    ended: Option<Instant>,
    /// When each kind of failure was told last.
    failures: BTreeMap<&'static str, Instant>,
}

/// Why a feed did not happen.
enum Unfed {
    /// Too late for this lease, or after a feed that it does not know of: not an error, the machine decides
    /// anew.
    Late,
    /// The device rests after a failure that was told.
    Resting,
    /// The kind of failure, and the reason with its remedy.
    Failed(&'static str, anyhow::Error),
}

impl Keeper {
    fn run(mut self, requests: &Shared) {
        loop {
            let request = requests.wait();
            match self.feed(request) {
                Ok(ended) => {
                    self.failures.clear();
                    (self.events)(Event::WatchdogFed { ended });
                }
                Err(Unfed::Late) => (self.events)(Event::Woke),
                Err(Unfed::Resting) => {}
                Err(Unfed::Failed(kind, reason)) => self.fail(kind, &reason),
            }
        }
    }

    fn feed(&mut self, request: Request) -> Result<Instant, Unfed> {
        if self.rest_until.is_some_and(|until| self.clock.now() < until) {
            return Err(Unfed::Resting);
        }
        self.check(request)?;
        let recorded = self.record.before_feed(request.basis);
        recorded.map_err(|error| Unfed::Failed("record", error))?;
        self.feed_once(request)?;
        let ended = self.clock.now();
        self.ended = Some(ended);
        self.fed_this_boot = true;
        if let Err(error) = self.record.after_feed(ended) {
            // The feed stands; the next incarnation only takes it for later than it was.
            self.fail("record", &error);
        }
        Ok(ended)
    }

    /// A device that has to be opened or set up was fed by that. Only one that is opened with another time-out
    /// than ours is fed by both: before, it was not the one that anything relies on.
    fn feed_once(&mut self, request: Request) -> Result<(), Unfed> {
        let fed = self.open(request)?;
        if self.set_up(request, fed)? {
            return Ok(());
        }
        self.check(request)?;
        self.ping()
    }

    /// Immediately before everything that feeds.
    fn check(&self, request: Request) -> Result<(), Unfed> {
        let spent = self.ended > request.last;
        if spent || self.clock.now() > request.not_after { Err(Unfed::Late) } else { Ok(()) }
    }

    /// True if this fed it.
    fn open(&mut self, request: Request) -> Result<bool, Unfed> {
        if self.device.is_some() {
            return Ok(false);
        }
        self.ready = false;
        self.check(request)?;
        let device = Device::open(&self.name).map_err(|error| Unfed::Failed("open", error))?;
        tracing::info!(device = self.name, "watchdog open");
        let fed = device.opening_feeds();
        self.device = Some(device);
        Ok(fed)
    }

    /// True if it was fed by this, or before (`fed`).
    fn set_up(&mut self, request: Request, fed: bool) -> Result<bool, Unfed> {
        if self.ready {
            return Ok(fed);
        }
        let Some(device) = &self.device else { return Err(Unfed::Resting) };
        let fed = if device.has_timeout(self.timeout) {
            self.read_back.set(self.timeout);
            fed
        } else {
            self.check(request)?;
            self.set_timeout()? || fed
        };
        self.ready = true;
        if let Some(Err(error)) = self.device.as_ref().map(|it| store_descriptor(it.descriptor())) {
            let error = format!("{error:#}");
            tracing::info!(error, "watchdog not kept by systemd, a restarted agent opens it anew");
        }
        Ok(fed)
    }

    /// True if this fed it.
    fn set_timeout(&mut self) -> Result<bool, Unfed> {
        let Some(device) = &mut self.device else { return Err(Unfed::Resting) };
        match device.set_timeout(self.timeout).and_then(|answer| self.checked(answer)) {
            Ok((set, fed)) => {
                let (asked_ms, set_ms) = (self.timeout.0, set.0);
                tracing::info!(device = self.name, asked_ms, set_ms, "watchdog time-out set");
                Ok(fed)
            }
            Err(error) => {
                let reason = error.context(format!("cannot set the time-out of {}", self.name));
                self.give_up_device();
                Err(Unfed::Failed("time-out", reason))
            }
        }
    }

    /// The device's own W counts: a longer one would outlive what everybody waits for.
    fn checked(&self, (set, fed): (Millis, bool)) -> Result<(Millis, bool)> {
        self.read_back.set(set);
        let refused = timing_lint::check_read_back(&self.timing, set).err();
        refused.map_or(Ok((set, fed)), |refusal| {
            Err(anyhow!("{}; {}, or use another device", refusal.what(), refusal.remedy()))
        })
    }

    fn ping(&mut self) -> Result<(), Unfed> {
        let Some(device) = &mut self.device else { return Err(Unfed::Resting) };
        let Err(error) = device.ping(self.timeout) else { return Ok(()) };
        // Dropped without the magic character: it goes on counting, and is opened anew by the next feed.
        self.device = None;
        let context = format!("cannot feed {}: see the kernel log", self.name);
        Err(Unfed::Failed("feed", error.context(context)))
    }

    /// The device is open, thus counting, with a time-out that we did not choose.
    fn give_up_device(&mut self) {
        let Some(mut device) = self.device.take() else { return };
        if self.fed_this_boot {
            // Guests may rely on it: it goes on counting, and the next feed tries again.
            return;
        }
        // Nothing relies on it yet: a wrong setting must not cost the node its power.
        device.disarm();
        self.rest_until = Some(self.clock.now() + REPEAT_FAILURE);
    }

    fn fail(&mut self, kind: &'static str, reason: &anyhow::Error) {
        let now = self.clock.now();
        let told = self.failures.get(kind);
        if told.is_none_or(|told| now.since(*told) >= REPEAT_FAILURE) {
            self.failures.insert(kind, now);
            (self.events)(Event::WatchdogFailed { reason: format!("{reason:#}") });
        }
    }
}

/// An open watchdog.
#[derive(Debug)]
enum Device {
    Kernel(File),
    Socket(UnixStream),
}

fn socket_path(name: &str) -> Option<&str> {
    name.strip_prefix("unix:")
}

impl Device {
    fn open(name: &str) -> Result<Self> {
        match socket_path(name) {
            Some(path) => {
                let socket = UnixStream::connect(path);
                let socket = socket.with_context(|| format!("cannot connect to {name}"))?;
                Ok(Self::Socket(socket))
            }
            None => match OpenOptions::new().write(true).open(name) {
                Ok(file) => Ok(Self::Kernel(file)),
                Err(error) => Err(anyhow!("cannot open {name}: {error}: {}", open_remedy(&error))),
            },
        }
    }

    fn from_store(name: &str, descriptor: OwnedFd) -> Self {
        match socket_path(name) {
            Some(_) => Self::Socket(descriptor.into()),
            None => Self::Kernel(descriptor.into()),
        }
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Kernel(file) => file.as_raw_fd(),
            Self::Socket(socket) => socket.as_raw_fd(),
        }
    }

    /// Opening a kernel's watchdog starts it; the socket waits for its first line.
    fn opening_feeds(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }

    /// It has this very time-out already. Asking does not feed.
    fn has_timeout(&self, timeout: Millis) -> bool {
        match self {
            Self::Kernel(file) => kernel_timeout(file).is_ok_and(|set| set == timeout),
            Self::Socket(_) => false,
        }
    }

    /// Sets the time-out and returns what the device says it is, and whether that fed it.
    fn set_timeout(&mut self, timeout: Millis) -> Result<(Millis, bool)> {
        let (set, fed) = match self {
            Self::Kernel(file) => set_kernel_timeout(file, timeout)?,
            Self::Socket(socket) => (exchange(socket, timeout)?, true),
        };
        ensure!(set.0 > 0, "the device says that its time-out is 0: it never fires");
        Ok((set, fed))
    }

    fn ping(&mut self, timeout: Millis) -> Result<()> {
        match self {
            Self::Kernel(file) => Ok(ioctl(file, WDIOC_KEEPALIVE, &mut 0)?),
            // Answered, unlike `ping`: when it returns the feed has surely ended.
            Self::Socket(socket) => exchange(socket, timeout).map(drop),
        }
    }

    /// Only before anything relies on it.
    fn disarm(&mut self) {
        let _ = match self {
            Self::Kernel(file) => file.write_all(b"V"),
            Self::Socket(socket) => socket.write_all(b"V\n"),
        };
    }
}

fn open_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "load the driver of this machine's watchdog (`modprobe softdog` if it has none), \
             or name another device; until then no HA VM is started here"
        }
        ErrorKind::ResourceBusy => {
            "another process holds it: systemd (RuntimeWatchdogSec), watchdog or sbd; \
             only one can; until then no HA VM is started here"
        }
        _ => "until then no HA VM is started here",
    }
}

/// Setting it pings, as the kernel does it.
fn set_kernel_timeout(file: &File, timeout: Millis) -> Result<(Millis, bool)> {
    let mut seconds = i32::try_from(timeout.0 / 1_000).unwrap_or(i32::MAX).max(1);
    let fed = match ioctl(file, WDIOC_SETTIMEOUT, &mut seconds) {
        // Some devices have a fixed time-out; reading it back decides.
        Err(error) if error.kind() == ErrorKind::Unsupported => false,
        result => result.map(|()| true)?,
    };
    Ok((kernel_timeout(file)?, fed))
}

fn kernel_timeout(file: &File) -> Result<Millis> {
    let mut seconds = 0;
    ioctl(file, WDIOC_GETTIMEOUT, &mut seconds)?;
    Ok(Millis(u64::try_from(seconds).unwrap_or(0) * 1_000))
}

#[allow(unsafe_code)]
fn ioctl(file: &File, request: libc::c_ulong, value: &mut i32) -> std::io::Result<()> {
    // SAFETY: all requests used here read or write one int, which `value` is; the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, std::ptr::from_mut(value)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the time-out line, which arms and feeds, and waits for its answer.
fn exchange(socket: &mut UnixStream, timeout: Millis) -> Result<Millis> {
    socket.set_read_timeout(Some(SOCKET_PATIENCE))?;
    socket.set_write_timeout(Some(SOCKET_PATIENCE))?;
    socket.write_all(format!("timeout {}\n", timeout.0).as_bytes())?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        socket.read_exact(&mut byte).context("no answer to a time-out line")?;
        line.push(byte[0]);
        ensure!(line.len() < 64, "the answer to a time-out line is too long");
    }
    let line = String::from_utf8_lossy(&line);
    let milliseconds = line.trim().strip_prefix("timeout ").and_then(|text| text.parse().ok());
    milliseconds
        .map(Millis)
        .with_context(|| format!("answer {:?}, expected a time-out", line.trim()))
}

/// Takes the watchdog out of what systemd kept for this unit.
#[allow(unsafe_code)]
fn stored_descriptor() -> Option<OwnedFd> {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("LISTEN_PID")?.parse() != Ok(std::process::id()) {
        return None;
    }
    let count: usize = variable("LISTEN_FDS")?.parse().ok()?;
    let names = variable("LISTEN_FDNAMES")?;
    let position = names.split(':').take(count).position(|name| name == STORED_NAME)?;
    let descriptor = 3 + RawFd::try_from(position).ok()?;
    // SAFETY: systemd passes descriptors from 3 on to this process alone (LISTEN_PID); nobody else in it
    // takes them. Children must not inherit it.
    unsafe {
        if libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return None;
        }
        Some(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Gives systemd a copy of the descriptor to keep over restarts of this unit.
fn store_descriptor(descriptor: RawFd) -> Result<()> {
    let path = std::env::var("NOTIFY_SOCKET").context("not started by systemd")?;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    let message = format!("FDSTORE=1\nFDNAME={STORED_NAME}\n");
    send_descriptor(&socket, message.as_bytes(), descriptor).context("cannot notify systemd")
}

#[allow(unsafe_code)]
fn send_descriptor(socket: &UnixDatagram, text: &[u8], descriptor: RawFd) -> std::io::Result<()> {
    // One descriptor, in bytes.
    const SIZE: u32 = 4;
    let mut parts = libc::iovec { iov_base: text.as_ptr() as *mut _, iov_len: text.len() };
    let mut control = [0_u64; 4];
    // SAFETY: a zeroed msghdr is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut parts;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: `control` is aligned and larger than the space of one descriptor (24 bytes), so the first
    // header and its data lie within it; sendmsg only reads what the message points to, all of it alive.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(SIZE) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(SIZE) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
