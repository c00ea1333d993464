//! What is told to whoever looks on at one cluster: the state, and each change as it comes.

use crate::patch::{diff, merge};
use serde_json::{Map, Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Events that a slow client may be behind; after that it gets the whole state again.
const BEHIND: usize = 256;
/// The part of the state that is this service's own word.
const OWN: &str = "watch";

/// One event, as it goes on the wire. Rendered once for all clients.
pub(super) type Event = std::sync::Arc<str>;

/// The state and those who look on.
#[derive(Debug)]
pub(super) struct Board {
    told: Mutex<Told>,
    clients: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Told {
    state: Map<String, Value>,
    number: u64,
    /// The event that tells all of it, as long as nothing is new.
    whole: Option<Event>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { told: Mutex::default(), clients: broadcast::channel(BEHIND).0 }
    }

    /// The whole state as an event, and what comes after it.
    pub(super) fn join(&self) -> (Event, broadcast::Receiver<Event>) {
        let mut told = self.told();
        let Told { state, number, whole } = &mut *told;
        let rendered = whole.get_or_insert_with(|| {
            event(*number, "state", &serde_json::to_string(state).unwrap_or_default())
        });
        (rendered.clone(), self.clients.subscribe())
    }

    /// Looks at the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Map<String, Value>) -> T) -> T {
        look(&self.told().state)
    }

    /// An agent's whole state: of what was told before, only the differences are told.
    pub(super) fn replace(&self, state: Value) {
        let Value::Object(mut new) = state else { return };
        let mut told = self.told();
        let own = told.state.get(OWN).cloned();
        new.extend(own.map(|own| (OWN.to_string(), own)));
        let (old, new) = (Value::Object(std::mem::take(&mut told.state)), Value::Object(new));
        let patch = diff(&old, &new, true);
        if let Value::Object(new) = new {
            told.state = new;
        }
        self.tell(&mut told, "patch", patch.as_ref().map(Value::to_string));
    }

    /// An agent's patch, which goes on as it is.
    pub(super) fn patch(&self, text: String, patch: Value) {
        let mut told = self.told();
        let mut state = Value::Object(std::mem::take(&mut told.state));
        merge(&mut state, &patch);
        if let Value::Object(state) = state {
            told.state = state;
        }
        self.tell(&mut told, "patch", Some(text));
    }

    /// This service's own word.
    pub(super) fn set_own(&self, own: &Value) {
        let mut told = self.told();
        let before = told.state.get(OWN).cloned().unwrap_or(Value::Null);
        let Some(patch) = diff(&before, own, true) else { return };
        told.state.insert(OWN.into(), own.clone());
        self.tell(&mut told, "patch", Some(json!({ OWN: patch }).to_string()));
    }

    /// Anything else that happened.
    pub(super) fn happened(&self, kind: &str, data: String) {
        let mut told = self.told();
        let whole = told.whole.take();
        self.tell(&mut told, kind, Some(data));
        // The state is the same; a client that joins now need not know the event's number.
        told.whole = whole;
    }

    fn tell(&self, told: &mut Told, kind: &str, data: Option<String>) {
        let Some(data) = data else { return };
        told.number += 1;
        told.whole = None;
        // Nobody looking on is not an error.
        let _ = self.clients.send(event(told.number, kind, &data));
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(number: u64, kind: &str, data: &str) -> Event {
    // A line break within data would end it; JSON has none of its own.
    let data = data.replace('\n', " ");
    format!("id: {number}\nevent: {kind}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(event: &Event) -> (String, Value) {
        let mut lines = event.lines().skip(1);
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
        let kind = field("event: ").expect("kind").to_string();
        let data = field("data: ").expect("data");
        (kind, serde_json::from_str(data).expect("JSON"))
    }

    #[test]
    fn a_client_that_follows_knows_what_one_that_joins_knows() {
        let board = Board::new();
        let (first, mut events) = board.join();
        let (_, mut known) = data(&first);
        board.set_own(&json!({"connected": true, "via": "n1"}));
        board.replace(json!({"term": 1, "vms": {"a": {"state": "running"}, "b": {}}}));
        board.patch("{\"term\":2}".into(), json!({"term": 2}));
        board.happened("decision", "{\"text\":1}".into());
        // Another agent's whole state: only what differs is told.
        board.replace(json!({"term": 2, "vms": {"a": {"state": "orphan"}}}));
        board.set_own(&json!({"connected": true, "via": "n2"}));
        let mut kinds = Vec::new();
        while let Ok(event) = events.try_recv() {
            let (kind, data) = data(&event);
            if kinds.len() == 4 {
                assert_eq!(data, json!({"vms": {"a": {"state": "orphan"}, "b": null}}));
            }
            if kind == "patch" {
                merge(&mut known, &data);
            }
            kinds.push(kind);
        }
        assert_eq!(kinds, ["patch", "patch", "patch", "decision", "patch", "patch"]);
        assert_eq!(known, data(&board.join().0).1);
        assert_eq!(known["watch"]["via"], "n2");
    }
}
