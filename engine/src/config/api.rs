//! The `[api]` section: the unix socket, TLS, and who may do what.

use super::{Problem, file::missing};
use crate::api::Role;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How the API is reached besides its unix socket, and by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Api {
    /// TLS, if it is wanted.
    pub tls: Option<ApiTls>,
    /// Who may come in over it.
    pub users: Vec<ApiUser>,
}

/// TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTls {
    /// Where to listen.
    pub listen: SocketAddr,
    /// PEM file with the certificate, and those up to its authority.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authority that signs clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// Somebody who may come in.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiUser {
    /// His name in the audit.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// SHA-256 of his token; the token itself is nowhere.
    pub token: Option<[u8; 32]>,
    /// A DNS name in his certificate.
    pub certificate: Option<String>,
}

impl std::fmt::Debug for ApiUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.role.name())
    }
}

/// The section as people write it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawApi {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) user: Vec<RawUser>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawUser {
    name: Option<String>,
    role: Option<Role>,
    token_sha256: Option<String>,
    certificate: Option<String>,
}

impl RawApi {
    pub(crate) fn resolve(self, problems: &mut Vec<Problem>) -> Api {
        let ca = self.client_ca.is_some();
        let users = self.user.into_iter().filter_map(|raw| raw.resolve(ca, problems)).collect();
        let api = Api {
            users,
            tls: match (self.listen, self.certificate, self.key) {
                (None, None, None) => None,
                (Some(listen), Some(certificate), Some(key)) => {
                    Some(ApiTls { listen, certificate, key, client_ca: self.client_ca })
                }
                (None, ..) => {
                    problems.push(missing("api.listen", "listen = \"0.0.0.0:7443\""));
                    None
                }
                (Some(_), None, _) => {
                    let example = "certificate = \"/etc/steadfast/api.crt\"";
                    problems.push(missing("api.certificate", example));
                    None
                }
                (Some(_), _, None) => {
                    problems.push(missing("api.key", "key = \"/etc/steadfast/api.key\""));
                    None
                }
            },
        };
        check(&api, problems);
        api
    }
}

fn check(api: &Api, problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for user in &api.users {
        if !names.insert(&user.name) {
            let what = format!("two api.user are called {:?}", user.name);
            problems.push(Problem::new(what, "give each a name of its own"));
        }
    }
    if api.tls.is_some() && api.users.is_empty() {
        let remedy = "add [[api.user]] with name, role, and token_sha256 or certificate";
        problems.push(Problem::new("api.listen is set, but nobody may come in", remedy));
    }
}

impl RawUser {
    fn resolve(self, ca: bool, problems: &mut Vec<Problem>) -> Option<ApiUser> {
        let Self { name, role, token_sha256, certificate } = self;
        let (Some(name), Some(role)) = (name.filter(|name| !name.is_empty()), role) else {
            problems
                .push(missing("api.user.name or role", "name = \"grafana\", role = \"viewer\""));
            return None;
        };
        if token_sha256.is_none() && certificate.is_none() {
            let remedy = "give him token_sha256 (printf %s TOKEN | sha256sum), or certificate";
            problems.push(Problem::new(format!("nothing tells that it is {name}"), remedy));
        }
        if certificate.is_some() && !ca {
            let remedy = "set api.client_ca to the authority that signed it";
            problems.push(Problem::new(format!("nobody can check {name}'s certificate"), remedy));
        }
        let token = token_sha256.and_then(|hex| {
            let digest = decode(&hex);
            if digest.is_none() {
                let what = format!("token_sha256 of {name} is no SHA-256 in hex");
                problems.push(Problem::new(
                    what,
                    "write the 64 hex digits of: printf %s TOKEN | sha256sum",
                ));
            }
            digest
        });
        Some(ApiUser { name, role, token, certificate })
    }
}

fn decode(hex: &str) -> Option<[u8; 32]> {
    let digest = steadfast_core::ids::Digest::try_from(hex.to_owned()).ok()?;
    Some(digest.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> (Api, Vec<String>) {
        let mut problems = Vec::new();
        let raw: RawApi = toml::from_str(text).expect("readable");
        let api = raw.resolve(&mut problems);
        (api, problems.iter().map(ToString::to_string).collect())
    }

    const TLS: &str = "listen = \"127.0.0.1:7443\"\ncertificate = \"c\"\nkey = \"k\"\n";

    #[test]
    fn without_a_word_there_is_only_the_socket() {
        assert_eq!(resolved(""), (Api::default(), vec![]));
    }

    #[test]
    fn users_come_in_by_token_or_certificate() {
        let hex = "ab".repeat(32);
        let (api, problems) = resolved(&format!(
            "{TLS}client_ca = \"ca\"\n[[user]]\nname = \"a\"\nrole = \"viewer\"\ntoken_sha256 = \"{hex}\"\n\
             [[user]]\nname = \"b\"\nrole = \"administrator\"\ncertificate = \"b.example\"\n"
        ));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(api.users[0].token, Some([0xab; 32]));
        assert_eq!(api.users[1].role, Role::Administrator);
        assert!(!format!("{api:?}").contains("abab"), "a digest is nobody's business");
    }

    #[test]
    fn what_is_half_said_is_refused_with_what_is_missing() {
        let user = "[[user]]\nname = \"a\"\nrole = \"viewer\"\n";
        for (text, told) in [
            ("listen = \"127.0.0.1:7443\"\n".to_owned(), "api.certificate is missing"),
            ("certificate = \"c\"\n".to_owned(), "api.listen is missing"),
            (TLS.to_owned(), "nobody may come in"),
            (format!("{TLS}{user}"), "nothing tells that it is a"),
            (format!("{TLS}{user}certificate = \"a.example\"\n"), "set api.client_ca"),
            (format!("{TLS}{user}token_sha256 = \"12\"\n"), "is no SHA-256 in hex"),
            (format!("{TLS}[[user]]\nname = \"a\"\n"), "api.user.name or role is missing"),
        ] {
            let problems = resolved(&text).1.join("\n");
            assert!(problems.contains(told), "{told:?} is not in {problems:?}");
        }
    }
}
