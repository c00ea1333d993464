//! The watchdog: cuts this node's power when nothing feeds it in time (PROTOCOL section 4).
//!
//! Opening the device, setting its time-out and pinging are all feeds; each is checked against the lease
//! immediately before. One decision is good for one feed: the rule `end of last feed + 2 W` allows no second
//! one before the machine knows of the first.
//!
//! Closing is one more feed: Linux pings a device that is closed without the magic character. So it is closed for
//! one reason only, when HA is off ([`Watchdog::release`]), and the descriptor outlives the agent in systemd's store (the
//! unit sets `NotifyAccess=main` and `FileDescriptorStoreMax`). Where nothing keeps it ([`outlives_agent`]) a dying
//! agent may feed it W after its last feed, and no time proves such a node dead.
//!
//! Two kinds of device: `/dev/watchdogN`, and `unix:/path`, a socket whose line `timeout <ms>` arms, feeds
//! and is answered by the same line (the lab's power switch).

mod device;

use crate::Sink;
use crate::clock::Clock;
use crate::realtime;
use crate::record::RunRecord;
use crate::systemd;
use anyhow::{Context, Result, anyhow};
use device::Device;
pub(crate) use device::Source;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::config::Timing;
use steadfast_core::event::Event;
use steadfast_core::time::{Instant, Millis};
use steadfast_core::timing_lint;

/// The name of the descriptor in systemd's store.
const STORED_NAME: &str = "watchdog";
/// A failure that goes on is repeated this often.
const REPEAT_FAILURE: Millis = Millis(30_000);

/// The device goes on counting to its end when the agent dies, without being fed by that.
#[must_use]
pub fn outlives_agent(device: &str) -> bool {
    Source::named(device).closing_is_harmless() || systemd::keeps_descriptors()
}

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
enum Request {
    Feed(Feed),
    Release,
    End,
}

#[derive(Debug, Clone, Copy)]
struct Feed {
    basis: Option<Instant>,
    last: Option<Instant>,
    not_after: Instant,
}

impl Watchdog {
    /// Prepares to feed `device` with this W, and refuses a device that says another one that is unsafe. A descriptor
    /// kept by systemd is taken over; otherwise nothing is opened before the first feed.
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
        Self::of(Source::named(device), timing, record, clock, events)
    }

    /// The same, of a device that need not have a name.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn of(
        source: Source,
        timing: &Timing,
        record: RunRecord,
        clock: Clock,
        events: Sink,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let read_back = ReadBack::default();
        let device = source.stored(STORED_NAME);
        let keeper = Keeper {
            name: source,
            timeout: timing.watchdog,
            timing: timing.clone(),
            read_back: read_back.clone(),
            fed_this_boot: record.inherited(clock.now()).is_some(),
            ended: None,
            unstoppable: false,
            record,
            clock,
            events,
            device,
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
        self.ask(Request::Feed(Feed { basis, last, not_after }));
    }

    /// Closes the watchdog without letting it fire, and removes the record of its feeds: HA is off, nothing relies on
    /// it. Answers `WatchdogClosed`, or `WatchdogFailed`. Never blocks; the next feed opens it anew.
    pub fn release(&self) {
        self.ask(Request::Release);
    }

    /// Ends its thread: the node has no power any more.
    pub(crate) fn end(&self) {
        self.ask(Request::End);
    }

    fn ask(&self, request: Request) {
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
        self.shared.asked.notify_one();
    }
}

impl Shared {
    /// The newest request; `None` if none came within `patience`.
    fn wait(&self, patience: Duration) -> Option<Request> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.asked.wait_timeout_while(next, patience, |next| next.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// The thread that owns the device.
struct Keeper {
    name: Source,
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
    /// It was released, and its driver does not let it stop (`nowayout`): it is kept alive until it is fed again.
    unstoppable: bool,
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
        // What is wrong with it is told by the lease path, which asks for the same.
        let _ = realtime::raise();
        loop {
            match requests.wait(Duration::from_millis(self.timeout.0 / 4)) {
                Some(Request::Feed(request)) => self.answer_feed(request),
                Some(Request::Release) => self.answer_release(),
                Some(Request::End) => return,
                None if self.unstoppable => drop(self.ping()),
                None => {}
            }
        }
    }

    fn answer_feed(&mut self, request: Feed) {
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

    fn answer_release(&mut self) {
        match self.release() {
            Ok(()) => (self.events)(Event::WatchdogClosed),
            Err(error) => self.fail("close", &error.context("cannot close the watchdog")),
        }
    }

    /// Closed first, forgotten after: an agent that restarts in between finds a lease that is still good.
    fn release(&mut self) -> Result<()> {
        if self.device.is_none() && self.fed_this_boot {
            // Its descriptor was lost with an earlier agent, and it counts.
            self.device = Some(Device::open(&self.name)?);
        }
        self.stop_device()?;
        self.record.forget_feeds()?;
        (self.ended, self.fed_this_boot) = (None, false);
        Ok(())
    }

    fn stop_device(&mut self) -> Result<()> {
        let Some(device) = &mut self.device else { return Ok(()) };
        self.unstoppable = !device.stop()?;
        if self.unstoppable {
            tracing::warn!(device = %self.name, "nowayout: it cannot be stopped, it is kept alive instead");
            return Ok(());
        }
        systemd::forget_descriptor(STORED_NAME);
        self.device = None;
        tracing::info!(device = %self.name, "watchdog closed");
        Ok(())
    }

    fn feed(&mut self, request: Feed) -> Result<Instant, Unfed> {
        if self.rest_until.is_some_and(|until| self.clock.now() < until) {
            return Err(Unfed::Resting);
        }
        self.check(request)?;
        let recorded = self.record.before_feed(request.basis);
        recorded.map_err(|error| Unfed::Failed("record", error))?;
        self.feed_once(request)?;
        let ended = self.clock.now();
        self.ended = Some(ended);
        (self.fed_this_boot, self.unstoppable) = (true, false);
        if let Err(error) = self.record.after_feed(ended) {
            // The feed stands; the next incarnation only takes it for later than it was.
            self.fail("record", &error);
        }
        Ok(ended)
    }

    /// A device that has to be opened or set up was fed by that. Only one that is opened with another time-out
    /// than ours is fed by both: before, it was not the one that anything relies on.
    fn feed_once(&mut self, request: Feed) -> Result<(), Unfed> {
        let fed = self.open(request)?;
        if self.set_up(request, fed)? {
            return Ok(());
        }
        self.check(request)?;
        self.ping()
    }

    /// Immediately before everything that feeds.
    fn check(&self, request: Feed) -> Result<(), Unfed> {
        let spent = self.ended > request.last;
        if spent || self.clock.now() > request.not_after { Err(Unfed::Late) } else { Ok(()) }
    }

    /// True if this fed it.
    fn open(&mut self, request: Feed) -> Result<bool, Unfed> {
        if self.device.is_some() {
            return Ok(false);
        }
        self.ready = false;
        self.check(request)?;
        let device = Device::open(&self.name).map_err(|error| Unfed::Failed("open", error))?;
        tracing::info!(device = %self.name, "watchdog open");
        let fed = device.opening_feeds();
        self.device = Some(device);
        Ok(fed)
    }

    /// True if it was fed by this, or before (`fed`).
    fn set_up(&mut self, request: Feed, fed: bool) -> Result<bool, Unfed> {
        if self.ready {
            return Ok(fed);
        }
        let Some(device) = &self.device else { return Err(Unfed::Resting) };
        if let Err(error) = device.check_close(&self.name) {
            self.give_up_device();
            return Err(Unfed::Failed("close", error));
        }
        let fed = if device.has_timeout(self.timeout) {
            self.read_back.set(self.timeout);
            fed
        } else {
            self.check(request)?;
            self.set_timeout()? || fed
        };
        self.ready = true;
        let descriptor = self.device.as_ref().and_then(Device::descriptor);
        let stored = descriptor.map(|it| systemd::store_descriptor(STORED_NAME, it));
        if let Some(Err(error)) = stored {
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
                tracing::info!(device = %self.name, asked_ms, set_ms, "watchdog time-out set");
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
        if device.is_gone(&error) {
            // The next feed opens it anew. One that is still there is kept: to close it would feed it.
            self.device = None;
        }
        let context = format!("cannot feed {}: see the kernel log", self.name);
        Err(Unfed::Failed("feed", error.context(context)))
    }

    /// The device is open, thus counting, with a time-out that we did not choose.
    fn give_up_device(&mut self) {
        if self.fed_this_boot {
            // Guests may rely on it: it goes on counting, and the next feed tries again.
            return;
        }
        // Nothing relies on it yet: a wrong setting must not cost the node its power.
        if let Err(error) = self.stop_device() {
            self.unstoppable = true;
            tracing::warn!(error = format!("{error:#}"), "it is kept alive instead");
        }
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

#[cfg(test)]
mod tests;
