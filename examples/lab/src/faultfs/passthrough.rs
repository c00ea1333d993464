//! The file system: every request passes the gate, then goes to the backing directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLock, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use nix::fcntl::{FcntlArg, fcntl};

use super::backing::{Backing, Change, moment, record_lock};
use super::gate::{Access, Gate};

const NO_CACHE: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
/// Where guests' disks are.
const DISKS: &str = "disks";

#[derive(Debug)]
pub struct Passthrough {
    gate: Arc<Gate>,
    backing: Backing,
}

impl Passthrough {
    pub fn new(root: &Path, gate: Arc<Gate>) -> Self {
        Passthrough { gate, backing: Backing::new(root) }
    }
}

/// The value, or the error sent to the kernel and the end of the request.
macro_rules! ok_or_reply {
    ($result:expr, $reply:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return $reply.error(Errno::from(error)),
        }
    };
}

/// Sends the outcome of a request that answers nothing but success.
macro_rules! finish {
    ($result:expr, $reply:expr) => {
        match $result {
            Ok(()) => $reply.ok(),
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config.add_capabilities(InitFlags::FUSE_POSIX_LOCKS).map_err(|_| {
            io::Error::other("this kernel's FUSE does not forward POSIX locks: Linux 2.6.24+ does")
        })
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let path = ok_or_reply!(self.backing.child(parent, name), reply);
        let found = ok_or_reply!(self.backing.entry(&path), reply);
        reply.entry(&NO_CACHE, &found, GENERATION);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let found = ok_or_reply!(self.backing.attributes_of(inode, handle), reply);
        reply.attr(&NO_CACHE, &found);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        let (accessed, modified) = (accessed.map(moment), modified.map(moment));
        let change = Change { mode, uid, gid, size, accessed, modified };
        let found = ok_or_reply!(self.backing.change(inode, &change), reply);
        reply.attr(&NO_CACHE, &found);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        let path = ok_or_reply!(self.backing.child(parent, name), reply);
        ok_or_reply!(fs::DirBuilder::new().mode(mode & !umask).create(&path), reply);
        let made = ok_or_reply!(self.backing.entry(&path), reply);
        reply.entry(&NO_CACHE, &made, GENERATION);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        let path = ok_or_reply!(self.backing.child(parent, name), reply);
        finish!(fs::remove_file(path), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        let path = ok_or_reply!(self.backing.child(parent, name), reply);
        finish!(fs::remove_dir(path), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        if !flags.is_empty() {
            // Callers fall back to the plain rename, as they must on NFS.
            return reply.error(Errno::EINVAL);
        }
        let from = ok_or_reply!(self.backing.child(parent, name), reply);
        let to = ok_or_reply!(self.backing.child(new_parent, new_name), reply);
        finish!(self.backing.move_path(&from, &to), reply);
    }

    fn link(
        &self,
        _: &Request,
        inode: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        let from = ok_or_reply!(self.backing.path(inode), reply);
        let to = ok_or_reply!(self.backing.child(new_parent, new_name), reply);
        ok_or_reply!(fs::hard_link(from, &to), reply);
        let made = ok_or_reply!(self.backing.entry(&to), reply);
        reply.entry(&NO_CACHE, &made, GENERATION);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let handle = ok_or_reply!(self.backing.open_file(inode, flags.0), reply);
        reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        let path = ok_or_reply!(self.backing.child(parent, name), reply);
        let file = ok_or_reply!(self.backing.create_file(&path, mode & !umask, flags), reply);
        let made = ok_or_reply!(self.backing.entry(&path), reply);
        let handle = self.backing.remember(file, made.ino.0);
        reply.created(&NO_CACHE, &made, GENERATION, handle, FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let data = ok_or_reply!(self.backing.read_at(handle, offset, size), reply);
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        ok_or_reply!(self.gate.pass(Access::Write), reply);
        self.gate.pass_write(|| self.backing.is_below(inode, DISKS));
        let open = ok_or_reply!(self.backing.file(handle), reply);
        ok_or_reply!(open.file.write_all_at(data, offset), reply);
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    /// A close drops the owner's POSIX locks. Not gated: a killed process must be able to end.
    fn flush(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.backing.forget_owner(inode, owner);
        reply.ok();
    }

    /// The last close: nobody else tells us that the OFD locks of this open file are gone.
    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.backing.forget(handle);
        reply.ok();
    }

    /// The host's page cache is the cache of this storage array: it survives every power cut that
    /// the lab can do, so a write is safe when it is acknowledged, as with a battery behind it.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        finish!(self.gate.pass(Access::Write), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let entries = ok_or_reply!(self.backing.list(inode), reply);
        for (number, (entry, kind, name)) in (1..).zip(entries) {
            if number > offset && reply.add(entry, number, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        match nix::sys::statvfs::statvfs(&self.backing.root) {
            Ok(found) => {
                let size = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                reply.statfs(
                    found.blocks(),
                    found.blocks_free(),
                    found.blocks_available(),
                    found.files(),
                    found.files_free(),
                    size(found.block_size()),
                    size(found.name_max()),
                    size(found.fragment_size()),
                );
            }
            Err(error) => reply.error(Errno::from_i32(error as i32)),
        }
    }

    fn getlk(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _: u32,
        reply: ReplyLock,
    ) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let file = ok_or_reply!(self.backing.lock_file(owner, handle), reply);
        let mut lock = record_lock(start, end, kind);
        if let Err(error) = fcntl(&*file, FcntlArg::F_OFD_GETLK(&mut lock)) {
            return reply.error(Errno::from_i32(error as i32));
        }
        let start = u64::try_from(lock.l_start).unwrap_or(0);
        let end = match u64::try_from(lock.l_len).unwrap_or(0) {
            0 => i64::MAX as u64,
            length => start + length - 1,
        };
        reply.locked(start, end, i32::from(lock.l_type), 0);
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        ok_or_reply!(self.gate.pass(Access::Read), reply);
        let file = ok_or_reply!(self.backing.lock_file(owner, handle), reply);
        finish!(Backing::set_lock(&file, &record_lock(start, end, kind), wait), reply);
    }
}
