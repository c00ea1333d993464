//! What the agent tells systemd, and asks it. Without systemd both are nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long systemd may take to say what it does.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells the service manager, e.g. `READY=1`. Nobody listening is not an error.
pub fn notify(text: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let send = || -> std::io::Result<usize> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)
    };
    if let Err(error) = send() {
        tracing::debug!(%error, text, "systemd was not told");
    }
}

/// This machine is on its way down: what ends here is meant to end.
#[must_use]
pub fn is_shutting_down() -> bool {
    Path::new("/run/systemd/system").exists()
        && said("systemctl", &["is-system-running"]).is_some_and(|said| said.trim() == "stopping")
}

/// What a program said, if it ended in time.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + PATIENCE;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    String::from_utf8(child.wait_with_output().ok()?.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_not_waited_for() {
        assert_eq!(said("echo", &["stopping"]).as_deref(), Some("stopping\n"));
        let begin = Instant::now();
        assert_eq!(said("sleep", &["60"]), None);
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(said("/nonexistent", &[]), None);
    }
}
