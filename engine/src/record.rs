//! What an incarnation of the agent leaves to the next one of the same boot: a small file on tmpfs.
//!
//! It is written before and after each feed of the watchdog (PROTOCOL section 4), so that an agent that
//! restarts over running guests knows until when their lease is good and when the watchdog was fed last.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use steadfast_core::config::Inherited;
use steadfast_core::ids::{BootId, Incarnation};
use steadfast_core::time::Instant;

/// Where the kernel says its boot id.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const FILE_NAME: &str = "record.json";

/// Reads this kernel's boot id.
///
/// # Errors
/// The file cannot be read or does not hold a UUID.
pub fn read_boot_id() -> Result<BootId> {
    let text =
        std::fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
    parse_boot_id(&text)
}

fn parse_boot_id(text: &str) -> Result<BootId> {
    let digits = text.trim().replace('-', "");
    if digits.len() != 32 {
        bail!("a boot id has 32 hex digits, got {:?} from {BOOT_ID}", text.trim());
    }
    let number = u128::from_str_radix(&digits, 16);
    number.map(BootId).with_context(|| format!("a boot id is hex, got {digits:?}"))
}

/// The record of this incarnation. Clones share it.
#[derive(Debug, Clone)]
pub struct RunRecord {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    inherited: Option<Feeds>,
    incarnation: Incarnation,
    content: Mutex<Content>,
}

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Content {
    /// Boot id as hex: JSON readers of people round large numbers.
    boot: String,
    incarnation: Incarnation,
    feeds: Option<Feeds>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Feeds {
    /// Basis of the lease at the last feed.
    basis: Option<Instant>,
    /// End of the last feed whose end is known.
    ended: Option<Instant>,
    /// A feed was begun and its end is not known.
    open: bool,
}

/// Counts the agent's incarnations of this boot up from 1 and keeps the number in `run_dir` (on tmpfs).
///
/// The caller must hold the agent's exclusive lock: only then is the previous incarnation surely dead.
///
/// # Errors
/// The directory cannot be written, or holds a record that cannot be read.
pub fn next_incarnation(run_dir: &Path, boot: BootId) -> Result<RunRecord> {
    let path = run_dir.join(FILE_NAME);
    let previous = read(&path)?.filter(|content| content.boot == hex(boot));
    let incarnation = Incarnation(previous.as_ref().map_or(1, |content| content.incarnation.0 + 1));
    let feeds = previous.and_then(|content| content.feeds);
    let content = Content { boot: hex(boot), incarnation, feeds };
    replace(&path, &content)?;
    let content = Mutex::new(content);
    Ok(RunRecord { shared: Arc::new(Shared { path, inherited: feeds, incarnation, content }) })
}

impl RunRecord {
    /// This incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation
    }

    /// What earlier incarnations of this boot left; `None` if none of them fed a watchdog.
    ///
    /// An agent that died between "before" and "after" may have fed at any time until it was dead, which it
    /// was when this record was opened: `now` is an instant at which that feed had surely ended. (Its last
    /// known end + W would do as well on hardware that keeps its word, but a watchdog of a stopped virtual
    /// machine was seen not to fire.)
    #[must_use]
    pub fn inherited(&self, now: Instant) -> Option<Inherited> {
        let feeds = self.shared.inherited?;
        let ended = if feeds.open { Some(now) } else { feeds.ended };
        Some(Inherited { basis: feeds.basis, last_feed_ended: ended })
    }

    /// Records that a feed for a lease of this basis is about to begin.
    ///
    /// # Errors
    /// The record cannot be written: do not feed.
    pub fn before_feed(&self, basis: Option<Instant>) -> Result<()> {
        self.change(|feeds| *feeds = Feeds { basis, open: true, ..*feeds })
    }

    /// Records that the feed had ended at `ended`.
    ///
    /// # Errors
    /// The record cannot be written. The next incarnation takes the feed as ended just before itself.
    pub fn after_feed(&self, ended: Instant) -> Result<()> {
        self.change(|feeds| *feeds = Feeds { ended: Some(ended), open: false, ..*feeds })
    }

    /// The watchdog was closed: nothing of it is left to inherit.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn forget_feeds(&self) -> Result<()> {
        let mut content = self.shared.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.feeds = None;
        replace(&self.shared.path, &content)
    }

    fn change(&self, change: impl FnOnce(&mut Feeds)) -> Result<()> {
        let mut content = self.shared.content.lock().unwrap_or_else(PoisonError::into_inner);
        change(content.feeds.get_or_insert(Feeds { basis: None, ended: None, open: false }));
        replace(&self.shared.path, &content)
    }
}

fn hex(boot: BootId) -> String {
    format!("{:032x}", boot.0)
}

fn read(path: &Path) -> Result<Option<Content>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let content = serde_json::from_slice(&bytes).with_context(|| {
        let path = path.display();
        format!("damaged record {path}: stop this node's HA VMs or reboot it, then remove the file")
    })?;
    Ok(Some(content))
}

/// Atomic: readers see the old record or the new one. No fsync: it is not meant to outlive the boot.
fn replace(path: &Path, content: &Content) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        std::fs::write(&temporary, serde_json::to_vec(content)?)?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| {
        let path = path.display();
        format!("cannot write {path}: the run directory must be a writable tmpfs")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId(0xabc);

    fn scratch(name: &str) -> PathBuf {
        let unique = format!("steadfast-record-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn incarnations_count_up_within_a_boot() {
        let dir = scratch("count");
        assert_eq!(next_incarnation(&dir, BOOT).unwrap().incarnation(), Incarnation(1));
        assert_eq!(next_incarnation(&dir, BOOT).unwrap().incarnation(), Incarnation(2));
        assert_eq!(next_incarnation(&dir, BootId(7)).unwrap().incarnation(), Incarnation(1));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_last_feed_is_inherited() {
        let dir = scratch("inherit");
        let first = next_incarnation(&dir, BOOT).unwrap();
        assert_eq!(first.inherited(Instant(1)), None);
        first.before_feed(Some(Instant(10))).unwrap();
        first.after_feed(Instant(12)).unwrap();
        let expected = Inherited { basis: Some(Instant(10)), last_feed_ended: Some(Instant(12)) };
        let second = next_incarnation(&dir, BOOT).unwrap();
        assert_eq!(second.inherited(Instant(99)), Some(expected));
        // A third inherits through a second that never fed.
        let third = next_incarnation(&dir, BOOT).unwrap();
        assert_eq!(third.inherited(Instant(99)), Some(expected));
        let other_boot = next_incarnation(&dir, BootId(7)).unwrap();
        assert_eq!(other_boot.inherited(Instant(99)), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_open_feed_had_ended_when_its_agent_was_dead() {
        let dir = scratch("open");
        let first = next_incarnation(&dir, BOOT).unwrap();
        first.before_feed(Some(Instant(10))).unwrap();
        let second = next_incarnation(&dir, BOOT).unwrap();
        let expected = Inherited { basis: Some(Instant(10)), last_feed_ended: Some(Instant(99)) };
        assert_eq!(second.inherited(Instant(99)), Some(expected));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_damaged_record_is_refused_with_a_remedy() {
        let dir = scratch("damaged");
        std::fs::write(dir.join(FILE_NAME), "{").unwrap();
        let error = next_incarnation(&dir, BOOT).unwrap_err();
        assert!(error.to_string().contains("reboot"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn boot_ids_are_uuids() {
        let boot = parse_boot_id("00000000-0000-0000-0000-0000000000ff\n").unwrap();
        assert_eq!(boot, BootId(255));
        assert!(parse_boot_id("nonsense").is_err());
    }
}
