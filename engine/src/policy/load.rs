//! A policy file's way to a generation, stage by stage. Takes long: only on the loading thread.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use steadfast_sdk::wire::{NodePriorityQuestion, PlacementQuestion, RiskQuestion};

use super::generation::{Digests, Generation};
use super::kind::Question;
use super::sandbox::{Program, Sandbox};
use super::status::StageTime;
use super::{Class, Failure, Kind, Limits, Stage, inspect};

/// A policy's files as read, before anything is believed.
pub(super) struct Source {
    name: String,
    wasm: Vec<u8>,
    parameters: Vec<u8>,
    digests: Digests,
    insecure: Option<String>,
}

/// How far a file came, and how long each stage took.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) stages: Vec<StageTime>,
}

impl Progress {
    fn pass<T>(
        &mut self,
        stage: Stage,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begin = Instant::now();
        let result = work();
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stages.push(StageTime { stage, micros, passed: result.is_ok() });
        result.map_err(|failure| failure.at(stage))
    }
}

impl Source {
    /// Reads a module and the parameters beside it. Never blocks on what is no regular file.
    pub(super) fn read(path: &Path, limits: &Limits) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (wasm, about_wasm) = read(path, limits.module_bytes)?;
        let beside = path.with_extension("json");
        let (parameters, about_parameters) = match beside.try_exists() {
            Ok(false) => (Vec::new(), None),
            _ => read(&beside, limits.parameters_bytes).map(|(json, about)| (json, Some(about)))?,
        };
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let about_folder = std::fs::metadata(&folder).map_err(|it| unreadable(&folder, &it))?;
        let mut all = vec![(path.to_path_buf(), about_wasm), (folder, about_folder)];
        all.extend(about_parameters.map(|about| (beside, about)));
        let digests = Digests::of(&wasm, &parameters, limits);
        Ok(Self { name, wasm, parameters, digests, insecure: all.iter().find_map(insecurity) })
    }

    /// Differs whenever another attempt at loading could end otherwise.
    pub(super) fn fingerprint(&self) -> ([u8; 32], bool) {
        (self.digests.all, self.insecure.is_some())
    }

    /// Takes the source through all further stages.
    pub(super) fn load(
        self,
        sandbox: &Sandbox,
        progress: &mut Progress,
    ) -> Result<Generation, Failure> {
        progress.pass(Stage::Permissions, || self.permissions())?;
        let manifest = progress.pass(Stage::Manifest, || inspect::manifest(&self.wasm))?;
        let kinds = inspect::kinds(&manifest);
        progress.pass(Stage::Limits, || inspect::limits(&self.wasm, sandbox.limits()))?;
        let program = progress.pass(Stage::Compile, || sandbox.compile(&self.wasm, &kinds))?;
        let program = program.speaking(&manifest);
        progress.pass(Stage::Init, || sandbox.init(&program, &self.parameters))?;
        progress.pass(Stage::SelfTest, || self.test(sandbox, &program, &kinds))?;
        let Self { name, parameters, digests, .. } = self;
        Ok(Generation::new(&name, manifest, kinds, program, parameters, digests))
    }

    fn permissions(&self) -> Result<(), Failure> {
        let Some(reason) = &self.insecure else { return Ok(()) };
        let remedy = "chown root and chmod go-w the file, its .json and the folder";
        Err(Failure::refused(Stage::Permissions, reason.clone(), remedy))
    }

    fn test(&self, sandbox: &Sandbox, program: &Program, kinds: &[Kind]) -> Result<(), Failure> {
        kinds.iter().try_for_each(|kind| match kind {
            Kind::NodePriority => self.answers::<NodePriorityQuestion>(sandbox, program),
            Kind::Placement => self.answers::<PlacementQuestion>(sandbox, program),
            Kind::Risk => self.answers::<RiskQuestion>(sandbox, program),
        })
    }

    /// Whether it answers the samples of a kind with valid verdicts, twice the same.
    fn answers<Q: Question>(&self, sandbox: &Sandbox, program: &Program) -> Result<(), Failure> {
        for question in Q::samples() {
            let ask = || sandbox.ask(program, &self.parameters, &question);
            let (verdict, _) = ask()?;
            if encode(&verdict)? != encode(&ask()?.0)? {
                let reason = format!("it answers the same {} question differently", Q::KIND);
                let remedy = "draw chance only from the question's seed";
                return Err(Failure::new(Stage::SelfTest, Class::LawViolation, reason, remedy));
            }
        }
        Ok(())
    }
}

/// The bytes of a question or verdict.
pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| {
        let remedy = "report it as a fault of the agent";
        Failure::new(Stage::Call, Class::Host, format!("cannot encode: {error}"), remedy)
    })
}

fn read(path: &Path, most: u64) -> Result<(Vec<u8>, Metadata), Failure> {
    let open = || -> std::io::Result<(File, Metadata)> {
        // A pipe must not block us, nor a terminal become ours.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let about = file.metadata()?;
        Ok((file, about))
    };
    let (file, about) = open().map_err(|error| unreadable(path, &error))?;
    if !about.is_file() {
        let reason = format!("{} is no regular file", path.display());
        return Err(Failure::refused(Stage::Read, reason, "put a file there"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > most {
        let size = about.len().max(most + 1);
        let reason = format!("{} has {size} bytes, allowed are {most}", path.display());
        let remedy = "build with `opt-level = \"s\"`, `lto` and `strip`, or raise the limit";
        return Err(Failure::refused(Stage::Size, reason, remedy));
    }
    Ok((bytes, about))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let reason = format!("cannot read {}: {error}", path.display());
    Failure::refused(Stage::Read, reason, "make the file readable for the agent")
}

/// Why others than root (or the agent's own user) could write here.
fn insecurity((path, about): &(PathBuf, Metadata)) -> Option<String> {
    let own = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    let (owner, mode) = (about.uid(), about.mode() & 0o7777);
    if owner != 0 && owner != own {
        return Some(format!("{} belongs to user {owner}, not to root", path.display()));
    }
    let others = mode & 0o022 != 0;
    others.then(|| format!("{} can be written by others (mode {mode:04o})", path.display()))
}
