//! One policy file on its own, without a folder: for `steadfast policy run` and `bench`, and for measurements.

use std::path::Path;
use std::time::Duration;

use steadfast_sdk::manifest::Manifest;

use super::generation::Generation;
use super::kind::Question;
use super::load::{Progress, Source};
use super::sandbox::{Sandbox, Times, Usage};
use super::{Failure, Kind, Settings, StageTime};

/// A policy that has passed every stage of loading, and nothing around it.
pub struct Workbench {
    sandbox: Sandbox,
    generation: Generation,
    stages: Vec<StageTime>,
}

/// A verdict, and what it took.
#[derive(Debug, Clone)]
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
        let generation = source.load(&sandbox, &settings, &mut progress)?;
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

    /// What it decides.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.generation.kinds
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

    fn measure<Q: Question>(
        &self,
        question: &Q,
        phases: bool,
    ) -> Result<Measured<Q::Verdict>, Failure> {
        let Generation { program, parameters, .. } = &self.generation;
        let (verdict, usage) = self.sandbox.observe(program, parameters, question, phases)?;
        let Usage { fuel, memory_bytes, question_bytes, verdict_bytes, times } = usage;
        Ok(Measured {
            verdict,
            fuel,
            fuel_limit: self.sandbox.limits().fuel_for(question_bytes),
            memory_bytes,
            question_bytes,
            verdict_bytes,
            total: times.checked,
            parts: parts(&times),
        })
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
