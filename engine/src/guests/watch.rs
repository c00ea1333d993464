//! Two threads: one scans processes when asked, one sleeps on the process descriptors of adopted
//! guests.

use super::{Guest, Known, ProcessId, pidfd, running};
use crate::threads::{lock, spawn};
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;

/// A scan that failed proves nothing; it is repeated after this time.
const SCAN_AGAIN: Duration = Duration::from_millis(100);

/// What the two threads tell. Called on their threads: be quick.
pub trait Noticed: Send + Sync + 'static {
    /// A scan that began at `began` saw `guests`.
    fn scanned(&self, began: Instant, guests: &[Guest]);
    /// The QEMU process of an adopted guest exited.
    fn exited(&self, vm: &VmId);
}

/// Scans and watches. Its threads live as long as the process.
#[derive(Debug)]
pub struct Guests {
    requests: Mutex<Requests>,
    requested: Condvar,
    /// Of the last scan. Never locked while `/proc` is read: that can hang with a guest's memory.
    known: Mutex<Known>,
    wanted: Mutex<BTreeSet<VmId>>,
    watched: Mutex<BTreeMap<ProcessId, (VmId, OwnedFd)>>,
    /// A byte here makes the watching thread look at `watched` again.
    bell: UnixStream,
}

#[derive(Debug, Default)]
struct Requests {
    asked: u64,
    begun: u64,
}

/// A reading of own time.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

impl Guests {
    /// Starts both threads.
    ///
    /// # Errors
    /// If the system gives no thread or socket.
    pub fn start(clock: Clock, noticed: Arc<dyn Noticed>) -> anyhow::Result<Arc<Self>> {
        let (bell, ear) = UnixStream::pair().context("cannot make a socket pair")?;
        bell.set_nonblocking(true).context("cannot make a socket non-blocking")?;
        ear.set_nonblocking(true).context("cannot make a socket non-blocking")?;
        let guests = Arc::new(Self {
            requests: Mutex::default(),
            requested: Condvar::new(),
            known: Mutex::default(),
            wanted: Mutex::default(),
            watched: Mutex::default(),
            bell,
        });
        let (scanning, listener) = (guests.clone(), noticed.clone());
        spawn("guest-scan", move || scanning.scan_for_ever(&clock, &*listener))?;
        let watching = guests.clone();
        spawn("guest-watch", move || watching.watch_for_ever(ear, &*noticed))?;
        Ok(guests)
    }

    /// Asks for a scan that begins after this call. Never blocks.
    pub fn scan(&self) {
        lock(&self.requests).asked += 1;
        self.requested.notify_all();
    }

    /// Looks once, on the calling thread, with what earlier scans know.
    ///
    /// # Errors
    /// As [`running`].
    pub fn look(&self) -> anyhow::Result<Vec<Guest>> {
        running(Path::new("/proc"), &mut lock(&self.known).clone())
    }

    /// From the next scan on, tells when a process of this VM exits. Never blocks.
    pub fn adopt(&self, vm: &VmId) {
        lock(&self.wanted).insert(vm.clone());
        self.scan();
    }

    /// Stops to tell of this VM, except of a process that is watched already.
    pub fn forget(&self, vm: &VmId) {
        lock(&self.wanted).remove(vm);
    }

    fn scan_for_ever(&self, clock: &Clock, noticed: &dyn Noticed) {
        let mut warned = false;
        loop {
            self.wait_for_request();
            let began = clock();
            let mut known = lock(&self.known).clone();
            match running(Path::new("/proc"), &mut known) {
                Ok(guests) => {
                    *lock(&self.known) = known;
                    warned = false;
                    self.watch(&guests);
                    noticed.scanned(began, &guests);
                }
                Err(error) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::info!(
                            error = format!("{error:#}"),
                            "a scan of guests is repeated"
                        );
                    }
                    std::thread::sleep(SCAN_AGAIN);
                    self.scan();
                }
            }
        }
    }

    fn wait_for_request(&self) {
        let mut requests = lock(&self.requests);
        while requests.asked == requests.begun {
            requests = self.requested.wait(requests).unwrap_or_else(PoisonError::into_inner);
        }
        requests.begun = requests.asked;
    }

    fn watch(&self, guests: &[Guest]) {
        let wanted = lock(&self.wanted).clone();
        let mut watched = lock(&self.watched);
        for guest in guests.iter().filter(|guest| wanted.contains(&guest.vm)) {
            if watched.contains_key(&guest.process) {
                continue;
            }
            match pidfd::open(guest.process) {
                Ok(Some(fd)) => {
                    watched.insert(guest.process, (guest.vm.clone(), fd));
                    self.ring();
                }
                // It exited since; a scan that does not show it tells the same.
                Ok(None) => self.scan(),
                Err(error) => tracing::warn!(
                    vm = %guest.vm,
                    error = format!("{error:#}"),
                    "the exit of a guest will be noticed late; raise LimitNOFILE of the agent"
                ),
            }
        }
    }

    fn ring(&self) {
        // A full socket rings already.
        let _ = (&self.bell).write(&[1]);
    }

    fn watch_for_ever(&self, mut ear: UnixStream, noticed: &dyn Noticed) {
        loop {
            let (processes, mut entries) = self.entries(&ear);
            if let Err(error) = pidfd::poll(&mut entries, -1) {
                tracing::warn!(%error, "guests cannot be watched; trying again");
                std::thread::sleep(Duration::from_secs(1));
            }
            while ear.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            let ready = entries[1..].iter().zip(&processes).filter(|(entry, _)| entry.revents != 0);
            for (_, process) in ready {
                self.tell(*process, noticed);
            }
        }
    }

    /// Only the watching thread removes and closes descriptors, so these stay open until it looks.
    fn entries(&self, ear: &UnixStream) -> (Vec<ProcessId>, Vec<libc::pollfd>) {
        let watched = lock(&self.watched);
        let bell = pidfd::entry(ear);
        let entries = watched.values().map(|(_, fd)| pidfd::entry(fd));
        (watched.keys().copied().collect(), std::iter::once(bell).chain(entries).collect())
    }

    fn tell(&self, process: ProcessId, noticed: &dyn Noticed) {
        let Some((vm, _)) = lock(&self.watched).remove(&process) else { return };
        tracing::info!(%vm, pid = process.pid, "guest process exited");
        noticed.exited(&vm);
        self.scan();
    }
}
