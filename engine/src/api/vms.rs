//! Routes that change a VM: its high availability, and what the operator wants of it.

use super::change::{blocking, change, parse};
use super::errors::Refusal;
use super::read::{find_node, find_vm};
use super::wire::{Changed, Defined, EnableVm, MoveVm, SetPriority};
use crate::driver::{Agent, Live};
use crate::enrol;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::ledger::VmSpec;
use steadfast_core::message::Change;

type Shared = State<Arc<Agent>>;
type Answer = Result<Json<Changed>, Refusal>;

pub(super) async fn enable(State(agent): Shared, body: Bytes) -> Answer {
    let wanted: EnableVm = parse(&body)?;
    check_priority(wanted.priority)?;
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    let found = |name: &String| find_vm(&snapshot, name).map(|vm| vm.id.clone());
    let after: BTreeSet<VmId> = wanted.after.iter().map(found).collect::<Result<_, _>>()?;
    let worker = Arc::clone(&live);
    let shared_paths = agent.config.shared_paths.clone();
    let (spec, notes) = blocking(move || prepare(&worker, wanted, after, &shared_paths)).await?;
    let (vm, id) = (spec.name.clone(), spec.id.clone());
    let stamp = change(&live, Change::EnableVm(Box::new(spec))).await?;
    Ok(Json(Changed { vm, id, stamp: stamp.to_string(), notes }))
}

pub(super) async fn defined(
    State(agent): Shared,
    Path(name): Path<String>,
) -> Result<Json<Defined>, Refusal> {
    let live = agent.live()?;
    let look = move || {
        live.hypervisor.domain_xml(&name).map_err(|error| {
            let remedy = "name a VM that is defined on this node; see: virsh list --all";
            Refusal::not_found(format!("{error:#}"), remedy)
        })
    };
    let domain = blocking(look).await?;
    Ok(Json(Defined { id: domain.uuid, name: domain.name }))
}

pub(super) async fn disable(State(agent): Shared, Path(name): Path<String>) -> Answer {
    alter(&agent, &name, Change::DisableVm).await
}

pub(super) async fn start(State(agent): Shared, Path(name): Path<String>) -> Answer {
    alter(&agent, &name, Change::StartVm).await
}

pub(super) async fn stop(State(agent): Shared, Path(name): Path<String>) -> Answer {
    alter(&agent, &name, Change::StopVm).await
}

pub(super) async fn migrate(State(agent): Shared, Path(name): Path<String>, body: Bytes) -> Answer {
    let to = target(&agent, &body).await?;
    alter(&agent, &name, |vm| Change::MigrateVm { vm, to }).await
}

pub(super) async fn relocate(
    State(agent): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let to = target(&agent, &body).await?;
    alter(&agent, &name, |vm| Change::RelocateVm { vm, to }).await
}

pub(super) async fn set_priority(
    State(agent): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer {
    let SetPriority { priority } = parse(&body)?;
    check_priority(priority)?;
    alter(&agent, &name, |vm| Change::SetPriority { vm, priority }).await
}

fn check_priority(given: u16) -> Result<(), Refusal> {
    match given {
        0..=1_000 => Ok(()),
        _ => Err(Refusal::malformed(format!("priority is from 0 to 1000, got {given}"))),
    }
}

async fn target(agent: &Agent, body: &Bytes) -> Result<NodeId, Refusal> {
    let MoveVm { to } = parse(body)?;
    Ok(find_node(&*agent.snapshot().await?, &to)?.id)
}

/// Asks for a change of the HA VM of this name or UUID.
async fn alter(agent: &Agent, name: &str, wanted: impl FnOnce(VmId) -> Change) -> Answer {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    let found = find_vm(&snapshot, name)?;
    let stamp = change(&live, wanted(found.id.clone())).await?;
    let (vm, id) = (found.name.clone(), found.id.clone());
    Ok(Json(Changed { vm, id, stamp: stamp.to_string(), notes: Vec::new() }))
}

/// Blocks: libvirt and storage.
fn prepare(
    live: &Live,
    wanted: EnableVm,
    after: BTreeSet<VmId>,
    shared_paths: &[PathBuf],
) -> Result<(VmSpec, Vec<String>), Refusal> {
    let domain = live.hypervisor.domain_xml(&wanted.name).map_err(|error| {
        let remedy = format!("define it on this node first; see: virsh dominfo {}", wanted.name);
        let why = format!("{error:#}");
        match live.hypervisor.healthy() {
            Ok(()) => Refusal::not_found(why, remedy),
            Err(_) => Refusal::unavailable(why, remedy),
        }
    })?;
    let notes = check(&domain.xml, shared_paths)?;
    let xml = live.pages.put_catalogue(&domain.xml).map_err(|error| {
        Refusal::unavailable(format!("{error:#}"), "see `steadfast status`: is storage working?")
    })?;
    let EnableVm { priority, labels, max_restarts, max_relocations, on_shutdown, .. } = wanted;
    let spec = VmSpec {
        memory_mib: domain.memory_mib,
        vcpus: domain.vcpus,
        priority,
        labels,
        max_restarts,
        max_relocations,
        on_shutdown,
        after,
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
pub(super) fn is_local(path: &std::path::Path, shared_paths: &[PathBuf]) -> Option<String> {
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
