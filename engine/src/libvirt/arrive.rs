//! What arrives here by live migration, and what libvirt's hook may let pass.

use super::connection::daemons;
use super::start::lookup;
use super::{Inner, lock, thread};
use anyhow::{Context as _, bail};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// VMs that may arrive. Only in memory: what an earlier incarnation permitted and libvirt has not asked about yet
/// can no longer pass the hook.
#[derive(Default)]
pub struct Arrivals(Mutex<BTreeSet<VmId>>);

/// Why libvirt may begin to execute a VM under HA here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// This agent handed its start over, which was to be done until then.
    Start(Instant),
    /// It may arrive, paused.
    Arrival,
}

pub fn permit(inner: &Inner, vm: VmId) {
    lock(&inner.arriving.0).insert(vm);
}

/// One that has passed the hook already shows in scans, as unresolved, until it is present or ended.
pub fn forbid(inner: &Inner, vm: &VmId) {
    lock(&inner.arriving.0).remove(vm);
    inner.scan();
}

pub fn permission(inner: &Inner, vm: &VmId) -> Option<Permission> {
    if let Some(not_after) = inner.starting.is_handed_over(vm) {
        return Some(Permission::Start(not_after));
    }
    lock(&inner.arriving.0).contains(vm).then_some(Permission::Arrival)
}

/// libvirt is about to let `vm` arrive: from now on a process of it may come at any moment. The record outlives
/// the agent, and is settled by a scan, like that of a start in doubt.
///
/// # Errors
/// It may not arrive any more, or that could not be recorded: it must not pass.
pub fn pass(inner: &Inner, vm: &VmId) -> anyhow::Result<()> {
    // Not under the lock, which the lease path takes, too.
    inner.records.add(vm, &daemons()?, (inner.clock)())?;
    inner.records.doubt(vm);
    if lock(&inner.arriving.0).contains(vm) {
        return Ok(());
    }
    inner.records.remove(vm);
    bail!("its migration was called off")
}

/// libvirt is done with `vm`: what passed the hook has ended, or is being ended.
pub fn released(inner: &Inner, vm: &VmId) {
    // The record of a start of ours is settled by the one who waits for its call.
    if !inner.starting.has(vm) && inner.records.is_doubtful(vm) {
        inner.records.remove(vm);
    }
    inner.scan();
}

pub fn resume(inner: &Arc<Inner>, vm: VmId, not_after: Instant) {
    let (worker, guest) = (inner.clone(), vm.clone());
    let spawned = thread("libvirt-resume", move || {
        let result = run(&worker, &guest, not_after);
        end(&worker, guest, result);
    });
    if let Err(error) = spawned {
        end(inner, vm, Err(error));
    }
}

fn end(inner: &Arc<Inner>, vm: VmId, result: anyhow::Result<()>) {
    let result = result.map_err(|error| format!("cannot resume VM {vm}: {error:#}"));
    tracing::info!(%vm, ?result, "resume ended");
    inner.emit(Event::ResumeEnded { vm, result });
    inner.scan();
}

/// Withdrawn when libvirt keeps it waiting; once it is handed over, libvirt's word is waited for.
fn run(inner: &Arc<Inner>, vm: &VmId, not_after: Instant) -> anyhow::Result<()> {
    let handed_over = Arc::new(AtomicBool::new(false));
    let state = Arc::new(Mutex::new(false));
    let (worker, guest) = (inner.clone(), vm.clone());
    let (passed, withdrawn) = (handed_over.clone(), state.clone());
    let pending = inner.connection.begin("resume a VM", move |connect| {
        let domain = lookup(connect, &guest)?.context("libvirt does not know it")?;
        let (now, withdrawn) = ((worker.clock)(), lock(&withdrawn));
        if *withdrawn || now > not_after {
            bail!("too late: the lease allows no resume any more");
        }
        passed.store(true, Ordering::Release);
        drop(withdrawn);
        if domain.get_state()?.0 == sys::VIR_DOMAIN_PAUSED {
            domain.resume()?;
        }
        keep(connect, &domain, &guest);
        Ok(())
    })?;
    loop {
        if let Some(result) = pending.wait(inner.deadline) {
            return result;
        }
        let mut withdrawn = lock(&state);
        if !handed_over.load(Ordering::Acquire) {
            *withdrawn = true;
            bail!("libvirt did not answer within {} ms", inner.deadline.as_millis());
        }
    }
}

/// It arrived without a definition; one that outlives it is what people expect of a VM.
fn keep(connect: &Connect, domain: &Domain, vm: &VmId) {
    let define = || -> Result<(), Error> {
        let flags = sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE;
        let xml = domain.get_xml_desc(flags)?;
        Domain::define_xml(connect, &xml).map(drop)
    };
    if let Err(error) = define() {
        tracing::info!(%vm, %error, "a VM that arrived could not be defined; it runs");
    }
}
