//! What a demonstration puts between a node and its storage: it can hold everything up, as an array that does not answer,
//! and end it, as a node without power.

use anyhow::{Result, ensure};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A way to storage. Clones are the same way; a real node's is always open.
#[derive(Debug, Clone, Default)]
pub struct Gate(Option<Arc<Way>>);

#[derive(Debug)]
struct Way {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Stalled,
    /// For ever.
    Gone,
}

impl Gate {
    /// A gate that can be shut.
    #[must_use]
    pub fn new(stalled: bool) -> Self {
        let state = Mutex::new(if stalled { State::Stalled } else { State::Open });
        Self(Some(Arc::new(Way { state, changed: Condvar::new() })))
    }

    /// Nothing passes until it is opened again.
    pub fn stall(&self) {
        self.set(State::Stalled);
    }

    /// Everything passes.
    pub fn open(&self) {
        self.set(State::Open);
    }

    /// The node lost its power: nothing passes, and nobody waits any more.
    pub fn end(&self) {
        self.set(State::Gone);
    }

    fn set(&self, wanted: State) {
        let Some(way) = &self.0 else { return };
        let mut state = way.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::Gone {
            *state = wanted;
        }
        way.changed.notify_all();
    }

    /// Blocks while it is stalled; false if the node has no power any more.
    #[must_use]
    pub fn pass(&self) -> bool {
        let Some(way) = &self.0 else { return true };
        let state = way.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = way.changed.wait_while(state, |state| *state == State::Stalled);
        *waited.unwrap_or_else(PoisonError::into_inner) == State::Open
    }

    /// The same, for those who can fail.
    pub(super) fn through(&self) -> Result<()> {
        ensure!(self.pass(), "this node has lost its power");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_stalled_gate_holds_everybody_until_it_opens_and_a_dead_one_nobody() {
        let gate = Gate::new(true);
        let (tell, told) = mpsc::channel();
        let pass = |gate: Gate| {
            let tell = tell.clone();
            std::thread::spawn(move || tell.send(gate.pass()).unwrap());
        };
        pass(gate.clone());
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "it is stalled");
        gate.open();
        assert_eq!(told.recv(), Ok(true));
        gate.stall();
        pass(gate.clone());
        gate.end();
        assert_eq!(told.recv(), Ok(false));
        gate.open();
        assert!(!gate.pass() && gate.through().is_err(), "there is no way back");
        assert!(Gate::default().pass(), "a real node's is always open");
    }
}
