//! What a node says of itself for others to compare, and the requirements that it can check alone.

use super::super::PREPARED;
use super::super::host::Host;
use super::super::journal::hex;
use super::super::prepare::watchdog;
use super::{activation, corosync};
use crate::config::Config;
use crate::doctor::{Check, Level};
use crate::fence;
use crate::pages::{self, Place};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steadfast_core::time::Millis;

/// Clocks further apart are worth a word; and no node joins.
const APART: (u64, u64) = (500, 10_000);
/// How long all fence agents of a node may take, in milliseconds, each.
const FENCE_PATIENCE_MS: u64 = 20_000;

/// A machine that wants to be a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Machine {
    /// Version of Steadfast.
    pub version: String,
    /// `PRETTY_NAME` of its system.
    pub system: String,
    /// `node prepare` was done.
    pub prepared: bool,
    /// `/dev/kvm` can be used.
    pub kvm: bool,
    /// Its watchdog, as its driver calls it.
    pub watchdog: Option<String>,
    /// That watchdog is the kernel's own.
    pub soft_watchdog: bool,
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

/// A node of a cluster, as its agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Facts {
    /// The machine.
    pub machine: Machine,
    /// The cluster, by its configuration.
    pub cluster: String,
    /// `cluster activate` was done.
    pub active: bool,
    /// Its agent keeps a lease or could: the machine runs.
    pub live: bool,
    /// The store as it sees it: its cluster and nodes; or why not.
    pub store: String,
    /// What was written beside it last, for others to read: it is the same one everywhere.
    pub token: String,
    /// The nodes in it.
    pub store_nodes: Vec<String>,
    /// SHA-256 of its policies, by file.
    pub policies: BTreeMap<String, String>,
    /// SHA-256 of the parts of the configuration that must be the same everywhere.
    pub settings: String,
    /// Version of its corosync.conf, 0 without one.
    pub corosync: u64,
    /// What it checked.
    pub checks: Vec<Check>,
}

/// Looks at a machine.
#[must_use]
pub fn machine(host: &Host) -> Machine {
    let release = host.text("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let watchdog = watchdog::devices(host).into_iter().next();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Machine {
        version: env!("CARGO_PKG_VERSION").into(),
        system: pretty.unwrap_or("unknown").trim_matches('"').into(),
        prepared: host.has(PREPARED),
        kvm: host.has("/dev/kvm"),
        soft_watchdog: watchdog.as_ref().is_some_and(watchdog::Device::is_soft),
        watchdog: watchdog.map(|device| device.identity),
        wall_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What a machine lacks, seen from a member whose version and clock are these.
#[must_use]
pub fn requirements(machine: &Machine, own: &Machine) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(if machine.prepared {
        Check::green("prepared", machine.system.clone())
    } else {
        Check::red("prepared", "the machine is not prepared", "run `steadfast node prepare` on it")
    });
    let (is, want) = (&machine.version, &own.version);
    checks.push(if is == want {
        Check::green("version", is.clone())
    } else {
        let text = format!("steadfast {is} here, {want} there");
        Check::red("version", text, format!("install {want} on it, or upgrade the others first"))
    });
    checks.push(if machine.kvm {
        Check::green("KVM", "/dev/kvm is there")
    } else {
        let text = "/dev/kvm is missing: guests only run emulated";
        Check::yellow("KVM", text, "switch virtualization on in the firmware")
    });
    checks.push(match &machine.watchdog {
        None => Check::red("watchdog", "none", "run `steadfast node prepare` again"),
        Some(name) if machine.soft_watchdog => {
            let text = format!("{name}: it does not help against a kernel that hangs");
            Check::yellow("watchdog", text, "a hardware watchdog")
        }
        Some(name) => Check::green("watchdog", name.clone()),
    });
    let apart = machine.wall_ms.abs_diff(own.wall_ms);
    let text = format!("{apart} ms apart");
    let remedy = "see `chronyc tracking` on both";
    checks.push(match apart {
        _ if apart > APART.1 => Check::red("clock", text, remedy),
        _ if apart > APART.0 => Check::yellow("clock", text, remedy),
        _ => Check::green("clock", text),
    });
    checks
}

/// What the agent of a member tells. Takes as long as its fence agents: for a thread of its own.
#[must_use]
pub fn facts(host: &Host, config: &Config, live: bool) -> Facts {
    let store = pages::look(&config.storage);
    let mut checks = vec![match &store {
        Ok(found) if found.cluster == config.cluster => Check::green("storage", found.words()),
        Ok(found) => {
            let remedy = format!("set {} right", config.storage.key());
            Check::red("storage", format!("it is {}", found.words()), remedy)
        }
        Err(error) => {
            Check::red("storage", format!("{error:#}"), "see its mount or its paths on this node")
        }
    }];
    let conf = host.text(corosync::PATH).and_then(|text| corosync::Conf::parse(&text).ok());
    checks.push(timing(config, conf.as_ref()));
    checks.push(verification(host, config));
    checks.extend(config.fence.iter().map(fence_agent));
    Facts {
        machine: machine(host),
        cluster: config.cluster.clone(),
        active: activation::is_active(host),
        live,
        store: store.as_ref().map_or_else(|error| format!("{error:#}"), pages::ClusterFile::words),
        store_nodes: store.map_or_else(
            |_| Vec::new(),
            |found| found.nodes.into_iter().map(|node| node.name).collect(),
        ),
        token: token_file(&config.storage)
            .and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default(),
        policies: policies(host, config),
        settings: settings(config),
        corosync: conf.map_or(0, |conf| conf.version),
        checks,
    }
}

/// Where a token is written that every node must read. On a device the newcomer's own slot was the token, when it joined.
fn token_file(place: &Place) -> Option<PathBuf> {
    match place {
        Place::Directory(folder) => Some(folder.join("token")),
        Place::Device(_) => None,
    }
}

/// Writes a new token.
///
/// # Errors
/// Storage fails.
pub(super) fn write_token(place: &Place) -> Result<()> {
    let Some(path) = token_file(place) else { return Ok(()) };
    let draft = path.with_extension("new");
    std::fs::write(&draft, super::membership::secret(16)?)?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, &path)
        .with_context(|| format!("cannot write {}: is the storage mounted?", path.display()))
}

fn timing(config: &Config, conf: Option<&corosync::Conf>) -> Check {
    let Some(conf) = conf else {
        return Check::yellow("timing", "corosync.conf was not made by `steadfast cluster`", "");
    };
    match config.timing(Millis(conf.membership_ms())) {
        Ok(_) => Check::green("timing", format!("safe with a token of {} ms", conf.token_ms)),
        Err(problems) => Check::red("timing", problems.to_string(), "steadfast config check"),
    }
}

fn verification(host: &Host, config: &Config) -> Check {
    const NAME: &str = "verification IPs";
    let (all, quorum) = (&config.verification, config.verification_quorum);
    if all.is_empty() {
        let text = "none: a node whose network is dead is only called Excluded, nothing is moved";
        return Check::yellow(NAME, text, "set [verification] addresses");
    }
    let answers = |address: &&std::net::IpAddr| {
        host.ask("ping", &["-n", "-c", "1", "-W", "2", &address.to_string()]).good
    };
    let count = all.iter().filter(answers).count();
    let text = format!("{count} of {} answer, {quorum} must", all.len());
    match count {
        _ if count < quorum => {
            Check::red(NAME, text, "see the VM network, or correct [verification] addresses")
        }
        _ if count < all.len() => Check::yellow(NAME, text, "see those that do not"),
        _ => Check::green(NAME, text),
    }
}

fn fence_agent(config: &crate::config::Fence) -> Check {
    let name = format!("fence agent for {}", config.node);
    let patience = config.timeout.as_millis().min(u128::from(FENCE_PATIENCE_MS));
    let asked = fence::FenceConfig {
        node: steadfast_core::ids::NodeId(0),
        agent: config.agent.clone().into(),
        options: config.options.clone(),
        timeout: Duration::from_millis(u64::try_from(patience).unwrap_or(FENCE_PATIENCE_MS)),
    };
    match fence::status(&asked) {
        Ok(said) => Check::green(&name, format!("{} answers: {said}", config.agent)),
        Err(error) => {
            let remedy = "try it by hand with the same options and action=status";
            Check::red(&name, format!("{error:#}"), remedy)
        }
    }
}

fn policies(host: &Host, config: &Config) -> BTreeMap<String, String> {
    let folder = &config.policies.folder;
    let counts = |name: &String| name.ends_with(".wasm") || name.ends_with(".json");
    let digest = |name: String| {
        let bytes = host.bytes(folder.join(&name)).ok()??;
        Some((name, hex(&Sha256::digest(bytes))))
    };
    host.names(folder).into_iter().filter(counts).filter_map(digest).collect()
}

fn settings(config: &Config) -> String {
    let Config { cluster, preset, overrides, storage, limits, .. } = config;
    let text = format!("{cluster} {preset:?} {overrides:?} {storage:?} {limits:?}");
    hex(&Sha256::digest(text)[..8])
}

/// What only shows when nodes are compared: `None` did not answer, and why.
#[must_use]
pub fn compare(nodes: &BTreeMap<String, std::result::Result<Facts, String>>) -> Vec<Check> {
    let mut checks = Vec::new();
    let count = nodes.len();
    checks.push(match count {
        0 | 1 => Check::red("nodes", format!("{count}"), "steadfast cluster invite NAME=ADDRESS"),
        _ => Check::green("nodes", format!("{count}")),
    });
    for (name, found) in nodes {
        if let Err(why) = found {
            let remedy = format!("see `systemctl status steadfastd` on {name}");
            checks.push(Check::red(&format!("{name}: agent"), why.clone(), remedy));
        }
    }
    let told: Vec<(&String, &Facts)> =
        nodes.iter().filter_map(|(name, found)| Some((name, found.as_ref().ok()?))).collect();
    let Some((first_name, first)) = told.first() else { return checks };
    checks.push(same(
        "version",
        &told,
        |facts| facts.machine.version.clone(),
        "upgrade the older ones",
    ));
    let remedy = "copy the folder of policies from one node to the others";
    checks.push(same("policies", &told, |facts| format!("{:?}", facts.policies), remedy));
    let remedy = "copy steadfast.toml from one node to the others, but for [node]";
    checks.push(same("settings", &told, |facts| facts.settings.clone(), remedy));
    let remedy = "repeat `steadfast cluster invite` for the newest node: it brings all to the same";
    checks.push(same("corosync.conf", &told, |facts| facts.corosync.to_string(), remedy));
    let remedy = "each node must see the same store: compare mounts, and paths of the device";
    checks.push(same("shared storage", &told, |facts| facts.store.clone(), remedy));
    let remedy =
        "each node must have the same directory mounted, and see what another writes at once";
    checks.push(same("token on shared storage", &told, |facts| facts.token.clone(), remedy));
    let names: Vec<&String> = nodes.keys().collect();
    let mut stored: Vec<&String> = first.store_nodes.iter().collect();
    stored.sort();
    if stored != names {
        let text = format!("the store knows {stored:?}, corosync {names:?}");
        let remedy = "repeat `steadfast cluster invite` for what is missing in one of them";
        checks.push(Check::red("nodes of the store", text, remedy));
    }
    for (name, facts) in &told {
        let named = |check: Check| Check { name: format!("{name}: {}", check.name), ..check };
        let alone = requirements(&facts.machine, &first.machine);
        let alone = alone.into_iter().filter(|check| check.name != "version" || name == first_name);
        checks.extend(alone.chain(facts.checks.clone()).map(named));
    }
    checks
}

fn same(
    name: &str,
    told: &[(&String, &Facts)],
    what: impl Fn(&Facts) -> String,
    remedy: &str,
) -> Check {
    let mut by: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, facts) in told {
        by.entry(what(facts)).or_default().push(node);
    }
    if by.len() == 1 {
        return Check::green(name, "the same on all nodes");
    }
    let words = by.iter().map(|(value, nodes)| format!("{}: {value}", nodes.join(", ")));
    Check::red(name, words.collect::<Vec<_>>().join("; "), remedy)
}

/// The worst of them.
#[must_use]
pub fn level(checks: &[Check]) -> Level {
    checks.iter().map(|check| check.level).max().unwrap_or(Level::Green)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn well() -> Machine {
        Machine {
            version: env!("CARGO_PKG_VERSION").into(),
            system: "Debian".into(),
            prepared: true,
            kvm: true,
            watchdog: Some("i6300ESB timer".into()),
            soft_watchdog: false,
            wall_ms: 1_000_000,
        }
    }

    fn node() -> Facts {
        Facts {
            machine: well(),
            cluster: "prod".into(),
            active: false,
            live: false,
            store: "the store of cluster \"prod\" with 2 nodes".into(),
            store_nodes: vec!["n1".into(), "n2".into()],
            token: "fresh".into(),
            policies: BTreeMap::new(),
            settings: "1".into(),
            corosync: 2,
            checks: vec![Check::green("storage", "there")],
        }
    }

    fn after(change: impl FnOnce(&mut Facts)) -> Vec<Check> {
        let mut other = node();
        change(&mut other);
        compare(&[("n1".into(), Ok(node())), ("n2".into(), Ok(other))].into())
    }

    #[test]
    fn two_whole_nodes_are_green_all_over() {
        assert_eq!(level(&after(|_| ())), Level::Green, "{:?}", after(|_| ()));
    }

    #[test]
    fn whatever_differs_or_is_missing_is_red_with_both_values_and_a_remedy() {
        type Change = fn(&mut Facts);
        let changes: [(&str, Change); 8] = [
            ("version", |facts| facts.machine.version = "9".into()),
            ("policies", |facts| drop(facts.policies.insert("a.wasm".into(), "1".into()))),
            ("settings", |facts| facts.settings = "2".into()),
            ("corosync.conf", |facts| facts.corosync = 3),
            ("shared storage", |facts| facts.store = "another".into()),
            ("n2: clock", |facts| facts.machine.wall_ms += 60_000),
            ("n2: watchdog", |facts| facts.machine.watchdog = None),
            ("n2: prepared", |facts| facts.machine.prepared = false),
        ];
        for (name, change) in changes {
            let found = after(change);
            let red: Vec<_> = found.iter().filter(|check| check.level == Level::Red).collect();
            assert!(red.len() == 1 && red[0].name == name, "{name}: {red:?}");
            assert!(!red[0].remedy.is_empty(), "{name}");
        }
        let silent = [("n1".into(), Ok(node())), ("n2".into(), Err("no answer".to_owned()))];
        assert_eq!(level(&compare(&silent.into())), Level::Red);
        assert_eq!(level(&compare(&[("n1".into(), Ok(node()))].into())), Level::Red);
    }
}
