//! Operators' requests that wait for the machine's answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use steadfast_core::ids::Stamp;
use steadfast_core::message::Reply;
use tokio::sync::{Notify, oneshot};

/// The stamp that holds the change, or why it was refused.
pub type Outcome = Result<Stamp, String>;

/// Requests by id.
#[derive(Debug, Default)]
pub struct Requests {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Outcome>>>,
    host: Notify,
}

impl Requests {
    /// A new request: its id, and where its answer comes.
    #[must_use]
    pub fn begin(&self) -> (u64, oneshot::Receiver<Outcome>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (tell, told) = oneshot::channel();
        self.lock().insert(id, tell);
        (id, told)
    }

    /// Waits until the machine lets the host go down.
    pub async fn host_let_go(&self) {
        self.host.notified().await;
    }

    /// No HA guest is left that the host must wait for.
    pub(super) fn let_host_go(&self) {
        self.host.notify_one();
    }

    /// Nobody waits for `id` any more.
    pub fn forget(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Hands over an answer; one that came too late is for nobody.
    pub(super) fn answer(&self, reply: &Reply) {
        if let Some(tell) = self.lock().remove(&reply.id) {
            let _ = tell.send(reply.result.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
