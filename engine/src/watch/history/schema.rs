//! The file's tables.

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use std::path::Path;

/// Counts changes of what is below.
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE decisions (
  n INTEGER PRIMARY KEY, cluster TEXT NOT NULL, id TEXT NOT NULL, wall_ms INTEGER NOT NULL, kind TEXT NOT NULL,
  node TEXT, vm TEXT, vm_id TEXT, body TEXT NOT NULL, UNIQUE (cluster, id));
CREATE INDEX decisions_by_time ON decisions (cluster, wall_ms);
CREATE VIRTUAL TABLE words USING fts5 (text, content='', contentless_delete=1);
CREATE TABLE incidents (
  cluster TEXT NOT NULL, id INTEGER NOT NULL, opened INTEGER NOT NULL, closed INTEGER, body TEXT NOT NULL,
  PRIMARY KEY (cluster, id));
CREATE INDEX incidents_by_time ON incidents (cluster, opened);
-- When something was away: a node (kind 'node'), a VM ('vm'); and when a node began to be silent ('flap').
CREATE TABLE absences (
  n INTEGER PRIMARY KEY, cluster TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, began INTEGER NOT NULL,
  ended INTEGER, owner TEXT, owner_after TEXT);
CREATE INDEX absences_by_subject ON absences (cluster, kind, subject, began);
CREATE TABLE subjects (
  cluster TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, since INTEGER NOT NULL,
  gone INTEGER, PRIMARY KEY (cluster, kind, subject)) WITHOUT ROWID;
-- When the cluster was seen at all.
CREATE TABLE sights (n INTEGER PRIMARY KEY, cluster TEXT NOT NULL, began INTEGER NOT NULL, ended INTEGER NOT NULL);
CREATE TABLE alarms (
  n INTEGER PRIMARY KEY, cluster TEXT NOT NULL, raised INTEGER NOT NULL, resolved INTEGER, body TEXT NOT NULL);
";

/// Opens the file, and makes its tables if it is new.
pub(in crate::watch) fn open(path: &Path) -> Result<Connection> {
    let describe = || format!("cannot open the history {}; see [database] file", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(describe)?;
    }
    let store = Connection::open(path).with_context(describe)?;
    store.busy_timeout(std::time::Duration::from_secs(5))?;
    // Commits survive the end of the process; those of the last moment may be lost with the machine, and agents tell them again.
    store.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 16777216;",
    )
    .with_context(describe)?;
    let version: i64 = store.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        VERSION => {}
        0 => {
            let make = format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
            store.execute_batch(&make).with_context(describe)?;
        }
        other => bail!(
            "the history {} has version {other}, and this program understands {VERSION}; use the program that wrote it, or another \
             file",
            path.display()
        ),
    }
    Ok(store)
}
