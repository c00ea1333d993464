//! What the `virt` crate does not wrap: the event loop's thread, life-cycle events and the close
//! callback. Callbacks run on the event loop's thread: they set a flag or ring, and return.

use super::thread;
use anyhow::{Context as _, bail};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use steadfast_core::ids::VmId;
use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

/// Who is told.
pub trait Listener: Send + Sync {
    /// libvirt was reached, or a domain changed.
    fn changed(&self);
    /// A guest shut itself down; its process is about to end.
    fn shut_down(&self, vm: VmId);
}

/// What the callbacks of one link tell.
pub struct Notices {
    /// The link is lost.
    pub lost: AtomicBool,
    /// What happens to domains.
    pub listener: Arc<dyn Listener>,
    /// The link was lost just now.
    pub on_loss: Box<dyn Fn() + Send + Sync>,
}

/// Starts libvirt's event loop, once a process. Must come before the first connection.
///
/// # Errors
/// If libvirt refuses or there is no thread.
pub fn start_event_loop() -> anyhow::Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|error| error.to_string())?;
        thread("libvirt-events", run_for_ever).map_err(|error| format!("{error:#}"))
    });
    started.clone().map_err(anyhow::Error::msg).context("cannot start libvirt's event loop")
}

fn run_for_ever() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::warn!(%error, "libvirt's event loop failed; events may be late");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Registers both callbacks; returns the id of the life-cycle one.
///
/// # Errors
/// If libvirtd refuses.
pub fn register(connect: &Connect, notices: &Arc<Notices>) -> anyhow::Result<c_int> {
    close_callback(connect, notices)?;
    // SAFETY: libvirt calls a callback of kind LIFECYCLE with the arguments of `on_lifecycle`; its
    // one generic type for all kinds makes this cast part of its interface.
    #[allow(unsafe_code)]
    let callback = unsafe {
        std::mem::transmute::<
            sys::virConnectDomainEventCallback,
            sys::virConnectDomainEventGenericCallback,
        >(Some(on_lifecycle))
    };
    let kind = sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int;
    let opaque = Arc::into_raw(notices.clone()).cast_mut().cast::<c_void>();
    let (link, all) = (connect.as_ptr(), std::ptr::null_mut());
    // SAFETY: the connection is open; `opaque` owns one count of `Notices`, given back by `free`.
    #[allow(unsafe_code)]
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(link, all, kind, callback, opaque, Some(free))
    };
    if id < 0 {
        // libvirt did not take the count.
        free_here(opaque);
        bail!("cannot listen to life-cycle events: {}", Error::last_error());
    }
    Ok(id)
}

fn close_callback(connect: &Connect, notices: &Arc<Notices>) -> anyhow::Result<()> {
    let opaque = Arc::into_raw(notices.clone()).cast_mut().cast::<c_void>();
    // SAFETY: as in `register`.
    #[allow(unsafe_code)]
    let result = unsafe {
        sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free))
    };
    if result < 0 {
        free_here(opaque);
        bail!("cannot listen to the loss of the connection: {}", Error::last_error());
    }
    Ok(())
}

/// Takes both callbacks back; without it libvirt keeps the connection open. May block: the daemon
/// is asked.
pub fn unregister(connect: &Connect, id: c_int) {
    // SAFETY: the connection is open. What is not registered (any more) is only an error result.
    #[allow(unsafe_code)]
    unsafe {
        if id >= 0 {
            sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), id);
        }
        sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close));
    }
}

extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let listener = &notices(opaque).listener;
    if is_own_shutdown(event, detail)
        && let Some(vm) = uuid(domain)
    {
        listener.shut_down(vm);
    }
    listener.changed();
    0
}

/// The guest switched itself off, by itself or because it was asked to. A QEMU that was told to end by a signal
/// says so (`SHUTDOWN_HOST`); one that cannot tell says `SHUTDOWN_FINISHED`.
fn is_own_shutdown(event: c_int, detail: c_int) -> bool {
    event == sys::VIR_DOMAIN_EVENT_SHUTDOWN as c_int
        && detail != sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST as c_int
}

/// libvirt keeps it in memory: no call to the daemon.
fn uuid(domain: sys::virDomainPtr) -> Option<VmId> {
    let mut text = [0; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the domain is valid during its callback; libvirt writes at most `VIR_UUID_STRING_BUFLEN` bytes,
    // the last of them 0.
    #[allow(unsafe_code)]
    let text = unsafe {
        if sys::virDomainGetUUIDString(domain, text.as_mut_ptr()) < 0 {
            return None;
        }
        CStr::from_ptr(text.as_ptr())
    };
    Some(VmId(text.to_str().ok()?.to_ascii_lowercase()))
}

extern "C" fn on_close(_connect: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // 0 error, 1 end of file, 2 no answer to probes, 3 closed by us.
    tracing::info!(reason, "libvirt closed the connection");
    let notices = notices(opaque);
    notices.lost.store(true, Ordering::Release);
    (notices.on_loss)();
}

fn notices<'a>(opaque: *mut c_void) -> &'a Notices {
    // SAFETY: `opaque` was made by `Arc::into_raw`, and libvirt frees it after the last callback.
    #[allow(unsafe_code)]
    unsafe {
        &*opaque.cast_const().cast::<Notices>()
    }
}

extern "C" fn free(opaque: *mut c_void) {
    free_here(opaque);
}

fn free_here(opaque: *mut c_void) {
    // SAFETY: gives back the one count that `Arc::into_raw` handed out, exactly once.
    #[allow(unsafe_code)]
    unsafe {
        drop(Arc::from_raw(opaque.cast_const().cast::<Notices>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_was_killed_did_not_shut_itself_down() {
        let shutdown = sys::VIR_DOMAIN_EVENT_SHUTDOWN as c_int;
        assert!(is_own_shutdown(shutdown, sys::VIR_DOMAIN_EVENT_SHUTDOWN_GUEST as c_int));
        assert!(!is_own_shutdown(shutdown, sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST as c_int));
        let stopped = sys::VIR_DOMAIN_EVENT_STOPPED as c_int;
        assert!(!is_own_shutdown(stopped, sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN as c_int));
    }
}
