//! A policy's files, read without believing anything: never blocked by what is no regular file, never more of it than
//! the limit, and with a look at who else could write there.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Failure, Stage, signature};

/// A signature file is a few lines.
const SIGNATURE_BYTES: u64 = 4_096;

/// One file as read.
#[derive(Debug)]
pub(super) struct FileRead {
    /// Its name in its folder.
    pub(super) name: String,
    /// Its content, or a byte more than allowed.
    pub(super) bytes: Vec<u8>,
    /// The text beside it, if signatures are asked for and there is one.
    pub(super) signature: Option<String>,
    /// Why others than root (or the agent's own user) could write it.
    pub(super) insecure: Option<String>,
    size: u64,
    most: u64,
}

impl FileRead {
    /// Reads at most `most` bytes and one.
    pub(super) fn open(path: &Path, most: u64, signed: bool) -> Result<Self, Failure> {
        let (bytes, about) = read(path, most)?;
        let signature = signature::beside(path);
        let signature = (signed && signature.exists())
            .then(|| read(&signature, SIGNATURE_BYTES))
            .transpose()?
            .map(|(text, _)| String::from_utf8_lossy(&text).into_owned());
        let insecure = insecurity(path, &about);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, bytes, signature, insecure, size: about.len(), most })
    }

    /// Whether all of it was read.
    pub(super) fn check_size(&self) -> Result<(), Failure> {
        let Self { name, most, .. } = self;
        if self.bytes.len() as u64 <= *most {
            return Ok(());
        }
        let reason = format!("{name} has {} bytes, allowed are {most}", self.size.max(most + 1));
        let remedy = "build with `opt-level = \"s\"`, `lto` and `strip`, or raise the limit";
        Err(Failure::refused(Stage::Size, reason, remedy))
    }
}

/// Why others could put something else in the file's place.
pub(super) fn insecure_folder(path: &Path) -> Result<Option<String>, Failure> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let about = std::fs::metadata(folder).map_err(|error| unreadable(folder, &error))?;
    Ok(insecurity(folder, &about))
}

fn read(path: &Path, most: u64) -> Result<(Vec<u8>, Metadata), Failure> {
    let open = || -> std::io::Result<(File, Metadata)> {
        // A pipe must not block us, nor a terminal become ours.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let about = file.metadata()?;
        Ok((file, about))
    };
    let (file, about) = open().map_err(|error| unreadable(path, &error))?;
    if !about.is_file() {
        let reason = format!("{} is no regular file", path.display());
        return Err(Failure::refused(Stage::Read, reason, "put a file there"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok((bytes, about))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let reason = format!("cannot read {}: {error}", path.display());
    Failure::refused(Stage::Read, reason, "make the file readable for the agent")
}

/// Why others than root (or the agent's own user) could write here.
fn insecurity(path: &Path, about: &Metadata) -> Option<String> {
    let own = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    let (owner, mode) = (about.uid(), about.mode() & 0o7777);
    if owner != 0 && owner != own {
        return Some(format!("{} belongs to user {owner}, not to root", path.display()));
    }
    let others = mode & 0o022 != 0;
    others.then(|| format!("{} can be written by others (mode {mode:04o})", path.display()))
}
