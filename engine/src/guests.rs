//! Which guests may execute on this node. The source of truth is `/proc`, never libvirt's word: a
//! guest in uninterruptible sleep can show as shut off there, and still write to its disk.

pub mod pidfd;
pub mod watch;

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::io::Read as _;
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

/// Processes seen before. A dying one loses its command line before its threads; and a command line is
/// read once where it can be: it costs more than all else, and waits for whoever changes that process's
/// memory map.
#[derive(Debug, Clone, Default)]
pub struct Known(BTreeMap<ProcessId, Seen>);

#[derive(Debug, Clone)]
struct Seen {
    /// Its command name: another one means that it executes another program.
    comm: String,
    /// The guest that it is.
    vm: Option<VmId>,
    /// It was older than [`YOUNG`] then: what it is, it stays.
    settled: bool,
}

/// In clock ticks. A younger process may become QEMU without a new command name.
const YOUNG: u64 = 500;
/// Clock ticks per second in `/proc`, on every architecture that has KVM.
const TICKS: u64 = 100;
/// A command line of QEMU's has some kilobytes, everything else less than one.
const FIRST_READ: usize = 1_024;
/// A thread of the kernel (source: `PF_KTHREAD`). KVM's are named like QEMU's links: `kvm-pit/PID`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Every guest that may execute, whether HA or not (source: `proc`, normally `/proc`).
///
/// # Errors
/// If a process could not be read, or not be named: then nothing is known, least of all that
/// nothing runs. Scan again.
pub fn running(proc: &Path, known: &mut Known) -> anyhow::Result<Vec<Guest>> {
    let now = uptime(proc)?;
    let mut seen = BTreeMap::new();
    for pid in process_ids(proc)? {
        seen.extend(look(proc, pid, now, known)?);
    }
    known.0 = seen;
    let guests = known.0.iter();
    Ok(guests.filter_map(|(id, seen)| Some(Guest { vm: seen.vm.clone()?, process: *id })).collect())
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

/// What process `pid` is; `None` if it cannot execute, or belongs to the kernel.
fn look(
    proc: &Path,
    pid: i32,
    now: u64,
    known: &Known,
) -> anyhow::Result<Option<(ProcessId, Seen)>> {
    let directory = proc.join(pid.to_string());
    let Some(stat) = stat(&directory.join("stat"))? else { return Ok(None) };
    if stat.flags & KERNEL_THREAD != 0 {
        return Ok(None);
    }
    let process = ProcessId { pid, started: stat.started };
    let source = if stat.is_dead() {
        // The leader is dead; another thread may hang in storage and write when it answers.
        let Some(thread) = live_thread(&directory)? else { return Ok(None) };
        directory.join("task").join(thread.to_string())
    } else {
        directory
    };
    let before = known.0.get(&process);
    if let Some(seen) = before
        && seen.comm == stat.comm
        && (seen.settled || seen.vm.is_some())
    {
        return Ok(Some((process, seen.clone())));
    }
    let line = read(&source.join("cmdline"))?.unwrap_or_default();
    let vm = if !line.is_empty() {
        guest(&stat.comm, &line)
    } else if let Some(vm) = before.and_then(|seen| seen.vm.clone()) {
        Some(vm)
    } else if is_qemu(&stat.comm) && is_alive(proc, process)? {
        bail!("process {pid} is a QEMU that begins or dies: it has threads, and no command line");
    } else {
        None
    };
    let settled = now.saturating_sub(stat.started) >= YOUNG;
    Ok(Some((process, Seen { comm: stat.comm, vm, settled })))
}

/// libvirt's `set_process_name` makes it `qemu:NAME`; the kernel cuts it to 15 bytes.
fn is_qemu(comm: &str) -> bool {
    comm.starts_with("qemu") || comm.starts_with("kvm")
}

/// The guest that a process with this command line runs. A renamed QEMU, and a script around it, is known
/// by the arguments that libvirt gives.
fn guest(comm: &str, line: &[u8]) -> Option<VmId> {
    let vm = uuid(line)?;
    (is_qemu(comm) || (is_uuid(&vm.0) && is_machine(line))).then_some(vm)
}

fn is_uuid(text: &str) -> bool {
    let hyphens = [8, 13, 18, 23];
    let fits = |(at, byte): (usize, u8)| match hyphens.contains(&at) {
        true => byte == b'-',
        false => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

fn is_machine(line: &[u8]) -> bool {
    let mut arguments = line.split(|byte| *byte == 0);
    while let Some(argument) = arguments.next() {
        match argument {
            b"-machine" | b"--machine" => return true,
            b"-name" | b"--name" => {
                let name = arguments.next().unwrap_or_default();
                if name.split(|byte| *byte == b',').any(|part| part.starts_with(b"guest=")) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// Clock ticks since boot, as start times count.
fn uptime(proc: &Path) -> anyhow::Result<u64> {
    let path = proc.join("uptime");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path:?}"))?;
    let seconds = text.split('.').next().and_then(|seconds| seconds.trim().parse::<u64>().ok());
    let seconds = seconds.with_context(|| format!("unreadable {path:?}: {text:?}"))?;
    Ok(seconds * TICKS)
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
    comm: String,
    state: char,
    flags: u64,
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
    let (begin, end) = (text.find('('), text.rfind(')'));
    let (Some(begin), Some(end)) = (begin, end) else { bail!("unreadable {}", path.display()) };
    let comm = text.get(begin + 1..end).unwrap_or_default().to_owned();
    let mut fields = text[end + 1..].split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.chars().next());
    let flags = fields.nth(5).and_then(|flags| flags.parse().ok());
    let started = fields.nth(12).and_then(|ticks| ticks.parse().ok());
    match (state, flags, started) {
        (Some(state), Some(flags), Some(started)) => Ok(Some(Stat { comm, state, flags, started })),
        _ => bail!("unreadable {}: {text:?}", path.display()),
    }
}

fn comm(proc: &Path, pid: i32) -> anyhow::Result<String> {
    let bytes = read(&proc.join(pid.to_string()).join("comm"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The bytes, or `None` if the process is gone. These files give less than was asked for only at their end.
fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let get = || -> io::Result<Vec<u8>> {
        let (mut file, mut bytes) = (fs::File::open(path)?, vec![0; FIRST_READ]);
        // Not `fs::read`: it asks for the size first, which says nothing here.
        let count = file.read(&mut bytes)?;
        if count < FIRST_READ {
            bytes.truncate(count);
        } else {
            file.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    match get() {
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
