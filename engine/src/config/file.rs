//! The file as people write it. Raw first, resolved once.

use super::api::RawApi;
use super::limits::RawLimits;
use super::policies::RawPolicies;
use super::proactive::{RawProactive, RawTelemetry};
use super::{Config, Fence, Preset, Problem, TimingOverrides};
use crate::pages::Place;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use steadfast_core::feature_level::FeatureLevel;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Raw contents; everything optional, so that one mistake hides no other.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    cluster: Cluster,
    timing: TimingOverrides,
    limits: RawLimits,
    proactive: RawProactive,
    telemetry: RawTelemetry,
    node: Node,
    storage: Storage,
    libvirt: Libvirt,
    watchdog: Watchdog,
    reset: Reset,
    verification: Verification,
    policies: RawPolicies,
    api: RawApi,
    run: Run,
    fence: Vec<RawFence>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cluster {
    name: Option<String>,
    preset: Preset,
    feature_level: Option<FeatureLevel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Node {
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Storage {
    directory: Option<PathBuf>,
    device: Option<PathBuf>,
    shared_paths: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Libvirt {
    uri: Option<String>,
    migrate_uri: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Watchdog {
    device: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reset {
    sysrq: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Verification {
    addresses: Vec<IpAddr>,
    quorum: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Run {
    directory: Option<PathBuf>,
    state_directory: Option<PathBuf>,
    never_paused: bool,
    realtime: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawFence {
    node: Option<String>,
    agent: Option<String>,
    timeout_ms: Option<u64>,
    options: BTreeMap<String, String>,
}

/// Reads `text`; what cannot be read is reported and left out, so that the rest is checked too.
pub(crate) fn read<F: Default + DeserializeOwned>(text: &str) -> (F, Vec<Problem>) {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors.iter().map(|error| problem(text, error)).collect();
    if !problems.is_empty() {
        return (F::default(), problems);
    }
    loop {
        match F::deserialize(toml::de::Deserializer::from(table.clone())) {
            Ok(file) => return (file, problems),
            Err(error) => {
                problems.push(problem(text, &error));
                let removed = error.span().is_some_and(|span| remove(table.get_mut(), &span));
                if !removed {
                    return (F::default(), problems);
                }
            }
        }
    }
}

/// Removes the innermost entry that `span` lies in; false if there is none.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let around = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if descend(value, span) {
            return true;
        }
        if around(key.span()) || around(value.span()) {
            found = Some(key.clone());
        }
    }
    found.is_some_and(|key| table.remove(&key).is_some())
}

fn descend(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(inner) => remove(inner, span),
        DeValue::Array(items) => items.iter_mut().any(|item| descend(item, span)),
        _ => false,
    }
}

fn problem(text: &str, error: &toml::de::Error) -> Problem {
    let line =
        error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let message = error.message().replace('\n', " ");
    let (what, remedy) = match message.split_once(", expected ") {
        Some((what, expected)) => {
            (what.replace("unknown field", "unknown key"), format!("expected {expected}"))
        }
        None => (message, "see the commented file in examples".into()),
    };
    Problem { line, what, remedy }
}

/// The configuration that `file` says; what is missing or contradictory goes to `problems`.
pub(super) fn resolve(file: File, problems: &mut Vec<Problem>) -> Option<Config> {
    let told = problems.len();
    let fence: Vec<Fence> =
        file.fence.into_iter().filter_map(|raw| resolve_fence(raw, problems)).collect();
    check_fence(&fence, problems);
    let quorum = resolve_quorum(&file.verification, problems);
    let mut limits = file.limits.resolve(problems);
    limits.proactive = file.proactive.resolve(problems);
    let telemetry = file.telemetry.resolve(problems);
    let state = file.run.state_directory.unwrap_or_else(|| "/var/lib/steadfast".into());
    let policies = file.policies.resolve(&state, problems);
    let migrate_uri = resolve_migrate_uri(file.libvirt.migrate_uri, problems);
    let name = file.cluster.name.filter(|name| !name.is_empty());
    let place = resolve_place(file.storage.directory, file.storage.device, problems);
    // A mistyped value was told already; do not call it missing too.
    if name.is_none() && told == 0 {
        problems.push(missing("cluster.name", "name = \"production\""));
    }
    let run = file.run.directory.unwrap_or_else(|| "/run/steadfast".into());
    let socket = file.api.socket.clone().unwrap_or_else(|| run.join("api.sock"));
    let api = file.api.resolve(problems);
    Some(Config {
        file: None,
        cluster: name?,
        preset: file.cluster.preset,
        feature_level: resolve_level(file.cluster.feature_level, problems),
        overrides: file.timing,
        limits,
        labels: file.node.labels,
        storage: place?,
        shared_paths: file.storage.shared_paths,
        libvirt_uri: file.libvirt.uri.unwrap_or_else(|| "qemu:///system".into()),
        migrate_uri,
        watchdog: file.watchdog.device,
        sysrq: file.reset.sysrq.unwrap_or_else(|| "/proc/sysrq-trigger".into()),
        verification: file.verification.addresses,
        verification_quorum: quorum,
        policies,
        socket,
        api,
        run,
        state,
        never_paused: file.run.never_paused,
        realtime: file.run.realtime.unwrap_or(true),
        fence,
        telemetry,
    })
}

/// No release speaks more than it knows.
fn resolve_level(raw: Option<FeatureLevel>, problems: &mut Vec<Problem>) -> FeatureLevel {
    let newest = FeatureLevel::NEWEST;
    let wanted = raw.unwrap_or(newest);
    if wanted > newest {
        problems.push(Problem::new(
            format!("cluster.feature_level is {wanted}, this release speaks {newest}"),
            "remove the key, or upgrade steadfastd on this node",
        ));
    }
    wanted.min(newest)
}

/// Exactly one of both.
fn resolve_place(
    directory: Option<PathBuf>,
    device: Option<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Option<Place> {
    let problem = match (directory, device) {
        (Some(directory), None) => return Some(Place::Directory(directory)),
        (None, Some(device)) => return Some(Place::Device(device)),
        (None, None) => missing(
            "storage.directory or storage.device",
            "directory = \"/mnt/shared/steadfast\", or device = \"/dev/mapper/steadfast\"",
        ),
        (Some(directory), Some(device)) => Problem::new(
            format!("storage.directory is {directory:?} and storage.device is {device:?}"),
            "keep the one that holds the store",
        ),
    };
    problems.push(problem);
    None
}

pub(crate) fn missing(key: &str, example: &str) -> Problem {
    Problem::new(format!("{key} is missing"), format!("add e.g. {example}"))
}

/// Default: by ssh, which must not ask for a password.
fn resolve_migrate_uri(raw: Option<String>, problems: &mut Vec<Problem>) -> String {
    let uri = raw.unwrap_or_else(|| "qemu+ssh://{node}/system?no_tty=1".into());
    if !uri.contains("{node}") {
        problems.push(Problem::new(
            format!("libvirt.migrate_uri is {uri:?}, the same for every node"),
            "put {node} where the name of the node belongs, e.g. qemu+tls://{node}/system",
        ));
    }
    uri
}

/// Default: more than half of the addresses.
fn resolve_quorum(raw: &Verification, problems: &mut Vec<Problem>) -> usize {
    let count = raw.addresses.len();
    let quorum = raw.quorum.unwrap_or(count / 2 + 1);
    if raw.quorum.is_some() && !(1..=count).contains(&quorum) {
        problems.push(Problem::new(
            format!("verification.quorum is {quorum}, but there are {count} addresses"),
            format!("set it from 1 to {}, or leave it out", count.max(1)),
        ));
    }
    quorum
}

fn resolve_fence(raw: RawFence, problems: &mut Vec<Problem>) -> Option<Fence> {
    let RawFence { node, agent, timeout_ms, options } = raw;
    let (Some(node), Some(agent)) = (node, agent) else {
        problems
            .push(missing("fence.node or fence.agent", "node = \"n2\", agent = \"fence_ipmilan\""));
        return None;
    };
    Some(Fence {
        node,
        agent,
        timeout: Duration::from_millis(timeout_ms.unwrap_or(30_000)),
        options,
    })
}

fn check_fence(fence: &[Fence], problems: &mut Vec<Problem>) {
    for (index, entry) in fence.iter().enumerate() {
        if fence[..index].iter().any(|earlier| earlier.node == entry.node) {
            problems.push(Problem::new(
                format!("two fence agents for node {}", entry.node),
                "keep one [[fence]] section a node",
            ));
        }
    }
}
