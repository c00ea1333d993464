//! The module's side of the ABI: memory, imports and the exports' bodies. Only on wasm32.
#![allow(unsafe_code)]

use alloc::{string::ToString, vec::Vec};
use core::cell::UnsafeCell;
use serde::de::DeserializeOwned;

use crate::abi::{self, Envelope, GuestError, Wire};
use crate::log::Level;

#[link(wasm_import_module = "steadfast_1")]
unsafe extern "C" {
    #[link_name = "log"]
    fn host_log(level: i32, ptr: *const u8, len: usize);
    #[link_name = "log_level"]
    fn host_log_level() -> i32;
}

/// The policy of this module, once `steadfast_init` has read its parameters.
#[allow(missing_debug_implementations)]
pub struct Slot<P>(UnsafeCell<Option<P>>);

// SAFETY: the module has one thread (the host refuses shared memories).
unsafe impl<P> Sync for Slot<P> {}

impl<P> Default for Slot<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Slot<P> {
    /// Not initialised.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(None))
    }
}

impl<P: Default + DeserializeOwned> Slot<P> {
    /// Body of `steadfast_init`.
    ///
    /// # Safety
    /// `ptr` and `len` name memory that [`alloc`] handed out and the host has written.
    pub unsafe fn init(&self, ptr: *mut u8, len: usize) -> u64 {
        std::panic::set_hook(alloc::boxed::Box::new(|panic| log(Level::Panic, &panic.to_string())));
        // SAFETY: as promised by the caller.
        let json = unsafe { input(ptr, len) };
        give(abi::encode(&match abi::parameters::<P>(json) {
            Ok(policy) => {
                // SAFETY: one thread, and no reference into the slot lives across calls.
                unsafe { *self.0.get() = Some(policy) };
                Envelope::Ok(())
            }
            Err(error) => Envelope::Err(error),
        }))
    }

    /// Body of a kind's export.
    ///
    /// # Safety
    /// As for [`Slot::init`].
    pub unsafe fn answer<Q: Wire>(
        &self,
        ptr: *mut u8,
        len: usize,
        ask: fn(&P, &Q) -> Q::Verdict,
    ) -> u64 {
        // SAFETY: one thread, and only `init` writes the slot.
        let Some(policy) = (unsafe { &*self.0.get() }) else {
            let (code, message) =
                ("not_initialised".into(), "steadfast_init was not called".into());
            return give(abi::encode(&Envelope::<()>::Err(GuestError { code, message })));
        };
        // SAFETY: as promised by the caller.
        give(abi::answer(unsafe { input(ptr, len) }, |question: &Q| ask(policy, question)))
    }
}

/// Body of `steadfast_alloc`: `len` bytes that live as long as the instance.
#[must_use]
pub fn alloc(len: usize) -> *mut u8 {
    Vec::<u8>::with_capacity(len).leak().as_mut_ptr()
}

/// Writes a line to the host's log.
pub fn log(level: Level, line: &str) {
    // SAFETY: the host only reads `len` bytes at `ptr`.
    unsafe { host_log(level as i32, line.as_ptr(), line.len()) }
}

/// The highest level that the host wants.
#[must_use]
pub fn level() -> i32 {
    // SAFETY: takes nothing and touches no memory.
    unsafe { host_log_level() }
}

unsafe fn input<'a>(ptr: *mut u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller names memory that lives as long as the instance.
    unsafe { core::slice::from_raw_parts(ptr, len) }
}

/// Hands bytes to the host. They are never freed: the instance is dropped after the call.
fn give(bytes: Vec<u8>) -> u64 {
    let bytes = bytes.leak();
    ((bytes.as_ptr() as u64) << 32) | bytes.len() as u64
}
