//! The drop folder: noticed by events where the file system has them, by a rescan anyway.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::{PolicyStatus, PolicyStore};

/// The folder must have been quiet for so long before it is read...
const SETTLE: Duration = Duration::from_millis(300);
/// ...but an always busy one is read after this.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);
/// After this it is looked at, and what is new compiled ahead: whoever copies a file has mostly ended by then.
const LOOK: Duration = Duration::from_millis(50);
/// Niceness of the loading thread: a compilation must not cost a heartbeat, nor wait for ever on a busy node.
const NICE: i32 = 5;
/// Stack of the loading thread: the compiler's recursion.
const STACK_BYTES: usize = 4 << 20;

/// What wakes the loading thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Something changed in the folder.
    Changed,
    /// A policy failed: tell the listener.
    Publish,
    /// The store is gone.
    Stop,
}

/// Starts the thread that loads, compiles and tells.
pub(super) fn spawn(
    store: Weak<PolicyStore>,
    folder: PathBuf,
    (wake, woken): (Sender<Message>, Receiver<Message>),
    on_change: impl Fn(&PolicyStatus) + Send + 'static,
    every: Duration,
) -> std::io::Result<()> {
    let work = move || {
        step_back();
        let mut eyes = Eyes::new(folder, wake);
        loop {
            eyes.open();
            let Some(holder) = store.upgrade() else { return };
            holder.scan();
            holder.publish(&on_change);
            drop(holder);
            let publish = || store.upgrade().iter().for_each(|store| store.publish(&on_change));
            let look_ahead = || store.upgrade().iter().for_each(|store| store.look_ahead());
            if wait(&woken, every, publish, look_ahead) == Next::Stop {
                return;
            }
        }
    };
    std::thread::Builder::new().name("policy-load".into()).stack_size(STACK_BYTES).spawn(work)?;
    Ok(())
}

/// The folder's modules, in the order of their names; none if it cannot be read. Names that begin with a
/// dot are left alone: they are for files under way.
pub(super) fn modules(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "wasm"));
    files.retain(|path| !name(path).starts_with('.'));
    files.sort();
    files
}

/// The file's name, for people and as a key.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns what compiling left behind to the system: free heap, and the compiler's own code, which idles from now on. What is
/// needed of that code comes back from the page cache.
#[allow(unsafe_code)]
pub(super) fn give_back_memory() {
    // SAFETY: takes no pointers, is thread-safe and never fails.
    unsafe { libc::malloc_trim(0) };
    for (start, length) in own_code() {
        // SAFETY: an unmodified, read-only mapping of our own file: dropped pages are read again when they are touched.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Where the kernel has mapped this program's code: (address, length in bytes).
fn own_code() -> Vec<(usize, usize)> {
    let Ok(program) = std::env::current_exe() else { return Vec::new() };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return Vec::new() };
    let name = program.to_string_lossy();
    let code = maps.lines().filter(|line| line.ends_with(&*name) && line.contains(" r-xp "));
    code.filter_map(address_range).collect()
}

fn address_range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some((start, end.checked_sub(start)?))
}

/// The loading thread is the first to wait for the CPU, whoever started it.
#[allow(unsafe_code)]
pub(super) fn step_back() {
    let ordinary = libc::sched_param { sched_priority: 0 };
    // SAFETY: both calls take the calling thread (0) and plain values; failing, they change nothing.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Scan,
    Stop,
}

/// Waits until the folder should be read again: after an event, or `every` so often.
fn wait(
    woken: &Receiver<Message>,
    every: Duration,
    publish: impl Fn(),
    look_ahead: impl Fn(),
) -> Next {
    let rescan = Instant::now() + every;
    let mut scan_at = rescan;
    let mut latest = rescan;
    let mut look_at = None;
    loop {
        let until = look_at.map_or(scan_at, |look_at| scan_at.min(look_at));
        match woken.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Message::Changed) => {
                let now = Instant::now();
                latest = latest.min(now + SETTLE_AT_MOST);
                scan_at = latest.min(now + SETTLE);
                look_at = Some(now + LOOK);
            }
            Ok(Message::Publish) => publish(),
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
            Err(RecvTimeoutError::Timeout) => match look_at.take() {
                // What happens meanwhile waits, and counts from then on: it is settled later, not earlier.
                Some(look_at) if look_at < scan_at => look_ahead(),
                _ => return Next::Scan,
            },
        }
    }
}

/// Watches the folder, and its parent for the folder's coming and going.
struct Eyes {
    folder: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of what is watched: a new folder of the same name is another one.
    watched: Vec<(PathBuf, u64, u64)>,
}

impl Eyes {
    fn new(folder: PathBuf, wake: Sender<Message>) -> Self {
        let ours = folder.clone();
        let seen = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| concerns(&ours, &event)) {
                // Without a loading thread there is nobody to wake.
                let _ = wake.send(Message::Changed);
            }
        };
        let watcher = notify::recommended_watcher(seen);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "policy folder is not watched, only rescanned");
        }
        Self { folder, watcher: watcher.ok(), watched: Vec::new() }
    }

    /// Watches what is there now.
    fn open(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let places = [Some(self.folder.as_path()), self.folder.parent()];
        let there: Vec<_> = places.into_iter().flatten().filter_map(identity).collect();
        if there == self.watched {
            return;
        }
        for (path, ..) in self.watched.drain(..) {
            // It may have gone with its folder.
            let _ = watcher.unwatch(&path);
        }
        for place in there {
            match watcher.watch(&place.0, RecursiveMode::NonRecursive) {
                Ok(()) => self.watched.push(place),
                Err(error) => {
                    tracing::warn!(path = %place.0.display(), %error, "folder is only rescanned");
                }
            }
        }
    }
}

fn identity(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((path.to_path_buf(), about.dev(), about.ino()))
}

/// Whether the event is about the folder, and more than a look at it.
fn concerns(folder: &Path, event: &notify::Event) -> bool {
    let only_a_look = match event.kind {
        EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
        _ => false,
    };
    !only_a_look && (event.need_rescan() || event.paths.iter().any(|it| it.starts_with(folder)))
}
