//! What is known of this node's equipment: by its own sources, and by systems that post to the API. Everything has an age.

use super::{Found, Measured, Trouble};
use crate::threads::lock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use steadfast_core::proactive::Assessed;
use steadfast_sdk::wire::Reading;

/// Readings kept of one source; a node has not more disks, sensors and links than that.
pub const MOST_READINGS: usize = 512;
/// A measurement that takes longer hangs. Tools are killed far earlier.
const HANGS: Duration = Duration::from_secs(300);
/// Readings that others may post, all together.
pub const MOST_POSTED: usize = 256;

/// How a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its first measurement is not done.
    Waiting,
    /// It was read.
    Ok,
    /// There is nothing of that kind here.
    Missing,
    /// It took too long, and was stopped.
    TimedOut,
    /// It failed.
    Failed,
    /// Switched off in the configuration.
    Off,
}

/// One source, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Why, if it is not ok.
    pub reason: String,
    /// Since its last measurement ended.
    pub age_ms: Option<u64>,
    /// How long that took.
    pub took_ms: u64,
    /// How often it is read.
    pub interval_ms: u64,
    /// What it read, each with its age.
    pub readings: Vec<Reading>,
}

/// What others posted.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct PostedReport {
    /// Who.
    pub source: String,
    /// Its words, if it gave any.
    pub reason: String,
    /// The reading.
    pub reading: Reading,
    /// It counts for so long yet.
    pub left_ms: u64,
}

/// What the risk policy said last.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct AssessedReport {
    /// Its answer, and who gave it.
    #[serde(flatten)]
    pub assessed: Assessed,
    /// Age of the answer.
    pub age_ms: u64,
    /// Readings that it was asked with.
    pub readings: usize,
}

/// `GET /v1/telemetry`.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize, Deserialize)]
pub struct TelemetryReport {
    /// This node.
    pub node: String,
    /// Its own sources.
    pub sources: Vec<SourceReport>,
    /// What other systems posted.
    pub external: Vec<PostedReport>,
    /// What the risk policy made of it.
    pub risk: Option<AssessedReport>,
}

#[derive(Debug)]
struct Source {
    state: State,
    /// A measurement is under way.
    began: Option<Instant>,
    reason: String,
    ended: Option<Instant>,
    took: Duration,
    interval: Duration,
    readings: BTreeMap<String, (i64, Instant)>,
}

#[derive(Debug)]
struct Posted {
    value: i64,
    at: Instant,
    lasts: Duration,
    reason: String,
}

/// Everything known.
#[derive(Debug, Default)]
pub struct Hub {
    sources: Mutex<BTreeMap<&'static str, Source>>,
    /// By source and name.
    posted: Mutex<BTreeMap<(String, String), Posted>>,
    assessed: Mutex<Option<(Assessed, usize, Instant)>>,
}

impl Hub {
    /// Knows of a source before it is read.
    pub(super) fn expect(&self, name: &'static str, state: State, interval: Duration) {
        let (reason, ended, took) = (String::new(), None, Duration::ZERO);
        let (began, readings) = (None, BTreeMap::new());
        let source = Source { state, began, reason, ended, took, interval, readings };
        lock(&self.sources).insert(name, source);
    }

    /// A measurement begins.
    pub(super) fn begin(&self, name: &'static str, now: Instant) {
        if let Some(source) = lock(&self.sources).get_mut(name) {
            source.began = Some(now);
        }
    }

    /// A measurement ended. What could not be read this time keeps its old value, and its age.
    pub(super) fn take(
        &self,
        name: &'static str,
        measured: Measured,
        began: Instant,
        now: Instant,
    ) {
        let mut sources = lock(&self.sources);
        let Some(source) = sources.get_mut(name) else { return };
        let Measured { readings, trouble } = measured;
        (source.state, source.reason) = match trouble {
            None => (State::Ok, String::new()),
            Some(Trouble::Missing(why)) => (State::Missing, why),
            Some(Trouble::TimedOut(why)) => (State::TimedOut, why),
            Some(Trouble::Failed(why)) => (State::Failed, why),
        };
        if matches!(source.state, State::Ok | State::Missing) {
            source.readings.clear();
        }
        for Found { name, value } in readings.into_iter().take(MOST_READINGS) {
            source.readings.insert(name, (value, now));
        }
        source.began = None;
        (source.ended, source.took) = (Some(now), now.duration_since(began));
    }

    /// Somebody posts a reading.
    ///
    /// # Errors
    /// There are too many already.
    pub fn post(
        &self,
        source: &str,
        (name, value): (&str, i64),
        reason: &str,
        lasts: Duration,
    ) -> Result<(), String> {
        let mut posted = lock(&self.posted);
        let now = Instant::now();
        posted.retain(|_, known| now.duration_since(known.at) < known.lasts);
        let key = (source.to_owned(), name.to_owned());
        if posted.len() >= MOST_POSTED && !posted.contains_key(&key) {
            return Err(format!(
                "{} readings are posted already, the most is {MOST_POSTED}",
                posted.len()
            ));
        }
        posted.insert(key, Posted { value, at: now, lasts, reason: reason.into() });
        Ok(())
    }

    /// Takes back what `source` posted under `name`, or all of it. How many.
    pub fn withdraw(&self, source: &str, name: Option<&str>) -> usize {
        let mut posted = lock(&self.posted);
        let before = posted.len();
        posted.retain(|(who, what), _| who != source || name.is_some_and(|name| name != what));
        before - posted.len()
    }

    /// The policy answered a question with so many readings.
    pub fn assessed(&self, assessed: Assessed, readings: usize) {
        *lock(&self.assessed) = Some((assessed, readings, Instant::now()));
    }

    /// All readings, by name, as a risk policy is asked with them.
    pub fn readings(&self) -> Vec<Reading> {
        let now = Instant::now();
        let own = self.sources(now).into_iter().flat_map(|source| source.readings);
        let mut all: Vec<Reading> =
            own.chain(self.external(now).into_iter().map(|posted| posted.reading)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|one, other| one.name == other.name);
        all
    }

    /// Everything, as the API shows it.
    pub fn report(&self, node: &str) -> TelemetryReport {
        let now = Instant::now();
        let assessed = lock(&self.assessed).clone();
        TelemetryReport {
            node: node.into(),
            sources: self.sources(now),
            external: self.external(now),
            risk: assessed.map(|(assessed, readings, at)| AssessedReport {
                assessed,
                age_ms: millis(now.duration_since(at)),
                readings,
            }),
        }
    }

    fn sources(&self, now: Instant) -> Vec<SourceReport> {
        let age = |at: &Instant| millis(now.saturating_duration_since(*at));
        let reading = |(name, (value, at)): (&String, &(i64, Instant))| Reading {
            name: name.clone(),
            value: *value,
            age_ms: age(at),
        };
        let report = |(name, source): (&&str, &Source)| SourceReport {
            name: (*name).into(),
            state: source.hangs(now).map_or(source.state, |_| State::TimedOut),
            reason: source.hangs(now).unwrap_or_else(|| source.reason.clone()),
            age_ms: source.ended.as_ref().map(age),
            took_ms: millis(source.took),
            interval_ms: millis(source.interval),
            readings: source.readings.iter().map(reading).collect(),
        };
        lock(&self.sources).iter().map(report).collect()
    }

    fn external(&self, now: Instant) -> Vec<PostedReport> {
        let report = |((source, name), posted): (&(String, String), &Posted)| {
            let age = now.saturating_duration_since(posted.at);
            let left = posted.lasts.checked_sub(age)?;
            let name = format!("external.{source}.{name}");
            let reading = Reading { name, value: posted.value, age_ms: millis(age) };
            let (source, reason) = (source.clone(), posted.reason.clone());
            Some(PostedReport { source, reason, reading, left_ms: millis(left) })
        };
        lock(&self.posted).iter().filter_map(report).collect()
    }
}

impl Source {
    /// A file of the kernel does not answer, and nothing can be done about it: what is known grows old.
    fn hangs(&self, now: Instant) -> Option<String> {
        let length = now.saturating_duration_since(self.began?);
        (length >= HANGS).then(|| format!("it has not answered for {} s", length.as_secs()))
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, value: i64) -> Found {
        Found { name: name.into(), value }
    }

    #[test]
    fn what_could_not_be_read_keeps_its_value_and_grows_old() {
        let (hub, begin) = (Hub::default(), Instant::now());
        hub.expect("smart", State::Waiting, Duration::from_secs(60));
        let both = vec![found("smart.sda.pending", 1), found("smart.sdb.pending", 2)];
        hub.take("smart", Measured { readings: both, trouble: None }, begin, begin);
        let later = begin + Duration::from_secs(60);
        let trouble = Some(Trouble::TimedOut("smartctl was killed after 20 s".into()));
        let one = vec![found("smart.sda.pending", 5)];
        hub.take("smart", Measured { readings: one, trouble }, begin, later);
        let source = &hub.sources(later)[0];
        assert_eq!((source.state, source.age_ms), (State::TimedOut, Some(0)));
        let told: Vec<_> = source.readings.iter().map(|it| (it.value, it.age_ms)).collect();
        assert_eq!(told, [(5, 0), (2, 60_000)]);
        hub.take("smart", Measured { readings: vec![], trouble: None }, begin, later);
        assert!(hub.sources(later)[0].readings.is_empty(), "a disk that is gone is gone");
    }

    #[test]
    fn a_source_that_does_not_answer_is_seen_to_hang() {
        let (hub, begin) = (Hub::default(), Instant::now());
        hub.expect("heat", State::Waiting, Duration::from_secs(30));
        hub.begin("heat", begin);
        assert_eq!(hub.sources(begin)[0].state, State::Waiting);
        let source = &hub.sources(begin + HANGS)[0];
        assert_eq!(source.state, State::TimedOut);
        assert_eq!(source.reason, "it has not answered for 300 s");
    }

    #[test]
    fn what_others_post_has_a_name_an_age_and_an_end() {
        let hub = Hub::default();
        hub.post("dcim", ("risk", 900), "PSU 2", Duration::from_secs(60)).expect("room");
        hub.post("dcim", ("inlet_c", 31), "", Duration::ZERO).expect("room");
        let readings = hub.readings();
        assert_eq!((readings.len(), readings[0].name.as_str()), (1, "external.dcim.risk"));
        assert_eq!((hub.withdraw("other", None), hub.withdraw("dcim", Some("risk"))), (0, 1));
        assert!(hub.readings().is_empty());
    }

    #[test]
    fn nobody_can_post_without_end() {
        let hub = Hub::default();
        let post = |k: usize| hub.post("dcim", (&format!("r{k}"), 1), "", Duration::from_secs(60));
        assert!((0..MOST_POSTED).all(|k| post(k).is_ok()));
        assert!(post(MOST_POSTED).is_err() && post(0).is_ok(), "what is known may change");
    }
}
