//! A policy file looked at without an agent: what one would say if the file lay in its folder.

use std::path::Path;

use serde::Serialize;
use steadfast_sdk::manifest::Manifest;

use super::generation::hex;
use super::load::{Progress, Source};
use super::sandbox::Sandbox;
use super::{Failure, Headroom, Limits, Settings, StageTime, inspect};

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Its manifest.
    pub manifest: Manifest,
    /// Size of the module, in bytes, and how much is allowed.
    pub module_bytes: (usize, u64),
    /// Size of its largest function, in bytes, and how much is allowed.
    pub largest_function_bytes: (u32, u32),
    /// Its sections with their sizes in bytes, in the order of the file.
    pub sections: Vec<(String, usize)>,
    /// SHA-256 of the module, in hex.
    pub wasm_sha256: String,
    /// SHA-256 of the parameters beside it, in hex.
    pub parameters_sha256: String,
    /// The generation's name among nodes under these limits.
    pub digest: String,
    /// What would be refused although the module itself may be good: who may write it.
    pub insecure: Option<String>,
}

/// How a file passes what an agent asks of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Stages passed, and the one that was not.
    pub stages: Vec<StageTime>,
    /// What the rehearsals used, one a kind.
    pub headroom: Vec<Headroom>,
    /// Why it is refused.
    pub failure: Option<Failure>,
    /// What would be refused where the file lies now: who may write it. No failure: it is to be copied.
    pub insecure: Option<String>,
    /// The limits.
    pub limits: Limits,
}

/// Reads the file without running it.
///
/// # Errors
/// It is no policy.
pub fn inspect_file(path: &Path, settings: &Settings) -> Result<Inspection, Failure> {
    let source = Source::read(path, settings, &mut Progress::default())?;
    let module = source.module();
    let manifest = inspect::manifest(module)?;
    let digests = source.digests();
    Ok(Inspection {
        manifest,
        module_bytes: (module.len(), settings.limits.module_bytes),
        largest_function_bytes: (
            inspect::largest_function(module)?,
            settings.limits.function_bytes,
        ),
        sections: inspect::section_sizes(module)?,
        wasm_sha256: hex(&digests.wasm),
        parameters_sha256: hex(&digests.parameters),
        digest: hex(&digests.all),
        insecure: source.insecurity().map(Into::into),
    })
}

/// Takes the file through every stage of loading.
///
/// # Errors
/// The sandbox cannot be set up.
pub fn check_file(path: &Path, settings: &Settings) -> anyhow::Result<Check> {
    let sandbox = Sandbox::new(settings.limits.clone())?;
    let mut progress = Progress::default();
    let mut insecure = None;
    let read = Source::read(path, settings, &mut progress);
    let loaded = read.and_then(|source| {
        insecure = source.insecurity().map(Into::into);
        source.signatures(settings, &mut progress)?;
        source.load(&sandbox, settings, &mut progress, None)
    });
    let (headroom, failure) = match loaded {
        Ok(generation) => (generation.headroom, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let limits = settings.limits.clone();
    Ok(Check { stages: progress.stages, headroom, failure, insecure, limits })
}
