//! What this node knows of itself: facts for policies, and the health of its equipment.
//!
//! | source | reads | by |
//! |---|---|---|
//! | `smart` | disks | smartctl |
//! | `edac` | memory errors | sysfs |
//! | `heat` | temperatures, fans | hwmon, thermal zones |
//! | `ipmi`, `redfish` | power supplies, fans, sensors | ipmitool, curl |
//! | `arrays`, `paths` | disk arrays, storage paths | /proc/mdstat, multipathd |
//! | `links` | network errors, flaps, bonds | sysfs |
//! | `pressure` | processes that wait | PSI |
//! | `kernel` | hardware errors in its log | /dev/kmsg |
//! | `clock` | synchronisation | chronyc |
//!
//! Each source has a thread of its own, is optional, and is bounded in time; none is on the way of a lease. What it reads goes to
//! the [`Hub`], with its age; a risk policy is asked with all of it (`risk.rs`). A file of the kernel that hangs holds up
//! its own source only, which is then seen to grow old.

mod controller;
mod history;
mod hub;
mod kernel;
mod machine;
mod redundancy;
pub mod risk;
mod smart;
mod tool;

use crate::Sink;
use crate::hypervisor::Hypervisor;
use history::History;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_sdk::wire::NodeFacts;

pub use controller::Redfish;
pub use hub::{Hub, PostedReport, SourceReport, State, TelemetryReport};

/// How often the node's facts are measured.
const INTERVAL: Duration = Duration::from_secs(5);
/// Before libvirt has answered for the first time, look more often.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// Sources need little; all memory of the agent is locked.
const STACK: usize = 256 << 10;
/// Longer files of the kernel are not what they should be.
const LONGEST_FILE: u64 = 64 << 10;

/// Names of all sources.
pub const SOURCES: [&str; 11] = [
    "arrays", "clock", "edac", "heat", "ipmi", "kernel", "links", "paths", "pressure", "redfish",
    "smart",
];

/// What an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Sources that are switched off.
    pub off: BTreeSet<String>,
    /// How often sources of files are read, and the risk policy is asked.
    pub interval: Duration,
    /// How often tools are run.
    pub tool_interval: Duration,
    /// A tool that takes longer is killed.
    pub limit: Duration,
    /// Where `proc`, `sys` and `dev` are.
    pub root: PathBuf,
    /// Disks that smartctl is asked about; none: those that it finds.
    pub disks: Vec<String>,
    /// Network devices that are watched; none: those that are hardware.
    pub links: Vec<String>,
    /// Options of ipmitool, for a controller that is not this machine's own.
    pub ipmi: Vec<String>,
    /// A controller that speaks Redfish.
    pub redfish: Option<Redfish>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            off: BTreeSet::new(),
            interval: Duration::from_secs(30),
            tool_interval: Duration::from_secs(120),
            limit: Duration::from_secs(20),
            root: "/".into(),
            disks: Vec::new(),
            links: Vec::new(),
            ipmi: Vec::new(),
            redfish: None,
        }
    }
}

/// What a source measures with.
struct Scene<'a> {
    root: &'a Path,
    settings: &'a Settings,
    limit: Duration,
    now: Instant,
}

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: String,
    value: i64,
}

fn found(name: String, value: i64) -> Found {
    Found { name, value }
}

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// It is not there.
    Missing(String),
    /// It took too long.
    TimedOut(String),
    /// Anything else.
    Failed(String),
}

impl Trouble {
    /// The trouble of one of many.
    fn of(self, name: &str) -> Self {
        match self {
            Self::TimedOut(why) => Self::TimedOut(format!("{name}: {why}")),
            Self::Failed(why) => Self::Failed(format!("{name}: {why}")),
            missing @ Self::Missing(_) => missing,
        }
    }
}

/// What a source read, and the first trouble it had.
#[derive(Debug, Default)]
struct Measured {
    readings: Vec<Found>,
    trouble: Option<Trouble>,
}

impl Measured {
    fn add(&mut self, name: String, value: Option<i64>) {
        self.readings.extend(value.map(|value| found(name, value)));
    }

    fn note(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }

    #[cfg(test)]
    fn is_missing(&self) -> bool {
        matches!(self.trouble, Some(Trouble::Missing(_)))
    }
}

impl From<Trouble> for Measured {
    fn from(trouble: Trouble) -> Self {
        Self { readings: Vec::new(), trouble: Some(trouble) }
    }
}

type Measure = fn(&Scene<'_>, &mut History) -> Measured;

/// How each source measures, and whether it runs a tool.
fn measure_of(source: &str) -> (Measure, bool) {
    match source {
        "smart" => (smart::measure, true),
        "ipmi" => (|scene, _| controller::ipmi(scene), true),
        "redfish" => (|scene, _| controller::redfish(scene), true),
        "paths" => (|scene, _| redundancy::paths(scene), true),
        "clock" => (|scene, _| kernel::clock(scene), true),
        "edac" => (machine::edac, false),
        "heat" => (machine::heat, false),
        "arrays" => (|scene, _| redundancy::arrays(scene), false),
        "links" => (redundancy::links, false),
        "kernel" => (|scene, _| kernel::log(scene, kernel::since_boot()), false),
        _ => (|scene, _| machine::pressure(scene), false),
    }
}

/// Starts every source that is not switched off.
///
/// # Errors
/// No thread can be started.
pub fn watch(settings: &Arc<Settings>, hub: &Arc<Hub>) -> std::io::Result<()> {
    for name in SOURCES {
        let (measure, is_tool) = measure_of(name);
        let interval = if is_tool { settings.tool_interval } else { settings.interval };
        let unwanted = name == "redfish" && !controller::wants_redfish(settings);
        if settings.off.contains(name) || unwanted {
            hub.expect(name, State::Off, interval);
            continue;
        }
        hub.expect(name, State::Waiting, interval);
        let (settings, hub) = (Arc::clone(settings), Arc::clone(hub));
        let thread = std::thread::Builder::new().name(format!("read-{name}")).stack_size(STACK);
        thread.spawn(move || {
            let mut history = History::default();
            loop {
                let began = Instant::now();
                hub.begin(name, began);
                let (root, limit) = (settings.root.as_path(), settings.limit);
                let scene = Scene { root, settings: &settings, limit, now: began };
                hub.take(name, measure(&scene, &mut history), began, Instant::now());
                std::thread::sleep(interval);
            }
        })?;
    }
    Ok(())
}

// --- files of the kernel ---------------------------------------------------------------------------------

/// What a file says, without white space around it.
fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LONGEST_FILE).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

fn number(path: &Path) -> Option<i64> {
    text(path)?.parse().ok()
}

/// Entries of a folder whose names begin so, and go on with a digit if that is not empty, in order.
fn files(folder: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let is_one = |name: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| prefix.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut found: Vec<_> = named.filter(|(name, _)| is_one(name)).collect();
    found.sort();
    found
}

/// One word of a reading's name: dots stand between words.
fn word(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let word: String = text.trim().chars().map(plain).take(64).collect();
    word.trim_matches('-').to_owned()
}

// --- facts -----------------------------------------------------------------------------------------------

/// What does not change.
#[derive(Debug, Clone)]
pub struct Named {
    /// Corosync node id.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Labels from the configuration.
    pub labels: BTreeMap<String, String>,
}

/// Starts to measure the node's facts; each measurement is an [`Event::FactsMeasured`].
///
/// # Errors
/// No thread can be started.
pub fn start(named: Named, hypervisor: Weak<Hypervisor>, events: Sink) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("telemetry".into());
    thread.spawn(move || {
        let mut told = None;
        loop {
            // It is gone when a demonstration's node is.
            let Some(measured) = hypervisor.upgrade() else { return };
            let facts = measure(&named, &measured);
            drop(measured);
            let is_known = facts.memory_mib > 0;
            if told.as_ref() != Some(&facts) {
                events(Event::FactsMeasured(Box::new(facts.clone())));
                told = Some(facts);
            }
            std::thread::sleep(if is_known { INTERVAL } else { FIRST_INTERVAL });
        }
    })?;
    Ok(())
}

fn measure(named: &Named, hypervisor: &Hypervisor) -> NodeFacts {
    let host = hypervisor.facts();
    NodeFacts {
        id: named.id.0,
        name: named.name.clone(),
        memory_mib: host.memory_mib,
        memory_free_mib: host.memory_free_mib,
        real_memory_free_mib: fs::read_to_string("/proc/meminfo")
            .map_or(0, |text| available_mib(&text)),
        vcpus: host.vcpus,
        vcpus_used: host.vcpus_used,
        load_permille: fs::read_to_string("/proc/loadavg").map_or(0, |text| load_permille(&text)),
        labels: named.labels.clone(),
        ..NodeFacts::default()
    }
}

/// `MemAvailable: 12345678 kB`, in MiB. In steps, because it never stands still and everything that changes is told again.
fn available_mib(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| (kib >> 16) << 6)
}

/// `0.52 0.58 0.59 1/467 12345` is 520: thousandths of a CPU.
fn load_permille(text: &str) -> u32 {
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    let (whole, part) = first.split_once('.').unwrap_or((first, "0"));
    let hundredths: String = part.chars().chain("00".chars()).take(2).collect();
    let whole: u32 = whole.parse().unwrap_or(0);
    whole.saturating_mul(1_000).saturating_add(hundredths.parse::<u32>().unwrap_or(0) * 10)
}

#[cfg(test)]
#[path = "telemetry/tests.rs"]
mod tests;
