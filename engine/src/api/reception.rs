//! What the API remembers of those who ask: answers to requests that may come again, who changed what, and counts.

use super::audit::Audit;
use super::metrics::Tally;
use crate::config::Config;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Answers that are remembered for requests that come again.
const ANSWERS: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reception {
    pub(super) audit: Audit,
    pub(super) tally: Tally,
    /// One change with a precondition at a time: between the look and the change nothing else changes.
    pub(super) conditional: tokio::sync::Mutex<()>,
    /// Verification IPs that were set since the agent started.
    pub(super) verification: Mutex<Option<(Vec<IpAddr>, usize)>>,
    answers: Mutex<Answers>,
}

/// The caller, and the key that he chose.
pub(super) type Key = (String, String);

#[derive(Debug, Default)]
struct Answers {
    by_key: BTreeMap<Key, Remembered>,
    order: VecDeque<Key>,
}

#[derive(Debug)]
struct Remembered {
    /// Digest of the request.
    request: [u8; 32],
    /// None: it is under way.
    answer: Option<Kept>,
}

/// An answer, to be given again.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is known of a request with a key.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing: it is under way from now on.
    New,
    /// Its answer.
    Answered(Kept),
    /// It has no answer yet.
    UnderWay,
    /// The key was used for another request.
    Other,
}

impl Reception {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            audit: Audit::new(&config.state),
            tally: Tally::default(),
            conditional: <_>::default(),
            verification: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// A request with an idempotency key came in.
    pub(super) fn begin(&self, key: &Key, request: [u8; 32]) -> Known {
        let mut answers = self.answers();
        match answers.by_key.get(key) {
            Some(known) if known.request != request => Known::Other,
            Some(Remembered { answer: Some(kept), .. }) => Known::Answered(kept.clone()),
            Some(_) => Known::UnderWay,
            None => {
                answers.by_key.insert(key.clone(), Remembered { request, answer: None });
                answers.order.push_back(key.clone());
                if answers.order.len() > ANSWERS
                    && let Some(oldest) = answers.order.pop_front()
                {
                    answers.by_key.remove(&oldest);
                }
                Known::New
            }
        }
    }

    /// It has its answer; `None`: it may be asked again.
    pub(super) fn end(&self, key: &Key, answer: Option<Kept>) {
        let mut answers = self.answers();
        match answer {
            Some(answer) => {
                if let Some(known) = answers.by_key.get_mut(key) {
                    known.answer = Some(answer);
                }
            }
            None => {
                answers.by_key.remove(key);
                answers.order.retain(|known| known != key);
            }
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
