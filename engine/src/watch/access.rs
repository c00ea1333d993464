//! Who asks HA-watch, and what he may: the same roles, tokens and certificates as at an agent's API.
//!
//! Without users everybody on this machine may do everything, and nobody else comes in. The page itself is no secret: it asks for a token.

use crate::api::{Caller, Peer, Refusal, Role, identify, is_foreign, role_needed};
use crate::config::ApiUser;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Whoever came in: his name is in the agents' audit.
#[derive(Debug, Clone)]
pub(super) struct Who(pub(super) String);

impl Who {
    /// Nobody in particular, on this machine.
    fn local() -> Self {
        Self("watch".into())
    }
}

/// Lets a request in, or not.
pub(super) async fn admit(
    State(users): State<Arc<[ApiUser]>>,
    mut request: Request,
    next: Next,
) -> Response {
    match find(&users, &request) {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn find(users: &[ApiUser], request: &Request) -> Result<Who, Refusal> {
    // Only the listener with TLS tells who is at the other end; the other one is for this machine.
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| &info.0);
    let path = request.uri().path();
    if users.is_empty() {
        let is_local = !matches!(peer, Some(Peer::Tls { .. }));
        if !is_local || is_foreign(request.headers()) {
            let why = "a page of another site asks";
            return Err(Refusal::forbidden(why, "ask from this machine, by its loopback address"));
        }
        return Ok(Who::local());
    }
    if path == "/" || path.starts_with("/assets/") {
        return Ok(Who::local());
    }
    let stranger = Peer::Tls { address: ([127, 0, 0, 1], 0).into(), names: Vec::new() };
    let caller = identify(peer.unwrap_or(&stranger), request.headers(), users);
    let caller: Caller = caller.ok_or_else(Refusal::unauthenticated)?;
    let needed = needed(request.method(), path);
    if caller.role < needed {
        let why =
            format!("{} is {}; this needs {}", caller.name, caller.role.name(), needed.name());
        return Err(Refusal::forbidden(why, "ask somebody who may, or change [[api.user]] role"));
    }
    Ok(Who(caller.name))
}

/// What is forwarded needs what the agent would ask for: HA-watch itself may do everything there.
pub(super) fn needed(method: &Method, path: &str) -> Role {
    let forwarded = path.strip_prefix("/v1/clusters/").and_then(|rest| rest.split_once("/agent/"));
    match forwarded {
        Some((_, rest)) => role_needed(method, &format!("/{rest}")),
        None if [Method::GET, Method::HEAD].contains(method) => Role::Viewer,
        None => Role::Operator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use sha2::{Digest, Sha256};

    fn users() -> Vec<ApiUser> {
        let user = |name: &str, role| ApiUser {
            name: name.into(),
            role,
            token: Some(Sha256::digest(name).into()),
            certificate: None,
        };
        vec![
            user("vera", Role::Viewer),
            user("otto", Role::Operator),
            user("anna", Role::Administrator),
        ]
    }

    fn ask(
        users: &[ApiUser],
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<String, u16> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let found = find(users, &request.body(Body::empty()).expect("a request"));
        found.map(|who| who.0).map_err(|refusal| refusal.into_response().status().as_u16())
    }

    #[test]
    fn tokens_let_in_and_roles_decide_what_is_forwarded() {
        let with = |token: &str, method: &str, path: &str| {
            ask(&users(), method, path, &[("authorization", &format!("Bearer {token}"))])
        };
        assert_eq!(with("vera", "GET", "/v1/clusters"), Ok("vera".into()));
        assert_eq!(with("vera", "GET", "/v1/clusters/c/agent/v1/nodes"), Ok("vera".into()));
        assert_eq!(with("vera", "POST", "/v1/alarms/1/acknowledge"), Err(403));
        assert_eq!(with("vera", "POST", "/v1/clusters/c/agent/v1/vms"), Err(403));
        assert_eq!(
            with("otto", "POST", "/v1/clusters/c/agent/v1/vms/a%20b/start"),
            Ok("otto".into())
        );
        assert_eq!(with("otto", "POST", "/v1/clusters/c/agent/v1/disarm"), Err(403));
        assert_eq!(with("otto", "GET", "/v1/clusters/c/agent/v1/audit"), Err(403));
        assert_eq!(with("anna", "POST", "/v1/clusters/c/agent/v1/disarm"), Ok("anna".into()));
        assert_eq!(with("otto", "POST", "/v1/clusters/c/agent/v1/unheard-of"), Err(403));
        assert_eq!(with("wrong", "GET", "/v1/clusters"), Err(401));
        assert_eq!(ask(&users(), "GET", "/v1/clusters", &[]), Err(401));
        assert_eq!(ask(&users(), "GET", "/assets/app.js", &[]), Ok("watch".into()));
    }

    #[test]
    fn without_users_this_machine_may_do_everything_and_pages_of_others_nothing() {
        let local = [("host", "127.0.0.1:8470")];
        assert_eq!(ask(&[], "POST", "/v1/clusters/c/agent/v1/disarm", &local), Ok("watch".into()));
        let foreign = [("host", "127.0.0.1:8470"), ("origin", "https://evil.example")];
        assert_eq!(ask(&[], "POST", "/v1/clusters/c/agent/v1/disarm", &foreign), Err(403));
        let rebound = [("host", "evil.example")];
        assert_eq!(ask(&[], "GET", "/v1/clusters", &rebound), Err(403));
    }
}
