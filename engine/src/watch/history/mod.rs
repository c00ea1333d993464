//! What happened: decisions, incidents, and how long what was away, in an SQLite file.
//!
//! One thread writes; requests read over a connection of their own (WAL). What is written at once is committed together, so that a
//! process that is killed loses nothing that was committed, and agents tell the rest again.

mod absence;
mod keeper;
mod read;
mod schema;
#[cfg(test)]
mod tests;

use super::incidents::Incident;
use super::seen::Seen;
use crate::api::wire::DecisionReport;
use crate::watch::config::Retention;
use anyhow::{Context, Result};
use rusqlite::Connection;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

pub(super) use read::{Availability, EventsWanted, IncidentsWanted, incident};
pub(super) use schema::open;

/// The way to the history.
#[derive(Debug)]
pub(super) struct History {
    queue: Sender<Job>,
    reads: Mutex<Connection>,
}

/// Is told of incidents that changed, by cluster.
pub(super) type Tell = Box<dyn Fn(&str, &Incident) + Send>;
type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// What the thread does.
enum Job {
    Decided(String, Box<DecisionReport>),
    Seen(String, Seen),
    Blind(String),
    Do(Work),
}

impl History {
    /// Opens or makes the file at `path` and starts the thread. It ends when this is dropped.
    pub(super) fn start(
        path: &Path,
        clusters: &[String],
        retention: Retention,
        tell: Tell,
    ) -> Result<Self> {
        let store = open(path)?;
        let reads = Mutex::new(open(path)?);
        let (queue, jobs) = channel();
        let mut keeper = keeper::Keeper::new(store, clusters, retention, tell)
            .with_context(|| format!("the history in {} cannot be read", path.display()))?;
        let thread = std::thread::Builder::new().name("history".into());
        thread.spawn(move || keeper.work(&jobs))?;
        Ok(Self { queue, reads })
    }

    /// A decision.
    pub(super) fn decided(&self, cluster: &str, report: &DecisionReport) {
        self.put(Job::Decided(cluster.into(), Box::new(report.without_question())));
    }

    /// What was seen.
    pub(super) fn seen(&self, cluster: &str, seen: Seen) {
        self.put(Job::Seen(cluster.into(), seen));
    }

    /// Nobody sees the cluster any more.
    pub(super) fn blind(&self, cluster: &str) {
        self.put(Job::Blind(cluster.into()));
    }

    /// Anything else that is to be written, in the order of these calls.
    pub(super) fn write(&self, work: impl FnOnce(&mut Connection) + Send + 'static) {
        self.put(Job::Do(Box::new(work)));
    }

    /// Reads. Blocks: for threads that may.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> T) -> T {
        read(&self.reads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, job: Job) {
        if self.queue.send(job).is_err() {
            tracing::error!("the history's thread has ended: nothing is kept any more; restart");
        }
    }
}
