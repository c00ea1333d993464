//! The watchdog: the one thing that works when nothing on the node does; and the agent's thread that feeds it, as
//! `engine/src/watchdog.rs` does it: one request at a time, a newer one replaces a waiting one, each is checked
//! immediately before everything that feeds.

use super::clock::{MS, Time};
use super::node::boot_id;
use super::plan::Plant;
use super::queue::What;
use super::world::World;
use steadfast_core::event::Event;
use steadfast_core::time::Instant;

/// A device that is opened for the first time has its driver's time-out until ours is set.
const DRIVERS_TIMEOUT: u64 = 60_000;

/// An open watchdog.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    /// True time of the last feed.
    pub fed: Time,
    /// The same in own time.
    ended: Instant,
    /// Time-out in milliseconds.
    timeout: u64,
    /// When it is looked at next.
    due: Time,
}

/// What tmpfs says of feeds.
#[derive(Debug, Clone, Copy)]
pub struct FeedRecord {
    /// Basis of the last feed.
    pub basis: Option<Instant>,
    /// When it had ended; `None` while nobody has written that down.
    pub ended: Option<Instant>,
}

/// What the machine asks for.
#[derive(Debug, Clone, Copy)]
pub struct Feed {
    /// Lease's basis.
    pub basis: Option<Instant>,
    /// End of the newest feed that this decision knew.
    pub last: Option<Instant>,
    /// Must not begin after this.
    pub not_after: Instant,
}

/// The agent's thread that owns the device.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Waits for the thread.
    next: Option<Feed>,
    busy: bool,
    /// The descriptor is open in this process.
    open: bool,
    /// End of this incarnation's last feed.
    ended: Option<Instant>,
}

impl Keeper {
    /// The thread of a new incarnation, which may get the open descriptor from systemd's store.
    #[must_use]
    pub fn new(open: bool) -> Self {
        Self { open, ..Self::default() }
    }
}

/// A feed on its way through the adapter. The agent may be stopped between any two stages.
#[derive(Debug, Clone, Copy)]
pub struct FeedRun {
    /// Node.
    pub node: usize,
    /// Agent.
    pub epoch: u64,
    /// The request.
    pub feed: Feed,
    /// How far it is.
    pub stage: FeedStage,
}

/// Stages of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStage {
    /// Compare with the clock and the last feed, write the record.
    Check,
    /// Open the device, which feeds it.
    Open,
    /// Compare again.
    CheckAgain,
    /// Set the time-out, or ping: both feed it.
    Write,
    /// Read the clock again, and tell.
    Tell,
}

impl World {
    /// Asks the thread for a feed.
    pub fn feed(&mut self, node: usize, epoch: u64, feed: Feed) {
        if self.script.watchdog_broken >> node & 1 == 1 {
            let reason = "cannot open /dev/watchdog: Device or resource busy (os error 16)".into();
            return self.answer(node, epoch, MS, Event::WatchdogFailed { reason });
        }
        let Some(agent) = self.agent(node, epoch) else { return };
        if agent.keeper.busy {
            agent.keeper.next = Some(feed);
            return;
        }
        agent.keeper.busy = true;
        let run = FeedRun { node, epoch, feed, stage: FeedStage::Check };
        let at = self.now + self.rng.range(5, 300);
        self.queue.push(at, What::Feed(run));
    }

    /// The next stage of a feed. Mostly they follow each other at once.
    pub fn feed_on(&mut self, mut run: FeedRun) {
        while let Some(next) = self.feed_stage(&run) {
            run.stage = next;
            let apart = self.rng.chance(50) || self.aims_at(super::aims::Trigger::Feed);
            if apart {
                self.aim(super::aims::Trigger::Feed, run.node);
                let at = self.now + self.rng.skewed(5, 20_000);
                return self.queue.push(at, What::Feed(run));
            }
        }
    }

    /// Does one stage; the next one, if there is one.
    fn feed_stage(&mut self, run: &FeedRun) -> Option<FeedStage> {
        let (n, own) = (run.node, self.own(run.node));
        let feed = run.feed;
        let keeper = &self.agent(n, run.epoch)?.keeper;
        let (open, spent) = (keeper.open, keeper.ended > feed.last || own > feed.not_after);
        match run.stage {
            FeedStage::Check | FeedStage::CheckAgain if spent => {
                self.note(n, || format!("feed refused: {own:?} for {feed:?}"));
                self.cover("feeds", "refused");
                self.feed_over(n, run.epoch, Event::Woke);
                None
            }
            FeedStage::Check => {
                let boot = self.nodes[n].boot.as_mut()?;
                boot.fed = Some(FeedRecord { basis: feed.basis, ended: None });
                Some(if open { FeedStage::Write } else { FeedStage::Open })
            }
            FeedStage::Open => {
                let was_ours = self.nodes[n].boot.as_ref()?.watchdog.map(|open| open.timeout);
                let timeout = was_ours.unwrap_or(DRIVERS_TIMEOUT);
                self.feed_now(n, feed.basis, timeout);
                self.agent(n, run.epoch)?.keeper.open = true;
                let ready = timeout == self.plan.timing.watchdog.0;
                Some(if ready { FeedStage::Tell } else { FeedStage::CheckAgain })
            }
            FeedStage::CheckAgain => Some(FeedStage::Write),
            FeedStage::Write => {
                self.feed_now(n, feed.basis, self.plan.timing.watchdog.0);
                Some(FeedStage::Tell)
            }
            FeedStage::Tell => {
                if let Some(record) = self.nodes[n].boot.as_mut()?.fed.as_mut() {
                    record.ended = Some(own);
                }
                self.agent(n, run.epoch)?.keeper.ended = Some(own);
                self.feed_over(n, run.epoch, Event::WatchdogFed { ended: own });
                None
            }
        }
    }

    /// The thread is free for what waits, and tells.
    fn feed_over(&mut self, n: usize, epoch: u64, event: Event) {
        if let Some(agent) = self.agent(n, epoch) {
            agent.keeper.busy = false;
            if let Some(next) = agent.keeper.next.take() {
                self.feed(n, epoch, next);
            }
        }
        let delay = self.rng.range(5, 200);
        self.answer(n, epoch, delay, event);
    }

    fn feed_now(&mut self, n: usize, basis: Option<Instant>, timeout: u64) {
        let (now, number) = (self.now, self.nodes[n].boots);
        self.check_feed(n, basis);
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        let ended = boot.clock.own(now);
        let due = now + boot.clock.span(timeout);
        let before = boot.watchdog.map(|open| open.due);
        let looked_at = before.filter(|before| *before <= due);
        let open = Watchdog { fed: now, ended, timeout, due: looked_at.unwrap_or(due) };
        boot.watchdog = Some(open);
        if before.is_none() {
            self.note(n, || "watchdog armed".into());
        }
        if looked_at.is_none() {
            self.queue.push(due, What::WatchdogDue { node: n, boot: number });
        }
    }

    /// The feed rule of PROTOCOL section 4: `last feed end + 2 W <= basis + L + S`, or nothing executes here that is under
    /// HA, and nothing is about to. Opening is a feed, and needs the latter.
    fn check_feed(&mut self, n: usize, basis: Option<Instant>) {
        if !self.is_busy(n) {
            return;
        }
        let Some(boot) = self.nodes[n].boot.as_ref() else { return };
        // Closed, or never opened, while HA was off: rule 4 counts on it only from a page that says so, which is written after this
        // feed has ended. However late it opens, it fires W later, and whoever heard of it waits longer.
        if boot.watchdog.is_none() && self.check.chain.was_disarmed() {
            return;
        }
        let agent = boot.agent.as_ref();
        let basis = basis.max(agent.and_then(|agent| agent.machine.basis()));
        let timing = &self.plan.timing;
        let deadline = basis.map(|basis| basis + timing.span());
        let last = boot.watchdog.map(|open| open.ended);
        let safe = last.zip(deadline).is_some_and(|(l, d)| l + timing.watchdog * 2 <= d);
        if !safe {
            let own = boot.clock.own(self.now);
            let text = format!("n{} feeds at {own:?}, last {last:?}, basis {basis:?}", n + 1);
            self.fail("feed_rule", text);
        }
    }

    /// Closes the watchdog, after feeds that are on their way.
    pub fn close_later(&mut self, node: usize, epoch: u64) {
        self.queue.push(self.now + 2 * MS, What::CloseWatchdog { node, epoch });
    }

    /// The watchdog is closed without firing; the record of its feeds goes with it.
    pub fn close_watchdog(&mut self, n: usize, epoch: u64) {
        let Some(agent) = self.agent(n, epoch) else { return };
        if agent.keeper.busy {
            return self.close_later(n, epoch);
        }
        agent.keeper = Keeper::default();
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            (boot.watchdog, boot.fed) = (None, None);
        }
        self.note(n, || "watchdog closed".into());
        self.tell(n, epoch, Event::WatchdogClosed);
    }

    /// Hardware stands still: a watchdog's time-out does too.
    pub fn freeze_watchdogs(&mut self, nodes: u64, length: Time) {
        for n in (0..self.nodes.len()).filter(|n| nodes >> n & 1 == 1) {
            if let Some(open) = self.nodes[n].boot.as_mut().and_then(|b| b.watchdog.as_mut()) {
                open.fed += length;
            }
        }
    }

    /// The watchdog has run out, or was fed since and is looked at again later.
    pub fn watchdog_due(&mut self, n: usize, number: u64) {
        if self.nodes[n].boots != number || self.plan.plant == Some(Plant::DeadWatchdog) {
            return;
        }
        let now = self.now;
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        let Some(open) = boot.watchdog.as_mut().filter(|open| open.due == now) else { return };
        let due = open.fed + boot.clock.span(open.timeout);
        if due <= now {
            return self.cut(n, "watchdog");
        }
        open.due = due;
        self.queue.push(due, What::WatchdogDue { node: n, boot: number });
    }

    /// sysrq: the power is as good as cut at once, or, rarely, hangs until the watchdog fires.
    pub fn reset(&mut self, n: usize) {
        if self.plan.plant == Some(Plant::DeadWatchdog) {
            return;
        }
        let armed = self.nodes[n].boot.as_ref().is_some_and(|boot| boot.watchdog.is_some());
        if armed && self.rng.chance(50) {
            self.note(n, || "sysrq hangs".into());
            self.cover("sysrq", "hangs");
            return;
        }
        let boot = self.nodes[n].boots;
        self.note(n, || format!("resets itself ({})", boot_id(n, boot)));
        let at = self.now + self.rng.range(0, 50) * MS;
        self.queue.push(at, What::Cut { node: n, boot, why: "reset" });
    }
}
