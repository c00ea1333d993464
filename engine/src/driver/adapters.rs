//! Each adapter, started from the configuration.

use super::Agent;
use super::edge::{Edge, Fence as FenceEdge};
use crate::clock::Clock;
use crate::config::{Config, Fence};
use crate::fence::{FenceAgents, FenceConfig};
use crate::hypervisor::Hypervisor;
use crate::libvirt::{self, Settings};
use crate::pages::ClusterFile;
use crate::policy::{Kind, PolicyStatus, PolicyStore};
use crate::record::RunRecord;
use crate::verify_ip::Verifier;
use crate::watchdog::{Source, Watchdog};
use crate::{Sink, verify_ip};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::config::Timing;
use steadfast_core::event::Event;
use steadfast_core::ids::{Digest, Incarnation};
use steadfast_core::message::PolicyDigests;

/// How long one call of libvirt may take.
const LIBVIRT_DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn hypervisor(
    agent: &Agent,
    incarnation: Incarnation,
    events: &Sink,
) -> Result<Arc<Hypervisor>> {
    let config = &agent.config;
    if let Edge::Demo(seat) = &agent.edge {
        return Ok(Arc::new(Hypervisor::Demo(Arc::clone(seat))));
    }
    let settings = Settings {
        uri: config.libvirt_uri.clone(),
        run_directory: config.run.clone(),
        call_deadline: LIBVIRT_DEADLINE,
        incarnation,
    };
    let started =
        libvirt::Hypervisor::start(settings, Arc::new(|| Clock.now()), Arc::clone(events))?;
    Ok(Arc::new(Hypervisor::Libvirt(started)))
}

pub(super) fn policies(config: &Config, events: &Sink) -> Result<Arc<PolicyStore>> {
    let staged = Mutex::<PolicyDigests>::default();
    let (events, settings) = (Arc::clone(events), config.policies.settings.clone());
    PolicyStore::start(config.policies.folder.clone(), settings, move |status| {
        log_policy(status);
        if let (Some(kind), true) = (status.kind, status.deciding) {
            let mut digests = staged.lock().unwrap_or_else(PoisonError::into_inner);
            let digest = Digest::try_from(status.digest.clone()).unwrap_or_default();
            *match kind {
                Kind::NodePriority => &mut digests.node_priority,
                Kind::Placement => &mut digests.placement,
                Kind::Risk => &mut digests.risk,
            } = digest;
            events(Event::PoliciesStaged(*digests));
        }
    })
}

fn log_policy(status: &PolicyStatus) {
    let PolicyStatus { name, version, file, state, last_error, deciding, .. } = status;
    let kind = status.kind.map(|kind| kind.name()).unwrap_or("unknown");
    match last_error {
        Some(error) => tracing::warn!(file, name, version, kind, ?state, %error, "policy failed"),
        None => tracing::info!(file, name, version, kind, ?state, deciding, "policy"),
    }
}

pub(super) fn watchdog(
    agent: &Agent,
    timing: &Timing,
    record: &RunRecord,
    events: &Sink,
) -> Result<Option<Watchdog>> {
    if let Edge::Demo(seat) = &agent.edge {
        let source = Source::Demo(Arc::clone(seat));
        return Watchdog::of(source, timing, record.clone(), Clock, Arc::clone(events)).map(Some);
    }
    let Some(device) = &agent.config.watchdog else {
        tracing::warn!("no watchdog is configured: only a fence agent frees this node's VMs");
        return Ok(None);
    };
    let device = device.to_str().context("[watchdog] device is not UTF-8")?;
    Watchdog::start(device, timing, record.clone(), Clock, Arc::clone(events)).map(Some)
}

pub(super) fn fence(agent: &Agent, stored: &ClusterFile, events: &Sink) -> FenceEdge {
    if let Edge::Demo(seat) = &agent.edge {
        return FenceEdge::Demo(Arc::clone(seat));
    }
    let known = |fence: &Fence| {
        let node = stored.nodes.iter().find(|node| node.name == fence.node)?.id;
        let (agent, options) = (PathBuf::from(&fence.agent), fence.options.clone());
        Some(FenceConfig { node, agent, options, timeout: fence.timeout })
    };
    let agents = agent.config.fence.iter().filter_map(known).collect();
    FenceEdge::Agents(FenceAgents::new(agents, Arc::clone(events)))
}

/// Without an answer nobody calls a node's network isolated: the rest of the agent goes on.
pub(super) fn verification(agent: &Agent, events: &Sink) -> Arc<Verifier> {
    let config = &agent.config;
    let verifier = Arc::<Verifier>::default();
    if config.verification.is_empty() || agent.edge.is_demo() {
        return verifier;
    }
    let (quorum, addresses) = (Some(config.verification_quorum), config.verification.clone());
    let started = verify_ip::start(addresses, quorum, Arc::clone(events), Arc::clone(&verifier));
    if let Err(error) = started {
        tracing::warn!(error = format!("{error:#}"), "verification IPs are not asked");
    }
    verifier
}
