//! Who asked this agent for which change: JSON lines in the state folder. A line when it is asked, with what it was before; another
//! when it is answered, with what it was after. Tokens are nowhere in it.

use super::errors::Refusal;
use super::read::Limit;
use super::wire::AuditEntry;
use crate::driver::Agent;
use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file of this size is put aside; the one before it is forgotten.
const LARGEST: u64 = 8 << 20;
/// Entries that are told when nobody says how many.
const TOLD: usize = 100;
/// The most that are told.
const MOST: usize = 10_000;

/// The files.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    writing: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Writing {
    file: Option<File>,
    next: u64,
}

/// The second line of an entry.
#[derive(Debug, Serialize, Deserialize)]
struct Answered {
    answers: u64,
    status: u16,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    after: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl Audit {
    pub(super) fn new(state: &Path) -> Self {
        Self { path: state.join("audit.jsonl"), writing: Mutex::default() }
    }

    /// Somebody asks; the number of the entry. Blocks for a write to the local disk.
    pub(super) fn begin(&self, mut entry: AuditEntry) -> std::io::Result<u64> {
        let mut writing = self.writing();
        if writing.next == 0 {
            writing.next = 1 + self.read().last().map_or(0, |last| last.number);
        }
        entry.number = writing.next;
        writing.next += 1;
        self.append(&mut writing, &entry)?;
        Ok(entry.number)
    }

    /// It is answered.
    pub(super) fn end(
        &self,
        number: u64,
        status: u16,
        after: Value,
        refused: Option<String>,
    ) -> std::io::Result<()> {
        let line = Answered { answers: number, status, after, refused };
        self.append(&mut self.writing(), &line)
    }

    fn append(&self, writing: &mut Writing, line: &impl Serialize) -> std::io::Result<()> {
        if let Some(file) = &writing.file
            && file.metadata()?.len() > LARGEST
        {
            std::fs::rename(&self.path, self.older())?;
            writing.file = None;
        }
        if writing.file.is_none() {
            let mut options = OpenOptions::new();
            writing.file = Some(options.create(true).append(true).mode(0o600).open(&self.path)?);
        }
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        match &mut writing.file {
            Some(file) => file.write_all(&bytes),
            None => Ok(()),
        }
    }

    /// All that is kept, oldest first. A line that cannot be read is left out: the disk was full once.
    fn read(&self) -> Vec<AuditEntry> {
        let mut entries: BTreeMap<u64, AuditEntry> = BTreeMap::new();
        for path in [self.older(), self.path.clone()] {
            let Ok(file) = File::open(path) else { continue };
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                if let Ok(answer) = serde_json::from_str::<Answered>(&line) {
                    if let Some(entry) = entries.get_mut(&answer.answers) {
                        (entry.status, entry.after) = (answer.status, answer.after);
                        entry.refused = answer.refused;
                    }
                } else if let Ok(entry) = serde_json::from_str::<AuditEntry>(&line) {
                    entries.insert(entry.number, entry);
                }
            }
        }
        entries.into_values().collect()
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("1.jsonl")
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which entries.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    limit: Option<Limit>,
    who: Option<String>,
}

/// Newest first.
pub(super) async fn read(
    State(agent): State<Arc<Agent>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<AuditEntry>>, Refusal> {
    let work = move || {
        let mut entries = agent.reception.audit.read();
        entries.retain(|entry| wanted.who.as_ref().is_none_or(|who| *who == entry.who));
        entries.reverse();
        entries.truncate(wanted.limit.map_or(TOLD, usize::from).min(MOST));
        Ok(Json(entries))
    };
    super::change::blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_tells_before_and_after_and_outlives_the_agent() {
        let folder = std::env::temp_dir().join(format!("sf-audit-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let entry = |who: &str| AuditEntry { who: who.into(), ..AuditEntry::default() };
        let audit = Audit::new(&folder);
        let first = audit.begin(entry("a")).expect("written");
        let second = audit.begin(entry("b")).expect("written");
        audit.end(first, 200, json!({"priority": 7}), None).expect("written");
        drop(audit);
        std::fs::OpenOptions::new()
            .append(true)
            .open(folder.join("audit.jsonl"))
            .and_then(|mut file| file.write_all(b"{torn\n"))
            .expect("written");
        let audit = Audit::new(&folder);
        let third = audit.begin(entry("c")).expect("written");
        assert_eq!((first, second, third), (1, 2, 3));
        let read = audit.read();
        let told: Vec<_> = read.iter().map(|it| (it.who.as_str(), it.status)).collect();
        assert_eq!(told, [("a", 200), ("b", 0), ("c", 0)]);
        assert_eq!(read[0].after, json!({"priority": 7}));
        let _ = std::fs::remove_dir_all(&folder);
    }
}
