//! Puts the SDK and the default policies, as they are built into this agent, where `steadfast policy new` finds them: an author's
//! policy must be built with an SDK of the agent's version, and a release has no other place for it.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const PACKAGES: [&str; 4] =
    ["sdk", "policies/node-priority", "policies/placement", "policies/risk"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let mut table = String::from("&[\n");
    for package in PACKAGES {
        let mut files = vec![root.join(package).join("Cargo.toml")];
        sources(&root.join(package).join("src"), &mut files)?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(&root).unwrap_or(&file);
            let _ = writeln!(table, "({name:?}, include_str!({file:?})),");
        }
        println!("cargo::rerun-if-changed=../{package}");
    }
    let to = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sdk_files.rs");
    fs::write(to, table + "]\n")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|it| it == "rs" || it == "md") {
            found.push(path);
        }
    }
    Ok(())
}
