//! Failures, as they go: a node dies and its VMs run elsewhere; the leader dies and another is elected.

use super::made::{ballot, node_name, wall_ms};
use super::server::Stage;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// VMs whose moves are told one by one; the rest moves in one patch.
const TOLD: usize = 40;

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn status(name: &str, status: &str, reason: &str, in_view: bool) -> Value {
    json!({"nodes": {name: {"status": status, "status_text": status, "reason": reason, "in_view": in_view}}})
}

/// The power of a node is cut.
pub(super) async fn kill(stage: Arc<Stage>, name: String) {
    let mut story = Story::begin(&stage, &name);
    pause(1_000).await;
    stage.patch(&status(
        &name,
        "Suspect",
        "no beat for 1.0 s; it is evicted in 0.5 s unless it is seen",
        false,
    ));
    story.tell(
        "suspected",
        None,
        &format!("{name} is suspected: no beat, and its page is unchanged"),
    );
    pause(500).await;
    let leads = stage.scene().state["leader"]["name"] == json!(name);
    if leads {
        elect(&stage, &mut story, &name).await;
    }
    stage.patch(&status(
        &name,
        "Full failure",
        "no beat and no page; its VMs are started elsewhere",
        false,
    ));
    stage.patch(&json!({"nodes": {&name: {"lease_left": null, "eviction": "evicted at 3.1v42: full failure"}}}));
    story.tell(
        "evicted",
        None,
        &format!("{name} is evicted: full failure (no beat and no page); its fence agent is next"),
    );
    orphan(&stage, &name);
    pause(350).await;
    story.tell("fenced", None, &format!("the fence agent of {name} succeeded: it is off"));
    restart(&stage, &mut story, &name).await;
    story.end(&format!("{name} failed, and its VMs run elsewhere"));
}

/// It boots, and is admitted again.
pub(super) async fn boot(stage: Arc<Stage>, name: String) {
    pause(600).await;
    stage.patch(&status(&name, "Joining", "it waits to be admitted", true));
    stage.patch(&json!({"nodes": {&name: {"beat_age": 100, "page_age": 150, "lease_left": 4_700, "eviction": null}}}));
    pause(700).await;
    stage.patch(&status(&name, "Member", "", true));
    stage.decide(
        "admitted",
        Some(&name),
        None,
        &format!("{name} is admitted again: it runs nothing, and its page is new"),
    );
}

async fn elect(stage: &Stage, story: &mut Story<'_>, dead: &str) {
    let ids: Vec<u64> = stage.scene().state["nodes"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, node)| *name != dead && node["in_view"] == true)
        .filter_map(|(_, node)| node["id"].as_u64())
        .collect();
    let round = stage.scene().state["election"]["round"].as_u64().unwrap_or(0) + 1;
    let reason = format!("the leader {dead} failed");
    stage.patch(&json!({"leader": null, "election": {"round": round, "phase": "collecting", "reason": reason, "ballots": [], "winner": null}}));
    story.tell("election", None, &format!("round {round} of the election begins: {reason}"));
    let mut ballots = Vec::new();
    for id in ids.iter().filter_map(|id| u32::try_from(*id).ok()) {
        pause(120).await;
        ballots.push(ballot(id));
        stage.patch(&json!({"election": {"ballots": ballots}}));
    }
    let best = ballots
        .iter()
        .max_by_key(|it| it["priority"]["value"].as_i64())
        .and_then(|it| it["node"].as_u64())
        .unwrap_or(1);
    stage.patch(&json!({"election": {"phase": "confirming", "winner": best}}));
    pause(150).await;
    stage.patch(&json!({"election": {"phase": "claiming"}}));
    pause(200).await;
    let name = node_name(u32::try_from(best).unwrap_or(1));
    let term = stage.scene().state["term"].as_u64().unwrap_or(0) + 1;
    stage.patch(&json!({"leader": {"id": best, "name": name}, "term": term, "election": {"phase": "leading"}}));
    stage.patch(&status(&name, "Leader", "", true));
    story.tell("elected", None, &format!("{name} leads, in term {term}"));
}

fn vms_of(stage: &Stage, name: &str) -> Vec<(String, String)> {
    let scene = stage.scene();
    let vms = scene.state["vms"].as_object().into_iter().flatten();
    vms.filter(|(_, vm)| vm["owner"]["name"] == name)
        .map(|(id, vm)| (id.clone(), vm["name"].as_str().unwrap_or_default().into()))
        .collect()
}

fn orphan(stage: &Stage, name: &str) {
    let orphan = |(id, _)| {
        (
            id,
            json!({"state": "orphan", "reason": "its node is evicted; it starts elsewhere once that is proved off"}),
        )
    };
    let vms: Map<String, Value> = vms_of(stage, name).into_iter().map(orphan).collect();
    stage.patch(&json!({"vms": vms}));
}

async fn restart(stage: &Stage, story: &mut Story<'_>, name: &str) {
    let others: Vec<Value> = stage.scene().state["nodes"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, node)| ["Leader", "Member"].iter().any(|good| node["status"] == *good))
        .map(|(_, node)| json!({"id": node["id"], "name": node["name"]}))
        .collect();
    if others.is_empty() {
        return;
    }
    let vms = vms_of(stage, name);
    let places = others.iter().cycle();
    for (chunk, nodes) in
        vms.chunks(4).zip(0..).map(|(chunk, at)| (chunk, places.clone().skip(at * 4)))
    {
        if story.told > TOLD {
            break;
        }
        for ((id, vm), to) in chunk.iter().zip(nodes) {
            let to_name = to["name"].as_str().unwrap_or_default();
            story.decided(id, vm, to_name, &others);
            stage.patch(&json!({"vms": {id: {"owner": to, "state": "starting", "reason": format!("{to_name} is ordered to start it")}}}));
        }
        pause(280).await;
        for (id, vm) in chunk {
            stage.patch(&json!({"vms": {id: {"state": "running", "reason": ""}}}));
            let at = stage.scene().state["vms"][id]["owner"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            story.tell("vm_running", Some((id, vm)), &format!("{vm} has a QEMU process on {at}"));
        }
    }
    let left: Map<String, Value> = vms_of(stage, name)
        .into_iter()
        .zip(places)
        .map(|((id, _), to)| (id, json!({"owner": to, "state": "running", "reason": ""})))
        .collect();
    stage.patch(&json!({"vms": left}));
    plan(stage);
}

/// What would happen to each node's VMs now.
fn plan(stage: &Stage) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for vm in stage.scene().state["vms"].as_object().into_iter().flatten().map(|(_, vm)| vm) {
        *counts.entry(vm["owner"]["name"].as_str().unwrap_or_default().into()).or_default() += 1;
    }
    let told = counts.iter().map(|(name, vms)| (name.clone(), json!({"vms": vms, "fits": vms})));
    stage.patch(&json!({"plan": told.collect::<Map<_, _>>()}));
}

/// An incident while it goes on.
struct Story<'a> {
    stage: &'a Stage,
    node: String,
    incident: Value,
    told: usize,
}

impl<'a> Story<'a> {
    fn begin(stage: &'a Stage, node: &str) -> Self {
        let id = stage.scene().incidents.len() + 1;
        let vms: Vec<String> = vms_of(stage, node).into_iter().map(|(_, name)| name).collect();
        let incident = json!({"id": id, "opened_wall_ms": wall_ms(), "closed_wall_ms": null, "title": format!("{node} fails"), "severity": "critical",
            "node": node, "vms": vms, "milestones": [], "summary": ""});
        stage.scene().incidents.push(incident.clone());
        Self { stage, node: node.into(), incident, told: 0 }
    }

    fn tell(&mut self, kind: &str, vm: Option<(&str, &str)>, text: &str) {
        self.told += 1;
        let id = self.stage.decide(kind, Some(&self.node), vm, text);
        if let Some(milestones) =
            self.incident["milestones"].as_array_mut().filter(|list| list.len() < 14)
        {
            milestones.push(
                json!({"at_wall_ms": wall_ms(), "name": kind, "text": text, "decision_id": id}),
            );
        }
        self.show();
    }

    fn decided(&mut self, id: &str, vm: &str, to: &str, others: &[Value]) {
        self.tell(
            "decided",
            Some((id, vm)),
            &format!("{vm} goes to {to}, decided by steadfast.default.placement"),
        );
        let rank = |(node, at): (&Value, i64)| {
            json!({"node": node["name"], "score": {"value": 900 - at * 40, "terms": [
            {"name": "free memory", "value": 700 - at * 30}, {"name": "spread", "value": 200 - at * 10}]}})
        };
        let candidates: Vec<Value> = others.iter().zip(0..).take(4).map(rank).collect();
        if let Some(last) = self.stage.scene().decisions.last_mut() {
            last["reasons"] = json!({"decider": {"name": "steadfast.default.placement"}, "candidates": candidates, "record": last["id"]});
        }
    }

    fn end(&mut self, summary: &str) {
        self.incident["closed_wall_ms"] = json!(wall_ms());
        self.incident["summary"] = json!(summary);
        self.show();
    }

    fn show(&self) {
        let mut scene = self.stage.scene();
        if let Some(kept) =
            scene.incidents.iter_mut().find(|kept| kept["id"] == self.incident["id"])
        {
            kept.clone_from(&self.incident);
        }
        drop(scene);
        self.stage.tell("incident", &self.incident);
    }
}
