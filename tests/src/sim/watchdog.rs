//! The watchdog: the one thing that works when nothing on the node does.

use super::clock::{MS, Time};
use super::node::boot_id;
use super::plan::Plant;
use super::queue::What;
use super::world::World;
use steadfast_core::event::Event;
use steadfast_core::time::Instant;

/// An open watchdog.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    /// True time of the last feed.
    pub fed: Time,
}

/// What tmpfs says of feeds.
#[derive(Debug, Clone, Copy)]
pub struct FeedRecord {
    /// Basis of the last feed.
    pub basis: Option<Instant>,
    /// When it had ended; `None` while nobody has written that down.
    pub ended: Option<Instant>,
}

/// A feed on its way through the adapter. The agent may be stopped between any two stages.
#[derive(Debug, Clone, Copy)]
pub struct FeedRun {
    /// Node.
    pub node: usize,
    /// Agent.
    pub epoch: u64,
    /// Lease's basis.
    pub basis: Option<Instant>,
    /// Must not begin after this.
    pub not_after: Instant,
    /// How far it is.
    pub stage: FeedStage,
}

/// Stages of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStage {
    /// Compare `not_after` with the clock, write the record.
    Check,
    /// Write to the descriptor.
    Write,
    /// Read the clock again, and tell.
    Tell,
}

impl World {
    /// Begins a feed.
    pub fn feed(&mut self, node: usize, epoch: u64, basis: Option<Instant>, not_after: Instant) {
        let run = FeedRun { node, epoch, basis, not_after, stage: FeedStage::Check };
        if self.script.watchdog_broken >> node & 1 == 1 {
            let reason = "cannot open /dev/watchdog: Device or resource busy (os error 16)".into();
            return self.answer(node, epoch, MS, Event::WatchdogFailed { reason });
        }
        let at = self.now + self.rng.range(5, 300);
        self.queue.push(at, What::Feed(run));
    }

    /// The next stage of a feed.
    pub fn feed_on(&mut self, mut run: FeedRun) {
        let (n, now, own) = (run.node, self.now, self.own(run.node));
        if self.agent(n, run.epoch).is_none() {
            return;
        }
        match run.stage {
            FeedStage::Check if own > run.not_after => {
                self.note(n, || {
                    format!("feed refused: {} after its limit", own.since(run.not_after))
                });
                return self.tell(n, run.epoch, Event::Woke);
            }
            FeedStage::Check => {
                if let Some(boot) = self.nodes[n].boot.as_mut() {
                    boot.fed = Some(FeedRecord { basis: run.basis, ended: None });
                }
                run.stage = FeedStage::Write;
            }
            FeedStage::Write => {
                self.feed_now(n);
                run.stage = FeedStage::Tell;
            }
            FeedStage::Tell => {
                if let Some(record) = self.nodes[n].boot.as_mut().and_then(|b| b.fed.as_mut()) {
                    record.ended = Some(own);
                }
                return self.tell(n, run.epoch, Event::WatchdogFed { ended: own });
            }
        }
        let at = now + self.rng.range(5, 200);
        self.queue.push(at, What::Feed(run));
    }

    fn feed_now(&mut self, n: usize) {
        let (now, watchdog) = (self.now, self.plan.timing.watchdog.0);
        let number = self.nodes[n].boots;
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        let armed = boot.watchdog.replace(Watchdog { fed: now }).is_some();
        let due = now + boot.clock.span(watchdog);
        if !armed {
            self.note(n, || "watchdog armed".into());
            self.queue.push(due, What::WatchdogDue { node: n, boot: number });
        }
    }

    /// Closes the watchdog, after feeds that are on their way.
    pub fn close_later(&mut self, node: usize, epoch: u64) {
        self.queue.push(self.now + 2 * MS, What::CloseWatchdog { node, epoch });
    }

    /// The watchdog is closed without firing; the record of its feeds goes with it.
    pub fn close_watchdog(&mut self, n: usize, epoch: u64) {
        if self.agent(n, epoch).is_none() {
            return;
        }
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
        let watchdog = self.plan.timing.watchdog.0;
        let Some(boot) = self.nodes[n].boot.as_ref() else { return };
        let Some(open) = boot.watchdog else { return };
        let due = open.fed + boot.clock.span(watchdog);
        if due <= self.now {
            self.cut(n, "watchdog");
        } else {
            self.queue.push(due, What::WatchdogDue { node: n, boot: number });
        }
    }

    /// sysrq: the power is as good as cut at once, or, rarely, hangs until the watchdog fires.
    pub fn reset(&mut self, n: usize) {
        if self.plan.plant == Some(Plant::DeadWatchdog) {
            return;
        }
        let armed = self.nodes[n].boot.as_ref().is_some_and(|boot| boot.watchdog.is_some());
        if armed && self.rng.chance(50) {
            self.note(n, || "sysrq hangs".into());
            return;
        }
        let boot = self.nodes[n].boots;
        self.note(n, || format!("resets itself ({})", boot_id(n, boot)));
        let at = self.now + self.rng.range(0, 50) * MS;
        self.queue.push(at, What::Cut { node: n, boot, why: "reset" });
    }
}
