//! The agent as its API sees it: waiting for something, or live.

use super::edge::Edge;
use super::{BeatGaps, Inbox, News, Requests};
use crate::api::{Feed, Reception, Refusal};
use crate::config::Config;
use crate::decisions::Decisions;
use crate::hypervisor::Hypervisor;
use crate::pages::PageStore;
use crate::policy::PolicyStore;
use crate::systemd;
use crate::telemetry::Hub;
use crate::verify_ip::Verifier;
use crate::watchdog::ReadBack;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use steadfast_core::config::Timing;
use steadfast_core::snapshot::Snapshot;
use tokio::sync::oneshot;

/// A snapshot serves every request for this long, so that no client can crowd the lease path.
const FRESH: Duration = Duration::from_millis(100);
/// How long a request waits for the lease path.
const PATIENCE: Duration = Duration::from_secs(2);

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// What it was told.
    pub config: Config,
    /// What its parts reach.
    pub(crate) edge: Edge,
    /// Rings when there is something new to see.
    pub news: Arc<News>,
    /// What is told to whoever looks on.
    pub(crate) feed: Feed,
    /// What is remembered of those who ask.
    pub(crate) reception: Reception,
    phase: Mutex<Phase>,
    newest: tokio::sync::Mutex<Option<(Instant, Arc<Snapshot>)>>,
    warnings: Mutex<BTreeMap<&'static str, String>>,
}

/// How far it is.
#[derive(Debug, Clone)]
pub enum Phase {
    /// It cannot begin; with what it waits for and what to do.
    Waiting(String),
    /// The machine runs.
    Live(Arc<Live>),
}

/// What exists once the machine runs.
#[derive(Debug)]
pub struct Live {
    /// Timing it runs with.
    pub timing: Timing,
    /// W as the watchdog says it, if there is one.
    pub read_back: Option<ReadBack>,
    /// The way to the machine.
    pub inbox: Arc<Inbox>,
    /// How late beats were.
    pub gaps: Arc<BeatGaps>,
    /// Operators' requests under way.
    pub requests: Arc<Requests>,
    /// The last decisions.
    pub decisions: Arc<Decisions>,
    /// Policies.
    pub policies: Arc<PolicyStore>,
    /// What runs the guests.
    pub hypervisor: Arc<Hypervisor>,
    /// Shared storage.
    pub pages: Arc<PageStore>,
    /// What is known of this node's equipment.
    pub telemetry: Arc<Hub>,
    /// Verification IPs.
    pub verification: Arc<Verifier>,
}

impl Agent {
    /// An agent that has not begun.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Self::at(config, Edge::Host)
    }

    /// The same, on this edge.
    pub(crate) fn at(config: Config, edge: Edge) -> Arc<Self> {
        let phase = Mutex::new(Phase::Waiting("the agent is starting".into()));
        let (newest, warnings) = (tokio::sync::Mutex::default(), Mutex::default());
        let (news, feed) = (Arc::default(), Feed::default());
        let reception = Reception::new(&config);
        Arc::new(Self { config, edge, news, feed, reception, phase, newest, warnings })
    }

    /// What a person should put right, by who found it; `None` when it is right. Told once in the log.
    pub(crate) fn warn(&self, finder: &'static str, trouble: Option<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.get(finder) == trouble.as_ref() {
            return;
        }
        match trouble {
            Some(trouble) => {
                tracing::warn!(finder, trouble, "a person should put this right");
                warnings.insert(finder, trouble);
            }
            None => {
                tracing::info!(finder, "this is right again");
                warnings.remove(finder);
            }
        }
        self.news.ring();
    }

    /// What a person should put right.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings_by_finder().into_values().collect()
    }

    /// The same, by who found it.
    #[must_use]
    pub fn warnings_by_finder(&self) -> BTreeMap<&'static str, String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It waits; told once in the log for each reason.
    pub(super) fn wait_for(&self, reason: String) {
        let mut phase = self.phase();
        if matches!(&*phase, Phase::Waiting(told) if *told == reason) {
            return;
        }
        tracing::warn!(reason, "waiting; HA is not active on this node");
        systemd::notify(&format!("STATUS=waiting: {reason}"));
        *phase = Phase::Waiting(reason);
    }

    /// The machine runs.
    pub(super) fn begin(&self, live: Arc<Live>) {
        *self.phase() = Phase::Live(live);
        systemd::notify("STATUS=HA is active on this node");
    }

    /// What exists once the machine runs.
    ///
    /// # Errors
    /// It waits for something.
    pub fn live(&self) -> Result<Arc<Live>, Refusal> {
        match &*self.phase() {
            Phase::Waiting(reason) => Err(Refusal::not_ready(reason)),
            Phase::Live(live) => Ok(Arc::clone(live)),
        }
    }

    /// The state, at most [`FRESH`] old.
    ///
    /// # Errors
    /// The agent waits for something, or the lease path is stuck.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, Refusal> {
        self.snapshot_not_older(FRESH).await
    }

    /// The state, at most `age` old.
    ///
    /// # Errors
    /// See [`Agent::snapshot`].
    pub(crate) async fn snapshot_not_older(&self, age: Duration) -> Result<Arc<Snapshot>, Refusal> {
        let live = self.live()?;
        // Held while asking, so that many requests ask once.
        let mut newest = self.newest.lock().await;
        if let Some((taken, snapshot)) = &*newest
            && taken.elapsed() < age
        {
            return Ok(Arc::clone(snapshot));
        }
        let (tell, told) = oneshot::channel();
        live.inbox.show(move |snapshot| drop(tell.send(snapshot)));
        let answer = tokio::time::timeout(PATIENCE, told).await;
        let snapshot = answer.ok().and_then(Result::ok).ok_or_else(Refusal::busy)?;
        live.decisions.learn(&snapshot);
        let snapshot = Arc::new(snapshot);
        *newest = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
