//! `PUT /v1/policies/{kind}/module`: a policy comes by the API instead of by `cp`. It takes every check of loading first; what does not
//! pass is answered with its class and its reason, and not kept.

use super::change::blocking;
use super::errors::Refusal;
use super::policies::find_kind;
use super::wire::Uploaded;
use crate::driver::Agent;
use crate::policy::{self, Class, Failure, Kind, Settings, Stage};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest name of a file, without its end.
const LONGEST: usize = 64;

static COUNT: AtomicU64 = AtomicU64::new(0);

pub(super) async fn put(
    State(agent): State<Arc<Agent>>,
    Path(kind): Path<String>,
    module: Bytes,
) -> Result<Json<Uploaded>, Refusal> {
    let kind = find_kind(&kind)?;
    let config = agent.config.policies.clone();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let scratch = agent.config.state.join(format!("upload-{}-{number}", std::process::id()));
    let uploaded = blocking(move || {
        let kept = keep(kind, &module, &config.folder, &config.settings, &scratch);
        let _ = fs::remove_dir_all(&scratch);
        kept
    });
    uploaded.await.map(Json)
}

fn keep(
    kind: Kind,
    module: &[u8],
    folder: &FilePath,
    settings: &Settings,
    scratch: &FilePath,
) -> Result<Uploaded, Refusal> {
    let tried = write(scratch, "module.wasm", module)?;
    let manifest = policy::inspect_file(&tried, settings).map_err(|why| Refusal::policy(&why))?;
    let name = manifest.manifest.name.clone();
    check_name(&name)?;
    if !manifest.manifest.kinds.iter().any(|known| known == kind.name()) {
        let kinds = manifest.manifest.kinds.join(", ");
        let failure = Failure::new(
            Stage::Manifest,
            Class::Refused,
            format!("{name} is for {kinds}, not for {kind}"),
            "upload it under a kind that it is for",
        );
        return Err(Refusal::policy(&failure));
    }
    // Its parameters and signatures lie beside it, if there are any.
    for end in ["json", "wasm.minisig", "json.minisig"] {
        let beside = folder.join(format!("{name}.{end}"));
        if let Ok(bytes) = fs::read(beside) {
            write(scratch, &format!("{name}.{end}"), &bytes)?;
        }
    }
    let tried = write(scratch, &format!("{name}.wasm"), module)?;
    let check = policy::check_file(&tried, settings).map_err(|error| broken(&error))?;
    if let Some(failure) = &check.failure {
        return Err(Refusal::policy(failure));
    }
    let digest =
        policy::inspect_file(&tried, settings).map_err(|why| Refusal::policy(&why))?.digest;
    drop_into(folder, &name, module)?;
    Ok(Uploaded {
        kind,
        version: manifest.manifest.version,
        file: format!("{name}.wasm"),
        name,
        digest,
        stages: check.stages,
        headroom: check.headroom,
        notes: vec!["it is on this node; upload it to the other nodes too".into()],
    })
}

/// It becomes the name of a file.
fn check_name(name: &str) -> Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= LONGEST && name.chars().all(plain) {
        return Ok(());
    }
    let failure = Failure::new(
        Stage::Manifest,
        Class::Refused,
        format!("its name is {name:?}"),
        format!("give it a name of 1 to {LONGEST} letters, digits, - and _"),
    );
    Err(Refusal::policy(&failure))
}

/// Whole or not at all: the folder is watched. Another agent may use the same folder, and be told of the same module at once.
fn drop_into(folder: &FilePath, name: &str, module: &[u8]) -> Result<(), Refusal> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let hidden = format!(".{name}.uploaded-{}-{number}", std::process::id());
    let hidden = write(folder, &hidden, module)?;
    let file = folder.join(format!("{name}.wasm"));
    fs::rename(&hidden, &file).map_err(|error| broken(&error))
}

fn write(folder: &FilePath, name: &str, bytes: &[u8]) -> Result<PathBuf, Refusal> {
    let file = folder.join(name);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, bytes));
    written.map(|()| file.clone()).map_err(|error| {
        let why = format!("cannot write {}: {error}", file.display());
        Refusal::unavailable(why, "is there room, and may steadfastd write there?")
    })
}

fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::unavailable(error.to_string(), "see steadfastd's log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_share_a_folder_may_be_told_of_a_module_at_once() {
        let folder = std::env::temp_dir().join(format!("steadfast-drop-{}", std::process::id()));
        let drop = || (0..200).try_for_each(|_| drop_into(&folder, "good", b"module"));
        std::thread::scope(|scope| {
            let agents: Vec<_> = (0..4).map(|_| scope.spawn(drop)).collect();
            for agent in agents {
                assert_eq!(agent.join().expect("no panic"), Ok(()));
            }
        });
        let left: Vec<_> = fs::read_dir(&folder).expect("the folder").flatten().collect();
        assert_eq!(left.len(), 1, "nothing but the module is left: {left:?}");
        assert_eq!(fs::read(folder.join("good.wasm")).expect("the module"), b"module");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
