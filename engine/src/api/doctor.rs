//! `GET /v1/doctor`: is this node set up so that the promises hold? Answered even while the agent waits for something.

use super::errors::Refusal;
use super::plan::{self, Plans};
use super::vms::is_local;
use crate::clock::Clock;
use crate::corosync;
use crate::doctor::elsewhere::{Definition, Surroundings};
use crate::doctor::{Check, Facts, Report, certificates, elsewhere, links, outlook, sources};
use crate::driver::{Agent, Live};
use crate::hypervisor::Hypervisor;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::ids::VmId;
use steadfast_core::snapshot::Snapshot;

/// How long corosync is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// After so many definitions that libvirt does not tell, it is not asked for more.
const SILENCES: usize = 2;

pub(super) async fn doctor(State(agent): State<Arc<Agent>>) -> Result<Json<Report>, Refusal> {
    let snapshot = agent.snapshot().await;
    let ready = agent.live().and_then(|live| Ok((live, snapshot?)));
    let plans = match &ready {
        Ok((live, snapshot)) => plan::make_all(live, snapshot).await.ok(),
        Err(_) => None,
    };
    let work = move || match ready {
        Ok((live, snapshot)) => {
            let facts = Facts {
                timing: live.timing.clone(),
                read_back: live.read_back.as_ref().and_then(|said| said.get()),
                storage: agent.config.storage.to_string(),
                warnings: agent.warnings_by_finder(),
                asked: asked(&agent, &live, &snapshot, plans.as_ref()),
            };
            Report::live(&agent.config, &snapshot, &facts)
        }
        Err(refusal) => Report::waiting(&agent.config, refusal.detail(), refusal.remedy()),
    };
    // It reads files: never on the threads that serve.
    let told = tokio::task::spawn_blocking(work).await;
    told.map(Json).map_err(|error| Refusal::unavailable(error.to_string(), "report it"))
}

/// Blocks: libvirt and corosync.
fn asked(agent: &Agent, live: &Live, snapshot: &Snapshot, plans: Option<&Plans>) -> Vec<Check> {
    let name = |id: &VmId| {
        let known = snapshot.vms.iter().find(|vm| vm.id == *id);
        known.map_or_else(|| id.to_string(), |vm| vm.name.clone())
    };
    let mut all = outlook::checks(plans, name);
    // A demonstration has neither disks nor corosync.
    if matches!(*live.hypervisor, Hypervisor::Libvirt(_)) {
        let shared_paths = &agent.config.shared_paths;
        let around = Surroundings {
            shared_paths,
            is_local: &|path| is_local(path, shared_paths),
            has_network: &elsewhere::has_network,
        };
        all.extend(elsewhere::checks(&definitions(live, snapshot), &around));
        all.push(links::check(&corosync::read_links(PATIENCE), snapshot));
    }
    let now = i64::try_from(Clock.wall_ms() / 1_000).unwrap_or(i64::MAX);
    all.extend(certificates::checks(agent.config.api.tls.as_ref(), now));
    all.push(sources::check(&live.telemetry.report(&snapshot.node.name)));
    all
}

/// Those of this node's HA VMs.
fn definitions(live: &Live, snapshot: &Snapshot) -> Vec<Definition> {
    let mut silent = 0;
    let own = snapshot.vms.iter().filter(|vm| vm.owner.id == snapshot.node.id);
    let define = |vm: &steadfast_core::snapshot::VmView| {
        let told = match silent < SILENCES {
            true => live.hypervisor.domain_xml(&vm.id.0).map_err(|error| format!("{error:#}")),
            false => Err("libvirt was not asked: it does not answer".into()),
        };
        silent += usize::from(told.is_err());
        Definition { vm: vm.name.clone(), xml: told.map(|domain| domain.xml) }
    };
    own.map(define).collect()
}
