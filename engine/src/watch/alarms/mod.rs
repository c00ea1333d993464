//! Alarms: what a person should know now, told once to each receiver, until it is over or somebody says that he takes care.

mod conditions;
mod desk;
mod keep;
mod post;
mod rule;
mod send;

use super::cluster::Cluster;
use super::config::{RuleSettings, Settings};
use super::history::History;
use crate::clock::Clock;
use anyhow::Result;
use desk::{Changes, Desk};
use post::Post;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

pub use rule::Rule;
pub(super) use send::test;

/// Conditions are looked at this often.
const LOOK: Duration = Duration::from_millis(500);

/// An alarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub(super) struct Alarm {
    pub(super) id: i64,
    pub(super) cluster: String,
    pub(super) rule: String,
    /// The node or VM that it is about.
    pub(super) subject: String,
    pub(super) text: String,
    /// `warning` or `critical`.
    pub(super) severity: String,
    pub(super) raised_wall_ms: u64,
    pub(super) resolved_wall_ms: Option<u64>,
    pub(super) acknowledged_wall_ms: Option<u64>,
    pub(super) acknowledged_by: Option<String>,
    /// What each receiver was told.
    #[serde(default)]
    pub(super) told: BTreeMap<String, Told>,
}

/// What a receiver was told of an alarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    /// When it was told last that the alarm is raised.
    pub(super) raised_wall_ms: Option<u64>,
    /// When it was told that the alarm is over.
    pub(super) resolved_wall_ms: Option<u64>,
    /// Why it could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

impl Alarm {
    /// Somebody should do something.
    pub(super) fn is_open(&self) -> bool {
        self.resolved_wall_ms.is_none() && self.acknowledged_wall_ms.is_none()
    }
}

/// The alarms of all clusters.
#[derive(Debug)]
pub(super) struct Alarms {
    desk: Mutex<Desk>,
    rules: RuleSettings,
    history: Arc<History>,
    post: Post,
}

impl Alarms {
    /// Goes on with what the history holds.
    ///
    /// # Errors
    /// The history cannot be read.
    pub(super) fn new(settings: &Settings, history: Arc<History>) -> Result<Arc<Self>> {
        let (alarms, next) = history.read(keep::load)?;
        let (desk, rules) = (Mutex::new(Desk::new(alarms, next)), settings.rules);
        let alarms = Arc::new_cyclic(|alarms| {
            let post = Post::start(&settings.receivers, alarms);
            Self { desk, rules, history, post }
        });
        alarms.tell_what_is_left();
        Ok(alarms)
    }

    /// Newest first.
    pub(super) fn all(&self) -> Vec<Alarm> {
        self.desk().all()
    }

    /// Somebody takes care of it. `None`: there is no such alarm.
    pub(super) fn acknowledge(
        &self,
        id: i64,
        by: &str,
        clusters: &[Arc<Cluster>],
    ) -> Option<Alarm> {
        let alarm = self.desk().acknowledge(id, by, Clock.wall_ms())?;
        self.keep(&alarm);
        if let Some(cluster) = clusters.iter().find(|one| one.settings.id == alarm.cluster) {
            self.show(cluster, [&alarm]);
        }
        Some(alarm)
    }

    /// A receiver was told, or could not be.
    pub(super) fn note_told(&self, ids: &[i64], receiver: &str, note: impl Fn(&mut Told)) {
        let changed = self.desk().note_told(ids, receiver, note);
        changed.iter().for_each(|alarm| self.keep(alarm));
    }

    /// Looks at a cluster again and again.
    pub(super) async fn watch(self: Arc<Self>, cluster: Arc<Cluster>) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(&cluster);
        }
    }

    fn look(&self, cluster: &Cluster) {
        let now = Clock.wall_ms();
        let found = conditions::find(cluster, &self.rules, now);
        let changes = self.desk().look(&cluster.settings.id, &found, &self.rules, now);
        let Changes { raised, resolved } = &changes;
        raised.iter().chain(resolved).for_each(|alarm| self.keep(alarm));
        self.post.tell(&changes);
        let all = self.desk().all();
        self.post.remind(&all, now);
        self.show(cluster, raised.iter().chain(resolved));
    }

    /// To those who look on.
    fn show<'a>(&self, cluster: &Cluster, alarms: impl IntoIterator<Item = &'a Alarm>) {
        for alarm in alarms {
            let text = serde_json::to_string(alarm).unwrap_or_default();
            cluster.board.happened("alarm", text);
        }
        let open = self.desk().count_open(&cluster.settings.id);
        cluster.change_own(|own| own.alarms_open = open);
    }

    /// What this service could not tell before it ended.
    fn tell_what_is_left(&self) {
        let all = self.desk().all();
        self.post.tell_missed(&all);
    }

    fn keep(&self, alarm: &Alarm) {
        keep::write(&self.history, alarm.clone());
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
