//! The way to one agent: HTTP over its unix socket or TLS.

use super::config::{Address, ClusterSettings, Secret};
use crate::sse::{Frame, Parser};
use anyhow::{Context, Result, anyhow, bail};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Identity, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::time::Duration;

/// An agent that does not take a connection within this is looked upon as gone.
const CONNECT: Duration = Duration::from_millis(1_500);
/// An answer in one piece.
const ANSWER: Duration = Duration::from_secs(5);
/// A stream of a living agent says something each second.
const SILENCE: Duration = Duration::from_secs(3);

/// One agent.
#[derive(Debug, Clone)]
pub(super) struct AgentClient {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
}

impl AgentClient {
    /// A client of the agent at `address`; connects when it is used.
    pub(super) fn new(address: &Address, cluster: &ClusterSettings) -> Result<Self> {
        let builder = reqwest::Client::builder().connect_timeout(CONNECT).no_proxy();
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        let (builder, base) = match address {
            // The host is of no use there, but HTTP wants one.
            Address::Unix(path) => {
                (builder.unix_socket(path.as_path()), "http://localhost".to_string())
            }
            Address::Url(url) => (with_certificates(builder, cluster)?, url.clone()),
        };
        let http = builder.build().with_context(|| format!("no client for {address}"))?;
        Ok(Self { http, base, token: cluster.token.clone() })
    }

    /// A request of `path`, which begins with a slash.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, bearer(token)),
            None => request,
        }
    }

    /// `GET path`, within five seconds.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.request(Method::GET, path).timeout(ANSWER).send().await;
        let bytes = checked(answer).await?.bytes().await.map_err(brief)?;
        serde_json::from_slice(&bytes).with_context(|| format!("{path} is not understood"))
    }

    /// `GET path`, as server-sent events.
    pub(super) async fn open(&self, path: &str) -> Result<Events> {
        let request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        let answer = tokio::time::timeout(ANSWER, request.send()).await;
        let answer = answer.map_err(|_| anyhow!("no answer within {} s", ANSWER.as_secs()))?;
        let response = checked(answer).await?;
        Ok(Events { response, parser: Parser::default(), frames: VecDeque::new() })
    }
}

fn bearer(token: &Secret) -> HeaderValue {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.0));
    // A token that fits no header is refused by the agent like any wrong one.
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}

fn with_certificates(builder: ClientBuilder, cluster: &ClusterSettings) -> Result<ClientBuilder> {
    let mut builder = builder;
    if let Some(path) = &cluster.ca {
        let pem = std::fs::read(path).with_context(|| format!("{} (ca)", path.display()))?;
        let found = Certificate::from_pem_bundle(&pem);
        builder = builder.tls_certs_only(found.with_context(|| path.display().to_string())?);
    }
    if let Some(path) = &cluster.identity {
        let pem = std::fs::read(path).with_context(|| format!("{} (identity)", path.display()))?;
        let found = Identity::from_pem(&pem);
        builder = builder.identity(found.with_context(|| path.display().to_string())?);
    }
    Ok(builder)
}

/// The answer, if it is a good one.
async fn checked(answer: reqwest::Result<Response>) -> Result<Response> {
    let answer = answer.map_err(brief)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.bytes().await.unwrap_or_default();
    let problem: Option<crate::api::wire::Problem> = serde_json::from_slice(&body).ok();
    match problem {
        Some(problem) => bail!("{}; {}", problem.detail, problem.remedy),
        None => bail!("it answers {status}"),
    }
}

/// Why it cannot be reached, without the address: whoever tells this tells that too.
fn brief(error: reqwest::Error) -> anyhow::Error {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    anyhow!(text)
}

/// A stream of server-sent events.
#[derive(Debug)]
pub(super) struct Events {
    response: Response,
    parser: Parser,
    frames: VecDeque<Frame>,
}

impl Events {
    /// The next event; an error when the stream ends or says nothing for too long. May be cancelled at any time.
    pub(super) async fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            let piece = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            let piece = piece.map_err(|_| anyhow!("it says nothing any more"))?.map_err(brief)?;
            let piece = piece.ok_or_else(|| anyhow!("it ended the stream"))?;
            let frames = self.parser.feed(&piece);
            self.frames.extend(frames.map_err(|_| anyhow!("its event has no end"))?);
        }
    }
}
