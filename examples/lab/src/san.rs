//! The SAN: one sparse file on the shared directory, and on each node a loop device over it, through the node's own
//! faultfs. Direct I/O on both leaves no cache between the nodes, and the node's fault switch holds for its device.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::lab::{Lab, Node, SHARED, Storage};

/// The device's name in every node: a link to a loop device, which differs.
pub const DEVICE: &str = "/run/lab/san";
const LINK: &str = "san";
/// Sparse: what is never written takes no place.
const SIZE: u64 = 4 << 30;

/// Makes the disk, if this lab has one.
pub fn create(lab: &Lab) -> Result<()> {
    if lab.options.storage == Storage::Directory {
        return Ok(());
    }
    let path = lab.backing().join(file_name(lab));
    let made = File::create(&path).and_then(|file| file.set_len(SIZE));
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// The cable from a node that has just booted to the disk.
pub fn attach(lab: &Lab, node: Node) -> Result<()> {
    if lab.options.storage == Storage::Directory {
        return Ok(());
    }
    detach(lab, node);
    let disk = format!("{SHARED}/{}", file_name(lab));
    let args = ["--direct-io=on", "--find", "--show", &disk];
    let device = lab.exec(node, "losetup", &args)?;
    let link = link(lab, node);
    symlink(device.trim(), &link).with_context(|| format!("cannot make {}", link.display()))
}

/// Loop devices belong to the machine: a node's death alone does not remove its own.
pub fn detach(lab: &Lab, node: Node) {
    let link = link(lab, node);
    let Ok(device) = fs::read_link(&link) else { return };
    if is_ours(lab, &device) {
        let mut losetup = Command::new("losetup");
        let quiet = losetup.arg("-d").arg(&device).stdout(Stdio::null()).stderr(Stdio::null());
        // Whoever else does the same has done it.
        let _ = quiet.status();
    }
    let _ = fs::remove_file(link);
}

/// A stale link may name what is somebody else's by now.
fn is_ours(lab: &Lab, device: &Path) -> bool {
    let name = device.file_name().unwrap_or_default();
    let file = Path::new("/sys/block").join(name).join("loop/backing_file");
    fs::read_to_string(file).is_ok_and(|path| path.contains(&file_name(lab)))
}

fn link(lab: &Lab, node: Node) -> PathBuf {
    lab.sockets(node).join(LINK)
}

/// Names the lab: see `is_ours`.
fn file_name(lab: &Lab) -> String {
    format!("{}-san.img", lab.prefix())
}
