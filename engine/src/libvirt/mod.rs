//! libvirt: starts, destroys and lists guests. Every call blocks for as long as libvirtd likes, so
//! each runs on a thread of this adapter that can be abandoned; the callers here never wait longer
//! than a deadline, and those on the lease path never wait at all.
//!
//! libvirt is never asked whether a guest runs: that is `guests.rs`.

mod arrive;
mod callbacks;
mod connection;
mod migrate;
mod probe;
mod records;
mod start;
mod stop;
mod survey;

pub use arrive::Permission;
pub use survey::{DomainInfo, DomainXml, HostFacts};

use crate::guests::Guest;
use crate::guests::watch::{Clock, Guests, Noticed};
use connection::Connection;
use records::Records;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::guest::GuestScan;
use steadfast_core::ids::{Incarnation, VmId};
use steadfast_core::time::Instant;

/// Where events go. Called on threads of this adapter.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// How to reach libvirt.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connection URI, e.g. `qemu:///system`.
    pub uri: String,
    /// A directory on tmpfs, kept across restarts of the agent: it holds `starts/`.
    pub run_directory: PathBuf,
    /// How long a caller waits for one call.
    pub call_deadline: Duration,
    /// This life of the agent: records of starts of another one are unresolved until settled.
    pub incarnation: Incarnation,
}

/// The adapter. Its threads live as long as the process.
pub struct Hypervisor(Arc<Inner>);

struct Inner {
    clock: Clock,
    events: Sink,
    deadline: Duration,
    connection: Arc<Connection>,
    records: Records,
    /// Set once, right after the threads of `Guests` got this as their listener.
    guests: OnceLock<Arc<Guests>>,
    starting: start::Starting,
    stopping: Arc<stop::Stopping>,
    leaving: Arc<migrate::Leaving>,
    arriving: arrive::Arrivals,
    survey: survey::Survey,
}

impl Hypervisor {
    /// Starts the threads and returns at once; connects, and reconnects, in the background.
    ///
    /// # Errors
    /// If the run directory cannot be written or the system gives no thread. A libvirt that cannot
    /// be reached is no error: see [`Self::healthy`].
    pub fn start(settings: Settings, clock: Clock, events: Sink) -> anyhow::Result<Arc<Self>> {
        let records = Records::open(&settings.run_directory, settings.incarnation)?;
        let connection = Connection::new(&settings);
        let inner = Arc::new(Inner {
            clock: clock.clone(),
            events,
            deadline: settings.call_deadline,
            connection: connection.clone(),
            records,
            guests: OnceLock::new(),
            starting: start::Starting::default(),
            stopping: Arc::default(),
            leaving: Arc::default(),
            arriving: arrive::Arrivals::default(),
            survey: survey::Survey::default(),
        });
        let guests = Guests::start(clock, inner.clone())?;
        let _ = inner.guests.set(guests);
        connection.run(Arc::new(Told(Arc::downgrade(&inner))))?;
        inner.scan();
        Ok(Arc::new(Self(inner)))
    }

    /// `Action::StartVm` -> `Event::StartEnded`. `xml` may block; it runs on a thread of its own.
    pub fn start_vm(
        &self,
        vm: VmId,
        xml: impl FnOnce() -> anyhow::Result<String> + Send + 'static,
        not_after: Instant,
    ) {
        start::start(&self.0, vm, xml, not_after);
    }

    /// `Action::DestroyVm` -> `Event::StopEnded`. Pulls the plug: libvirt first, SIGKILL to the
    /// process itself when it is not gone after a second.
    pub fn destroy_vm(&self, vm: VmId) {
        stop::destroy(&self.0, vm);
    }

    /// `Action::ShutDownVm`: asks the guest, which may ignore it.
    pub fn shut_down_vm(&self, vm: VmId) {
        stop::shut_down(&self.0, vm);
    }

    /// `Action::MigrateVm` -> `Event::MigrationEnded`. `uri` names the libvirt of the target.
    pub fn migrate_vm(&self, vm: VmId, uri: String, not_after: Instant) {
        migrate::migrate(&self.0, vm, uri, not_after);
    }

    /// `Action::AbortMigration`: answered by the migration's own `Event::MigrationEnded`.
    pub fn abort_migration(&self, vm: VmId) {
        migrate::abort(&self.0, vm);
    }

    /// `Action::PermitArrival`.
    pub fn permit_arrival(&self, vm: VmId) {
        arrive::permit(&self.0, vm);
    }

    /// `Action::ForbidArrival`.
    pub fn forbid_arrival(&self, vm: &VmId) {
        arrive::forbid(&self.0, vm);
    }

    /// `Action::ResumeVm` -> `Event::ResumeEnded`.
    pub fn resume_vm(&self, vm: VmId, not_after: Instant) {
        arrive::resume(&self.0, vm, not_after);
    }

    /// What this agent allows libvirt's hook to let pass.
    #[must_use]
    pub fn permission(&self, vm: &VmId) -> Option<Permission> {
        arrive::permission(&self.0, vm)
    }

    /// The hook is about to let `vm` arrive.
    ///
    /// # Errors
    /// Why it must not.
    pub fn pass_arrival(&self, vm: &VmId) -> anyhow::Result<()> {
        arrive::pass(&self.0, vm)?;
        self.0.scan();
        Ok(())
    }

    /// The hook was told that libvirt is done with `vm`.
    pub fn released(&self, vm: &VmId) {
        arrive::released(&self.0, vm);
    }

    /// How often libvirt was connected: another number means that libvirtd may be another one.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connection.made()
    }

    /// Asks libvirt for a VM of this UUID that the hook is to refuse. Waits up to the deadline.
    ///
    /// # Errors
    /// It was refused, or libvirt could not be asked.
    pub fn test_hook(&self, vm: &VmId) -> anyhow::Result<()> {
        probe::start(&self.0, vm)
    }

    /// `Action::UndefineVm`: removes the definition here, unless the VM runs.
    pub fn undefine_vm(&self, vm: VmId) {
        stop::undefine(&self.0, vm);
    }

    /// `Action::AdoptVm`: autostart off; its exit will be told as `Event::GuestExited`.
    pub fn adopt_vm(&self, vm: VmId) {
        start::adopt(&self.0, vm);
    }

    /// `Action::ScanGuests` -> `Event::GuestsScanned`, of a scan that begins after this call.
    pub fn scan(&self) {
        self.0.scan();
    }

    /// Every domain that libvirt knows; the last known answer if it does not answer in time.
    #[must_use]
    pub fn list(&self) -> Vec<DomainInfo> {
        survey::list(&self.0)
    }

    /// The definition of one domain, by name or UUID. Waits up to the deadline.
    ///
    /// # Errors
    /// If libvirt cannot be reached, does not answer in time, or knows no such domain.
    pub fn domain_xml(&self, name: &str) -> anyhow::Result<DomainXml> {
        survey::domain_xml(&self.0, name)
    }

    /// What this host has and what active domains are configured to use. Never blocks: answers
    /// what was last seen, zeros before libvirt was first reached, and looks again if that is old.
    #[must_use]
    pub fn facts(&self) -> HostFacts {
        survey::facts(&self.0)
    }

    /// Can guests be started here?
    ///
    /// # Errors
    /// Why not, with the remedy.
    pub fn healthy(&self) -> Result<(), String> {
        self.0.connection.healthy()
    }
}

impl Inner {
    fn emit(&self, event: Event) {
        (self.events)(event);
    }

    fn scan(&self) {
        if let Some(guests) = self.guests.get() {
            guests.scan();
        }
    }

    /// libvirt is connected (again), or one of its domains changed.
    fn changed(self: &Arc<Self>) {
        self.scan();
        survey::refresh(self);
    }
}

/// Where libvirt's callbacks lead.
struct Told(Weak<Inner>);

impl callbacks::Listener for Told {
    fn changed(&self) {
        if let Some(inner) = self.0.upgrade() {
            inner.changed();
        }
    }

    fn shut_down(&self, vm: VmId) {
        if let Some(inner) = self.0.upgrade() {
            inner.emit(Event::GuestShutDown { vm });
        }
    }
}

impl Noticed for Inner {
    fn scanned(&self, began: Instant, guests: &[Guest]) {
        let present: BTreeSet<VmId> = guests.iter().map(|guest| guest.vm.clone()).collect();
        match self.records.settle(began, &present) {
            Ok(unresolved) => {
                self.emit(Event::GuestsScanned(GuestScan { began, present, unresolved }));
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "records of starts are unreadable; check the run directory");
            }
        }
    }

    fn exited(&self, vm: &VmId) {
        self.emit(Event::GuestExited { vm: vm.clone() });
    }
}

impl std::fmt::Debug for Hypervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hypervisor").field("healthy", &self.healthy()).finish_non_exhaustive()
    }
}

/// Spawns a thread; without one nothing can be done, which the caller reports.
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(work).with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

/// A panic of another thread is no reason to stop this one: the data are replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
