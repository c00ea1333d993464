//! Each adapter, started from the configuration.

use crate::clock::Clock;
use crate::config::{Config, Fence};
use crate::fence::{FenceAgents, FenceConfig};
use crate::libvirt::{Hypervisor, Settings};
use crate::pages::ClusterFile;
use crate::policy::{Kind, PolicyStatus, PolicyStore};
use crate::record::RunRecord;
use crate::watchdog::Watchdog;
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
    config: &Config,
    incarnation: Incarnation,
    events: &Sink,
) -> Result<Arc<Hypervisor>> {
    let settings = Settings {
        uri: config.libvirt_uri.clone(),
        run_directory: config.run.clone(),
        call_deadline: LIBVIRT_DEADLINE,
        incarnation,
    };
    Hypervisor::start(settings, Arc::new(|| Clock.now()), Arc::clone(events))
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
    config: &Config,
    timing: &Timing,
    record: &RunRecord,
    events: &Sink,
) -> Result<Option<Watchdog>> {
    let Some(device) = &config.watchdog else {
        tracing::warn!("no watchdog is configured: only a fence agent frees this node's VMs");
        return Ok(None);
    };
    let device = device.to_str().context("[watchdog] device is not UTF-8")?;
    Watchdog::start(device, timing, record.clone(), Clock, Arc::clone(events)).map(Some)
}

pub(super) fn fence(config: &Config, stored: &ClusterFile, events: &Sink) -> FenceAgents {
    let known = |fence: &Fence| {
        let node = stored.nodes.iter().find(|node| node.name == fence.node)?.id;
        let (agent, options) = (PathBuf::from(&fence.agent), fence.options.clone());
        Some(FenceConfig { node, agent, options, timeout: fence.timeout })
    };
    FenceAgents::new(config.fence.iter().filter_map(known).collect(), Arc::clone(events))
}

/// Without an answer nobody calls a node's network isolated: the rest of the agent goes on.
pub(super) fn verification(config: &Config, events: &Sink) {
    if config.verification.is_empty() {
        return;
    }
    let quorum = Some(config.verification_quorum);
    let started = verify_ip::start(config.verification.clone(), quorum, Arc::clone(events));
    if let Err(error) = started {
        tracing::warn!(error = format!("{error:#}"), "verification IPs are not asked");
    }
}
