//! Small things that every adapter with a thread needs.

use anyhow::{Context, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Starts a thread; without one nothing can be done, which the caller reports.
///
/// # Errors
/// The system gives none.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(work).with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

/// A panic of another thread is no reason to stop this one: what these mutexes hold is replaced whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
