//! What the agent tells systemd, and asks it. Without systemd both are nothing.

use anyhow::{Context, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
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
    let send = || UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address(&path)?);
    if let Err(error) = send() {
        tracing::debug!(%error, text, "systemd was not told");
    }
}

fn address(path: &str) -> std::io::Result<SocketAddr> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

/// Takes a descriptor out of what systemd kept for this unit over a restart. Once a name.
#[allow(unsafe_code)]
#[must_use]
pub fn stored_descriptor(wanted: &str) -> Option<OwnedFd> {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("LISTEN_PID")?.parse() != Ok(std::process::id()) {
        return None;
    }
    let count: usize = variable("LISTEN_FDS")?.parse().ok()?;
    let names = variable("LISTEN_FDNAMES")?;
    let position = names.split(':').take(count).position(|name| name == wanted)?;
    let descriptor = 3 + RawFd::try_from(position).ok()?;
    // SAFETY: systemd passes descriptors from 3 on to this process alone (LISTEN_PID); nobody else in it
    // takes them. Children must not inherit it.
    unsafe {
        if libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return None;
        }
        Some(OwnedFd::from_raw_fd(descriptor))
    }
}

/// systemd keeps descriptors for this unit, as far as that can be told from inside.
#[must_use]
pub fn keeps_descriptors() -> bool {
    // systemd 254 and later says how many.
    std::env::var("NOTIFY_SOCKET").is_ok() && std::env::var("FDSTORE").as_deref() != Ok("0")
}

/// Gives systemd a copy of the descriptor to keep over restarts of this unit.
///
/// # Errors
/// It does not listen.
pub fn store_descriptor(name: &str, descriptor: RawFd) -> Result<()> {
    let path = std::env::var("NOTIFY_SOCKET").context("not started by systemd")?;
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address(&path)?)?;
    // Not polled: a device that reports an error is kept nevertheless.
    let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
    send_descriptor(&socket, message.as_bytes(), descriptor).context("cannot notify systemd")
}

/// systemd closes what it kept under this name.
pub fn forget_descriptor(name: &str) {
    notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
}

#[allow(unsafe_code)]
fn send_descriptor(socket: &UnixDatagram, text: &[u8], descriptor: RawFd) -> std::io::Result<()> {
    // One descriptor, in bytes.
    const SIZE: u32 = 4;
    let mut parts = libc::iovec { iov_base: text.as_ptr() as *mut _, iov_len: text.len() };
    let mut control = [0_u64; 4];
    // SAFETY: a zeroed msghdr is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut parts;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: `control` is aligned and larger than the space of one descriptor (24 bytes), so the first
    // header and its data lie within it; sendmsg only reads what the message points to, all of it alive.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(SIZE) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(SIZE) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// This machine is on its way down: what ends here is meant to end.
#[must_use]
pub fn is_shutting_down() -> bool {
    Path::new("/run/systemd/system").exists()
        && said("systemctl", &["is-system-running"]).is_some_and(|said| said.trim() == "stopping")
}

/// The host is on its way down: it reboots (`true`), or is switched off.
#[must_use]
pub fn host_goes_down() -> Option<bool> {
    let running = Path::new("/run/systemd/system").exists();
    let jobs = running.then(|| said("systemctl", &["list-jobs", "--no-legend", "--plain"]))??;
    last_job(&jobs)
}

/// Which of systemd's jobs ends this boot, if one does: `42 reboot.target start waiting`.
fn last_job(jobs: &str) -> Option<bool> {
    let starts = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let unit = words.iter().find(|word| word.ends_with(".target")).copied();
        unit.filter(|_| words.contains(&"start")).map(String::from)
    };
    let targets: Vec<String> = jobs.lines().filter_map(starts).collect();
    let any = |names: &[&str]| targets.iter().any(|target| names.contains(&target.as_str()));
    if any(&["reboot.target", "kexec.target", "soft-reboot.target"]) {
        return Some(true);
    }
    any(&["poweroff.target", "halt.target", "shutdown.target"]).then_some(false)
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
    fn the_descriptor_is_sent_as_a_right() {
        let (near, far) = UnixDatagram::pair().unwrap();
        send_descriptor(&near, b"FDSTORE=1", near.as_raw_fd()).unwrap();
        let mut text = [0; 64];
        let got = far.recv(&mut text).unwrap();
        assert_eq!(&text[..got], b"FDSTORE=1");
    }

    #[test]
    fn systemds_jobs_tell_a_reboot_from_a_shutdown_and_both_from_a_stop_of_the_agent() {
        let stop = "77 steadfastd.service stop running\n";
        assert_eq!(last_job(stop), None);
        assert_eq!(last_job(""), None);
        let down =
            format!("{stop}12 shutdown.target start waiting\n13 poweroff.target start waiting");
        assert_eq!(last_job(&down), Some(false));
        assert_eq!(last_job(&down.replace("poweroff", "reboot")), Some(true));
        assert_eq!(last_job("14 reboot.target stop waiting"), None);
    }

    #[test]
    fn a_program_that_hangs_is_not_waited_for() {
        assert_eq!(said("echo", &["stopping"]).as_deref(), Some("stopping\n"));
        let begin = Instant::now();
        assert_eq!(said("sleep", &["60"]), None);
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(said("/nonexistent", &[]), None);
    }
}
