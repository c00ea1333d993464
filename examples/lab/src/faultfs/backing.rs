//! What the requests do to the backing directory.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileHandle, FileType, INodeNo, LockOwner, TimeOrNow};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const ROOT: u64 = 1;
/// Flags of the caller that change what happens. O_DIRECT is for the kernel in front, and O_SYNC
/// asks for what is true here of every write (see `fsync`).
const KEPT_FLAGS: i32 = libc::O_TRUNC | libc::O_EXCL;
/// A waiter that was killed cannot be told from one that waits: nobody waits for ever.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const LOCK_RETRY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct OpenFile {
    pub file: File,
    inode: u64,
}

/// One lock owner's own open file description on a file, which carries its OFD locks.
#[derive(Debug)]
struct OwnerLocks {
    file: Arc<File>,
    handle: u64,
}

/// The directory, and what the kernel holds of it.
#[derive(Debug)]
pub struct Backing {
    pub root: PathBuf,
    /// Inode -> path below the root.
    paths: Mutex<HashMap<u64, PathBuf>>,
    files: Mutex<HashMap<u64, Arc<OpenFile>>>,
    locks: Mutex<HashMap<(u64, u64), OwnerLocks>>,
    next_handle: AtomicU64,
}

impl Backing {
    pub fn new(root: &Path) -> Self {
        Backing {
            root: root.to_owned(),
            paths: Mutex::default(),
            files: Mutex::default(),
            locks: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    pub fn path(&self, inode: INodeNo) -> Result<PathBuf, Errno> {
        if inode.0 == ROOT {
            return Ok(self.root.clone());
        }
        let paths = held(&self.paths);
        let relative = paths.get(&inode.0).ok_or(Errno::ESTALE)?;
        Ok(self.root.join(relative))
    }

    /// It lies somewhere below this folder of the root.
    pub fn is_below(&self, inode: INodeNo, folder: &str) -> bool {
        self.path(inode).is_ok_and(|path| path.starts_with(self.root.join(folder)))
    }

    pub fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        Ok(self.path(parent)?.join(name))
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    pub fn entry(&self, path: &Path) -> Result<FileAttr, Errno> {
        let metadata = fs::symlink_metadata(path)?;
        held(&self.paths).insert(metadata.ino(), self.relative(path));
        Ok(attributes(&metadata, metadata.ino()))
    }

    pub fn remember(&self, file: File, inode: u64) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        held(&self.files).insert(handle, Arc::new(OpenFile { file, inode }));
        FileHandle(handle)
    }

    pub fn file(&self, handle: FileHandle) -> Result<Arc<OpenFile>, Errno> {
        held(&self.files).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    pub fn attributes_of(
        &self,
        inode: INodeNo,
        handle: Option<FileHandle>,
    ) -> Result<FileAttr, Errno> {
        let metadata = match handle.and_then(|handle| self.file(handle).ok()) {
            Some(open) => open.file.metadata()?,
            None => fs::symlink_metadata(self.path(inode)?)?,
        };
        Ok(attributes(&metadata, inode.0))
    }

    pub fn change(&self, inode: INodeNo, change: &Change) -> Result<FileAttr, Errno> {
        let path = self.path(inode)?;
        if let Some(mode) = change.mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            lchown(&path, change.uid, change.gid)?;
        }
        if let Some(size) = change.size {
            OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        }
        if change.accessed.is_some() || change.modified.is_some() {
            let mut times = FileTimes::new();
            if let Some(time) = change.accessed {
                times = times.set_accessed(time);
            }
            if let Some(time) = change.modified {
                times = times.set_modified(time);
            }
            File::open(&path)?.set_times(times)?;
        }
        self.attributes_of(inode, None)
    }

    pub fn open_file(&self, inode: INodeNo, flags: i32) -> Result<FileHandle, Errno> {
        let access = flags & libc::O_ACCMODE;
        let file = OpenOptions::new()
            .read(access != libc::O_WRONLY)
            .write(access != libc::O_RDONLY)
            .custom_flags(flags & KEPT_FLAGS)
            .open(self.path(inode)?)?;
        Ok(self.remember(file, inode.0))
    }

    pub fn create_file(&self, path: &Path, mode: u32, flags: i32) -> Result<File, Errno> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(mode);
        Ok(options.custom_flags(flags & KEPT_FLAGS).open(path)?)
    }

    pub fn read_at(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let open = self.file(handle)?;
        let mut buffer = vec![0; size as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            match open.file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                length => filled += length,
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    pub fn move_path(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        fs::rename(from, to)?;
        let (from, to) = (self.relative(from), self.relative(to));
        for path in held(&self.paths).values_mut() {
            if let Ok(rest) = path.strip_prefix(&from) {
                let rest = rest.to_owned();
                // `join` with an empty rest would add a slash at the end.
                *path = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
            }
        }
        Ok(())
    }

    pub fn list(&self, inode: INodeNo) -> Result<Vec<(INodeNo, FileType, OsString)>, Errno> {
        let mut entries = vec![
            (inode, FileType::Directory, ".".into()),
            (inode, FileType::Directory, "..".into()),
        ];
        for entry in fs::read_dir(self.path(inode)?)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            let number = entry.metadata().map_or(u64::MAX, |metadata| metadata.ino());
            entries.push((INodeNo(number), kind, entry.file_name()));
        }
        Ok(entries)
    }

    pub fn lock_file(&self, owner: LockOwner, handle: FileHandle) -> Result<Arc<File>, Errno> {
        let open = self.file(handle)?;
        let mut locks = held(&self.locks);
        if let Some(held) = locks.get(&(open.inode, owner.0)) {
            return Ok(held.file.clone());
        }
        // Through /proc, because the file may have been renamed or removed since it was opened.
        let path = format!("/proc/self/fd/{}", open.file.as_raw_fd());
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        let mine = OwnerLocks { file: file.clone(), handle: handle.0 };
        locks.insert((open.inode, owner.0), mine);
        Ok(file)
    }

    /// A close by this owner.
    pub fn forget_owner(&self, inode: INodeNo, owner: LockOwner) {
        held(&self.locks).remove(&(inode.0, owner.0));
    }

    /// The last close of the file.
    pub fn forget(&self, handle: FileHandle) {
        held(&self.locks).retain(|_, locks| locks.handle != handle.0);
        held(&self.files).remove(&handle.0);
    }

    pub fn set_lock(file: &File, lock: &libc::flock, wait: bool) -> Result<(), Errno> {
        let start = Instant::now();
        loop {
            match fcntl(file, FcntlArg::F_OFD_SETLK(lock)) {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) if wait => {
                    if start.elapsed() > LOCK_WAIT {
                        return Err(Errno::EDEADLK);
                    }
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(Errno::from_i32(error as i32)),
            }
        }
    }
}

#[derive(Debug)]
pub struct Change {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<SystemTime>,
    pub modified: Option<SystemTime>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => time,
    }
}

fn attributes(metadata: &fs::Metadata, inode: u64) -> FileAttr {
    let time = |seconds: i64, nanos: i64| {
        let nanos = u32::try_from(nanos).unwrap_or(0);
        UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), nanos)
    };
    FileAttr {
        ino: INodeNo(inode),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0),
        nlink: u32::try_from(metadata.nlink()).unwrap_or(1),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub fn record_lock(start: u64, end: u64, kind: i32) -> libc::flock {
    let length = if end >= i64::MAX as u64 { 0 } else { end - start + 1 };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or(i16::MAX),
        l_whence: 0,
        l_start: i64::try_from(start).unwrap_or(i64::MAX),
        l_len: i64::try_from(length).unwrap_or(0),
        l_pid: 0,
    }
}
