//! A generation: one module with its parameters under the limits, and how it has done so far.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use steadfast_sdk::manifest::{DEFAULT_PREFIX, Manifest};

use super::breaker::Breaker;
use super::load::in_micros;
use super::rehearsal::Headroom;
use super::sandbox::{Program, Usage};
use super::status::{ShadowStatus, StageTime};
use super::{Failure, Kind, Limits};

/// So many of the last calls are kept for percentiles.
const KEPT: usize = 256;

/// A module that has passed every stage of loading.
pub(super) struct Generation {
    /// Counts up with every load of the agent.
    pub(super) number: u64,
    /// Name of the file it came from.
    pub(super) file: String,
    pub(super) manifest: Manifest,
    pub(super) kinds: Vec<Kind>,
    pub(super) program: Program,
    pub(super) parameters: Vec<u8>,
    pub(super) digests: Digests,
    /// Size of the module, in bytes.
    pub(super) module_bytes: usize,
    /// Generated questions on which it kept the laws.
    pub(super) laws_tried: usize,
    /// What its rehearsals used, one a kind.
    pub(super) headroom: Vec<Headroom>,
    /// How long each stage of its loading took.
    pub(super) stages: Vec<StageTime>,
    /// Wall-clock time of its loading in milliseconds since 1970, for people.
    pub(super) loaded_ms: u64,
    pub(super) tallies: [Mutex<Tally>; 3],
}

/// What identifies a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digests {
    /// SHA-256 of the module.
    pub(super) wasm: [u8; 32],
    /// SHA-256 of the parameters.
    pub(super) parameters: [u8; 32],
    /// SHA-256 of both and the limits: the generation's name among nodes.
    pub(super) all: [u8; 32],
}

/// How a generation has done for one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) breaker: Breaker,
    pub(super) last_fuel: u64,
    pub(super) last_memory_bytes: usize,
    pub(super) last_failure: Option<Failure>,
    pub(super) shadowed: ShadowStatus,
    micros: Vec<u64>,
}

impl Digests {
    pub(super) fn of(wasm: &[u8], parameters: &[u8], limits: &Limits) -> Self {
        let [wasm, parameters] = [wasm, parameters].map(|it| <[u8; 32]>::from(Sha256::digest(it)));
        let limits = serde_json::to_vec(limits).unwrap_or_default();
        let all = Sha256::new().chain_update(wasm).chain_update(parameters).chain_update(limits);
        Self { wasm, parameters, all: all.finalize().into() }
    }

    /// A number that is the same for the same generation.
    pub(super) fn seed(&self) -> u64 {
        self.all.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl Generation {
    /// Whether it ships with Steadfast, so that any other policy wins over it.
    pub(super) fn is_default(&self) -> bool {
        self.manifest.name.starts_with(DEFAULT_PREFIX)
    }

    pub(super) fn tally(&self, kind: Kind) -> MutexGuard<'_, Tally> {
        self.tallies[kind.seat()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_suspended(&self, kind: Kind, limits: &Limits) -> bool {
        self.tally(kind).breaker.is_open(limits, Instant::now())
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (generation {})", self.manifest.name, self.manifest.version, self.number)
    }
}

impl Tally {
    pub(super) fn succeeded(&mut self, usage: &Usage, took: Duration) {
        let micros = in_micros(took);
        let at = usize::try_from(self.calls).unwrap_or(0) % KEPT;
        match self.micros.get_mut(at) {
            Some(oldest) => *oldest = micros,
            None => self.micros.push(micros),
        }
        self.calls += 1;
        self.breaker.succeeded();
        self.last_fuel = usage.fuel;
        self.last_memory_bytes = usage.memory_bytes;
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        self.failures += 1;
        self.breaker.failed(Instant::now());
        self.last_failure = Some(failure.clone());
    }

    /// Microseconds that so many percent of the last successful calls took at most.
    pub(super) fn percentile(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get(last * percent / 100).copied()
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
