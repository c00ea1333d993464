//! The network between the machines: a hub in this process. Each machine's card is a pair of unix sockets, so nothing is seen by anybody
//! else, and no privilege is needed.

use anyhow::{Context, Result};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;

/// The largest frame.
const FRAME: usize = 65_536;

/// Where QEMU's end of machine `n`'s cable is.
pub fn card(folder: &Path, n: u8) -> PathBuf {
    folder.join(format!("card-{n}"))
}

/// Where the hub's end is.
pub fn port(folder: &Path, n: u8) -> PathBuf {
    folder.join(format!("port-{n}"))
}

/// Connects the machines 1 to `count`, for as long as this process lives.
pub fn start(folder: &Path, count: u8) -> Result<()> {
    for n in 1..=count {
        let path = port(folder, n);
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {path:?}"))?;
        let others: Vec<PathBuf> =
            (1..=count).filter(|other| *other != n).map(|other| card(folder, other)).collect();
        thread::spawn(move || carry(&socket, &others));
    }
    Ok(())
}

/// What a machine sends, all others get; what one that is off or slow does not take is lost, as on a wire.
fn carry(from: &UnixDatagram, to: &[PathBuf]) {
    let Ok(out) = UnixDatagram::unbound() else { return };
    let _ = out.set_nonblocking(true);
    let mut frame = vec![0; FRAME];
    while let Ok(length) = from.recv(&mut frame) {
        for other in to {
            let _ = out.send_to(&frame[..length], other);
        }
    }
}
