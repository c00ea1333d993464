//! Runs of seeds, and the story of a failure.

use super::check::Violation;
use super::clock::Time;
use super::node::index;
use super::plan::{Class, Plan, Wish};
use super::policy::Mood;
use super::trace::Trace;
use super::world::{Stats, World};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use steadfast_core::action::Action;
use steadfast_core::message::Body;

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first broken promise, or a machine's panic.
    pub violation: Option<Violation>,
    /// True time that passed.
    pub passed: Time,
    /// How long after healing everything ran.
    pub recovered: Time,
    /// How its policies behaved.
    pub mood: Mood,
    /// Counters.
    pub stats: Stats,
    /// The story, if asked for.
    pub lines: Vec<String>,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the words of a machine's panic for the report, instead of printing them.
pub fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                PANIC.with(|words| *words.borrow_mut() = info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs `work`; what a panic says is the error.
///
/// # Errors
/// The words of a panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_panics();
    CATCHING.set(true);
    let end = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(false);
    end.map_err(|_| PANIC.with(|words| words.borrow().replace('\n', " ")))
}

/// Runs one seed. With `trace`, keeps its story; with `verbose`, every event and action.
#[must_use]
pub fn run(seed: u64, wish: Wish, trace: bool, verbose: bool) -> Outcome {
    run_plan(Plan::new(seed, wish), trace, verbose)
}

/// Runs one plan.
#[must_use]
pub fn run_plan(plan: Plan, trace: bool, verbose: bool) -> Outcome {
    let seed = plan.seed;
    let trace = Trace { on: trace, verbose, lines: Vec::new() };
    let mut world = World::new(plan, trace);
    let end = guarded(|| world.run());
    if let Err(words) = &end {
        world.fail("no_panic", words.clone());
    }
    if world.trace.on && world.violation.is_some() && end.is_ok() {
        world.tell_state();
    }
    Outcome {
        seed,
        violation: world.violation,
        passed: world.now,
        recovered: world.check.recovered,
        mood: world.plan.mood,
        stats: world.stats,
        lines: world.trace.lines,
    }
}

/// The command that repeats a seed.
#[must_use]
pub fn command(seed: u64, wish: Wish) -> String {
    let nodes = wish.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    let plant = wish.plant.map(|plant| format!(" --plant {plant:?}")).unwrap_or_default();
    let class = match wish.class {
        None => "",
        Some(Class::Quiet) => " --class quiet",
        Some(Class::StorageForAll) => " --class storage",
        Some(Class::NetworkForAll) => " --class network",
        Some(Class::Swarm) => " --class swarm",
    };
    let kind = wish.kind.map(|kind| format!(" --kind {kind:?}")).unwrap_or_default();
    let focus = wish.focus.map(|focus| format!(" --focus {}", focus.name)).unwrap_or_default();
    format!("cargo sim --seed {seed}{nodes}{class}{kind}{focus}{plant}")
}

impl World {
    /// A line for what changes the world's state.
    pub fn tell_story(&mut self, n: usize, action: &Action) {
        if self.trace.verbose {
            self.note(n, || format!("    -> {action:?}"));
            return;
        }
        let line = match action {
            Action::Record(d) => format!("{:?}: {}", d.kind, d.text),
            Action::StartVm { vm, .. } => format!("start {vm}"),
            Action::DestroyVm { vm, reason } => format!("destroy {vm}: {reason}"),
            Action::ResetNode { reason } => format!("reset: {reason}"),
            Action::Fence { victim, eviction } => {
                format!("fence n{} for {eviction}", index(*victim) + 1)
            }
            Action::Answer(reply) => format!("answers request {}: {:?}", reply.id, reply.result),
            Action::Send(message) => match &message.body {
                Body::Leading { term } => format!("says: leading term {term}"),
                Body::Committed(c) => format!("says: committed {} {:?}", c.stamp, c.evicted),
                _ => return,
            },
            _ => return,
        };
        self.note(n, || line);
    }

    /// Each machine's own view, at the end of a failed run.
    fn tell_state(&mut self) {
        for n in 0..self.nodes.len() {
            let (own, executing) = (self.own(n), self.executing(n));
            let Some(boot) = self.nodes[n].boot.as_ref() else { continue };
            let Some(agent) = boot.agent.as_ref() else { continue };
            let s = agent.machine.snapshot(own);
            let mut text = format!(
                "STATE leader {:?} term {} ledger {} proved {} view {:?} lease {:?} ({}) armed {} \
                 election {}/{} ({}) executing {executing:b}",
                s.leader.map(|leader| leader.name),
                s.term,
                s.ledger.stamp,
                s.ledger.proved,
                s.view.iter().map(|node| node.0).collect::<Vec<_>>(),
                s.lease.left.map(|left| left.0),
                s.lease.text,
                s.lease.armed,
                s.election.phase,
                s.election.round,
                s.election.reason,
            );
            for node in &s.nodes {
                let eviction = node.eviction.clone().unwrap_or_default();
                text += &format!(
                    "\n{:19}{}: {} {} {eviction}",
                    "", node.name, node.status_text, node.reason
                );
            }
            for vm in &s.vms {
                text += &format!(
                    "\n{:19}{} on {}: {} {}",
                    "", vm.name, vm.owner.name, vm.state, vm.reason
                );
            }
            self.note(n, || text);
        }
    }
}
