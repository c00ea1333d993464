//! Does libvirt ask the hook? Tested whenever libvirt was connected, and again while it does not.

use super::gate::Gate;
use super::install;
use crate::driver::{Agent, Live};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steadfast_core::ids::VmId;

/// How often it is looked whether a test is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A hook that does not work is tested again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Time for the lease path to say whether it knows the ledger.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tests for ever, on a thread of its own; what is wrong is a warning of the agent's.
///
/// # Errors
/// The system gives no thread.
pub fn start(agent: Arc<Agent>, gate: Arc<Gate>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("hook-check".into());
    thread.spawn(move || {
        let mut tested = None;
        loop {
            std::thread::sleep(LOOK_EVERY);
            if let Ok(live) = agent.live()
                && is_due(&live, tested)
            {
                let connection = live.hypervisor.connections();
                let trouble = test(&live, &gate).err();
                let next = trouble.is_some().then(|| Instant::now() + AGAIN);
                tested = Some((connection, next));
                agent.warn("hook", trouble);
            }
        }
    })?;
    Ok(())
}

/// Not before the ledger is known: a guest of nobody could be taken for one of an earlier incarnation's.
fn is_due(live: &Live, tested: Option<(usize, Option<Instant>)>) -> bool {
    let connection = live.hypervisor.connections();
    let due = match tested {
        Some((before, _)) if before != connection => true,
        Some((_, again)) => again.is_some_and(|again| Instant::now() >= again),
        None => connection > 0,
    };
    due && live.hypervisor.healthy().is_ok()
        && live.inbox.snapshot(PATIENCE).is_some_and(|snapshot| snapshot.ledger.proved)
}

fn test(live: &Live, gate: &Gate) -> Result<(), String> {
    let vm = fresh();
    gate.begin_test(vm.clone());
    let started = live.hypervisor.test_hook(&vm);
    let asked = gate.end_test();
    match started {
        _ if asked => Ok(()),
        Err(error) => Err(format!("libvirt's hook could not be tested: {error:#}")),
        Ok(()) => Err(format!(
            "libvirt starts VMs on this node without asking steadfastd, also those that run elsewhere: {}",
            install::remedy()
        )),
    }
}

/// A UUID that nobody else has.
fn fresh() -> VmId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    VmId(text.trim().to_ascii_lowercase())
}
