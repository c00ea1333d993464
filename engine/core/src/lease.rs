//! The lease: who may run HA VMs, by when (PROTOCOL section 4).
//!
//! Good until `basis + L`, where basis is when its youngest evidence *began*, in own time: a beat that a majority echoed, or a
//! complete storage cycle whose newest body admits this boot. From then on HA VMs are destroyed; by `basis + L + S` none
//! is left, or the node resets itself: by sysrq, and by the watchdog if even that hangs. `or` is deliberate: a storage
//! stall alone costs nothing, a network outage alone costs nothing.
//!
//! ```text
//!  basis          basis + L                 basis + L + S
//!    |--- good ------|--- destroy, prove ------|  reset
//!                    last feed + 2 W <= here --^
//! ```

use crate::action::Action;
use crate::config::Config;
use crate::ids::Stamp;
use crate::outbox::Outbox;
use crate::time::{Instant, Millis};
use alloc::string::String;

/// Evidence, admission, eviction, watchdog.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The commit that admitted this boot, read with proof in this incarnation.
    admission: Option<Stamp>,
    /// The committed eviction that this node has learnt of, and when.
    evicted: Option<(Stamp, Instant)>,
    network: Option<Instant>,
    storage: Option<Instant>,
    inherited: Option<Instant>,
    last_feed_ended: Option<Instant>,
    feed_asked: Option<Instant>,
    /// Basis that the feed asked for last records on tmpfs, and the one that is recorded.
    asked_basis: Option<Instant>,
    fed_basis: Option<Instant>,
    /// Why the watchdog does not work.
    pub watchdog_trouble: Option<String>,
    resetting: bool,
    /// The watchdog was closed, or never opened, because HA was off: it may be opened over running guests.
    reopening: bool,
}

impl Lease {
    pub fn new(config: &Config) -> Self {
        let inherited = config.inherited;
        Self {
            inherited: inherited.and_then(|record| record.basis),
            fed_basis: inherited.and_then(|record| record.basis),
            last_feed_ended: inherited.and_then(|record| record.last_feed_ended),
            ..Self::default()
        }
    }

    /// The begin of the youngest evidence.
    pub fn basis(&self) -> Option<Instant> {
        self.network.max(self.storage).max(self.inherited)
    }

    /// The lease ends here, if there is one at all.
    pub fn expires(&self, config: &Config) -> Option<Instant> {
        self.basis().filter(|_| self.evicted.is_none()).map(|basis| basis + config.timing.lease)
    }

    /// By then no HA VM is left, or the node is reset. Eviction does not move it: evidence only ends.
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        self.basis().map(|basis| basis + config.timing.lease + config.timing.stop)
    }

    /// HA VMs that run may go on.
    pub fn is_good(&self, config: &Config, now: Instant) -> bool {
        self.expires(config).is_some_and(|end| now < end)
    }

    /// What is left of it.
    pub fn left(&self, config: &Config, now: Instant) -> Option<Millis> {
        self.expires(config).filter(|end| now < *end).map(|end| end.since(now))
    }

    pub fn admission(&self) -> Option<Stamp> {
        self.admission
    }

    pub fn evicted(&self) -> Option<(Stamp, Instant)> {
        self.evicted
    }

    pub fn network_age(&self, now: Instant) -> Option<Millis> {
        self.network.map(|basis| now.since(basis))
    }

    pub fn storage_age(&self, now: Instant) -> Option<Millis> {
        self.storage.map(|basis| now.since(basis))
    }

    /// A committed body admits this boot. `start` is the cycle that proved it: the first lease of an admission.
    pub fn on_admitted(&mut self, since: Stamp, start: Option<Instant>) -> bool {
        let outdated = self.evicted.is_some_and(|(eviction, _)| eviction >= since);
        if outdated || self.admission == Some(since) {
            return false;
        }
        self.admission = Some(since);
        self.evicted = None;
        self.storage = self.storage.max(start);
        true
    }

    /// This node learnt of its own committed eviction: it counts no further evidence.
    pub fn on_evicted(&mut self, eviction: Stamp, now: Instant) -> bool {
        let known = self.evicted.is_some_and(|(stamp, _)| stamp >= eviction);
        let older = self.admission.is_some_and(|admission| admission > eviction);
        if known || older || mutant!(OwnEvictionIgnored) {
            return false;
        }
        self.evicted = Some((eviction, now));
        self.admission = None;
        true
    }

    /// A majority has echoed the beat sent at `basis`.
    pub fn on_network_evidence(&mut self, basis: Option<Instant>) {
        if self.admission.is_some() && self.evicted.is_none() {
            self.network = self.network.max(basis);
        }
    }

    /// A complete cycle began at `start`, and its newest body holds the same admission.
    pub fn on_storage_evidence(&mut self, start: Instant) {
        if self.admission.is_some() && self.evicted.is_none() {
            self.storage = self.storage.max(Some(start));
        }
    }

    /// The watchdog was opened and fed in this boot, and nothing says that it does not count: since nobody ever closes it, either
    /// it is fed by the rule or the node goes. This is what rule 4 rests on.
    pub fn was_armed(&self) -> bool {
        self.last_feed_ended.is_some() && self.watchdog_trouble.is_none()
    }

    /// The watchdog is open and was fed in time.
    pub fn is_armed(&self, config: &Config, now: Instant) -> bool {
        self.last_feed_ended.is_some_and(|end| now.since(end) < config.timing.watchdog)
            && self.watchdog_trouble.is_none()
    }

    /// The last feed as the feed rule counts it: of a device that is opened anew after HA was off, now.
    pub fn counted_feed(&self, now: Instant) -> Option<Instant> {
        self.last_feed_ended.or(self.reopening.then_some(now))
    }

    pub fn on_fed(&mut self, ended: Instant) {
        self.feed_asked = None;
        self.watchdog_trouble = None;
        self.reopening = false;
        self.fed_basis = self.asked_basis;
        self.last_feed_ended = self.last_feed_ended.max(Some(ended));
    }

    pub fn on_watchdog_failed(&mut self, reason: String) {
        self.watchdog_trouble = Some(reason);
    }

    /// The watchdog was neither fed by this incarnation nor by an earlier one of this boot whose record is left.
    pub fn is_unused(&self) -> bool {
        self.last_feed_ended.is_none() && self.inherited.is_none()
    }

    /// HA is off: when it is on again, the watchdog is opened over guests that run.
    pub fn may_reopen(&mut self) {
        self.reopening = true;
    }

    /// The watchdog was closed, its record removed.
    pub fn on_closed(&mut self) {
        (self.last_feed_ended, self.fed_basis, self.feed_asked) = (None, None, None);
        self.inherited = None;
        self.reopening = true;
    }

    /// `end of last feed + 2 W <= basis + L + S`: twice, because the agent can pause between this check and the feed, and
    /// again after it.
    fn feed_is_safe(&self, config: &Config, now: Instant) -> bool {
        // Opened anew after HA was off: no page shows this arming before the feed has ended, so nobody counts on it yet.
        let last = self.counted_feed(now);
        let (Some(last), Some(deadline)) = (last, self.deadline(config)) else { return false };
        let times = if mutant!(FeedWithoutSecondW) { 1 } else { 2 };
        let watchdog =
            if mutant!(WatchdogTooLong) { config.timing.beat } else { config.timing.watchdog };
        last + watchdog * times <= deadline || mutant!(FedByWhoeverRuns) || self.opens()
    }

    /// This incarnation has not asked for a feed yet.
    fn opens(&self) -> bool {
        mutant!(OpeningIsNoFeed) && self.asked_basis.is_none()
    }

    /// The record on tmpfs, which the next incarnation inherits, is of this lease and not of one that is long over.
    fn is_recorded(&self, config: &Config) -> bool {
        let half = Millis(config.timing.lease.0 / 2);
        self.basis().is_none_or(|basis| self.fed_basis.is_some_and(|fed| basis <= fed + half))
    }

    /// Feeds once a beat, if the rule allows or none is left (`idle`).
    pub fn feed(&mut self, config: &Config, idle: bool, out: &mut Outbox) {
        let beat = config.timing.beat;
        let asked = self.feed_asked.is_some_and(|at| out.now.since(at) < beat * 2);
        let recorded = self.is_recorded(config);
        // Woken once a beat, a feed that ended a little after the last wake must not wait for the one after the next: W may
        // be as short as two beats.
        let young = Millis(beat.0 * 3 / 4);
        let fresh = recorded && self.last_feed_ended.is_some_and(|end| out.now.since(end) < young);
        if self.resetting || asked || fresh || !(idle || self.feed_is_safe(config, out.now)) {
            return;
        }
        let last = self.last_feed_ended.unwrap_or(out.now);
        let not_after = last.max(out.now) + Millis(config.timing.watchdog.0 / 2);
        self.feed_asked = Some(out.now);
        self.asked_basis = self.basis();
        let (basis, last) = (self.basis(), self.last_feed_ended);
        let basis = if mutant!(FeedRecordsNow) { basis.and(Some(out.now)) } else { basis };
        out.push(Action::FeedWatchdog { basis, last, not_after });
    }

    /// A start may be handed to libvirt until then; `None`: it may not, and why.
    pub fn may_start(&self, config: &Config, now: Instant) -> Result<Instant, String> {
        if self.admission.is_none() {
            return Err("this node is not admitted (no proof read yet, or evicted)".into());
        }
        let margin = config.timing.start_margin;
        let end = self.expires(config).unwrap_or_default();
        if now + margin > end {
            return Err(alloc::format!(
                "lease is good for {}, a start needs {margin}",
                end.since(now)
            ));
        }
        if !self.is_recorded(config) {
            return Err("the watchdog was not fed for this lease yet".into());
        }
        if !self.is_armed(config, now) || !self.feed_is_safe(config, now) {
            return Err("the watchdog is not open or was not fed in time".into());
        }
        Ok(end - margin)
    }

    /// This node's reset was ordered.
    pub fn is_resetting(&self) -> bool {
        self.resetting
    }

    /// Nothing else helped: the node must go.
    pub fn reset(&mut self, reason: String, out: &mut Outbox) -> bool {
        let first = !self.resetting;
        self.resetting = true;
        if first {
            out.push(Action::ResetNode { reason });
        }
        first
    }
}

#[cfg(test)]
#[path = "tests/lease.rs"]
mod tests;
