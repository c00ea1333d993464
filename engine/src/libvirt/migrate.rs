//! Live migration away from here. The agent drives it over two connections of its own: should the agent die,
//! libvirt gives the migration up and the guest goes on here. Until the hand-over it can be called off at any
//! moment; from then on libvirt is asked to abort it, and its word is waited for.

use super::connection::{Lane, Pending};
use super::start::lookup;
use super::{Inner, lock, thread};
use anyhow::{Context as _, bail};
use roxmltree::Document;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// How often a migration that waits looks whether it was called off.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// libvirt is asked again to abort until the migration has ended: it may not have begun yet.
const ABORT_AGAIN: Duration = Duration::from_millis(200);

/// Migrations away from here, under way.
#[derive(Default)]
pub struct Leaving(Mutex<BTreeMap<VmId, Job>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    /// libvirt has not seen it.
    Preparing,
    /// libvirt carries it out.
    HandedOver,
    /// Called off before the hand-over.
    CalledOff,
    /// Handed over, and libvirt is being asked to abort it.
    Aborting,
}

impl Leaving {
    fn begin(&self, vm: &VmId) -> bool {
        let mut jobs = lock(&self.0);
        let is_new = !jobs.contains_key(vm);
        jobs.entry(vm.clone()).or_insert(Job::Preparing);
        is_new
    }

    fn end(&self, vm: &VmId) {
        lock(&self.0).remove(vm);
    }

    fn is(&self, vm: &VmId, job: Job) -> bool {
        lock(&self.0).get(vm) == Some(&job)
    }

    /// False if it was called off: then libvirt must not see it.
    fn hand_over(&self, vm: &VmId) -> bool {
        self.change(vm, Job::Preparing, Job::HandedOver)
    }

    /// Calls it off; true if libvirt has it, and must be asked to abort it.
    fn call_off(&self, vm: &VmId) -> bool {
        !self.change(vm, Job::Preparing, Job::CalledOff)
            && self.change(vm, Job::HandedOver, Job::Aborting)
    }

    fn change(&self, vm: &VmId, from: Job, to: Job) -> bool {
        match lock(&self.0).get_mut(vm) {
            Some(job) if *job == from => {
                *job = to;
                true
            }
            _ => false,
        }
    }
}

pub fn migrate(inner: &Arc<Inner>, vm: VmId, uri: String, not_after: Instant) {
    if !inner.leaving.begin(&vm) {
        tracing::info!(%vm, "a migration of this VM is under way already; it answers for both");
        return;
    }
    let (worker, guest) = (inner.clone(), vm.clone());
    let spawned = thread("libvirt-migrate", move || {
        let result = run(&worker, &guest, &uri, not_after);
        end(&worker, guest, result);
    });
    if let Err(error) = spawned {
        end(inner, vm, Err(error));
    }
}

fn end(inner: &Arc<Inner>, vm: VmId, result: anyhow::Result<()>) {
    inner.leaving.end(&vm);
    let result = result.map_err(|error| format!("cannot migrate VM {vm}: {error:#}"));
    tracing::info!(%vm, ?result, "migration ended");
    inner.emit(Event::MigrationEnded { vm, result });
    inner.scan();
}

fn run(inner: &Arc<Inner>, vm: &VmId, uri: &str, not_after: Instant) -> anyhow::Result<()> {
    let (worker, guest, target) = (inner.clone(), vm.clone(), uri.to_owned());
    let pending = inner.connection.begin("migrate a VM", move |connect| {
        let domain = lookup(connect, &guest)?.context("libvirt does not know it")?;
        let flags = flags(&domain)?;
        let target = Lane::open(&target).with_context(|| {
            format!("libvirt at {target} does not answer; see libvirt.migrate_uri")
        })?;
        hand_over(&worker, &guest, not_after)?;
        let moved = domain.migrate2(&target.0, None, flags, None, None, 0);
        if moved.is_err()
            && let Err(error) = resume_leftover(&domain)
        {
            tracing::warn!(vm = %guest, %error, "a guest may be paused after a failed migration");
        }
        Ok(moved.map(drop)?)
    })?;
    outcome(inner, vm, &pending)
}

/// The last look at the clock, then the point of no return.
fn hand_over(inner: &Inner, vm: &VmId, not_after: Instant) -> anyhow::Result<()> {
    let now = (inner.clock)();
    if now > not_after {
        let late = now.since(not_after);
        bail!("too late by {late} before libvirt saw it: the lease allows no migration any more");
    }
    if !inner.leaving.hand_over(vm) {
        bail!("called off before libvirt saw it");
    }
    Ok(())
}

/// A migration takes its time; but one that was called off before libvirt saw it does not wait for a target
/// that does not answer.
fn outcome(inner: &Inner, vm: &VmId, pending: &Pending<()>) -> anyhow::Result<()> {
    loop {
        if let Some(result) = pending.look(LOOK_AGAIN) {
            return result;
        }
        if inner.leaving.is(vm, Job::CalledOff) {
            // Its thread may hang for long.
            return pending.wait(Duration::ZERO).unwrap_or_else(|| bail!("called off"));
        }
    }
}

/// `Action::AbortMigration`.
pub fn abort(inner: &Arc<Inner>, vm: VmId) {
    if !inner.leaving.call_off(&vm) {
        return;
    }
    let worker = inner.clone();
    let spawned = thread("libvirt-abort", move || {
        while worker.leaving.is(&vm, Job::Aborting) {
            let guest = vm.clone();
            let asked = worker.connection.call("abort a migration", move |connect| {
                let Some(domain) = lookup(connect, &guest)? else { return Ok(()) };
                Ok(abort_job(&domain)?)
            });
            tracing::info!(%vm, ?asked, "libvirt is asked to abort a migration");
            std::thread::sleep(ABORT_AGAIN);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(error = format!("{error:#}"), "no thread for libvirt; raise TasksMax");
    }
}

/// The `virt` crate does not wrap it.
fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is open through the call, which takes nothing else.
    #[allow(unsafe_code)]
    let result = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// A migration that broke off at its very end leaves the guest paused here; this is its home still, because its
/// target resumes it only after this process is gone. An incoming guest's job keeps this waiting.
///
/// # Errors
/// libvirt cannot say, or cannot resume it.
pub fn resume_leftover(domain: &Domain) -> Result<(), Error> {
    let (state, reason) = domain.get_state()?;
    let left = i32::try_from(sys::VIR_DOMAIN_PAUSED_MIGRATION);
    if state == sys::VIR_DOMAIN_PAUSED && Ok(reason) == left {
        tracing::warn!("a guest was left paused by a migration that broke off: it is resumed");
        domain.resume()?;
    }
    Ok(())
}

/// The target stays paused until the ledger gives it the VM; a guest whose disk fails is not moved.
fn flags(domain: &Domain) -> anyhow::Result<u32> {
    let flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PAUSED | sys::VIR_MIGRATE_ABORT_ON_ERROR;
    let is_uncached = is_uncached(&domain.get_xml_desc(0)?)?;
    Ok(if is_uncached { flags | sys::VIR_MIGRATE_UNSAFE } else { flags })
}

/// No disk is written through this host's page cache. libvirt knows few kinds of shared storage and calls all
/// others unsafe; that the disks of an HA VM are shared was checked when it came under HA.
fn is_uncached(xml: &str) -> anyhow::Result<bool> {
    let document = Document::parse(xml).context("its definition is no XML")?;
    let disks = document.descendants().filter(|node| node.has_tag_name("disk"));
    let is_safe = |disk: roxmltree::Node<'_, '_>| {
        let child = |name: &str| disk.children().find(|node| node.has_tag_name(name));
        let cache = child("driver").and_then(|driver| driver.attribute("cache"));
        let is_network = disk.attribute("type") == Some("network");
        child("readonly").is_some() || is_network || matches!(cache, Some("none" | "directsync"))
    };
    Ok(disks.into_iter().all(is_safe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> VmId {
        VmId("a".into())
    }

    #[test]
    fn a_migration_is_called_off_before_libvirt_sees_it_and_aborted_once_after() {
        let leaving = Leaving::default();
        assert!(!leaving.call_off(&vm()), "none is under way");
        assert!(leaving.begin(&vm()) && !leaving.begin(&vm()));
        assert!(!leaving.call_off(&vm()), "libvirt knows nothing of it");
        assert!(!leaving.hand_over(&vm()), "and never will");
        leaving.end(&vm());
        assert!(leaving.begin(&vm()) && leaving.hand_over(&vm()));
        assert!(leaving.call_off(&vm()) && leaving.is(&vm(), Job::Aborting));
        assert!(!leaving.call_off(&vm()), "one thread asks");
    }

    #[test]
    fn only_disks_past_the_page_cache_are_moved_against_libvirts_advice() {
        let domain = |disk: &str| format!("<domain><devices>{disk}</devices></domain>");
        let disk = |driver: &str| domain(&format!("<disk type='file'>{driver}</disk>"));
        assert!(is_uncached(&disk("<driver cache='none'/>")).unwrap());
        assert!(is_uncached(&disk("<readonly/>")).unwrap());
        assert!(is_uncached(&domain("<disk type='network'/>")).unwrap());
        assert!(!is_uncached(&disk("<driver cache='writeback'/>")).unwrap());
        assert!(!is_uncached(&disk("<driver/>")).unwrap());
    }
}
