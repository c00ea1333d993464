//! Files read and written past the client's cache.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::format::BLOCK;

/// How often the path is compared with the open file: a remount or a replaced file must not leave us
/// reading one that nobody else writes.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// Bytes at an address that O_DIRECT accepts.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// Zeroed, of `length` bytes.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, start, length }
    }

    /// The bytes.
    #[must_use]
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    /// The bytes.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing. Never creates the file: its directory may be a mount point without its mount.
    Write,
}

/// A file, or a stretch of a device: where a page, a body or a blob lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// The file or device.
    pub path: PathBuf,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How many bytes it can hold.
    pub room: u64,
}

impl Area {
    /// A whole file.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self { path, start: 0, room: u64::MAX }
    }

    /// Where `length` bytes at `offset` of this area lie in the file.
    fn place(&self, offset: u64, length: usize) -> Result<u64> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.room);
        let (path, room) = (self.path.display(), self.room);
        ensure!(
            end.is_some(),
            "{length} bytes at {offset} do not fit into the {room} bytes that {path} has for them: \
             use a store in a directory, whose files can grow"
        );
        Ok(self.start + offset)
    }
}

/// An area whose file is kept open, and opened anew when that may help.
#[derive(Debug)]
pub struct DirectFile {
    area: Area,
    access: Access,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Opened with O_DIRECT.
    direct: bool,
    identity: Identity,
    compared: Instant,
}

impl DirectFile {
    /// Opened at the first use.
    #[must_use]
    pub fn new(area: Area, access: Access) -> Self {
        Self { area, access, open: None }
    }

    /// Reads from `offset` until `buffer` is full or the file ends; returns the number of bytes read.
    ///
    /// # Errors
    /// The system's, with the path. The file is opened anew at the next use.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let at = self.area.place(offset, buffer.len())?;
        self.with_open(|open| open.read(at, buffer), "read")
    }

    /// Writes `bytes` (whole blocks, aligned) at `offset`; they are on stable storage when it returns.
    ///
    /// # Errors
    /// The system's, with the path. How much was written is unknown.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = self.area.place(offset, bytes.len())?;
        self.with_open(|open| open.write(at, bytes), "write")
    }

    fn with_open<T>(
        &mut self,
        mut work: impl FnMut(&mut Open) -> std::io::Result<T>,
        verb: &str,
    ) -> Result<T> {
        let Self { area, access, open } = self;
        let path = &area.path;
        close_if_replaced(path, open)?;
        let mut open_file = match open.take() {
            Some(open_file) => open_file,
            None => Open::new(path, *access, true)?,
        };
        let mut result = work(&mut open_file);
        if open_file.direct && result.as_ref().is_err_and(|e| e.kind() == ErrorKind::InvalidInput) {
            // Some file systems accept O_DIRECT when opening and refuse it when used.
            open_file = Open::new(path, *access, false)?;
            result = work(&mut open_file);
        }
        if result.is_ok() {
            *open = Some(open_file);
        }
        result.with_context(|| format!("cannot {verb} {}", path.display()))
    }
}

fn close_if_replaced(path: &Path, open: &mut Option<Open>) -> Result<()> {
    let Some(current) = open else { return Ok(()) };
    if current.compared.elapsed() < COMPARE_EVERY {
        return Ok(());
    }
    current.compared = Instant::now();
    let identity = current.identity;
    let seen = std::fs::metadata(path).map(|found| identity_of(&found));
    if !seen.as_ref().is_ok_and(|seen| *seen == identity) {
        *open = None;
    }
    seen.with_context(|| format!("cannot find {} any more", path.display()))?;
    Ok(())
}

/// What tells a file from the next one at the same path: device, inode, and for a device node the device.
type Identity = (u64, u64, u64);

fn identity_of(found: &Metadata) -> Identity {
    (found.dev(), found.ino(), found.rdev())
}

impl Open {
    /// Opens with O_DIRECT, or without where that is refused and does no harm.
    fn new(path: &Path, access: Access, direct: bool) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(access == Access::Read).write(access == Access::Write);
        let sync = if access == Access::Write { libc::O_DSYNC } else { 0 };
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let file = match options.custom_flags(flags | sync).open(path) {
            Err(error) if direct && error.kind() == ErrorKind::InvalidInput => {
                return Self::new(path, access, false);
            }
            result => result.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let found = file.metadata().with_context(|| format!("cannot stat {}", path.display()))?;
        if !direct {
            must_not_be_device(path, &found)?;
            let kind =
                file_system(&file).with_context(|| format!("cannot stat {}", path.display()))?;
            must_be_coherent(path, kind)?;
            say_indirect(path);
        }
        let identity = identity_of(&found);
        Ok(Self { file, direct, identity, compared: Instant::now() })
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.drop_cache();
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // A direct read that ends off a block is the end of the file.
            if self.direct && done % BLOCK != 0 {
                break;
            }
        }
        Ok(done)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        if !self.direct {
            self.file.sync_data()?;
            self.drop_cache();
        }
        Ok(())
    }

    /// Asks the kernel to forget cached pages of this file, where O_DIRECT does not do it.
    #[allow(unsafe_code)]
    fn drop_cache(&self) {
        if self.direct {
            return;
        }
        // SAFETY: no memory is passed; the descriptor is open.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

/// File systems on which every node that can mount them reads what was written last, through the cache too:
/// those of one node, and those that lock across nodes.
const COHERENT: [i64; 7] = [
    libc::EXT4_SUPER_MAGIC,
    libc::XFS_SUPER_MAGIC,
    libc::BTRFS_SUPER_MAGIC,
    libc::TMPFS_MAGIC,
    libc::OVERLAYFS_SUPER_MAGIC,
    libc::OCFS2_SUPER_MAGIC,
    // GFS2.
    0x0116_1970,
];

/// A stale page is a wrong fact: a node that reads its admission from a cache renews its lease after its
/// eviction.
fn must_be_coherent(path: &Path, kind: i64) -> Result<()> {
    ensure!(
        COHERENT.contains(&kind),
        "{} cannot be read past the cache: its file system (type {kind:#x}) refuses O_DIRECT, and what it \
         caches may be older than what another node wrote, so that this node could miss its own eviction: \
         put the store on NFS, GFS2, OCFS2 or another shared file system that supports O_DIRECT",
        path.display()
    );
    Ok(())
}

/// A device's node lies on a coherent file system; what is behind it is another matter.
fn must_not_be_device(path: &Path, found: &Metadata) -> Result<()> {
    ensure!(
        !found.file_type().is_block_device(),
        "{} refuses O_DIRECT in blocks of {BLOCK} bytes, and this node's cache in front of a device may be \
         older than what another node wrote: use a device with sectors of at most {BLOCK} bytes",
        path.display()
    );
    Ok(())
}

/// The magic number of the file system that holds `file`.
#[allow(unsafe_code)]
fn file_system(file: &File) -> std::io::Result<i64> {
    // SAFETY: a zeroed statfs is valid, and fstatfs only writes into it; the descriptor is open.
    let (result, found) = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut found), found)
    };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(found.f_type) }
}

fn say_indirect(path: &Path) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let path = path.display();
        tracing::info!(%path, "no O_DIRECT here, using fdatasync and dropping the cache instead");
    });
}

/// Reads a whole file of unknown length up to `limit` bytes past the cache, opened anew: on network file
/// systems only opening refreshes a cached length.
///
/// # Errors
/// The system's, with the path; or the file is longer than `extent` allows.
pub fn read_fresh(
    area: &Area,
    extent: impl Fn(&[u8]) -> Result<usize>,
    first: usize,
) -> Result<AlignedBuffer> {
    let path = &area.path;
    let mut file = DirectFile::new(area.clone(), Access::Read);
    let mut buffer = AlignedBuffer::new(first);
    let got = file.read(0, buffer.get_mut())?;
    if got < BLOCK {
        bail!("{} ends after {got} bytes", path.display());
    }
    let wanted = extent(buffer.get())?;
    if wanted > first {
        buffer = AlignedBuffer::new(wanted.next_multiple_of(BLOCK));
        let got = file.read(0, buffer.get_mut())?;
        if got < wanted {
            bail!("{} ends after {got} bytes, expected {wanted}", path.display());
        }
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("steadfast-direct-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_is_written_is_read_with_and_without_direct_io() {
        let path = scratch("both");
        std::fs::write(&path, vec![0; 2 * BLOCK]).unwrap();
        for (direct, byte) in [(true, 1), (false, 2)] {
            let mut block = AlignedBuffer::new(BLOCK);
            block.get_mut().fill(byte);
            let mut writer = Open::new(&path, Access::Write, direct).unwrap();
            writer.write(BLOCK as u64, block.get()).unwrap();
            let mut both = AlignedBuffer::new(3 * BLOCK);
            let mut reader = Open::new(&path, Access::Read, direct).unwrap();
            assert_eq!(reader.read(0, both.get_mut()).unwrap(), 2 * BLOCK);
            assert!(both.get()[BLOCK..2 * BLOCK].iter().all(|found| *found == byte));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_direct_io_only_file_systems_whose_cache_cannot_be_stale_are_used() {
        let path = Path::new("/store/pages/1");
        for kind in
            [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0x0116_1970, 0x7461_636f]
        {
            must_be_coherent(path, kind).unwrap();
        }
        // FUSE, NFS, 9p, CIFS, SMB2, Ceph.
        for kind in [0x6573_5546, 0x6969, 0x0102_1997, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400] {
            let error = must_be_coherent(path, kind).unwrap_err().to_string();
            assert!(error.contains("/store/pages/1") && error.contains("O_DIRECT"), "{error}");
        }
        let proc = File::open("/proc/self/stat").unwrap();
        assert_eq!(file_system(&proc).unwrap(), 0x9fa0);
        Open::new(Path::new("/proc/self/stat"), Access::Read, false).unwrap_err();
    }

    #[test]
    fn a_replaced_file_is_opened_anew() {
        let (path, other) = (scratch("old"), scratch("new"));
        std::fs::write(&path, vec![1; BLOCK]).unwrap();
        std::fs::write(&other, vec![2; BLOCK]).unwrap();
        let mut file = DirectFile::new(Area::file(path.clone()), Access::Read);
        let mut block = AlignedBuffer::new(BLOCK);
        file.read(0, block.get_mut()).unwrap();
        std::fs::rename(&other, &path).unwrap();
        if let Some(open) = &mut file.open {
            open.compared = Instant::now().checked_sub(COMPARE_EVERY).unwrap();
        }
        file.read(0, block.get_mut()).unwrap();
        assert_eq!(block.get()[0], 2);
        std::fs::remove_file(path).unwrap();
    }
}
