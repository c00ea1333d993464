//! `GET /v1/live`: the state as a stream of server-sent events: `state` (all of it), `patch` (what changed) and `decision`.
//!
//! One task an agent takes the snapshots, finds out what changed, and renders each event once for all who look on: the lease
//! path does not know how many they are. It is rung by the lease path when there is something to see (`driver/news.rs`). A snapshot
//! of many VMs takes its time there, so the task never takes more than a twentieth of that thread's time.

#[cfg(test)]
mod tests;

use super::errors::Refusal;
use super::plan::{self, Plans};
use super::policies;
use super::wire::{BeatReport, Beside, DecisionReport, LiveState, timing_by_key};
use crate::clock::Clock;
use crate::config::{assumed, bounds};
use crate::driver::{Agent, Live, Watching};
use crate::patch::{diff, merge};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::ids::VmId;
use steadfast_core::snapshot::{Snapshot, VmView};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// Ages are told this often.
const TICK: Duration = Duration::from_secs(1);
/// Changes that come together are told together.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// A snapshot is followed by a pause of so many times what it took on the lease path.
const SPARE: u32 = 20;
/// Events that a slow client may be behind; after that it gets the whole state again.
const BEHIND: usize = 64;

/// What the clients were told, while there are any.
#[derive(Debug, Default)]
pub(crate) struct Feed(tokio::sync::Mutex<Option<Told>>, Mutex<Option<Arc<Plans>>>);

#[derive(Debug)]
struct Told {
    clients: broadcast::Sender<Bytes>,
    number: u64,
    /// Everything but VMs.
    rest: Value,
    vms: BTreeMap<VmId, VmView>,
    /// The event that tells all of it, as long as nothing is new.
    whole: Option<Bytes>,
}

/// `GET /v1/live`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Anything but 0: the state as JSON, once.
    #[serde(default)]
    once: u8,
}

pub(super) async fn live(
    State(agent): State<Arc<Agent>>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    if wanted.once != 0 {
        let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
        let mut state = state(&agent, &live, &snapshot);
        if state.plan.is_none() {
            state.plan = plan::in_short(&live, &snapshot).await;
        }
        return Ok(Json(state).into_response());
    }
    let joined = join(&agent).await?;
    let (queue, events) = mpsc::channel(1);
    tokio::spawn(async move { serve(&agent, joined, &queue).await });
    let body = Body::from_stream(ReceiverStream::new(events).map(Ok::<_, Infallible>));
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

type Joined = (Bytes, broadcast::Receiver<Bytes>);

/// The whole state, and what comes after it. The first client sets the task to work.
async fn join(agent: &Arc<Agent>) -> Result<Joined, Refusal> {
    let mut told = agent.feed.0.lock().await;
    if told.is_none() {
        let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
        *told = Some(Told::begin(&state(agent, &live, &snapshot)));
        let decisions = live.decisions.watch();
        let watching = agent.news.watch();
        tokio::spawn(plan::keep(Arc::clone(agent), Arc::clone(&live)));
        tokio::spawn(keep_telling(Arc::clone(agent), live, decisions, watching));
    }
    let told = told.as_mut().ok_or_else(Refusal::busy)?;
    let after = told.clients.subscribe();
    Ok((told.whole(), after))
}

/// One client: a slow one keeps nobody waiting but itself.
async fn serve(agent: &Arc<Agent>, joined: Joined, queue: &mpsc::Sender<Bytes>) {
    let (whole, mut events) = joined;
    let mut next = whole;
    loop {
        if queue.send(next).await.is_err() {
            return;
        }
        let received = tokio::select! {
            received = events.recv() => received,
            () = queue.closed() => return,
        };
        next = match received {
            Ok(event) => event,
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(_)) => {
                let Ok(joined) = join(agent).await else { return };
                events = joined.1;
                joined.0
            }
        };
    }
}

type Decisions = broadcast::Receiver<Arc<DecisionReport>>;

/// Until nobody listens any more.
async fn keep_telling(
    agent: Arc<Agent>,
    live: Arc<Live>,
    mut decisions: Decisions,
    watching: Watching,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut free_at = Instant::now();
    loop {
        let ages = tokio::select! {
            biased;
            decision = decisions.recv() => {
                match decision {
                    Ok(decision) => agent.feed.tell_decision(&decision).await,
                    // Some are lost: the state stands for them.
                    Err(RecvError::Lagged(_)) => agent.feed.tell_whole().await,
                    Err(RecvError::Closed) => break,
                }
                continue;
            }
            _ = tick.tick() => true,
            () = rung(&agent, free_at) => false,
        };
        if agent.feed.ended().await {
            break;
        }
        if let Ok(snapshot) = agent.snapshot_not_older(Duration::ZERO).await {
            let state = state(&agent, &live, &snapshot);
            agent.feed.tell_state(&state, ages).await;
        } else {
            agent.feed.tell_busy().await;
        }
        free_at = Instant::now() + LEAST_PAUSE.max(agent.news.cost() * SPARE);
    }
    drop(watching);
}

/// There is news, and the lease path may be asked again.
async fn rung(agent: &Agent, free_at: Instant) {
    tokio::time::sleep_until(free_at).await;
    agent.news.heard().await;
}

impl Feed {
    /// What is told of the standing plan.
    pub(super) fn set_plan(&self, plan: Option<Plans>) {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = plan.map(Arc::new);
    }

    fn plan(&self) -> Option<Plans> {
        let plan = self.1.lock().unwrap_or_else(PoisonError::into_inner).clone();
        plan.map(Arc::unwrap_or_clone)
    }

    async fn tell_state(&self, state: &LiveState, ages: bool) {
        if let Some(told) = self.0.lock().await.as_mut() {
            told.update(state, ages);
        }
    }

    async fn tell_decision(&self, decision: &DecisionReport) {
        if let Some(told) = self.0.lock().await.as_mut() {
            // A question may be megabytes; `/v1/decisions` has it.
            let text = serde_json::to_string(&decision.without_question()).unwrap_or_default();
            told.tell("decision", &text);
        }
    }

    async fn tell_whole(&self) {
        if let Some(told) = self.0.lock().await.as_mut() {
            told.number += 1;
            told.whole = None;
            let whole = told.whole();
            let _ = told.clients.send(whole);
        }
    }

    /// The line stays open though there is nothing to say.
    async fn tell_busy(&self) {
        if let Some(told) = self.0.lock().await.as_mut() {
            let _ = told.clients.send(Bytes::from_static(b": the lease path is busy\n\n"));
        }
    }

    /// Nobody listens: what was told is forgotten.
    async fn ended(&self) -> bool {
        let mut told = self.0.lock().await;
        if told.as_ref().is_some_and(|told| told.clients.receiver_count() > 0) {
            return false;
        }
        *told = None;
        true
    }
}

impl Told {
    fn begin(state: &LiveState) -> Self {
        let clients = broadcast::channel(BEHIND).0;
        let vms = state.vms.clone();
        Self { clients, number: 1, rest: rest(state), vms, whole: None }
    }

    fn whole(&mut self) -> Bytes {
        let Self { number, rest, vms, whole, .. } = self;
        let rendered = whole.get_or_insert_with(|| {
            // By hand, because the VMs of a large cluster are no value that should be built twice.
            let vms = serde_json::to_string(vms).unwrap_or_default();
            let rest = serde_json::to_string(rest).unwrap_or_default();
            let head = rest.strip_suffix('}').unwrap_or_default();
            event(*number, "state", &format!("{head},\"vms\":{vms}}}"))
        });
        rendered.clone()
    }

    fn update(&mut self, state: &LiveState, ages: bool) {
        let changed = diff(&self.rest, &rest(state), ages);
        let vms = self.update_vms(&state.vms);
        if let Some(changed) = &changed {
            merge(&mut self.rest, changed);
        }
        if changed.is_none() && vms.is_empty() {
            return;
        }
        let mut patch = changed.unwrap_or_else(|| json!({}));
        if let (Value::Object(patch), false) = (&mut patch, vms.is_empty()) {
            patch.insert("vms".into(), Value::Object(vms));
        }
        self.tell("patch", &patch.to_string());
    }

    /// Compared as they are: of 10,000 VMs few change at once.
    fn update_vms(&mut self, now: &BTreeMap<VmId, VmView>) -> Map<String, Value> {
        let mut patch = Map::new();
        let value = |vm: &VmView| serde_json::to_value(vm).unwrap_or_default();
        for (id, vm) in now {
            let known = self.vms.get(id);
            if known == Some(vm) {
                continue;
            }
            let before = known.map_or_else(|| json!({}), value);
            patch.extend(diff(&before, &value(vm), true).map(|changed| (id.0.clone(), changed)));
        }
        let gone = self.vms.keys().filter(|id| !now.contains_key(id));
        patch.extend(gone.map(|id| (id.0.clone(), Value::Null)));
        if !patch.is_empty() {
            self.vms.clone_from(now);
        }
        patch
    }

    fn tell(&mut self, kind: &str, data: &str) {
        self.number += 1;
        self.whole = None;
        // Nobody listening is not an error: the task ends soon.
        let _ = self.clients.send(event(self.number, kind, data));
    }
}

fn event(number: u64, kind: &str, data: &str) -> Bytes {
    Bytes::from(format!("id: {number}\nevent: {kind}\ndata: {data}\n\n"))
}

/// Everything but VMs.
fn rest(state: &LiveState) -> Value {
    let mut value = serde_json::to_value(LiveState { vms: BTreeMap::new(), ..state.clone() });
    if let Ok(Value::Object(map)) = &mut value {
        map.remove("vms");
    }
    value.unwrap_or_default()
}

pub(super) fn state(agent: &Agent, live: &Live, snapshot: &Snapshot) -> LiveState {
    let beside = Beside {
        wall_ms: Clock.wall_ms(),
        bounds: bounds(&live.timing, &assumed(&agent.config)),
        warnings: agent.warnings(),
        beats: BeatReport {
            interval_ms: live.timing.beat.0,
            longest_gap_ms: live.gaps.ever().0,
            longest_gap_lately_ms: live.gaps.lately().0,
        },
        plan: agent.feed.plan(),
        policies: policies::status(live, snapshot),
        timing: timing_by_key(&live.timing),
    };
    LiveState::new(snapshot, beside)
}
