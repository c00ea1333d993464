//! What every request passes: who asks and may he, is it small enough, was it answered before, is what he believes still so; and every
//! change is written down. In this order, so that a stranger learns nothing.

use super::callers::{Caller, Peer, identify, is_foreign};
use super::change::{CONDITION, Condition};
use super::errors::Refusal;
use super::reception::{Kept, Key, Known};
use super::routes::{Bodies, Operation};
use super::subject::{matches, tag};
use super::wire::{AuditEntry, Problem};
use crate::clock::Clock;
use crate::driver::Agent;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// A service that asks for somebody names him here.
const BEHALF: HeaderName = HeaderName::from_static("x-steadfast-caller");
/// The longest of both.
const LONGEST: usize = 255;
/// Answers are never longer.
const MOST: usize = 64 << 20;
/// Bodies up to this are in the audit as they are.
const SHORT: usize = 4_096;

/// What a gate knows of its route.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) agent: Arc<Agent>,
    pub(super) operation: Arc<Operation>,
}

pub(super) async fn pass(
    State(gate): State<Gate>,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let name = parameters.iter().next().map_or(String::new(), |(_, value)| value.to_owned());
    let answer = match gate.admit(&request) {
        Ok(caller) if gate.operation.changes => gate.change(&caller, &name, request, next).await,
        Ok(_) => gate.look(&name, request, next).await,
        Err(refusal) => Err(refusal),
    };
    let answer = answer.unwrap_or_else(IntoResponse::into_response);
    gate.agent.reception.tally.answered(answer.status());
    answer
}

impl Gate {
    fn admit(&self, request: &Request) -> Result<Caller, Refusal> {
        let headers = request.headers();
        // A router that nobody told about connections lets nobody in.
        let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| &info.0);
        let peer = peer.ok_or_else(Refusal::unauthenticated)?;
        if *peer == Peer::Loopback && is_foreign(headers) {
            let why = "a page of another site asks";
            return Err(Refusal::forbidden(why, "ask from this machine, by its loopback address"));
        }
        let users = &self.agent.config.api.users;
        let caller = identify(peer, headers, users).ok_or_else(Refusal::unauthenticated)?;
        let needed = self.operation.role;
        if caller.role < needed {
            let (name, has) = (&caller.name, caller.role.name());
            let why = format!("{name} is {has}; this needs {}", needed.name());
            return Err(Refusal::forbidden(
                why,
                "ask somebody who may, or change [[api.user]] role",
            ));
        }
        Ok(caller)
    }

    async fn look(&self, name: &str, request: Request, next: Next) -> Result<Response, Refusal> {
        let request = self.read_body(request).await?.0;
        let mut response = next.run(request).await;
        if response.status().is_success()
            && let Some(seen) = self.operation.subject.look(&self.agent, name).await
            && let Ok(value) = HeaderValue::try_from(tag(&seen))
        {
            response.headers_mut().insert(header::ETAG, value);
        }
        Ok(response)
    }

    async fn change(
        &self,
        caller: &Caller,
        name: &str,
        request: Request,
        next: Next,
    ) -> Result<Response, Refusal> {
        let (request, body) = self.read_body(request).await?;
        let Some(key) = key(caller, request.headers())? else {
            return self.do_once(caller, name, request, &body, next).await;
        };
        let reception = &self.agent.reception;
        match reception.begin(&key, fingerprint(request.method(), request.uri(), &body)) {
            Known::Answered(kept) => return Ok(again(kept)),
            Known::UnderWay => return Err(Refusal::under_way()),
            Known::Other => {
                let why = format!("idempotency-key {:?} was used for another request", key.1);
                return Err(Refusal::refused(why, "choose a new key for each request"));
            }
            Known::New => {}
        }
        let forget = Forget(Some((Arc::clone(&self.agent), key.clone())));
        let answer = self.do_once(caller, name, request, &body, next).await;
        let answer = answer.unwrap_or_else(IntoResponse::into_response);
        remember(answer, key, forget).await
    }

    async fn do_once(
        &self,
        caller: &Caller,
        name: &str,
        request: Request,
        body: &Bytes,
        next: Next,
    ) -> Result<Response, Refusal> {
        let (agent, subject) = (&self.agent, self.operation.subject);
        let wanted = text(request.headers(), &header::IF_MATCH)?;
        let _alone = match &wanted {
            Some(_) => Some(agent.reception.conditional.lock().await),
            None => None,
        };
        let before = subject.look(agent, name).await;
        if let Some(wanted) = &wanted {
            let is = before.as_ref().map(tag);
            if !matches(wanted, is.as_deref()) {
                return Err(Refusal::stale(wanted, is.as_deref()));
            }
        }
        let entry = entry(caller, &request, body, before.clone());
        let number = self.write_down(move |agent| agent.reception.audit.begin(entry)).await;
        let response = match wanted {
            Some(wanted) => {
                let (agent, name) = (Arc::clone(agent), name.to_owned());
                let condition = Condition { agent, subject, name, wanted };
                CONDITION.scope(condition, next.run(request)).await
            }
            None => next.run(request).await,
        };
        let (response, refused) = words_of(response).await;
        let status = response.status();
        let after = match status.is_success() {
            true => self.look_after(name, before).await,
            false => before.unwrap_or_default(),
        };
        if let Some(number) = number {
            let code = status.as_u16();
            self.write_down(move |agent| agent.reception.audit.end(number, code, after, refused))
                .await;
        }
        Ok(response)
    }

    /// This agent reads the change a moment after the leader has made it.
    async fn look_after(&self, name: &str, before: Option<Value>) -> Value {
        const TRIES: u32 = 5;
        let mut after = None;
        for _ in 0..TRIES {
            after = self.operation.subject.look(&self.agent, name).await;
            if after != before || before.is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        after.unwrap_or_default()
    }

    async fn write_down<T: Send + 'static>(
        &self,
        line: impl FnOnce(&Agent) -> std::io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let agent = Arc::clone(&self.agent);
        let written = tokio::task::spawn_blocking(move || line(&agent)).await;
        let trouble = match written {
            Ok(Ok(value)) => {
                self.agent.warn("audit", None);
                return Some(value);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        // A full disk must not keep an operator from switching HA off.
        let text = format!(
            "changes are not written down: {trouble}; is there room in [run] state_directory?"
        );
        self.agent.warn("audit", Some(text));
        None
    }

    async fn read_body(&self, request: Request) -> Result<(Request, Bytes), Refusal> {
        let limit = match self.operation.body {
            Bodies::None => 0,
            Bodies::Json { limit, .. } => limit,
            Bodies::Module => {
                usize::try_from(self.agent.config.policies.settings.limits.module_bytes)
                    .unwrap_or(usize::MAX)
            }
        };
        // What is not read is let in up to this.
        let limit = limit.max(SHORT);
        let (parts, body) = request.into_parts();
        let bytes = to_bytes(body, limit).await.map_err(|error| {
            let source = std::error::Error::source(&error);
            match source.is_some_and(|it| it.is::<http_body_util::LengthLimitError>()) {
                true => {
                    let why = format!("its body has more than {limit} bytes");
                    Refusal::too_large(why, "send less at once")
                }
                false => Refusal::malformed(error.to_string()),
            }
        })?;
        Ok((Request::from_parts(parts, Body::from(bytes.clone())), bytes))
    }
}

/// Whoever waits for a request that was cut may ask again.
struct Forget(Option<(Arc<Agent>, Key)>);

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some((agent, key)) = self.0.take() {
            agent.reception.end(&key, None);
        }
    }
}

async fn remember(response: Response, key: Key, mut forget: Forget) -> Result<Response, Refusal> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MOST).await.map_err(|error| Refusal::malformed(error.to_string()))?;
    // What failed on our side may succeed the next time.
    if !parts.status.is_server_error()
        && let Some((agent, _)) = forget.0.take()
    {
        let (status, headers, body) = (parts.status, parts.headers.clone(), body.clone());
        agent.reception.end(&key, Some(Kept { status, headers, body }));
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn again(kept: Kept) -> Response {
    let mut response = Response::new(Body::from(kept.body));
    (*response.status_mut(), *response.headers_mut()) = (kept.status, kept.headers);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if (1..=LONGEST).contains(&text.len()) && !text.contains('\t') => {
            Ok(Some(text.into()))
        }
        _ => Err(Refusal::malformed(format!("{name} is 1 to {LONGEST} plain characters"))),
    }
}

fn key(caller: &Caller, headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    text(headers, &BEHALF)?;
    Ok(text(headers, &KEY)?.map(|key| (caller.name.clone(), key)))
}

fn fingerprint(method: &Method, uri: &Uri, body: &Bytes) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(format!("{method} {uri}\n"));
    digest.update(body);
    digest.finalize().into()
}

fn entry(caller: &Caller, request: &Request, body: &Bytes, before: Option<Value>) -> AuditEntry {
    let whole = (body.len() <= SHORT).then(|| serde_json::from_slice(body).ok()).flatten();
    let brief = || {
        let digest: String = Sha256::digest(body).iter().map(|b| format!("{b:02x}")).collect();
        json!({ "bytes": body.len(), "sha256": digest })
    };
    AuditEntry {
        at_wall_ms: Clock.wall_ms(),
        who: caller.name.clone(),
        on_behalf_of: text(request.headers(), &BEHALF).ok().flatten(),
        via: caller.via.into(),
        what: format!("{} {}", request.method(), request.uri()),
        body: if body.is_empty() { Value::Null } else { whole.unwrap_or_else(brief) },
        before: before.unwrap_or_default(),
        ..AuditEntry::default()
    }
}

/// What a refusal says, for the audit.
async fn words_of(response: Response) -> (Response, Option<String>) {
    if response.status().is_success() {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MOST).await.unwrap_or_default();
    let words = serde_json::from_slice(&body).map(|problem: Problem| problem.detail);
    let words = words.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
    (Response::from_parts(parts, Body::from(body)), Some(words))
}

/// What axum refuses in plain text becomes a problem like every other; outermost.
pub(crate) async fn speak_plainly(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let told = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem"));
    if told || !(status.is_client_error() || status.is_server_error()) {
        return with_challenge(response);
    }
    let (parts, body) = response.into_parts();
    let words = to_bytes(body, SHORT).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words).into_owned();
    let mut plain = Refusal::of_status(status, words).into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        plain.headers_mut().insert(header::ALLOW, allow.clone());
    }
    plain
}

fn with_challenge(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        let value = HeaderValue::from_static("Bearer realm=\"steadfast\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}
