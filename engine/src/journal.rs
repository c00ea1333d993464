//! Flight recorder: what happened, and what the machine made of it, as JSON lines in a bounded ring of files.
//!
//! The lease path only puts a copy into a bounded queue; if the writer is behind, entries are dropped and
//! counted. Lines are written unbuffered, so that the last ones survive a killed agent.

use crate::ring::{Ring, Shape};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use steadfast_core::event::Event;
use steadfast_core::step::Step;
use steadfast_core::time::Instant;

const SHAPE: Shape = Shape { name: "journal", files: 2, file_bytes: 4 << 20 };
/// Entries that may wait for the writer.
const QUEUE: usize = 256;

/// The queue to the writer.
#[derive(Debug)]
pub struct Journal {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Serialize)]
struct Entry {
    now: Instant,
    event: Event,
    step: Step,
}

#[derive(Debug, Serialize)]
struct Gap {
    dropped: u64,
}

impl Journal {
    /// Opens the ring in `directory` and starts its writer.
    ///
    /// # Errors
    /// The directory or its first file cannot be written.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let ring = Ring::open(directory, SHAPE)?;
        let (queue, entries) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let gaps = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_all(ring, &entries, &gaps))?;
        Ok(Self { queue, dropped })
    }

    /// Notes one step; never blocks.
    pub fn note(&self, now: Instant, event: Event, step: &Step) {
        if event == Event::Woke && step.actions.is_empty() {
            return;
        }
        let entry = Entry { now, event, step: step.clone() };
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(mut ring: Ring, entries: &Receiver<Entry>, gaps: &AtomicU64) {
    let mut told = false;
    while let Ok(entry) = entries.recv() {
        let dropped = gaps.swap(0, Ordering::Relaxed);
        let gap = if dropped > 0 { append(&mut ring, &Gap { dropped }) } else { Ok(()) };
        let result = gap.and_then(|()| append(&mut ring, &entry));
        match result {
            Ok(()) => told = false,
            Err(error) if !told => {
                tracing::warn!(%error, "the journal cannot be written; the agent works without it");
                told = true;
            }
            Err(_) => {}
        }
    }
}

fn append(ring: &mut Ring, entry: &impl Serialize) -> io::Result<()> {
    ring.append(serde_json::to_vec(entry)?)
}
