//! One cluster as this service knows it: its agents, the state that is shown, and what was heard of it.

use super::agent::AgentClient;
use super::board::Board;
use super::config::{Address, ClusterSettings};
use super::history::History;
use super::seen::Seen;
use crate::api::wire::DecisionReport;
use crate::clock::Clock;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use steadfast_core::decision::Kind;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Decisions that come again are known by their ids; agents hold no more than so many.
const REMEMBERED: usize = 100_000;
/// A decision is told to those who look on for as long.
const FRESH_MS: u64 = 10_000;
/// What agents called impossible longer ago is no alarm when it is read again.
const IMPOSSIBLE_MS: u64 = 600_000;

/// One cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) settings: ClusterSettings,
    pub(super) board: Arc<Board>,
    history: Arc<History>,
    /// Rings when decisions of nodes that cannot tell them any more should be read.
    pub(super) read_shared: Notify,
    agents: Mutex<BTreeMap<String, Arc<Agent>>>,
    own: Mutex<Own>,
    known: Mutex<Known>,
    /// What agents call impossible, by the decision's id.
    impossible: Mutex<BTreeMap<String, String>>,
}

/// One of its agents.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) client: AgentClient,
    address: String,
    status: Mutex<AgentStatus>,
    ear: Mutex<Option<AbortHandle>>,
}

/// How an agent is, in answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, schemars::JsonSchema, Serialize)]
pub(super) struct AgentStatus {
    address: String,
    pub(super) reachable: bool,
    pub(super) last_seen_wall_ms: Option<u64>,
    /// Why it is not reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl AgentStatus {
    fn may_answer(&self) -> bool {
        self.reachable || self.trouble.is_none()
    }
}

/// This service's own word about a cluster, beside agents.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Own {
    pub(super) connected: bool,
    pub(super) via: Option<String>,
    pub(super) since_wall_ms: u64,
    pub(super) self_vm: Option<Value>,
    pub(super) alarms_open: usize,
}

#[derive(Debug, Default)]
struct Known {
    ids: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Cluster {
    pub(super) fn new(settings: ClusterSettings, board: Arc<Board>, history: Arc<History>) -> Self {
        let read_shared = Notify::new();
        let own = Mutex::new(Own { since_wall_ms: Clock.wall_ms(), ..Own::default() });
        let (agents, known, impossible) = Default::default();
        let cluster =
            Self { settings, board, history, read_shared, agents, own, known, impossible };
        cluster.tell_own();
        cluster
    }

    /// The agents it knows of.
    pub(super) fn agents(&self) -> Vec<Arc<Agent>> {
        lock(&self.agents).values().cloned().collect()
    }

    /// The agent of a node.
    pub(super) fn agent(&self, node: &str) -> Option<Arc<Agent>> {
        lock(&self.agents).get(node).cloned()
    }

    /// The agents that are to be known: those of the configuration, and those of `nodes` whose address follows from their name.
    /// Those that are new are the answer; those that are gone are listened to no more.
    pub(super) fn learn_nodes(&self, nodes: &[String]) -> Vec<Arc<Agent>> {
        let mut wanted = self.settings.agents.clone();
        if let Some(others) = &self.settings.others {
            for node in nodes {
                let mut none = Vec::new();
                let found = super::config::address(&others.replace("{node}", node), &mut none);
                wanted.entry(node.clone()).or_insert_with(|| match found {
                    Some(address) => address,
                    None => Address::Url(others.clone()),
                });
            }
        }
        let mut agents = lock(&self.agents);
        // A node that its cluster forgot for a moment is not forgotten here until there is a state without it.
        if !nodes.is_empty() {
            agents.retain(|name, agent| wanted.contains_key(name) || agent.end());
        }
        let mut new = Vec::new();
        for (name, address) in wanted {
            if agents.contains_key(&name) {
                continue;
            }
            match Agent::new(&name, &address, &self.settings) {
                Ok(agent) => {
                    new.push(Arc::clone(&agent));
                    agents.insert(name, agent);
                }
                Err(error) => tracing::warn!(
                    cluster = self.settings.id,
                    agent = name,
                    "{error:#}: the agent cannot be followed"
                ),
            }
        }
        drop(agents);
        if !new.is_empty() {
            self.tell_own();
        }
        new
    }

    /// An agent answers, or does not: told when it changes.
    pub(super) fn set_reachable(&self, agent: &Agent, trouble: Option<String>) {
        let mut status = lock(&agent.status);
        let reachable = trouble.is_none();
        let changed = (status.reachable, &status.trouble) != (reachable, &trouble);
        let was = std::mem::replace(&mut status.reachable, reachable);
        if reachable {
            status.last_seen_wall_ms = Some(Clock.wall_ms());
        }
        status.trouble = trouble;
        let trouble = status.trouble.clone().unwrap_or_default();
        drop(status);
        if !changed {
            return;
        }
        let (cluster, name) = (&self.settings.id, &agent.name);
        match reachable {
            true => tracing::info!(cluster, agent = name, "the agent answers"),
            false if was => tracing::warn!(cluster, agent = name, trouble, "the agent is silent"),
            false => tracing::debug!(cluster, agent = name, trouble, "the agent is silent"),
        }
        if was && !reachable {
            self.read_shared.notify_one();
        }
        self.tell_own();
    }

    /// Whose eyes the state is seen with.
    pub(super) fn set_via(&self, via: Option<&str>) {
        if via.is_none() && self.own().connected {
            self.history.blind(&self.settings.id);
        }
        self.change_own(|own| {
            if own.connected != via.is_some() {
                own.since_wall_ms = Clock.wall_ms();
            }
            own.connected = via.is_some();
            own.via = via.map(Into::into);
        });
    }

    pub(super) fn own(&self) -> Own {
        lock(&self.own).clone()
    }

    pub(super) fn change_own(&self, change: impl FnOnce(&mut Own)) {
        let mut own = lock(&self.own);
        let before = own.clone();
        change(&mut own);
        let changed = *own != before;
        drop(own);
        if changed {
            self.tell_own();
        }
    }

    /// What agents called impossible, or asked a person for, lately.
    pub(super) fn impossible(&self) -> BTreeMap<String, String> {
        lock(&self.impossible).clone()
    }

    /// How its agents are, by node.
    pub(super) fn agent_statuses(&self) -> BTreeMap<String, AgentStatus> {
        lock(&self.agents).iter().map(|(name, agent)| (name.clone(), agent.status())).collect()
    }

    /// Nobody is listened to any more.
    pub(super) fn end(&self) {
        lock(&self.agents).values().for_each(|agent| {
            agent.end();
        });
    }

    fn tell_own(&self) {
        let mut word = serde_json::to_value(self.own()).unwrap_or_default();
        word["agents"] = json!(self.agent_statuses());
        self.board.set_own(&word);
    }

    /// The leader by the state that is shown.
    pub(super) fn leader(&self) -> Option<String> {
        self.board.look(|state| name_of(state.get("leader")))
    }

    /// Nodes by the state that is shown.
    pub(super) fn nodes(&self) -> Vec<String> {
        self.board.look(|state| {
            let nodes = state.get("nodes").and_then(Value::as_object);
            nodes.map(|nodes| nodes.keys().cloned().collect()).unwrap_or_default()
        })
    }

    /// An agent's whole state.
    pub(super) fn replace(&self, state: Value) {
        self.board.replace(state);
        let seen = self.board.look(|state| Seen::all(state, Clock.wall_ms()));
        self.history.seen(&self.settings.id, seen);
    }

    /// An agent's patch, and its text.
    pub(super) fn patch(&self, text: String, patch: &Value) {
        self.board.patch(text, patch.clone());
        let seen = self.board.look(|state| Seen::changed(state, patch, Clock.wall_ms()));
        if let Some(seen) = seen {
            self.history.seen(&self.settings.id, seen);
        }
    }

    /// A decision was heard, `live`, or read because it was missed. False if it was known.
    pub(super) fn hear(&self, report: &DecisionReport, live: bool) -> bool {
        if !lock(&self.known).insert(&report.id) {
            return false;
        }
        // What was read a moment after it was taken is as good as heard.
        if live || Clock.wall_ms().saturating_sub(report.wall_ms) < FRESH_MS {
            let text = serde_json::to_string(&report.without_question()).unwrap_or_default();
            self.board.happened("decision", text);
        }
        self.history.decided(&self.settings.id, report);
        let age = Clock.wall_ms().saturating_sub(report.wall_ms);
        if report.kind == Kind::Alarm && age < IMPOSSIBLE_MS {
            lock(&self.impossible).insert(report.id.clone(), report.text.clone());
        }
        true
    }
}

impl Known {
    fn insert(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.into()) {
            return false;
        }
        self.order.push_back(id.into());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Agent {
    fn new(name: &str, address: &Address, cluster: &ClusterSettings) -> anyhow::Result<Arc<Self>> {
        let client = AgentClient::new(address, cluster)?;
        let (name, address) = (name.to_string(), address.to_string());
        let status = AgentStatus {
            address: address.clone(),
            trouble: Some("not asked yet".into()),
            ..AgentStatus::default()
        };
        let (status, ear) = (Mutex::new(status), Mutex::new(None));
        Ok(Arc::new(Self { name, client, address, status, ear }))
    }

    pub(super) fn status(&self) -> AgentStatus {
        lock(&self.status).clone()
    }

    pub(super) fn is_reachable(&self) -> bool {
        lock(&self.status).reachable
    }

    /// It answered when it was asked last, or nobody has asked it yet.
    pub(super) fn may_answer(&self) -> bool {
        lock(&self.status).may_answer()
    }

    /// It said something.
    pub(super) fn seen(&self) {
        lock(&self.status).last_seen_wall_ms = Some(Clock.wall_ms());
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn set_ear(&self, ear: AbortHandle) {
        *lock(&self.ear) = Some(ear);
    }

    /// Nobody listens to it any more. False, for `retain`.
    fn end(&self) -> bool {
        if let Some(ear) = lock(&self.ear).take() {
            ear.abort();
        }
        false
    }
}

/// The name in `{id, name}`.
pub(super) fn name_of(node: Option<&Value>) -> Option<String> {
    Some(node?.get("name")?.as_str()?.to_string())
}

/// A boolean of the state.
pub(super) fn flag(state: &Map<String, Value>, key: &str) -> bool {
    state.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_nobody_has_asked_yet_is_asked_and_one_that_failed_is_not() {
        let unknown = AgentStatus::default();
        let failed = AgentStatus { trouble: Some("refused".into()), ..unknown.clone() };
        let well = AgentStatus { reachable: true, ..unknown.clone() };
        let asked = [unknown, failed, well].map(|status| status.may_answer());
        assert_eq!(asked, [true, false, true]);
    }
}
