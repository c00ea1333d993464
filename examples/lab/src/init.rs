//! The first process of a node: gives the node its own files, then reaps orphans for ever.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};

use crate::lab::{Lab, Node};
use crate::sys;

/// Present in the node's home when it is powered on; holds the boot id.
pub const READY: &str = "ready";
/// Folders that a node has for itself, besides `/etc`, `/run`, `/mnt` and `/dev/shm`.
pub const PRIVATE: [&str; 5] = [
    "/var/lib/corosync",
    "/var/lib/libvirt",
    "/var/lib/steadfast",
    "/var/cache/libvirt",
    "/var/log",
];

const NONE: Option<&str> = None;

/// Runs as process 1 of a node's PID namespace. Never returns unless the node cannot start.
pub fn run(lab: &Lab, node: Node) -> Result<()> {
    let home = lab.home(node);
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make the node's mount namespace")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("cannot make the node's mounts private")?;
    bind(&home.join("etc"), Path::new("/etc"))?;
    for path in PRIVATE {
        bind(&home.join(&path[1..]), Path::new(path))?;
    }
    let boot_id =
        fs::read_to_string("/proc/sys/kernel/random/uuid").context("cannot make a boot id")?;
    mount_kernel_files(&home, &boot_id)?;
    mount_memory(&lab.sockets(node))?;
    sethostname(node.to_string()).context("cannot set the host name")?;
    sys::write(&home.join(READY), boot_id)?;
    reap_for_ever()
}

/// A fresh `/proc` and `/sys`. The boot id must differ from node to node and from boot to boot,
/// and no process in the node may reach what resets the machine under the lab.
fn mount_kernel_files(home: &Path, boot_id: &str) -> Result<()> {
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE)
        .context("cannot mount /proc")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE)
        .context("cannot mount /sys")?;
    let file = home.join("boot_id");
    sys::write(&file, boot_id)?;
    bind(&file, Path::new("/proc/sys/kernel/random/boot_id"))?;
    // The kernel log is the machine's too: a node's last words would alarm its operator.
    for path in ["/proc/sysrq-trigger", "/dev/kmsg"].map(Path::new) {
        if path.exists() {
            bind(Path::new("/dev/null"), path)?;
        }
    }
    Ok(())
}

/// Fresh memory file systems. The new `/run` is built aside, because the sockets lie in the old.
fn mount_memory(sockets: &Path) -> Result<()> {
    memory("/mnt", "mode=755")?;
    sys::make_dir(Path::new("/mnt/run"))?;
    memory("/mnt/run", "mode=755")?;
    for name in ["lab", "lock", "libvirt", "steadfast"] {
        sys::make_dir(&Path::new("/mnt/run").join(name))?;
    }
    bind(sockets, Path::new("/mnt/run/lab"))?;
    mount(Some("/mnt/run"), "/run", NONE, MsFlags::MS_MOVE, NONE).context("cannot move /run")?;
    fs::remove_dir("/mnt/run")?;
    sys::make_dir(Path::new(crate::lab::SHARED))?;
    memory("/dev/shm", "mode=1777")
}

fn memory(path: &str, options: &str) -> Result<()> {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount memory at {path}"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
}

fn reap_for_ever() -> Result<()> {
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    child_ended.thread_block()?;
    loop {
        while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        child_ended.wait()?;
    }
}
