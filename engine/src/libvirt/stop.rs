//! Pulling the plug of a guest, and removing a definition that belongs elsewhere.

use super::start::{call_off, is_transport, lookup};
use super::{Inner, lock, thread};
use crate::guests::{Guest, pidfd};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Wall};
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// libvirt asks QEMU politely for seconds before it kills; we do not wait that long.
const PATIENCE: Duration = Duration::from_secs(1);
/// A libvirtd that hung and goes on carries out at once what it had been asked over connections that were
/// lost since. So long without a lost connection, which probes tell within 4 s, it had gone on.
const LEFTOVERS: Duration = Duration::from_secs(6);
/// How often a lost destroy looks whether libvirtd can be reached.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A scan that failed is repeated after this time.
const SCAN_AGAIN: Duration = Duration::from_millis(10);

/// Stops under way. libvirt acts on a VM, not on one process of it: a destroy or a shutdown that hangs, and for
/// which nobody waits any more, would hit a later start.
#[derive(Debug, Default)]
pub struct Stopping(Mutex<BTreeMap<VmId, Stop>>);

#[derive(Debug, Default)]
struct Stop {
    /// An answer is to come.
    asked: bool,
    /// Calls that libvirt may carry out yet.
    calls: usize,
}

/// A call until it has returned, whoever waits for it.
pub struct Call(Arc<Stopping>, VmId);

impl Stopping {
    /// False if the answer of an earlier request is to come.
    fn begin(&self, vm: &VmId) -> bool {
        !std::mem::replace(&mut lock(&self.0).entry(vm.clone()).or_default().asked, true)
    }

    fn end(&self, vm: &VmId) {
        self.change(vm, |stop| stop.asked = false);
    }

    /// Marks a call that libvirt may carry out until this is dropped.
    pub fn call(stopping: &Arc<Self>, vm: &VmId) -> Call {
        lock(&stopping.0).entry(vm.clone()).or_default().calls += 1;
        Call(stopping.clone(), vm.clone())
    }

    fn has_call(&self, vm: &VmId) -> bool {
        lock(&self.0).get(vm).is_some_and(|stop| stop.calls > 0)
    }

    /// What a start of this VM waits for.
    pub fn reason(&self, vm: &VmId) -> Option<&'static str> {
        match lock(&self.0).get(vm)? {
            Stop { asked: true, .. } => Some("waiting for a destroy of it"),
            Stop { asked: false, .. } => Some(
                "waiting for a stop of it that hangs in libvirt and could hit the new start \
                 (restart libvirtd if this stays; guests keep running)",
            ),
        }
    }

    fn change(&self, vm: &VmId, change: impl FnOnce(&mut Stop)) {
        let mut all = lock(&self.0);
        let Some(stop) = all.get_mut(vm) else { return };
        change(stop);
        if !stop.asked && stop.calls == 0 {
            all.remove(vm);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.change(&self.1, |stop| stop.calls -= 1);
    }
}

pub fn destroy(inner: &Arc<Inner>, vm: VmId) {
    call_off(inner, &vm);
    if !inner.stopping.begin(&vm) {
        // The destroy under way answers for this one, too.
        return;
    }
    let (worker, victim) = (inner.clone(), vm.clone());
    let spawned = thread("libvirt-destroy", move || {
        let result = plug(&worker, &victim);
        end(&worker, victim, result);
    });
    if let Err(error) = spawned {
        end(inner, vm, Err(error));
    }
}

fn end(inner: &Arc<Inner>, vm: VmId, result: anyhow::Result<()>) {
    inner.stopping.end(&vm);
    let result = result.map_err(|error| format!("cannot destroy VM {vm}: {error:#}"));
    if let Err(error) = &result {
        tracing::warn!(%vm, error, "a VM could not be destroyed");
    } else {
        tracing::info!(%vm, "VM destroyed");
    }
    inner.emit(Event::StopEnded { vm, result });
    inner.scan();
}

fn plug(inner: &Arc<Inner>, vm: &VmId) -> anyhow::Result<()> {
    if let Err(error) =
        ask_libvirt(inner, vm, "destroy a VM", |domain| domain.destroy().map(|()| 0))
    {
        tracing::info!(%vm, error = format!("{error:#}"), "libvirt did not destroy; killing");
    }
    kill(inner, vm)
}

/// `Action::ShutDownVm`: nobody waits for it, but a start of this VM does.
pub fn shut_down(inner: &Arc<Inner>, vm: VmId) {
    let worker = inner.clone();
    let spawned = thread("libvirt-shutdown", move || {
        let asked = ask_libvirt(&worker, &vm, "shut a VM down", |domain| domain.shutdown());
        match asked {
            Ok(()) => tracing::info!(%vm, "the guest is asked to shut down"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::info!(%vm, error, "the guest could not be asked to shut down");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(error = format!("{error:#}"), "no thread for libvirt; raise TasksMax");
    }
}

fn ask_libvirt(
    inner: &Arc<Inner>,
    vm: &VmId,
    what: &'static str,
    ask: fn(&Domain) -> Result<u32, Error>,
) -> anyhow::Result<()> {
    if inner.stopping.has_call(vm) {
        bail!("an earlier stop hangs in libvirt");
    }
    let (wanted, worker) = (vm.clone(), inner.clone());
    let call = Stopping::call(&inner.stopping, vm);
    let abandoned = Arc::new(AtomicBool::new(false));
    let withdrawn = abandoned.clone();
    let pending = inner.connection.begin(what, move |connect| {
        let Some(domain) = lookup(connect, &wanted)? else { return Ok(()) };
        if withdrawn.load(Ordering::Acquire) {
            bail!("withdrawn: it took too long to reach libvirt");
        }
        let result = ask(&domain);
        match &result {
            Err(error) if !connect.is_alive().unwrap_or(false) || is_transport(error) => {
                outlast(&worker, call);
            }
            _ => drop(call),
        }
        match result {
            // It does not run: that is what is asked for.
            Err(error) if error.code() == ErrorNumber::OperationInvalid => Ok(()),
            result => Ok(result.map(drop)?),
        }
    })?;
    match pending.wait(PATIENCE) {
        Some(result) => result,
        None => {
            abandoned.store(true, Ordering::Release);
            bail!("libvirt did not answer within {} ms", PATIENCE.as_millis())
        }
    }
}

/// The connection died in mid-call: libvirtd may carry it out when it goes on.
fn outlast(inner: &Arc<Inner>, call: Call) {
    let connection = inner.connection.clone();
    let spawned = thread("libvirt-lost", move || {
        let mut since = Wall::now();
        while since.elapsed() < LEFTOVERS {
            std::thread::sleep(LOOK_AGAIN);
            if connection.healthy().is_err() {
                since = Wall::now();
            }
        }
        drop(call);
    });
    if let Err(error) = spawned {
        tracing::warn!(error = format!("{error:#}"), "no thread for libvirt; raise TasksMax");
    }
}

/// Kills whatever process of `vm` is left, and waits until it has exited.
///
/// # Errors
/// If it does not exit within the deadline.
pub fn kill(inner: &Inner, vm: &VmId) -> anyhow::Result<()> {
    let end = Wall::now() + inner.deadline;
    for guest in processes(inner, vm, end)? {
        let Some(fd) = pidfd::open(guest.process)? else { continue };
        let pid = guest.process.pid;
        tracing::info!(%vm, pid, "killing the guest's process");
        pidfd::kill(&fd).with_context(|| format!("cannot kill process {pid}"))?;
        if !pidfd::wait(&fd, end.saturating_duration_since(Wall::now()))? {
            bail!(
                "process {pid} does not exit after SIGKILL: its storage hangs; it is gone when \
                 storage answers or the node is reset"
            );
        }
    }
    Ok(())
}

/// Whether a process of `vm` can execute now.
///
/// # Errors
/// If processes cannot be read.
pub fn is_present(inner: &Inner, vm: &VmId) -> anyhow::Result<bool> {
    Ok(!processes(inner, vm, Wall::now() + PATIENCE)?.is_empty())
}

fn processes(inner: &Inner, vm: &VmId, end: Wall) -> anyhow::Result<Vec<Guest>> {
    let guests = inner.guests.get().context("guests are not watched yet")?;
    loop {
        match guests.look() {
            Ok(mut guests) => {
                guests.retain(|guest| guest.vm == *vm);
                return Ok(guests);
            }
            Err(error) if Wall::now() >= end => return Err(error),
            Err(_) => std::thread::sleep(SCAN_AGAIN),
        }
    }
}

pub fn undefine(inner: &Arc<Inner>, vm: VmId) {
    if let Some(guests) = inner.guests.get() {
        guests.forget(&vm);
    }
    let worker = inner.clone();
    let spawned = thread("libvirt-undefine", move || {
        let wanted = vm.clone();
        let result = worker.connection.call("undefine a VM", move |connect| {
            let Some(domain) = lookup(connect, &wanted)? else { return Ok(false) };
            if domain.is_active()? {
                bail!("it is active");
            }
            Ok(domain.undefine_flags(UNDEFINE).map(|()| true)?)
        });
        match result {
            Ok(true) => tracing::info!(%vm, "definition of a VM that belongs elsewhere removed"),
            Ok(false) => {}
            Err(error) => {
                tracing::info!(%vm, error = format!("{error:#}"), "definition of a VM stays here");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(error = format!("{error:#}"), "no thread for libvirt; raise TasksMax");
    }
}

/// Whatever of the VM is kept beside its definition is stale here, but its NVRAM is shared.
const UNDEFINE: sys::virDomainUndefineFlagsValues = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroy_that_was_abandoned_keeps_its_vm_stopping_until_it_has_returned() {
        let (stopping, vm) = (Arc::new(Stopping::default()), VmId("a".into()));
        assert!(stopping.begin(&vm));
        assert!(!stopping.begin(&vm), "one answer for both");
        let call = Stopping::call(&stopping, &vm);
        stopping.end(&vm);
        assert!(stopping.reason(&vm).unwrap().contains("hangs in libvirt"));
        // A new request is answered by itself, and kills without libvirt.
        assert!(stopping.begin(&vm) && stopping.has_call(&vm));
        stopping.end(&vm);
        std::thread::spawn(move || drop(call)).join().unwrap();
        assert_eq!(stopping.reason(&vm), None);
        assert!(lock(&stopping.0).is_empty());
    }
}
