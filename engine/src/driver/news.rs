//! Tells whoever looks on that there is something new to see. While nobody does, nothing is computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use steadfast_core::action::Action;
use steadfast_core::machine::Machine;
use steadfast_core::step::Step;
use tokio::sync::Notify;

/// A bell between the lease path and those who look on.
#[derive(Debug, Default)]
pub struct News {
    watchers: AtomicUsize,
    bell: Notify,
    /// What the last snapshot took on the lease path, in microseconds.
    cost_us: AtomicU64,
}

/// Somebody looks on for as long as this lives.
#[derive(Debug)]
pub struct Watching(Arc<News>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl News {
    /// From now on the bell rings.
    pub fn watch(self: &Arc<Self>) -> Watching {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watching(Arc::clone(self))
    }

    /// Somebody looks on.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// There is something new. Never blocks.
    pub fn ring(&self) {
        if self.is_watched() {
            self.bell.notify_one();
        }
    }

    /// Waits for news; those that came since the last call count.
    pub async fn heard(&self) {
        self.bell.notified().await;
    }

    /// What the last snapshot took on the lease path.
    pub fn cost(&self) -> Duration {
        Duration::from_micros(self.cost_us.load(Ordering::Relaxed))
    }

    pub(super) fn set_cost(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.cost_us.store(micros, Ordering::Relaxed);
    }
}

/// The lease path's memory of what it told.
#[derive(Debug, Default)]
pub(super) struct Glimpse(u64);

impl Glimpse {
    /// Rings if `step` did something that people see.
    pub(super) fn look(&mut self, machine: &Machine, step: &Step, news: &News) {
        if !news.is_watched() {
            return;
        }
        let before = std::mem::replace(&mut self.0, machine.glance());
        if before != self.0 || step.actions.iter().any(is_seen) {
            news.ring();
        }
    }
}

/// Done to a VM or a node, or told. Everything else is messages and storage.
fn is_seen(action: &Action) -> bool {
    !matches!(
        action,
        Action::Send(_)
            | Action::WritePage { .. }
            | Action::WriteBody { .. }
            | Action::ReadPages { .. }
            | Action::ReadBody { .. }
            | Action::FeedWatchdog { .. }
            | Action::ScanGuests
            | Action::AskPriority { .. }
            | Action::AskPlacement { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bell_rings_only_for_those_who_look_on() {
        let news = Arc::new(News::default());
        let soon = Duration::from_millis(20);
        news.ring();
        let watching = news.watch();
        assert!(tokio::time::timeout(soon, news.heard()).await.is_err());
        news.ring();
        assert!(tokio::time::timeout(soon, news.heard()).await.is_ok());
        drop(watching);
        assert!(!news.is_watched());
    }
}
