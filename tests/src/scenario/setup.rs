//! What there is before a story begins.
//!
//! | line | default |
//! |---|---|
//! | `nodes 5` | 3 |
//! | `timing fast`, `timing standard`, `timing calm`, each with `full_failure=3s` and the like | standard |
//! | `fence agents for all`, `fence agents for n1 n2` | for none |
//! | `verification IPs` | none |
//! | `time rule off` (nodes can be paused from outside) | on |
//! | `vm web on n1 priority=900` and the like: `vm.rs` | no VM |
//! | `clock n2 +0.5%` | exact |
//! | `policies late`, `silent`, `wrong`, `lying`, `trapping`, `wild` | honest |
//! | `policies shipped` | plain ones: most free memory, lowest node |
//! | `n3 starts off` | on |
//! | `n4 is not configured` | it is |
//! | `n3 has memory=4096` (MiB) | 65536 |
//! | `witness on`, `witness off` | on with two nodes |
//! | `limit max_evictions 1`, or `flaps`, `flap_window`, `parallel_starts`, `budget_window` and the like | see `Limits` |
//! | `hosts freeze`, `migrate`, `fail over` (what becomes of VMs of a host that is shut down or rebooted) | freeze at a reboot only |
//! | `proactive drain`, `shadow`, `warn`, `off`, with `important=800` and `max_drained=0` | nobody asks risk policies |
//! | `reboots take 8s`, `reboots never` (after a reset or a fence agent) | 20 s |
//! | `begin cold` | when all is well |
//! | `afterwards nothing` (do not heal everything after the end) | all must come right |

use super::vm::VmSetup;
use super::words::{Names, length, rate};
use crate::sim::clock::{MS, SECOND, Time};
use crate::sim::plan::{Class, Plan, Wish};
use crate::sim::policy::Mood;
use crate::sim::rng::Rng;
use std::collections::BTreeMap;
use steadfast_core::config::{Builtin, Limits, Timing};
use steadfast_core::host_shutdown::HostShutdown;
use steadfast_core::proactive::{Mode, Settings};
use steadfast_core::time::Millis;

/// What there is.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Number of nodes.
    pub nodes: usize,
    /// Timing of every machine.
    pub timing: Timing,
    /// Nodes with a fence agent, as bits.
    pub fence_agents: u64,
    /// Verification IPs are configured.
    pub verification: bool,
    /// Rule 4 is allowed.
    pub time_rule: bool,
    /// VMs by index.
    pub vms: Vec<VmSetup>,
    /// Clock rates by node, ticks per million.
    pub rates: Vec<u64>,
    /// How policies behave.
    pub mood: Mood,
    /// The shipped policies, and not the simulator's plain ones: most free memory, lowest node.
    pub shipped: bool,
    /// Who answers when a policy is asked; `None`: those policies, as they are built into the agent.
    pub host: Option<Builtin>,
    /// Nodes that are off when the story begins, as bits.
    pub off: u64,
    /// Nodes that the cluster does not know yet, as bits.
    pub unknown: u64,
    /// Memory of nodes that have not 64 GiB.
    pub memory: BTreeMap<usize, u64>,
    /// Limits of every machine.
    pub limits: Limits,
    /// Risk policies are asked.
    pub watched: bool,
    /// A node that went down comes back after this.
    pub reboot: Option<Time>,
    /// The story begins when nodes are switched on.
    pub cold: bool,
    /// Everything must come right after the end.
    pub heals: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 3,
            timing: Timing::standard(Millis(1_100)),
            fence_agents: 0,
            verification: false,
            time_rule: true,
            vms: Vec::new(),
            rates: vec![1_000_000; 48],
            mood: Mood::Honest,
            shipped: false,
            host: None,
            off: 0,
            unknown: 0,
            memory: BTreeMap::new(),
            limits: Limits::default(),
            watched: false,
            reboot: Some(20 * SECOND),
            cold: false,
            heals: true,
        }
    }
}

impl Setup {
    /// Names that may be used so far.
    #[must_use]
    pub fn names(&self) -> Names {
        let ours = self.vms.iter().map(|vm| vm.spec.name.clone());
        let others = (1..=self.nodes).map(|n| format!("other-{n}"));
        Names { nodes: self.nodes, vms: ours.chain(others).collect() }
    }

    /// Takes a line, if it says what there is.
    ///
    /// # Errors
    /// If it does and is wrong.
    pub fn take(&mut self, words: &[&str]) -> Result<bool, String> {
        let names = self.names();
        match words {
            ["nodes", count] => {
                let count = count.parse().ok().filter(|n| (2..=48).contains(n));
                self.nodes = count.ok_or("2 to 48 nodes are possible")?;
            }
            ["timing", preset, changes @ ..] => self.timing = timing(preset, changes)?,
            ["fence", "agents", "for", nodes @ ..] => self.fence_agents = names.mask(nodes)?,
            ["verification", "IPs"] => self.verification = true,
            ["time", "rule", "off"] => self.time_rule = false,
            ["vm", name, "on", home, rest @ ..] => {
                let vm = VmSetup::parse(name, names.node(home)?, rest)?;
                self.vms.push(vm);
            }
            ["clock", node, change] => self.rates[names.node(node)?] = rate(change)?,
            ["policies", "shipped"] => self.shipped = true,
            ["policies", mood] => self.mood = self::mood(mood)?,
            [node, "is", "not", "configured"] => self.unknown |= 1 << names.node(node)?,
            [node, "starts", "off"] => self.off |= 1 << names.node(node)?,
            [node, "has", memory] => {
                let memory = memory.strip_prefix("memory=").and_then(|mib| mib.parse().ok());
                self.memory.insert(names.node(node)?, memory.ok_or("write memory=MIB")?);
            }
            ["witness", "on"] => self.limits.witness = Some(true),
            ["witness", "off"] => self.limits.witness = Some(false),
            ["hosts", "freeze"] => self.limits.host_shutdown = HostShutdown::Freeze,
            ["hosts", "migrate"] => self.limits.host_shutdown = HostShutdown::Migrate,
            ["hosts", "fail", "over"] => self.limits.host_shutdown = HostShutdown::Failover,
            ["proactive", mode, rest @ ..] => self.proactive(mode, rest)?,
            ["limit", name, value] => limit(&mut self.limits, name, value)?,
            ["reboots", "take", time] => self.reboot = Some(length(time)?),
            ["reboots", "never"] => self.reboot = None,
            ["begin", "cold"] => self.cold = true,
            ["afterwards", "nothing"] => self.heals = false,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Risk policies are asked every five seconds; three answers in a row count.
    fn proactive(&mut self, mode: &str, changes: &[&str]) -> Result<(), String> {
        let mode = match mode {
            "off" => Mode::Off,
            "shadow" => Mode::Shadow,
            "warn" => Mode::Warn,
            "drain" => Mode::Drain,
            _ => return Err(format!("no such mode: {mode}")),
        };
        let mut settings = Settings { mode, well_after: Millis(30_000), ..Settings::default() };
        for change in changes {
            let number = |key: &str| change.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
            match (number("important"), number("max_drained")) {
                (Some(least), _) => settings.important = least,
                (_, Some(most)) => settings.max_drained = Some(most.into()),
                _ => return Err(format!("not understood: {change}")),
            }
        }
        self.limits.proactive = settings;
        self.watched = true;
        Ok(())
    }

    /// The simulator's plan for it: no faults, no chance.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let wish = Wish { nodes: Some(self.nodes), class: Some(Class::Quiet), ..Wish::default() };
        let mut plan = Plan::draw(0, wish, &mut Rng::still());
        plan.class = Class::Swarm; // Whatever the story does may end guests.
        plan.vms = self.vms.len();
        plan.timing = self.timing.clone();
        plan.fence_agents = self.fence_agents;
        plan.verification = self.verification;
        plan.never_paused = self.time_rule;
        plan.limits = self.limits.clone();
        plan.mood = self.mood;
        plan.shipped = self.shipped;
        plan.host = self.host;
        plan.rates = self.rates[..self.nodes].to_vec();
        plan.faults.clear();
        plan
    }
}

fn timing(preset: &str, changes: &[&str]) -> Result<Timing, String> {
    let change = |key: &str| {
        let found = changes.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        found.map(length).transpose().map(|time| time.map(|time| Millis(time / MS)))
    };
    let membership = change("membership")?.unwrap_or(Millis(1_100));
    let mut timing = match preset {
        "fast" => Timing::fast(membership),
        "standard" => Timing::standard(membership),
        "calm" => Timing::calm(membership),
        _ => return Err(format!("no such preset: {preset}; there are fast, standard and calm")),
    };
    let known = ["membership", "full_failure", "network_isolation", "storage_isolation"];
    let more = ["boot_grace", "fence_timeout"];
    for word in changes {
        let key = word.split('=').next().unwrap_or_default();
        if !known.contains(&key) && !more.contains(&key) {
            return Err(format!("no such time-out: {key}; there are {known:?} and {more:?}"));
        }
    }
    let set = |target: &mut Millis, key: &str| -> Result<(), String> {
        *target = change(key)?.unwrap_or(*target);
        Ok(())
    };
    set(&mut timing.full_failure, "full_failure")?;
    set(&mut timing.network_isolation, "network_isolation")?;
    set(&mut timing.storage_isolation, "storage_isolation")?;
    set(&mut timing.boot_grace, "boot_grace")?;
    set(&mut timing.fence_timeout, "fence_timeout")?;
    Ok(timing)
}

fn limit(limits: &mut Limits, name: &str, value: &str) -> Result<(), String> {
    let millis = || length(value).map(|time| Millis(time / MS));
    let number = || value.parse::<u32>().map_err(|_| format!("not a number: {value}"));
    match name {
        "max_evictions" => limits.max_evictions = Some(number()? as usize),
        "flaps" => limits.flaps = number()?,
        "flap_window" => limits.flap_window = millis()?,
        "parallel_starts" => limits.parallel_starts = number()? as usize,
        "parallel_migrations" => limits.parallel_migrations = number()? as usize,
        "migration_timeout" => limits.migration_timeout = millis()?,
        "host_freeze" => limits.host_freeze = millis()?,
        "shutdown_timeout" => limits.shutdown_timeout = millis()?,
        "budget_window" => limits.budget_window = millis()?,
        _ => return Err(format!("no such limit: {name}")),
    }
    Ok(())
}

fn mood(word: &str) -> Result<Mood, String> {
    match word {
        "honest" => Ok(Mood::Honest),
        "late" => Ok(Mood::Late),
        "silent" => Ok(Mood::Silent),
        "wrong" => Ok(Mood::Wrong),
        "lying" => Ok(Mood::Lying),
        "trapping" => Ok(Mood::Trapping),
        "wild" => Ok(Mood::Wild),
        _ => Err(format!("no such mood: {word}; see tests/src/scenario/setup.rs")),
    }
}
