//! The wall deadline's clock: an own thread that ticks only while a call is under way.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Length of an epoch in milliseconds.
pub(super) const EPOCH_MS: u64 = 10;

#[derive(Debug, Default)]
struct Demand {
    calls: usize,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    demand: Mutex<Demand>,
    changed: Condvar,
}

impl Shared {
    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Advances the engine's epoch every [`EPOCH_MS`] while it is wanted, and sleeps otherwise.
#[derive(Debug)]
pub(super) struct Ticker(Arc<Shared>);

/// As long as this lives, epochs pass.
#[derive(Debug)]
pub(super) struct Ticking<'a>(&'a Shared);

impl Ticker {
    pub(super) fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("policy-epoch".into())
            .stack_size(64 << 10)
            .spawn(move || tick(&theirs, &engine))?;
        Ok(Self(shared))
    }

    pub(super) fn run(&self) -> Ticking<'_> {
        self.0.demand().calls += 1;
        self.0.changed.notify_one();
        Ticking(&self.0)
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        let mut demand = self.0.demand();
        demand.calls = demand.calls.saturating_sub(1);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.demand().stopped = true;
        self.0.changed.notify_one();
    }
}

fn tick(shared: &Shared, engine: &wasmtime::Engine) {
    loop {
        let idle = |demand: &mut Demand| demand.calls == 0 && !demand.stopped;
        let waited = shared.changed.wait_while(shared.demand(), idle);
        if waited.unwrap_or_else(PoisonError::into_inner).stopped {
            return;
        }
        std::thread::sleep(Duration::from_millis(EPOCH_MS));
        engine.increment_epoch();
    }
}
