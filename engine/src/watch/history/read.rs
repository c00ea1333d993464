//! What is asked of the history.

use super::keeper::signed;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Rows when nobody says how many, and at most.
const LIMIT: usize = 100;
const MOST: usize = 1_000;
/// What was seen a moment ago is still seen.
const STILL_MS: u64 = 3_000;

/// `GET .../events`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::watch) struct EventsWanted {
    q: Option<String>,
    kind: Option<String>,
    node: Option<String>,
    vm: Option<String>,
    since: Option<u64>,
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET .../incidents`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::watch) struct IncidentsWanted {
    before: Option<u64>,
    limit: Option<usize>,
}

/// `GET .../availability`.
#[derive(Debug, Default, JsonSchema, Serialize)]
pub(in crate::watch) struct Availability {
    /// From when on.
    since_wall_ms: u64,
    /// So long nobody saw the cluster; it counts neither as up nor as down.
    unseen_ms: u64,
    nodes: BTreeMap<String, OfNode>,
    vms: BTreeMap<String, OfVm>,
}

#[derive(Debug, Default, JsonSchema, Serialize)]
struct OfNode {
    /// Parts of a million.
    up_ppm: u64,
    down_ms: u64,
    /// How often it began to be silent.
    flaps: u64,
}

#[derive(Debug, Default, JsonSchema, Serialize)]
struct OfVm {
    name: String,
    up_ppm: u64,
    down_ms: u64,
    /// How often it went on on another node after it was down.
    failovers: u64,
}

fn limit(wanted: Option<usize>) -> i64 {
    i64::try_from(wanted.unwrap_or(LIMIT).clamp(1, MOST)).unwrap_or(i64::MAX)
}

fn bodies(store: &Connection, query: &str, values: Vec<Sql>) -> rusqlite::Result<Vec<Value>> {
    let mut query = store.prepare_cached(query)?;
    let rows = query.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
    let mut found = Vec::new();
    for body in rows {
        found.extend(serde_json::from_str::<Value>(&body?).ok());
    }
    Ok(found)
}

impl EventsWanted {
    /// Decisions, newest first.
    pub(in crate::watch) fn find(
        &self,
        store: &Connection,
        cluster: &str,
    ) -> rusqlite::Result<Vec<Value>> {
        let mut query = "SELECT body FROM decisions WHERE cluster = ?".to_string();
        let mut values: Vec<Sql> = vec![cluster.to_string().into()];
        let mut only = |condition: &str, found: Vec<Sql>| {
            if !found.is_empty() {
                query.push_str(" AND ");
                query.push_str(condition);
                values.extend(found);
            }
        };
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let one = |found: Option<String>| found.map(Sql::from).into_iter().collect::<Vec<_>>();
        let time = |at: Option<u64>| at.map(|at| Sql::from(signed(at))).into_iter().collect();
        only("kind = ?", one(text(&self.kind)));
        only("node = ?", one(text(&self.node)));
        let vm = text(&self.vm).map_or_else(Vec::new, |vm| vec![vm.clone().into(), vm.into()]);
        only("(vm = ? OR vm_id = ?)", vm);
        only("wall_ms >= ?", time(self.since));
        only("wall_ms < ?", time(self.before));
        let words = text(&self.q).map(|text| words(&text)).filter(|words| !words.is_empty());
        only("n IN (SELECT rowid FROM words WHERE words MATCH ?)", one(words));
        query.push_str(" ORDER BY wall_ms DESC, n DESC LIMIT ?");
        values.push(limit(self.limit).into());
        bodies(store, &query, values)
    }
}

/// Every word must be there; the last may be the beginning of one. What people type is never a query language.
fn words(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.replace('"', ""));
    let quoted = words.filter(|word| !word.is_empty()).map(|word| format!("\"{word}\"*"));
    quoted.collect::<Vec<_>>().join(" ")
}

impl IncidentsWanted {
    /// Incidents without their milestones, newest first.
    pub(in crate::watch) fn find(
        &self,
        store: &Connection,
        cluster: &str,
    ) -> rusqlite::Result<Vec<Value>> {
        let query = "SELECT json_remove(body, '$.milestones') FROM incidents
                     WHERE cluster = ? AND opened < ? ORDER BY opened DESC, id DESC LIMIT ?";
        let before = signed(self.before.unwrap_or(u64::MAX));
        let values = vec![cluster.to_string().into(), before.into(), limit(self.limit).into()];
        bodies(store, query, values)
    }
}

/// One incident, whole.
pub(in crate::watch) fn incident(
    store: &Connection,
    cluster: &str,
    id: i64,
) -> rusqlite::Result<Option<Value>> {
    let query = "SELECT body FROM incidents WHERE cluster = ? AND id = ?";
    Ok(bodies(store, query, vec![cluster.to_string().into(), id.into()])?.pop())
}

impl Availability {
    /// Since `since`, until `now`.
    pub(in crate::watch) fn of(
        store: &Connection,
        cluster: &str,
        since: u64,
        now: u64,
    ) -> rusqlite::Result<Self> {
        let sights = sights(store, cluster, since, now)?;
        let seen = |from: u64| -> u64 {
            sights.iter().map(|(began, ended)| ended.saturating_sub((*began).max(from))).sum()
        };
        let first = sights.first().map_or(now, |(began, _)| *began);
        let unseen_ms = now.saturating_sub(first).saturating_sub(seen(first));
        let mut found = Self { since_wall_ms: since, unseen_ms, ..Self::default() };
        let mut query = store.prepare_cached(SUBJECTS)?;
        let mut rows = query.query(params![cluster, signed(since), signed(now)])?;
        while let Some(row) = rows.next()? {
            let kind: String = row.get(0)?;
            let (subject, name): (String, String) = (row.get(1)?, row.get(2)?);
            let count =
                |column| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(column)?.unsigned_abs()) };
            let (known, down_ms, many) = (count(3)?, count(4)?, count(5)?);
            // What was down while nobody looked was told later; that time counts, too.
            let (from, down_ms) = (known.max(since), down_ms.min(now.saturating_sub(since)));
            let total = (seen(from) + down_ms).min(now.saturating_sub(from)).max(down_ms).max(1);
            let up_ppm = 1_000_000 - down_ms * 1_000_000 / total;
            if kind == "node" {
                found.nodes.insert(name, OfNode { up_ppm, down_ms, flaps: many });
            } else {
                found.vms.insert(subject, OfVm { name, up_ppm, down_ms, failovers: many });
            }
        }
        Ok(found)
    }
}

const SUBJECTS: &str = "
SELECT s.kind, s.subject, s.name, s.since,
  coalesce((SELECT sum(min(coalesce(a.ended, ?3), ?3) - max(a.began, ?2)) FROM absences a
    WHERE a.cluster = ?1 AND a.kind = s.kind AND a.subject = s.subject AND coalesce(a.ended, ?3) > ?2), 0),
  CASE s.kind
    WHEN 'node' THEN (SELECT count(*) FROM absences a
      WHERE a.cluster = ?1 AND a.kind = 'flap' AND a.subject = s.subject AND a.began >= ?2)
    ELSE (SELECT count(*) FROM absences a
      WHERE a.cluster = ?1 AND a.kind = 'vm' AND a.subject = s.subject AND a.ended >= ?2
      AND coalesce(a.owner_after, '') <> a.owner) END
FROM subjects s WHERE s.cluster = ?1 AND coalesce(s.gone, ?3) > ?2";

/// When the cluster was seen within the time asked for.
fn sights(
    store: &Connection,
    cluster: &str,
    since: u64,
    now: u64,
) -> rusqlite::Result<Vec<(u64, u64)>> {
    let mut query = store.prepare_cached(
        "SELECT max(began, ?2), min(ended, ?3) FROM sights WHERE cluster = ?1 AND ended > ?2 ORDER BY began",
    )?;
    let rows = query.query_map(params![cluster, signed(since), signed(now)], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let mut sights: Vec<(u64, u64)> = rows.collect::<rusqlite::Result<_>>()?;
    // The last one grows once a second.
    let grows = |ended: u64| now.saturating_sub(ended) < STILL_MS;
    if let Some((_, ended)) = sights.last_mut().filter(|(_, ended)| grows(*ended)) {
        *ended = now;
    }
    Ok(sights)
}
