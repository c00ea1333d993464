//! Every operation of HA-watch's own API: the router and the OpenAPI document are both made from this table.

use super::{alarms, clusters, history, live, openapi};
use crate::watch::Inner;
use crate::watch::alarms::Alarm;
use crate::watch::history::Availability;
use crate::watch::incidents::Incident;
use axum::http::Method;
use axum::routing::{MethodRouter, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::sync::Arc;

type Shape = fn(&mut SchemaGenerator) -> Schema;
type Handler = MethodRouter<Arc<Inner>>;

/// What a good answer holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers {
    /// This type.
    Json(Shape),
    /// Server-sent events.
    Events,
}

/// A parameter of the query: its name, and whether it is a number.
pub(super) type Parameter = (&'static str, Is, &'static str);

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// Any text.
    Text,
    /// A whole number.
    Number,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) query: &'static [Parameter],
    pub(super) answer: Answers,
}

const LIMIT: Parameter = ("limit", Is::Number, "At most so many, and never more than 1000.");
const BEFORE: Parameter =
    ("before", Is::Number, "Only older ones; wall clock in milliseconds since 1970.");
const SINCE: Parameter =
    ("since", Is::Number, "Only from then on; wall clock in milliseconds since 1970.");

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn reads<T: JsonSchema>(path: &'static str, about: &'static str) -> Operation {
    Operation { method: Method::GET, path, about, query: &[], answer: Answers::Json(shape::<T>) }
}

/// All of them.
pub(super) fn table() -> Vec<(Operation, Handler)> {
    let mut all = of_clusters();
    all.extend([
        (
            reads::<clusters::About>("/v1/about", "This service: version, since when it runs."),
            get(clusters::about),
        ),
        (reads::<Vec<Alarm>>("/v1/alarms", "Alarms, newest first."), get(alarms::all)),
        (
            Operation {
                method: Method::POST,
                ..reads::<Alarm>("/v1/alarms/{id}/acknowledge", "Somebody cares for an alarm.")
            },
            post(alarms::acknowledge),
        ),
        (
            reads::<serde_json::Map<String, serde_json::Value>>(
                "/v1/openapi.json",
                "This document.",
            ),
            get(openapi::serve),
        ),
    ]);
    all
}

fn of_clusters() -> Vec<(Operation, Handler)> {
    type Body = serde_json::Map<String, serde_json::Value>;
    const EVENTS: &[Parameter] = &[
        ("q", Is::Text, "Only those with these words."),
        ("kind", Is::Text, "Only this kind of decision."),
        ("node", Is::Text, "Only those about this node."),
        ("vm", Is::Text, "Only those about this VM, by name or UUID."),
        SINCE,
        BEFORE,
        LIMIT,
    ];
    let events = "Decisions of all nodes from the history, newest first, as agents tell them.";
    vec![
        (
            reads::<Vec<clusters::Summary>>("/v1/clusters", "All clusters, each in short."),
            get(clusters::all),
        ),
        (
            Operation {
                answer: Answers::Events,
                ..reads::<()>(
                    "/v1/clusters/{id}/live",
                    "As an agent's live stream, with this service's own word in `watch`, \
                     and `incident` and `alarm`.",
                )
            },
            get(live::live),
        ),
        (
            Operation { query: EVENTS, ..reads::<Vec<Body>>("/v1/clusters/{id}/events", events) },
            get(history::events),
        ),
        (
            Operation {
                query: &[BEFORE, LIMIT],
                ..reads::<Vec<Incident>>("/v1/clusters/{id}/incidents", "Incidents, newest first.")
            },
            get(history::incidents),
        ),
        (
            reads::<Incident>("/v1/clusters/{id}/incidents/{number}", "One, with its milestones."),
            get(history::incident),
        ),
        (
            Operation {
                query: &[SINCE],
                ..reads::<Availability>(
                    "/v1/clusters/{id}/availability",
                    "Of nodes and VMs, of the last 30 days if nobody says since when.",
                )
            },
            get(history::availability),
        ),
    ]
}
