//! Devices: the kernel's, the lab's socket, and the switch of a demonstration.

use crate::demo::Seat;
use crate::systemd;
use anyhow::{Context, Result, anyhow, ensure};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::time::Millis;

const WDIOC_GETSUPPORT: libc::c_ulong = 0x8028_5700;
const WDIOC_SETOPTIONS: libc::c_ulong = 0x8004_5704;
const WDIOC_KEEPALIVE: libc::c_ulong = 0x8004_5705;
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xc004_5706;
const WDIOC_GETTIMEOUT: libc::c_ulong = 0x8004_5707;
const WDIOS_DISABLECARD: i32 = 1;
const WDIOF_MAGICCLOSE: u32 = 0x0100;

/// The lab's socket answers at once.
const SOCKET_PATIENCE: Duration = Duration::from_secs(1);

/// Where a watchdog is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Kernel(String),
    Socket(PathBuf),
    Demo(Arc<Seat>),
}

/// An open watchdog.
#[derive(Debug)]
pub(super) enum Device {
    Kernel(File),
    Socket(UnixStream),
    Demo(Arc<Seat>),
}

impl Source {
    /// As the configuration names it.
    pub(super) fn named(name: &str) -> Self {
        match name.strip_prefix("unix:") {
            Some(path) => Self::Socket(path.into()),
            None => Self::Kernel(name.to_owned()),
        }
    }

    /// The kernel feeds a device that is closed without the magic character; the others only count on.
    pub(super) fn closing_is_harmless(&self) -> bool {
        !matches!(self, Self::Kernel(_))
    }

    /// What systemd has kept of it.
    pub(super) fn stored(&self, name: &str) -> Option<Device> {
        match self {
            Self::Kernel(_) => Some(Device::Kernel(systemd::stored_descriptor(name)?.into())),
            Self::Socket(_) => Some(Device::Socket(systemd::stored_descriptor(name)?.into())),
            Self::Demo(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(path) => f.write_str(path),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            Self::Demo(_) => f.write_str("the demonstration's watchdog"),
        }
    }
}

impl Device {
    pub(super) fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Socket(path) => {
                let socket = UnixStream::connect(path);
                let socket = socket.with_context(|| format!("cannot connect to {source}"))?;
                Ok(Self::Socket(socket))
            }
            Source::Kernel(name) => match OpenOptions::new().write(true).open(name) {
                Ok(file) => Ok(Self::Kernel(file)),
                Err(error) => Err(anyhow!("cannot open {name}: {error}: {}", open_remedy(&error))),
            },
            Source::Demo(seat) => Ok(Self::Demo(Arc::clone(seat))),
        }
    }

    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Kernel(file) => Some(file.as_raw_fd()),
            Self::Socket(socket) => Some(socket.as_raw_fd()),
            Self::Demo(_) => None,
        }
    }

    /// Opening a kernel's watchdog starts it; the others wait for their first feed.
    pub(super) fn opening_feeds(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }

    /// It has this very time-out already. Asking does not feed.
    pub(super) fn has_timeout(&self, timeout: Millis) -> bool {
        match self {
            Self::Kernel(file) => kernel_timeout(file).is_ok_and(|set| set == timeout),
            Self::Socket(_) | Self::Demo(_) => false,
        }
    }

    /// Sets the time-out and returns what the device says it is, and whether that fed it.
    pub(super) fn set_timeout(&mut self, timeout: Millis) -> Result<(Millis, bool)> {
        let (set, fed) = match self {
            Self::Kernel(file) => set_kernel_timeout(file, timeout)?,
            Self::Socket(socket) => (exchange(socket, timeout)?, true),
            Self::Demo(seat) => (seat.feed_watchdog(timeout)?, true),
        };
        ensure!(set.0 > 0, "the device says that its time-out is 0: it never fires");
        Ok((set, fed))
    }

    pub(super) fn ping(&mut self, timeout: Millis) -> Result<()> {
        match self {
            Self::Kernel(file) => Ok(ioctl(file, WDIOC_KEEPALIVE, &mut 0)?),
            // Answered, unlike `ping`: when it returns the feed has surely ended.
            Self::Socket(socket) => exchange(socket, timeout).map(drop),
            Self::Demo(seat) => seat.feed_watchdog(timeout).map(drop),
        }
    }

    /// After this error it is of no use any more.
    pub(super) fn is_gone(&self, error: &anyhow::Error) -> bool {
        let system = error.downcast_ref::<std::io::Error>().and_then(|error| error.raw_os_error());
        match self {
            Self::Kernel(_) => [Some(libc::ENODEV), Some(libc::ENXIO)].contains(&system),
            Self::Socket(_) | Self::Demo(_) => true,
        }
    }

    /// An agent that dies closes it, and that must not stop it.
    pub(super) fn check_close(&self, name: &Source) -> Result<()> {
        let (Self::Kernel(file), Source::Kernel(name)) = (self, name) else { return Ok(()) };
        // A driver that does not say what it can do is taken for one of the many that can.
        let stops = options(file).is_ok_and(|options| options & WDIOF_MAGICCLOSE == 0);
        ensure!(
            !stops || has_nowayout(name),
            "closing {name} stops it, so that an agent that dies leaves its VMs unwatched: load its driver with \
             nowayout=1, or name another device"
        );
        Ok(())
    }

    /// Only when nothing relies on it. Stops it with its close; false if its driver does not allow that.
    pub(super) fn stop(&mut self) -> Result<bool> {
        match self {
            Self::Kernel(file) => stop_kernel(file),
            Self::Socket(socket) => socket.write_all(b"V\n").map(|()| true).context("no close"),
            Self::Demo(seat) => {
                seat.close_watchdog();
                Ok(true)
            }
        }
    }
}

/// Whoever else holds the descriptor, it is stopped at once where that can be asked for; the magic character is for the
/// others.
fn stop_kernel(file: &mut File) -> Result<bool> {
    let stopped = ioctl(file, WDIOC_SETOPTIONS, &mut { WDIOS_DISABLECARD });
    if stopped.is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
        return Ok(false);
    }
    file.write_all(b"V").context("cannot write the magic character")?;
    Ok(true)
}

fn has_nowayout(name: &str) -> bool {
    let device = if name == "/dev/watchdog" { "/dev/watchdog0" } else { name };
    let name = Path::new(device).file_name().unwrap_or_default();
    let setting = Path::new("/sys/class/watchdog").join(name).join("nowayout");
    std::fs::read_to_string(setting).is_ok_and(|text| text.trim() == "1")
}

/// What its driver can do.
#[allow(unsafe_code)]
fn options(file: &File) -> std::io::Result<u32> {
    // `struct watchdog_info`: options, firmware version, identity.
    let mut info = [0_u32; 10];
    // SAFETY: the request writes 40 bytes, the size of `info`; the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), WDIOC_GETSUPPORT as _, info.as_mut_ptr()) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(info[0]) }
}

fn open_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "load the driver of this machine's watchdog (`modprobe softdog` if it has none), \
             or name another device; until then no HA VM is started here"
        }
        ErrorKind::ResourceBusy => {
            "another process holds it: systemd (RuntimeWatchdogSec), watchdog or sbd; \
             only one can; until then no HA VM is started here"
        }
        _ => "until then no HA VM is started here",
    }
}

/// Setting it pings, as the kernel does it.
fn set_kernel_timeout(file: &File, timeout: Millis) -> Result<(Millis, bool)> {
    let mut seconds = i32::try_from(timeout.0 / 1_000).unwrap_or(i32::MAX).max(1);
    let fed = match ioctl(file, WDIOC_SETTIMEOUT, &mut seconds) {
        // Some devices have a fixed time-out; reading it back decides.
        Err(error) if error.kind() == ErrorKind::Unsupported => false,
        result => result.map(|()| true)?,
    };
    Ok((kernel_timeout(file)?, fed))
}

fn kernel_timeout(file: &File) -> Result<Millis> {
    let mut seconds = 0;
    ioctl(file, WDIOC_GETTIMEOUT, &mut seconds)?;
    Ok(Millis(u64::try_from(seconds).unwrap_or(0) * 1_000))
}

#[allow(unsafe_code)]
fn ioctl(file: &File, request: libc::c_ulong, value: &mut i32) -> std::io::Result<()> {
    // SAFETY: all requests used here read or write one int, which `value` is; the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request as _, std::ptr::from_mut(value)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the time-out line, which arms and feeds, and waits for its answer.
fn exchange(socket: &mut UnixStream, timeout: Millis) -> Result<Millis> {
    socket.set_read_timeout(Some(SOCKET_PATIENCE))?;
    socket.set_write_timeout(Some(SOCKET_PATIENCE))?;
    socket.write_all(format!("timeout {}\n", timeout.0).as_bytes())?;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        socket.read_exact(&mut byte).context("no answer to a time-out line")?;
        line.push(byte[0]);
        ensure!(line.len() < 64, "the answer to a time-out line is too long");
    }
    let line = String::from_utf8_lossy(&line);
    let milliseconds = line.trim().strip_prefix("timeout ").and_then(|text| text.parse().ok());
    milliseconds
        .map(Millis)
        .with_context(|| format!("answer {:?}, expected a time-out", line.trim()))
}
