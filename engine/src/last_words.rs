//! What this node says when it may be gone in a moment: to the kernel log, which a console or pstore keeps, and to a
//! file, fsynced, because a reset loses the page cache. The agent of the next boot finds it there and tells it.
//!
//! Nothing waits for it but a reset, and that no longer than [`PATIENCE`]: consoles and disks may hang.

use crate::Sink;
use crate::clock::Clock;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use steadfast_core::event::Event;
use steadfast_core::ids::BootId;

const KERNEL_LOG: &str = "/dev/kmsg";
/// How long a reset waits for them.
const PATIENCE: Duration = Duration::from_millis(50);
/// Files of earlier boots that are kept.
const KEPT: usize = 5;
/// A file that is longer is put aside.
const FILE_BYTES: u64 = 64 << 10;
/// Words of an earlier boot that are told: the last ones.
const TOLD: usize = 3;

/// Where last words go. Clones speak for the same boot.
#[derive(Debug, Clone)]
pub struct LastWords {
    directory: PathBuf,
    /// `None`: a demonstration's node has no console.
    kernel_log: Option<PathBuf>,
    boot: BootId,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    boot: BootId,
    /// For people.
    wall_ms: u64,
    text: String,
}

impl LastWords {
    /// Of this boot, kept in `directory`, which survives a boot.
    #[must_use]
    pub fn new(directory: &Path, boot: BootId) -> Self {
        Self { directory: directory.to_owned(), kernel_log: Some(KERNEL_LOG.into()), boot }
    }

    /// The same, to the file only.
    #[must_use]
    pub(crate) fn without_console(self) -> Self {
        Self { kernel_log: None, ..self }
    }

    /// Speaks, on threads of its own. Never blocks. Each place that has them is told to the receiver.
    pub fn speak(&self, text: &str) -> mpsc::Receiver<()> {
        let (spoken, done) = mpsc::channel();
        let (one, two) = (self.clone(), self.clone());
        let (kernel, file) = (text.to_owned(), text.to_owned());
        let told = spoken.clone();
        spawn(move || {
            one.to_kernel_log(&kernel);
            let _ = told.send(());
        });
        spawn(move || {
            if let Err(error) = two.to_file(file) {
                tracing::warn!(error = format!("{error:#}"), "last words are not on disk");
            }
            let _ = spoken.send(());
        });
        done
    }

    /// Speaks and waits until it has spoken, but not for long.
    pub fn speak_before_reset(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        let done = self.speak(text);
        // An error is the end of both threads.
        while done.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Tells what was said before this boot, once, as `LastWordsFound`. On a thread of its own: the disk may hang.
    pub fn tell_earlier(&self, events: Sink) {
        let words = self.clone();
        spawn(move || match words.take_earlier() {
            Ok(earlier) => earlier.into_iter().for_each(|text| {
                tracing::warn!(text, "last words of this node before its boot");
                events(Event::LastWordsFound { text });
            }),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "earlier last words cannot be read");
            }
        });
    }

    fn to_kernel_log(&self, text: &str) {
        // Level 0 is an emergency: it gets to every console.
        let line = format!("<0>steadfast: {text}\n");
        let Some(log) = &self.kernel_log else { return };
        if let Ok(mut log) = OpenOptions::new().write(true).open(log) {
            let _ = log.write_all(line.as_bytes());
        }
    }

    fn to_file(&self, text: String) -> Result<()> {
        let path = self.file(0);
        let wall_ms = Clock.wall_ms();
        let mut line = serde_json::to_vec(&Line { boot: self.boot, wall_ms, text })?;
        line.push(b'\n');
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.directory)?;
            if path.metadata().is_ok_and(|found| found.len() > FILE_BYTES) {
                self.put_aside()?;
            }
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(&line)?;
            file.sync_all()?;
            File::open(&self.directory)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Words of earlier boots, the oldest first; their file is put aside.
    fn take_earlier(&self) -> Result<Vec<String>> {
        let path = self.file(0);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        // A line that was cut off by the reset is nothing.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let earlier: Vec<Line> = lines.filter(|line: &Line| line.boot != self.boot).collect();
        if earlier.is_empty() {
            return Ok(Vec::new());
        }
        self.put_aside().with_context(|| format!("cannot put {} aside", path.display()))?;
        let told = |line: &Line| {
            let at = crate::clock::utc(line.wall_ms);
            format!("before its last boot, at {at} UTC, this node said: {}", line.text)
        };
        Ok(earlier.iter().skip(earlier.len().saturating_sub(TOLD)).map(told).collect())
    }

    fn put_aside(&self) -> std::io::Result<()> {
        for age in (1..KEPT).rev() {
            match std::fs::rename(self.file(age), self.file(age + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(self.file(0), self.file(1))
    }

    fn file(&self, age: usize) -> PathBuf {
        self.directory.join(match age {
            0 => "last-words.jsonl".into(),
            _ => format!("last-words.{age}.jsonl"),
        })
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name("last-words".into());
    // Without a thread they are not heard; what they are about goes on.
    drop(thread.spawn(work));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Rig {
        folder: PathBuf,
    }

    impl Rig {
        fn new(name: &str) -> Self {
            let unique = format!("steadfast-words-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(unique);
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("kmsg"), "").unwrap();
            Self { folder }
        }

        fn boot(&self, boot: u128) -> LastWords {
            let words = LastWords::new(&self.folder.join("state"), BootId(boot));
            LastWords { kernel_log: Some(self.folder.join("kmsg")), ..words }
        }

        fn earlier(&self, boot: u128) -> Vec<String> {
            self.boot(boot).take_earlier().unwrap()
        }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn the_next_boot_is_told_once_and_the_words_are_kept() {
        let rig = Rig::new("told");
        assert!(rig.earlier(1).is_empty());
        rig.boot(1).speak_before_reset("the lease is over");
        rig.boot(1).speak_before_reset("reset");
        let log = std::fs::read_to_string(rig.folder.join("kmsg")).unwrap();
        assert!(log.contains("<0>steadfast: "), "{log}");
        assert!(rig.earlier(1).is_empty(), "an agent that restarts in the same boot");
        let (sender, told) = mpsc::channel();
        rig.boot(2).tell_earlier(Arc::new(move |event| drop(sender.send(event))));
        let texts: Vec<Event> = told.iter().collect();
        let [Event::LastWordsFound { text: first }, Event::LastWordsFound { text: last }] =
            &texts[..]
        else {
            panic!("{texts:?}")
        };
        assert!(first.ends_with("UTC, this node said: the lease is over"), "{first}");
        assert!(last.ends_with("UTC, this node said: reset"), "{last}");
        assert!(rig.earlier(2).is_empty());
        let kept = std::fs::read_to_string(rig.boot(2).file(1)).unwrap();
        assert!(kept.contains("\"reset\""), "{kept}");
    }

    #[test]
    fn files_are_turned_and_a_line_that_was_cut_off_is_nothing() {
        let rig = Rig::new("turned");
        for boot in 1..10 {
            rig.boot(boot).to_file(format!("boot {boot}")).unwrap();
            assert_eq!(rig.earlier(boot + 1).len(), 1);
        }
        assert_eq!(std::fs::read_dir(rig.folder.join("state")).unwrap().count(), KEPT);
        let newest = std::fs::read_to_string(rig.boot(1).file(1)).unwrap();
        assert!(newest.contains("boot 9"), "{newest}");
        let words = rig.boot(20);
        for number in 0..1_000 {
            words.to_file(format!("{number} {}", "x".repeat(100))).unwrap();
        }
        assert!(words.file(0).metadata().unwrap().len() <= FILE_BYTES + 200);
        words.to_file("whole".into()).unwrap();
        let mut file = OpenOptions::new().append(true).open(words.file(0)).unwrap();
        file.write_all(b"{\"boot\":\"0").unwrap();
        let told = rig.earlier(21);
        assert!(told.len() == TOLD && told[2].ends_with("whole"), "{told:?}");
    }

    #[test]
    fn a_disk_that_hangs_delays_no_reset() {
        let rig = Rig::new("hangs");
        let words = rig.boot(1);
        std::fs::create_dir_all(&words.directory).unwrap();
        // A FIFO without a reader is a file that never opens.
        let path = words.file(0).into_os_string().into_string().unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let begin = Instant::now();
        words.speak_before_reset("reset");
        assert!(begin.elapsed() >= PATIENCE, "it waited for the file");
        assert!(begin.elapsed() < PATIENCE * 6, "{:?}", begin.elapsed());
        let log = std::fs::read_to_string(rig.folder.join("kmsg")).unwrap();
        assert!(log.contains("reset"), "the kernel log has them nevertheless: {log}");
    }
}
