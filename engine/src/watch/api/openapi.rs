//! The OpenAPI document of HA-watch's own routes.

use super::routes::{Answers, Is, Operation, Parameter, table};
use crate::api::bound;
use crate::api::wire::Problem;
use crate::watch::access::needed;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// What is asked of the agents, under this.
const FORWARDED: &str = "/v1/clusters/{id}/agent/v1/{path}";

pub(super) async fn serve() -> impl IntoResponse {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = DOCUMENT.get_or_init(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}

/// The document.
pub(in crate::watch) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|it| it.definitions_path = "/components/schemas".into())
        .for_serialize();
    let mut shapes = settings.into_generator();
    let mut paths = Map::new();
    for (operation, _) in table() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = describe(&operation, &mut shapes);
    }
    paths.insert(FORWARDED.into(), forwarded());
    let problem = shapes.subschema_for::<Problem>();
    let mut schemas = shapes.take_definitions(true);
    schemas.values_mut().for_each(bound);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Steadfast HA-watch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What several clusters' agents say, with its history, and the way to their APIs.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "security": [{ "token": [] }, { "certificate": [] }],
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
            "responses": { "Problem": {
                "description": "It is not done; with the reason and the remedy (RFC 9457).",
                "content": { "application/problem+json": { "schema": problem } },
            } },
        },
    })
}

fn describe(operation: &Operation, shapes: &mut SchemaGenerator) -> Value {
    let Operation { method, path, about, query, answer } = operation;
    let content = match answer {
        Answers::Json(shape) => json!({ "application/json": { "schema": shape(shapes) } }),
        Answers::Events => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
    };
    let mut responses = json!({ "200": { "description": "Done.", "content": content } });
    let mut refusals = vec![400, 401, 403, 503];
    if path.contains('{') {
        refusals.push(404);
    }
    for status in refusals {
        responses[status.to_string()] = json!({ "$ref": "#/components/responses/Problem" });
    }
    let parameters: Vec<Value> = in_path(path).chain(query.iter().map(in_query)).collect();
    let words = path.split(['/', '.']).filter(|word| !word.is_empty() && *word != "v1");
    let words: Vec<&str> = words.map(|word| word.trim_matches(['{', '}'])).collect();
    json!({
        "summary": about,
        "operationId": format!("{}_{}", method.as_str().to_ascii_lowercase(), words.join("_")),
        "description": format!("Needs the role {}.", needed(method, path).name()),
        "parameters": parameters,
        "responses": responses,
    })
}

fn in_path(path: &'static str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|word| word.strip_prefix('{'));
    names.map(move |name| {
        let name = name.trim_end_matches('}');
        let is_number = name == "number" || path.starts_with("/v1/alarms/");
        let schema = match is_number {
            true => {
                json!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX })
            }
            false => json!({ "type": "string", "minLength": 1 }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    })
}

fn in_query((name, is, about): &Parameter) -> Value {
    let schema = match is {
        Is::Number => json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX }),
        Is::Text => json!({ "type": "string" }),
    };
    json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
}

/// Described by the agents' own document.
fn forwarded() -> Value {
    let describe = |method: &Method| {
        let method = method.as_str().to_ascii_lowercase();
        let told = json!({
            "summary": "Asks the cluster's agents: reads the one whose state is shown, changes the leader's.",
            "operationId": format!("{method}_agent"),
            "description": "See the agent's own document: GET .../agent/v1/openapi.json; the same role is needed.",
            "parameters": in_path(FORWARDED).collect::<Vec<_>>(),
            "responses": { "default": { "description": "What the agent answers." } },
        });
        (method, told)
    };
    [Method::GET, Method::POST, Method::PUT, Method::DELETE].iter().map(describe).collect()
}
