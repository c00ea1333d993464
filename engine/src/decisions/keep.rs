//! All decisions as JSON lines on this node's own disk, questions to policies included: what `steadfast policy replay` reads.

use crate::ring::{Ring, Shape};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

const SHAPE: Shape = Shape { name: "decisions", files: 4, file_bytes: 16 << 20 };
/// Lines that may wait for a slow disk; more are dropped and counted.
const QUEUE: usize = 4_096;

/// The queue to the writer.
#[derive(Debug)]
pub(super) struct Keeper {
    queue: SyncSender<Vec<u8>>,
    dropped: AtomicU64,
}

impl Keeper {
    /// Starts the writer. Without its files the agent works on.
    pub(super) fn start(directory: &Path) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel::<Vec<u8>>(QUEUE);
        let directory = directory.to_owned();
        let thread = std::thread::Builder::new().name("decision-log".into());
        thread.spawn(move || {
            let mut ring = None;
            let mut told = false;
            for line in lines {
                match append(&mut ring, &directory, line) {
                    Ok(()) => told = false,
                    Err(error) if !told => {
                        let path = directory.display();
                        tracing::warn!(%error, %path, "decisions cannot be kept on this node");
                        (told, ring) = (true, None);
                    }
                    Err(_) => ring = None,
                }
            }
        })?;
        Ok(Self { queue, dropped: AtomicU64::new(0) })
    }

    /// Queues a line; never blocks.
    pub(super) fn keep(&self, line: Vec<u8>) {
        if self.queue.try_send(line).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(dropped, "the disk is too slow for decisions: some are not kept");
        }
    }
}

fn append(ring: &mut Option<Ring>, directory: &Path, line: Vec<u8>) -> std::io::Result<()> {
    let open = match ring {
        Some(open) => open,
        None => ring.insert(Ring::open(directory, SHAPE)?),
    };
    open.append(line)
}
