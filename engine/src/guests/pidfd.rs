//! Process file descriptors: a signal to, or the end of, one process and never of a later one
//! with its number.

use super::ProcessId;
use anyhow::Context as _;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Opens `process`; `None` if it is gone, also if its number belongs to another one now.
///
/// # Errors
/// If the kernel refuses (too many open files, a kernel before 5.3).
pub fn open(process: ProcessId) -> anyhow::Result<Option<OwnedFd>> {
    // SAFETY: takes two integers and returns a new descriptor or -1; no memory is shared.
    #[allow(unsafe_code)]
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ESRCH) => Ok(None),
            _ => Err(error).with_context(|| format!("cannot open process {}", process.pid)),
        };
    }
    let fd = i32::try_from(fd).context("a file descriptor out of range")?;
    // SAFETY: the call above returned this descriptor; nobody else owns it.
    #[allow(unsafe_code)]
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // The descriptor holds the number now: if it is still the same process, it stays so.
    Ok(super::is_alive(Path::new("/proc"), process)?.then_some(fd))
}

/// Sends SIGKILL. A process that has exited already is no error.
///
/// # Errors
/// If the kernel refuses.
pub fn kill(fd: &OwnedFd) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `info` is allowed and means what kill(2) does; the descriptor is open.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), libc::SIGKILL, info, 0)
    };
    let error = io::Error::last_os_error();
    if result < 0 && error.raw_os_error() != Some(libc::ESRCH) { Err(error) } else { Ok(()) }
}

/// Waits until the process has exited, all threads included: `false` if it has not in time.
///
/// # Errors
/// If the kernel refuses.
pub fn wait(fd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        if poll(&mut [entry(fd)], millis)? > 0 {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// What `poll` is asked about one descriptor.
#[must_use]
pub fn entry(fd: &impl AsRawFd) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// poll(2): how many are ready; 0 after `millis` (negative: waits for ever) or a signal.
///
/// # Errors
/// If the kernel refuses.
pub fn poll(entries: &mut [libc::pollfd], millis: i32) -> io::Result<usize> {
    let count = entries.len() as libc::nfds_t;
    // SAFETY: pointer and length describe one exclusive slice.
    #[allow(unsafe_code)]
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, millis) };
    let error = io::Error::last_os_error();
    match usize::try_from(ready) {
        Ok(ready) => Ok(ready),
        Err(_) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(_) => Err(error),
    }
}
