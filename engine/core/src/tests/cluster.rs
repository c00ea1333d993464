//! Three whole machines, or more, a network and a disk that work unless a test breaks them, and VMs that start at once.

use crate::action::Action;
use crate::config::{Config, Inherited};
use crate::decision::Kind;
use crate::event::{Decider, Event};
use crate::guest::GuestScan;
use crate::ids::{NodeId, VmId};
use crate::kit::{at, config_of, id, node_priority, placement, slots, spec, vm};
use crate::ledger::{Standing, VmSpec};
use crate::machine::Machine;
use crate::message::Change;
use crate::page::{Pages, StorageError};
use crate::step::Step;
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;
use steadfast_sdk::wire::NodeFacts;

/// How long a message, a disk access and everything else takes, in milliseconds.
const MESSAGE: u64 = 1;
const DISK: u64 = 4;
const OTHER: u64 = 10;

pub(crate) struct Member {
    pub machine: Machine,
    pub alive: bool,
    pub storage: bool,
    wake: u64,
}

/// How live migrations go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Migrating {
    /// They succeed after this.
    Takes(u64),
    /// libvirt says no at once.
    Fails,
    /// They go on until they are aborted.
    Hangs,
}

pub(crate) struct Cluster {
    pub members: BTreeMap<u32, Member>,
    pub now: u64,
    /// Which VMs execute where.
    pub executing: BTreeSet<(VmId, u32)>,
    /// (time, VM, node) of every start.
    pub starts: Vec<(u64, String, u32)>,
    /// So many more are refused, and when they were.
    pub refusals: usize,
    pub refused: Vec<u64>,
    pub fences: Vec<(u64, u32)>,
    pub resets: Vec<u32>,
    pub destroyed: Vec<(u64, String, u32)>,
    pub answers: Vec<String>,
    /// Hosts that may go down.
    pub let_go: BTreeSet<u32>,
    /// Nodes whose watchdog was closed.
    pub closed: BTreeSet<u32>,
    /// Guests shut down when they are asked to.
    pub guests_listen: bool,
    /// How long a start takes, once the process is there.
    pub start_takes: u64,
    /// Guests in D state: a destroy returns, and they go on.
    pub guests_hang: bool,
    /// sysrq does nothing.
    pub resets_hang: bool,
    /// Last words, recorded or as the reason of a reset.
    pub last_words: Vec<(u32, String)>,
    /// What was told about elections, enrolments and risk.
    pub told: Vec<(u32, String)>,
    /// Copies that arrived, and wait to be resumed.
    pub paused: BTreeSet<(VmId, u32)>,
    /// Copies that may arrive.
    pub permitted: BTreeSet<(VmId, u32)>,
    /// How migrations go from now on.
    pub migrations: Migrating,
    /// Migrations under way: VM, source, target, number.
    pub leaving: Vec<(VmId, u32, u32, u64)>,
    pub resumes: Vec<(u64, String, u32)>,
    /// libvirt cannot resume copies.
    pub resumes_fail: bool,
    /// Migrations that were handed to libvirt.
    pub attempts: u32,
    /// Nodes that hear each other.
    sides: Vec<BTreeSet<u32>>,
    queue: BTreeMap<(u64, u64), (u32, Event)>,
    count: u64,
    pages: Pages,
    bodies: BTreeMap<(NodeId, u8), Arc<[u8]>>,
}

impl Cluster {
    /// All three booted at once; corosync formed half a second later.
    pub fn new(change: impl Fn(&mut Config)) -> Self {
        Self::of(3, change)
    }

    /// So many nodes that booted at once.
    pub fn of(nodes: u32, change: impl Fn(&mut Config)) -> Self {
        let mut cluster = Self {
            members: BTreeMap::new(),
            now: 0,
            executing: BTreeSet::new(),
            starts: Vec::new(),
            refusals: 0,
            refused: Vec::new(),
            fences: Vec::new(),
            resets: Vec::new(),
            destroyed: Vec::new(),
            answers: Vec::new(),
            let_go: BTreeSet::new(),
            closed: BTreeSet::new(),
            guests_listen: true,
            start_takes: OTHER,
            guests_hang: false,
            resets_hang: false,
            last_words: Vec::new(),
            told: Vec::new(),
            paused: BTreeSet::new(),
            permitted: BTreeSet::new(),
            migrations: Migrating::Takes(1_000),
            leaving: Vec::new(),
            resumes: Vec::new(),
            resumes_fail: false,
            attempts: 0,
            sides: [(1..=nodes).collect()].into(),
            queue: BTreeMap::new(),
            count: 0,
            pages: slots(nodes),
            bodies: BTreeMap::new(),
        };
        for node in 1..=nodes {
            let mut config = config_of(node, nodes);
            change(&mut config);
            let (machine, step) = Machine::new(config, at(0));
            let member = Member { machine, alive: true, storage: true, wake: 0 };
            cluster.members.insert(node, member);
            cluster.carry_out(node, step);
            cluster.has_memory(node, 8_192);
        }
        cluster.split(&[&Vec::from_iter(1..=nodes)], 500);
        cluster
    }

    /// So much memory, in MiB, is free on this node.
    pub fn has_memory(&mut self, node: u32, memory_free_mib: u64) {
        let facts = NodeFacts { id: node, memory_free_mib, vcpus: 8, ..NodeFacts::default() };
        self.later(node, 1, Event::FactsMeasured(Box::new(facts)));
    }

    /// Everybody is admitted, n3 runs `db`.
    pub fn with_vm(change: impl Fn(&mut Config)) -> Self {
        Self::new(change).settled_with_vm(3)
    }

    /// Everybody is admitted, the last of so many nodes runs `db`.
    pub fn of_with_vm(nodes: u32, change: impl Fn(&mut Config)) -> Self {
        Self::of(nodes, change).settled_with_vm(nodes)
    }

    pub fn settled_with_vm(mut self, home: u32) -> Self {
        self.executing.insert((vm("db"), home));
        self.run(15_000);
        self.ask(home, Change::EnableVm(Box::new(spec("db"))));
        self.run(10_000);
        assert_eq!(self.answers.len(), 1, "the VM came under HA");
        self
    }

    /// An operator asks on this node.
    pub fn ask(&mut self, node: u32, change: Change) {
        self.count += 1;
        let (id, change) = (self.count, Box::new(change));
        self.later(node, 1, Event::ChangeRequested { id, change });
    }

    /// An operator asks on this node, and watches for ten seconds.
    pub fn ask_and_watch(&mut self, node: u32, change: Change) {
        self.ask(node, change);
        self.run(10_000);
    }

    /// `spec` runs on n3, and comes under HA.
    pub fn enable(&mut self, spec: VmSpec) {
        self.executing.insert((spec.id.clone(), 3));
        self.run(6_000);
        self.ask_and_watch(3, Change::EnableVm(Box::new(spec)));
    }

    /// The guest ends wherever it executes; with its own word if it shuts itself down.
    pub fn end_guest(&mut self, name: &str, shuts_down: bool) {
        for node in self.homes(name) {
            self.executing.remove(&(vm(name), node));
            self.later(node, OTHER, Event::GuestExited { vm: vm(name) });
            if shuts_down {
                self.later(node, OTHER * 2, Event::GuestShutDown { vm: vm(name) });
            }
        }
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let event = self.queue.keys().next().map(|(time, _)| *time);
            let alive = self.members.values().filter(|member| member.alive);
            let wake = alive.map(|member| member.wake).min();
            let next = event.into_iter().chain(wake).min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.finish_migrations();
            match self.queue.first_entry().filter(|entry| entry.key().0 <= next) {
                Some(entry) => {
                    let (node, event) = entry.remove();
                    self.step(node, event);
                }
                None => self.wake(),
            }
        }
    }

    /// Until it is so; a minute at most.
    pub fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = self.now + 60_000;
        while !done(self) {
            assert!(self.now < end, "it never came to that");
            self.run(1);
        }
    }

    fn wake(&mut self) {
        let due = |member: &Member| member.alive && member.wake <= self.now;
        let nodes: Vec<u32> =
            self.members.iter().filter(|(_, m)| due(m)).map(|(n, _)| *n).collect();
        nodes.into_iter().for_each(|node| self.step(node, Event::Woke));
    }

    fn step(&mut self, node: u32, event: Event) {
        let now = at(self.now);
        let member = self.members.get_mut(&node).unwrap();
        if member.alive {
            let step = member.machine.step(event, now);
            self.carry_out(node, step);
        }
    }

    pub fn later(&mut self, node: u32, delay: u64, event: Event) {
        self.count += 1;
        self.queue.insert((self.now + delay, self.count), (node, event));
    }

    /// A new incarnation of the agent; its guests go on.
    pub fn restart(&mut self, node: u32, config: Config) {
        let (machine, step) = Machine::new(config, at(self.now));
        self.members.get_mut(&node).unwrap().machine = machine;
        self.queue.retain(|_, (to, _)| *to != node);
        self.carry_out(node, step);
    }

    /// The agent alone, one of three, dies and is back at once.
    pub fn restart_agent(&mut self, node: u32) {
        self.restart_agent_as(node, config_of(node, 3));
    }

    /// It comes back configured like this.
    pub fn restart_agent_as(&mut self, node: u32, mut config: Config) {
        config.me.incarnation.0 = 2;
        let lately = Some(at(self.now - 200));
        config.inherited = Some(Inherited { basis: lately, last_feed_ended: lately });
        self.restart(node, config);
        self.split(&[&[1, 2, 3]], 100);
    }

    /// Power off.
    pub fn kill(&mut self, node: u32) {
        self.members.get_mut(&node).unwrap().alive = false;
        self.executing.retain(|(_, on)| *on != node);
        self.paused.retain(|(_, on)| *on != node);
        self.permitted.retain(|(_, on)| *on != node);
        let mut sides = core::mem::take(&mut self.sides);
        for side in &mut sides {
            side.remove(&node);
        }
        let sides: Vec<Vec<u32>> = sides.into_iter().map(Vec::from_iter).collect();
        let sides: Vec<&[u32]> = sides.iter().map(Vec::as_slice).collect();
        self.split(&sides, 1_000);
    }

    /// Only nodes of one side hear each other, from now on; corosync says so `notice` later.
    pub fn split(&mut self, sides: &[&[u32]], notice: u64) {
        self.sides = sides.iter().map(|side| side.iter().copied().collect()).collect();
        for side in self.sides.clone() {
            for node in &side {
                let members = side.iter().map(|node| id(*node)).collect();
                self.later(*node, notice, Event::ViewChanged { members });
            }
        }
    }

    pub fn storage(&mut self, node: u32, works: bool) {
        self.members.get_mut(&node).unwrap().storage = works;
    }

    fn carry_out(&mut self, node: u32, step: Step) {
        assert!(step.wake_at.0 >= at(self.now), "it is woken in the past: {:?}", step.wake_at);
        // A machine that is woken at once for ever would hang the test: the clock moves on.
        self.members.get_mut(&node).unwrap().wake = step.wake_at.0.0.max(self.now + 1);
        for action in step.actions {
            self.act(node, action);
        }
    }

    fn act(&mut self, node: u32, action: Action) {
        let stored = self.members[&node].storage;
        let result = if stored { Ok(()) } else { Err(StorageError("switched off".into())) };
        match action {
            Action::Send(message) => {
                let sender = id(node);
                for to in self.sides.iter().find(|side| side.contains(&node)).cloned().unwrap() {
                    let message = message.clone();
                    self.later(to, MESSAGE, Event::MessageReceived { sender, message });
                }
            }
            Action::WritePage { id: write, page } => {
                if stored {
                    self.pages.insert(id(node), Some(*page));
                }
                self.later(node, DISK, Event::WriteEnded { id: write, result });
            }
            Action::WriteBody { id: write, slot, bytes } => {
                if stored {
                    self.bodies.insert((id(node), slot), bytes);
                }
                self.later(node, DISK, Event::WriteEnded { id: write, result });
            }
            Action::ReadPages { id: read, nodes } => {
                let slot = |node: &NodeId| (*node, self.pages.get(node).cloned().flatten());
                let result = result.map(|()| nodes.iter().map(slot).collect());
                self.later(node, DISK, Event::PagesRead { id: read, result });
            }
            Action::ReadBody { id: read, node: whose, slot } => {
                let result = result.map(|()| self.bodies[&(whose, slot)].to_vec());
                self.later(node, DISK, Event::BodyRead { id: read, result });
            }
            other => self.act_on_node(node, other),
        }
    }

    fn act_on_node(&mut self, node: u32, action: Action) {
        match action {
            Action::FeedWatchdog { .. } => {
                self.closed.remove(&node);
                let ended = at(self.now + 1);
                self.later(node, 1, Event::WatchdogFed { ended });
            }
            Action::CloseWatchdog => {
                self.closed.insert(node);
                self.later(node, 1, Event::WatchdogClosed);
            }
            Action::ScanGuests => {
                let here = self.executing.iter().chain(&self.paused);
                let here = here.filter(|(_, on)| *on == node);
                let present = here.map(|(vm, _)| vm.clone()).collect();
                let scan = GuestScan { began: at(self.now), present, unresolved: BTreeSet::new() };
                self.later(node, OTHER, Event::GuestsScanned(scan));
            }
            Action::StartVm { vm, not_after, .. } => {
                assert!(at(self.now) <= not_after);
                let result = self.start(&vm, node);
                self.later(node, self.start_takes, Event::StartEnded { vm, result });
            }
            Action::DestroyVm { vm, .. } if self.guests_hang => {
                self.later(node, OTHER, Event::StopEnded { vm, result: Ok(()) });
            }
            Action::DestroyVm { vm, .. } => {
                self.executing.remove(&(vm.clone(), node));
                self.paused.remove(&(vm.clone(), node));
                self.destroyed.push((self.now, vm.0.clone(), node));
                self.later(node, OTHER, Event::GuestExited { vm: vm.clone() });
                self.later(node, OTHER, Event::StopEnded { vm, result: Ok(()) });
            }
            Action::MigrateVm { vm, to, not_after, .. } => {
                assert!(at(self.now) <= not_after);
                self.migrate(vm, node, to.0);
            }
            Action::AbortMigration { vm } => {
                let Some(k) = self.leaving.iter().position(|l| l.0 == vm && l.1 == node) else {
                    return;
                };
                let (vm, _, to, _) = self.leaving.remove(k);
                self.paused.remove(&(vm.clone(), to));
                self.later(node, OTHER, migrated(&vm, Err("aborted".into())));
            }
            Action::PermitArrival { vm } => {
                self.permitted.insert((vm, node));
            }
            Action::ForbidArrival { vm } => {
                self.permitted.remove(&(vm, node));
            }
            Action::ResumeVm { vm, not_after } => {
                assert!(at(self.now) <= not_after);
                if self.resumes_fail {
                    let result = Err("guest is broken".into());
                    return self.later(node, OTHER, Event::ResumeEnded { vm, result });
                }
                if self.paused.remove(&(vm.clone(), node)) {
                    self.resumes.push((self.now, vm.0.clone(), node));
                    self.execute(&vm, node);
                }
                self.later(node, OTHER, Event::ResumeEnded { vm, result: Ok(()) });
            }
            Action::ShutDownVm { vm } => {
                if self.guests_listen {
                    self.end_guest(vm.0.trim_start_matches("uuid-of-"), true);
                }
            }
            Action::Fence { victim, eviction } => {
                self.fences.push((self.now, victim.0));
                self.kill(victim.0);
                self.later(node, 500, Event::FenceEnded { victim, eviction, result: Ok(()) });
            }
            Action::ResetNode { reason } => {
                self.resets.push(node);
                self.last_words.push((node, reason));
                if !self.resets_hang {
                    self.kill(node);
                }
            }
            Action::AskPriority { id, policy, question } => {
                let decider = Decider { digest: policy, ..Decider::default() };
                let verdict = node_priority(&question);
                self.later(node, OTHER, Event::PriorityAnswered { id, verdict, decider });
            }
            Action::AskPlacement { id, question } => {
                let (verdict, decider) = (placement(&question), Decider::default());
                self.later(node, OTHER, Event::PlacementAnswered { id, verdict, decider });
            }
            Action::Record(decision) if decision.kind == Kind::LastWords => {
                self.last_words.push((node, decision.text));
            }
            Action::Record(decision)
                if matches!(decision.kind, Kind::Election | Kind::Enrolment | Kind::Policy)
                    || decision.rule == "PROACTIVE" =>
            {
                self.told.push((node, decision.text));
            }
            Action::LetHostStop => drop(self.let_go.insert(node)),
            Action::Answer(reply) => self.answers.push(format!("{:?}", reply.result)),
            Action::UndefineVm { .. } | Action::AdoptVm { .. } | Action::Record(_) => {}
            other => panic!("nobody does {other:?}"),
        }
    }

    /// An adapter tells `node`.
    pub fn tell(&mut self, node: u32, event: Event) {
        self.later(node, 1, event);
    }

    fn migrate(&mut self, vm: VmId, from: u32, to: u32) {
        self.attempts += 1;
        if self.migrations == Migrating::Fails || !self.permitted.contains(&(vm.clone(), to)) {
            return self.later(from, OTHER, migrated(&vm, Err("operation failed".into())));
        }
        self.paused.insert((vm.clone(), to));
        self.count += 1;
        self.leaving.push((vm, from, to, self.now + self.migration_length()));
    }

    fn migration_length(&self) -> u64 {
        match self.migrations {
            Migrating::Takes(length) => length,
            Migrating::Fails | Migrating::Hangs => u64::MAX / 2,
        }
    }

    /// Guests whose migration is complete leave their source.
    pub fn finish_migrations(&mut self) {
        let due = |l: &&(VmId, u32, u32, u64)| l.3 <= self.now;
        let over: Vec<_> = self.leaving.iter().filter(due).cloned().collect();
        self.leaving.retain(|l| l.3 > self.now);
        for (vm, from, to, _) in over {
            let alive = self.members[&from].alive && self.members[&to].alive;
            if alive && self.executing.remove(&(vm.clone(), from)) {
                self.later(from, OTHER, Event::GuestExited { vm: vm.clone() });
                self.later(from, OTHER, migrated(&vm, Ok(())));
            }
        }
    }

    fn start(&mut self, vm: &VmId, node: u32) -> Result<(), String> {
        if self.refusals > 0 {
            self.refusals -= 1;
            self.refused.push(self.now);
            return Err("the disk is not there yet".into());
        }
        self.starts.push((self.now, vm.0.clone(), node));
        self.execute(vm, node);
        Ok(())
    }

    fn execute(&mut self, vm: &VmId, node: u32) {
        self.executing.insert((vm.clone(), node));
        let homes = self.executing.iter().filter(|(known, _)| known == vm).count();
        assert_eq!(homes, 1, "{vm} executes twice at {}", self.now);
    }

    /// Nodes that lead, by their own word.
    pub fn leaders(&self) -> Vec<u32> {
        let leads = |m: &Member| m.alive && m.machine.register.leading().is_some();
        self.members.iter().filter(|(_, m)| leads(m)).map(|(node, _)| *node).collect()
    }

    /// Nodes that `node` knows to be admitted by a proved ledger.
    pub fn admitted(&self, node: u32) -> Vec<u32> {
        let Some(known) = self.members[&node].machine.register.proved() else {
            return Vec::new();
        };
        let nodes = known.ledger.nodes.iter();
        let admitted = nodes.filter(|(_, e)| matches!(e.standing, Standing::Admitted { .. }));
        admitted.map(|(node, _)| node.0).collect()
    }

    /// What `node` shows of the VM: state and reason.
    pub fn shown(&self, node: u32, name: &str) -> (String, String) {
        let snapshot = self.members[&node].machine.snapshot(at(self.now));
        let view = snapshot.vms.into_iter().find(|view| view.id == vm(name)).unwrap();
        (view.state, view.reason)
    }

    /// Where `name` executes.
    pub fn homes(&self, name: &str) -> Vec<u32> {
        let here = self.executing.iter().filter(|(known, _)| *known == vm(name));
        here.map(|(_, node)| *node).collect()
    }
}

fn migrated(vm: &VmId, result: Result<(), String>) -> Event {
    Event::MigrationEnded { vm: vm.clone(), result }
}
