//! The OpenAPI document, made from the table of routes and the types that cross the API.

use super::read::Limit;
use super::routes::{Answers, Bodies, Operation, Parameter, table};
use super::wire::Problem;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

const COMPONENTS: &str = "/components/schemas";

static DOCUMENT: OnceLock<String> = OnceLock::new();

pub(super) async fn serve() -> impl IntoResponse {
    let text = DOCUMENT.get_or_init(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}

/// Types that are read and types that are written, in one document.
struct Shapes {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Shapes {
    fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|it| it.definitions_path = COMPONENTS.into());
        Self {
            read: settings().into_generator(),
            written: settings().for_serialize().into_generator(),
        }
    }

    /// All types by name.
    fn definitions(&mut self) -> Map<String, Value> {
        let mut all = self.read.take_definitions(true);
        all.extend(self.written.take_definitions(true));
        all.values_mut().for_each(bound);
        all
    }
}

/// What a type of integers cannot hold is out of range, also where nobody wrote a range.
pub(crate) fn bound(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(bound),
        Value::Object(map) => {
            let range = match map.get("format").and_then(Value::as_str) {
                Some("uint8") => Some((json!(0), json!(u8::MAX))),
                Some("uint16") => Some((json!(0), json!(u16::MAX))),
                Some("uint32") => Some((json!(0), json!(u32::MAX))),
                Some("uint64" | "uint") => Some((json!(0), json!(u64::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                _ => None,
            };
            if let Some((least, most)) = range {
                map.entry("minimum").or_insert(least);
                map.entry("maximum").or_insert(most);
            }
            map.values_mut().for_each(bound);
        }
        _ => {}
    }
}

/// Names of types that are read in one shape and written in another: the document could hold one of them only.
#[cfg(test)]
pub(super) fn ambiguous() -> Vec<String> {
    let mut shapes = Shapes::new();
    table().iter().for_each(|(operation, _)| drop(describe(operation, &mut shapes)));
    let (read, written) =
        (shapes.read.take_definitions(true), shapes.written.take_definitions(true));
    let differs =
        |(name, shape): &(&String, &Value)| written.get(*name).is_some_and(|it| it != *shape);
    read.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}

/// The document.
pub(super) fn document() -> Value {
    let mut shapes = Shapes::new();
    let mut paths = Map::new();
    for (operation, _) in table() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_ascii_lowercase();
        path[method] = describe(&operation, &mut shapes);
    }
    let problem = shapes.written.subschema_for::<Problem>();
    let schemas = shapes.definitions();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Steadfast agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "High availability of VMs, as one node's agent sees it and does it.",
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

fn describe(operation: &Operation, shapes: &mut Shapes) -> Value {
    let mut told = json!({
        "summary": operation.about,
        "operationId": id(operation),
        "description": format!("Needs the role {}.", operation.role.name()),
        "parameters": parameters(operation),
        "responses": responses(operation, shapes),
    });
    let body = match operation.body {
        Bodies::None => None,
        Bodies::Json { shape, .. } => {
            let schema = shape(&mut shapes.read);
            Some(json!({ "application/json": { "schema": schema } }))
        }
        Bodies::Module => Some(json!({ "application/wasm": { "schema": {
            "type": "string", "contentMediaType": "application/wasm"
        } } })),
    };
    if let Some(content) = body {
        let optional = matches!(operation.body, Bodies::Json { optional: true, .. });
        told["requestBody"] = json!({ "required": !optional, "content": content });
    }
    told
}

/// `put_vms_priority`.
fn id(operation: &Operation) -> String {
    let words = operation.path.split(['/', '.']).filter(|word| !word.is_empty() && *word != "v1");
    let words: Vec<&str> = words.map(|word| word.trim_matches(['{', '}'])).collect();
    format!("{}_{}", operation.method.as_str().to_ascii_lowercase(), words.join("_"))
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let inner = operation.path.split('/').filter_map(|word| word.strip_prefix('{'));
    let mut told: Vec<Value> = inner
        .map(|word| {
            let name = word.trim_end_matches('}');
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
        })
        .collect();
    told.extend(operation.query.iter().map(query));
    if operation.changes {
        let text = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$" });
        let header = |name: &str, about: &str| json!({ "name": name, "in": "header", "required": false, "schema": text, "description": about });
        told.push(header("if-match", "Only if the subject's etag is still this one."));
        told.push(header(
            "idempotency-key",
            "A second request with it gets the first one's answer.",
        ));
        told.push(header("x-steadfast-caller", "For whom a service asks, for the audit."));
    }
    told
}

fn query(parameter: &Parameter) -> Value {
    let Parameter { name, kind, required, about } = parameter;
    let schema = match *kind {
        "integer" => json!({ "type": "integer", "minimum": 0, "maximum": Limit::MOST }),
        "flag" => json!({ "type": "integer", "enum": [0, 1] }),
        "scope" => json!({ "type": "string", "enum": ["node", "cluster"] }),
        _ => json!({ "type": "string" }),
    };
    json!({ "name": name, "in": "query", "required": required, "description": about, "schema": schema })
}

fn responses(operation: &Operation, shapes: &mut Shapes) -> Value {
    let content = match operation.answer {
        Answers::Json(shape) => {
            json!({ "application/json": { "schema": shape(&mut shapes.written) } })
        }
        Answers::Metrics => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Answers::Events(None) => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        Answers::Events(Some(shape)) => json!({
            "text/event-stream": { "schema": { "type": "string" } },
            "application/json": { "schema": shape(&mut shapes.written) },
        }),
    };
    let mut told = json!({ "200": { "description": "Done.", "content": content } });
    for status in refusals(operation) {
        told[status.to_string()] = json!({ "$ref": "#/components/responses/Problem" });
    }
    told
}

/// Statuses of refusals.
fn refusals(operation: &Operation) -> Vec<u16> {
    let mut told = vec![400, 401, 403, 413, 503];
    if operation.path.contains('{') || operation.changes {
        told.push(404);
    }
    if operation.changes {
        told.extend([409, 412, 422, 504]);
    } else if operation.method != Method::GET {
        told.push(422);
    }
    told.sort_unstable();
    told
}
