//! Pulling the plug of a guest, and removing a definition that belongs elsewhere.

use super::start::{call_off, lookup};
use super::{Inner, lock, thread};
use crate::guests::{Guest, pidfd};
use anyhow::{Context as _, bail};
use std::sync::Arc;
use std::time::{Duration, Instant as Wall};
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use virt::error::ErrorNumber;
use virt::sys;

/// libvirt asks QEMU politely for seconds before it kills; we do not wait that long.
const PATIENCE: Duration = Duration::from_secs(1);
/// A scan that failed is repeated after this time.
const SCAN_AGAIN: Duration = Duration::from_millis(10);

pub fn destroy(inner: &Arc<Inner>, vm: VmId) {
    call_off(inner, &vm);
    if !lock(&inner.stopping).insert(vm.clone()) {
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
    lock(&inner.stopping).remove(&vm);
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
    if let Err(error) = ask_libvirt(inner, vm) {
        tracing::info!(%vm, error = format!("{error:#}"), "libvirt did not destroy; killing");
    }
    kill(inner, vm)
}

fn ask_libvirt(inner: &Arc<Inner>, vm: &VmId) -> anyhow::Result<()> {
    let wanted = vm.clone();
    let pending = inner.connection.begin("destroy a VM", move |connect| {
        let Some(domain) = lookup(connect, &wanted)? else { return Ok(()) };
        match domain.destroy() {
            // It does not run: that is what is asked for.
            Err(error) if error.code() == ErrorNumber::OperationInvalid => Ok(()),
            result => Ok(result?),
        }
    })?;
    match pending.wait(PATIENCE) {
        Some(result) => result,
        None => bail!("libvirt did not answer within {} ms", PATIENCE.as_millis()),
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
