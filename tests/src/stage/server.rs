//! HA-watch's routes on the stage set.

use super::answers::answer;
use super::made::{state, wall_ms};
use super::page;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

const MOST_BYTES: usize = 16 << 20;

/// The set: what is told, and who listens.
#[derive(Debug)]
pub struct Stage {
    pub(super) scene: Mutex<Scene>,
    events: broadcast::Sender<String>,
    /// The page is read from this folder, by those who write it.
    pub folder: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Scene {
    pub(super) state: Value,
    pub(super) decisions: Vec<Value>,
    pub(super) incidents: Vec<Value>,
    pub(super) demo: Map<String, Value>,
    pub(super) verification: Value,
}

impl Stage {
    /// All is well on it.
    #[must_use]
    pub fn new(nodes: u32, vms: u32) -> Self {
        let well = |id: u32| {
            (
                format!("n{id}"),
                json!({"up": true, "network": true, "storage": true, "storage_stall_ms": 0}),
            )
        };
        // With many nodes, the demo's bar has but a few of them.
        let demo = (1..=nodes.min(5)).map(well).collect();
        let scene = Scene {
            state: state(nodes, vms),
            decisions: Vec::new(),
            incidents: Vec::new(),
            demo,
            verification: json!(["10.9.0.1"]),
        };
        Self { scene: Mutex::new(scene), events: broadcast::channel(4_096).0, folder: None }
    }

    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes the state, and tells it.
    pub(super) fn patch(&self, patch: &Value) {
        merge(&mut self.scene().state, patch);
        self.tell("patch", patch);
    }

    pub(super) fn tell(&self, event: &str, data: &Value) {
        let _ = self.events.send(format!("event: {event}\ndata: {data}\n\n"));
    }

    /// Tells a decision, with the time at which it was taken.
    pub(super) fn decide(
        &self,
        kind: &str,
        node: Option<&str>,
        vm: Option<(&str, &str)>,
        text: &str,
    ) -> String {
        let decision = {
            let mut scene = self.scene();
            let number = scene.decisions.len() + 1;
            let decision = json!({
                "id": format!("n1-5-{number}"), "recorded_by": "n1", "number": number, "at_ms": number, "wall_ms": wall_ms(), "kind": kind,
                "node": node, "vm": vm.map(|(_, name)| name), "vm_id": vm.map(|(id, _)| id), "term": scene.state["term"], "stamp": "3.1v41",
                "text": text, "rule": "PROTOCOL 5.2", "facts": [["last beat", "1500 ms ago"], ["page", "unchanged for 1500 ms"]],
            });
            scene.decisions.push(decision.clone());
            decision
        };
        self.tell("decision", &decision);
        decision["id"].as_str().unwrap_or_default().into()
    }
}

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Serves the page and the made state until the listener fails.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: tokio::net::TcpListener, stage: Arc<Stage>) -> std::io::Result<()> {
    tokio::spawn(age(Arc::clone(&stage)));
    axum::serve(listener, Router::new().fallback(route).with_state(stage)).await
}

/// Every second all ages are told, as agents do.
async fn age(stage: Arc<Stage>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for turn in 0_u64.. {
        tick.tick().await;
        let patch = {
            let scene = stage.scene();
            let nodes = scene.state["nodes"].as_object().into_iter().flatten();
            let aged = nodes
                .zip(0_u64..)
                .map(|((name, node), at)| (name.clone(), aged(node, turn * 131 + at * 71)));
            json!({"wall_ms": wall_ms(), "nodes": aged.collect::<Map<_, _>>()})
        };
        stage.patch(&patch);
    }
}

fn aged(node: &Value, salt: u64) -> Value {
    let older = |key: &str| node[key].as_u64().map(|age| age + 1_000);
    if node["status"] == "Full failure" || node["in_view"] == false {
        return json!({"beat_age": older("beat_age"), "page_age": older("page_age")});
    }
    json!({"beat_age": 20 + salt % 470, "page_age": 60 + salt * 7 % 520, "lease_left": 4_500 + salt * 3 % 480})
}

async fn route(State(stage): State<Arc<Stage>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path.ends_with("/live") {
        return live(&stage);
    }
    if path == "/" || path.starts_with("/assets/") {
        return file(&stage, path);
    }
    let Ok(body) = axum::body::to_bytes(body, MOST_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = path.strip_prefix("/v1/").unwrap_or_default().replace("%20", " ");
    let query = parts.uri.query().unwrap_or_default();
    let asked = Asked { method: parts.method, path: path.split('/').collect(), query, body };
    let (status, answer) = answer(&stage, &asked);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    (status, [(header::CONTENT_TYPE, kind)], answer.to_string()).into_response()
}

pub(super) struct Asked<'a> {
    pub(super) method: Method,
    pub(super) path: Vec<&'a str>,
    pub(super) query: &'a str,
    pub(super) body: Bytes,
}

fn live(stage: &Stage) -> Response {
    let first = {
        let events = stage.events.subscribe();
        let state = format!("event: state\ndata: {}\n\n", stage.scene().state);
        tokio_stream::once(state).chain(BroadcastStream::new(events).filter_map(Result::ok))
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    (headers, Body::from_stream(first.map(Ok::<_, Infallible>))).into_response()
}

fn file(stage: &Stage, path: &str) -> Response {
    let Some(asset) = page::find(path) else { return StatusCode::NOT_FOUND.into_response() };
    let name = path.strip_prefix("/assets/").unwrap_or("index.html");
    let fresh = stage.folder.as_ref().and_then(|folder| std::fs::read(folder.join(name)).ok());
    let headers = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
    ];
    (headers, fresh.unwrap_or_else(|| asset.bytes.to_vec())).into_response()
}
