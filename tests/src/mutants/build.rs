//! Builds the simulator with planted bugs, apart from everything else, and runs it.

use super::{Arguments, targets};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Builds, then runs the same command there.
pub fn hand_over(arguments: &Arguments, words: &[String]) -> Result<ExitCode, String> {
    for name in &arguments.only {
        targets::find(name)?;
    }
    let target = target_directory()?;
    eprintln!("building the simulator with planted bugs in {}", target.display());
    build(&target)?;
    let program = target.join("release").join("sim");
    let mut command = Command::new(&program);
    command.arg("mutants").args(words);
    let status = command.status().map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `mutants` in the target directory that this program was built in.
fn target_directory() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let target = program.parent().and_then(Path::parent);
    let target =
        target.ok_or_else(|| format!("{} is in no target directory", program.display()))?;
    Ok(target.join("mutants"))
}

/// The cfg is for every package of this build, and for no other build: it has a target directory of its own.
fn build(target: &Path) -> Result<(), String> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "-p", "steadfast-tests", "--bin", "sim"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", format!("{flags} --cfg steadfast_mutants"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the simulator with planted bugs does not build".into())
    }
}
