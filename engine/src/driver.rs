//! The lease path: one thread that owns the machine.
//!
//! It waits until the machine's `wake_at` or for an event, reads the clock, steps, and hands each action to its
//! adapter in order. No adapter blocks, and neither storage nor libvirt, DNS, policies nor the log are ever
//! touched on this thread; they answer with events.

mod adapters;
mod agent;
mod beats;
pub(crate) mod edge;
mod hands;
mod inbox;
pub mod logging;
mod news;
mod questions;
mod requests;
#[cfg(test)]
pub(crate) mod rig;
mod start;

use crate::api;
use crate::clock::Clock;
use crate::config::Config;
use crate::decisions::Taken;
use crate::journal::Journal;
use crate::realtime;
use crate::systemd;
use anyhow::Context;
use beats::Pulse;
use hands::Hands;
use inbox::Input;
use news::Glimpse;
pub(crate) use start::Failure;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use steadfast_core::action::Action;
use steadfast_core::decision::Kind;
use steadfast_core::event::Event;
use steadfast_core::machine::Machine;
use steadfast_core::message::Body;
use steadfast_core::snapshot::Snapshot;
use steadfast_core::step::Step;
use steadfast_core::time::{Instant, Millis};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

pub use agent::{Agent, Live, Phase};
pub use beats::BeatGaps;
pub use inbox::Inbox;
pub use news::{News, Watching};
pub use requests::{Outcome, Requests};

/// The shortest sleep after a wake-up: a machine that wants to be woken at once, always, must not eat a CPU.
const SHORTEST_SLEEP: Millis = Millis(5);
/// The longest sleep: whatever the machine says, the clock is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What the lease path works with.
struct Driver {
    machine: Machine,
    hands: Hands,
    inbox: Arc<Inbox>,
    journal: Option<Journal>,
    requests: Arc<Requests>,
    decisions: Sender<Taken>,
    pulse: Pulse,
    /// Time between two beats.
    beat: Millis,
    gaps: Arc<BeatGaps>,
    news: Arc<News>,
    glimpse: Glimpse,
    wake_at: Instant,
    /// The last action was to close the watchdog.
    releasing: Cell<bool>,
}

impl Driver {
    /// Runs until the process ends; returns only after [`Event::ShutdownRequested`] has been stepped.
    fn run(mut self, first: Step, now: Instant) {
        self.inbox.open();
        self.done(now, Event::Woke, first);
        loop {
            let patience = Clock.until(self.wake_at).min(LONGEST_SLEEP);
            match self.inbox.pop(patience) {
                Some(Input::Event(event)) => {
                    let last = event == Event::ShutdownRequested;
                    self.step(event);
                    if last {
                        self.let_go();
                        return;
                    }
                }
                Some(Input::Show(tell)) => self.show(tell),
                Some(Input::WhatIf(node, tell)) => {
                    tell(self.machine.what_if_died(node, Clock.now()));
                }
                Some(Input::PowerCut) => return self.hands.end(),
                None => {}
            }
            // A stream of events must not keep a due wake-up waiting.
            if Clock.now() >= self.wake_at {
                self.step(Event::Woke);
            }
        }
    }

    fn show(&self, tell: Box<dyn FnOnce(Snapshot) + Send>) {
        let begun = std::time::Instant::now();
        tell(self.machine.snapshot(Clock.now()));
        self.news.set_cost(begun.elapsed());
    }

    /// A watchdog that guards nothing any more was asked to close: the process must not end before it has.
    fn let_go(&self) {
        let end = std::time::Instant::now() + LAST_ANSWER;
        while self.releasing.get() {
            let left = end.saturating_duration_since(std::time::Instant::now());
            match self.inbox.pop(left) {
                Some(Input::Event(Event::WatchdogClosed | Event::WatchdogFailed { .. })) => return,
                Some(Input::PowerCut) => return,
                None if left.is_zero() => return,
                _ => {}
            }
        }
    }

    fn step(&mut self, event: Event) {
        let now = Clock.now();
        let noted = self.journal.is_some().then(|| event.clone());
        let step = self.machine.step(event, now);
        self.done(now, noted.unwrap_or(Event::Woke), step);
    }

    /// Actions first, the journal after: what keeps the lease must not wait for a record of it.
    fn done(&mut self, now: Instant, event: Event, step: Step) {
        self.wake_at = step.wake_at.0.max(now + SHORTEST_SLEEP);
        for action in &step.actions {
            if is_beat(action) {
                self.pulse.beat(Clock.now(), self.beat, &self.gaps);
            }
            self.act(action);
        }
        self.glimpse.look(&self.machine, &step, &self.news);
        if let Some(journal) = &self.journal {
            journal.note(now, event, &step);
        }
    }

    fn act(&self, action: &Action) {
        match action {
            Action::Answer(reply) => self.requests.answer(reply),
            Action::LetHostStop => self.requests.let_host_go(),
            Action::Record(decision) => {
                if decision.kind == Kind::LastWords {
                    drop(self.hands.last_words.speak(&decision.text));
                }
                let taken = Taken { decision: decision.clone(), wall_ms: Clock.wall_ms() };
                // Without a recorder decisions go unheard; the protocol goes on.
                let _ = self.decisions.send(taken);
            }
            other => {
                self.releasing.set(matches!(other, Action::CloseWatchdog));
                self.hands.act(other);
            }
        }
    }
}

fn is_beat(action: &Action) -> bool {
    matches!(action, Action::Send(message) if matches!(message.body, Body::Beat(_)))
}

/// Threads of the runtime that serves the API.
const API_THREADS: usize = 2;
/// How long the lease path's end waits for the watchdog.
const LAST_ANSWER: Duration = Duration::from_millis(1_500);
/// How long the end waits for the lease path.
const LAST_STEP: Duration = Duration::from_secs(2);

/// How long a host that goes down waits for its HA guests to be gone.
const HOST_PATIENCE: Duration = Duration::from_secs(900);
/// systemd is asked for another minute this often.
const REMINDER: Duration = Duration::from_secs(20);

/// Why the agent ends.
enum End {
    /// It was asked to.
    Signal,
    /// The lease path ended by itself.
    LeasePath(Result<(), Failure>),
    /// The lease path panicked: another incarnation must take over at once.
    Panic,
}

/// Runs the agent until it is told to stop; guests and watchdog are left alone then. The result is the process's
/// exit code: 0 stopped, 1 failed, 2 wrong configuration.
///
/// # Errors
/// The process lacks something basic: threads, signals, a place for its socket.
pub fn run(config: Config) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(API_THREADS)
        .thread_name("api")
        .enable_all()
        .build()
        .context("cannot start the API's threads")?;
    let agent = Agent::new(config);
    if agent.config.realtime {
        agent.warn("memory", realtime::prepare().err());
    }
    let code = runtime.block_on(serve_until_end(&agent));
    // Requests under way are cut: their outcome is unknown to those who asked, as the API says.
    runtime.shutdown_background();
    code
}

async fn serve_until_end(agent: &Arc<Agent>) -> anyhow::Result<u8> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut lease_path = keep_lease(Arc::clone(agent))?;
    let server = tokio::spawn(serve(Arc::clone(agent)));
    let encrypted = tokio::spawn(serve_tls(Arc::clone(agent)));
    let end = tokio::select! {
        _ = terminate.recv() => End::Signal,
        _ = interrupt.recv() => End::Signal,
        ended = &mut lease_path => ended.map_or(End::Panic, End::LeasePath),
    };
    if let End::Signal = end {
        // People may look on while guests leave a host that goes down.
        shut_down(agent, &mut lease_path).await;
    }
    server.abort();
    encrypted.abort();
    match end {
        End::Signal => Ok(0),
        End::LeasePath(Ok(()) | Err(Failure::PowerCut)) => Ok(0),
        End::LeasePath(Err(Failure::Configuration(problems))) => {
            tracing::error!(%problems, "wrong configuration");
            Ok(2)
        }
        End::LeasePath(Err(Failure::Broken(error))) => Err(error),
        End::Panic => {
            tracing::error!("alarm: the lease path panicked; restarting takes over its guests");
            Ok(1)
        }
    }
}

pub(crate) type LeasePath = oneshot::Receiver<Result<(), Failure>>;

/// Starts the thread that keeps the lease; the result is heard when it ends.
pub(crate) fn keep_lease(agent: Arc<Agent>) -> anyhow::Result<LeasePath> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("lease".into());
    let keep = move || drop(tell.send(start::live(&agent)));
    thread.spawn(keep).context("cannot start the lease thread")?;
    Ok(told)
}

/// Without its API an agent still keeps its guests.
pub(crate) async fn serve(agent: Arc<Agent>) {
    let served = async {
        let listener = api::listen(&agent.config.socket)?;
        // Whatever it waits for from here on, it tells by itself.
        systemd::notify("READY=1");
        api::serve(listener, Arc::clone(&agent)).await
    };
    if let Err(error) = served.await {
        tracing::warn!(error = format!("{error:#}"), "no API");
    }
}

/// Without TLS root on this node is still served.
async fn serve_tls(agent: Arc<Agent>) {
    if let Err(error) = api::serve_tls(Arc::clone(&agent)).await {
        agent.warn(
            "api",
            Some(format!("{error:#}; put it right and restart steadfastd (guests keep running)")),
        );
    }
}

/// The host goes down: its HA guests are cared for first. systemd is told again and again that this takes longer.
async fn leave_host(live: &Live, reboot: bool) {
    tracing::info!(reboot, "the host goes down; its HA guests leave it first");
    live.inbox.push(Event::HostStopping { reboot });
    let end = tokio::time::Instant::now() + HOST_PATIENCE;
    let let_go = live.requests.host_let_go();
    tokio::pin!(let_go);
    while tokio::time::Instant::now() < end {
        systemd::notify("EXTEND_TIMEOUT_USEC=60000000");
        if tokio::time::timeout(REMINDER, &mut let_go).await.is_ok() {
            return;
        }
    }
    tracing::warn!("HA guests are still here; the host goes down all the same");
}

async fn shut_down(agent: &Agent, lease_path: &mut LeasePath) {
    systemd::notify("STOPPING=1");
    let going = tokio::task::spawn_blocking(systemd::host_goes_down).await.ok().flatten();
    if let (Some(reboot), Ok(live)) = (going, agent.live()) {
        leave_host(&live, reboot).await;
    }
    tracing::info!("stopping; guests and watchdog are left as they are");
    if let Ok(live) = agent.live() {
        live.inbox.push(Event::ShutdownRequested);
        let _ = tokio::time::timeout(LAST_STEP, lease_path).await;
    }
}
