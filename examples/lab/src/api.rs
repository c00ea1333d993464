//! The agents' API as seen from outside: HTTP over the unix socket in each node.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::lab::{Lab, Node};

const SOCKET: &str = "run/steadfast/api.sock";

#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The node that tells.
    pub node: Option<Named>,
    pub leader: Option<Named>,
    #[serde(default)]
    pub term: u64,
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
    #[serde(default)]
    pub vms: Vec<VmStatus>,
    /// Feature level in force.
    #[serde(default)]
    pub feature_level: u16,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Named {
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub status: String,
    /// Its risk, if it tells any.
    #[serde(default)]
    pub risk: Option<Risk>,
}

/// What is said of a node's risk, and done about it.
#[derive(Clone, Debug, Deserialize)]
pub struct Risk {
    pub hold: Option<Hold>,
    pub text: String,
}

/// What proactive HA does, by the ledger.
#[derive(Clone, Debug, Deserialize)]
pub struct Hold {
    /// `avoid` or `drain`.
    pub level: String,
    pub reason: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct VmStatus {
    pub name: String,
    pub owner: Option<Named>,
    #[serde(default)]
    pub state: String,
}

/// Something that an agent says has happened.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub kind: String,
    /// Unix time in ms; all nodes of the lab share the machine's clock.
    pub wall_ms: u64,
    /// Name of the node that it is about.
    pub node: Option<String>,
    /// Name of the VM that it is about.
    pub vm: Option<String>,
    #[serde(default)]
    pub text: String,
}

/// An event, and whose agent said it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub from: Node,
    pub event: Event,
}

/// What the agent promises: a worst case from a fault to the start order on another node.
#[derive(Clone, Debug, Deserialize)]
pub struct Bound {
    /// Row of the table of failures.
    pub failure: String,
    /// `member` or `leader`.
    pub role: String,
    pub fence_agent: bool,
    /// `None`: nothing is moved, or there is no bound.
    pub bound_ms: Option<u64>,
}

/// What `steadfast doctor` says, as far as the lab looks at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Doctor {
    pub bounds: Vec<Bound>,
}

pub fn status(lab: &Lab, node: Node) -> Result<Status> {
    read(lab, node, "/v1/status")
}

pub fn doctor(lab: &Lab, node: Node) -> Result<Doctor> {
    read(lab, node, "/v1/doctor")
}

/// What the agent answers, whatever it is.
pub fn get(lab: &Lab, node: Node, path: &str) -> Result<serde_json::Value> {
    read(lab, node, path)
}

fn read<T: DeserializeOwned>(lab: &Lab, node: Node, path: &str) -> Result<T> {
    let mut reply = Reply::request(lab, node, path, Some(Duration::from_secs(2)))?;
    let mut body = Vec::new();
    reply.read_to_end(&mut body).with_context(|| format!("the agent of {node} broke off"))?;
    serde_json::from_slice(&body).with_context(|| format!("odd {path} from the agent of {node}"))
}

/// The node that most agents name as the leader; `None` while they do not agree.
pub fn leader(lab: &Lab) -> Option<Node> {
    let mut named: Vec<Option<Node>> = lab
        .nodes()
        .filter_map(|node| status(lab, node).ok())
        .map(|status| status.leader?.name.parse().ok())
        .collect();
    named.dedup();
    if named.len() == 1 { named.pop().flatten() } else { None }
}

/// The event streams of all nodes that have an agent now.
#[derive(Debug)]
pub struct Events(Receiver<Heard>);

impl Events {
    pub fn listen(lab: &Lab) -> Self {
        let (sender, receiver) = channel();
        for node in lab.nodes() {
            let (lab, sender) = (lab.clone(), sender.clone());
            // Ends with its stream: a node's death or the end of this program.
            thread::spawn(move || forward(&lab, node, &sender));
        }
        Events(receiver)
    }

    /// The next event, or nothing within `limit`.
    pub fn next(&self, limit: Duration) -> Option<Heard> {
        match self.0.recv_timeout(limit) {
            Ok(heard) => Some(heard),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // All streams ended: do not turn the caller's wait into a busy loop.
                thread::sleep(limit);
                None
            }
        }
    }
}

fn forward(lab: &Lab, node: Node, sender: &Sender<Heard>) {
    let Ok(reply) = Reply::request(lab, node, "/v1/events", None) else { return };
    for line in BufReader::new(reply).lines() {
        let Ok(line) = line else { return };
        let Some(data) = line.strip_prefix("data:") else { continue };
        // Kinds of events that the lab does not know have fields that it does not know.
        let Ok(event) = serde_json::from_str(data) else { continue };
        if sender.send(Heard { from: node, event }).is_err() {
            return;
        }
    }
}

/// The body of an HTTP answer, with the chunks put together.
#[derive(Debug)]
struct Reply<R> {
    stream: R,
    chunked: bool,
    /// Bytes left in the body, or in this chunk.
    left: u64,
}

impl Reply<BufReader<UnixStream>> {
    fn request(lab: &Lab, node: Node, path: &str, limit: Option<Duration>) -> Result<Self> {
        let process = lab.power(node).with_context(|| format!("{node} is powered off"))?;
        let mut stream = UnixStream::connect(process.root().join(SOCKET))
            .with_context(|| format!("no agent answers on {node}"))?;
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        Reply::parse(BufReader::new(stream))
            .with_context(|| format!("GET {path} from the agent of {node}"))
    }
}

impl<R: BufRead> Reply<R> {
    fn parse(mut stream: R) -> Result<Self> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if line.split(' ').nth(1) != Some("200") {
            bail!("answer {:?}", line.trim());
        }
        let (mut chunked, mut left) = (false, u64::MAX);
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            match header.split_once(':') {
                None => break,
                Some(("content-length", value)) => left = value.trim().parse()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        Ok(Reply { stream, chunked, left: if chunked { 0 } else { left } })
    }

    fn next_chunk(&mut self) -> std::io::Result<()> {
        let mut line = String::new();
        // The line end after the last chunk comes first.
        while line.trim().is_empty() {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        self.left = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        Ok(())
    }
}

impl<R: BufRead> Read for Reply<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && self.chunked {
            self.next_chunk()?;
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.stream.read(&mut buffer[..room])?;
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: &str) -> String {
        let mut text = String::new();
        Reply::parse(answer.as_bytes()).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn bodies_come_whole_or_in_chunks() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}junk"), "{}");
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                      6\r\ndata: \r\n4\r\n{}\n\n\r\n0\r\n\r\n";
        assert_eq!(body(chunks), "data: {}\n\n");
    }

    #[test]
    fn an_error_is_not_a_body() {
        assert!(Reply::parse("HTTP/1.1 404 Not Found\r\n\r\n".as_bytes()).is_err());
    }
}
