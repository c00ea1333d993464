//! A world that a story plays in: sets it up, does what the story says, and lets time pass.

use super::deed::{Death, Deed, Still, StorageWill};
use super::setup::Setup;
use super::vm::VmSetup;
use super::watch::{Request, Watch};
use super::wish::{What, Wish};
use crate::sim::clock::{MS, SECOND, Time};
use crate::sim::node::{id, index};
use crate::sim::operator::Enrolment;
use crate::sim::queue;
use crate::sim::rng::Rng;
use crate::sim::script::Starts;
use crate::sim::trace::Trace;
use crate::sim::world::World;
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use steadfast_core::ledger::{Desired, VmSpec};
use steadfast_core::message::Change;

/// Everything is up by then, or the story cannot begin.
const SET_UP: Time = 60 * SECOND;

/// A world with a watch over it.
#[derive(Debug)]
pub struct Stage {
    /// The world.
    pub world: World,
    /// What was seen.
    pub watch: Watch,
    /// True time at which the story begins.
    pub begin: Time,
    setup: Setup,
    /// What is undone when.
    undo: Vec<(Time, Deed, String)>,
    hanging: u64,
    failing: u64,
}

fn each(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |n| mask >> n & 1 == 1)
}

impl Stage {
    /// The stage of a setup, before anything is switched on.
    #[must_use]
    pub fn new(setup: &Setup, trace: bool) -> Self {
        let trace = Trace { on: trace, verbose: false, lines: Vec::new() };
        let mut world = World::bare(setup.plan(), trace);
        world.rng = Rng::still();
        world.script.on = true;
        world.script.reboot = Some(setup.reboot);
        world.script.memory.clone_from(&setup.memory);
        world.equipment.watched = setup.watched;
        world.plan.heal = Time::MAX / 2;
        for (k, vm) in setup.vms.iter().enumerate() {
            world.vms[k] = VmId(vm.spec.name.clone());
        }
        world.genesis.nodes.retain(|id, _| setup.unknown >> index(*id) & 1 == 0);
        let watch = Watch::new(&world);
        let (begin, hanging, failing) = (0, 0, 0);
        let setup = setup.clone();
        let mut stage = Self { world, watch, begin, setup, undo: Vec::new(), hanging, failing };
        stage.switch_on();
        stage
    }

    fn switch_on(&mut self) {
        for node in 0..self.setup.nodes {
            // A little apart, so that the machines do not do everything at the same instant.
            let at = (node as u64 * 137) * MS;
            if self.setup.off >> node & 1 == 0 {
                self.world.queue.push(at, queue::What::Boot { node });
            }
        }
        for vm in 0..self.setup.vms.len() {
            self.enrol(vm);
        }
        self.world.queue.push(SECOND, queue::What::Tick);
    }

    fn enrol(&mut self, vm: usize) {
        let VmSetup { home, ha, .. } = self.setup.vms[vm];
        let when = if ha { self.world.now } else { Time::MAX };
        let (asked, spec) = ((0, when), Some(self.spec(vm)));
        let (begun, granted, off) = (false, false, false);
        self.world.enrolments.push(Enrolment { vm, home, asked, begun, granted, off, spec });
    }

    fn spec(&self, vm: usize) -> Box<VmSpec> {
        Box::new(self.setup.vms[vm].spec.clone())
    }

    /// Lets everything come up, unless the story begins cold.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn set_up(&mut self) -> Result<(), String> {
        if self.setup.cold {
            return Ok(());
        }
        while self.world.now < SET_UP && !self.is_up() {
            self.pass(self.world.now + SECOND / 2);
        }
        if !self.is_up() {
            return Err("not everything came up before the story began".into());
        }
        self.pass(self.world.now + 4 * SECOND);
        // Just after a beat, so that what happens does not depend on how long this took.
        let settled = self.world.now;
        while self.watch.beat < settled && self.step_before(settled + 2 * SECOND) {}
        self.begin = self.world.now + 100 * MS;
        self.pass(self.begin);
        self.watch.begin(self.begin);
        Ok(())
    }

    fn is_up(&self) -> bool {
        let admitted = each(!(self.setup.off | self.setup.unknown))
            .take_while(|n| *n < self.setup.nodes)
            .all(|n| self.watch.ledger.admission(id(n)).is_some());
        let ours = (0..self.setup.vms.len()).filter(|vm| self.setup.vms[*vm].ha);
        let known = |vm: usize| self.watch.ledger.vms.get(&self.world.vms[vm]);
        let enrolled = ours.clone().all(|vm| known(vm).is_some_and(|entry| entry.acknowledged));
        admitted && enrolled && self.watch.leader.is_some()
    }

    /// Lets time pass until `until`.
    pub fn pass(&mut self, until: Time) {
        while self.world.violation.is_none() && self.step_before(until) {}
        self.world.now = self.world.now.max(until);
    }

    /// Lets the next thing happen, if it does before or at `until`.
    pub fn step_before(&mut self, until: Time) -> bool {
        let next = self.world.queue.next_at().unwrap_or(Time::MAX);
        let undo = self.undo.iter().map(|(at, ..)| *at).min().unwrap_or(Time::MAX);
        if undo.min(next) > until {
            return false;
        }
        if undo <= next {
            self.undo_at(undo);
        } else {
            self.world.step();
        }
        self.watch.look(&mut self.world);
        true
    }

    fn undo_at(&mut self, at: Time) {
        self.world.now = self.world.now.max(at);
        let Some(k) = self.undo.iter().position(|(due, ..)| *due == at) else { return };
        let (_, deed, text) = self.undo.remove(k);
        self.watch.log.add(self.world.now, ">", &format!("over: {text}"));
        self.perform(&deed, &text);
    }

    /// Does it, and undoes it after `lasting`. `text` is what the story calls it.
    pub fn act(&mut self, deed: &Deed, lasting: Option<Time>, text: &str) {
        self.watch.log.mark();
        self.watch.log.add(self.world.now, ">", text);
        let mut deed = deed.clone();
        if let (Deed::Agent(_, back, _) | Deed::Libvirt(_, back), Some(lasting)) =
            (&mut deed, lasting)
        {
            *back = lasting;
        } else if let (Some(lasting), Some(opposite)) = (lasting, deed.opposite()) {
            self.undo.push((self.world.now + lasting, opposite, text.into()));
        }
        self.perform(&deed, text);
        self.watch.look(&mut self.world);
    }

    fn perform(&mut self, deed: &Deed, text: &str) {
        match deed {
            Deed::Power(nodes, true) => each(*nodes).for_each(|n| self.world.switch_on(n)),
            Deed::Power(nodes, false) => each(*nodes).for_each(|n| self.world.cut(n, "fault")),
            Deed::HostStops(node, reboot) => self.world.host_stops(*node, *reboot),
            Deed::Network(nodes, up) => self.network(*nodes, *up),
            Deed::Split(sides) => self.split(sides),
            Deed::Link(from, to, up) => self.link(*from, *to, *up),
            Deed::Libvirt(nodes, down) => {
                each(*nodes).for_each(|n| self.world.restart_libvirt(n, *down));
            }
            Deed::Receivers(nodes) => self.world.script.receivers = Some(*nodes),
            Deed::Lag(nodes, lag) => each(*nodes).for_each(|n| self.world.net.lag[n] = *lag),
            Deed::Corosync(nodes, runs) => {
                each(*nodes).for_each(|n| self.world.corosync(n, !runs));
            }
            Deed::Messages(nodes, arrive) => set(&mut self.world.script.mute, *nodes, !arrive),
            Deed::Verification(nodes, works) => {
                each(*nodes).for_each(|n| self.world.net.unverified[n] = u32::from(!works));
            }
            Deed::Storage(nodes, will) => self.storage(*nodes, *will),
            Deed::Pause(nodes, time, still) => self.pause(*nodes, *time, *still),
            Deed::Agent(node, back, death) => self.agent_dies(*node, *back, *death),
            Deed::Watchdog(nodes, works) => {
                set(&mut self.world.script.watchdog_broken, *nodes, !works);
            }
            Deed::GuestDies(vm) => {
                let home = self.watch.homes[*vm];
                home.map(|n| self.world.guest_ends(n, *vm, "dies (fault)"));
            }
            Deed::GuestShutsDown(vm) => {
                let home = self.watch.homes[*vm];
                home.into_iter().for_each(|n| self.world.guest_shuts_down(n, *vm));
            }
            Deed::ByHand(vm, node) => {
                let home = self.watch.homes[*vm];
                home.map(|n| self.world.guest_ends(n, *vm, "is moved by hand"));
                self.world.appears(*node, *vm);
            }
            Deed::Listens(vm, listens) => set(&mut self.world.script.deaf, 1 << vm, !listens),
            Deed::Starts(node, vm, will) => {
                let starts = &mut self.world.script.starts;
                starts.retain(|starts| (starts.node, starts.vm) != (*node, *vm));
                starts.extend(will.map(|will| Starts { node: *node, vm: *vm, will }));
            }
            Deed::MigrationsFail(vm, times) => {
                self.world.script.migrations.insert(*vm, *times);
            }
            Deed::StopsHang(nodes, hang) => set(&mut self.world.script.stops_hang, *nodes, *hang),
            Deed::FenceAgents(nodes, will) => each(*nodes).for_each(|n| {
                self.world.script.fences.remove(&n);
                self.world.script.fences.extend(will.map(|will| (n, will)));
            }),
            Deed::NodePriority(nodes, generation) => {
                each(*nodes).for_each(|n| self.world.stage_policy(n, *generation));
            }
            Deed::Risk(nodes, score) => {
                self.world.equipment.scores.extend(each(*nodes).map(|n| (n, *score)));
            }
            Deed::RiskPolicies(nodes, candour) => {
                self.world.equipment.candour.extend(each(*nodes).map(|n| (n, *candour)));
            }
            Deed::Operator(wish) => self.operator(wish, text),
            Deed::Heal => self.heal(),
        }
    }

    fn network(&mut self, nodes: u64, up: bool) {
        for n in each(nodes) {
            self.world.net.side[n] = if up { 0 } else { 100 + n as u64 };
        }
        self.world.topology_changed();
    }

    fn split(&mut self, sides: &[u64]) {
        for (side, mask) in sides.iter().enumerate() {
            each(*mask).for_each(|n| self.world.net.side[n] = side as u64);
        }
        self.world.topology_changed();
    }

    fn link(&mut self, from: usize, to: usize, up: bool) {
        set(&mut self.world.net.deaf[to], 1 << from, !up);
        self.world.topology_changed();
    }

    fn storage(&mut self, nodes: u64, will: StorageWill) {
        self.world.slow_storage(nodes, 0, 0);
        self.world.stale_storage(nodes, will == StorageWill::Stale);
        let (hanging, failing) = (self.hanging & nodes, self.failing & nodes);
        self.hanging &= !nodes;
        self.failing &= !nodes;
        match will {
            StorageWill::Works | StorageWill::Stale => {}
            StorageWill::Slow(time) => self.world.slow_storage(nodes, time, time),
            StorageWill::LateWrites(time) => self.world.slow_storage(nodes, 0, time),
            StorageWill::Hangs => {
                self.hanging |= nodes;
                self.world.disturb_storage(nodes, false);
            }
            StorageWill::Fails => {
                self.failing |= nodes;
                self.world.disturb_storage(nodes, true);
            }
        }
        self.world.restore_storage(failing, true);
        self.world.restore_storage(hanging, false);
    }

    fn pause(&mut self, nodes: u64, time: Time, still: Still) {
        each(nodes).for_each(|n| self.world.sleep(n, time, still != Still::Agent));
        if still == Still::Hardware {
            self.world.freeze_watchdogs(nodes, time);
        }
    }

    fn agent_dies(&mut self, node: usize, back: Time, death: Death) {
        if let Death::MidStep(actions) = death {
            let boot = self.world.nodes[node].boot.as_mut();
            if let Some(agent) = boot.and_then(|boot| boot.agent.as_mut()) {
                agent.dies_after = Some(actions);
            }
            return;
        }
        self.world.ghost_next = death == Death::Ghost;
        self.world.crash(node, back);
        self.world.ghost_next = false;
    }

    fn operator(&mut self, wish: &Wish, text: &str) {
        let first = || (0..self.setup.nodes).find(|n| self.world.epoch(*n).is_some());
        let Some(node) = wish.on.or(self.watch.leader).or_else(first) else { return };
        let Some(epoch) = self.world.epoch(node) else { return };
        self.world.requests += 1;
        let id = self.world.requests;
        let (change, disables) = match &wish.what {
            What::Enable(vm) => (self.enable(*vm, node, id), None),
            What::Disable(vm) => {
                (Box::new(Change::DisableVm(self.world.vms[*vm].clone())), Some(*vm))
            }
            What::Change(change) => (change.clone(), None),
        };
        let text = text.trim_start_matches("operator ").to_string();
        self.watch.requests.insert(id, Request { text, disables });
        self.world.answer(node, epoch, 0, Event::ChangeRequested { id, change });
    }

    /// From now on machines may touch the VM; the story asks, not the simulator's operator.
    fn enable(&mut self, vm: usize, home: usize, id: u64) -> Box<Change> {
        let spec = self.spec(vm);
        self.world.enrolments.retain(|enrolment| enrolment.vm != vm);
        let asked = (id, Time::MAX);
        let (begun, granted, off) = (true, true, false);
        let enrolment =
            Enrolment { vm, home, asked, begun, granted, off, spec: Some(spec.clone()) };
        self.world.enrolments.push(enrolment);
        Box::new(Change::EnableVm(spec))
    }

    /// Everything is well again.
    pub fn heal(&mut self) {
        self.undo.clear();
        (self.hanging, self.failing) = (0, 0);
        self.world.plan.heal = self.world.now;
        // What is to be off need not come up, nor what nobody put under HA.
        for enrolment in &mut self.world.enrolments {
            let entry = self.watch.ledger.vms.get(&self.world.vms[enrolment.vm]);
            enrolment.off = entry.is_some_and(|entry| entry.desired == Desired::Stopped);
        }
        self.world.enrolments.retain(|enrolment| enrolment.begun || enrolment.asked.1 < Time::MAX);
        self.world.heal();
    }
}

fn set(mask: &mut u64, nodes: u64, on: bool) {
    *mask = if on { *mask | nodes } else { *mask & !nodes };
}
