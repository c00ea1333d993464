//! The `[policies]` section.

use super::Problem;
use crate::policy::{Key, Kind, Largest, Limits, Settings, Shadow};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where policies are, and what is asked of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// The drop folder.
    pub folder: PathBuf,
    /// How they are chosen, checked and limited.
    pub settings: Settings,
}

/// The section as people write it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPolicies {
    directory: Option<PathBuf>,
    bind: BTreeMap<String, String>,
    shadow: RawShadow,
    signatures: Vec<String>,
    largest: Largest,
    limits: Limits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of names")]
enum RawShadow {
    All(bool),
    Named(Vec<String>),
}

impl Default for RawShadow {
    fn default() -> Self {
        Self::All(false)
    }
}

impl RawPolicies {
    /// The settings, with what is wrong with them in `problems`.
    pub(super) fn resolve(self, state: &Path, problems: &mut Vec<Problem>) -> Policies {
        check_limits(&self.limits, problems);
        check_largest(self.largest, problems);
        let settings = Settings {
            bind: self.bind.into_iter().filter_map(|bound| resolve_bind(bound, problems)).collect(),
            shadow: match self.shadow {
                RawShadow::All(true) => Shadow::All,
                RawShadow::All(false) => Shadow::None,
                RawShadow::Named(names) => Shadow::Named(names),
            },
            keys: self.signatures.iter().filter_map(|line| resolve_key(line, problems)).collect(),
            largest: self.largest,
            limits: self.limits,
            state: Some(state.into()),
            ..Settings::default()
        };
        let folder = self.directory.unwrap_or_else(|| "/etc/steadfast/policies".into());
        Policies { folder, settings }
    }
}

fn resolve_bind(
    (kind, name): (String, String),
    problems: &mut Vec<Problem>,
) -> Option<(Kind, String)> {
    if let Some(kind) = Kind::named(&kind) {
        return Some((kind, name));
    }
    let what = format!("policies.bind names the kind {kind:?}");
    problems.push(Problem::new(
        what,
        format!("the kinds are {}", Kind::ALL.map(Kind::name).join(", ")),
    ));
    None
}

fn resolve_key(line: &str, problems: &mut Vec<Problem>) -> Option<Key> {
    let remedy = "use the second line of minisign.pub, which begins with RW";
    Key::parse(line)
        .map_err(|why| problems.push(Problem::new(format!("policies.signatures: {why}"), remedy)))
        .ok()
}

/// Below these no policy could ever answer.
fn check_limits(limits: &Limits, problems: &mut Vec<Problem>) {
    let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    let least = [
        ("module_bytes", limits.module_bytes, 1_024),
        ("memory_bytes", number(limits.memory_bytes), 2 << 20),
        ("stack_bytes", number(limits.stack_bytes), 64 << 10),
        ("fuel", limits.fuel, 1_000_000),
        ("wall_ms", limits.wall_ms, 10),
        ("output_bytes", number(limits.output_bytes), 4_096),
        ("failures_in_row", u64::from(limits.failures_in_row), 1),
    ];
    for (name, given, least) in least {
        if given < least {
            let what = format!("policies.limits.{name} is {given}, less than {least}");
            problems.push(Problem::new(what, format!("set it to {least} or more")));
        }
    }
}

fn check_largest(largest: Largest, problems: &mut Vec<Problem>) {
    let Largest { nodes, vms } = largest;
    if !(1..=64).contains(&nodes) || !(1..=100_000).contains(&vms) {
        problems.push(Problem::new(
            format!("policies.largest is {nodes} nodes and {vms} VMs"),
            "set it from 1 to 64 nodes, and from 1 to 100000 VMs",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> (Settings, Vec<String>) {
        let raw: RawPolicies = toml::from_str(text).expect("readable");
        let mut problems = Vec::new();
        let settings = raw.resolve(Path::new("/state"), &mut problems).settings;
        (settings, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let state = Some("/state".into());
        assert_eq!(resolved(""), (Settings { state, ..Settings::default() }, vec![]));
    }

    #[test]
    fn shadows_are_all_or_none_or_named() {
        assert_eq!(resolved("shadow = true").0.shadow, Shadow::All);
        let named = Shadow::Named(vec!["candidate".into()]);
        assert_eq!(resolved("shadow = [\"candidate\"]").0.shadow, named);
        assert!(toml::from_str::<RawPolicies>("shadow = 3").is_err());
    }

    #[test]
    fn kinds_keys_and_limits_that_cannot_be_are_refused_by_name() {
        let (settings, problems) = resolved(
            "bind = { placement = \"a\", plaicment = \"b\" }\nsignatures = [\"RW\"]\nlimits = { fuel = 3 }\n\
             largest = { nodes = 65, vms = 1 }",
        );
        assert_eq!(settings.bind, [(Kind::Placement, "a".to_string())].into());
        let told = problems.join("\n");
        assert_eq!(problems.len(), 4, "{told}");
        for part in [
            "the kind \"plaicment\"",
            "\"RW\" is no public key",
            "policies.limits.fuel is 3, less than 1000000",
            "policies.largest is 65 nodes",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
}
