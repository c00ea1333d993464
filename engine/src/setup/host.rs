//! The machine that is set up: its files below a root, and the programs that change the rest of it.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
#[cfg(test)]
use std::sync::Arc;

/// Programs of a machine that is none: what such a program says to these arguments; `None`: it is not installed.
#[cfg(test)]
pub(crate) type Tools = Arc<dyn Fn(&Path, &str, &[&str]) -> Option<Said> + Send + Sync>;

/// A machine.
pub struct Host {
    root: PathBuf,
    #[cfg(test)]
    tools: Option<Tools>,
    /// How many more changes until the power is cut.
    #[cfg(test)]
    fuse: Option<std::sync::atomic::AtomicU32>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.root).finish()
    }
}

/// What a program said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// It ended with 0.
    pub good: bool,
    /// Standard output, without white space at its ends.
    pub out: String,
    /// Standard error, the same.
    pub err: String,
}

impl Said {
    /// What to tell a person of it.
    #[must_use]
    pub fn words(&self) -> String {
        let text = if self.err.is_empty() { &self.out } else { &self.err };
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(3)..];
        if last.is_empty() { "it said nothing".into() } else { last.join(" | ") }
    }
}

impl Host {
    /// This machine, or what lies below `root` as if it were one.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            #[cfg(test)]
            tools: None,
            #[cfg(test)]
            fuse: None,
        }
    }

    /// With these programs, and no others.
    #[cfg(test)]
    pub(crate) fn with_tools(root: &Path, tools: Tools) -> Self {
        Self { tools: Some(tools), ..Self::new(root) }
    }

    /// The power is cut at the change after these.
    #[cfg(test)]
    pub(crate) fn with_fuse(self, changes: u32) -> Self {
        Self { fuse: Some(changes.into()), ..self }
    }

    /// It is this machine itself.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path`, as the machine calls it, really lies.
    #[must_use]
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    // --- looking ---------------------------------------------------------------------------------------

    /// There is something at `path`.
    #[must_use]
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    /// The bytes of a file; `None` if there is none.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = self.at(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error)
                if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The text of a file that may be missing or unreadable.
    #[must_use]
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    /// Permission bits of what is at `path`.
    #[must_use]
    pub fn mode(&self, path: impl AsRef<Path>) -> Option<u32> {
        Some(fs::metadata(self.at(path)).ok()?.permissions().mode() & 0o7777)
    }

    /// Names in a folder, sorted; none if there is no such folder.
    #[must_use]
    pub fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Asks a program that changes nothing. One that is not there said nothing, badly.
    #[must_use]
    pub fn ask(&self, program: &str, arguments: &[&str]) -> Said {
        self.start(program, arguments).unwrap_or_default()
    }

    /// There is such a program.
    #[must_use]
    pub fn knows(&self, program: &str) -> bool {
        #[cfg(test)]
        if let Some(tools) = &self.tools {
            return tools(&self.root, program, &[]).is_some();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        std::env::split_paths(&path).chain(usual).any(|folder| folder.join(program).is_file())
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Result<Said> {
        #[cfg(test)]
        if let Some(tools) = &self.tools {
            let said = tools(&self.root, program, arguments);
            return said.with_context(|| format!("{program} is not installed"));
        }
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("cannot run {program}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(Said {
            good: output.status.success(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        })
    }

    // --- changing --------------------------------------------------------------------------------------

    /// Runs a program that changes something.
    ///
    /// # Errors
    /// It cannot be run, or says no.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Said> {
        self.burn()?;
        let said = self.start(program, arguments)?;
        if !said.good {
            bail!("{program} {}: {}", arguments.join(" "), said.words());
        }
        Ok(said)
    }

    /// Writes a whole file: nobody ever sees half of it, a power cut leaves the old one or the new one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        self.burn()?;
        let path = self.at(path);
        write_whole(&path, bytes, mode, self.is_durable())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes one folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_folder(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        self.burn()?;
        let path = self.at(path);
        let make = || {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            self.settle(&path)
        };
        make().with_context(|| format!("cannot make {}", path.display()))
    }

    /// Sets permission bits.
    ///
    /// # Errors
    /// They cannot be set.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        self.burn()?;
        let path = self.at(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// Something is there, or it cannot be made.
    pub fn link(&self, path: impl AsRef<Path>, to: &str) -> Result<()> {
        self.burn()?;
        let path = self.at(path);
        let make = || {
            std::os::unix::fs::symlink(to, &path)?;
            self.settle(&path)
        };
        make().with_context(|| format!("cannot make {}", path.display()))
    }

    /// Removes a file or link. That it is gone already is no error.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<()> {
        self.burn()?;
        let path = self.at(path);
        match fs::remove_file(&path).and_then(|()| self.settle(&path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes a folder if nothing is in it; true if it is gone.
    ///
    /// # Errors
    /// It cannot be removed for another reason.
    pub fn remove_folder(&self, path: impl AsRef<Path>) -> Result<bool> {
        self.burn()?;
        let path = self.at(path);
        match fs::remove_dir(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    /// What is written outlives a power cut. A test's machine has no power, and its disk may be slow.
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    fn is_durable(&self) -> bool {
        #[cfg(test)]
        return self.tools.is_none();
        #[cfg(not(test))]
        true
    }

    /// What its folder lists is on disk.
    fn settle(&self, path: &Path) -> std::io::Result<()> {
        if self.is_durable() { sync_folder(path) } else { Ok(()) }
    }

    /// A change is about to be made.
    ///
    /// # Errors
    /// The power is cut here, in a test.
    #[cfg_attr(not(test), allow(clippy::unused_self, clippy::unnecessary_wraps))]
    pub fn burn(&self) -> Result<()> {
        #[cfg(test)]
        if let Some(fuse) = &self.fuse {
            use std::sync::atomic::Ordering::SeqCst;
            let burn = |left: u32| left.checked_sub(1);
            anyhow::ensure!(fuse.fetch_update(SeqCst, SeqCst, burn).is_ok(), "the power is cut");
        }
        Ok(())
    }
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.steadfast-new"));
    // A key must not be readable for a moment; one that a power cut left may have other bits.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if !durable {
        return fs::rename(&draft, path);
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}
