//! Errors as problem+json (RFC 9457), each with its remedy.

use super::wire::Problem;
use crate::policy::{Class, Failure, Stage};
use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    remedy: String,
    policy: Option<(Stage, Class)>,
}

impl Refusal {
    fn new(
        status: StatusCode,
        (kind, title): (&'static str, &'static str),
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (detail, remedy) = (detail.into(), remedy.into());
        Self { status, kind, title, detail, remedy, policy: None }
    }

    /// This case, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> &str {
        &self.remedy
    }

    /// The agent waits for something before it can do anything.
    pub(crate) fn not_ready(waits_for: impl Into<String>) -> Self {
        let kind = ("not_ready", "the agent is not ready yet");
        let remedy = "it goes on by itself once this is there; steadfastd's log has the details";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, waits_for, remedy)
    }

    /// The lease path did not answer in time.
    pub(crate) fn busy() -> Self {
        let kind = ("no_answer", "the machine did not answer in time");
        let detail = "the lease path was busy for longer than 2 s";
        let remedy =
            "try again; if it stays so, send the journal in the run directory to the authors";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail, remedy)
    }

    /// Nothing of that name.
    pub(crate) fn not_found(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ("not_found", "no such thing"), what, remedy)
    }

    /// The request is understood and will not be done.
    pub(crate) fn refused(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ("refused", "refused"), why, remedy)
    }

    /// The request is not understood.
    pub(crate) fn malformed(why: impl Into<String>) -> Self {
        let kind = ("malformed", "the request is malformed");
        let remedy = "are steadfast and steadfastd of one version?";
        Self::new(StatusCode::BAD_REQUEST, kind, why, remedy)
    }

    /// A policy did not pass its check.
    pub(super) fn policy(failure: &Failure) -> Self {
        let kind = ("policy_refused", "the policy is refused");
        let Failure { stage, class, reason, remedy } = failure;
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { policy: Some((*stage, *class)), ..Self::new(status, kind, reason, remedy) }
    }

    /// Nobody knows who asks.
    pub(crate) fn unauthenticated() -> Self {
        let kind = ("unauthenticated", "nobody knows who you are");
        let detail = "no bearer token and no client certificate that [[api.user]] names";
        let remedy = "send \"authorization: Bearer TOKEN\", or use the agent's unix socket as root";
        Self::new(StatusCode::UNAUTHORIZED, kind, detail, remedy)
    }

    /// Somebody asks who may not.
    pub(crate) fn forbidden(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ("forbidden", "you may not do this"), why, remedy)
    }

    /// What is to be changed is not what the client believes.
    pub(super) fn stale(wanted: &str, is: Option<&str>) -> Self {
        let kind = ("stale", "it has changed meanwhile");
        let detail = match is {
            Some(is) => format!("if-match is {wanted}, its etag is {is} now"),
            None => format!("if-match is {wanted}, but there is nothing of that name"),
        };
        let remedy = "read it again, then decide again";
        Self::new(StatusCode::PRECONDITION_FAILED, kind, detail, remedy)
    }

    /// Its subject is not what the client believes.
    pub(super) fn is_stale(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED
    }

    /// The same request is under way.
    pub(super) fn under_way() -> Self {
        let kind = ("under_way", "the same request is under way");
        let detail = "a request with this idempotency-key has no answer yet";
        Self::new(StatusCode::CONFLICT, kind, detail, "ask again in a few seconds")
    }

    /// What a layer of the server said in its own words.
    pub(super) fn of_status(status: StatusCode, words: String) -> Self {
        let kind = match status {
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "no such method here"),
            StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the request is too large"),
            StatusCode::NOT_FOUND => ("not_found", "no such thing"),
            _ if status.is_server_error() => ("broken", "the agent failed"),
            _ => ("malformed", "the request is malformed"),
        };
        let words = if words.is_empty() { kind.1.into() } else { words };
        Self::new(status, kind, words, "see GET /v1/openapi.json")
    }

    /// The request is larger than anything that makes sense.
    pub(crate) fn too_large(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        let kind = ("too_large", "the request is too large");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, kind, why, remedy)
    }

    /// A part that the request needs does not work.
    pub(crate) fn unavailable(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        let kind = ("unavailable", "something the request needs does not work");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, why, remedy)
    }

    /// No answer in time: it may have been done, or may still be.
    pub(crate) fn unknown() -> Self {
        let kind = ("unknown", "the outcome is unknown");
        let detail = "no answer within 15 s; the change may have been made, or be made later";
        let remedy = "look with `steadfast status`, then ask again: asking twice does no harm";
        Self::new(StatusCode::GATEWAY_TIMEOUT, kind, detail, remedy)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, kind, title, detail, remedy, policy } = self;
        let kind = format!("urn:steadfast:{kind}");
        let (title, number) = (title.into(), status.as_u16());
        let (stage, class) = policy.unzip();
        let problem = Problem { kind, title, status: number, detail, remedy, stage, class };
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(problem))
            .into_response()
    }
}

pub(crate) async fn no_such_route(uri: Uri) -> Refusal {
    Refusal::not_found(format!("no route {}", uri.path()), "see GET /v1/openapi.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_is_problem_json() {
        let response = Refusal::refused("vm1 has a local disk", "move it").into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.kind, "urn:steadfast:refused");
        assert_eq!(problem.status, 422);
        assert_eq!(problem.detail, "vm1 has a local disk");
        assert_eq!(problem.remedy, "move it");
    }
}
