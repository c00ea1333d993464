//! This node's own risk, as it tells it in its beats.

use crate::event::Decider;
use crate::message::RiskReport;
use crate::time::{Instant, Millis};
use alloc::string::String;
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::Score;

/// A risk policy's answer about this node.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessed {
    /// 0 (healthy) to 1000 (failing), with its reasons.
    pub score: Score,
    /// Who decided.
    pub decider: Decider,
}

/// Reasons that a beat carries.
pub(super) const REASONS: usize = 5;
/// Characters of a reason, and of a decider's name, that a beat carries.
pub(super) const WORD: usize = 64;

/// This node's own risk, as it tells it.
#[derive(Debug, Default)]
pub(crate) struct OwnRisk {
    number: u64,
    last: Option<(RiskReport, Instant)>,
}

impl OwnRisk {
    /// The policy answered.
    pub fn on_assessed(&mut self, assessed: Assessed, now: Instant) {
        self.number += 1;
        let mut terms = assessed.score.terms;
        terms.retain(|term| term.value != 0);
        terms.sort_by_key(|term| core::cmp::Reverse(term.value));
        terms.truncate(REASONS);
        for term in &mut terms {
            term.name = shortened(&term.name).into();
        }
        let decider = alloc::format!("{} {}", assessed.decider.name, assessed.decider.version);
        let report = RiskReport {
            number: self.number,
            score: u16::try_from(assessed.score.value.clamp(0, 1_000)).unwrap_or(0),
            terms,
            decider: shortened(decider.trim()),
            age: Millis(0),
        };
        self.last = Some((report, now));
    }

    /// What is told of it now; nothing that is stale.
    pub fn report(&self, stale: Millis, now: Instant) -> Option<RiskReport> {
        let (report, age) = self.fresh(stale, now)?;
        Some(RiskReport { age, ..report.clone() })
    }

    /// Its score alone; 0 where nothing is told.
    pub fn score(&self, stale: Millis, now: Instant) -> u16 {
        self.fresh(stale, now).map_or(0, |(report, _)| report.score)
    }

    fn fresh(&self, stale: Millis, now: Instant) -> Option<(&RiskReport, Millis)> {
        let (report, at) = self.last.as_ref()?;
        Some((report, now.since(*at))).filter(|(_, age)| *age < stale)
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORD).collect()
}
