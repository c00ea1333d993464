//! Which guests may execute on this node. The source of truth is `/proc`, never libvirt's word: a
//! guest in uninterruptible sleep can show as shut off there, and still write to its disk.

pub mod pidfd;
pub mod watch;

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};
use steadfast_core::ids::VmId;

/// Names one process for ever within a boot: a process id alone is used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ProcessId {
    /// Process id in this agent's PID namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (source: field 22 of `/proc/PID/stat`).
    pub started: u64,
}

/// A QEMU process of which at least one thread can still execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The VM, by the UUID on its command line, in lower case.
    pub vm: VmId,
    /// The process.
    pub process: ProcessId,
}

/// Names of processes seen before. A dying process loses its command line before its threads.
#[derive(Debug, Clone, Default)]
pub struct Known(BTreeMap<ProcessId, VmId>);

/// Every guest that may execute, whether HA or not (source: `proc`, normally `/proc`).
///
/// # Errors
/// If a process could not be read, or not be named: then nothing is known, least of all that
/// nothing runs. Scan again.
pub fn running(proc: &Path, known: &mut Known) -> anyhow::Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for pid in process_ids(proc)? {
        if is_qemu(&comm(proc, pid)?)
            && let Some(guest) = guest(proc, pid, known)?
        {
            guests.push(guest);
        }
    }
    known.0 = guests.iter().map(|guest| (guest.process, guest.vm.clone())).collect();
    Ok(guests)
}

/// Processes whose command name is one of `names`, e.g. libvirt's daemons.
///
/// # Errors
/// If `proc` could not be read.
pub fn named(proc: &Path, names: &[&str]) -> anyhow::Result<Vec<ProcessId>> {
    let mut found = Vec::new();
    for pid in process_ids(proc)? {
        if names.contains(&comm(proc, pid)?.as_str())
            && let Some(stat) = stat(&proc.join(pid.to_string()).join("stat"))?
            && !stat.is_dead()
        {
            found.push(ProcessId { pid, started: stat.started });
        }
    }
    Ok(found)
}

/// Whether this very process, and not a later one with its number, can still execute.
///
/// # Errors
/// If `proc` could not be read.
pub fn is_alive(proc: &Path, process: ProcessId) -> anyhow::Result<bool> {
    let directory = proc.join(process.pid.to_string());
    match stat(&directory.join("stat"))? {
        Some(stat) if stat.started == process.started => {
            Ok(!stat.is_dead() || live_thread(&directory)?.is_some())
        }
        _ => Ok(false),
    }
}

fn process_ids(proc: &Path) -> anyhow::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc).with_context(|| format!("cannot list {}", proc.display()))? {
        let name = entry.with_context(|| format!("cannot list {}", proc.display()))?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// libvirt's `set_process_name` makes it `qemu:NAME`; the kernel cuts it to 15 bytes.
fn is_qemu(comm: &str) -> bool {
    comm.starts_with("qemu")
}

fn guest(proc: &Path, pid: i32, known: &Known) -> anyhow::Result<Option<Guest>> {
    let directory = proc.join(pid.to_string());
    let Some(stat) = stat(&directory.join("stat"))? else { return Ok(None) };
    let process = ProcessId { pid, started: stat.started };
    let source = if stat.is_dead() {
        // The leader is dead; another thread may hang in storage and write when it answers.
        let Some(thread) = live_thread(&directory)? else { return Ok(None) };
        directory.join("task").join(thread.to_string())
    } else {
        directory.clone()
    };
    if let Some(vm) = known.0.get(&process) {
        return Ok(Some(Guest { vm: vm.clone(), process }));
    }
    let line = read(&source.join("cmdline"))?.unwrap_or_default();
    if !line.is_empty() {
        return Ok(uuid(&line).map(|vm| Guest { vm, process }));
    }
    if !is_alive(proc, process)? {
        return Ok(None);
    }
    bail!("process {pid} is a QEMU that begins or dies: it has threads, and no command line");
}

/// A thread that is neither a zombie nor dead. Uninterruptible sleep is life.
fn live_thread(directory: &Path) -> anyhow::Result<Option<i32>> {
    let entries = match fs::read_dir(directory.join("task")) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error).context("cannot list the threads of a process"),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error).context("cannot list the threads of a process"),
        };
        if let Some(stat) = stat(&entry.path().join("stat"))?
            && !stat.is_dead()
        {
            return Ok(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
    }
    Ok(None)
}

struct Stat {
    state: char,
    started: u64,
}

impl Stat {
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

fn stat(path: &Path) -> anyhow::Result<Option<Stat>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    // The name in parentheses may contain anything, parentheses included.
    let fields = text.rfind(')').map(|end| &text[end + 1..]).unwrap_or_default();
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.chars().next());
    let started = fields.nth(18).and_then(|ticks| ticks.parse().ok());
    match (state, started) {
        (Some(state), Some(started)) => Ok(Some(Stat { state, started })),
        _ => bail!("unreadable {}: {text:?}", path.display()),
    }
}

fn comm(proc: &Path, pid: i32) -> anyhow::Result<String> {
    let bytes = read(&proc.join(pid.to_string()).join("comm"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The bytes, or `None` if the process is gone.
fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn uuid(line: &[u8]) -> Option<VmId> {
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.find(|argument| matches!(*argument, b"-uuid" | b"--uuid"))?;
    let uuid = arguments.next()?;
    Some(VmId(String::from_utf8_lossy(uuid).to_ascii_lowercase()))
}

#[cfg(test)]
mod tests;
