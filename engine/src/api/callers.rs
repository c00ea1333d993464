//! Who asks, and what they may: over the unix socket only root comes in; over TLS those that `[[api.user]]` names.

use crate::config::ApiUser;
use axum::http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;

/// What somebody may do; each may what those before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look on.
    Viewer,
    /// Move, start and stop VMs; put them under HA; empty nodes.
    Operator,
    /// Everything: policies, nodes, switching HA off.
    Administrator,
}

impl Role {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The agent's own unix socket, which only root may open.
    Unix,
    /// This machine, where nobody else works (`steadfast demo`).
    Loopback,
    /// TLS.
    Tls {
        /// From where.
        address: SocketAddr,
        /// The DNS names in its certificate, if it has one that our authority signed.
        names: Vec<String>,
    },
}

impl Peer {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Loopback => "loopback",
            Self::Tls { .. } => "tls",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(super) via: &'static str,
}

/// Who asks, if anybody knows. A bearer token says it, or else the certificate.
pub(crate) fn identify(peer: &Peer, headers: &HeaderMap, users: &[ApiUser]) -> Option<Caller> {
    let via = peer.word();
    let Peer::Tls { names, .. } = peer else {
        return Some(Caller { name: "local".into(), role: Role::Administrator, via });
    };
    let found = match headers.get(header::AUTHORIZATION) {
        Some(said) => by_token(said.as_bytes(), users),
        None => users
            .iter()
            .find(|user| user.certificate.as_ref().is_some_and(|name| names.contains(name))),
    };
    found.map(|user| Caller { name: user.name.clone(), role: user.role, via })
}

/// Only digests are compared: how long that takes says nothing of the token.
fn by_token<'a>(said: &[u8], users: &'a [ApiUser]) -> Option<&'a ApiUser> {
    let (scheme, token) = said.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
    users.iter().find(|user| user.token == Some(digest))
}

/// A browser sends these with what a page on another site asks for: without tokens nothing else would tell it from ours.
pub(crate) fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let own = ["localhost", "127.0.0.1", "[::1]", "steadfast"].contains(&name);
    let origin = text(header::ORIGIN);
    let same = origin.is_none_or(|origin| origin.split_once("://").is_some_and(|o| o.1 == host));
    !own || !same
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Vec<ApiUser> {
        let user = |name: &str, role, token: Option<&str>, certificate: Option<&str>| ApiUser {
            name: name.into(),
            role,
            token: token.map(|token| Sha256::digest(token).into()),
            certificate: certificate.map(Into::into),
        };
        vec![
            user("grafana", Role::Viewer, Some("secret"), None),
            user("watch", Role::Administrator, None, Some("watch.example")),
        ]
    }

    fn who(names: &[&str], authorization: Option<&str>) -> Option<String> {
        let names = names.iter().map(ToString::to_string).collect();
        let peer = Peer::Tls { address: ([192, 0, 2, 1], 5).into(), names };
        let mut headers = HeaderMap::new();
        let said = authorization.map(|said| said.parse().expect("a header"));
        headers.extend(said.map(|said| (header::AUTHORIZATION, said)));
        identify(&peer, &headers, &users()).map(|caller| caller.name)
    }

    #[test]
    fn a_token_or_a_certificate_says_who_it_is_and_a_wrong_token_is_nobody() {
        assert_eq!(who(&[], Some("Bearer secret")), Some("grafana".into()));
        assert_eq!(who(&["watch.example"], None), Some("watch".into()));
        for wrong in ["Bearer wrong", "Bearer ", "Basic secret", "secret", ""] {
            assert_eq!(who(&["watch.example"], Some(wrong)), None, "{wrong:?}");
        }
        assert_eq!(who(&["other.example"], None), None);
        assert_eq!(who(&[], None), None);
    }

    #[test]
    fn a_page_of_another_site_is_foreign() {
        let foreign = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header"));
            let origin = origin.map(|origin| origin.parse().expect("a header"));
            headers.extend(origin.map(|origin| (header::ORIGIN, origin)));
            is_foreign(&headers)
        };
        assert!(!foreign("localhost:7000", None) && !foreign("127.0.0.1:1", None));
        assert!(!foreign("127.0.0.1:1", Some("http://127.0.0.1:1")));
        assert!(foreign("evil.example:7000", None), "its name leads here");
        assert!(foreign("127.0.0.1:1", Some("http://evil.example")));
        assert!(foreign("127.0.0.1:1", Some("null")));
    }
}
