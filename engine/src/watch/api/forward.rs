//! `ANY /v1/clusters/{id}/agent/v1/...`: to the cluster's agents, as the caller asked it.
//!
//! Reads go to the agent whose state is shown, changes to the leader's. What each node keeps for itself (policies) is told to all
//! of them; a VM is enrolled by the node where it is defined.

use super::Shared;
use crate::api::Refusal;
use crate::watch::access::Who;
use crate::watch::cluster::{Agent, Cluster};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// An agent answers a change within 15 s, by its own rule.
const PATIENCE: Duration = Duration::from_secs(30);
/// Names who asked, for the agent's audit.
pub(in crate::watch) const CALLER: HeaderName = HeaderName::from_static("x-steadfast-caller");
/// Headers of the caller that mean something to the agent.
const PASSED: [HeaderName; 5] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
];
/// Headers of the agent that mean something to the caller.
const RETURNED: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::ETAG, header::CACHE_CONTROL, header::RETRY_AFTER];

/// What is asked of an agent.
#[derive(Clone)]
struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

pub(super) async fn forward(
    State(inner): Shared,
    Path((id, path)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let cluster = Arc::clone(inner.find(&id)?);
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, super::MOST_BYTES).await.map_err(|_| {
        let remedy = "nothing larger than 32 MiB is forwarded";
        Refusal::too_large("the request has too large a body", remedy)
    })?;
    let (asked, node) = asked(&parts, &path, body);
    if let Some(node) = node {
        let agent = cluster.agent(&node).ok_or_else(|| unknown(&cluster, &node))?;
        return Ok(pass(send(&agent, &asked).await?));
    }
    match asked.method {
        Method::GET | Method::HEAD => read(&cluster, &asked).await,
        _ if is_kept_by_each(&path) => tell_all(&cluster, asked).await,
        Method::POST if path == "vms" => enrol(&cluster, &asked).await,
        _ => {
            let leader = leader(&cluster)?;
            Ok(pass(send(&leader, &asked).await?))
        }
    }
}

/// The request as the agent gets it, and the node that the caller named by `?node=`.
fn asked(parts: &Parts, path: &str, body: Bytes) -> (Asked, Option<String>) {
    let mut node = None;
    let mut kept = Vec::new();
    let path = encode(path);
    let is_telemetry = path.starts_with("decisions");
    for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.strip_prefix("node=") {
            // There it is a filter.
            Some(name) if !is_telemetry => node = Some(name.to_string()),
            _ => kept.push(pair),
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    let mut headers = HeaderMap::new();
    for name in &PASSED {
        headers.extend(parts.headers.get(name).map(|value| (name.clone(), value.clone())));
    }
    headers.insert(CALLER, caller(parts));
    let method = parts.method.clone();
    (Asked { method, path: format!("/v1/{path}{query}"), headers, body }, node)
}

/// Whoever asks HA-watch, as far as his name fits a header.
fn caller(parts: &Parts) -> HeaderValue {
    let name = parts.extensions.get::<Who>().map_or("watch", |who| who.0.as_str());
    HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("watch"))
}

/// The path comes decoded; names of VMs may hold anything.
fn encode(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/:@!$'()*+,;=".contains(&byte);
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match is_plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Policies lie in each node's own folder, and verification IPs in each node's configuration.
fn is_kept_by_each(path: &str) -> bool {
    if path == "verification" {
        return true;
    }
    let mut parts = path.split('/');
    let last = parts.clone().next_back();
    parts.next() == Some("policies") && matches!(last, Some("module" | "rollback"))
}

fn unknown(cluster: &Cluster, node: &str) -> Refusal {
    let nodes: Vec<String> = cluster.agents().iter().map(|agent| agent.name.clone()).collect();
    Refusal::not_found(
        format!("no agent of {node} is known"),
        format!("agents are of {}", nodes.join(", ")),
    )
}

fn leader(cluster: &Cluster) -> Result<Arc<Agent>, Refusal> {
    let remedy = "wait for the election's end, or see the agents in GET /v1/clusters";
    let Some(name) = cluster.leader() else {
        return Err(Refusal::unavailable("the cluster has no leader now", remedy));
    };
    let agent = cluster.agent(&name).filter(|agent| agent.is_reachable());
    // Any agent of the majority passes an operator's wish on to the leader.
    agent.or_else(|| seen_with(cluster)).ok_or_else(|| {
        Refusal::unavailable(
            format!("neither {name}, which leads, nor another agent answers"),
            remedy,
        )
    })
}

/// The agent whose state is shown.
fn seen_with(cluster: &Cluster) -> Option<Arc<Agent>> {
    cluster.agent(&cluster.own().via?)
}

/// Any agent that answers.
async fn read(cluster: &Cluster, asked: &Asked) -> Result<Response, Refusal> {
    let mut agents: Vec<_> = seen_with(cluster).into_iter().collect();
    agents.extend(cluster.agents().into_iter().filter(|agent| agent.may_answer()));
    let mut refusal = Refusal::unavailable(
        format!("no agent of {} answers", cluster.settings.id),
        "see the agents in GET /v1/clusters",
    );
    for agent in agents {
        match send(&agent, asked).await {
            Ok(answer) => return Ok(pass(answer)),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// The leader first: what it refuses is told to nobody else.
async fn tell_all(cluster: &Cluster, asked: Asked) -> Result<Response, Refusal> {
    let leader = leader(cluster)?;
    let first = send(&leader, &asked).await?;
    if !first.status().is_success() {
        return Ok(pass(first));
    }
    let status = first.status();
    let body = first.bytes().await.unwrap_or_default();
    let mut told: Value = serde_json::from_slice(&body).unwrap_or_else(|_| json!({}));
    // The precondition was of the leader's.
    let mut asked = asked;
    asked.headers.remove(header::IF_MATCH);
    let mut tasks = tokio::task::JoinSet::new();
    for agent in cluster.agents().into_iter().filter(|agent| agent.name != leader.name) {
        let asked = asked.clone();
        tasks.spawn(async move { (agent.name.clone(), outcome(&agent, &asked).await) });
    }
    let mut others = serde_json::Map::new();
    while let Some(Ok((node, outcome))) = tasks.join_next().await {
        others.insert(node, outcome.into());
    }
    if let Value::Object(told) = &mut told {
        told.insert("others".into(), others.into());
    }
    Ok((status, axum::Json(told)).into_response())
}

async fn outcome(agent: &Agent, asked: &Asked) -> String {
    if !agent.may_answer() {
        return "its agent does not answer: tell it when it is back".into();
    }
    match send(agent, asked).await {
        Ok(answer) if answer.status().is_success() => "done".into(),
        Ok(answer) => {
            let status = answer.status();
            let problem: Option<crate::api::wire::Problem> =
                serde_json::from_slice(&answer.bytes().await.unwrap_or_default()).ok();
            problem.map_or_else(|| status.to_string(), |problem| problem.detail)
        }
        Err(refusal) => refusal.detail().to_string(),
    }
}

/// The node where the VM is defined enrols it; the others say that they do not know it.
async fn enrol(cluster: &Cluster, asked: &Asked) -> Result<Response, Refusal> {
    let leader = leader(cluster)?;
    let first = send(&leader, asked).await?;
    if !is_elsewhere(first.status()) {
        return Ok(pass(first));
    }
    let others = cluster.agents().into_iter();
    for agent in others.filter(|agent| agent.may_answer() && agent.name != leader.name) {
        if let Ok(answer) = send(&agent, asked).await
            && !is_elsewhere(answer.status())
        {
            return Ok(pass(answer));
        }
    }
    Ok(pass(first))
}

async fn send(agent: &Agent, asked: &Asked) -> Result<reqwest::Response, Refusal> {
    let request = agent.client.request(asked.method.clone(), &asked.path);
    let mut request = request.headers(asked.headers.clone()).body(asked.body.clone());
    // Streams go on for as long as they like.
    if asked.method != Method::GET {
        request = request.timeout(PATIENCE);
    }
    request.send().await.map_err(|error| match error.is_connect() {
        true => Refusal::unavailable(
            format!("the agent of {} does not answer at {}", agent.name, agent.address()),
            "is it running? try: systemctl status steadfastd",
        ),
        false => Refusal::unknown(),
    })
}

/// The agent's answer as it is.
fn pass(answer: reqwest::Response) -> Response {
    let mut headers = HeaderMap::new();
    for name in &RETURNED {
        headers.extend(answer.headers().get(name).map(|value| (name.clone(), value.clone())));
    }
    let status = answer.status();
    (status, headers, Body::from_stream(answer.bytes_stream())).into_response()
}

/// That agent's node has no such VM (404), or cannot tell now (503): another one may.
fn is_elsewhere(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_reach_the_agent_as_they_were_given() {
        assert_eq!(encode("vms/a b%/start"), "vms/a%20b%25/start");
        assert_eq!(encode("explain/n1-5-1"), "explain/n1-5-1");
    }

    #[test]
    fn policies_are_told_to_every_node_and_their_questions_are_not() {
        assert!(is_kept_by_each("policies/placement/module"));
        assert!(is_kept_by_each("policies/placement/rollback"));
        assert!(is_kept_by_each("verification"));
        assert!(!is_kept_by_each("policies/placement/evaluate"));
        assert!(!is_kept_by_each("vms/policies/rollback"));
    }

    #[test]
    fn the_caller_may_name_the_node_and_filters_stay() {
        let parts = |uri: &str| Request::get(uri).body(()).expect("good").into_parts().0;
        let (request, node) = asked(&parts("/?node=n2&limit=3"), "vms", Bytes::new());
        assert_eq!((request.path.as_str(), node.as_deref()), ("/v1/vms?limit=3", Some("n2")));
        let (request, node) = asked(&parts("/?node=n2"), "decisions", Bytes::new());
        assert_eq!((request.path.as_str(), node), ("/v1/decisions?node=n2", None));
    }
}
