//! HA-watch: the service beside the agents that people look at. It follows any number of clusters through their agents' APIs, keeps
//! their history, serves the page, passes changes on, and sends alarms. Nothing of a failover depends on it: an agent never
//! waits for it, and never asks it.

mod access;
mod agent;
mod alarms;
mod api;
mod backoff;
mod board;
mod cluster;
mod config;
mod follow;
mod health;
mod history;
mod incidents;
mod own;
mod page;
mod run;
mod seen;
#[cfg(test)]
mod tests;

use crate::clock::Clock;
use alarms::Alarms;
use anyhow::Result;
use board::Board;
use cluster::Cluster;
use history::History;
use incidents::Incident;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;

pub use config::{
    Address, ClusterSettings, MailSettings, Receiver, Retention, RuleSettings, Secret, Settings,
    Way,
};
pub use run::{run, test_alarms};

/// The running service. Cheap to clone; it ends when the last clone and the last router are dropped.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    clusters: Vec<Arc<Cluster>>,
    history: Arc<History>,
    alarms: Arc<Alarms>,
    started_wall_ms: u64,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts the service within a running tokio runtime. Agents may come later.
///
/// # Errors
/// The history cannot be opened, or a certificate cannot be read.
pub fn start(settings: Settings) -> Result<Watch> {
    // Whoever chose a provider before has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let boards = settings.clusters.iter().map(|one| (one.id.clone(), Arc::new(Board::new())));
    let boards: BTreeMap<String, Arc<Board>> = boards.collect();
    let history = Arc::new(start_history(&settings, &boards)?);
    let cluster = |one: &ClusterSettings| {
        let (board, history) = (Arc::clone(&boards[&one.id]), Arc::clone(&history));
        Arc::new(Cluster::new(one.clone(), board, history))
    };
    let clusters: Vec<_> = settings.clusters.iter().map(cluster).collect();
    let alarms = Alarms::new(&settings, Arc::clone(&history))?;
    let mut tasks: Vec<_> = clusters.iter().flat_map(follow::start).collect();
    for cluster in &clusters {
        tasks.push(tokio::spawn(Arc::clone(&alarms).watch(Arc::clone(cluster))));
    }
    if let Some(uuid) = settings.machine.clone().or_else(own::uuid) {
        let look = |cluster| tokio::spawn(own::recognise(cluster, uuid.clone()));
        tasks.extend(clusters.iter().cloned().map(look));
    }
    let started_wall_ms = Clock.wall_ms();
    Ok(Watch(Arc::new(Inner { settings, clusters, history, alarms, started_wall_ms, tasks })))
}

fn start_history(settings: &Settings, boards: &BTreeMap<String, Arc<Board>>) -> Result<History> {
    let ids: Vec<String> = boards.keys().cloned().collect();
    let boards = boards.clone();
    let tell = move |cluster: &str, incident: &Incident| {
        if let Some(board) = boards.get(cluster) {
            board.happened("incident", serde_json::to_string(incident).unwrap_or_default());
        }
    };
    History::start(&settings.database, &ids, settings.retention, Box::new(tell))
}

impl Watch {
    /// Its page and API. It has a fallback; routes of others can be merged that have none.
    pub fn router(&self) -> axum::Router {
        api::router(Arc::clone(&self.0))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.clusters.iter().for_each(|cluster| cluster.end());
    }
}
