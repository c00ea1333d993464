//! The thread that writes the history.

use super::absence::Absences;
use super::{Job, Tell};
use crate::api::wire::DecisionReport;
use crate::clock::Clock;
use crate::watch::config::Retention;
use crate::watch::incidents::{Incident, Tracker};
use crate::watch::seen::Seen;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Work that is committed together.
const BATCH: usize = 1_000;
/// Changes of an incident are told together within this.
const GATHER: Duration = Duration::from_millis(100);
/// Time passes for incidents.
const TICK: Duration = Duration::from_millis(500);
/// That the cluster is seen is written down this often.
const SIGHT: Duration = Duration::from_secs(1);
/// What is too old or too much goes this often.
const SWEEP: Duration = Duration::from_secs(600);
/// Incidents that late decisions may belong to are read again at start.
const RECENT: i64 = 20;

pub(super) struct Keeper {
    store: Connection,
    clusters: BTreeMap<String, OfCluster>,
    retention: Retention,
    tell: Tell,
    ticked: Instant,
    swept: Option<Instant>,
    healthy: bool,
}

struct OfCluster {
    tracker: Tracker,
    absences: Absences,
    /// The row of `sights` that grows, and when it was written.
    sight: Option<(i64, Instant)>,
    sees: bool,
    /// Incidents that changed and are not told yet.
    changed: BTreeMap<i64, Incident>,
}

impl Keeper {
    pub(super) fn new(
        store: Connection,
        clusters: &[String],
        retention: Retention,
        tell: Tell,
    ) -> rusqlite::Result<Self> {
        let mut known = BTreeMap::new();
        for id in clusters {
            known.insert(id.clone(), OfCluster::load(&store, id)?);
        }
        let (ticked, swept, healthy) = (Instant::now(), None, true);
        Ok(Self { store, clusters: known, retention, tell, ticked, swept, healthy })
    }

    /// Until everybody who could give it work is gone.
    pub(super) fn work(&mut self, jobs: &Receiver<Job>) {
        loop {
            let pending = self.clusters.values().any(|one| !one.changed.is_empty());
            let first = jobs.recv_timeout(if pending { GATHER } else { TICK });
            if matches!(first, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            let more = jobs.try_iter().take(BATCH);
            let batch: Vec<Job> = first.into_iter().chain(more).collect();
            let done = self.commit(batch);
            self.complain(done);
        }
    }

    fn commit(&mut self, batch: Vec<Job>) -> rusqlite::Result<()> {
        let begun = self.store.execute_batch("BEGIN IMMEDIATE");
        for job in batch {
            let done = self.take(job);
            self.complain(done);
        }
        if self.ticked.elapsed() >= GATHER {
            self.ticked = Instant::now();
            let done = self.tick();
            self.complain(done);
        }
        begun?;
        self.store.execute_batch("COMMIT").inspect_err(|_| {
            // A transaction that cannot be committed must not swallow the next ones.
            let _ = self.store.execute_batch("ROLLBACK");
        })?;
        self.healthy = true;
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.swept = Some(Instant::now());
            self.sweep()?;
        }
        Ok(())
    }

    /// Told once, until it works again.
    fn complain(&mut self, done: rusqlite::Result<()>) {
        if let Err(error) = done
            && self.healthy
        {
            self.healthy = false;
            tracing::error!(%error, "the history is not written; is its file system full?");
        }
    }

    fn take(&mut self, job: Job) -> rusqlite::Result<()> {
        match job {
            Job::Decided(cluster, report) => self.decided(&cluster, &report),
            Job::Seen(cluster, seen) => self.seen(&cluster, &seen),
            Job::Blind(cluster) => {
                if let Some(one) = self.clusters.get_mut(&cluster) {
                    one.tracker.go_blind();
                    (one.sees, one.sight) = (false, None);
                }
                Ok(())
            }
            Job::Do(work) => {
                work(&mut self.store);
                Ok(())
            }
        }
    }

    fn decided(&mut self, cluster: &str, report: &DecisionReport) -> rusqlite::Result<()> {
        let is_new = insert(&self.store, cluster, report)?;
        let Some(one) = self.clusters.get_mut(cluster).filter(|_| is_new) else { return Ok(()) };
        let changed = one.tracker.decided(report);
        one.put(&self.store, cluster, changed)
    }

    fn seen(&mut self, cluster: &str, seen: &Seen) -> rusqlite::Result<()> {
        let Some(one) = self.clusters.get_mut(cluster) else { return Ok(()) };
        one.sees = true;
        let changed = one.tracker.seen(seen);
        one.put(&self.store, cluster, changed)?;
        one.absences.seen(&self.store, cluster, seen)
    }

    fn tick(&mut self) -> rusqlite::Result<()> {
        let now = Clock.wall_ms();
        for (cluster, one) in &mut self.clusters {
            let changed = one.tracker.tick(now);
            one.put(&self.store, cluster, changed)?;
            one.see_on(&self.store, cluster, now)?;
            for incident in std::mem::take(&mut one.changed).into_values() {
                one.absences.make_up(&self.store, cluster, &incident)?;
                (self.tell)(cluster, &incident);
            }
        }
        Ok(())
    }

    /// Removes what is too old, and the oldest while there is too much.
    fn sweep(&mut self) -> rusqlite::Result<()> {
        let age = u64::try_from(self.retention.age.as_millis()).unwrap_or(u64::MAX);
        let oldest = signed(Clock.wall_ms().saturating_sub(age));
        remove_before(&self.store, oldest)?;
        while used_bytes(&self.store)? > self.retention.bytes {
            if remove_some(&self.store)? == 0 {
                break;
            }
        }
        self.store.execute_batch("PRAGMA incremental_vacuum; PRAGMA optimize;")
    }
}

/// SQLite's integers are signed.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl OfCluster {
    fn load(store: &Connection, cluster: &str) -> rusqlite::Result<Self> {
        let mut query = store.prepare(
            "SELECT body FROM incidents WHERE cluster = ?1 AND (closed IS NULL OR id IN
             (SELECT id FROM incidents WHERE cluster = ?1 ORDER BY id DESC LIMIT ?2)) ORDER BY id",
        )?;
        let rows = query.query_map(params![cluster, RECENT], |row| row.get::<_, String>(0))?;
        let mut incidents: Vec<Incident> = Vec::new();
        for body in rows {
            incidents.extend(serde_json::from_str::<Incident>(&body?).ok());
        }
        let next = "SELECT coalesce(max(id), 0) + 1 FROM incidents WHERE cluster = ?1";
        let next = store.query_row(next, [cluster], |row| row.get(0))?;
        let absences = Absences::load(store, cluster)?;
        let (tracker, changed) = (Tracker::new(incidents, next), BTreeMap::new());
        Ok(Self { tracker, absences, sight: None, sees: false, changed })
    }

    fn put(
        &mut self,
        store: &Connection,
        cluster: &str,
        changed: Vec<Incident>,
    ) -> rusqlite::Result<()> {
        for incident in changed {
            let (opened, closed) = (signed(incident.opened_wall_ms), incident.closed_wall_ms);
            let body = serde_json::to_string(&incident).unwrap_or_default();
            let put = "INSERT INTO incidents (cluster, id, opened, closed, body) VALUES (?1, ?2, ?3, ?4, ?5)
                       ON CONFLICT DO UPDATE SET opened = ?3, closed = ?4, body = ?5";
            let values = params![cluster, incident.id, opened, closed.map(signed), body];
            store.prepare_cached(put)?.execute(values)?;
            self.changed.insert(incident.id, incident);
        }
        Ok(())
    }

    /// The cluster is still seen.
    fn see_on(&mut self, store: &Connection, cluster: &str, now: u64) -> rusqlite::Result<()> {
        if !self.sees {
            return Ok(());
        }
        match self.sight {
            None => {
                let new = "INSERT INTO sights (cluster, began, ended) VALUES (?1, ?2, ?2)";
                store.execute(new, params![cluster, signed(now)])?;
                self.sight = Some((store.last_insert_rowid(), Instant::now()));
            }
            Some((row, written)) if written.elapsed() >= SIGHT => {
                let longer = "UPDATE sights SET ended = ?2 WHERE n = ?1";
                store.prepare_cached(longer)?.execute(params![row, signed(now)])?;
                self.sight = Some((row, Instant::now()));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// False: it is known.
fn insert(store: &Connection, cluster: &str, report: &DecisionReport) -> rusqlite::Result<bool> {
    let body = serde_json::to_string(report).unwrap_or_default();
    let kind = serde_json::to_value(report.kind).unwrap_or_default();
    let kind = kind.as_str().unwrap_or_default();
    let vm_id = report.vm_id.as_ref().map(|id| id.0.as_str());
    let (node, vm) = (report.node.as_deref(), report.vm.as_deref());
    let add = "INSERT OR IGNORE INTO decisions (cluster, id, wall_ms, kind, node, vm, vm_id, body)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = params![cluster, report.id, signed(report.wall_ms), kind, node, vm, vm_id, body];
    if store.prepare_cached(add)?.execute(values)? == 0 {
        return Ok(false);
    }
    let row = store.last_insert_rowid();
    let facts: Vec<String> =
        report.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let words = [
        &report.text,
        kind,
        node.unwrap_or_default(),
        vm.unwrap_or_default(),
        &report.recorded_by,
        &report.rule,
        &facts.join(" "),
    ]
    .join(" ");
    let index = "INSERT INTO words (rowid, text) VALUES (?1, ?2)";
    store.prepare_cached(index)?.execute(params![row, words])?;
    Ok(true)
}

fn remove_before(store: &Connection, oldest: i64) -> rusqlite::Result<()> {
    store.execute_batch("BEGIN IMMEDIATE")?;
    let lines = [
        "DELETE FROM words WHERE rowid IN (SELECT n FROM decisions WHERE wall_ms < ?1)",
        "DELETE FROM decisions WHERE wall_ms < ?1",
        "DELETE FROM incidents WHERE closed < ?1",
        "DELETE FROM absences WHERE ended < ?1",
        "DELETE FROM sights WHERE ended < ?1",
        "DELETE FROM subjects WHERE gone < ?1",
        "DELETE FROM alarms WHERE resolved < ?1",
    ];
    let done: rusqlite::Result<Vec<usize>> =
        lines.iter().map(|line| store.execute(line, [oldest])).collect();
    store.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    done.map(drop)
}

/// The oldest twentieth of decisions, which are nearly all there is.
fn remove_some(store: &Connection) -> rusqlite::Result<usize> {
    let oldest = "SELECT wall_ms FROM decisions ORDER BY wall_ms
                  LIMIT 1 OFFSET (SELECT count(*) / 20 + 1 FROM decisions)";
    let before: rusqlite::Result<i64> = store.query_row(oldest, [], |row| row.get(0));
    match before {
        Ok(before) => {
            let count = "SELECT count(*) FROM decisions WHERE wall_ms < ?1";
            let gone: i64 = store.query_row(count, [before], |row| row.get(0))?;
            remove_before(store, before)?;
            Ok(usize::try_from(gone).unwrap_or(0))
        }
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(0),
        Err(error) => Err(error),
    }
}

fn used_bytes(store: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| -> rusqlite::Result<u64> {
        let value: i64 = store.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
        Ok(value.unsigned_abs())
    };
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}
