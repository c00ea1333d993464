//! From a configuration to a running machine.
//!
//! The thread that will keep the lease brings everything up itself. What is missing is waited for, with one clear
//! message; the API answers meanwhile. The order serves an agent that restarts over running guests: what the
//! machine must have comes first, and what it can do without for a while connects in the background.

use super::agent::{Agent, Live};
use super::edge::Edge;
use super::hands::Hands;
use super::questions::{self, Questions};
use super::{BeatGaps, Driver, Inbox, Requests, adapters};
use crate::Sink;
use crate::clock::Clock;
use crate::config::{Bound, Config, Problem, Problems, assumed, bounds};
use crate::corosync::{self, ClusterFacts};
use crate::decisions::Decisions;
use crate::hook;
use crate::journal::Journal;
use crate::pages::{ClusterFile, PageStore};
use crate::policy::PolicyStore;
use crate::record::{RunRecord, next_incarnation};
use crate::setup::cluster::activation;
use crate::telemetry;
use crate::virtualization;
use crate::watchdog::{self, Watchdog};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::config::{Builtin, Config as MachineConfig, Timing};
use steadfast_core::ids::{BootId, Identity, NodeId};
use steadfast_core::ledger::Ledger;
use steadfast_core::machine::Machine;
use steadfast_core::time::{Instant, Millis};

/// How often a missing part is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// How often corosync's time-outs are compared with those in use.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How long the lease path is waited for, when the risk policy is to be asked.
const FACTS_PATIENCE: Duration = Duration::from_secs(2);
/// How long corosync's map is waited for.
const CMAP_PATIENCE: Duration = Duration::from_secs(2);
/// What corosync said last, in the run directory: an agent that restarts while corosync is down still knows
/// which node it is, and keeps its guests on the storage lease.
const CLUSTER_CACHE: &str = "corosync.json";

/// Why the lease path did not begin.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operator has to change the configuration.
    Configuration(Problems),
    /// The system lacks something basic; another incarnation may have more luck.
    Broken(anyhow::Error),
    /// The node of a demonstration lost its power before it had begun.
    PowerCut,
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Configuration(problems)
    }
}

/// What the machine is made of.
struct Parts {
    boot: BootId,
    me: NodeId,
    timing: Timing,
    pages: Arc<PageStore>,
    record: RunRecord,
}

/// Brings everything up, then keeps the lease until the shutdown is requested.
///
/// # Errors
/// Plain mistakes in the configuration, or a system that gives no threads; everything else is waited for.
pub(super) fn live(agent: &Arc<Agent>) -> Result<(), Failure> {
    let inbox = Arc::new(Inbox::default());
    let events: Sink = {
        let inbox = Arc::clone(&inbox);
        Arc::new(move |event| inbox.push(event))
    };
    agent.edge.begin(&inbox);
    if !agent.edge.is_demo() {
        // First of all: libvirt may be starting VMs already.
        let gate = wait(agent, &inbox, || hook::gate::open(agent))?;
        hook::check::start(Arc::clone(agent), gate)
            .map_err(|error| Failure::Broken(anyhow::Error::from(error).context("no thread")))?;
    }
    if !agent.edge.is_demo() {
        wait(agent, &inbox, || activation::may_begin(&agent.config.state))?;
    }
    let parts = gather(agent, &inbox, &events)?;
    let name = check_cluster(&agent.config, parts.pages.cluster(), parts.me)?;
    agent.warn("fence", unknown_victims(&agent.config, parts.pages.cluster()));
    if !agent.edge.is_demo() {
        corosync_check(agent, parts.timing.membership);
    }
    let assembled = assemble(agent, &parts, &inbox, &events, &name);
    let (driver, first, now) = assembled.map_err(Failure::Broken)?;
    agent.warn("priority", agent.edge.raise());
    agent.warn("watchdog", watchdog_trouble(agent));
    driver.hands.last_words.tell_earlier(events);
    driver.run(first, now);
    Ok(())
}

/// Waits for everything that the machine cannot begin without.
fn gather(agent: &Agent, inbox: &Inbox, events: &Sink) -> Result<Parts, Failure> {
    let (config, edge) = (&agent.config, &agent.edge);
    let boot = wait(agent, inbox, || {
        std::fs::create_dir_all(&config.run).with_context(|| {
            format!("cannot create {}: is [run] directory writable?", config.run.display())
        })?;
        edge.boot()
    })?;
    let known = wait(agent, inbox, || known_cluster(edge, &config.run, boot))?;
    let timing = config.timing(known.membership)?;
    let me = known.local;
    let mut opening = edge.opening(config.storage.clone());
    let pages = wait(agent, inbox, || opening.open(me, &config.run, Arc::clone(events)))?;
    // After the store: its lock is what makes the earlier incarnation surely dead.
    let record = wait(agent, inbox, || next_incarnation(&config.run, boot))?;
    Ok(Parts { boot, me, timing, pages, record })
}

/// `work`, until it succeeds. Says once why not.
fn wait<T>(
    agent: &Agent,
    inbox: &Inbox,
    mut work: impl FnMut() -> Result<T>,
) -> Result<T, Failure> {
    loop {
        match work() {
            Ok(value) => return Ok(value),
            Err(_) if inbox.has_ended() => return Err(Failure::PowerCut),
            Err(error) => agent.wait_for(format!("{error:#}")),
        }
        std::thread::sleep(RETRY);
    }
}

/// What was known of the cluster in this boot.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    boot: BootId,
    local: NodeId,
    membership: Millis,
}

fn known_cluster(edge: &Edge, run: &Path, boot: BootId) -> Result<Known> {
    let path = run.join(CLUSTER_CACHE);
    match edge.cluster(CMAP_PATIENCE) {
        Ok(ClusterFacts { local, membership, .. }) => {
            let known = Known { boot, local, membership };
            let text = serde_json::to_vec(&known).context("corosync's facts cannot be encoded")?;
            let written = std::fs::write(&path, text);
            written.with_context(|| format!("cannot write {}", path.display()))?;
            Ok(known)
        }
        Err(error) => cached_cluster(&path, boot).ok_or(error),
    }
}

fn cached_cluster(path: &Path, boot: BootId) -> Option<Known> {
    let known: Known = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (known.boot == boot).then_some(known)
}

/// The name of this node, if the configuration and the store speak of the same cluster.
fn check_cluster(config: &Config, stored: &ClusterFile, me: NodeId) -> Result<String, Problems> {
    let mut problems = Vec::new();
    if stored.cluster != config.cluster {
        problems.push(Problem::new(
            format!(
                "mismatched cluster: the configuration says {:?}, {} says {:?}",
                config.cluster, config.storage, stored.cluster
            ),
            format!("set cluster.name or {} right", config.storage.key()),
        ));
    }
    if stored.level > config.feature_level {
        problems.push(Problem::new(
            format!(
                "{} was made by a release of feature level {}, this node speaks {}",
                config.storage, stored.level, config.feature_level
            ),
            "upgrade steadfastd on this node, and remove cluster.feature_level from its configuration",
        ));
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let found = stored.nodes.iter().find(|node| node.id == me);
    Ok(found.map_or_else(|| me.to_string(), |node| node.name.clone()))
}

/// A typing error, or a node that is yet to be added: no reason to leave guests alone.
fn unknown_victims(config: &Config, stored: &ClusterFile) -> Option<String> {
    let known = |name: &String| stored.nodes.iter().any(|node| node.name == *name);
    let victims = config.fence.iter().map(|fence| &fence.node).filter(|name| !known(name));
    let unknown: Vec<&str> = victims.map(String::as_str).collect();
    (!unknown.is_empty()).then(|| {
        let names: Vec<&str> = stored.nodes.iter().map(|node| node.name.as_str()).collect();
        format!(
            "[[fence]] names {}, which the cluster did not have when this agent started (it had {}): correct \
             it, or, once that node was added, restart this agent (guests keep running)",
            unknown.join(", "),
            names.join(", ")
        )
    })
}

/// Corosync's time-outs may follow from the number of nodes, which changes while the agent runs.
fn corosync_check(agent: &Arc<Agent>, membership: Millis) {
    let agent = Arc::clone(agent);
    let thread = std::thread::Builder::new().name("corosync-check".into());
    let spawned = thread.spawn(move || {
        loop {
            std::thread::sleep(CHECK_EVERY);
            // Corosync's absence is told by others.
            let Ok(now) = corosync::read_membership_time() else { continue };
            let trouble = (now != membership).then(|| {
                format!(
                    "corosync needs {now} to notice a silent node, this agent reckons with {membership}: \
                     restart it (guests keep running)"
                )
            });
            agent.warn("corosync", trouble);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "corosync's time-outs are not watched");
    }
}

type Running = (Driver, steadfast_core::step::Step, Instant);

fn assemble(
    agent: &Arc<Agent>,
    parts: &Parts,
    inbox: &Arc<Inbox>,
    events: &Sink,
    name: &str,
) -> Result<Running> {
    let config = &agent.config;
    tell_timing(config, &parts.timing);
    let incarnation = parts.record.incarnation();
    let me = Identity { node: parts.me, boot: parts.boot, incarnation };
    let (decisions, taken) =
        Decisions::start(name, Arc::clone(inbox), &config.state, Arc::clone(&parts.pages))
            .context("cannot start the recorder's threads")?;
    let hypervisor = adapters::hypervisor(agent, incarnation, events)?;
    let policies = adapters::policies(config, events)?;
    let hands = Hands {
        watchdog: adapters::watchdog(agent, &parts.timing, &parts.record, events)?,
        fence: adapters::fence(agent, parts.pages.cluster(), events),
        questions: Questions::start(Arc::clone(&policies), Arc::clone(events))?,
        edge: agent.edge.clone(),
        network: agent.edge.network(events)?,
        pages: Arc::clone(&parts.pages),
        hypervisor: Arc::clone(&hypervisor),
        migrate_uri: config.migrate_uri.clone(),
        sysrq: config.sysrq.clone(),
        last_words: agent.edge.last_words(&config.state, parts.boot),
        events: Arc::clone(events),
        told_no_watchdog: false.into(),
    };
    let verification = adapters::verification(agent, events);
    let labels = config.labels.clone();
    let named = telemetry::Named { id: me.node, name: name.into(), labels };
    telemetry::start(named, Arc::downgrade(&hypervisor), Arc::clone(events))?;
    let hub = watch_equipment(config, inbox, &policies, events)?;
    let (requests, gaps) = (Arc::new(Requests::default()), Arc::new(BeatGaps::default()));
    agent.begin(Arc::new(Live {
        timing: parts.timing.clone(),
        read_back: hands.watchdog.as_ref().map(Watchdog::read_back),
        inbox: Arc::clone(inbox),
        requests: Arc::clone(&requests),
        gaps: Arc::clone(&gaps),
        decisions,
        policies,
        hypervisor,
        pages: Arc::clone(&parts.pages),
        telemetry: hub,
        verification,
    }));
    let journal = open_journal(&config.run);
    let now = Clock.now();
    tracing::info!(node = name, id = me.node.0, boot = %me.boot, incarnation = incarnation.0, "begun");
    let (machine, first) = Machine::new(machine_config(agent, parts, me, name, now), now);
    let wake_at = first.wake_at.0;
    let inbox = Arc::clone(inbox);
    let (decisions, releasing) = (taken, false.into());
    let pulse = <_>::default();
    let driver = Driver {
        machine,
        hands,
        inbox,
        journal,
        requests,
        decisions,
        pulse,
        beat: parts.timing.beat,
        gaps,
        news: Arc::clone(&agent.news),
        glimpse: <_>::default(),
        wake_at,
        releasing,
    };
    Ok((driver, first, now))
}

/// Reads this node's equipment, and asks the risk policy about it.
fn watch_equipment(
    config: &Config,
    inbox: &Arc<Inbox>,
    policies: &Arc<PolicyStore>,
    events: &Sink,
) -> Result<Arc<telemetry::Hub>> {
    let (settings, hub) = (Arc::new(config.telemetry.clone()), Arc::default());
    telemetry::watch(&settings, &hub).context("cannot start telemetry's threads")?;
    // A node that loses its power in a demonstration must not keep its policies.
    let (inbox, policies) = (Arc::clone(inbox), Arc::downgrade(policies));
    let facts = move || {
        let snapshot = inbox.snapshot(FACTS_PATIENCE)?;
        let own = snapshot.nodes.into_iter().find(|node| node.id == snapshot.node.id)?;
        Some((snapshot.at.0, own.facts))
    };
    let assess = move |question: Option<&_>| {
        let policies = policies.upgrade()?;
        Some(question.map(|question| questions::assess(&policies, question)))
    };
    let events = Arc::clone(events);
    telemetry::risk::start(settings.interval, Arc::clone(&hub), facts, assess, events)?;
    Ok(hub)
}

/// Once, at the start: what failures may cost, and whether time may prove this node dead.
fn tell_timing(config: &Config, timing: &Timing) {
    if let (Some(found), false) = (virtualization::evidence(), config.is_never_paused()) {
        tracing::warn!(found, "a virtual machine: time is no proof for it; see `steadfast doctor`");
    }
    for bound in bounds(timing, &assumed(config)) {
        let Bound { failure, role, fence_agent, bound_ms, sum, note, .. } = &bound;
        tracing::info!(failure, role, fence_agent, bound_ms, sum, note, "bound");
    }
}

fn open_journal(run: &Path) -> Option<Journal> {
    match Journal::start(run) {
        Ok(journal) => Some(journal),
        Err(error) => {
            tracing::warn!(%error, "no journal: is the run directory writable?");
            None
        }
    }
}

fn machine_config(
    agent: &Agent,
    parts: &Parts,
    me: Identity,
    name: &str,
    now: Instant,
) -> MachineConfig {
    let (config, stored) = (&agent.config, parts.pages.cluster());
    let nodes: BTreeMap<NodeId, String> =
        stored.nodes.iter().map(|node| (node.id, node.name.clone())).collect();
    MachineConfig {
        me,
        timing: parts.timing.clone(),
        genesis: Ledger { level: stored.level, ..Ledger::genesis(&stored.cluster, &nodes) },
        fence_agents: fenced_nodes(config, &nodes),
        verification: !config.verification.is_empty(),
        never_paused: time_proves(agent),
        inherited: parts.record.inherited(now),
        name: name.into(),
        level: config.feature_level,
        limits: config.limits.clone(),
        builtin: Builtin {
            node_priority: steadfast_policy_node_priority::builtin,
            placement: steadfast_policy_placement::builtin,
        },
    }
}

/// Time may prove this node dead (PROTOCOL section 5, rule 4): nothing pauses it from outside, and a dying agent does not
/// feed the watchdog.
fn time_proves(agent: &Agent) -> bool {
    agent.config.is_never_paused() && watchdog_trouble(agent).is_none()
}

/// Why a dying agent may feed the watchdog once more.
fn watchdog_trouble(agent: &Agent) -> Option<String> {
    let device = agent.config.watchdog.as_ref()?.to_str()?;
    (!agent.edge.is_demo() && !watchdog::outlives_agent(device)).then(|| {
        format!(
            "nobody keeps {device} open for this agent: its death would feed it once more, so that time is no proof \
             for this node; start the agent by systemd, with NotifyAccess=main and FileDescriptorStoreMax=4"
        )
    })
}

fn fenced_nodes(config: &Config, nodes: &BTreeMap<NodeId, String>) -> BTreeSet<NodeId> {
    let is_fenced = |name: &String| config.fence.iter().any(|fence| fence.node == *name);
    nodes.iter().filter(|(_, name)| is_fenced(name)).map(|(id, _)| *id).collect()
}
