//! Log lines leave the lease path through a bounded queue: a hung stderr must not hang a lease.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for stderr.
const QUEUE: usize = 1_024;
/// How long the end of the agent waits for its last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Waits, when dropped, until the lines logged so far are written.
#[derive(Debug)]
pub struct Flusher(Lines);

impl Drop for Flusher {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        if self.0.queue.try_send(Line::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LAST_LINES);
        }
    }
}

/// Starts logging to stderr; `RUST_LOG` sets the level, `info` without it.
#[must_use]
pub fn start() -> Flusher {
    let (queue, lines) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let gaps = Arc::clone(&dropped);
    let writer = std::thread::Builder::new().name("log".into());
    let started = writer.spawn(move || write_all(&lines, &gaps));
    let lines = Lines { queue, dropped };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    if started.is_ok() {
        let _ = log.with_ansi(false).with_writer(lines.clone()).try_init();
    }
    Flusher(lines)
}

/// Logs to `file`, for a program that needs the terminal for other things; without a file nothing is logged.
///
/// # Errors
/// The file cannot be made.
pub fn to_file(file: Option<&Path>) -> io::Result<()> {
    let Some(path) = file else { return Ok(()) };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let file = Mutex::new(File::create(path)?);
    let _ = log.with_ansi(false).with_thread_names(true).with_writer(file).try_init();
    Ok(())
}

fn write_all(lines: &Receiver<Line>, gaps: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        let dropped = gaps.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(io::stderr(), "{dropped} log lines dropped: stderr was too slow");
        }
        match line {
            Line::Text(text) => drop(io::stderr().write_all(&text)),
            Line::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter { text: Vec::new(), lines: self.clone() }
    }
}

/// Collects one line and queues it when dropped.
#[derive(Debug)]
struct LineWriter {
    text: Vec<u8>,
    lines: Lines,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() && self.lines.queue.try_send(Line::Text(text)).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
