//! `steadfast policy inspect` and `check`: a policy file without an agent.

use super::args::PolicyFile;
use super::client::Failure;
use super::format::table;
use super::policy::rehearsal;
use super::progress::Progress;
use super::{say, say_json};
use crate::config::Config;
use crate::policy::{self, Check, Inspection, Settings};
use std::fmt::Write as _;
use std::path::Path;

pub(super) fn inspect(file: &PolicyFile, json: bool) -> Result<(), Failure> {
    let settings = settings(file.config.as_deref())?;
    match policy::inspect_file(&file.file, &settings) {
        Ok(found) if json => say_json(&found),
        Ok(found) => say(&inspected(&found)),
        Err(failure) => refused(&failure, json),
    }
}

pub(super) fn check(file: &PolicyFile, json: bool) -> Result<(), Failure> {
    let settings = settings(file.config.as_deref())?;
    let progress = Progress::begin("compiling and trying the policy");
    let check = policy::check_file(&file.file, &settings).map_err(Failure::Other)?;
    drop(progress);
    if json {
        say_json(&check)?;
    } else {
        say(&checked(&check))?;
    }
    if check.failure.is_some() { Err(Failure::Told) } else { Ok(()) }
}

/// The usual settings, or those of this configuration.
pub(super) fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    let Some(path) = config else { return Ok(Settings::default()) };
    let config = Config::load(path).map_err(|problems| Failure::Usage(problems.to_string()))?;
    Ok(config.policies.settings)
}

fn refused(failure: &policy::Failure, json: bool) -> Result<(), Failure> {
    if json {
        say_json(failure)?;
    } else {
        say(&format!("refused: {failure}\n"))?;
    }
    Err(Failure::Told)
}

fn inspected(found: &Inspection) -> String {
    let manifest = &found.manifest;
    let mut text = format!("{} {}: {}\n", manifest.name, manifest.version, manifest.about);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    line("kinds", manifest.kinds.join(", "));
    line("ABI", format!("{}, SDK {}", manifest.abi, manifest.sdk));
    line("module", of(found.module_bytes.0 as u64, found.module_bytes.1));
    let (largest, most) = found.largest_function_bytes;
    line("largest function", of(largest.into(), most.into()));
    line("wasm sha256", found.wasm_sha256.clone());
    line("json sha256", found.parameters_sha256.clone());
    line("digest", found.digest.clone());
    let sections = found.sections.iter().map(|(name, bytes)| format!("{name} {bytes}"));
    line("sections", sections.collect::<Vec<_>>().join(", "));
    text.push_str(&note(found.insecure.as_deref()));
    if manifest.parameters.is_empty() {
        return text;
    }
    let mut parameters = table(&["PARAMETER", "TYPE", "DEFAULT", "WHAT IT DOES"]);
    for it in &manifest.parameters {
        parameters.add_row([&it.name, &it.kind, &it.default, &it.about]);
    }
    text + &format!("{}\n", parameters.trim_fmt())
}

fn checked(check: &Check) -> String {
    let mut stages = table(&["STAGE", "MS", ""]);
    for it in &check.stages {
        let millis = format!("{}.{:03}", it.micros / 1_000, it.micros % 1_000);
        stages.add_row([
            it.stage.to_string(),
            millis,
            if it.passed { "" } else { "REFUSED" }.into(),
        ]);
    }
    let mut text = format!("{}\n", stages.trim_fmt());
    for headroom in &check.headroom {
        let _ = writeln!(text, "{}: {}", headroom.kind, rehearsal(headroom));
    }
    text.push_str(&note(check.insecure.as_deref()));
    let _ = match &check.failure {
        None => writeln!(text, "good: an agent would let it decide"),
        Some(failure) => writeln!(text, "refused: {failure}"),
    };
    text
}

fn of(value: u64, most: u64) -> String {
    format!("{value} bytes of {most}")
}

fn note(insecure: Option<&str>) -> String {
    insecure.map_or_else(String::new, |why| {
        format!("where it lies now an agent would refuse it: {why}\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Class, Limits, Stage, StageTime};

    #[test]
    fn a_refused_file_shows_how_far_it_came_and_why_no_further() {
        let failure = policy::Failure::new(Stage::Compile, Class::Refused, "no", "rebuild");
        let check = Check {
            stages: vec![StageTime { stage: Stage::Compile, micros: 1_500, passed: false }],
            headroom: vec![],
            failure: Some(failure),
            insecure: None,
            limits: Limits::default(),
        };
        let text = checked(&check);
        assert!(text.contains("compile  1.500  REFUSED"), "{text}");
        assert!(text.ends_with("refused: refused at compile: no (remedy: rebuild)\n"), "{text}");
    }
}
