//! Every operation of the API, once: from this table come the router, what each role may do, what is audited, and the OpenAPI document.

use super::callers::Role;
use super::gate::{self, Gate};
use super::subject::Subject;
use super::wire;
use super::{
    audit, cluster, doctor, errors, events, explain, live, metrics, nodes, openapi, plan, policies,
    read, settings, setup, telemetry, upload, vms,
};
use crate::driver::Agent;
use crate::policy::{Evaluation, KindStatus, PoliciesStatus};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post, put};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use steadfast_core::snapshot::{ElectionView, NodeView, VmView};

/// Bodies of requests are this long at most, unless it is said otherwise.
const SMALL: usize = 64 << 10;
/// A question of the largest cluster.
const LARGE: usize = 32 << 20;

type Handler = MethodRouter<Arc<Agent>>;
type Group = Vec<(Operation, Handler)>;
/// Adds a type to a document.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// What a request's body is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bodies {
    /// There is none.
    None,
    /// JSON.
    Json {
        /// Its shape.
        shape: Shape,
        /// So many bytes at most.
        limit: usize,
        /// None means `{}`.
        optional: bool,
    },
    /// A module, as large as the configuration allows.
    Module,
}

/// What a good answer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers {
    /// JSON of this shape.
    Json(Shape),
    /// A stream of events; with `?once=1` JSON of this shape, if there is one.
    Events(Option<Shape>),
    /// Text for Prometheus.
    Metrics,
}

/// A parameter of the query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) required: bool,
    pub(super) about: &'static str,
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
    pub(super) role: Role,
    /// It is audited, and may be asked with a precondition and a key.
    pub(super) changes: bool,
    pub(super) subject: Subject,
    pub(super) query: &'static [Parameter],
    pub(super) body: Bodies,
    pub(super) answer: Answers,
}

const fn optional(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, kind, required: false, about }
}

const LIMIT: Parameter = optional("limit", "integer", "At most so many.");
const SOURCE: Parameter =
    Parameter { name: "source", kind: "string", required: true, about: "Who posted." };
const READING: Parameter = optional("name", "string", "Only this reading.");

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    fn reads<T: JsonSchema>(path: &'static str, about: &'static str) -> Self {
        Self {
            method: Method::GET,
            path,
            about,
            role: Role::Viewer,
            changes: false,
            subject: Subject::Nothing,
            query: &[],
            body: Bodies::None,
            answer: Answers::Json(shape::<T>),
        }
    }

    fn changes<T: JsonSchema>(
        method: Method,
        path: &'static str,
        role: Role,
        subject: Subject,
        about: &'static str,
    ) -> Self {
        Self { method, role, changes: true, subject, ..Self::reads::<T>(path, about) }
    }

    fn of(self, subject: Subject) -> Self {
        Self { subject, ..self }
    }

    fn with<B: JsonSchema + DeserializeOwned>(self) -> Self {
        let optional = serde_json::from_str::<B>("{}").is_ok();
        Self { body: Bodies::Json { shape: shape::<B>, limit: SMALL, optional }, ..self }
    }

    fn asked(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }
}

/// All of them.
pub(super) fn table() -> Group {
    [looks(), streams(), vms_(), nodes_(), policies_(), settings_(), telemetry_(), setup_()]
        .into_iter()
        .flatten()
        .collect()
}

/// What somebody must be who asks an agent for this; what is not in the table is for nobody less than an administrator.
pub(crate) fn role_needed(method: &Method, path: &str) -> Role {
    static ROLES: OnceLock<Vec<(Method, &str, Role)>> = OnceLock::new();
    let of =
        |(operation, _): (Operation, Handler)| (operation.method, operation.path, operation.role);
    let roles = ROLES.get_or_init(|| table().into_iter().map(of).collect());
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let is_it = |template: &str| {
        let (mut asked, mut known) = (path.split('/'), template.split('/'));
        loop {
            match (asked.next(), known.next()) {
                (None, None) => return true,
                (Some(part), Some(name)) if part == name || name.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    let found = roles.iter().find(|(of, template, _)| of == method && is_it(template));
    found.map_or(Role::Administrator, |(.., role)| *role)
}

fn looks() -> Group {
    type O = Operation;
    const DECISIONS: &[Parameter] = &[
        LIMIT,
        optional("vm", "string", "Only those about this VM, by name or UUID."),
        optional("node", "string", "Only those about this node."),
        optional("scope", "scope", "`node` (this agent's) or `cluster` (everybody's)."),
    ];
    const AUDIT: &[Parameter] = &[LIMIT, optional("who", "string", "Only what he asked for.")];
    vec![
        (
            O::reads::<wire::StatusReport>("/v1/status", "Everything, from this node's view."),
            get(read::status),
        ),
        (
            O::reads::<ElectionView>("/v1/election", "The election, running or last."),
            get(read::election),
        ),
        (
            O::reads::<crate::doctor::Report>("/v1/doctor", "Is this node set up well?"),
            get(doctor::doctor),
        ),
        (
            O::reads::<Vec<wire::DecisionReport>>("/v1/decisions", "Decisions, oldest first.")
                .asked(DECISIONS),
            get(explain::decisions),
        ),
        (
            O::reads::<wire::Explanation>(
                "/v1/explain/{name}",
                "Why a VM or a node is as it is, or one decision.",
            )
            .asked(&[LIMIT]),
            get(explain::explain),
        ),
        (
            O::reads::<BTreeMap<String, wire::NodePlan>>(
                "/v1/plan",
                "What would become of each node's VMs if it died now.",
            ),
            get(plan::all),
        ),
        (O::reads::<wire::NodePlan>("/v1/plan/{name}", "The same for one node."), get(plan::one)),
        (
            Operation {
                role: Role::Administrator,
                ..O::reads::<Vec<wire::AuditEntry>>(
                    "/v1/audit",
                    "Who asked this agent for which change, newest first.",
                )
                .asked(AUDIT)
            },
            get(audit::read),
        ),
    ]
}

fn streams() -> Group {
    type O = Operation;
    const ONCE: &[Parameter] = &[optional("once", "flag", "1: the state as JSON, once.")];
    let stream = |path, about, once| Operation {
        answer: Answers::Events(once),
        ..O::reads::<()>(path, about)
    };
    let metrics = Operation {
        answer: Answers::Metrics,
        ..O::reads::<()>("/metrics", "For Prometheus; all names end in their unit.")
    };
    vec![
        (stream("/v1/events", "Decisions, as they are taken.", None), get(events::stream)),
        (
            stream(
                "/v1/live",
                "The state, then merge patches (RFC 7396) and decisions.",
                Some(shape::<wire::LiveState> as Shape),
            )
            .asked(ONCE),
            get(live::live),
        ),
        (metrics, get(metrics::report)),
        (
            O::reads::<serde_json::Map<String, serde_json::Value>>(
                "/v1/openapi.json",
                "This document.",
            ),
            get(openapi::serve),
        ),
    ]
}

fn vms_() -> Group {
    type O = Operation;
    let one = |path, about| {
        O::changes::<wire::Changed>(Method::POST, path, Role::Operator, Subject::Vm, about)
    };
    let enable = "Puts a VM of this node under HA, or changes how it is.";
    let disable = "Takes a VM out of HA; it is left as it is.";
    vec![
        (O::reads::<Vec<VmView>>("/v1/vms", "All VMs under HA.").of(Subject::Vms), get(read::vms)),
        (
            Operation { method: Method::POST, ..one("/v1/vms", enable) }
                .of(Subject::Vms)
                .with::<wire::EnableVm>(),
            post(vms::enable),
        ),
        (
            O::reads::<VmView>("/v1/vms/{name}", "One of them, by name or UUID.").of(Subject::Vm),
            get(read::vm),
        ),
        (
            O::reads::<wire::Defined>(
                "/v1/domains/{name}",
                "A VM that this node's libvirt knows, HA or not, by name or UUID.",
            ),
            get(vms::defined),
        ),
        (
            Operation { method: Method::DELETE, ..one("/v1/vms/{name}", disable) },
            delete(vms::disable),
        ),
        (one("/v1/vms/{name}/start", "It is to run; forgives its failures."), post(vms::start)),
        (one("/v1/vms/{name}/stop", "Shuts it down and keeps it off."), post(vms::stop)),
        (
            one("/v1/vms/{name}/migrate", "Moves it live to a node.").with::<wire::MoveVm>(),
            post(vms::migrate),
        ),
        (
            one("/v1/vms/{name}/relocate", "Stops it and starts it on another node.")
                .with::<wire::MoveVm>(),
            post(vms::relocate),
        ),
        (
            Operation {
                method: Method::PUT,
                ..one("/v1/vms/{name}/priority", "Sets its restart priority.")
            }
            .with::<wire::SetPriority>(),
            put(vms::set_priority),
        ),
    ]
}

fn nodes_() -> Group {
    type O = Operation;
    let node = |method, path, role, about| {
        O::changes::<wire::Done>(method, path, role, Subject::Node, about)
    };
    let cluster =
        |path, about| node(Method::POST, path, Role::Administrator, about).of(Subject::Disarm);
    let admin = Role::Administrator;
    vec![
        (
            O::reads::<Vec<NodeView>>("/v1/nodes", "All configured nodes.").of(Subject::Nodes),
            get(read::nodes),
        ),
        (
            node(Method::POST, "/v1/nodes", admin, "Adds a node.")
                .of(Subject::Nodes)
                .with::<wire::AddNode>(),
            post(nodes::add),
        ),
        (
            O::reads::<NodeView>("/v1/nodes/{name}", "One of them.").of(Subject::Node),
            get(read::node),
        ),
        (
            node(Method::DELETE, "/v1/nodes/{name}", admin, "Drains a node and removes it."),
            delete(nodes::remove),
        ),
        (
            node(
                Method::POST,
                "/v1/nodes/{name}/maintenance",
                Role::Operator,
                "Empties a node and keeps it empty.",
            )
            .with::<wire::BeginMaintenance>(),
            post(nodes::begin_maintenance),
        ),
        (
            node(
                Method::DELETE,
                "/v1/nodes/{name}/maintenance",
                Role::Operator,
                "Uses a node again.",
            ),
            delete(nodes::end_maintenance),
        ),
        (
            O::reads::<wire::Disarmed>("/v1/disarm", "Is HA off for everybody?")
                .of(Subject::Disarm),
            get(read::disarm),
        ),
        (
            cluster("/v1/disarm", "Switches HA off for everybody.").with::<wire::Disarm>(),
            post(cluster::disarm),
        ),
        (cluster("/v1/arm", "Switches HA on again."), post(cluster::arm)),
    ]
}

fn policies_() -> Group {
    type O = Operation;
    let admin = |method, about| {
        let path = "/v1/policies/{kind}/rollback";
        let (role, subject) = (Role::Administrator, Subject::Policies);
        O::changes::<wire::RolledBack>(method, path, role, subject, about)
    };
    let evaluate = Operation {
        method: Method::POST,
        role: Role::Operator,
        body: Bodies::Json { shape: shape::<wire::Evaluate>, limit: LARGE, optional: false },
        ..O::reads::<Evaluation>(
            "/v1/policies/{kind}/evaluate",
            "What a policy would say. Nothing is decided.",
        )
    };
    let upload = Operation {
        body: Bodies::Module,
        ..O::changes::<wire::Uploaded>(
            Method::PUT,
            "/v1/policies/{kind}/module",
            Role::Administrator,
            Subject::Policies,
            "Drops a module into this node's folder, if it passes every check.",
        )
    };
    vec![
        (
            O::reads::<PoliciesStatus>("/v1/policies", "All policies, and who decides."),
            get(policies::all),
        ),
        (
            O::reads::<KindStatus>("/v1/policies/{kind}", "Those of one kind.")
                .of(Subject::Policies),
            get(policies::one),
        ),
        (
            admin(Method::POST, "Lets the policy before the active one decide.")
                .with::<wire::RollBack>(),
            post(policies::roll_back),
        ),
        (admin(Method::DELETE, "Takes a rollback back."), delete(policies::undo_roll_back)),
        (evaluate, post(policies::evaluate)),
        (upload, put(upload::put)),
    ]
}

fn settings_() -> Group {
    type O = Operation;
    let check = Operation {
        method: Method::POST,
        ..O::reads::<wire::CheckedSettings>(
            "/v1/settings/check",
            "Would these time-outs be safe? Nothing is changed.",
        )
    };
    vec![
        (
            O::reads::<wire::Settings>("/v1/settings", "The time-outs in use, and what they cost."),
            get(settings::read),
        ),
        (check.with::<wire::CheckSettings>(), post(settings::check)),
        (
            O::reads::<wire::Verification>("/v1/verification", "This node's verification IPs.")
                .of(Subject::Verification),
            get(settings::verification),
        ),
        (
            O::changes::<wire::Verification>(
                Method::PUT,
                "/v1/verification",
                Role::Administrator,
                Subject::Verification,
                "Sets them, in the configuration file too.",
            )
            .with::<wire::Verification>(),
            put(settings::set_verification),
        ),
    ]
}

fn telemetry_() -> Group {
    type O = Operation;
    let posted = |method, path, about| {
        O::changes::<wire::Posted>(method, path, Role::Operator, Subject::Nothing, about)
    };
    const READINGS: &str = "/v1/nodes/{name}/telemetry";
    const RISK: &str = "/v1/nodes/{name}/risk";
    vec![
        (
            O::reads::<crate::telemetry::TelemetryReport>(
                "/v1/telemetry",
                "What is known of this node's equipment.",
            ),
            get(telemetry::report),
        ),
        (
            posted(Method::POST, READINGS, "Readings of another system.")
                .with::<wire::PostTelemetry>(),
            post(telemetry::post),
        ),
        (
            posted(Method::DELETE, READINGS, "Withdraws them.").asked(&[SOURCE, READING]),
            delete(telemetry::withdraw),
        ),
        (
            posted(Method::POST, RISK, "Another system's verdict.").with::<wire::PostRisk>(),
            post(telemetry::post_risk),
        ),
        (
            posted(Method::DELETE, RISK, "Withdraws it.").asked(&[SOURCE, READING]),
            delete(telemetry::withdraw_risk),
        ),
    ]
}

/// What members ask each other while the cluster is set up (`steadfast cluster`).
fn setup_() -> Group {
    use crate::setup::cluster::{facts::Facts, members};
    type O = Operation;
    let post_ = |path, about| {
        let (role, subject) = (Role::Administrator, Subject::Nothing);
        O::changes::<members::Taken>(Method::POST, path, role, subject, about)
    };
    vec![
        (
            Operation {
                role: Role::Administrator,
                ..O::reads::<Facts>(
                    "/v1/setup/facts",
                    "What this node is, and which requirements it meets. Runs its fence agents' status.",
                )
            },
            get(setup::facts),
        ),
        (
            post_("/v1/setup/corosync", "Checks a new corosync.conf, or takes it.")
                .with::<members::NewCorosync>(),
            post(setup::corosync),
        ),
        (
            Operation {
                answer: Answers::Json(shape::<members::Activated>),
                ..post_("/v1/setup/activate", "Lets this agent begin.")
            },
            post(setup::activate),
        ),
    ]
}

/// All routes of `agent`. Who is at the other end of a connection, `ConnectInfo<Peer>` says; without it nobody is let in.
pub(super) fn router(agent: &Arc<Agent>) -> Router {
    let mut router = Router::new();
    for (operation, handler) in table() {
        let path = operation.path;
        let gate = Gate { agent: Arc::clone(agent), operation: Arc::new(operation) };
        router = router.route(path, handler.route_layer(from_fn_with_state(gate, gate::pass)));
    }
    router
        .fallback(errors::no_such_route)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(gate::speak_plainly))
        .with_state(Arc::clone(agent))
}
