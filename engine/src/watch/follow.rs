//! Follows one cluster: the state through one agent's eyes, the decisions with all agents' ears.
//!
//! Each node tells its own decisions only, so all of them are listened to; what a node cannot tell any more is read from shared
//! storage by another. The state is one agent's: the leader's if possible, because it knows most.

use super::agent::Events;
use super::backoff::Backoff;
use super::cluster::{Agent, Cluster, flag, name_of};
use crate::api::wire::DecisionReport;
use crate::sse::Frame;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// The next agent is tried when the one before did not answer within this.
const HEDGE: Duration = Duration::from_millis(300);
/// The state comes within this, or not at all.
const FIRST_STATE: Duration = Duration::from_secs(5);
/// An agent that does not see best is left after this.
const UNEASY: Duration = Duration::from_secs(4);
/// Longest pause between attempts.
const PAUSE: Duration = Duration::from_secs(2);
/// What a stream may have skipped is asked for again this often.
const RECHECK: Duration = Duration::from_secs(60);
/// Shared storage is read this often, besides when an agent falls silent.
const REREAD: Duration = Duration::from_secs(300);
/// What a node holds in memory.
const OWN_DECISIONS: &str = "/v1/decisions?limit=1000";
/// What all nodes hold on shared storage.
const ALL_DECISIONS: &str = "/v1/decisions?scope=cluster&limit=20000";

/// Begins to follow `cluster`; ends when the task that it returns is aborted.
pub(super) fn start(cluster: &Arc<Cluster>) -> Vec<JoinHandle<()>> {
    meet(cluster);
    let eye = tokio::spawn(follow_state(Arc::clone(cluster)));
    let reader = tokio::spawn(read_shared(Arc::clone(cluster)));
    vec![eye, reader]
}

/// Listens to agents that are new.
fn meet(cluster: &Arc<Cluster>) {
    for agent in cluster.learn_nodes(&cluster.nodes()) {
        let ear = tokio::spawn(listen(Arc::clone(cluster), Arc::clone(&agent)));
        agent.set_ear(ear.abort_handle());
    }
}

/// One agent's eyes.
struct Sight {
    agent: Arc<Agent>,
    events: Events,
    state: Value,
}

impl Sight {
    /// More is better: it is in the majority and knows a leader; it is the leader.
    fn worth(&self) -> (bool, bool) {
        self.state.as_object().map_or((false, false), |state| worth(state, &self.agent.name))
    }
}

fn worth(state: &serde_json::Map<String, Value>, node: &str) -> (bool, bool) {
    let leader = name_of(state.get("leader"));
    let is_leader = leader.as_deref() == Some(node);
    (flag(state, "quorate") && leader.is_some(), is_leader)
}

async fn follow_state(cluster: Arc<Cluster>) {
    let mut backoff = Backoff::new(PAUSE);
    loop {
        match find(&cluster, None).await {
            Some(sight) => {
                backoff.reset();
                look_on(&cluster, sight).await;
            }
            None => {
                cluster.set_via(None);
                sleep(backoff.pause()).await;
            }
        }
    }
}

/// The agent that sees best; of those that see equally well the first that answers. `but` is not asked.
async fn find(cluster: &Cluster, but: Option<&str>) -> Option<Sight> {
    let mut agents = cluster.agents();
    agents.retain(|agent| Some(agent.name.as_str()) != but);
    let leader = cluster.leader();
    let is_leader = |agent: &Agent| leader.as_ref() == Some(&agent.name);
    agents.sort_by_key(|agent| (!agent.is_reachable(), !is_leader(agent), agent.name.clone()));
    let mut attempts = JoinSet::new();
    for (agent, delay) in agents.into_iter().zip((0..).map(|turn| HEDGE * turn)) {
        attempts.spawn(async move {
            sleep(delay).await;
            let seen = see(Arc::clone(&agent)).await;
            (agent, seen)
        });
    }
    let mut best: Option<Sight> = None;
    while let Some(Ok((agent, seen))) = attempts.join_next().await {
        match seen {
            Ok(sight) if sight.worth().0 => return Some(sight),
            Ok(sight) => best = best.or(Some(sight)),
            Err(error) => cluster.set_reachable(&agent, Some(format!("{error:#}"))),
        }
    }
    best
}

async fn see(agent: Arc<Agent>) -> Result<Sight> {
    let mut events = agent.client.open("/v1/live").await?;
    let first = timeout(FIRST_STATE, events.next()).await;
    let frame = first.map_err(|_| anyhow!("it does not tell its state"))??;
    let state = serde_json::from_str(&frame.data).context("its state is not understood")?;
    match frame.event.as_str() {
        "state" => Ok(Sight { agent, events, state }),
        other => Err(anyhow!("it begins with {other}, not with its state")),
    }
}

/// Until the agent falls silent.
async fn look_on(cluster: &Arc<Cluster>, mut sight: Sight) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unease = Unease::default();
    take(cluster, &mut sight);
    loop {
        tokio::select! {
            frame = sight.events.next() => match frame {
                Ok(frame) => read(cluster, &mut sight, frame),
                Err(error) => {
                    cluster.set_reachable(&sight.agent, Some(format!("{error:#}")));
                    return;
                }
            },
            _ = tick.tick() => {
                meet(cluster);
                unease.tick(cluster, &sight.agent.name);
            }
            better = unease.found() => if let Some(better) = better {
                tracing::info!(
                    cluster = cluster.settings.id,
                    from = sight.agent.name,
                    to = better.agent.name,
                    "another agent sees better"
                );
                sight = better;
                take(cluster, &mut sight);
            },
        }
    }
}

/// From now on the state is seen with these eyes.
fn take(cluster: &Arc<Cluster>, sight: &mut Sight) {
    cluster.set_reachable(&sight.agent, None);
    cluster.set_via(Some(&sight.agent.name));
    cluster.replace(std::mem::take(&mut sight.state));
    cluster.read_shared.notify_one();
    meet(cluster);
}

fn read(cluster: &Arc<Cluster>, sight: &mut Sight, frame: Frame) {
    sight.agent.seen();
    let Ok(value) = serde_json::from_str::<Value>(&frame.data) else {
        tracing::warn!(agent = sight.agent.name, event = frame.event, "not understood");
        return;
    };
    match frame.event.as_str() {
        "state" => cluster.replace(value),
        "patch" => cluster.patch(frame.data, &value),
        "decision" => hear(cluster, &sight.agent, value, true),
        _ => {}
    }
}

/// Looks for a better agent when the one that is followed has not been best for a while.
#[derive(Default)]
struct Unease {
    since: Option<Instant>,
    search: Option<JoinHandle<Option<Sight>>>,
}

impl Unease {
    fn tick(&mut self, cluster: &Arc<Cluster>, node: &str) {
        let (sees, leads) = cluster.board.look(|state| worth(state, node));
        let leader = cluster.leader().and_then(|leader| cluster.agent(&leader));
        let is_best = sees && (leads || !leader.is_some_and(|agent| agent.is_reachable()));
        if is_best {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < UNEASY || self.search.is_some() {
            return;
        }
        self.since = Some(Instant::now());
        let (cluster, node) = (Arc::clone(cluster), node.to_string());
        self.search = Some(tokio::spawn(async move {
            let found = find(&cluster, Some(&node)).await?;
            (found.worth() > (sees, leads)).then_some(found)
        }));
    }

    /// Waits for the end of the search, forever if there is none. May be cancelled.
    async fn found(&mut self) -> Option<Sight> {
        let Some(search) = &mut self.search else { return std::future::pending().await };
        let found = search.await.ok().flatten();
        self.search = None;
        found
    }
}

impl Drop for Unease {
    fn drop(&mut self) {
        if let Some(search) = &self.search {
            search.abort();
        }
    }
}

/// Listens to one agent for as long as it is one.
async fn listen(cluster: Arc<Cluster>, agent: Arc<Agent>) {
    let mut backoff = Backoff::new(PAUSE);
    loop {
        if let Err(error) = listen_once(&cluster, &agent, &mut backoff).await {
            cluster.set_reachable(&agent, Some(format!("{error:#}")));
        }
        sleep(backoff.pause()).await;
    }
}

async fn listen_once(cluster: &Cluster, agent: &Agent, backoff: &mut Backoff) -> Result<()> {
    // Before the past is read, so that nothing falls between.
    let mut events = agent.client.open("/v1/events").await?;
    cluster.set_reachable(agent, None);
    backoff.reset();
    read_past(cluster, agent, OWN_DECISIONS).await?;
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    recheck.tick().await;
    loop {
        tokio::select! {
            frame = events.next() => {
                agent.seen();
                let frame = frame?;
                let value = serde_json::from_str(&frame.data).context("not understood")?;
                hear(cluster, agent, value, true);
            }
            _ = recheck.tick() => read_past(cluster, agent, OWN_DECISIONS).await?,
        }
    }
}

async fn read_past(cluster: &Cluster, agent: &Agent, path: &str) -> Result<()> {
    let mut past: Vec<Value> = agent.client.get(path).await?;
    past.sort_by_key(|report| report.get("wall_ms").and_then(Value::as_u64));
    past.into_iter().for_each(|value| hear(cluster, agent, value, false));
    Ok(())
}

fn hear(cluster: &Cluster, agent: &Agent, value: Value, live: bool) {
    match serde_json::from_value::<DecisionReport>(value) {
        Ok(report) => drop(cluster.hear(&report, live)),
        // Of another version: the rest is still worth following.
        Err(error) => {
            tracing::debug!(agent = agent.name, %error, "a decision is not understood");
        }
    }
}

/// Reads what nodes decided that cannot tell it any more, whenever that may have changed.
async fn read_shared(cluster: Arc<Cluster>) {
    loop {
        let _ = timeout(REREAD, cluster.read_shared.notified()).await;
        // Its last words reach shared storage a little later than its silence reaches us.
        sleep(Duration::from_secs(1)).await;
        let Some(agent) = cluster.own().via.and_then(|via| cluster.agent(&via)) else { continue };
        if let Err(error) = read_past(&cluster, &agent, ALL_DECISIONS).await {
            let cluster = &cluster.settings.id;
            tracing::warn!(cluster, "decisions on shared storage are not read: {error:#}");
        }
    }
}
