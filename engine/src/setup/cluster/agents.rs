//! The way from one member to the agent of another: HTTPS, each with the certificate of the cluster's own authority.

use super::super::host::Host;
use super::wire::{certificates, private_key, provider};
use super::{Conf, Member, corosync, pki};
use anyhow::{Context, Result, anyhow, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(3);
/// An answer may take as long as a node's fence agents.
const ANSWER: Duration = Duration::from_secs(120);

/// Asks agents, as this member.
pub struct Agents {
    tls: Arc<ClientConfig>,
    port: u16,
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agents").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Agents {
    /// With this node's keys.
    ///
    /// # Errors
    /// It has none: it is no member.
    pub fn new(host: &Host) -> Result<Self> {
        let read = |path: &str| {
            host.text(path).with_context(|| {
                format!("{path} cannot be read: is this node a member, and are you root?")
            })
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&read(pki::AUTHORITY)?)? {
            roots.add(authority).context(pki::AUTHORITY)?;
        }
        let (chain, key) = (certificates(&read(pki::NODE)?)?, private_key(&read(pki::NODE_KEY)?)?);
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let tls =
            builder.with_client_auth_cert(chain, key).context("this node's keys do not fit")?;
        // The same on all nodes, as the whole file is.
        let api = super::invite::read_config(host)?.api;
        let port = api.tls.map_or(super::config_file::PORT, |tls| tls.listen.port());
        Ok(Self { tls: Arc::new(tls), port })
    }

    /// `GET path` of the agent of `member`, by whichever of its addresses answers.
    ///
    /// # Errors
    /// None does, or it refuses.
    pub fn get<T: DeserializeOwned>(&self, member: &Member, path: &str) -> Result<T> {
        self.ask(member, "GET", path, &[])
    }

    /// `POST path` with a body.
    ///
    /// # Errors
    /// See [`Agents::get`].
    pub fn post<T: DeserializeOwned>(
        &self,
        member: &Member,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.ask(member, "POST", path, &serde_json::to_vec(body).context("no words")?)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// See [`Agents::get`].
    pub fn ask_to_delete<T: DeserializeOwned>(&self, member: &Member, path: &str) -> Result<T> {
        self.ask(member, "DELETE", path, &[])
    }

    fn ask<T: DeserializeOwned>(
        &self,
        member: &Member,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T> {
        let mut why = anyhow!("{} has no address", member.name);
        for address in &member.addresses {
            let address = SocketAddr::new(*address, self.port);
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    let answer = self.exchange(stream, address, method, path, body);
                    return answer.with_context(|| format!("{} at {address}", member.name));
                }
                Err(error) => {
                    why = anyhow!("{} does not answer at {address}: {error}", member.name)
                }
            }
        }
        Err(why)
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T> {
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let name = ServerName::IpAddress(address.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.tls), name)?;
        let mut stream = StreamOwned::new(connection, stream);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        // An end without TLS's own farewell is an end as well: the length says whether it is whole.
        if let Err(error) = stream.read_to_end(&mut answer)
            && error.kind() != std::io::ErrorKind::UnexpectedEof
        {
            return Err(error).context("no answer");
        }
        understand(&answer)
    }
}

fn understand<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").context("no answer")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]).to_lowercase(), &answer[end + 4..]);
    let length = |line: &str| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok();
    let length = head.lines().find_map(length);
    if let Some(length) = length {
        let has = body.len();
        anyhow::ensure!(has == length, "the answer has {has} of {length} bytes");
    }
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        let problem: Option<crate::api::wire::Problem> = serde_json::from_slice(body).ok();
        match problem {
            Some(problem) => bail!("{}; {}", problem.detail, problem.remedy),
            None => bail!("it answers {status}"),
        }
    }
    serde_json::from_slice(body).context("not understood: are all agents of one version?")
}

/// This cluster, by this node's corosync.conf.
///
/// # Errors
/// The node is no member.
pub fn conf(host: &Host) -> Result<Conf> {
    let text = host.text(corosync::PATH);
    let text =
        text.with_context(|| format!("there is no {}: this node is no member", corosync::PATH))?;
    Conf::parse(&text)
}

/// The member that this node is.
///
/// # Errors
/// The node is no member.
pub fn own<'a>(host: &Host, conf: &'a Conf) -> Result<&'a Member> {
    let name = host.text(super::membership::NODE).unwrap_or_default();
    let own = conf.member(name.trim());
    own.with_context(|| format!("this node ({:?}) is not in corosync.conf", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n17";
        assert_eq!(understand::<u32>(good).expect("whole"), 17);
        assert!(understand::<u32>(&good[..good.len() - 1]).is_err());
        let bad = b"HTTP/1.1 422 x\r\n\r\n{\"type\":\"a\",\"title\":\"t\",\"status\":422,\"detail\":\"no\",\"remedy\":\"do\"}";
        let told = understand::<u32>(bad).expect_err("refused").to_string();
        assert!(told.contains("no") || told.contains("422"), "{told}");
    }
}
