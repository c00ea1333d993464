//! Hysteresis: one reading is an accident. A level is entered after several readings in a row at or above its threshold, and
//! left after as many well below it, over a longer time. What is not said, or is said twice, counts for nothing.

use super::{Level, RULE, Settings};
use crate::decision::Kind;
use crate::ids::Identity;
use crate::message::RiskReport;
use crate::outbox::Note;
use crate::time::Instant;
use alloc::{string::String, vec::Vec};

/// Levels above calm, in the order of their thresholds.
const LEVELS: [Level; 3] = [Level::Warn, Level::Avoid, Level::Drain];

/// One node's risk over time.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge {
    /// What its risk calls for.
    pub level: Level,
    last: Option<(Identity, RiskReport, Instant)>,
    /// Readings in a row at or above each threshold.
    above: [u32; 3],
    /// Readings in a row well below each, and since when.
    below: [Option<(u32, Instant)>; 3],
}

impl Gauge {
    /// A gauge of a node that the ledger holds already.
    pub fn new(held: Level) -> Self {
        Self { level: held, ..Self::default() }
    }

    /// Takes a reading. The level before, if it changed.
    pub fn read(
        &mut self,
        from: Identity,
        report: &RiskReport,
        settings: &Settings,
        now: Instant,
    ) -> Option<Level> {
        if !self.is_new(from, report, settings) {
            return None;
        }
        let silent = self.last.as_ref().is_some_and(|(_, _, at)| now.since(*at) >= settings.stale);
        if silent {
            (self.above, self.below) = Default::default();
        }
        self.last = Some((from, report.clone(), now));
        for (at, threshold) in settings.thresholds.iter().enumerate() {
            self.count(at, report.score, *threshold, settings.margin, now);
        }
        let before = self.level;
        self.level = self.rise(settings).max(self.fall(settings, now));
        (self.level != before).then_some(before)
    }

    fn is_new(&self, from: Identity, report: &RiskReport, settings: &Settings) -> bool {
        let known = self
            .last
            .as_ref()
            .is_some_and(|(who, known, _)| *who == from && known.number >= report.number);
        !known && report.age < settings.stale
    }

    fn count(&mut self, at: usize, score: u16, threshold: u16, margin: u16, now: Instant) {
        self.above[at] = if score >= threshold { self.above[at].saturating_add(1) } else { 0 };
        let well = u32::from(score) + u32::from(margin) < u32::from(threshold);
        self.below[at] = well.then(|| {
            let (count, since) = self.below[at].unwrap_or((0, now));
            (count.saturating_add(1), since)
        });
    }

    /// The highest level that enough readings in a row call for.
    fn rise(&self, settings: &Settings) -> Level {
        let called = |at: &usize| self.above[*at] >= settings.readings;
        let highest = (0..LEVELS.len()).rev().find(called);
        highest.map_or(Level::Calm, |at| LEVELS[at])
    }

    /// What is left of the present level.
    fn fall(&self, settings: &Settings, now: Instant) -> Level {
        let left = |below: &Option<(u32, Instant)>| {
            below.is_some_and(|(count, since)| {
                count >= settings.readings && now.since(since) >= settings.well_after
            })
        };
        let stays = |at: &usize| LEVELS[*at] <= self.level && !left(&self.below[*at]);
        let highest = (0..LEVELS.len()).rev().find(stays);
        highest.map_or(Level::Calm, |at| LEVELS[at])
    }

    pub fn score(&self) -> u16 {
        self.last.as_ref().map_or(0, |(_, report, _)| report.score)
    }

    /// Why, from the score's terms.
    pub fn reasons(&self) -> String {
        self.last.as_ref().map_or_else(String::new, |(_, report, _)| report.reasons())
    }

    /// A record with the reading that it rests on.
    pub fn note(&self, kind: Kind, text: String) -> Note {
        let note = Note::new(kind, RULE, text);
        let Some((_, report, at)) = &self.last else { return note };
        let note = note
            .fact("score", report.score)
            .fact("decided by", &report.decider)
            .fact("reading", report.number)
            .fact("age", report.age)
            .fact("taken at", at.0);
        report.terms.iter().fold(note, |note, term| note.fact(&term.name, term.value))
    }
}

impl RiskReport {
    /// Its reasons as people read them.
    #[must_use]
    pub fn reasons(&self) -> String {
        let words: Vec<String> = self
            .terms
            .iter()
            .map(|term| alloc::format!("{} {:+}", term.name, term.value))
            .collect();
        if words.is_empty() { "no reason given".into() } else { words.join(", ") }
    }
}
