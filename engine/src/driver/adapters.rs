//! Each adapter, started from the configuration.

use crate::Sink;
use crate::clock::Clock;
use crate::config::Config;
use crate::libvirt::{Hypervisor, Settings};
use crate::pages::ClusterFile;
use crate::policy::{Kind, Limits, PolicyStatus, PolicyStore};
use crate::record::RunRecord;
use crate::watchdog::Watchdog;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::config::Timing;
use steadfast_core::event::Event;
use steadfast_core::ids::{Digest, Incarnation};

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
    let events = Arc::clone(events);
    PolicyStore::start(config.policies.clone(), Limits::default(), move |status| {
        log_policy(status);
        if status.kind == Some(Kind::NodePriority) && status.deciding {
            let digest = Digest::try_from(status.digest.clone()).unwrap_or_default();
            events(Event::PolicyActivated { digest });
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
    Watchdog::start(device, timing.watchdog, record.clone(), Clock, Arc::clone(events)).map(Some)
}
