//! What waits for the lease path: events, and wishes to look at the machine.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::snapshot::Snapshot;

/// One thing to do on the lease path.
pub enum Input {
    /// It happened.
    Event(Event),
    /// Somebody wants to see the state; must not block.
    Show(Box<dyn FnOnce(Snapshot) + Send>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            Self::Show(_) => f.write_str("Show"),
        }
    }
}

/// The queue in front of the machine.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    open: bool,
    inputs: VecDeque<Input>,
}

impl Inbox {
    /// Queues `event`. Before the machine exists messages are dropped: nobody would ever read them in time.
    pub fn push(&self, event: Event) {
        let mut queue = self.lock();
        if queue.open || !matches!(event, Event::MessageReceived { .. }) {
            queue.inputs.push_back(Input::Event(event));
            self.ready.notify_one();
        }
    }

    /// Asks for a snapshot; `tell` runs on the lease path and must only hand it over.
    pub fn show(&self, tell: impl FnOnce(Snapshot) + Send + 'static) {
        self.lock().inputs.push_back(Input::Show(Box::new(tell)));
        self.ready.notify_one();
    }

    /// A snapshot, or `None` if the lease path does not answer within `patience`.
    #[must_use]
    pub fn snapshot(&self, patience: Duration) -> Option<Snapshot> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.show(move |snapshot| drop(tell.try_send(snapshot)));
        told.recv_timeout(patience).ok()
    }

    /// From now on everything is kept.
    pub(super) fn open(&self) {
        self.lock().open = true;
    }

    /// The oldest input, or `None` after `patience`.
    pub(super) fn pop(&self, patience: Duration) -> Option<Input> {
        let empty = |queue: &mut Queue| queue.inputs.is_empty();
        let waited = self.ready.wait_timeout_while(self.lock(), patience, empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.inputs.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Event {
        Event::CorosyncLost { reason: String::new() }
    }

    #[test]
    fn inputs_come_in_order_and_waiting_ends() {
        let inbox = Inbox::default();
        inbox.push(lost());
        inbox.push(Event::Woke);
        let next = || inbox.pop(Duration::from_millis(1));
        assert!(matches!(next(), Some(Input::Event(Event::CorosyncLost { .. }))));
        assert!(matches!(next(), Some(Input::Event(Event::Woke))));
        assert!(next().is_none());
    }
}
