//! The document says the truth: whatever is asked, good or bad, has a documented status and a body of the documented shape, and the
//! agent never fails. Requests are made from the document itself.

use super::schema::{Chance, Shapes, spoil};
use super::*;
use serde_json::json;
use std::collections::BTreeMap;

/// Requests of each operation.
const ROUNDS: usize = 40;

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let byte =
        |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

/// A value of a parameter, as text.
fn value(shapes: &Shapes<'_>, schema: &Value, chance: &mut Chance) -> String {
    let made = shapes.generate(schema, chance);
    let made = if chance.next(8) == 0 { spoil(&made, chance) } else { made };
    made.as_str().map_or_else(|| made.to_string(), Into::into)
}

struct Made {
    /// Its body is as the document says.
    good: bool,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn make(shapes: &Shapes<'_>, path: &str, operation: &Value, chance: &mut Chance) -> Made {
    let mut made = Made { good: true, path: path.into(), headers: Vec::new(), body: Vec::new() };
    let mut query = Vec::new();
    for parameter in operation["parameters"].as_array().expect("a list") {
        let name = parameter["name"].as_str().expect("a name");
        let needed = parameter["required"] == true;
        match parameter["in"].as_str().expect("a place") {
            "path" => {
                let known = match name {
                    "kind" => ["placement", "node_priority", "risk", "nothing"],
                    _ => ["web", "n1", "uuid-of-db", "n2"],
                };
                let drawn = if chance.next(4) > 0 {
                    known[chance.next(4)].to_owned()
                } else {
                    chance.word()
                };
                let drawn = if drawn.is_empty() { "x".into() } else { drawn };
                made.path = made.path.replace(&format!("{{{name}}}"), &encoded(&drawn));
            }
            "query" if name == "once" => query.push("once=1".to_owned()),
            "query" if needed || chance.next(2) == 0 => {
                let drawn = value(shapes, &parameter["schema"], chance);
                query.push(format!("{name}={}", encoded(&drawn)));
            }
            "header" if chance.next(6) == 0 => {
                let drawn = ["*", "\"0123456789abcdef\"", "k1", "k2"][chance.next(4)];
                made.headers.push((name.into(), drawn.into()));
            }
            _ => {}
        }
    }
    if !query.is_empty() {
        made.path = format!("{}?{}", made.path, query.join("&"));
    }
    if let Some(of) = operation.pointer("/requestBody/content/application~1json/schema") {
        let good = shapes.generate(of, chance);
        made.good = chance.next(2) == 0;
        let body = if made.good { good } else { spoil(&good, chance) };
        made.body = body.to_string().into_bytes();
        if !made.good && chance.next(10) == 0 {
            made.body.truncate(made.body.len() / 2);
        }
    } else if operation.get("requestBody").is_some() {
        made.body = vec![0, 97, 115, 109, 1, 0, 0, 0];
    }
    made
}

/// Where nothing can be said otherwise, a second request says as much as many.
fn rounds(operation: &Value) -> usize {
    let varies = operation["parameters"].as_array().is_some_and(|all| !all.is_empty());
    if varies || operation.get("requestBody").is_some() { ROUNDS } else { 2 }
}

/// Streams have no end; they have tests of their own.
fn is_stream(operation: &Value) -> bool {
    let content = &operation["responses"]["200"]["content"];
    content.get("text/event-stream").is_some() && content.get("application/json").is_none()
}

fn check(shapes: &Shapes<'_>, operation: &Value, answer: &Answer, what: &str) {
    let code = answer.status.as_u16();
    // Libvirt is not there; everything else is.
    assert!(code < 500 || code == 503, "{what}: {answer:?}");
    let told = &operation["responses"][code.to_string()];
    assert!(!told.is_null(), "{what}: {code} is not documented: {answer:?}");
    let told = match told["$ref"].as_str() {
        Some(path) => shapes.0.pointer(&path[1..]).expect("it is there"),
        None => told,
    };
    let kind = answer.header("content-type").split(';').next().unwrap_or_default().to_owned();
    let of = &told["content"][&kind];
    assert!(!of.is_null(), "{what}: {kind:?} is not documented");
    if kind.ends_with("json") {
        let why = shapes.mismatch(&of["schema"], &answer.json());
        assert_eq!(why, None, "{what}: {}", String::from_utf8_lossy(&answer.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_is_answered_as_the_document_says() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    rig.decide(1, "web goes to n2");
    let document = get(at, "/v1/openapi.json").await.json();
    let (shapes, mut chance) = (Shapes(&document), Chance(0x5eed));
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            if is_stream(operation) {
                continue;
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            for _ in 0..rounds(operation) {
                let made = make(&shapes, path, operation, &mut chance);
                let headers: Vec<(&str, &str)> =
                    made.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let body = made.body.clone();
                let answer = ask(at, (method.clone(), &made.path), &headers, body).await;
                *seen.entry(answer.status.as_u16()).or_default() += 1;
                let said = String::from_utf8_lossy(&made.body);
                let what = format!("{method} {} {said}", made.path);
                check(&shapes, operation, &answer, &what);
                if made.good && !made.path.contains('?') {
                    check_understood(&answer, &what);
                }
            }
        }
    }
    for status in [200, 400, 404, 412, 422] {
        assert!(seen.contains_key(&status), "no request had {status}: {seen:?}");
    }
}

/// What the document calls good must be understood, whether or not it is done.
fn check_understood(answer: &Answer, what: &str) {
    if answer.status == StatusCode::BAD_REQUEST {
        let why = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        for strange in ["unknown field", "missing field", "invalid type", "unknown variant"] {
            assert!(!why.contains(strange), "{what}: {why}");
        }
    }
}

#[test]
fn a_type_is_read_and_written_in_one_shape() {
    assert_eq!(crate::api::openapi::ambiguous(), Vec::<String>::new());
}

#[test]
fn the_document_is_whole() {
    let document = crate::api::openapi::document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let path = reference.split('"').next().expect("a path");
        assert!(document.pointer(path).is_some(), "{path} is not there");
    }
    let paths = document["paths"].as_object().expect("paths");
    let ids: Vec<&Value> = paths
        .values()
        .flat_map(|methods| methods.as_object().expect("methods").values())
        .map(|operation| &operation["operationId"])
        .collect();
    let different: std::collections::BTreeSet<String> =
        ids.iter().map(ToString::to_string).collect();
    assert_eq!(different.len(), ids.len(), "operations have names of their own");
    assert_eq!(ids.len(), crate::api::routes::table().len());
    assert_eq!(
        document["paths"]["/v1/vms/{name}/priority"]["put"]["operationId"],
        json!("put_vms_name_priority")
    );
}

#[test]
fn every_integer_says_what_its_type_can_hold() {
    let document = crate::api::openapi::document();
    let budget = &document["components"]["schemas"]["EnableVm"]["properties"]["max_restarts"];
    assert_eq!(budget["maximum"], json!(u32::MAX), "{budget}");
    let limit = &document["components"]["schemas"]["DisarmRequest"]["properties"]["limit_ms"];
    assert_eq!((&limit["minimum"], &limit["maximum"]), (&json!(1), &json!(31_536_000_000_u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_forbids_is_refused() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    for path in ["/v1/audit", "/v1/decisions", "/v1/explain/web"] {
        let asked = async |limit: u32| get(at, &format!("{path}?limit={limit}")).await.status;
        assert_eq!(asked(1_000_001).await, 400, "{path}");
        assert_ne!(asked(1_000_000).await, 400, "{path}");
    }
    let post = async |path, headers: Headers<'_>, body: &'static str| {
        ask(at, (Method::POST, path), headers, body).await.status
    };
    assert_eq!(post("/v1/arm", &[("x-steadfast-caller", "a\tb")], "").await, 400);
    let century = "{\"reason\": \"r\", \"limit_ms\": 3153600000000}";
    assert_eq!(post("/v1/disarm", &[], century).await, 400);
    let body = "{\"question\": {\"nodes\": \"many\"}}";
    assert_eq!(post("/v1/policies/placement/evaluate", &[], body).await, 422);
}
