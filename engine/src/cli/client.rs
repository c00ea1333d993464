//! HTTP over the agent's unix socket.

use super::progress::Progress;
use crate::api::wire::{Problem, StatusReport};
use crate::doctor::Level;
use anyhow::anyhow;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answers on the socket.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The agent said no.
    Refused(Problem),
    /// Wrong usage or configuration.
    Usage(String),
    /// `doctor` found something, and has told it.
    Found(Level),
    /// The answer is no, and has been told.
    Told,
    /// The reader of stdout went away.
    Unheard,
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unheard => 0,
            Self::Found(level) => level.exit_code(),
            Self::Told | Self::Refused(_) | Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
        }
    }

    /// Nothing is left to be said about it.
    pub(super) fn is_told(&self) -> bool {
        matches!(self, Self::Found(_) | Self::Told | Self::Unheard)
    }

    pub(super) fn from_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Other(error.into()),
        }
    }

    /// What an agent of another version says.
    pub(super) fn not_understood(error: serde_json::Error) -> Self {
        Self::Other(anyhow!(error).context(
            "the agent's answer is not understood: are steadfast and steadfastd of one version?",
        ))
    }

    fn other(error: impl Into<anyhow::Error>) -> Self {
        Self::Other(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { socket, error }
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                write!(f, "may not talk to steadfastd at {}: try again as root", socket.display())
            }
            Self::Unreachable { socket, .. } => write!(
                f,
                "steadfastd does not answer at {}: is it running? try: systemctl status steadfastd",
                socket.display()
            ),
            Self::Refused(problem) => write!(f, "{}; {}", problem.detail, problem.remedy),
            Self::Usage(text) => f.write_str(text),
            Self::Found(level) => write!(f, "something is {}", level.word()),
            Self::Told => f.write_str("it is refused"),
            Self::Unheard => f.write_str("the reader went away"),
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

/// Asks one agent.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent at `socket`; connects with each request.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// The agent cannot be reached, refuses, or answers what this version does not understand.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn status(&self) -> Result<StatusReport, Failure> {
        let response = checked(self.send(Method::GET, "/v1/status", Bytes::new()).await?).await?;
        StatusReport::parse(&collect(response).await?).map_err(Failure::not_understood)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let bytes = serde_json::to_vec(body).map_err(Failure::other)?;
        decode(self.send(Method::POST, path, bytes.into()).await?).await
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let bytes = serde_json::to_vec(body).map_err(Failure::other)?;
        decode(self.send(Method::PUT, path, bytes.into()).await?).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        decode(self.send(Method::DELETE, path, Bytes::new()).await?).await
    }

    /// `GET path`, to be read as it comes.
    ///
    /// # Errors
    /// The agent cannot be reached or refuses.
    pub async fn open(&self, path: &str) -> Result<Incoming, Failure> {
        Ok(checked(self.send(Method::GET, path, Bytes::new()).await?).await?.into_body())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let unreachable = |error| Failure::Unreachable { socket: self.socket.clone(), error };
        let _shown = Progress::begin(waits_for(&method, path));
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(Failure::other)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "steadfast")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(Failure::other)?;
        let closed = |error| unreachable(io::Error::other::<hyper::Error>(error));
        sender.send_request(request).await.map_err(closed)
    }
}

/// What an operator reads while there is no answer yet.
fn waits_for(method: &Method, path: &str) -> &'static str {
    match (method, path) {
        (&Method::GET, "/v1/doctor") => "the agent looks at this node",
        (&Method::GET, _) => "waiting for steadfastd",
        (_, path) if path.starts_with("/v1/policies/") => "waiting for the policy",
        _ => "waiting for the leader",
    }
}

async fn checked(response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = collect(response).await?;
    Err(refusal(status, &bytes))
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Failure {
    match serde_json::from_slice(bytes) {
        Ok(problem) => Failure::Refused(problem),
        Err(_) => Failure::Other(anyhow!("{status}: {}", String::from_utf8_lossy(bytes))),
    }
}

async fn decode<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Failure> {
    let bytes = collect(checked(response).await?).await?;
    serde_json::from_slice(&bytes).map_err(Failure::not_understood)
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let collected = response.into_body().collect().await;
    collected.map(|body| body.to_bytes()).map_err(Failure::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_agent_says_what_to_try() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let client = Client::new(Path::new("/nonexistent/api.sock"));
        let failure = runtime.block_on(client.get::<()>("/v1/status")).expect_err("nobody there");
        assert_eq!(failure.exit_code(), 3);
        assert_eq!(
            failure.to_string(),
            "steadfastd does not answer at /nonexistent/api.sock: is it running? try: systemctl \
             status steadfastd"
        );
    }
}
