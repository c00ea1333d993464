//! Whole clusters of real agents behind their sockets: what the parts do together.

use super::*;
use crate::demo::{Demo, Options, Preset};
use crate::policy::tests::module;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// Other tests and builds run at the same time.
const PATIENCE: Duration = Duration::from_secs(60);
const MODULE: &str = "/v1/policies/placement/module";

fn cluster() -> Demo {
    let options = Options { vms: 3, preset: Preset::Fast, ..Options::default() };
    let demo = Demo::start(&options).expect("it starts");
    assert!(demo.wait_until_ready(PATIENCE), "{:#?}", demo.lines_after(0));
    demo
}

/// The demonstration has runtimes of its own, which must not end in another one.
fn serving() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

async fn ask_node(
    demo: &Demo,
    node: &str,
    what: (Method, &str),
    headers: Headers<'_>,
    body: impl Into<Bytes>,
) -> Answer {
    let stream = UnixStream::connect(demo.socket(node)).await.expect("it listens");
    send(stream, what, headers, body).await
}

/// The policies for placement on a node, once one of this name decides.
async fn deciding(demo: &Demo, node: &str, name: &str) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let path = "/v1/policies/placement";
        let told = ask_node(demo, node, (Method::GET, path), &[], "").await.json();
        let policies = told["policies"].as_array().expect("a list");
        let found = policies.iter().find(|it| it["deciding"] == true && it["name"] == name);
        if let Some(found) = found {
            return found.clone();
        }
        assert!(Instant::now() < end, "{name} does not decide on {node}: {told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn kept(demo: &Demo) -> Vec<String> {
    let files = std::fs::read_dir(demo.drop_folder()).expect("the folder").flatten();
    files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_good_module_that_is_uploaded_decides_and_a_bad_one_after_it_changes_nothing() {
    let demo = cluster();
    serving().block_on(upload(&demo));
}

async fn upload(demo: &Demo) {
    let put = async |fixture: &str| {
        ask_node(demo, "n1", (Method::PUT, MODULE), &[], module(fixture)).await
    };
    let told = put("good").await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = told.json();
    assert_eq!((&told["name"], &told["file"]), (&json!("good"), &json!("good.wasm")));
    for node in ["n1", "n2", "n3"] {
        let found = deciding(demo, node, "good").await;
        assert_eq!((&found["state"], &found["digest"]), (&json!("active"), &told["digest"]));
    }
    let question = json!({ "question": {
        "nodes": [{ "id": 1, "name": "n1" }], "vms": [{ "id": "x", "name": "x" }],
    } });
    let evaluate = (Method::POST, "/v1/policies/placement/evaluate");
    let asked = ask_node(demo, "n2", evaluate, &[], question.to_string()).await.json();
    assert_eq!(asked["policy"], "good", "{asked}");
    for bad in ["unknown-import", "loops-at-start", "unknown-node"] {
        let refused = put(bad).await;
        assert_eq!(refused.status, 422, "{bad}: {refused:?}");
        let told = refused.json();
        assert_eq!(told["type"], "urn:steadfast:policy_refused", "{bad}: {told}");
        assert!(told["stage"].is_string() && told["class"].is_string(), "{bad}: {told}");
    }
    assert_eq!(kept(demo), ["good.wasm"]);
    deciding(demo, "n1", "good").await;
}

#[test]
fn of_two_changes_by_different_agents_that_were_decided_on_one_state_one_is_refused() {
    let demo = cluster();
    serving().block_on(change_at_once(&demo));
}

async fn change_at_once(demo: &Demo) {
    let vms = ask_node(demo, "n1", (Method::GET, "/v1/vms"), &[], "").await.json();
    let path = format!("/v1/vms/{}", vms[0]["id"].as_str().expect("an id"));
    let mut apart = 0;
    for round in 0..10 {
        let seen = ask_node(demo, "n1", (Method::GET, &path), &[], "").await;
        let headers = [("if-match", seen.header("etag"))];
        let put = async |node, priority: u16| {
            let (path, body) = (format!("{path}/priority"), json!({ "priority": priority }));
            ask_node(demo, node, (Method::PUT, &path), &headers, body.to_string()).await
        };
        let (one, two) = (100 + 2 * round, 101 + 2 * round);
        let answers = tokio::join!(put("n1", one), put("n2", two));
        let statuses = [answers.0.status.as_u16(), answers.1.status.as_u16()];
        assert_ne!(statuses, [200, 200], "both were done: {answers:?}");
        let won = match statuses {
            [200, 412] => one,
            [412, 200] => two,
            // On a busy machine an outcome may be unknown.
            _ => continue,
        };
        until_priority(demo, &path, won).await;
        apart += 1;
        if apart == 3 {
            return;
        }
    }
    panic!("only {apart} times one was done and the other was stale");
}

/// Every agent reads a moment later what the leader has committed.
async fn until_priority(demo: &Demo, path: &str, wanted: u16) {
    let end = Instant::now() + PATIENCE;
    for node in ["n1", "n2", "n3"] {
        loop {
            let told = ask_node(demo, node, (Method::GET, path), &[], "").await.json();
            if told["priority"] == json!(wanted) {
                break;
            }
            assert!(Instant::now() < end, "{node} has {told}, not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
