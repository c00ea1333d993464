//! Flight recorder: what happened, and what the machine made of it, as JSON lines in a bounded ring of files.
//!
//! The lease path only puts a copy into a bounded queue; if the writer is behind, entries are dropped and
//! counted. Lines are written unbuffered, so that the last ones survive a killed agent.

use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use steadfast_core::event::Event;
use steadfast_core::step::Step;
use steadfast_core::time::Instant;

/// Files in the ring.
const FILES: usize = 2;
/// Size of one file in bytes.
const FILE_BYTES: u64 = 4 << 20;
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
        let ring = Ring::open(directory, FILE_BYTES)?;
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
        let gap = if dropped > 0 { ring.append(&Gap { dropped }) } else { Ok(()) };
        let result = gap.and_then(|()| ring.append(&entry));
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

/// `journal.jsonl` is written; `journal.1.jsonl` and so on are older.
#[derive(Debug)]
struct Ring {
    directory: PathBuf,
    limit: u64,
    file: File,
    size: u64,
}

impl Ring {
    fn open(directory: &Path, limit: u64) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = append_to(&name(directory, 0))?;
        let size = file.metadata()?.len();
        Ok(Self { directory: directory.into(), limit, file, size })
    }

    fn append(&mut self, entry: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.limit {
            self.turn()?;
        }
        self.file.write_all(&line)?;
        self.size += length;
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        for older in (1..FILES).rev() {
            std::fs::rename(name(&self.directory, older - 1), name(&self.directory, older))?;
        }
        self.file = append_to(&name(&self.directory, 0))?;
        self.size = 0;
        Ok(())
    }
}

fn name(directory: &Path, age: usize) -> PathBuf {
    match age {
        0 => directory.join("journal.jsonl"),
        _ => directory.join(format!("journal.{age}.jsonl")),
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_stays_bounded() {
        let directory = std::env::temp_dir().join(format!("journal-{}", std::process::id()));
        let mut ring = Ring::open(&directory, 100).expect("temporary directory");
        for number in 0..100 {
            ring.append(&Gap { dropped: number }).expect("written");
        }
        let newest = std::fs::read_to_string(name(&directory, 0)).expect("there");
        assert!(newest.ends_with("{\"dropped\":99}\n"), "{newest}");
        assert!(std::fs::metadata(name(&directory, 1)).expect("there").len() <= 100);
        assert_eq!(std::fs::read_dir(&directory).expect("there").count(), FILES);
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
