//! `GET /v1/plan`: what would become of a node's VMs if it died now. The question is the machine's, asked on the lease path one node
//! at a time with pauses between; the policy answers on a thread of its own, and nothing is counted or decided.

use super::change::blocking;
use super::errors::Refusal;
use super::read::find_node;
use super::wire::{NodePlan, Restart};
use crate::driver::{Agent, Live};
use axum::Json;
use axum::extract::{Path, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::placement;
use steadfast_core::snapshot::Snapshot;
use steadfast_sdk::wire::{PlacementQuestion, PlacementVerdict};
use tokio::sync::oneshot;

/// How long the lease path is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// A question is followed by a pause of so many times what it took.
const SPARE: u32 = 10;
/// The standing plan is made anew when the ledger has changed, and this often.
const EVERY: Duration = Duration::from_secs(10);
/// How often the ledger is looked at.
const LOOK: Duration = Duration::from_millis(500);

type Shared = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, Refusal>;
pub(super) type Plans = BTreeMap<String, NodePlan>;

pub(super) async fn all(State(agent): Shared) -> Answer<Plans> {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    make_all(&live, &snapshot).await.map(Json)
}

pub(super) async fn one(State(agent): Shared, Path(name): Path<String>) -> Answer<NodePlan> {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    let node = find_node(&snapshot, &name)?.id;
    Ok(Json(make(&live, &snapshot, node).await?.0))
}

/// Keeps the plan of the live state for as long as somebody looks on.
pub(super) async fn keep(agent: Arc<Agent>, live: Arc<Live>) {
    let mut made: Option<(Instant, String)> = None;
    while agent.news.is_watched() {
        let Ok(snapshot) = agent.snapshot().await else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let key = format!("{} {}", snapshot.ledger.stamp, view(&snapshot));
        let fresh = made.as_ref().is_some_and(|(at, of)| at.elapsed() < EVERY && *of == key);
        if !fresh && let Ok(plans) = make_all(&live, &snapshot).await {
            let short = plans.into_iter().map(|(node, plan)| (node, plan.in_short()));
            agent.feed.set_plan(Some(short.collect()));
            agent.news.ring();
            made = Some((Instant::now(), key));
        }
        tokio::time::sleep(LOOK).await;
    }
    agent.feed.set_plan(None);
}

/// Which nodes may take VMs, roughly.
fn view(snapshot: &Snapshot) -> String {
    let good = snapshot.nodes.iter().map(|node| format!("{}{}", node.id, node.status.words()));
    good.collect()
}

pub(super) async fn make_all(live: &Arc<Live>, snapshot: &Snapshot) -> Result<Plans, Refusal> {
    let mut plans = Plans::new();
    for node in &snapshot.nodes {
        let (plan, cost) = make(live, snapshot, node.id).await?;
        plans.insert(node.name.clone(), plan);
        tokio::time::sleep((cost * SPARE).min(LOOK)).await;
    }
    Ok(plans)
}

/// For somebody who looks once, while nobody keeps the plan.
pub(super) async fn in_short(live: &Arc<Live>, snapshot: &Snapshot) -> Option<Plans> {
    let plans = make_all(live, snapshot).await.ok()?;
    Some(plans.into_iter().map(|(node, plan)| (node, plan.in_short())).collect())
}

/// The plan, and how long the lease path was asked.
async fn make(
    live: &Arc<Live>,
    snapshot: &Snapshot,
    node: NodeId,
) -> Result<(NodePlan, Duration), Refusal> {
    let (begun, (tell, told)) = (Instant::now(), oneshot::channel());
    live.inbox.ask_what_if(node, move |question| drop(tell.send(question)));
    let told = tokio::time::timeout(PATIENCE, told).await;
    let question = told.ok().and_then(Result::ok).ok_or_else(Refusal::busy)?;
    let cost = begun.elapsed();
    let gone = || Refusal::not_found("the node is not configured any more", "see GET /v1/nodes");
    let question = question.ok_or_else(gone)?;
    let names = snapshot.nodes.iter().map(|node| (node.id, node.name.clone())).collect();
    let live = Arc::clone(live);
    blocking(move || {
        let (decider, verdict) = live.policies.rehearse_placement(&question);
        Ok((report(&question, &verdict, decider, &names), cost))
    })
    .await
}

fn report(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
    decider: String,
    names: &BTreeMap<NodeId, String>,
) -> NodePlan {
    let fallback = steadfast_policy_placement::builtin(question);
    let plan = placement::plan(question, verdict, &fallback);
    let memory: BTreeMap<&str, u64> =
        question.vms.iter().map(|vm| (vm.id.as_str(), vm.memory_mib)).collect();
    let held = question.vms.iter().filter(|vm| !vm.after.is_empty());
    let held: BTreeSet<&str> = held.map(|vm| vm.id.as_str()).collect();
    let free: u64 = question.nodes.iter().map(|node| node.memory_free_mib).sum();
    let taken = plan.places.iter().filter_map(|(vm, _)| memory.get(vm.0.as_str()));
    let headroom_mib = free.saturating_sub(taken.sum());
    let (wait, restart): (Vec<_>, Vec<_>) =
        plan.places.into_iter().partition(|(vm, _)| held.contains(vm.0.as_str()));
    let place = |(vm, to)| Restart { vm, to: names.get(&to).cloned().unwrap_or_default() };
    let restart: Vec<Restart> = restart.into_iter().map(place).collect();
    let wait: Vec<VmId> = wait.into_iter().map(|(vm, _)| vm).collect();
    NodePlan {
        vms: question.vms.len(),
        fits: restart.len(),
        waits: wait.len(),
        lacks: plan.unfit.len(),
        restart,
        wait,
        unfit: plan.unfit.keys().cloned().collect(),
        headroom_mib,
        decider,
        reasons: plan.unfit,
    }
}
