//! `cargo sim import-pve DIR`: stories of another HA manager, told to our machines.
//!
//! DIR is a user's own checkout of pve-ha-manager's test folders; nothing of it is kept here. [`story`] reads a folder's input,
//! [`outcome`] what that project expects of it, [`translate`] tells it in the words of `tests/scenarios`, [`compare`] looks for
//! what an operator would notice: which nodes were cut off, where each service ends and in which state, how long it was down.

pub mod compare;
pub mod outcome;
pub mod reasons;
pub mod story;
pub mod translate;

use crate::scenario::runner::tell_on;
use crate::scenario::story as ours;
use std::path::{Path, PathBuf};

/// What came of one folder.
#[derive(Debug)]
pub struct Told {
    /// Name of the folder.
    pub name: String,
    /// It asks their scheduler for balance.
    pub placement: bool,
    /// Every difference; none if it came to the same.
    pub differences: Vec<String>,
}

/// Test folders below `folder`, or `folder` itself.
///
/// # Errors
/// If there are none.
pub fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    if folder.join("cmdlist").exists() {
        return Ok(vec![folder.into()]);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("cmdlist").exists())
        .collect();
    found.sort();
    if found.is_empty() {
        let remedy = "give the folder src/test of a checkout of pve-ha-manager";
        return Err(format!("no test folders in {}; {remedy}", folder.display()));
    }
    Ok(found)
}

/// Tells one folder's story to our machines and compares.
#[must_use]
pub fn tell(folder: &Path) -> Told {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut placement = name.contains("crs");
    let differences = compare_folder(folder, &mut placement).unwrap_or_else(|why| vec![why]);
    Told { name, placement, differences }
}

fn compare_folder(folder: &Path, placement: &mut bool) -> Result<Vec<String>, String> {
    let story = story::Story::read(folder)?;
    *placement |= story.schedules;
    let log = std::fs::read_to_string(folder.join("log.expect"));
    let theirs = outcome::Outcome::read(&log.map_err(|error| format!("log.expect: {error}"))?);
    let text = translate::translate(&story)?;
    let told = ours::Story::parse(&text)?;
    let (told, stage) = tell_on(&told, false);
    Ok(compare::differences(&story, &theirs, &compare::Ours { stage: &stage, told: &told }))
}

/// Our words for a folder's story, for people.
///
/// # Errors
/// If it cannot be read or has no counterpart.
pub fn show(folder: &Path) -> Result<String, String> {
    let text = translate::translate(&story::Story::read(folder)?)?;
    let (told, _) = tell_on(&ours::Story::parse(&text)?, false);
    Ok(format!("{text}----\n{}\n", told.log.join("\n")))
}
