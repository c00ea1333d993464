//! One node: power, boots, its agent's lives, and what the agent's adapters do.

use super::clock::{Clock, MS, SECOND, Time};
use super::faults::bits;
use super::hypervisor::Handed;
use super::policy;
use super::queue::{Needs, What};
use super::script::Told;
use super::watchdog::{FeedRecord, Watchdog};
use super::world::World;
use std::collections::BTreeSet;
use steadfast_core::action::Action;
use steadfast_core::config::{Builtin, Config, Inherited};
use steadfast_core::event::Event;
use steadfast_core::ids::{BootId, Identity, Incarnation, NodeId};
use steadfast_core::machine::Machine;
use steadfast_core::step::Step;
use steadfast_core::time::Instant;

/// A node of the world.
#[derive(Debug)]
pub struct Node {
    /// Name, for people.
    pub name: String,
    /// Boots so far; names the present one.
    pub boots: u64,
    /// The running kernel, or none: the power is off.
    pub boot: Option<Boot>,
    /// Its agent is stopped until then (0: runs).
    pub agent_sleeps: Time,
    /// All its processes are stopped until then (0: run).
    pub node_sleeps: Time,
    /// What waits for the agent to run.
    pub for_agent: Vec<What>,
    /// What waits for the node's processes to run.
    pub for_node: Vec<What>,
}

/// What lives as long as a kernel.
#[derive(Debug)]
pub struct Boot {
    /// Own time.
    pub clock: Clock,
    /// Incarnations of the agent so far (tmpfs).
    pub incarnations: u64,
    /// The record of feeds (tmpfs).
    pub fed: Option<FeedRecord>,
    /// The watchdog, once open.
    pub watchdog: Option<Watchdog>,
    /// VMs whose QEMU process exists, as bits.
    pub executing: u64,
    /// Starts that libvirt works on.
    pub starts: Vec<Handed>,
    /// Page and body writes under way in the kernel.
    pub writes: u32,
    /// The agent, if it runs.
    pub agent: Option<Agent>,
}

/// One incarnation of the agent.
#[derive(Debug)]
pub struct Agent {
    /// The shipped machine.
    pub machine: Box<Machine>,
    /// Names this life in the whole world.
    pub epoch: u64,
    /// Which life in this boot.
    pub incarnation: u64,
    /// Joined the CPG group.
    pub joined: bool,
    /// VMs whose exit it watches, as bits.
    pub watched: u64,
    /// Dies in the middle of its next step, after this many actions.
    pub dies_after: Option<usize>,
    wake: Option<(Instant, u64)>,
    wakes: u64,
}

/// Node id of the node with index `n`.
#[must_use]
pub fn id(n: usize) -> NodeId {
    NodeId(u32::try_from(n + 1).unwrap_or(u32::MAX))
}

/// Index of the node with this id.
#[must_use]
pub fn index(id: NodeId) -> usize {
    (id.0 as usize).wrapping_sub(1)
}

impl World {
    /// Own time of a node that is on.
    #[must_use]
    pub fn own(&self, n: usize) -> Instant {
        self.nodes[n].boot.as_ref().map_or(Instant(0), |boot| boot.clock.own(self.now))
    }

    /// The agent of this epoch, if it still lives.
    pub fn agent(&mut self, n: usize, epoch: u64) -> Option<&mut Agent> {
        let agent = self.nodes[n].boot.as_mut()?.agent.as_mut()?;
        (agent.epoch == epoch).then_some(agent)
    }

    /// Epoch of the node's agent, if one runs.
    #[must_use]
    pub fn epoch(&self, n: usize) -> Option<u64> {
        Some(self.nodes[n].boot.as_ref()?.agent.as_ref()?.epoch)
    }

    /// Keeps `what` for later if whom it needs sleeps; otherwise gives it back.
    pub fn park(&mut self, what: What) -> Option<What> {
        let now = self.now;
        match what.needs() {
            Needs::Agent(n) if self.nodes[n].agent_sleeps.max(self.nodes[n].node_sleeps) > now => {
                self.nodes[n].for_agent.push(what);
                None
            }
            Needs::Node(n) if self.nodes[n].node_sleeps > now => {
                self.nodes[n].for_node.push(what);
                None
            }
            _ => Some(what),
        }
    }

    /// Stops the agent, or the whole node, for a while.
    pub fn sleep(&mut self, n: usize, length: Time, whole: bool) {
        let until = self.now + length;
        self.note(n, || {
            let who = if whole { "node" } else { "agent" };
            format!("{who} paused for {} ms", length / MS)
        });
        if whole {
            self.nodes[n].node_sleeps = self.nodes[n].node_sleeps.max(until);
            self.topology_changed();
        } else {
            self.nodes[n].agent_sleeps = self.nodes[n].agent_sleeps.max(until);
        }
        self.queue.push(until, What::Resume { node: n });
    }

    /// A pause is over: what waited happens now, in its old order.
    pub fn resume(&mut self, n: usize) {
        if self.nodes[n].node_sleeps > self.now {
            return;
        }
        let mut ready = std::mem::take(&mut self.nodes[n].for_node);
        let slept = std::mem::take(&mut self.nodes[n].node_sleeps) > 0;
        if self.nodes[n].agent_sleeps <= self.now {
            ready.append(&mut self.nodes[n].for_agent);
            if std::mem::take(&mut self.nodes[n].agent_sleeps) > 0 || slept {
                self.note(n, || "runs again".into());
            }
        }
        for what in ready {
            self.queue.push(self.now, what);
        }
        self.topology_changed();
    }

    /// Switches a node on.
    pub fn switch_on(&mut self, n: usize) {
        if self.nodes[n].boot.is_some() {
            return;
        }
        let offset = self.rng.range(3_000, 90_000);
        let clock = Clock { zero: self.now, offset, rate: self.plan.rates[n] };
        let node = &mut self.nodes[n];
        node.boots += 1;
        node.boot = Some(Boot {
            clock,
            incarnations: 0,
            fed: None,
            watchdog: None,
            executing: 0,
            starts: Vec::new(),
            writes: 0,
            agent: None,
        });
        let boot = node.boots;
        // The guest without HA is autostarted; so is what the operator has not yet put under HA.
        let running = 1 << (self.plan.vms + n);
        let first = boot == 1 && self.rng.chance(700);
        let mine = self.enrolments.iter().filter(|e| first && e.home == n).map(|e| e.vm);
        let running = running | bits(mine);
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            boot.executing = running;
        }
        self.note(n, || format!("boots ({}), executing {running:b}", boot_id(n, boot)));
        self.script.tell(|| Told::Boots { node: n, executing: running });
        let at = self.now + self.rng.skewed(50, 3_000) * MS;
        self.queue.push(at, What::AgentStart { node: n, boot });
        self.topology_changed();
    }

    /// Cuts a node's power: everything in it ends at once, its input and output too.
    pub fn cut(&mut self, n: usize, why: &'static str) {
        let Some(boot) = self.nodes[n].boot.take() else { return };
        let lost = boot.executing;
        self.note(n, || format!("POWER CUT: {why}; executing guests {lost:b} end"));
        self.script.tell(|| Told::Off { node: n, why, lost });
        let node = &mut self.nodes[n];
        node.for_agent.clear();
        node.for_node.clear();
        (node.agent_sleeps, node.node_sleeps) = (0, 0);
        self.disk.power_cut(n);
        self.net.power_cut(n);
        self.topology_changed();
        self.check_outage(n, why);
        // The plan says when a node comes back that it had cut; all others reboot.
        if why != "fault" {
            let after = self.rng.range(4, 40) * SECOND;
            if let Some(after) = self.script.reboot.unwrap_or(Some(after)) {
                self.queue.push(self.now + after, What::Boot { node: n });
            }
        }
    }

    /// systemd starts the agent, once no write of an earlier one is under way.
    pub fn agent_start(&mut self, n: usize, number: u64) {
        if self.nodes[n].boots != number {
            return;
        }
        let (now, at) = (self.own(n), self.now + 200 * MS);
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        if boot.agent.is_some() {
            return;
        }
        if boot.writes > 0 {
            // The exclusive lock is shared with its I/O threads.
            self.queue.push(at, What::AgentStart { node: n, boot: number });
            return;
        }
        boot.incarnations += 1;
        let incarnation = boot.incarnations;
        // Whether the descriptor is open is known by systemd's store, not by the record.
        let open = boot.watchdog.is_some();
        let inherited = boot.fed.map(|fed| Inherited {
            basis: fed.basis,
            last_feed_ended: open.then(|| fed.ended.unwrap_or(now)),
        });
        self.epochs += 1;
        let epoch = self.epochs;
        self.note(n, || format!("agent starts (incarnation {incarnation}, {inherited:?})"));
        self.script.tell(|| Told::AgentStarts { node: n });
        let config = self.config(n, number, incarnation, inherited);
        let (machine, step) = Machine::new(config, now);
        let agent = Agent {
            machine: Box::new(machine),
            epoch,
            incarnation,
            joined: false,
            watched: 0,
            dies_after: None,
            wake: None,
            wakes: 0,
        };
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            boot.agent = Some(agent);
        }
        let at = self.now + self.rng.range(1, 60) * MS;
        self.queue.push(at, What::Join { node: n, epoch });
        self.obey(n, epoch, step);
        self.greet(n, epoch);
    }

    fn config(
        &self,
        n: usize,
        boot: u64,
        incarnation: u64,
        inherited: Option<Inherited>,
    ) -> Config {
        let fence_agents = (0..self.nodes.len()).filter(|k| self.plan.fence_agents >> k & 1 == 1);
        let node = id(n);
        Config {
            me: Identity { node, boot: boot_id(n, boot), incarnation: Incarnation(incarnation) },
            timing: self.plan.timing.clone(),
            genesis: self.genesis.clone(),
            fence_agents: fence_agents.map(id).collect::<BTreeSet<_>>(),
            verification: self.plan.verification,
            never_paused: self.plan.never_paused,
            inherited,
            name: self.nodes[n].name.clone(),
            limits: self.plan.limits.clone(),
            builtin: Builtin { node_priority: policy::node_priority, placement: policy::placement },
        }
    }

    /// The agent's process dies; its writes, and what libvirt has, go on.
    pub fn crash(&mut self, n: usize, back_after: Time) {
        let now = self.now;
        let number = self.nodes[n].boots;
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        if boot.agent.take().is_none() {
            return;
        }
        self.nodes[n].for_agent.clear();
        self.nodes[n].agent_sleeps = 0;
        self.note(n, || format!("agent dies, back in {} ms", back_after / MS));
        self.script.tell(|| Told::AgentDies { node: n });
        self.leave(n);
        self.queue.push(now + back_after, What::AgentStart { node: n, boot: number });
    }

    /// Gives an event to the machine and does what it says.
    pub fn tell(&mut self, n: usize, epoch: u64, event: Event) {
        let now = self.own(n);
        if self.trace.verbose && !matches!(event, Event::Woke) {
            self.note(n, || format!("    <- {event:?}"));
        }
        let Some(agent) = self.agent(n, epoch) else { return };
        let step = agent.machine.step(event, now);
        self.check_belief(n, epoch);
        self.obey(n, epoch, step);
    }

    fn obey(&mut self, n: usize, epoch: u64, step: Step) {
        for action in step.actions {
            let Some(agent) = self.agent(n, epoch) else { return };
            match &mut agent.dies_after {
                Some(0) => return self.crash_mid_step(n),
                Some(left) => *left -= 1,
                None => {}
            }
            self.act(n, epoch, action);
        }
        self.check_explained(n);
        self.wake_later(n, epoch, step.wake_at.0);
    }

    fn crash_mid_step(&mut self, n: usize) {
        self.check.forget_step();
        let back = self.rng.skewed(100, 20_000) * MS;
        self.crash(n, back);
    }

    /// One timer an agent; it is late by a little, now and then by more.
    fn wake_later(&mut self, n: usize, epoch: u64, at: Instant) {
        let late = if self.rng.chance(5) { self.rng.range(0, 200 * MS) } else { 300 };
        let earliest = self.now + late.min(MS);
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        let clock = boot.clock;
        let Some(agent) = boot.agent.as_mut().filter(|agent| agent.epoch == epoch) else { return };
        if agent.wake.is_some_and(|(pending, _)| pending == at) {
            return;
        }
        agent.wakes += 1;
        let number = agent.wakes;
        agent.wake = Some((at, number));
        let due = (clock.when(at) + late).max(earliest);
        self.queue.push(due, What::Wake { node: n, epoch, number });
    }

    /// The timer fires, unless it was set anew.
    pub fn woke(&mut self, n: usize, epoch: u64, number: u64) {
        let Some(agent) = self.agent(n, epoch) else { return };
        if agent.wake.is_some_and(|(_, pending)| pending == number) {
            agent.wake = None;
            self.tell(n, epoch, Event::Woke);
        }
    }

    /// Answers the machine after `delay`.
    pub fn answer(&mut self, n: usize, epoch: u64, delay: Time, event: Event) {
        let what = What::Deliver { node: n, epoch, event: Box::new(event) };
        self.queue.push(self.now + delay, what);
    }

    fn act(&mut self, n: usize, epoch: u64, action: Action) {
        self.check_action(n, &action);
        self.script.tell(|| Told::Does { node: n, action: Box::new(action.clone()) });
        if self.trace.on {
            self.tell_story(n, &action);
        }
        match action {
            Action::Send(message) => {
                let at = self.now + self.rng.range(20, 200);
                self.queue.push(at, What::Send { node: n, epoch, message });
            }
            Action::WritePage { id, page } => self.write_page(n, epoch, id, page),
            Action::WriteBody { id, slot, bytes } => self.write_body(n, epoch, id, slot, bytes),
            Action::ReadPages { id, .. } => self.read_pages(n, epoch, id),
            Action::ReadBody { id, node, slot } => self.read_body(n, epoch, id, index(node), slot),
            Action::FeedWatchdog { basis, not_after, .. } => self.feed(n, epoch, basis, not_after),
            Action::ResetNode { .. } => self.reset(n),
            Action::ScanGuests => self.scan(n, epoch),
            Action::StartVm { vm, not_after, .. } => self.start_vm(n, epoch, &vm, not_after),
            Action::DestroyVm { vm, .. } => self.destroy_vm(n, epoch, &vm),
            Action::UndefineVm { .. } => {}
            Action::AdoptVm { vm } => self.adopt(n, epoch, &vm),
            Action::Fence { victim, eviction } => self.fence(n, epoch, index(victim), eviction),
            Action::AskPriority { id, question } => self.ask_priority(n, epoch, id, &question),
            Action::AskPlacement { id, question } => self.ask_placement(n, epoch, id, &question),
            Action::Answer(reply) => self.replied(n, &reply),
            Action::CloseWatchdog => self.close_later(n, epoch),
            Action::ShutDownVm { .. }
            | Action::MigrateVm { .. }
            | Action::AbortMigration { .. }
            | Action::PermitArrival { .. }
            | Action::ForbidArrival { .. }
            | Action::ResumeVm { .. }
            | Action::Record(_) => {}
        }
    }
}

/// Boot id of a node's `number`th boot.
#[must_use]
pub fn boot_id(n: usize, number: u64) -> BootId {
    BootId(((n as u128 + 1) << 112) | (u128::from(number) << 96))
}
