//! The service against agents that are not real: unix sockets that answer as agents do.

use super::*;
use crate::api::wire::DecisionReport;
use crate::patch::merge;
use crate::sse;
use axum::body::{Body, Bytes};
use axum::extract::{self, Query, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use steadfast_core::decision::Kind;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;

const MACHINE: &str = "4c4c4544-0051-3610-8052-b4c04f4d3132";

/// An agent that says what it is told to say.
#[derive(Clone)]
pub(super) struct Fake(Arc<Says>);

struct Says {
    name: String,
    state: Mutex<Value>,
    decisions: Mutex<Vec<DecisionReport>>,
    live: broadcast::Sender<String>,
    events: broadcast::Sender<String>,
    asked: Mutex<Vec<String>>,
    ended: AtomicBool,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Fake {
    fn new(name: &str, state: Value) -> Self {
        let (live, events) = (broadcast::channel(64).0, broadcast::channel(64).0);
        let (decisions, asked, ended, listener) = Default::default();
        let (name, state) = (name.to_string(), Mutex::new(state));
        Self(Arc::new(Says { name, state, decisions, live, events, asked, ended, listener }))
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/v1/live", get(Self::live))
            .route("/v1/events", get(Self::events))
            .route("/v1/decisions", get(Self::decisions))
            .route("/v1/domains/{id}", get(Self::domain))
            .route("/v1/vms", post(Self::vms))
            .route("/v1/policies/placement/rollback", post(Self::change))
            .route("/v1/disarm", post(Self::change))
            .with_state(self.clone())
    }

    /// Serves on a socket in `directory`.
    pub(super) fn start(directory: &Path, name: &str, state: Value) -> Self {
        let fake = Self::new(name, state);
        let path = fake.path(directory);
        let _ = std::fs::remove_file(&path);
        let socket = tokio::net::UnixListener::bind(path).expect("socket");
        let router = fake.router();
        let serve = async move { drop(axum::serve(socket, router).await) };
        *fake.0.listener.lock().expect("lock") = Some(tokio::spawn(serve));
        fake
    }

    /// It dies: no connection is taken, and those that are open end.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
        if let Some(listener) = self.0.listener.lock().expect("lock").take() {
            listener.abort();
        }
    }

    fn until_end(&self, events: impl tokio_stream::Stream<Item = String> + Send + 'static) -> Body {
        let says = Arc::clone(&self.0);
        let breath = tokio::time::interval(Duration::from_millis(200));
        let events = events.timeout_repeating(breath).map(|event| {
            Ok::<_, std::convert::Infallible>(event.unwrap_or_else(|_| ": breath\n\n".into()))
        });
        Body::from_stream(events.take_while(move |_| !says.ended.load(Ordering::Relaxed)))
    }

    fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.sock", self.0.name))
    }

    /// Changes its state, and tells the change.
    pub(super) fn patch(&self, patch: Value) {
        merge(&mut self.0.state.lock().expect("lock"), &patch);
        let _ = self.0.live.send(format!("event: patch\ndata: {patch}\n\n"));
    }

    /// Decides something, and tells it.
    pub(super) fn decide(&self, report: DecisionReport) {
        let text = serde_json::to_string(&report).expect("JSON");
        self.0.decisions.lock().expect("lock").push(report);
        let _ = self.0.events.send(format!("data: {text}\n\n"));
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.0.asked.lock().expect("lock").clone()
    }

    async fn live(State(fake): State<Self>) -> Body {
        let after = BroadcastStream::new(fake.0.live.subscribe());
        let state = fake.0.state.lock().expect("lock").clone();
        let first = format!("event: state\ndata: {state}\n\n");
        let after = after.filter_map(Result::ok);
        fake.until_end(tokio_stream::once(first).chain(after))
    }

    async fn events(State(fake): State<Self>) -> Body {
        let events = BroadcastStream::new(fake.0.events.subscribe()).filter_map(Result::ok);
        fake.until_end(tokio_stream::once(": hello\n\n".into()).chain(events))
    }

    async fn decisions(
        State(fake): State<Self>,
        Query(_): Query<BTreeMap<String, String>>,
    ) -> Json<Vec<DecisionReport>> {
        Json(fake.0.decisions.lock().expect("lock").clone())
    }

    /// n2 has the VM in which this service runs.
    async fn domain(
        State(fake): State<Self>,
        extract::Path(id): extract::Path<String>,
    ) -> Result<Json<Value>, StatusCode> {
        match fake.0.name == "n2" && id == MACHINE {
            true => Ok(Json(json!({"id": id, "name": "watch"}))),
            false => Err(StatusCode::NOT_FOUND),
        }
    }

    /// Only `web` is defined, and only on n2.
    async fn vms(State(fake): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        fake.note("vms", &headers, &body);
        if fake.0.name == "n2" { StatusCode::OK } else { StatusCode::NOT_FOUND }
    }

    async fn change(State(fake): State<Self>, headers: HeaderMap, body: Bytes) -> Json<Value> {
        fake.note("change", &headers, &body);
        Json(json!({"from": fake.0.name}))
    }

    fn note(&self, what: &str, headers: &HeaderMap, body: &[u8]) {
        let caller = headers.get("x-steadfast-caller").and_then(|name| name.to_str().ok());
        let body = String::from_utf8_lossy(body);
        let text = format!("{what} by {} {body}", caller.unwrap_or("-"));
        self.0.asked.lock().expect("lock").push(text);
    }
}

pub(super) fn state(node: &str, leader: Option<&str>) -> Value {
    let leader = leader.map(|name| json!({"id": 1, "name": name}));
    json!({
        "cluster": "test", "node": {"id": 1, "name": node}, "leader": leader, "quorate": leader.is_some(),
        "nodes": {"n1": {"status": "Leader"}, "n2": {"status": "Member"}},
        "vms": {"u1": {"id": "u1", "name": "web", "state": "running", "owner": {"id": 2, "name": "n2"}}},
    })
}

pub(super) fn settings(directory: &Path) -> Settings {
    let socket = |name: &str| directory.join(format!("{name}.sock"));
    let cluster = ClusterSettings::of_sockets("c", ["n1", "n2"].map(|name| (name, socket(name))));
    Settings::for_demo(cluster, directory.join("history.db"))
}

pub(super) async fn ask(
    router: &Router,
    method: &str,
    path: &str,
    body: &str,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Body::from(body.to_string()));
    let answer = call(router, request.expect("good")).await;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.expect("body").to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn call(router: &Router, request: Request<Body>) -> axum::response::Response {
    use hyper::service::Service;
    hyper_util::service::TowerToHyperService::new(router.clone())
        .call(request)
        .await
        .expect("infallible")
}

/// Waits until `path` answers what `wanted` wants.
pub(super) async fn until(router: &Router, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..500 {
        let (_, answer) = ask(router, "GET", path, "").await;
        if wanted(&answer) {
            return answer;
        }
        last = answer;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{path} still answers {last}");
}

/// A folder of its own.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("steadfast-watch-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The events of `/live`, one by one.
struct Stream(Body, sse::Parser, std::collections::VecDeque<sse::Frame>);

impl Stream {
    async fn open(router: &Router) -> Self {
        let request = Request::get("/v1/clusters/c/live")
            .header("host", "localhost")
            .body(Body::empty())
            .expect("good");
        Self(call(router, request).await.into_body(), sse::Parser::default(), Default::default())
    }

    async fn next(&mut self) -> (String, Value) {
        let next = tokio::time::timeout(Duration::from_secs(10), self.take());
        next.await.expect("an event within 10 s")
    }

    async fn take(&mut self) -> (String, Value) {
        loop {
            if let Some(frame) = self.2.pop_front() {
                return (frame.event, serde_json::from_str(&frame.data).expect("JSON"));
            }
            let piece = self.0.frame().await.expect("more").expect("whole");
            self.2.extend(self.1.feed(piece.data_ref().expect("data")).expect("small"));
        }
    }

    /// The state, once `wanted` wants it.
    async fn until(&mut self, state: &mut Value, wanted: impl Fn(&Value) -> bool) {
        while !wanted(state) {
            match self.next().await {
                (kind, new) if kind == "state" => *state = new,
                (kind, patch) if kind == "patch" => merge(state, &patch),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn the_state_is_followed_and_another_agent_is_found_when_one_ends() {
    let folder = Folder::new("follow");
    let first = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let second = Fake::start(&folder, "n2", state("n2", Some("n1")));
    let router = start(settings(&folder)).expect("starts").router();
    let (mut stream, mut seen) = (Stream::open(&router).await, Value::Null);
    stream.until(&mut seen, |state| state["watch"]["via"] == "n1").await;
    stream.until(&mut seen, |state| state["vms"]["u1"]["state"] == "running").await;
    first.patch(json!({"vms": {"u1": {"state": "stopped"}}}));
    stream.until(&mut seen, |state| state["vms"]["u1"]["state"] == "stopped").await;
    let shown = until(&router, "/v1/clusters", |all| all[0]["worst"] == "critical").await;
    assert_eq!(shown[0]["text"], "web is down");
    first.end();
    second.patch(json!({"leader": {"id": 2, "name": "n2"}, "node": {"id": 2, "name": "n2"}}));
    stream.until(&mut seen, |state| state["watch"]["via"] == "n2").await;
    stream.until(&mut seen, |state| state["vms"]["u1"]["state"] == "running").await;
    stream.until(&mut seen, |state| state["watch"]["agents"]["n1"]["reachable"] == false).await;
}

#[tokio::test]
async fn decisions_of_all_nodes_are_told_once() {
    let folder = Folder::new("ears");
    let _first = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let second = Fake::start(&folder, "n2", state("n2", Some("n1")));
    let router = start(settings(&folder)).expect("starts").router();
    let both = |all: &Value| {
        let agents = &all[0]["agents"];
        agents["n1"]["reachable"] == true && agents["n2"]["reachable"] == true
    };
    until(&router, "/v1/clusters", both).await;
    let mut stream = Stream::open(&router).await;
    let wall_ms = Clock.wall_ms();
    for number in [1, 2] {
        let id = format!("n2-5-{number}");
        second.decide(DecisionReport { id, number, wall_ms, ..DecisionReport::sample() });
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let (kind, value) = stream.next().await;
        if kind == "decision" {
            heard.push(value["id"].as_str().expect("id").to_string());
        }
    }
    assert_eq!(heard, ["n2-5-1", "n2-5-2"]);
}

#[tokio::test]
async fn changes_reach_the_agents_that_they_are_for() {
    let folder = Folder::new("forward");
    let first = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let second = Fake::start(&folder, "n2", state("n2", Some("n1")));
    let router = start(settings(&folder)).expect("starts").router();
    let both = |all: &Value| {
        let agents = &all[0]["agents"];
        all[0]["via"] == "n1"
            && agents["n1"]["reachable"] == true
            && agents["n2"]["reachable"] == true
    };
    until(&router, "/v1/clusters", both).await;
    let at = |path: &str| format!("/v1/clusters/c/agent/v1/{path}");
    let (status, answer) = ask(&router, "POST", &at("disarm"), "{\"reason\":\"test\"}").await;
    assert_eq!((status, &answer["from"]), (StatusCode::OK, &json!("n1")));
    assert_eq!(first.asked(), ["change by watch {\"reason\":\"test\"}"]);
    let (status, _) = ask(&router, "POST", &at("vms"), "{\"name\":\"web\"}").await;
    assert_eq!((status, second.asked().len()), (StatusCode::OK, 1), "n1 does not know the VM");
    let (_, answer) = ask(&router, "POST", &at("policies/placement/rollback"), "").await;
    assert_eq!(answer, json!({"from": "n1", "others": {"n2": "done"}}));
    let (status, answer) = ask(&router, "POST", &at("disarm?node=n9"), "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["remedy"], "agents are of n1, n2");
    let (status, _) = ask(&router, "GET", "/v1/clusters/x/live", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_restart_tells_what_happened_meanwhile() {
    let folder = Folder::new("meanwhile");
    let first = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let _second = Fake::start(&folder, "n2", state("n2", Some("n1")));
    let now = Clock.wall_ms();
    let decide = |number: u64, kind: Kind, text: &str| {
        let (id, node) = (format!("n1-5-{number}"), Some("n2".to_string()));
        let (text, wall_ms) = (text.to_string(), now + number);
        let report =
            DecisionReport { id, number, kind, text, wall_ms, node, ..DecisionReport::sample() };
        first.decide(report);
    };
    let watch = start(settings(&folder)).expect("starts");
    until(&watch.router(), "/v1/clusters", |all| all[0]["agents"]["n1"]["reachable"] == true).await;
    decide(1, Kind::Suspected, "n2 is Suspect: no beat");
    let events = "/v1/clusters/c/events";
    until(&watch.router(), events, |all| all.as_array().is_some_and(|all| all.len() == 1)).await;
    drop(watch);
    decide(2, Kind::Evicted, "n2 is evicted");
    decide(3, Kind::VmRunning, "web runs on n1");
    let router = start(settings(&folder)).expect("starts").router();
    let all = until(&router, events, |all| all.as_array().is_some_and(|all| all.len() == 3)).await;
    let texts: Vec<&str> =
        all.as_array().expect("list").iter().filter_map(|it| it["text"].as_str()).collect();
    assert_eq!(texts, ["web runs on n1", "n2 is evicted", "n2 is Suspect: no beat"]);
    let over = |all: &Value| all[0]["closed_wall_ms"].is_number();
    let incidents = until(&router, "/v1/clusters/c/incidents", over).await;
    assert_eq!(
        (incidents[0]["title"].as_str(), incidents[0]["id"].as_i64()),
        (Some("n2 failed"), Some(1))
    );
    let (_, whole) = ask(&router, "GET", "/v1/clusters/c/incidents/1", "").await;
    let steps: Vec<&str> = whole["milestones"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|it| it["name"].as_str())
        .collect();
    assert_eq!(steps, ["suspected", "evicted", "vm_running"]);
}

#[tokio::test]
async fn an_alarm_reaches_its_receiver_and_is_acknowledged() {
    let folder = Folder::new("alarm");
    let first = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let file = folder.join("told");
    let mut settings = settings(&folder);
    let script = format!("cat >> {}", file.display());
    let command = vec!["/bin/sh".to_string(), "-c".into(), script];
    let way = Way::Exec { command, timeout: Duration::from_secs(5) };
    let (name, rules) = ("journal".to_string(), vec!["node_down".to_string()]);
    settings.receivers = vec![Receiver { name, rules, clusters: vec![], repeat: None, way }];
    let router = start(settings).expect("starts").router();
    until(&router, "/v1/clusters", |all| all[0]["connected"] == true).await;
    first.patch(json!({"nodes": {"n2": {"status": "Evicted", "reason": "it is dead"}}}));
    let told = |all: &Value| all[0]["told"]["journal"]["raised_wall_ms"].is_number();
    let alarms = until(&router, "/v1/alarms", told).await;
    assert_eq!(alarms[0]["text"], "n2: Evicted: it is dead");
    let written = std::fs::read_to_string(&file).expect("written");
    assert_eq!(written.matches("\"kind\":\"raised\"").count(), 1, "{written}");
    let mut stream = Stream::open(&router).await;
    let mut seen = Value::Null;
    stream.until(&mut seen, |state| state["watch"]["alarms_open"] == 1).await;
    let path = format!("/v1/alarms/{}/acknowledge", alarms[0]["id"]);
    let (status, alarm) = ask(&router, "POST", &path, "").await;
    assert_eq!((status, alarm["acknowledged_by"].as_str()), (StatusCode::OK, Some("watch")));
    stream.until(&mut seen, |state| state["watch"]["alarms_open"] == 0).await;
}

#[tokio::test]
async fn it_finds_the_vm_in_which_it_runs_and_sees_it_protected() {
    let folder = Folder::new("self");
    let first = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let _second = Fake::start(&folder, "n2", state("n2", Some("n1")));
    let mut settings = settings(&folder);
    settings.machine = Some(MACHINE.into());
    let router = start(settings).expect("starts").router();
    let (mut stream, mut seen) = (Stream::open(&router).await, Value::Null);
    stream.until(&mut seen, |state| state["watch"]["self_vm"]["name"] == "watch").await;
    assert_eq!(seen["watch"]["self_vm"]["protected"], false);
    let vm = json!({"id": MACHINE, "name": "watch", "state": "running"});
    first.patch(json!({"vms": {MACHINE: vm}}));
    stream.until(&mut seen, |state| state["watch"]["self_vm"]["protected"] == true).await;
}

/// Serves over TLS on a port of its own: the address.
async fn serve_tls(router: Router, tls: &crate::config::ApiTls) -> String {
    let listener = tokio::net::TcpListener::bind(tls.listen).await.expect("port");
    let port = listener.local_addr().expect("address").port();
    let listener = crate::api::TlsListener::on(listener, tls).expect("good certificates");
    let service = router.into_make_service_with_connect_info::<crate::api::Peer>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn agents_are_followed_over_tls_and_over_tls_come_in_those_that_are_named() {
    let folder = Folder::new("tls");
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("name");
    let (certificate, path) = (folder.join("c.pem"), folder.join("k.pem"));
    std::fs::write(&certificate, params.self_signed(&key).expect("signed").pem()).expect("written");
    std::fs::write(&path, key.serialize_pem()).expect("written");
    let (listen, client_ca) = (([127, 0, 0, 1], 0).into(), None);
    let tls =
        crate::config::ApiTls { listen, certificate: certificate.clone(), key: path, client_ca };
    let agent = serve_tls(Fake::new("n1", state("n1", Some("n1"))).router(), &tls).await;
    let mut settings = settings(&folder);
    settings.clusters[0].agents = [("n1".into(), Address::Url(agent))].into();
    settings.clusters[0].ca = Some(certificate.clone());
    let token = Some(<sha2::Sha256 as sha2::Digest>::digest("hush").into());
    let (name, role, none) = ("vera".into(), crate::api::Role::Viewer, None);
    settings.access.users = vec![crate::config::ApiUser { name, role, token, certificate: none }];
    let own = serve_tls(start(settings.clone()).expect("starts").router(), &tls).await;
    let client = |token: Option<&str>| {
        let mut cluster = settings.clusters[0].clone();
        cluster.token = token.map(|token| Secret(token.into()));
        agent::AgentClient::new(&Address::Url(own.clone()), &cluster).expect("a client")
    };
    let stranger = client(None).get::<Value>("/v1/clusters").await.expect_err("no token");
    assert!(stranger.to_string().contains("token"), "{stranger}");
    client(Some("wrong")).get::<Value>("/v1/clusters").await.expect_err("a wrong token");
    let mut seen = Value::Null;
    for _ in 0..250 {
        seen = client(Some("hush")).get("/v1/clusters").await.expect("the token is good");
        if seen[0]["connected"] == true {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not followed over TLS: {seen}");
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let folder = Folder::new("document");
    let fake = Fake::start(&folder, "n1", state("n1", Some("n1")));
    let router = start(settings(&folder)).expect("starts").router();
    until(&router, "/v1/clusters", |all| all[0]["connected"] == true).await;
    fake.patch(json!({"nodes": {"n2": {"status": "Suspect"}}}));
    let (status, document) = ask(&router, "GET", "/v1/openapi.json", "").await;
    assert_eq!((status, &document), (StatusCode::OK, &super::api::document()));
    let shapes = crate::api::tests::schema::Shapes(&document);
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            if path.ends_with("/live") || path.contains("/agent/") {
                continue;
            }
            for id in ["c", "nobody", "7", "x%00"] {
                let asked = path.replace("{id}", id).replace("{number}", id);
                let (status, told) = ask(&router, &method.to_uppercase(), &asked, "").await;
                let response = &operation["responses"][status.as_str()];
                let response = match response["$ref"].as_str() {
                    Some(reference) => document.pointer(&reference[1..]).expect("it is there"),
                    None => response,
                };
                let content = response["content"].as_object();
                let content = content.unwrap_or_else(|| panic!("{asked}: {status} is not told"));
                let of = &content.values().next().expect("one")["schema"];
                assert_eq!(shapes.mismatch(of, &told), None, "{method} {asked}: {told}");
            }
        }
    }
}
