//! The live state of an agent, as commands follow it.

use super::client::{Client, Failure};
use crate::api::wire::{DecisionReport, LiveState};
use crate::patch::merge;
use crate::sse::{Frame, Parser};
use anyhow::anyhow;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;

/// What the stream tells.
#[derive(Debug)]
pub(super) enum News {
    /// The state, as it is now.
    State(Box<LiveState>),
    /// Something was decided.
    Decision(Box<DecisionReport>),
}

/// A stream of server-sent events.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Frame>,
}

impl Events {
    pub(super) async fn open(client: &Client, path: &str) -> Result<Self, Failure> {
        let body = client.open(path).await?;
        Ok(Self { body, parser: Parser::default(), ready: VecDeque::new() })
    }

    /// The next event. The stream of an agent has no end.
    pub(super) async fn next(&mut self) -> Result<Frame, Failure> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(frame);
            }
            let gone = || Failure::Other(anyhow!("steadfastd ended; ask again when it is back"));
            let frame = self.body.frame().await.ok_or_else(gone)?;
            let frame = frame.map_err(|error| Failure::Other(error.into()))?;
            let bytes = frame.data_ref().map_or(&[][..], |bytes| bytes);
            let large = |_| Failure::Other(anyhow!("the agent's stream has an event without end"));
            self.ready.extend(self.parser.feed(bytes).map_err(large)?);
        }
    }
}

/// Follows the live state of one agent.
#[derive(Debug)]
pub(super) struct Live {
    events: Events,
    known: Value,
}

impl Live {
    pub(super) async fn open(client: &Client) -> Result<Self, Failure> {
        Ok(Self { events: Events::open(client, "/v1/live").await?, known: Value::Null })
    }

    pub(super) async fn next(&mut self) -> Result<News, Failure> {
        loop {
            let frame = self.events.next().await?;
            let data: Value = serde_json::from_str(&frame.data).map_err(Failure::not_understood)?;
            match frame.event.as_str() {
                "state" => self.known = data,
                "patch" => merge(&mut self.known, &data),
                "decision" => {
                    let report = DecisionReport::deserialize(&data);
                    let report = report.map_err(Failure::not_understood)?;
                    return Ok(News::Decision(Box::new(report)));
                }
                // A newer agent may tell more.
                _ => continue,
            }
            let state = LiveState::deserialize(&self.known).map_err(Failure::not_understood)?;
            return Ok(News::State(Box::new(state)));
        }
    }
}
