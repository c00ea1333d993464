//! Configuration: TOML as people write it, resolved once into what the agent runs on.
//!
//! Every problem is reported at once where that is possible, with its line and the remedy. How long corosync
//! needs to notice a silent node is not configured but read from its cmap, so [`Config::timing`] is
//! asked again once it is known.

mod api;
pub(crate) mod file;
mod limits;
mod policies;
mod proactive;
mod timing;

use crate::pages::Place;
use crate::telemetry;
use crate::virtualization;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use steadfast_core::config::{Limits, Timing};
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::time::Millis;

pub use api::{Api, ApiTls, ApiUser};
pub(crate) use api::{RawApi, RawUser};
pub use policies::Policies;
pub use timing::{Bound, TimingOverrides, assumed, bounds, lint};

/// What an operator can choose, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from, if it was one.
    pub file: Option<PathBuf>,
    /// Name of the cluster; must be the one on shared storage.
    pub cluster: String,
    /// Set of time-outs.
    pub preset: Preset,
    /// The feature level that this node speaks: the release's, or less, to keep the way back open during an upgrade.
    pub feature_level: FeatureLevel,
    /// Time-outs that differ from the preset's.
    pub overrides: TimingOverrides,
    /// How much at once, how often, how long.
    pub limits: Limits,
    /// Labels of this node, for policies.
    pub labels: BTreeMap<String, String>,
    /// Where pages, ledger and catalogue are.
    pub storage: Place,
    /// Paths on shared storage where disks of HA VMs may lie.
    pub shared_paths: Vec<PathBuf>,
    /// libvirt's URI.
    pub libvirt_uri: String,
    /// libvirt of another node, with `{node}` for its name.
    pub migrate_uri: String,
    /// The watchdog device; without one rule 4 is never used for this node.
    pub watchdog: Option<PathBuf>,
    /// Where a reset is asked for.
    pub sysrq: PathBuf,
    /// Addresses that tell whether the VM network is alive.
    pub verification: Vec<IpAddr>,
    /// How many of them must answer.
    pub verification_quorum: usize,
    /// Policies.
    pub policies: Policies,
    /// The API's unix socket.
    pub socket: PathBuf,
    /// The API over TLS, and who may come in.
    pub api: Api,
    /// Runtime folder, on tmpfs.
    pub run: PathBuf,
    /// What outlives a boot: the list of HA VMs that libvirt's hook reads while the agent is down.
    pub state: PathBuf,
    /// Lock memory, and take real-time priority for what keeps the lease.
    pub realtime: bool,
    /// The operator's word that this machine is never paused from outside.
    pub never_paused: bool,
    /// Fence agents, by victim.
    pub fence: Vec<Fence>,
    /// What is read of this node's equipment, and how often.
    pub telemetry: telemetry::Settings,
}

/// Preset of PROTOCOL section 9.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, schemars::JsonSchema, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Shortest safe time-outs on good hardware.
    Fast,
    /// The default.
    #[default]
    Standard,
    /// For slow storage and busy networks.
    Calm,
}

impl Preset {
    /// The preset's timing for a corosync that notices a silent node within `membership`.
    #[must_use]
    pub fn timing(self, membership: Millis) -> Timing {
        match self {
            Self::Fast => Timing::fast(membership),
            Self::Standard => Timing::standard(membership),
            Self::Calm => Timing::calm(membership),
        }
    }
}

/// One fence agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Name of the node it acts on.
    pub node: String,
    /// Program, as installed by fence-agents.
    pub agent: String,
    /// Killed after this.
    pub timeout: Duration,
    /// key=value pairs for its stdin.
    pub options: BTreeMap<String, String>,
}

/// Something wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize)]
pub struct Problem {
    /// Line in the file, if it has one.
    pub line: Option<usize>,
    /// What is wrong, with both values.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A problem without a line.
    #[must_use]
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { line: None, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// All that is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("{} is unreadable: {error}", path.display());
            Problems(vec![Problem::new(what, "create it from examples/steadfast.toml")])
        })?;
        Ok(Self { file: Some(path.into()), ..Self::parse(&text)? })
    }

    /// Reads and checks `text`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let (file, mut problems) = file::read(text);
        let resolved = file::resolve(file, &mut problems);
        if let Some(config) = &resolved {
            // Corosync's part is not known yet; 0 leaves every other inequality to be checked.
            problems
                .extend(config.timing(Millis(0)).err().map(|found| found.0).unwrap_or_default());
        }
        match resolved {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems(problems)),
        }
    }

    /// Nothing pauses this machine from outside: it is no virtual one, or the operator says so. Rule 4 rests on it.
    #[must_use]
    pub fn is_never_paused(&self) -> bool {
        self.never_paused || virtualization::evidence().is_none()
    }

    /// Timing for a corosync that notices a silent node within `membership`.
    ///
    /// # Errors
    /// Every inequality of PROTOCOL section 9 that does not hold.
    pub fn timing(&self, membership: Millis) -> Result<Timing, Problems> {
        let timing = self.overrides.apply(self.preset.timing(membership));
        let problems = lint(&timing);
        if problems.is_empty() { Ok(timing) } else { Err(Problems(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[cluster]\nname = \"c\"\n[storage]\ndirectory = \"/shared\"\n";

    fn problems(extra: &str) -> String {
        Config::parse(&format!("{LEAST}{extra}")).expect_err("must be refused").to_string()
    }

    #[test]
    fn least_config_is_good_and_gets_defaults() {
        let config = Config::parse(LEAST).expect("good");
        assert_eq!(config.preset, Preset::Standard);
        assert_eq!(config.socket, PathBuf::from("/run/steadfast/api.sock"));
        assert_eq!(config.timing(Millis(1_100)).expect("safe").beat, Millis(500));
    }

    #[test]
    fn the_example_is_good() {
        let text = include_str!("../../examples/steadfast.toml");
        Config::parse(text).expect("good");
    }

    #[test]
    fn every_example_to_copy_is_good_and_its_time_outs_are_safe() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/configs");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("there") {
            let path = entry.expect("read").path();
            let text = std::fs::read_to_string(&path).expect("read");
            let config = Config::parse(&text).unwrap_or_else(|found| panic!("{path:?}: {found}"));
            // The lab's corosync, which these files recommend at most.
            config.timing(Millis(1_100)).unwrap_or_else(|found| panic!("{path:?}: {found}"));
            seen += 1;
        }
        assert!(seen >= 7, "only {seen} in {folder}");
    }

    #[test]
    fn unknown_keys_are_all_reported_with_their_lines() {
        let found = problems("[api]\nsokcet = \"/x\"\n[nonsense]\na = 1\n");
        assert!(found.contains("line 6: unknown key `sokcet`"), "{found}");
        assert!(found.contains("line 7: unknown key `nonsense`"), "{found}");
        assert!(found.contains("socket"), "{found}");
    }

    #[test]
    fn missing_and_mistyped_values_are_reported_together() {
        let found = Config::parse("[cluster]\nname = 1\npreset = \"quick\"\n")
            .expect_err("must be refused")
            .to_string();
        assert!(found.contains("line 2: "), "{found}");
        assert!(found.contains("line 3: "), "{found}");
        assert!(found.contains("storage.directory or storage.device is missing"), "{found}");
    }

    #[test]
    fn a_store_is_a_directory_or_a_device() {
        let device = LEAST.replace("directory = \"/shared\"", "device = \"/dev/mapper/ha\"");
        let config = Config::parse(&device).expect("good");
        assert_eq!(config.storage, Place::Device("/dev/mapper/ha".into()));
        let both = problems("device = \"/dev/mapper/ha\"\n");
        assert!(both.contains("storage.directory is \"/shared\""), "{both}");
        assert!(both.contains("storage.device is \"/dev/mapper/ha\""), "{both}");
    }

    #[test]
    fn broken_toml_is_reported_with_its_line() {
        assert!(problems("[api\nsocket = 1\n").contains("line 5: "));
    }

    #[test]
    fn unsafe_timing_names_inequality_numbers_and_nearest_value() {
        let found = problems("[timing]\nwatchdog_ms = 5000\n");
        assert!(found.contains("2 W <= L + S - 2 beats"), "{found}");
        assert!(found.contains("10000 ms") && found.contains("9000 ms"), "{found}");
        assert!(found.contains("set watchdog_ms to at most"), "{found}");
    }

    #[test]
    fn every_preset_is_safe_for_the_labs_corosync() {
        for preset in [Preset::Fast, Preset::Standard, Preset::Calm] {
            assert_eq!(lint(&preset.timing(Millis(1_100))), vec![], "{preset:?}");
        }
    }

    #[test]
    fn a_slow_corosync_is_refused_with_a_remedy() {
        let config = Config::parse(LEAST).expect("good");
        let found = config.timing(Millis(12_000)).expect_err("must be refused").to_string();
        assert!(found.contains("token"), "{found}");
    }

    #[test]
    fn limits_are_read_and_checked() {
        let config = Config::parse(&format!("{LEAST}[limits]\nwitness = \"none\"\n"));
        assert_eq!(config.expect("good").limits.witness, Some(false));
        assert!(problems("[limits]\nflaps = 1\n").contains("limits.flaps is 1"));
        assert!(problems("[limits]\nwitness = \"disk\"\n").contains("line 6: "));
    }

    #[test]
    fn the_address_of_another_nodes_libvirt_has_a_place_for_its_name() {
        let config = Config::parse(LEAST).expect("good");
        assert_eq!(config.migrate_uri, "qemu+ssh://{node}/system?no_tty=1");
        assert!(problems("[libvirt]\nmigrate_uri = \"qemu+tcp://n1/system\"\n").contains("{node}"));
    }

    #[test]
    fn verification_needs_a_quorum_that_exists() {
        let found = problems("[verification]\naddresses = [\"10.0.0.1\"]\nquorum = 2\n");
        assert!(found.contains("quorum is 2"), "{found}");
    }
}
