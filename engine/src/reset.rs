//! Resets this node: the last resort when an HA VM may still execute after its time.

use crate::last_words::LastWords;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Where the kernel takes sysrq commands.
pub const SYSRQ: &str = "/proc/sysrq-trigger";

/// Resets this node at once, without sync: storage may hang, and what is not on disk must not get there late. Last words
/// get their 50 ms.
///
/// Never returns. If sysrq does not work the caller's thread is lost here, feeds nothing any more, and the
/// watchdog finishes the job.
pub fn reset_node(sysrq: &Path, last_words: &LastWords, reason: &str) -> ! {
    tracing::error!(reason, "resetting this node");
    last_words.speak_before_reset(&format!("resetting this node: {reason}"));
    loop {
        if let Err(error) = trigger(sysrq) {
            tracing::error!(path = %sysrq.display(), %error, "reset failed, the watchdog has to end it");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn trigger(sysrq: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(sysrq)?.write_all(b"b")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trigger_gets_the_reset_command() {
        let path = std::env::temp_dir().join(format!("steadfast-sysrq-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        trigger(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"b");
        std::fs::remove_file(&path).unwrap();
    }
}
