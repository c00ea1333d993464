//! Errors as problem+json (RFC 9457), each with its remedy.

use super::wire::Problem;
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
}

impl Refusal {
    fn new(
        status: StatusCode,
        (kind, title): (&'static str, &'static str),
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status, kind, title, detail: detail.into(), remedy: remedy.into() }
    }

    /// This case, in words.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// What to do about it.
    pub(super) fn remedy(&self) -> &str {
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
    pub(super) fn not_found(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ("not_found", "no such thing"), what, remedy)
    }

    /// The request is understood and will not be done.
    pub(super) fn refused(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ("refused", "refused"), why, remedy)
    }

    /// The request is not understood.
    pub(super) fn malformed(why: impl Into<String>) -> Self {
        let kind = ("malformed", "the request is malformed");
        let remedy = "are steadfast and steadfastd of one version?";
        Self::new(StatusCode::BAD_REQUEST, kind, why, remedy)
    }

    /// A part that the request needs does not work.
    pub(super) fn unavailable(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        let kind = ("unavailable", "something the request needs does not work");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, why, remedy)
    }

    /// No answer in time: it may have been done, or may still be.
    pub(super) fn unknown() -> Self {
        let kind = ("unknown", "the outcome is unknown");
        let detail = "no answer within 15 s; the change may have been made, or be made later";
        let remedy = "look with `steadfast status`, then ask again: asking twice does no harm";
        Self::new(StatusCode::GATEWAY_TIMEOUT, kind, detail, remedy)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, kind, title, detail, remedy } = self;
        let kind = format!("urn:steadfast:{kind}");
        let problem =
            Problem { kind, title: title.into(), status: status.as_u16(), detail, remedy };
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Json(problem))
            .into_response()
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Refusal {
    Refusal::not_found(format!("no route {}", uri.path()), "see GET /v1/status")
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
