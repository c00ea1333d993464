//! faultfs: a FUSE passthrough of one directory with a fault switch, mounted once per node, so
//! that the same shared storage can hang for one node and work for the others.
//!
//! Direct I/O and zero time-outs leave no kernel cache in front of the directory: nodes see each
//! other's writes at once. POSIX and OFD locks are taken on the backing files, so they conflict
//! between nodes; `flock` stays local to a node, as on NFS without its help. It runs inside its
//! node: a power cut takes it away and keeps what it had already handed to the backing file.

mod backing;
mod gate;
mod passthrough;

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fuser::{Config, MountOption, SessionACL};

pub use gate::{Access, Gate, Mode};
use passthrough::Passthrough;

/// Enough that a few slow requests do not stop the others, few enough to cost nothing when idle.
const THREADS: usize = 16;

/// Serves `mountpoint` until the node dies. The control socket appears once the mount is there.
pub fn serve(backing: &Path, mountpoint: &Path, control: &Path) -> Result<()> {
    let gate = Arc::new(Gate::default());
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("faultfs".into()), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(Passthrough::new(backing, gate.clone()), mountpoint, &config)
        .with_context(|| format!("cannot mount faultfs at {}", mountpoint.display()))?;
    let listener = UnixListener::bind(control)
        .with_context(|| format!("cannot listen on {}", control.display()))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away in the middle is its own problem.
            let _ = answer(stream, &gate);
        }
    });
    session.join().context("the faultfs session ended")
}

fn answer(mut stream: UnixStream, gate: &Gate) -> io::Result<()> {
    let mut buffer = [0; 128];
    let length = stream.read(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
    match text.parse() {
        _ if text == "status" => writeln!(stream, "{}", gate.describe()),
        Ok(mode) => {
            gate.set(mode);
            writeln!(stream, "{}", gate.describe())
        }
        Err(error) => writeln!(stream, "error: {error}"),
    }
}

/// Switches the storage of the node whose faultfs listens at `control`.
pub fn set_mode(control: &Path, mode: Mode) -> Result<String> {
    ask(control, &mode.to_string())
}

/// The mode in force and the number of requests that wait.
pub fn describe(control: &Path) -> Result<String> {
    ask(control, "status")
}

fn ask(control: &Path, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(control).with_context(|| {
        format!("cannot reach faultfs at {}: is the node powered on?", control.display())
    })?;
    // A node that is stalled does not answer.
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(request.as_bytes())?;
    let mut reply = String::new();
    stream
        .read_to_string(&mut reply)
        .with_context(|| format!("faultfs did not answer {request:?} within 2 s"))?;
    let reply = reply.trim().to_owned();
    if reply.starts_with("error") {
        bail!("faultfs refused {request:?}: {reply}");
    }
    Ok(reply)
}
