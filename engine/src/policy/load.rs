//! A policy file's way to a generation, stage by stage. Takes long: only on the loading thread.

use std::path::Path;
use std::time::{Duration, Instant};

use super::files::{self, FileRead};
use super::generation::{Digests, Generation};
use super::rehearsal::Headroom;
use super::sandbox::{Program, Sandbox};
use super::settings::Settings;
use super::status::StageTime;
use super::trial::Trial;
use super::{Class, Failure, Stage, inspect, signature};

/// A policy's files as read, before anything is believed.
pub(super) struct Source {
    wasm: FileRead,
    parameters: Option<FileRead>,
    digests: Digests,
    insecure_folder: Option<String>,
}

/// How far a file came, and how long each stage took.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) stages: Vec<StageTime>,
}

impl Progress {
    pub(super) fn pass<T>(
        &mut self,
        stage: Stage,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begin = Instant::now();
        let result = work();
        self.stages.push(StageTime { stage, micros: micros(begin), passed: result.is_ok() });
        result.map_err(|failure| failure.at(stage))
    }
}

impl Source {
    /// Reads a module, the parameters beside it and, where keys are named, their signatures.
    pub(super) fn read(
        path: &Path,
        settings: &Settings,
        progress: &mut Progress,
    ) -> Result<Self, Failure> {
        let limits = &settings.limits;
        let signed = !settings.keys.is_empty();
        let read = progress.pass(Stage::Read, || {
            let beside = path.with_extension("json");
            let wasm = FileRead::open(path, limits.module_bytes, signed)?;
            let parameters = match beside.try_exists() {
                Ok(false) => None,
                _ => Some(FileRead::open(&beside, limits.parameters_bytes, signed)?),
            };
            Ok((wasm, parameters, files::insecure_folder(path)?))
        });
        let (wasm, parameters, insecure_folder) = read?;
        progress.pass(Stage::Size, || {
            wasm.check_size()?;
            parameters.iter().try_for_each(FileRead::check_size)
        })?;
        let json = parameters.as_ref().map_or(&[][..], |it| &it.bytes);
        let digests =
            progress.pass(Stage::Digest, || Ok(Digests::of(&wasm.bytes, json, limits)))?;
        Ok(Self { wasm, parameters, digests, insecure_folder })
    }

    /// Differs whenever another attempt at loading could end otherwise.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let signature = |it: &FileRead| it.signature.clone();
        Fingerprint {
            digest: self.digests.all,
            insecure: self.insecurity().is_some(),
            signatures: (signature(&self.wasm), self.parameters.as_ref().and_then(signature)),
        }
    }

    /// What is wrong with who may write the files.
    pub(super) fn insecurity(&self) -> Option<&str> {
        let folder = self.insecure_folder.as_deref();
        folder.or_else(|| self.files().find_map(|file| file.insecure.as_deref()))
    }

    fn files(&self) -> impl Iterator<Item = &FileRead> {
        [Some(&self.wasm), self.parameters.as_ref()].into_iter().flatten()
    }

    pub(super) fn module(&self) -> &[u8] {
        &self.wasm.bytes
    }

    pub(super) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Who may write it, and who signed it.
    pub(super) fn trust(
        &self,
        settings: &Settings,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        progress.pass(Stage::Permissions, || self.permissions())?;
        self.signatures(settings, progress)
    }

    /// Who signed it, where that is asked.
    pub(super) fn signatures(
        &self,
        settings: &Settings,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        if settings.keys.is_empty() {
            return Ok(());
        }
        progress.pass(Stage::Signature, || {
            self.files().try_for_each(|file| {
                let signature = file.signature.as_deref();
                signature::check(&settings.keys, &file.name, &file.bytes, signature)
            })
        })
    }

    /// Compiles it ahead, if nothing speaks against it so far: the longest stage, while the folder may not be quiet yet.
    pub(super) fn compile_ahead(
        &self,
        sandbox: &Sandbox,
        settings: &Settings,
    ) -> Result<Ahead, Failure> {
        self.trust(settings, &mut Progress::default())?;
        let kinds = inspect::kinds(&inspect::manifest(&self.wasm.bytes)?);
        inspect::limits(&self.wasm.bytes, &settings.limits)?;
        let begin = Instant::now();
        let program = sandbox.compile(&self.wasm.bytes, &kinds)?;
        Ok(Ahead { module: self.digests.wasm, program, micros: micros(begin) })
    }

    /// Takes what is trusted through all further stages. `ahead` may be this module, compiled.
    pub(super) fn load(
        self,
        sandbox: &Sandbox,
        settings: &Settings,
        progress: &mut Progress,
        ahead: Option<Ahead>,
    ) -> Result<Generation, Failure> {
        let manifest = progress.pass(Stage::Manifest, || inspect::manifest(&self.wasm.bytes))?;
        let kinds = inspect::kinds(&manifest);
        progress.pass(Stage::Limits, || inspect::limits(&self.wasm.bytes, &settings.limits))?;
        let module = &self.wasm.bytes;
        let program = match ahead.filter(|ahead| ahead.module == self.digests.wasm) {
            Some(Ahead { program, micros, .. }) => {
                progress.stages.push(StageTime { stage: Stage::Compile, micros, passed: true });
                program
            }
            None => progress.pass(Stage::Compile, || sandbox.compile(module, &kinds))?,
        };
        let program = program.speaking(&manifest);
        let parameters = self.parameters.map_or_else(Vec::new, |file| file.bytes);
        let seed = self.digests.seed();
        let trial = Trial { sandbox, settings, program: &program, parameters: &parameters, seed };
        progress.pass(Stage::Instantiate, || sandbox.instantiate(&program))?;
        progress.pass(Stage::Init, || sandbox.init(&program, &parameters))?;
        let self_test = || kinds.iter().try_for_each(|kind| trial.self_test(*kind));
        progress.pass(Stage::SelfTest, self_test)?;
        let laws_tried = progress.pass(Stage::Laws, || trial.laws(&kinds))?;
        let rehearse = || kinds.iter().map(|kind| trial.rehearse(*kind)).collect();
        let headroom: Vec<Headroom> = progress.pass(Stage::Rehearsal, rehearse)?;
        progress.pass(Stage::Staged, || Ok(()))?;
        Ok(Generation {
            number: 0,
            file: self.wasm.name,
            module_bytes: module.len(),
            manifest,
            kinds,
            program,
            parameters,
            digests: self.digests,
            laws_tried,
            headroom,
            stages: progress.stages.clone(),
            loaded_ms: crate::clock::Clock.wall_ms(),
            tallies: <_>::default(),
        })
    }

    fn permissions(&self) -> Result<(), Failure> {
        let Some(reason) = self.insecurity() else { return Ok(()) };
        let remedy = "chown root and chmod go-w the file, its .json and the folder";
        Err(Failure::refused(Stage::Permissions, reason, remedy))
    }
}

/// A module compiled ahead.
pub(super) struct Ahead {
    /// SHA-256 of the module.
    module: [u8; 32],
    program: Program,
    /// How long it took.
    micros: u64,
}

/// What a file was when it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    digest: [u8; 32],
    insecure: bool,
    signatures: (Option<String>, Option<String>),
}

/// The bytes of a question or verdict.
pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| {
        let remedy = "report it as a fault of the agent";
        Failure::new(Stage::Call, Class::Host, format!("cannot encode: {error}"), remedy)
    })
}

/// Microseconds since `begin`.
pub(super) fn micros(begin: Instant) -> u64 {
    in_micros(begin.elapsed())
}

/// The duration in microseconds.
pub(super) fn in_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
