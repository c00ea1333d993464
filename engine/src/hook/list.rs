//! The list of HA VMs on this node's own disk: what the hook goes by while the agent is down.
//!
//! ```text
//! # HA VMs, …
//! armed
//! 4f8b0c1e-… web
//! ```

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use steadfast_core::ids::VmId;
use steadfast_core::snapshot::Snapshot;

const HEADER: &str = "# HA VMs, for libvirt's hook while steadfastd is down; kept by steadfastd";

/// HA VMs as this node knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HaVms {
    /// HA is switched off for everybody: nothing is refused.
    pub disarmed: bool,
    /// Names by UUID.
    pub vms: BTreeMap<VmId, String>,
}

impl HaVms {
    /// What a snapshot adds to it. A rumour only adds VMs; a committed ledger names them all, and arms.
    #[must_use]
    fn with(&self, snapshot: &Snapshot) -> Self {
        let named = snapshot.vms.iter().map(|vm| (vm.id.clone(), vm.name.clone()));
        if snapshot.ledger.proved {
            let disarmed = snapshot.disarm.as_ref().is_some_and(|disarm| !disarm.pending);
            return Self { disarmed, vms: named.collect() };
        }
        let mut next = self.clone();
        next.vms.extend(named);
        next
    }

    fn encode(&self) -> String {
        let state = if self.disarmed { "disarmed" } else { "armed" };
        let line = |(vm, name): (&VmId, &String)| format!("{vm} {name}\n");
        let lines: String = self.vms.iter().map(line).collect();
        format!("{HEADER}\n{state}\n{lines}")
    }

    fn decode(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let disarmed = match lines.next() {
            Some("armed") => false,
            Some("disarmed") => true,
            other => bail!("expected armed or disarmed, got {other:?}"),
        };
        let pair = |line: &str| {
            let (vm, name) = line.split_once(' ')?;
            Some((VmId(vm.to_ascii_lowercase()), name.to_owned()))
        };
        Ok(Self { disarmed, vms: lines.filter_map(pair).collect() })
    }
}

/// What the list at `path` says; nobody is under HA if there is none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read(path: &Path) -> Result<HaVms> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HaVms::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    HaVms::decode(&text).with_context(|| {
        let path = path.display();
        format!("{path} is damaged: start steadfastd, which writes it anew")
    })
}

/// The list, and its file.
#[derive(Debug)]
pub struct HaList {
    path: PathBuf,
    known: Mutex<HaVms>,
    /// The file may say something else.
    stale: Mutex<bool>,
}

impl HaList {
    /// The list at `path`, with what it says from before. A damaged one is written anew.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let known = read(path).unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "the list of HA VMs is made anew");
            HaVms::default()
        });
        Self { path: path.to_owned(), known: Mutex::new(known), stale: Mutex::new(true) }
    }

    /// HA VMs by the newest snapshot.
    #[must_use]
    pub fn known(&self) -> HaVms {
        lock(&self.known).clone()
    }

    /// Takes over what `snapshot` says.
    pub fn learn(&self, snapshot: &Snapshot) {
        let mut known = lock(&self.known);
        let next = known.with(snapshot);
        if *known != next {
            *known = next;
            *lock(&self.stale) = true;
        }
    }

    /// Writes the file if it says something else. Blocks.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn keep(&self) -> Result<()> {
        if !std::mem::replace(&mut *lock(&self.stale), false) {
            return Ok(());
        }
        let written = replace(&self.path, &self.known().encode());
        if written.is_err() {
            *lock(&self.stale) = true;
        }
        written
    }
}

/// Survives a power cut: a node that boots without its agent still knows which VMs are not its to start.
fn replace(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}; see run.state_directory", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> HaVms {
        let vms = [(VmId("u1".into()), "web server".to_owned()), (VmId("u2".into()), "db".into())];
        HaVms { disarmed: true, vms: vms.into() }
    }

    #[test]
    fn a_list_survives_its_file_and_a_damaged_one_is_told() {
        assert_eq!(HaVms::decode(&some().encode()).expect("readable"), some());
        assert!(HaVms::decode("").is_err());
        assert!(HaVms::decode("u1 web\n").is_err());
    }

    #[test]
    fn what_was_kept_is_there_for_the_next_agent() {
        let name = format!("steadfast-list-{}", std::process::id());
        let path = std::env::temp_dir().join(name).join("ha-vms");
        assert_eq!(read(&path).expect("none yet"), HaVms::default());
        let list = HaList::open(&path);
        *lock(&list.known) = some();
        list.keep().expect("kept");
        assert_eq!(HaList::open(&path).known(), some());
        fs::remove_file(&path).expect("there");
        list.keep().expect("nothing new");
        assert!(!path.exists());
        let _ = fs::remove_dir_all(path.parent().expect("folder"));
    }
}
