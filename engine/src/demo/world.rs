//! The world of a demonstration: which nodes have power, what is plugged in, and what is to happen when.
//!
//! One mutex, one thread for what is due. Events are put into agents' inboxes under the mutex, so that all see messages in one
//! order; an inbox never blocks.

use super::guests::{Domain, Process};
use super::ring::Ring;
use super::truth::Truth;
use crate::clock::Clock;
use crate::driver::Inbox;
use crate::pages::Gate;
use crate::threads::lock;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::{BootId, NodeId, VmId};
use steadfast_core::time::{Instant, Millis};

/// From power to the agent's start.
const BOOT: Millis = Millis(1_500);
/// A node that was reset or fenced has power again after this.
const POWER_AGAIN: Millis = Millis(8_000);
/// How often verification IPs are asked, and how often that is told without news.
const VERIFY_EVERY: Millis = Millis(1_000);
const TELL_EVERY: u64 = 5;

/// The world. Shared by all seats.
pub(super) struct World {
    state: Mutex<State>,
    due: Condvar,
}

/// What is to be done outside of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Start the agent of this boot.
    Up(NodeId, u64),
    /// Forget the agent of this boot.
    Down(NodeId, u64),
    /// The demonstration is over.
    End,
}

type Deed = Box<dyn FnOnce(&mut State) + Send>;

/// Everything there is.
pub(super) struct State {
    /// Own time of what happens now.
    pub(super) now: Instant,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    pub(super) ring: Ring,
    pub(super) truth: Truth,
    /// Migrations begun so far.
    pub(super) migrations: u64,
    agenda: BTreeMap<(Instant, u64), Deed>,
    /// Deeds ever put on the agenda.
    deeds: u64,
    wishes: Sender<Wish>,
    ended: bool,
}

/// One node's hardware, and what it has in memory.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) memory_mib: u64,
    pub(super) vcpus: u32,
    /// Counts its boots.
    pub(super) boot: u64,
    pub(super) boot_id: BootId,
    /// It has power.
    pub(super) up: bool,
    /// Somebody pulled its plug: it stays off until it is booted.
    pub(super) pulled: bool,
    /// Its networks are plugged in.
    pub(super) plugged: bool,
    /// Since when its storage does not answer.
    pub(super) stalled: Option<Instant>,
    /// The way of this boot to storage.
    pub(super) gate: Gate,
    /// Its agent, once that listens.
    pub(super) inbox: Option<Arc<Inbox>>,
    /// Its agent has joined the group.
    pub(super) member: bool,
    /// Members of its group as it was told last, each with its boot.
    pub(super) view: BTreeMap<NodeId, u64>,
    /// When its watchdog fires.
    pub(super) fires: Option<Instant>,
    /// What it was told last of the verification IPs.
    verified: Option<bool>,
    pub(super) domains: BTreeMap<VmId, Domain>,
    pub(super) processes: BTreeMap<VmId, Process>,
    /// VMs that may arrive.
    pub(super) permitted: BTreeSet<VmId>,
    /// Migrations away from here.
    pub(super) leaving: BTreeMap<VmId, u64>,
}

impl Host {
    pub(super) fn new(name: String, memory_mib: u64, vcpus: u32) -> Self {
        Self {
            name,
            memory_mib,
            vcpus,
            boot: 0,
            boot_id: BootId::default(),
            up: false,
            pulled: false,
            plugged: true,
            stalled: None,
            gate: Gate::new(false),
            inbox: None,
            member: false,
            view: BTreeMap::new(),
            fires: None,
            verified: None,
            domains: BTreeMap::new(),
            processes: BTreeMap::new(),
            permitted: BTreeSet::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// Tells its agent, if there is one.
    pub(super) fn tell(&self, event: Event) {
        if let Some(inbox) = &self.inbox {
            inbox.push(event);
        }
    }
}

impl World {
    /// A world of these nodes, none of them with power; what is to be done goes to `wishes`.
    pub(super) fn start(hosts: BTreeMap<NodeId, Host>, wishes: Sender<Wish>) -> Result<Arc<Self>> {
        let now = Clock.now();
        let mut state = State {
            now,
            hosts,
            ring: Ring::default(),
            truth: Truth::new(now),
            migrations: 0,
            agenda: BTreeMap::new(),
            deeds: 0,
            wishes,
            ended: false,
        };
        state.verify(0);
        let world = Arc::new(Self { state: Mutex::new(state), due: Condvar::new() });
        let clockwork = Arc::clone(&world);
        crate::threads::spawn("demo-world", move || clockwork.run())?;
        Ok(world)
    }

    /// Does `work` now, after everything that was due.
    pub(super) fn act<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        state.catch_up(Clock.now());
        let before = state.next();
        let result = work(&mut state);
        let is_sooner = state.next() < before;
        drop(state);
        if is_sooner {
            self.due.notify_one();
        }
        result
    }

    /// Ends everything: all power is cut.
    pub(super) fn end(&self) {
        self.act(|state| {
            state.ended = true;
            for node in state.ids() {
                state.pull(node, "the demonstration is over");
            }
            let _ = state.wishes.send(Wish::End);
        });
        self.due.notify_one();
    }

    fn run(&self) {
        let mut state = lock(&self.state);
        while !state.ended {
            state.catch_up(Clock.now());
            let patience = Clock.until(state.next()).min(Duration::from_secs(1));
            let waited = self.due.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub(super) fn host(&self, node: NodeId) -> Option<&Host> {
        self.hosts.get(&node)
    }

    pub(super) fn host_mut(&mut self, node: NodeId) -> Option<&mut Host> {
        self.hosts.get_mut(&node)
    }

    /// The host of this boot, if that has power yet.
    pub(super) fn seated(&mut self, node: NodeId, boot: u64) -> Option<&mut Host> {
        self.hosts.get_mut(&node).filter(|host| host.up && host.boot == boot)
    }

    /// Puts `deed` on the agenda.
    pub(super) fn later(&mut self, after: Millis, deed: impl FnOnce(&mut State) + Send + 'static) {
        self.deeds += 1;
        self.agenda.insert((self.now + after, self.deeds), Box::new(deed));
    }

    /// The same, if this boot has power yet when it is due.
    pub(super) fn later_at(
        &mut self,
        (node, boot): (NodeId, u64),
        after: Millis,
        deed: impl FnOnce(&mut State) + Send + 'static,
    ) {
        self.later(after, move |state| {
            if state.seated(node, boot).is_some() {
                deed(state);
            }
        });
    }

    /// The demonstration is over.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    fn next(&self) -> Instant {
        let deed = self.agenda.keys().next().map(|(at, _)| *at);
        let dog = self.hosts.values().filter_map(|host| host.fires).min();
        deed.into_iter().chain(dog).min().unwrap_or(Instant(u64::MAX))
    }

    /// Watchdogs first: whatever woke this process late, no guest of a node outlived its watchdog.
    fn catch_up(&mut self, now: Instant) {
        self.now = now;
        for node in self.ids() {
            let host = self.host(node);
            if host.is_some_and(|host| host.fires.is_some_and(|fires| fires <= now)) {
                self.cut_power(node, "its watchdog fired");
            }
        }
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= now
        {
            entry.remove()(self);
        }
    }

    // --- power ---

    /// Gives a node power, unless it has some.
    pub(super) fn boot(&mut self, node: NodeId, after: Millis) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.up {
            return;
        }
        (host.up, host.pulled, host.boot) = (true, false, host.boot + 1);
        let half = |salt: u64| u128::from(RandomState::new().hash_one((host.boot, salt)));
        host.boot_id = BootId(half(0) << 64 | half(1));
        host.gate = Gate::new(host.stalled.is_some());
        (host.verified, host.view) = (None, BTreeMap::new());
        let (boot, name) = (host.boot, host.name.clone());
        self.note(format!("{name} boots"));
        self.later_at((node, boot), after, move |state| {
            let _ = state.wishes.send(Wish::Up(node, boot));
            state.start_unprotected(node);
        });
    }

    /// Boots as servers do.
    pub(super) fn boot_slowly(&mut self, node: NodeId) {
        self.boot(node, BOOT);
    }

    /// Its plug is pulled: it stays off until it is booted.
    pub(super) fn pull(&mut self, node: NodeId, why: &str) {
        self.cut_power(node, why);
        if let Some(host) = self.hosts.get_mut(&node) {
            host.pulled = true;
        }
    }

    /// Everything in it ends at this instant. It comes back by itself, unless its plug was pulled.
    pub(super) fn cut_power(&mut self, node: NodeId, why: &str) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.up) else { return };
        let (boot, name) = (host.boot, host.name.clone());
        (host.up, host.member, host.fires) = (false, false, None);
        host.gate.end();
        if let Some(inbox) = host.inbox.take() {
            inbox.cut_power();
        }
        (host.permitted, host.leaving) = (BTreeSet::new(), BTreeMap::new());
        let processes = std::mem::take(&mut host.processes);
        self.note(format!("{name} has no power: {why}"));
        for (vm, process) in processes {
            self.process_ended(node, &vm, process);
        }
        self.ring_broke();
        let _ = self.wishes.send(Wish::Down(node, boot));
        self.later(POWER_AGAIN, move |state| {
            let host = state.host(node);
            if host.is_some_and(|host| !host.up && !host.pulled && host.boot == boot) {
                state.boot_slowly(node);
            }
        });
    }

    // --- storage ---

    pub(super) fn stall(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.stalled.is_none()) else {
            return;
        };
        host.stalled = Some(now);
        host.gate.stall();
        let text = format!("storage does not answer {} any more", host.name);
        self.note(text);
    }

    pub(super) fn open(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.stalled.is_some()) else {
            return;
        };
        host.stalled = None;
        host.gate.open();
        let text = format!("storage answers {} again", host.name);
        self.note(text);
    }

    // --- verification IPs ---

    /// A node reaches them while it is plugged in.
    fn verify(&mut self, round: u64) {
        for host in self.hosts.values_mut().filter(|host| host.inbox.is_some()) {
            if host.verified != Some(host.plugged) || round.is_multiple_of(TELL_EVERY) {
                host.verified = Some(host.plugged);
                host.tell(Event::VerificationChecked { reachable: host.plugged });
            }
        }
        self.later(VERIFY_EVERY, move |state| state.verify(round + 1));
    }

    /// Keeps a line for people.
    pub(super) fn note(&mut self, text: String) {
        tracing::info!(text, "demo");
        self.truth.note(self.now, text);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
