//! One agent a node: an exclusive local lock, shared by all threads that touch storage.

use anyhow::{Context, Result, anyhow};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

const NAME: &str = "steadfastd.lock";

/// Takes the lock in `directory` (local, on tmpfs); it is held until every copy of the file is dropped.
///
/// # Errors
/// Another agent holds it, or the directory cannot be written.
pub fn take(directory: &Path) -> Result<File> {
    let path = directory.join(NAME);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.with_context(|| format!("cannot open lock {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(anyhow!(
                "another steadfastd (pid {}) holds {}: stop it; if it was killed, a write of it hangs \
                 in storage, and this node needs that write to end, or a reboot",
                holder.trim(),
                path.display()
            ));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}
