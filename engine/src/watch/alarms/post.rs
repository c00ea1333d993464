//! Messages on their way: each receiver has a queue of its own, and what it does not take is told again.

use super::desk::Changes;
use super::send::{Message, What, send};
use super::{Alarm, Alarms};
use crate::clock::Clock;
use crate::watch::backoff::Backoff;
use crate::watch::config::Receiver;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Messages that may wait for one receiver.
const QUEUE: usize = 1_000;
/// Longest pause before a receiver is asked again.
const PAUSE: Duration = Duration::from_secs(60);
/// Who takes nothing for so long is not told this any more.
const GIVE_UP_MS: u64 = 86_400_000;

/// The queues.
#[derive(Debug)]
pub(super) struct Post {
    boxes: Vec<PostBox>,
}

#[derive(Debug)]
struct PostBox {
    receiver: Arc<Receiver>,
    queue: mpsc::Sender<Message>,
    /// When it was last reminded of an alarm, or told of it.
    reminded: Mutex<BTreeMap<i64, u64>>,
    task: AbortHandle,
}

impl Drop for PostBox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Post {
    pub(super) fn start(receivers: &[Receiver], alarms: &Weak<Alarms>) -> Self {
        let open = |receiver: &Receiver| {
            let receiver = Arc::new(receiver.clone());
            let (queue, messages) = mpsc::channel(QUEUE);
            let deliver = deliver(Arc::clone(&receiver), messages, alarms.clone());
            let task = tokio::spawn(deliver).abort_handle();
            PostBox { receiver, queue, reminded: Mutex::default(), task }
        };
        Self { boxes: receivers.iter().map(open).collect() }
    }

    /// Everybody who wants to know.
    pub(super) fn tell(&self, changes: &Changes) {
        for one in &self.boxes {
            one.put(What::Raised, &changes.raised);
            one.put(What::Resolved, &changes.resolved);
        }
    }

    /// What a receiver was not told before this service ended.
    pub(super) fn tell_missed(&self, all: &[Alarm]) {
        let now = Clock.wall_ms();
        for one in &self.boxes {
            let told =
                |alarm: &Alarm| alarm.told.get(&one.receiver.name).cloned().unwrap_or_default();
            let raised = |alarm: &&Alarm| alarm.is_open() && told(alarm).raised_wall_ms.is_none();
            let over = |alarm: &&Alarm| {
                let told = told(alarm);
                let knows = told.raised_wall_ms.is_some() && told.resolved_wall_ms.is_none();
                let at = alarm.resolved_wall_ms;
                knows && at.is_some_and(|at| now.saturating_sub(at) < GIVE_UP_MS)
            };
            one.put(What::Raised, &all.iter().filter(raised).cloned().collect::<Vec<_>>());
            one.put(What::Resolved, &all.iter().filter(over).cloned().collect::<Vec<_>>());
        }
    }

    /// Whoever wants to be told again while nobody takes care.
    pub(super) fn remind(&self, all: &[Alarm], now: u64) {
        for one in &self.boxes {
            let Some(repeat) = one.receiver.repeat else { continue };
            let repeat = u64::try_from(repeat.as_millis()).unwrap_or(u64::MAX);
            let mut reminded = one.reminded.lock().unwrap_or_else(PoisonError::into_inner);
            reminded.retain(|id, _| all.iter().any(|alarm| alarm.id == *id && alarm.is_open()));
            let mut due = Vec::new();
            for alarm in all.iter().filter(|alarm| alarm.is_open()) {
                let told = alarm.told.get(&one.receiver.name).and_then(|told| told.raised_wall_ms);
                let Some(told) = told else { continue };
                let last = reminded.get(&alarm.id).copied().unwrap_or(told);
                if now.saturating_sub(last) >= repeat {
                    reminded.insert(alarm.id, now);
                    due.push(alarm.clone());
                }
            }
            drop(reminded);
            one.put(What::Reminder, &due);
        }
    }
}

impl PostBox {
    /// One message a cluster, however many alarms came together.
    fn put(&self, kind: What, alarms: &[Alarm]) {
        let mut by_cluster: BTreeMap<&str, Vec<Alarm>> = BTreeMap::new();
        for alarm in alarms.iter().filter(|alarm| self.wants(alarm)) {
            by_cluster.entry(&alarm.cluster).or_default().push(alarm.clone());
        }
        for (cluster, alarms) in by_cluster {
            if self.queue.try_send(Message::new(kind, cluster, alarms)).is_err() {
                tracing::error!(receiver = self.receiver.name, "too many alarms wait; one is lost");
            }
        }
    }

    fn wants(&self, alarm: &Alarm) -> bool {
        let is_among = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        is_among(&self.receiver.rules, &alarm.rule)
            && is_among(&self.receiver.clusters, &alarm.cluster)
    }
}

/// In order: what comes later waits.
async fn deliver(
    receiver: Arc<Receiver>,
    mut messages: mpsc::Receiver<Message>,
    alarms: Weak<Alarms>,
) {
    while let Some(message) = messages.recv().await {
        let mut backoff = Backoff::new(PAUSE);
        loop {
            let sent = send(&receiver, &message).await;
            note(&alarms, &receiver.name, &message, sent.as_ref().err());
            let Err(error) = sent else { break };
            let name = &receiver.name;
            if Clock.wall_ms().saturating_sub(message.sent_wall_ms) > GIVE_UP_MS {
                tracing::error!(receiver = name, text = message.text, "not told: {error:#}");
                break;
            }
            tracing::warn!(receiver = name, text = message.text, "not told yet: {error:#}");
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

fn note(alarms: &Weak<Alarms>, receiver: &str, message: &Message, error: Option<&anyhow::Error>) {
    let Some(alarms) = alarms.upgrade() else { return };
    let ids: Vec<i64> = message.alarms.iter().map(|alarm| alarm.id).collect();
    let now = Clock.wall_ms();
    let trouble = error.map(|error| format!("{error:#}"));
    alarms.note_told(&ids, receiver, |told| {
        told.trouble.clone_from(&trouble);
        match message.kind {
            _ if trouble.is_some() => {}
            What::Resolved => told.resolved_wall_ms = Some(now),
            _ => told.raised_wall_ms = Some(now),
        }
    });
}
