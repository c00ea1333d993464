//! Resets this node: the last resort when an HA VM may still execute after its time.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Where the kernel takes sysrq commands.
pub const SYSRQ: &str = "/proc/sysrq-trigger";

/// Last words may hang (a console, the journal); the reset waits no longer for them.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Resets this node at once, without sync: storage may hang, and what is not on disk must not get there late.
///
/// Never returns. If sysrq does not work the caller's thread is lost here, feeds nothing any more, and the
/// watchdog finishes the job.
pub fn reset_node(sysrq: &Path, reason: &str) -> ! {
    speak_last_words(reason);
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

fn speak_last_words(reason: &str) {
    let words = format!("steadfast: resetting this node: {reason}\n");
    let (spoken, done) = mpsc::channel();
    let speaker = std::thread::Builder::new().name("last-words".into()).spawn(move || {
        // The kernel log first: it is kept by pstore and seen on the console. Level 0 is an emergency.
        if let Ok(mut kernel_log) = OpenOptions::new().write(true).open("/dev/kmsg") {
            let _ = kernel_log.write_all(format!("<0>{words}").as_bytes());
            let _ = kernel_log.sync_all();
        }
        let _ = std::io::stderr().write_all(words.as_bytes());
        let _ = spoken.send(());
    });
    if speaker.is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
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
