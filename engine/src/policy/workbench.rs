//! One policy file on its own, without a folder: for `steadfast policy run` and `bench`, and for measurements.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use steadfast_sdk::manifest::Manifest;
use steadfast_sdk::wire::{NodePriorityQuestion, PlacementQuestion, RiskQuestion};

use super::generation::Generation;
use super::kind::Question;
use super::load::{Progress, Source};
use super::sandbox::{Sandbox, Times, Usage};
use super::{Failure, Kind, Largest, Limits, Settings, StageTime};

/// A policy that has passed every stage of loading, and nothing around it.
pub struct Workbench {
    sandbox: Sandbox,
    generation: Generation,
    stages: Vec<StageTime>,
}

/// A verdict, and what it took.
#[derive(Debug, Clone, Serialize)]
pub struct Measured<V> {
    /// The verdict: checked.
    pub verdict: V,
    /// Fuel used, by instantiation and parameters too.
    pub fuel: u64,
    /// Fuel allowed for a question of this size.
    pub fuel_limit: u64,
    /// Largest linear memory, in bytes.
    pub memory_bytes: usize,
    /// Size of the question as it was asked, in bytes.
    pub question_bytes: usize,
    /// Size of the verdict as it was given, in bytes.
    pub verdict_bytes: usize,
    /// From the typed question to the checked, typed verdict.
    pub total: Duration,
    /// Parts of that, in order: who did what, and how long.
    pub parts: Vec<(String, Duration)>,
}

impl std::fmt::Debug for Workbench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workbench").field("file", &self.generation.file).finish_non_exhaustive()
    }
}

impl Workbench {
    /// Takes the file through all stages of loading.
    ///
    /// # Errors
    /// The sandbox cannot be set up, or the first stage that the file does not pass.
    pub fn open(path: &Path, settings: impl Into<Settings>) -> anyhow::Result<Self> {
        let settings = settings.into();
        let sandbox = Sandbox::new(settings.limits.clone())?;
        let mut progress = Progress::default();
        let source = Source::read(path, &settings, &mut progress)?;
        source.signatures(&settings, &mut progress)?;
        let generation = source.load(&sandbox, &settings, &mut progress, None)?;
        Ok(Self { sandbox, generation, stages: progress.stages })
    }

    /// What the module says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.generation.manifest
    }

    /// Its name among nodes: of module, parameters and limits.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.generation.digests.all
    }

    /// How long each stage of loading took.
    #[must_use]
    pub fn stages(&self) -> &[StageTime] {
        &self.stages
    }

    /// Asks as an agent does.
    ///
    /// # Errors
    /// Why there is no valid verdict.
    pub fn ask<Q: Question>(&self, question: &Q) -> Result<Measured<Q::Verdict>, Failure> {
        self.measure(question, false)
    }

    /// Asks, and has the module say when it has come how far: a little slower.
    ///
    /// # Errors
    /// Why there is no valid verdict.
    pub fn ask_in_parts<Q: Question>(&self, question: &Q) -> Result<Measured<Q::Verdict>, Failure> {
        self.measure(question, true)
    }

    /// Asks in JSON, as a host does that knows no other encoding.
    ///
    /// # Errors
    /// Why there is no valid verdict.
    pub fn ask_in_json<Q: Question>(&self, question: &Q) -> Result<Measured<Q::Verdict>, Failure> {
        let Generation { program, parameters, .. } = &self.generation;
        let asked = self.sandbox.observe(&program.in_json(), parameters, question, false)?;
        Ok(self.measured(asked))
    }

    /// Asks a question of one kind that is given as JSON.
    ///
    /// # Errors
    /// It is no such question, the policy has no such kind, or there is no valid verdict.
    pub fn run(&self, kind: Kind, question: &str) -> anyhow::Result<Measured<serde_json::Value>> {
        self.has(kind)?;
        match kind {
            Kind::NodePriority => self.run_json::<NodePriorityQuestion>(question),
            Kind::Placement => self.run_json::<PlacementQuestion>(question),
            Kind::Risk => self.run_json::<RiskQuestion>(question),
        }
    }

    /// Asks so often about a cluster of so many nodes where so many VMs need a place; the call of median duration.
    ///
    /// # Errors
    /// The policy has no such kind, or there is no valid verdict.
    pub fn bench(&self, kind: Kind, size: Largest, times: usize) -> anyhow::Result<Measured<()>> {
        self.has(kind)?;
        Ok(match kind {
            Kind::NodePriority => self.repeat::<NodePriorityQuestion>(size, times)?,
            Kind::Placement => self.repeat::<PlacementQuestion>(size, times)?,
            Kind::Risk => self.repeat::<RiskQuestion>(size, times)?,
        })
    }

    /// What it decides.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.generation.kinds
    }

    /// The limits that it is asked under.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.sandbox.limits()
    }

    fn has(&self, kind: Kind) -> anyhow::Result<()> {
        let kinds = &self.generation.kinds;
        anyhow::ensure!(kinds.contains(&kind), "the policy does not decide {kind}, only {kinds:?}");
        Ok(())
    }

    fn run_json<Q: Question>(&self, question: &str) -> anyhow::Result<Measured<serde_json::Value>> {
        let question: Q = serde_json::from_str(question)
            .with_context(|| format!("it is no {} question", Q::DECIDES))?;
        let measured = self.ask_in_parts(&question)?;
        let verdict = serde_json::to_value(&measured.verdict)?;
        Ok(measured.with(verdict))
    }

    fn repeat<Q: Question>(&self, size: Largest, times: usize) -> Result<Measured<()>, Failure> {
        let question = Q::largest(size.nodes, size.vms);
        let ask = || self.ask_in_parts(&question).map(|measured| measured.with(()));
        let mut calls = (0..times.max(1)).map(|_| ask()).collect::<Result<Vec<_>, _>>()?;
        calls.sort_by_key(|measured| measured.total);
        Ok(calls.swap_remove(calls.len() / 2))
    }

    fn measure<Q: Question>(
        &self,
        question: &Q,
        phases: bool,
    ) -> Result<Measured<Q::Verdict>, Failure> {
        let Generation { program, parameters, .. } = &self.generation;
        Ok(self.measured(self.sandbox.observe(program, parameters, question, phases)?))
    }

    fn measured<V>(&self, (verdict, usage): (V, Usage)) -> Measured<V> {
        let Usage { fuel, memory_bytes, question_bytes, verdict_bytes, times } = usage;
        Measured {
            verdict,
            fuel,
            fuel_limit: self.sandbox.limits().fuel_for(question_bytes),
            memory_bytes,
            question_bytes,
            verdict_bytes,
            total: times.checked,
            parts: parts(&times),
        }
    }
}

impl<V> Measured<V> {
    fn with<W>(self, verdict: W) -> Measured<W> {
        let Self { fuel, fuel_limit, memory_bytes, question_bytes, verdict_bytes, .. } = self;
        let (total, parts) = (self.total, self.parts);
        Measured {
            verdict,
            fuel,
            fuel_limit,
            memory_bytes,
            question_bytes,
            verdict_bytes,
            total,
            parts,
        }
    }
}

fn parts(times: &Times) -> Vec<(String, Duration)> {
    let phase = |(name, at): &(String, Duration)| (format!("module: {name}"), *at);
    let mut ends = vec![
        ("host: question encoded".to_string(), times.encoded),
        ("host: instance started".to_string(), times.started),
    ];
    ends.extend(times.phases.iter().map(phase));
    ends.push(("module: returned".to_string(), times.returned));
    ends.push(("host: verdict decoded".to_string(), times.decoded));
    ends.push(("host: verdict checked".to_string(), times.checked));
    let mut last = Duration::ZERO;
    let part = |(name, at): (String, Duration)| {
        let took = at.saturating_sub(last);
        last = at;
        (name, took)
    };
    ends.into_iter().map(part).collect()
}
