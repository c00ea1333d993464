//! How long nodes and VMs were away.

use super::keeper::signed;
use crate::watch::health::is_good;
use crate::watch::incidents::Incident;
use crate::watch::seen::{Seen, VmSeen};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What is away now: its row, and when it went.
#[derive(Debug, Default)]
pub(super) struct Absences {
    open: BTreeMap<(&'static str, String), i64>,
    /// Nodes that are silent, and since when: if they turn out to be dead, they were from then on.
    silent: BTreeMap<String, u64>,
    known: BTreeMap<(&'static str, String), String>,
}

const NODE: &str = "node";
const VM: &str = "vm";
const FLAP: &str = "flap";

impl Absences {
    pub(super) fn load(store: &Connection, cluster: &str) -> rusqlite::Result<Self> {
        let mut found = Self::default();
        let mut query = store.prepare(
            "SELECT kind, subject, n FROM absences WHERE cluster = ?1 AND ended IS NULL",
        )?;
        let mut rows = query.query([cluster])?;
        while let Some(row) = rows.next()? {
            let kind: String = row.get(0)?;
            let kind = if kind == NODE { NODE } else { VM };
            found.open.insert((kind, row.get(1)?), row.get(2)?);
        }
        Ok(found)
    }

    pub(super) fn seen(
        &mut self,
        store: &Connection,
        cluster: &str,
        seen: &Seen,
    ) -> rusqlite::Result<()> {
        let at = seen.wall_ms;
        for (name, status) in &seen.nodes {
            match status {
                Some(status) => self.see_node(store, cluster, (name, status), at)?,
                None => self.forget(store, cluster, (NODE, name), at)?,
            }
        }
        for (id, vm) in &seen.vms {
            match vm {
                Some(vm) => self.see_vm(store, cluster, (id, vm), at)?,
                None => self.forget(store, cluster, (VM, id), at)?,
            }
        }
        if seen.whole {
            self.forget_others(store, cluster, seen)?;
        }
        Ok(())
    }

    fn see_node(
        &mut self,
        store: &Connection,
        cluster: &str,
        (name, status): (&str, &str),
        at: u64,
    ) -> rusqlite::Result<()> {
        self.know(store, cluster, (NODE, name), name, at)?;
        let is_well = is_good(status) || ["Network unstable", "No quorum"].contains(&status);
        if is_well {
            self.silent.remove(name);
            return self.end(store, (NODE, name), at, None);
        }
        if !self.silent.contains_key(name) && !self.open.contains_key(&(NODE, name.into())) {
            self.silent.insert(name.into(), at);
            add(store, (cluster, FLAP, name), at, Some(at), "")?;
        }
        if ["Suspect", "Joining"].contains(&status) {
            return Ok(());
        }
        let since = self.silent.get(name).copied().unwrap_or(at);
        self.begin(store, (cluster, NODE, name), since, "")
    }

    fn see_vm(
        &mut self,
        store: &Connection,
        cluster: &str,
        (id, vm): (&str, &VmSeen),
        at: u64,
    ) -> rusqlite::Result<()> {
        self.know(store, cluster, (VM, id), &vm.name, at)?;
        if vm.runs {
            return self.end(store, (VM, id), at, Some(&vm.owner));
        }
        if vm.down {
            let since = self.silent.get(&vm.owner).copied().unwrap_or(at);
            return self.begin(store, (cluster, VM, id), since, &vm.owner);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        store: &Connection,
        (cluster, kind, subject): (&str, &'static str, &str),
        at: u64,
        owner: &str,
    ) -> rusqlite::Result<()> {
        if let Entry::Vacant(place) = self.open.entry((kind, subject.into())) {
            place.insert(add(store, (cluster, kind, subject), at, None, owner)?);
        }
        Ok(())
    }

    fn end(
        &mut self,
        store: &Connection,
        (kind, subject): (&'static str, &str),
        at: u64,
        owner: Option<&str>,
    ) -> rusqlite::Result<()> {
        let Some(row) = self.open.remove(&(kind, subject.into())) else { return Ok(()) };
        let over = "UPDATE absences SET ended = max(began, ?2), owner_after = ?3 WHERE n = ?1";
        store.prepare_cached(over)?.execute(params![row, signed(at), owner]).map(drop)
    }

    /// From now on it counts.
    fn know(
        &mut self,
        store: &Connection,
        cluster: &str,
        (kind, subject): (&'static str, &str),
        name: &str,
        at: u64,
    ) -> rusqlite::Result<()> {
        let key = (kind, subject.to_string());
        if self.known.get(&key).is_some_and(|known| known == name) {
            return Ok(());
        }
        self.known.insert(key, name.into());
        let add =
            "INSERT INTO subjects (cluster, kind, subject, name, since) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT DO UPDATE SET name = excluded.name, gone = NULL";
        store
            .prepare_cached(add)?
            .execute(params![cluster, kind, subject, name, signed(at)])
            .map(drop)
    }

    /// It is not looked after any more.
    fn forget(
        &mut self,
        store: &Connection,
        cluster: &str,
        (kind, subject): (&'static str, &str),
        at: u64,
    ) -> rusqlite::Result<()> {
        self.known.remove(&(kind, subject.to_string()));
        self.end(store, (kind, subject), at, None)?;
        let gone =
            "UPDATE subjects SET gone = ?4 WHERE cluster = ?1 AND kind = ?2 AND subject = ?3";
        store.prepare_cached(gone)?.execute(params![cluster, kind, subject, signed(at)]).map(drop)
    }

    /// Those that went while nobody saw it.
    fn forget_others(
        &mut self,
        store: &Connection,
        cluster: &str,
        seen: &Seen,
    ) -> rusqlite::Result<()> {
        let mut query = store.prepare_cached(
            "SELECT kind, subject FROM subjects WHERE cluster = ?1 AND gone IS NULL",
        )?;
        let rows = query.query_map([cluster], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let known: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>()?;
        for (kind, subject) in known {
            let kind = if kind == NODE { NODE } else { VM };
            let is_here = match kind {
                NODE => seen.nodes.contains_key(&subject),
                _ => seen.vms.contains_key(&subject),
            };
            if !is_here {
                self.forget(store, cluster, (kind, &subject), seen.wall_ms)?;
            }
        }
        Ok(())
    }

    /// An incident that is over, of which nobody saw the VMs stand still: this service did not run.
    pub(super) fn make_up(
        &self,
        store: &Connection,
        cluster: &str,
        incident: &Incident,
    ) -> rusqlite::Result<()> {
        if incident.closed_wall_ms.is_none() {
            return Ok(());
        }
        for vm in &incident.vms {
            let Some(ran) = vm.running_wall_ms else { continue };
            let (began, ended) = (signed(incident.opened_wall_ms), signed(ran));
            let known =
                "SELECT count(*) FROM absences WHERE cluster = ?1 AND kind = 'vm' AND subject = ?2
                         AND began <= ?4 AND coalesce(ended, ?4) >= ?3";
            let values = params![cluster, vm.id, began, ended];
            let count: i64 = store.prepare_cached(known)?.query_row(values, |row| row.get(0))?;
            if count == 0 {
                let owner = incident.node.as_deref().unwrap_or_default();
                add(store, (cluster, VM, &vm.id), incident.opened_wall_ms, Some(ran), owner)?;
            }
        }
        Ok(())
    }
}

fn add(
    store: &Connection,
    (cluster, kind, subject): (&str, &str, &str),
    began: u64,
    ended: Option<u64>,
    owner: &str,
) -> rusqlite::Result<i64> {
    let add = "INSERT INTO absences (cluster, kind, subject, began, ended, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![cluster, kind, subject, signed(began), ended.map(signed), owner];
    store.prepare_cached(add)?.execute(values)?;
    Ok(store.last_insert_rowid())
}
