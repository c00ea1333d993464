//! Records of starts that may be inside libvirtd. A start is recorded before libvirtd can see it,
//! because an agent that dies takes its knowledge with it, and libvirtd goes on.

use super::lock;
use crate::guests::{ProcessId, is_alive};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use steadfast_core::ids::{Incarnation, VmId};
use steadfast_core::time::{Instant, Millis};

/// A child that libvirtd forked may become QEMU a moment after libvirtd died. One that does shows
/// in scans from then on; this is how long that moment is given.
const LAST_CHILD: Millis = Millis(250);

/// One start, as it is on tmpfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The VM.
    pub vm: VmId,
    /// Which life of the agent asked for it.
    pub incarnation: Incarnation,
    /// libvirt's daemons that may carry it out. When none of them exists, nobody will.
    pub daemons: Vec<ProcessId>,
    /// When it was recorded, in own time.
    pub recorded: Instant,
}

/// The directory of records.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    incarnation: Incarnation,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Own starts whose call ended without libvirtd's word.
    uncertain: BTreeSet<VmId>,
    /// Since when the daemons of a record have been seen dead.
    orphaned: BTreeMap<PathBuf, Instant>,
    warned: BTreeSet<PathBuf>,
}

impl Records {
    /// Opens `run_directory/starts`, created if missing.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(run_directory: &Path, incarnation: Incarnation) -> anyhow::Result<Self> {
        let directory = run_directory.join("starts");
        fs::create_dir_all(&directory).with_context(|| {
            format!("cannot create {}; is the run directory writable?", directory.display())
        })?;
        Ok(Self { directory, incarnation, state: Mutex::default() })
    }

    /// Records a start. When this returned, it outlives the agent.
    ///
    /// # Errors
    /// If it could not be written: the start must not be handed over.
    pub fn add(&self, vm: &VmId, daemons: &[ProcessId], now: Instant) -> anyhow::Result<()> {
        let incarnation = self.incarnation;
        let record = Record { vm: vm.clone(), incarnation, daemons: daemons.into(), recorded: now };
        let path = self.path(vm);
        let draft = path.with_extension("draft");
        let write = || -> anyhow::Result<()> {
            let mut file = File::create(&draft)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.directory)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("cannot record the start in {}", path.display()))
    }

    /// The start ended, or was never handed over.
    pub fn remove(&self, vm: &VmId) {
        lock(&self.state).uncertain.remove(vm);
        remove(&self.path(vm));
    }

    /// The call of an own start ended without libvirtd's word: it is settled by scans, too.
    pub fn doubt(&self, vm: &VmId) {
        lock(&self.state).uncertain.insert(vm.clone());
    }

    /// Whether an own start is still in doubt.
    pub fn is_doubtful(&self, vm: &VmId) -> bool {
        lock(&self.state).uncertain.contains(vm)
    }

    /// Removes what a scan that began at `began` settles; returns what stays unresolved.
    ///
    /// # Errors
    /// If the directory or a record cannot be read.
    pub fn settle(
        &self,
        began: Instant,
        present: &BTreeSet<VmId>,
    ) -> anyhow::Result<BTreeSet<VmId>> {
        let mut state = lock(&self.state);
        let mut unresolved = BTreeSet::new();
        for path in self.files()? {
            let Some(record) = load(&path)? else { continue };
            let own = record.incarnation == self.incarnation;
            if own && !state.uncertain.contains(&record.vm) {
                continue;
            }
            if present.contains(&record.vm) || state.is_orphan(&path, &record, began)? {
                tracing::info!(vm = %record.vm, "an unresolved start is settled");
                state.forget(&path, &record.vm, own);
                continue;
            }
            state.warn(&path, &record);
            unresolved.insert(record.vm);
        }
        // The hook removes records of what it has refused.
        state.uncertain.retain(|vm| self.path(vm).exists());
        Ok(unresolved)
    }

    fn path(&self, vm: &VmId) -> PathBuf {
        // The incarnation keeps an unresolved start of a dead one from being overwritten.
        self.directory.join(format!("{}.{}.json", vm.0, self.incarnation.0))
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let context = || format!("cannot list {}", self.directory.display());
        for entry in fs::read_dir(&self.directory).with_context(context)? {
            let path = entry.with_context(context)?.path();
            // A draft was never renamed, so its start was never handed over.
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
        Ok(files)
    }
}

impl State {
    /// True once every daemon has been dead for a while before the scan began.
    fn is_orphan(&mut self, path: &Path, record: &Record, began: Instant) -> anyhow::Result<bool> {
        for daemon in &record.daemons {
            if is_alive(Path::new("/proc"), *daemon)? {
                self.orphaned.remove(path);
                return Ok(false);
            }
        }
        let since = *self.orphaned.entry(path.into()).or_insert(began);
        Ok(began.since(since) >= LAST_CHILD)
    }

    fn forget(&mut self, path: &Path, vm: &VmId, own: bool) {
        remove(path);
        self.orphaned.remove(path);
        self.warned.remove(path);
        if own {
            self.uncertain.remove(vm);
        }
    }

    fn warn(&mut self, path: &Path, record: &Record) {
        if self.warned.insert(path.into()) {
            tracing::warn!(
                vm = %record.vm,
                daemons = ?record.daemons,
                "a start may still be inside libvirtd, asked for by an agent or over a connection \
                 that died; if this stays, restart libvirtd (guests keep running)"
            );
        }
    }
}

fn load(path: &Path) -> anyhow::Result<Option<Record>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let record = serde_json::from_slice(&bytes);
    record.map(Some).with_context(|| format!("unreadable record {}", path.display()))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        let path = path.display();
        tracing::warn!(%path, %error, "a record of a start cannot be removed; remove it by hand");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(name: &str, incarnation: u64) -> Records {
        let name = format!("steadfast-records-{}-{name}", std::process::id());
        Records::open(&std::env::temp_dir().join(name), Incarnation(incarnation)).unwrap()
    }

    fn vm() -> VmId {
        VmId("a".into())
    }

    fn living() -> Vec<ProcessId> {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let started = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        vec![ProcessId { pid, started: started.parse().unwrap() }]
    }

    fn dead() -> Vec<ProcessId> {
        vec![ProcessId { pid: 1, started: u64::MAX }]
    }

    #[test]
    fn a_start_of_this_life_is_not_unresolved() {
        let records = records("own", 2);
        records.add(&vm(), &dead(), Instant(1)).unwrap();
        assert!(records.settle(Instant(2), &BTreeSet::new()).unwrap().is_empty());
        assert!(records.path(&vm()).exists());
        records.remove(&vm());
        assert!(!records.path(&vm()).exists());
    }

    #[test]
    fn a_start_of_a_dead_agent_is_unresolved_while_its_libvirtd_lives() {
        records("lives", 1).add(&vm(), &living(), Instant(1)).unwrap();
        let records = records("lives", 2);
        for now in [2, 10_000] {
            let unresolved = records.settle(Instant(now), &BTreeSet::new()).unwrap();
            assert_eq!(unresolved, BTreeSet::from([vm()]));
        }
        assert!(records.settle(Instant(10_001), &BTreeSet::from([vm()])).unwrap().is_empty());
        assert!(records.settle(Instant(10_002), &BTreeSet::new()).unwrap().is_empty());
    }

    #[test]
    fn a_start_of_a_dead_agent_is_settled_some_time_after_its_libvirtd_died() {
        records("died", 1).add(&vm(), &dead(), Instant(1)).unwrap();
        let records = records("died", 2);
        assert_eq!(records.settle(Instant(1000), &BTreeSet::new()).unwrap().len(), 1);
        assert_eq!(records.settle(Instant(1249), &BTreeSet::new()).unwrap().len(), 1);
        assert_eq!(records.settle(Instant(1250), &BTreeSet::new()).unwrap().len(), 0);
    }

    #[test]
    fn a_new_start_does_not_hide_the_unresolved_one_of_a_dead_agent() {
        records("both", 1).add(&vm(), &living(), Instant(1)).unwrap();
        let records = records("both", 2);
        records.add(&vm(), &living(), Instant(2)).unwrap();
        records.remove(&vm());
        assert_eq!(records.settle(Instant(3), &BTreeSet::new()).unwrap(), BTreeSet::from([vm()]));
        records.settle(Instant(4), &BTreeSet::from([vm()])).unwrap();
    }

    #[test]
    fn an_own_start_in_doubt_is_unresolved_until_a_scan_settles_it() {
        let records = records("doubt", 2);
        records.add(&vm(), &living(), Instant(1)).unwrap();
        records.doubt(&vm());
        assert_eq!(records.settle(Instant(2), &BTreeSet::new()).unwrap(), BTreeSet::from([vm()]));
        assert!(records.is_doubtful(&vm()));
        records.settle(Instant(3), &BTreeSet::from([vm()])).unwrap();
        assert!(!records.is_doubtful(&vm()));
    }

    #[test]
    fn a_start_in_doubt_is_over_when_the_hook_refused_it() {
        let records = records("refused", 2);
        records.add(&vm(), &living(), Instant(1)).unwrap();
        records.doubt(&vm());
        std::fs::remove_file(records.path(&vm())).unwrap();
        assert!(records.settle(Instant(2), &BTreeSet::new()).unwrap().is_empty());
        assert!(!records.is_doubtful(&vm()));
    }
}
