//! What waits for the lease path: events, and wishes to look at the machine.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_core::snapshot::Snapshot;
use steadfast_sdk::wire::PlacementQuestion;

/// One thing to do on the lease path.
pub enum Input {
    /// It happened.
    Event(Event),
    /// Somebody wants to see the state; must not block.
    Show(Box<dyn FnOnce(Snapshot) + Send>),
    /// Somebody wants to know where the VMs of a node would go if it died now; must not block.
    WhatIf(NodeId, Box<dyn FnOnce(Option<PlacementQuestion>) + Send>),
    /// The node lost its power: nothing more is to be done.
    PowerCut,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            Self::Show(_) => f.write_str("Show"),
            Self::WhatIf(node, _) => write!(f, "WhatIf({node})"),
            Self::PowerCut => f.write_str("PowerCut"),
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
    /// Nobody will ever read it again.
    ended: bool,
    inputs: VecDeque<Input>,
}

impl Inbox {
    /// Queues `event`. Before the machine exists messages are dropped: nobody would ever read them in time.
    pub fn push(&self, event: Event) {
        let mut queue = self.lock();
        let wanted = queue.open || !matches!(event, Event::MessageReceived { .. });
        if wanted && !queue.ended {
            queue.inputs.push_back(Input::Event(event));
            self.ready.notify_one();
        }
    }

    /// Asks for a snapshot; `tell` runs on the lease path and must only hand it over.
    pub fn show(&self, tell: impl FnOnce(Snapshot) + Send + 'static) {
        let mut queue = self.lock();
        if !queue.ended {
            queue.inputs.push_back(Input::Show(Box::new(tell)));
            self.ready.notify_one();
        }
    }

    /// Asks what would be asked if `node` died now; `tell` runs on the lease path and must only hand it over.
    pub fn ask_what_if(
        &self,
        node: NodeId,
        tell: impl FnOnce(Option<PlacementQuestion>) + Send + 'static,
    ) {
        self.lock().inputs.push_back(Input::WhatIf(node, Box::new(tell)));
        self.ready.notify_one();
    }

    /// A snapshot, or `None` if the lease path does not answer within `patience`.
    #[must_use]
    pub fn snapshot(&self, patience: Duration) -> Option<Snapshot> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.show(move |snapshot| drop(tell.try_send(snapshot)));
        told.recv_timeout(patience).ok()
    }

    /// The node of a demonstration loses its power, in the middle of whatever it does.
    pub(crate) fn cut_power(&self) {
        let mut queue = self.lock();
        (queue.ended, queue.inputs) = (true, VecDeque::from([Input::PowerCut]));
        self.ready.notify_one();
    }

    /// The power was cut.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
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

    #[test]
    fn without_power_nothing_waits_and_nothing_comes() {
        let inbox = Inbox::default();
        inbox.push(lost());
        inbox.cut_power();
        inbox.push(lost());
        assert!(inbox.snapshot(Duration::from_secs(9)).is_none(), "and nobody waits for it");
        assert!(matches!(inbox.pop(Duration::ZERO), Some(Input::PowerCut)));
        assert!(inbox.pop(Duration::ZERO).is_none());
    }
}
