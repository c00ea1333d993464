//! What a compiled policy must show before it may decide: answers to small questions, the laws, and the rehearsal.

use std::time::{Duration, Instant};

use steadfast_sdk::laws::{self, Broken};
use steadfast_sdk::wire::{NodePriorityQuestion, PlacementQuestion, RiskQuestion};

use super::kind::Question;
use super::load::micros;
use super::rehearsal::Headroom;
use super::sandbox::{Program, Sandbox, Usage};
use super::settings::Settings;
use super::{Class, Failure, Kind, Stage};

/// Generated questions a kind on which the laws are tried, at most.
const TRIED: usize = 100;
/// No more of them are tried after this, all kinds together: loading must be quick...
const TIME: Duration = Duration::from_millis(100);
/// ...but so many of each kind are, whatever it takes.
const TRIED_AT_LEAST: usize = 12;

const REMEDY: &str = "try it natively: laws!(YourPolicy) in its tests shows the same";

/// A compiled policy before it may decide.
pub(super) struct Trial<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) settings: &'a Settings,
    pub(super) program: &'a Program,
    pub(super) parameters: &'a [u8],
    /// Chooses the generated questions: the same for the same module.
    pub(super) seed: u64,
}

impl Trial<'_> {
    /// Whether it answers the questions that are easily forgotten: nothing at all, one node, none alive.
    pub(super) fn self_test(&self, kind: Kind) -> Result<(), Failure> {
        match kind {
            Kind::NodePriority => self.answers::<NodePriorityQuestion>(),
            Kind::Placement => self.answers::<PlacementQuestion>(),
            Kind::Risk => self.answers::<RiskQuestion>(),
        }
    }

    /// Tries the laws on generated questions; on how many.
    pub(super) fn laws(&self, kinds: &[Kind]) -> Result<usize, Failure> {
        let end = Instant::now() + TIME;
        let tried = kinds.iter().map(|kind| match kind {
            Kind::NodePriority => self.keeps_the_laws::<NodePriorityQuestion>(end),
            Kind::Placement => self.keeps_the_laws::<PlacementQuestion>(end),
            Kind::Risk => self.keeps_the_laws::<RiskQuestion>(end),
        });
        tried.sum()
    }

    /// Asks the largest question that the configured cluster can ask.
    pub(super) fn rehearse(&self, kind: Kind) -> Result<Headroom, Failure> {
        match kind {
            Kind::NodePriority => self.asks_the_largest::<NodePriorityQuestion>(),
            Kind::Placement => self.asks_the_largest::<PlacementQuestion>(),
            Kind::Risk => self.asks_the_largest::<RiskQuestion>(),
        }
    }

    fn ask<Q: Question>(&self, question: &Q) -> Result<(Q::Verdict, Usage), Failure> {
        self.sandbox.ask(self.program, self.parameters, question)
    }

    fn answers<Q: Question>(&self) -> Result<(), Failure> {
        Q::edges().iter().try_for_each(|question| self.ask(question).map(drop))
    }

    fn keeps_the_laws<Q: Question>(&self, end: Instant) -> Result<usize, Failure> {
        let mut tried = 0;
        for question in laws::questions::<Q>(self.seed, TRIED) {
            if tried >= TRIED_AT_LEAST + Q::edges().len() && Instant::now() >= end {
                break;
            }
            let ask = |question: &Q| self.ask(question).map(|(verdict, _)| verdict);
            laws::check(&question, ask).map_err(broken)?;
            tried += 1;
        }
        Ok(tried)
    }

    fn asks_the_largest<Q: Question>(&self) -> Result<Headroom, Failure> {
        let Settings { largest, limits, .. } = self.settings;
        let question = Q::largest(largest.nodes, largest.vms);
        let begin = Instant::now();
        let (_, usage) = self.ask(&question)?;
        let headroom = Headroom::of(Q::DECIDES, *largest, (&usage, micros(begin)), limits);
        headroom.check()?;
        Ok(headroom)
    }
}

fn broken(broken: Broken<Failure>) -> Failure {
    match broken {
        Broken::NoAnswer(failure) => failure,
        Broken::Against { .. } => {
            Failure::new(Stage::Laws, Class::LawViolation, broken.to_string(), REMEDY)
        }
    }
}
