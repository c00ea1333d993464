//! An agent's life on a node: the shipped machine, and what the agent's process does for it.

use super::aims::Trigger;
use super::clock::{MS, SECOND, Time};
use super::faults::bits;
use super::hypervisor::Preparing;
use super::node::{boot_id, id, index, index_of};
use super::queue::What;
use super::script::Told;
use super::shots::Looks;
use super::watchdog::{Feed, Keeper};
use super::words;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steadfast_core::action::Action;
use steadfast_core::config::{Config, Inherited};
use steadfast_core::event::Event;
use steadfast_core::ids::{Identity, Incarnation, Stamp, VmId};
use steadfast_core::machine::Machine;
use steadfast_core::message::{Body, Message};
use steadfast_core::step::Step;
use steadfast_core::time::Instant;

/// One incarnation of the agent.
#[derive(Debug)]
pub struct Agent {
    /// The shipped machine.
    pub machine: Box<Machine>,
    /// Names this life in the whole world.
    pub epoch: u64,
    /// Whom others take it for.
    pub me: Identity,
    /// Joined the CPG group.
    pub joined: bool,
    /// VMs whose exit it watches, as bits.
    pub watched: u64,
    /// Dies in the middle of its next step, after this many actions.
    pub dies_after: Option<usize>,
    /// So does the whole node.
    pub dies_with_node: bool,
    /// Messages that wait in its process.
    pub outbox: VecDeque<Box<Message>>,
    /// Starts that libvirt has not seen.
    pub preparing: Vec<Preparing>,
    /// Its thread that feeds the watchdog.
    pub keeper: Keeper,
    /// Highest sequence that it has read of each page.
    pub seen: Vec<u64>,
    /// It has read the ledger.
    pub has_read: bool,
    /// What it was told.
    pub told: words::Told,
    /// When it looked at the pages.
    pub looks: Looks,
    /// Highest term that any message to it named.
    pub heard_term: u64,
    /// Highest term in which it was ordered to start each VM.
    pub orders: BTreeMap<usize, u64>,
    /// Ownerships under which it started VMs, or found them running.
    pub ran: BTreeMap<usize, Stamp>,
    /// VMs with a process by the last scan that reached the machine, and by the last one that looked, as bits.
    pub scanned: (u64, u64),
    proved: Option<Stamp>,
    facts_told: Time,
    wake: Wake,
}

/// The timer: one is set at most, and what is due later than it is set for waits for it.
#[derive(Debug, Default)]
struct Wake {
    /// Wanted at this own time.
    wanted: Instant,
    /// Set for this true time, and its number.
    set: Option<(Time, u64)>,
    number: u64,
}

impl Agent {
    fn new(machine: Machine, epoch: u64, me: Identity, keeper: Keeper) -> Self {
        Self {
            machine: Box::new(machine),
            epoch,
            me,
            joined: false,
            watched: 0,
            dies_after: None,
            dies_with_node: false,
            outbox: VecDeque::new(),
            preparing: Vec::new(),
            keeper,
            seen: Vec::new(),
            has_read: false,
            told: words::Told::default(),
            looks: Looks::default(),
            heard_term: 0,
            orders: BTreeMap::new(),
            ran: BTreeMap::new(),
            scanned: (0, 0),
            proved: None,
            facts_told: 0,
            wake: Wake::default(),
        }
    }

    /// VMs whose start libvirt has not seen, but may yet, as bits. `own` is own time.
    #[must_use]
    pub fn preparing_at(&self, own: Instant) -> u64 {
        let alive =
            self.preparing.iter().filter(|start| start.not_after.is_none_or(|at| own <= at));
        bits(alive.map(|start| start.vm))
    }

    /// True if facts are to be told again.
    pub fn tells_facts(&mut self, now: Time) -> bool {
        let due = self.facts_told == 0 || now >= self.facts_told + 4 * SECOND;
        if due {
            self.facts_told = now.max(1);
        }
        due
    }

    /// What it hears, for the judge.
    fn hear(&mut self, message: &Message, vm_index: impl Fn(&VmId) -> usize) {
        let term = match &message.body {
            Body::Beat(beat) => beat.term,
            Body::Committed(committed) => committed.stamp.ballot.term,
            Body::Ballot(ballot) => ballot.term,
            Body::Leading { term } => *term,
            Body::StartVm(order) if order.to == self.me => {
                let known = self.orders.entry(vm_index(&order.vm)).or_default();
                *known = order.term.max(*known);
                order.term
            }
            _ => 0,
        };
        self.heard_term = self.heard_term.max(term);
    }
}

impl World {
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
        self.nodes[n].speaks = config.level;
        let me = config.me;
        let (machine, step) = Machine::new(config, now);
        let keeper = Keeper::new(open && self.plan.fd_store);
        let agent = Agent::new(machine, epoch, me, keeper);
        if let Some(boot) = self.nodes[n].boot.as_mut() {
            boot.agent = Some(agent);
            // What an earlier incarnation let in is not this one's.
            boot.permitted = 0;
        }
        self.note_awake(n);
        self.aim(Trigger::AgentStarts, n);
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
            level: self.plan.speaks(n, self.now),
            limits: self.plan.limits.clone(),
            builtin: self.plan.builtin(),
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
        self.note_awake(n);
        self.note(n, || format!("agent dies, back in {} ms", back_after / MS));
        self.script.tell(|| Told::AgentDies { node: n });
        self.leave(n);
        self.queue.push(now + back_after, What::AgentStart { node: n, boot: number });
    }

    /// Gives an event to the machine, as soon as the agent is awake.
    pub fn deliver(&mut self, n: usize, epoch: u64, event: Event) {
        if self.nodes[n].agent_sleeps.max(self.nodes[n].node_sleeps) > self.now {
            let what = What::Deliver { node: n, epoch, event: Box::new(event) };
            return self.nodes[n].for_agent.push(what);
        }
        self.tell(n, epoch, event);
    }

    /// Gives an event to the machine and does what it says.
    pub fn tell(&mut self, n: usize, epoch: u64, event: Event) {
        if self.trace.verbose && !matches!(event, Event::Woke) {
            self.note(n, || format!("    <- {event:?}"));
        }
        let vms = &self.vms;
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        let now = boot.clock.own(self.now);
        let Some(agent) = boot.agent.as_mut().filter(|agent| agent.epoch == epoch) else { return };
        agent.told.hear(&event);
        match &event {
            Event::MessageReceived { message, .. } => agent.hear(message, |vm| index_of(vms, vm)),
            Event::GuestsScanned(scan) => {
                agent.scanned.0 = bits(scan.present.iter().map(|vm| index_of(vms, vm)));
            }
            Event::PagesRead { result: Ok(pages), .. } => agent.looks.end(pages, self.now),
            _ => {}
        }
        let step = agent.machine.step(event, now);
        let proved = agent.machine.proved();
        if proved != agent.proved {
            agent.proved = proved;
            if let Some(stamp) = proved {
                self.check_commit(n, stamp);
            }
        }
        self.obey(n, epoch, step);
    }

    fn obey(&mut self, n: usize, epoch: u64, step: Step) {
        for action in step.actions {
            let Some(agent) = self.agent(n, epoch) else { return };
            match &mut agent.dies_after {
                Some(0) => return self.die_mid_step(n),
                Some(left) => *left -= 1,
                None => {}
            }
            self.act(n, epoch, action);
        }
        self.check_explained(n);
        self.wake_later(n, epoch, step.wake_at.0);
    }

    fn die_mid_step(&mut self, n: usize) {
        self.check.forget_step();
        let agent = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        if agent.is_some_and(|agent| agent.dies_with_node) {
            self.cut(n, "fault");
            let at = self.now + self.rng.skewed(300, 30_000) * MS;
            return self.queue.push(at, What::Boot { node: n });
        }
        let back = self.rng.skewed(100, 20_000) * MS;
        self.crash(n, back);
    }

    /// One timer an agent; it is late by a little, now and then by more. One that is set for too early is set anew when it
    /// fires.
    fn wake_later(&mut self, n: usize, epoch: u64, at: Instant) {
        let now = self.now;
        let Some(boot) = self.nodes[n].boot.as_mut() else { return };
        let clock = boot.clock;
        let Some(agent) = boot.agent.as_mut().filter(|agent| agent.epoch == epoch) else { return };
        agent.wake.wanted = at;
        let due = clock.when(at).max(now);
        if agent.wake.set.is_some_and(|(set, _)| set <= due + MS) {
            return;
        }
        let late = if self.rng.chance(5) { self.rng.range(0, 200 * MS) } else { 300 };
        agent.wake.number += 1;
        let number = agent.wake.number;
        agent.wake.set = Some((due + late, number));
        self.queue.push(due + late, What::Wake { node: n, epoch, number });
    }

    /// The timer fires, unless it was set anew.
    pub fn woke(&mut self, n: usize, epoch: u64, number: u64) {
        let now = self.own(n);
        let Some(agent) = self.agent(n, epoch) else { return };
        if agent.wake.set.is_none_or(|(_, set)| set != number) {
            return;
        }
        agent.wake.set = None;
        let wanted = agent.wake.wanted;
        if wanted > now {
            return self.wake_later(n, epoch, wanted);
        }
        self.tell(n, epoch, Event::Woke);
    }

    /// Answers the machine after `delay`.
    pub fn answer(&mut self, n: usize, epoch: u64, delay: Time, event: Event) {
        let what = What::Deliver { node: n, epoch, event: Box::new(event) };
        self.queue.push(self.now + delay, what);
    }

    fn act(&mut self, n: usize, epoch: u64, action: Action) {
        self.check_action(n, &action);
        self.script.tell(|| Told::Does { node: n, action: Box::new(action.clone()) });
        self.aim_at(n, &action);
        if self.trace.on {
            self.tell_story(n, &action);
        }
        match action {
            Action::Send(message) => self.say(n, epoch, message),
            Action::WritePage { id, page } => self.write_page(n, epoch, id, page),
            Action::WriteBody { id, slot, bytes } => self.write_body(n, epoch, id, slot, bytes),
            Action::ReadPages { id, nodes } => self.read_pages(n, epoch, id, nodes),
            Action::ReadBody { id, node, slot } => self.read_body(n, epoch, id, index(node), slot),
            Action::FeedWatchdog { basis, last, not_after } => {
                self.feed(n, epoch, Feed { basis, last, not_after });
            }
            Action::ResetNode { .. } => self.reset(n),
            Action::ScanGuests => self.scan(n, epoch),
            Action::StartVm { vm, not_after, .. } => self.start_vm(n, epoch, &vm, not_after),
            Action::DestroyVm { vm, .. } => self.destroy_vm(n, epoch, &vm),
            Action::UndefineVm { .. } => {}
            Action::AdoptVm { vm } => self.adopt(n, epoch, &vm),
            Action::Fence { victim, eviction } => self.fence(n, epoch, index(victim), eviction),
            Action::AskPriority { id, policy, question } => {
                self.ask_priority(n, epoch, (id, policy), &question);
            }
            Action::AskPlacement { id, question } => self.ask_placement(n, epoch, id, &question),
            Action::Answer(reply) => self.replied(n, &reply),
            Action::CloseWatchdog => self.close_later(n, epoch),
            Action::LetHostStop => self.host_may_stop(n, epoch),
            Action::ShutDownVm { vm } => self.shut_down_vm(n, &vm),
            Action::MigrateVm { vm, to, not_after, .. } => {
                self.migrate_vm(n, epoch, (&vm, to), not_after);
            }
            Action::AbortMigration { vm } => self.abort_migration(n, &vm),
            Action::PermitArrival { vm } => self.permit_arrival(n, &vm, true),
            Action::ForbidArrival { vm } => self.permit_arrival(n, &vm, false),
            Action::ResumeVm { vm, not_after } => self.resume_vm(n, epoch, &vm, not_after),
            Action::Record(_) => {}
        }
    }
}
