//! What the stage set answers to requests: enough of HA-watch's and the agents' API for the page.

use super::made::{check, policy, wall_ms};
use super::plays;
use super::server::{Asked, Stage};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = (StatusCode, Value);

fn ok(value: Value) -> Answer {
    (StatusCode::OK, value)
}

fn done(stage: &Stage, kind: &str, node: Option<&str>, text: &str) -> Answer {
    stage.decide(kind, node, None, text);
    ok(json!({"stamp": "3.1v43", "notes": []}))
}

fn refused(status: StatusCode, detail: &str, remedy: &str) -> Answer {
    (
        status,
        json!({"type": "urn:steadfast:refused", "title": "refused", "status": status.as_u16(), "detail": detail, "remedy": remedy}),
    )
}

pub(super) fn answer(stage: &Arc<Stage>, asked: &Asked<'_>) -> Answer {
    match asked.path.as_slice() {
        ["about"] => ok(json!({"version": "0.1.0", "started_wall_ms": wall_ms(), "demo": true})),
        ["alarms"] => ok(json!([])),
        ["clusters"] => ok(
            json!([{"id": "prod", "name": "prod", "connected": true, "via": "n1", "worst": "ok", "text": ""}]),
        ),
        ["clusters", _, "events"] => ok(history(stage, asked.query)),
        ["clusters", _, "incidents"] => {
            ok(Value::Array(stage.scene().incidents.iter().rev().cloned().collect()))
        }
        ["clusters", _, "incidents", id] => incident(stage, id),
        ["clusters", _, "availability"] => ok(availability(stage)),
        ["clusters", _, "agent", "v1", path @ ..] => agent(stage, asked, path),
        ["demo", path @ ..] => demo(stage, path),
        _ => nothing(),
    }
}

fn nothing() -> Answer {
    refused(
        StatusCode::NOT_FOUND,
        "no such thing on the stage",
        "look at tests/src/stage/answers.rs",
    )
}

fn history(stage: &Stage, query: &str) -> Value {
    let wanted = |key: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, _)| *name == key).map(|(_, value)| value.replace('+', " ")).next()
    };
    let scene = stage.scene();
    let is = |it: &Value, key: &str| wanted(key).is_none_or(|value| it[key] == json!(value));
    let has = |it: &Value| {
        wanted("q").is_none_or(|q| it["text"].as_str().is_some_and(|text| text.contains(&q)))
    };
    let found = scene
        .decisions
        .iter()
        .rev()
        .filter(|it| is(it, "kind") && is(it, "node") && is(it, "vm") && has(it));
    let limit = wanted("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100);
    Value::Array(found.take(limit).cloned().collect())
}

fn incident(stage: &Stage, id: &str) -> Answer {
    let scene = stage.scene();
    let found = scene.incidents.iter().find(|it| it["id"].as_u64() == id.parse().ok());
    found.map_or_else(nothing, |it| ok(it.clone()))
}

fn availability(stage: &Stage) -> Value {
    let scene = stage.scene();
    let nodes = scene.state["nodes"].as_object().into_iter().flatten().zip(0..);
    let told = |((name, _), at): ((&String, &Value), u64)| {
        (name.clone(), json!({"up_ppm": 1_000_000 - at * 7, "down_ms": at * 900, "flaps": at % 2}))
    };
    json!({"nodes": nodes.map(told).collect::<serde_json::Map<_, _>>(),
        "vms": {"u": {"name": "db", "up_ppm": 999_991, "down_ms": 3_900, "failovers": 1}}})
}

fn demo(stage: &Arc<Stage>, path: &[&str]) -> Answer {
    match path {
        [] => {
            return ok(
                json!({"nodes": stage.scene().demo, "folder": "/tmp/steadfast-demo/policies"}),
            );
        }
        ["nodes", name, verb] => {
            let change = match *verb {
                "kill" => json!({"up": false}),
                "boot" => json!({"up": true, "network": true, "storage": true}),
                "cut" => json!({"network": false}),
                "join" => json!({"network": true}),
                "stall" => json!({"storage": false}),
                _ => json!({"storage": true}),
            };
            super::server::merge(&mut stage.scene().demo[*name], &change);
            let (stage, name) = (Arc::clone(stage), (*name).to_owned());
            match *verb {
                "kill" => drop(tokio::spawn(plays::kill(stage, name))),
                "boot" => drop(tokio::spawn(plays::boot(stage, name))),
                _ => {}
            }
        }
        _ => {}
    }
    ok(json!({}))
}

fn agent(stage: &Arc<Stage>, asked: &Asked<'_>, path: &[&str]) -> Answer {
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    match (asked.method.as_str(), path) {
        ("POST", ["settings", "check"]) => ok(check(&body)),
        ("POST", ["disarm"]) => {
            stage.patch(&json!({"disarm": {"since": "3.1v43", "limit": body["limit_ms"], "reason": body["reason"], "pending": false}}));
            done(stage, "disarm", None, "high availability is switched off for everybody")
        }
        ("POST", ["arm"]) => {
            stage.patch(&json!({"disarm": null}));
            done(stage, "disarm", None, "high availability is switched on again")
        }
        ("GET", ["verification"]) => ok(json!({"addresses": stage.scene().verification})),
        ("PUT", ["verification"]) => {
            stage.scene().verification = body["addresses"].clone();
            ok(json!({"stamp": "3.1v44"}))
        }
        (method, ["nodes", name, "maintenance"]) => {
            maintenance(stage, method == "POST", name, &body)
        }
        ("POST", ["vms"]) => enable(stage, &body),
        (method, ["vms", id, rest @ ..]) => vm(stage, method, id, rest, &body),
        (method, ["policies", kind, verb]) => policies(stage, method, kind, verb, &asked.body),
        ("GET", ["plan", name]) => ok(stage.scene().state["plan"][*name].clone()),
        ("GET", ["explain", name]) => explain(stage, name),
        _ => nothing(),
    }
}

fn explain(stage: &Stage, name: &str) -> Answer {
    let scene = stage.scene();
    let about = |it: &&Value| ["id", "node", "vm", "vm_id"].iter().any(|key| it[*key] == name);
    ok(
        json!({"name": name, "decisions": scene.decisions.iter().filter(about).cloned().collect::<Vec<_>>(), "notes": []}),
    )
}

fn maintenance(stage: &Stage, begins: bool, name: &str, body: &Value) -> Answer {
    let patch = if begins {
        json!({"status": "Maintenance", "status_text": "Maintenance", "reason": format!("an operator wants it empty: {}", body["reason"].as_str().unwrap_or_default()),
            "maintenance": {"since": "3.1v43", "restart": body["restart"], "reason": body["reason"]}})
    } else {
        json!({"status": "Member", "status_text": "Member", "reason": "", "maintenance": null})
    };
    stage.patch(&json!({"nodes": {name: patch}}));
    done(
        stage,
        "maintenance",
        Some(name),
        &if begins { format!("{name} is to be emptied") } else { format!("{name} is used again") },
    )
}

fn enable(stage: &Stage, body: &Value) -> Answer {
    let name = body["name"].as_str().unwrap_or_default();
    if name.contains("local") {
        return refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            &format!("the disk of {name} is on this node's own storage"),
            "move it to shared storage",
        );
    }
    let id = format!("11111111-0000-4000-8000-{:012}", stage.scene().decisions.len());
    let vm = json!({"id": id, "name": name, "owner": {"id": 1, "name": "n1"}, "state": "running", "reason": "", "priority": body["priority"],
        "memory_mib": 2_048, "vcpus": 2, "labels": {}, "desired": "Running"});
    stage.patch(&json!({"vms": {&id: vm}}));
    stage.decide(
        "enrolment",
        Some("n1"),
        Some((&id, name)),
        &format!("{name} is protected from now on"),
    );
    ok(json!({"vm": name, "id": id, "stamp": "3.1v43"}))
}

fn vm(stage: &Stage, method: &str, id: &str, rest: &[&str], body: &Value) -> Answer {
    let name = stage.scene().state["vms"][id]["name"].as_str().unwrap_or_default().to_owned();
    let patch = match (method, rest) {
        ("DELETE", []) => Value::Null,
        ("PUT", ["priority"]) => json!({"priority": body["priority"]}),
        ("POST", ["stop"]) => json!({"state": "stopped", "desired": "Stopped"}),
        ("POST", ["start"]) => json!({"state": "running", "desired": "Running"}),
        ("POST", ["migrate" | "relocate"]) => {
            json!({"owner": stage.scene().state["nodes"][body["to"].as_str().unwrap_or_default()]})
        }
        _ => return nothing(),
    };
    stage.patch(&json!({"vms": {id: patch}}));
    stage.decide("wish", None, Some((id, &name)), &format!("{name} is changed by an operator"));
    ok(json!({"vm": name, "id": id, "stamp": "3.1v43"}))
}

/// Bytes that begin as a module does pass; others do not.
fn policies(stage: &Stage, method: &str, kind: &str, verb: &str, bytes: &[u8]) -> Answer {
    let at = ["node_priority", "placement", "risk"].iter().position(|known| *known == kind);
    let Some(at) = at else { return nothing() };
    let mut all = stage.scene().state["policies"].clone();
    let one = &mut all["kinds"][at];
    match (method, verb) {
        ("PUT", "module") if !bytes.starts_with(b"\0asm") => {
            return refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "refused at manifest: it is no WebAssembly module: it does not begin with \\0asm",
                "build it with `cargo build --profile wasm --target wasm32-unknown-unknown`",
            );
        }
        ("PUT", "module") => {
            let mut custom = policy(kind, "active", true);
            custom["name"] = json!(format!("acme.{}", kind.replace('_', "-")));
            custom["file"] = json!("acme.wasm");
            custom["digest"] = json!("c0ffee42".repeat(8));
            custom["generation"] = json!(2);
            for it in one["policies"].as_array_mut().into_iter().flatten() {
                it["deciding"] = json!(false);
                if it["state"] == "active" {
                    it["state"] = json!("last_good");
                }
            }
            one["policies"].as_array_mut().into_iter().for_each(|list| list.push(custom.clone()));
            one["differences"] = json!([{"wall_ms": wall_ms(), "shadow": "acme.placement 1.0.0", "decider": "steadfast.default.placement", "text": "db would go to n3, not to n2"}]);
        }
        (_, "rollback") => {
            let back = method == "POST";
            for it in one["policies"].as_array_mut().into_iter().flatten() {
                let custom = it["file"] == "acme.wasm";
                it["deciding"] = json!(if back { it["state"] == "last_good" } else { custom });
                if custom {
                    it["state"] = json!(if back { "rolled_back" } else { "active" });
                }
            }
            one["rolled_back_from"] = if back { json!("c0ffee42".repeat(8)) } else { Value::Null };
        }
        _ => return nothing(),
    }
    stage.patch(&json!({"policies": all}));
    ok(
        json!({"kind": kind, "from": null, "name": "acme", "version": "1.0.0", "decides": "steadfast.default 1.0.0 (generation 1)"}),
    )
}
