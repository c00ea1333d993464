//! Routes that change something: high availability of one VM, on or off.

use super::errors::Refusal;
use super::read::find_vm;
use super::wire::{Changed, EnableVm};
use crate::driver::{Agent, Live};
use crate::enrol;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::Stamp;
use steadfast_core::ledger::VmSpec;
use steadfast_core::message::Change;

/// How long an operator waits for the leader; after it the outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(15);

type Shared = State<Arc<Agent>>;
type Answer = Result<Json<Changed>, Refusal>;

pub(super) async fn enable(State(agent): Shared, body: Bytes) -> Answer {
    let wanted: EnableVm =
        serde_json::from_slice(&body).map_err(|error| Refusal::malformed(error.to_string()))?;
    if wanted.priority > 1_000 {
        let given = wanted.priority;
        return Err(Refusal::malformed(format!("priority is from 0 to 1000, got {given}")));
    }
    let live = agent.live()?;
    let worker = Arc::clone(&live);
    let shared_paths = agent.config.shared_paths.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(&worker, wanted, &shared_paths));
    let ended =
        |error: tokio::task::JoinError| Refusal::unavailable(error.to_string(), "report it");
    let (spec, notes) = prepared.await.map_err(ended)??;
    let (name, id) = (spec.name.clone(), spec.id.clone());
    let spec = Box::new(spec);
    let stamp =
        change(&live, |id| Event::ChangeRequested { id, change: Box::new(Change::EnableVm(spec)) })
            .await?;
    Ok(Json(Changed { vm: name, id, stamp: stamp.to_string(), notes }))
}

pub(super) async fn disable(State(agent): Shared, Path(name): Path<String>) -> Answer {
    let live = agent.live()?;
    let snapshot = agent.snapshot().await?;
    let found = find_vm(&snapshot, &name)?;
    let vm = found.id.clone();
    let stamp =
        change(&live, |id| Event::ChangeRequested { id, change: Box::new(Change::DisableVm(vm)) })
            .await?;
    let (vm, id) = (found.name.clone(), found.id.clone());
    Ok(Json(Changed { vm, id, stamp: stamp.to_string(), notes: Vec::new() }))
}

/// Blocks: libvirt and storage.
fn prepare(
    live: &Live,
    wanted: EnableVm,
    shared_paths: &[PathBuf],
) -> Result<(VmSpec, Vec<String>), Refusal> {
    let domain = live.hypervisor.domain_xml(&wanted.name).map_err(|error| {
        let remedy = format!("define it on this node first; see: virsh dominfo {}", wanted.name);
        Refusal::unavailable(format!("{error:#}"), remedy)
    })?;
    let notes = check(&domain.xml, shared_paths)?;
    let xml = live.pages.put_catalogue(&domain.xml).map_err(|error| {
        Refusal::unavailable(format!("{error:#}"), "see `steadfast status`: is storage working?")
    })?;
    let EnableVm { priority, labels, .. } = wanted;
    let spec = VmSpec {
        memory_mib: domain.memory_mib,
        vcpus: domain.vcpus,
        priority,
        labels,
        ..VmSpec::new(domain.uuid, &domain.name, xml)
    };
    Ok((spec, notes))
}

/// Warnings, if it can be HA.
fn check(xml: &str, shared_paths: &[PathBuf]) -> Result<Vec<String>, Refusal> {
    let is_local = |path: &std::path::Path| is_local(path, shared_paths);
    enrol::check(xml, shared_paths, is_local).map(|enrolled| enrolled.warnings).map_err(|found| {
        let whats: Vec<String> = found.iter().map(ToString::to_string).collect();
        Refusal::refused(whats.join("; "), "nothing was changed; ask again when this is done")
    })
}

/// Why `path` does not really lead to shared storage.
fn is_local(path: &std::path::Path, shared_paths: &[PathBuf]) -> Option<String> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) => return Some(format!("cannot be looked at: {error}")),
    };
    let is_below = |shared: &PathBuf| shared.canonicalize().is_ok_and(|top| real.starts_with(top));
    if !shared_paths.iter().any(is_below) {
        return Some(format!("is really {}", real.display()));
    }
    let device = |path: &std::path::Path| path.metadata().map(|found| found.dev()).ok();
    if device(&real) == device(std::path::Path::new("/")) {
        return Some("is on this node's root file system: shared storage is not mounted".into());
    }
    None
}

async fn change(live: &Live, event: impl FnOnce(u64) -> Event) -> Result<Stamp, Refusal> {
    let (id, told) = live.requests.begin();
    live.inbox.push(event(id));
    let outcome = tokio::time::timeout(PATIENCE, told).await;
    live.requests.forget(id);
    match outcome {
        Ok(Ok(Ok(stamp))) => Ok(stamp),
        Ok(Ok(Err(why))) => Err(Refusal::refused(why, "see `steadfast status`")),
        Ok(Err(_)) | Err(_) => Err(Refusal::unknown()),
    }
}
