//! Alarms in the history's file.

use super::Alarm;
use crate::watch::history::History;
use rusqlite::{Connection, params};

/// Alarms that are over and still shown.
const RECENT: i64 = 200;

/// Those that are not over, the last ones that are, and the number of the next one.
pub(super) fn load(store: &Connection) -> rusqlite::Result<(Vec<Alarm>, i64)> {
    let mut query = store.prepare(
        "SELECT body FROM alarms WHERE resolved IS NULL OR n IN (SELECT n FROM alarms ORDER BY n DESC LIMIT ?1) ORDER BY n",
    )?;
    let rows = query.query_map([RECENT], |row| row.get::<_, String>(0))?;
    let mut found = Vec::new();
    for body in rows {
        found.extend(serde_json::from_str::<Alarm>(&body?).ok());
    }
    let next =
        store.query_row("SELECT coalesce(max(n), 0) + 1 FROM alarms", [], |row| row.get(0))?;
    Ok((found, next))
}

pub(super) fn write(history: &History, alarm: Alarm) {
    history.write(move |store| {
        let body = serde_json::to_string(&alarm).unwrap_or_default();
        let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let put =
            "INSERT INTO alarms (n, cluster, raised, resolved, body) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT DO UPDATE SET resolved = excluded.resolved, body = excluded.body";
        let (raised, resolved) = (signed(alarm.raised_wall_ms), alarm.resolved_wall_ms.map(signed));
        let values = params![alarm.id, alarm.cluster, raised, resolved, body];
        if let Err(error) = store.execute(put, values) {
            tracing::warn!(%error, id = alarm.id, "the alarm is not kept");
        }
    });
}
