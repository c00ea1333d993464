//! `steadfast policy new`: a crate to begin a policy with, which builds and keeps the laws before its author has written a line.
//!
//! A policy is built with an SDK of its agent's version. Without a checkout (`--sdk`) the crate gets a copy of the one that this
//! program was built with, and of the default policies, in its folder `steadfast`: nothing but serde comes over the network.

mod template;
#[cfg(test)]
mod tests;

use crate::policy::Kind;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The SDK and the default policies: path in the repository, and content.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));
/// Where their manifests take versions and lints from.
const WORKSPACE: &str = include_str!("../../Cargo.toml");
/// The copy's folder in a new crate.
const COPY: &str = "steadfast";
/// Names that cargo or Rust refuses, or that would hide a crate that the policy needs.
const TAKEN: [&str; 8] =
    ["alloc", "core", "serde", "serde_json", "std", "steadfast", "test", "proc_macro"];

/// What to begin with.
#[derive(Debug, Clone)]
pub struct New {
    /// Name of the policy and its crate.
    pub name: String,
    /// What it decides; at least one.
    pub kinds: Vec<Kind>,
    /// The folder `sdk` of a checkout; `None`: a copy.
    pub sdk: Option<PathBuf>,
    /// The folder in which the crate's own folder is made.
    pub into: PathBuf,
}

/// Writes the crate; returns its folder.
///
/// # Errors
/// The name is no crate's, the folder exists, the SDK is not there, or a file cannot be written.
pub fn create(new: &New) -> Result<PathBuf> {
    check_name(&new.name)?;
    ensure!(!new.kinds.is_empty(), "a policy has at least one kind: give --kind");
    let folder = new.into.join(&new.name);
    ensure!(!folder.exists(), "{} exists: choose another name or folder", folder.display());
    let root = match &new.sdk {
        Some(sdk) => checkout(sdk)?,
        None => PathBuf::from(COPY),
    };
    write(&folder.join("Cargo.toml"), &template::manifest(new, &root))?;
    write(&folder.join("src/lib.rs"), &template::source(new))?;
    write(&folder.join("README.md"), &template::readme(new))?;
    write(&folder.join(".gitignore"), "/target\n")?;
    if new.sdk.is_none() {
        copy(&folder.join(COPY))?;
    }
    Ok(folder)
}

fn check_name(name: &str) -> Result<()> {
    let good = |at: usize, letter: char| {
        letter.is_ascii_lowercase() || at > 0 && (letter.is_ascii_digit() || "-_".contains(letter))
    };
    let is_good = name.char_indices().all(|(at, letter)| good(at, letter));
    ensure!(
        is_good && !name.is_empty() && name.len() <= 64,
        "{name:?} is no name for a policy: use a-z, 0-9 and -, beginning with a letter, 64 at most"
    );
    ensure!(!TAKEN.contains(&name), "the name {name:?} is taken: choose another");
    Ok(())
}

/// The root of the checkout to which this folder `sdk` belongs.
fn checkout(sdk: &Path) -> Result<PathBuf> {
    let sdk = sdk.canonicalize().with_context(|| format!("no SDK at {}", sdk.display()))?;
    let Some(root) = sdk.parent().filter(|root| root.join("policies/placement").exists()) else {
        bail!("{} is not the folder `sdk` of a checkout of Steadfast", sdk.display());
    };
    Ok(root.to_path_buf())
}

/// The SDK and the default policies as a workspace of their own.
fn copy(to: &Path) -> Result<()> {
    FILES.iter().try_for_each(|(path, content)| write(&to.join(path), content))?;
    write(&to.join("Cargo.toml"), &workspace()?)?;
    write(&to.join("README.md"), template::COPY_README)
}

/// The manifest of that workspace: this one's, of which only those packages are left and what they need.
fn workspace() -> Result<String> {
    let all: Table = WORKSPACE.parse().context("this program's own workspace")?;
    let section = |name: &str| all.get("workspace").and_then(|it| it.get(name)).cloned();
    let needed = |(name, _): &(String, Value)| is_needed(name);
    let dependencies = section("dependencies").and_then(|it| it.as_table().cloned());
    let dependencies: Table = dependencies.unwrap_or_default().into_iter().filter(needed).collect();
    let members: Vec<Value> = ["sdk", "policies/*"].map(Value::from).into();
    let mut workspace = Table::new();
    for name in ["resolver", "package", "lints"] {
        workspace.extend(section(name).map(|value| (name.to_string(), value)));
    }
    workspace.insert("members".into(), members.into());
    workspace.insert("dependencies".into(), dependencies.into());
    let manifest: Table = [("workspace".to_string(), workspace.into())].into_iter().collect();
    toml::to_string(&manifest).context("the manifest of the copy")
}

/// Whether a package of the copy names this dependency.
fn is_needed(name: &str) -> bool {
    let manifests = FILES.iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    manifests.filter_map(|(_, content)| content.parse::<Table>().ok()).any(|manifest| {
        let dependencies = manifest.get("dependencies").and_then(Value::as_table);
        let package = manifest.get("package").and_then(|it| it.get("name")).and_then(Value::as_str);
        package == Some(name) || dependencies.is_some_and(|all| all.contains_key(name))
    })
}

fn write(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
