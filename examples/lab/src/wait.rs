//! Waits: all bounded, with progress shown when they last, ended by an interrupt.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::sys;

const STEP: Duration = Duration::from_millis(20);
const SILENT: Duration = Duration::from_secs(1);

/// Probes until there is a value. The error says what did not come.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut progress = Progress::new(what);
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        let waited = start.elapsed();
        if waited > limit {
            bail!("{what}: not after {} s; look into the logs of the nodes", limit.as_secs());
        }
        progress.show(waited);
        sleep(STEP)?;
    }
}

/// A sleep that an interrupt ends.
pub fn sleep(time: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        if sys::interrupted() {
            bail!("interrupted");
        }
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// Waits the whole time, with progress.
pub fn hold(what: &str, time: Duration) -> Result<()> {
    let start = Instant::now();
    let mut progress = Progress::new(what);
    while start.elapsed() < time {
        progress.show(start.elapsed());
        sleep(STEP.min(time.saturating_sub(start.elapsed())))?;
    }
    Ok(())
}

struct Progress<'a> {
    what: &'a str,
    shown: u64,
    on_terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str) -> Self {
        Progress { what, shown: 0, on_terminal: std::io::stderr().is_terminal() }
    }

    /// One line that counts on a terminal; a line now and then in a log.
    fn show(&mut self, waited: Duration) {
        let seconds = waited.as_secs();
        if waited < SILENT || seconds == self.shown {
            return;
        }
        if self.on_terminal {
            eprint!("\r  … {} {seconds} s", self.what);
            let _ = std::io::stderr().flush();
        } else if seconds == 1 || seconds.is_multiple_of(10) {
            eprintln!("  … {} {seconds} s", self.what);
        }
        self.shown = seconds;
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.on_terminal && self.shown > 0 {
            // Wipe the counting line.
            eprint!("\r\x1b[K");
        }
    }
}
