//! The world: nodes, network, disk, and the loop that lets one thing happen after the other.

use super::check::{Check, Violation};
use super::clock::{MS, SECOND, Time};
use super::coverage::Coverage;
use super::faults::Kind;
use super::members::Members;
use super::migration::Moves;
use super::network::Network;
use super::node::{Node, id};
use super::operator::Enrolment;
use super::plan::Plan;
use super::queue::{Queue, What};
use super::risk::Equipment;
use super::rng::Rng;
use super::script::Script;
use super::storage::Disk;
use super::trace::Trace;
use super::wishes::Wishes;
use std::collections::BTreeMap;
use steadfast_core::ids::VmId;
use steadfast_core::ledger::Ledger;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// True time.
    pub now: Time,
    /// The future.
    pub queue: Queue,
    /// Chance.
    pub rng: Rng,
    /// Nodes by index; node ids are one higher.
    pub nodes: Vec<Node>,
    /// Corosync.
    pub net: Network,
    /// Shared storage.
    pub disk: Disk,
    /// Names of guests: first those that come under HA, then one a node that never does.
    pub vms: Vec<VmId>,
    /// Operators' wishes.
    pub enrolments: Vec<Enrolment>,
    /// The ledger before the first leader.
    pub genesis: Ledger,
    /// The judge's memory.
    pub check: Check,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// The story.
    pub trace: Trace,
    /// Counters.
    pub stats: Stats,
    /// Agents' lives so far.
    pub epochs: u64,
    /// Operators' requests so far.
    pub requests: u64,
    /// Fence agents fail until then.
    pub fence_down: Time,
    /// They succeed late until then.
    pub slow_fences: Time,
    /// Starts are slow until then.
    pub slow_starts: Time,
    /// The end of guests becomes known late until then.
    pub late_exits: Time,
    /// Starts fail until then.
    pub failing_starts: Time,
    /// The next agent to leave stays in the view as a ghost.
    pub ghost_next: bool,
    /// Faults are over.
    pub healed: bool,
    /// Live migrations.
    pub moves: Moves,
    /// What operators want of VMs under HA.
    pub wishes: Wishes,
    /// Who is to be in the cluster.
    pub members: Members,
    /// What a story decides, instead of chance.
    pub script: Script,
    /// What may fail, and what is said of it.
    pub equipment: Equipment,
    /// What directed faults wait for, as bits.
    pub aims: u32,
    spinning: (Time, u64),
}

/// Counters of a run.
#[derive(Debug, Default, Clone)]
pub struct Stats {
    /// World events.
    pub events: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Directed faults among them.
    pub aimed: u64,
    /// Reads that a client cache spoilt.
    pub stale_reads: u64,
    /// Resets that PROTOCOL section 8 knows as the residual of `calm`.
    pub residual: u64,
    /// What has happened at all.
    pub coverage: Coverage,
}

impl World {
    /// The world of a plan, at its beginning.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut world = Self::bare(plan, trace);
        world.set_up();
        world
    }

    /// The same, with everything switched off and nothing to come.
    #[must_use]
    pub fn bare(plan: Plan, trace: Trace) -> Self {
        let count = plan.nodes;
        let node = |n: usize| Node {
            name: format!("n{}", n + 1),
            boots: 0,
            boot: None,
            agent_sleeps: 0,
            node_sleeps: 0,
            for_agent: Vec::new(),
            for_node: Vec::new(),
            stops_hang: 0,
            libvirt_down: 0,
            policy: 0,
            stops: None,
            speaks: plan.first_level(),
        };
        let named = (0..count).filter(|n| plan.strangers >> n & 1 == 0);
        let names = named.map(|n| (id(n), format!("n{}", n + 1))).collect();
        let ours = (0..plan.vms).map(|k| VmId(format!("vm-{}", k + 1)));
        // Guests are bits of a mask.
        let others = (0..count.min(64 - plan.vms)).map(|n| VmId(format!("other-{}", n + 1)));
        Self {
            now: 0,
            queue: Queue::default(),
            rng: Rng::new(plan.seed ^ 0x5eed_0f7a_e301_d000),
            nodes: (0..count).map(node).collect(),
            net: Network::new(count),
            disk: Disk::new(count),
            vms: ours.chain(others).collect(),
            enrolments: Vec::new(),
            genesis: Ledger { level: plan.first_level(), ..Ledger::genesis("world", &names) },
            check: Check::new(count),
            violation: None,
            trace,
            stats: Stats::default(),
            epochs: 0,
            requests: 0,
            fence_down: 0,
            slow_fences: 0,
            slow_starts: 0,
            late_exits: 0,
            failing_starts: 0,
            ghost_next: false,
            healed: false,
            moves: Moves::default(),
            wishes: Wishes::default(),
            members: Members { unwanted: plan.strangers, ..Members::default() },
            script: Script::default(),
            equipment: Equipment::default(),
            aims: 0,
            spinning: (0, 0),
            plan,
        }
    }

    fn set_up(&mut self) {
        self.count_aims();
        (0..self.nodes.len()).for_each(|n| self.note_storage(n));
        for node in 0..self.nodes.len() {
            let at = self.rng.skewed(0, 8_000) * MS;
            self.queue.push(at, What::Boot { node });
        }
        for vm in 0..self.plan.vms {
            let home = self.rng.index(self.nodes.len());
            let asked = (0, self.rng.range(0, 12) * SECOND);
            let (begun, granted, spec) = (false, false, None);
            self.enrolments.push(Enrolment { vm, home, asked, begun, granted, off: false, spec });
        }
        for index in 0..self.plan.faults.len() {
            self.queue.push(self.plan.faults[index].0, What::Fault { index });
        }
        self.expect_wishes();
        self.queue.push(self.plan.heal, What::Heal);
        self.queue.push(SECOND, What::Tick);
    }

    /// Runs until a promise is broken, or everything has come right after healing.
    pub fn run(&mut self) {
        while self.violation.is_none() && !self.check.done && self.step() {}
    }

    /// Lets the next thing happen. False if there is none.
    pub fn step(&mut self) -> bool {
        let Some((at, what)) = self.queue.pop() else { return false };
        self.now = at;
        self.stats.events += 1;
        self.watch_spinning();
        if let Some(what) = self.park(what) {
            self.happen(what);
        }
        true
    }

    /// A machine that wants to be woken at once, again and again, stops the world.
    fn watch_spinning(&mut self) {
        let milli = self.now / MS;
        if self.spinning.0 != milli {
            self.spinning = (milli, 0);
        }
        self.spinning.1 += 1;
        // A ring that forms anew delivers what everybody said meanwhile to everybody, at once.
        let most = 20_000 + 32 * (self.nodes.len() as u64).pow(2);
        if self.spinning.1 == most {
            self.fail("spinning", format!("{most} events within a millisecond"));
        }
    }

    /// One thing happens.
    pub fn happen(&mut self, what: What) {
        match what {
            What::Wake { node, epoch, number } => self.woke(node, epoch, number),
            What::Deliver { node, epoch, event } => self.tell(node, epoch, *event),
            What::Flush { node, epoch } => self.flush(node, epoch),
            What::Leave { node, epoch } => self.leave_late(node, epoch),
            What::Reshuffle { fault } => self.reshuffled(fault),
            What::Again { fault } => self.again(fault),
            What::Join { node, epoch } => self.join(node, epoch),
            What::Arrive { node, ring } => self.arrive(node, ring),
            What::Reform { members } => self.reform(members),
            What::Io { op, serial } => self.io(op, serial),
            What::HostGoes { node, boot } => self.host_goes(node, boot),
            What::Feed(run) => self.feed_on(run),
            What::CloseWatchdog { node, epoch } => self.close_watchdog(node, epoch),
            What::WatchdogDue { node, boot } => self.watchdog_due(node, boot),
            What::Start(run) => self.start_on(run),
            What::Destroy(run) => self.destroy_on(run),
            What::Scan(run) => self.scan_on(run),
            What::Fence(run) => self.fence_on(run),
            What::Move { number } => self.move_on(number),
            What::CopyEnds { node, boot, vm, number } => self.copy_ends(node, number, vm, boot),
            What::ShutDown { node, boot, vm } => self.shut_down_on(node, boot, vm),
            What::Cut { node, boot, why } => {
                if self.nodes[node].boots == boot {
                    self.cut(node, why);
                }
            }
            What::Boot { node } => self.switch_on(node),
            What::AgentStart { node, boot } => self.agent_start(node, boot),
            What::Pause { node, length, whole } => self.sleep(node, length, whole),
            What::Resume { node } => self.resume(node),
            What::Fault { index } => self.fault(index),
            What::Wish { index } => self.wish(index),
            What::FaultEnds { index } => self.fault_ends(index),
            What::Heal => self.heal(),
            What::Tick => self.tick(),
        }
    }

    /// Tells of a node, if anybody listens.
    pub fn note(&mut self, n: usize, what: impl FnOnce() -> String) {
        if self.trace.on {
            let text = what();
            self.trace.add(self.now, &self.nodes[n].name, &text);
        }
    }

    /// Tells of a guest, if anybody listens.
    pub fn note_vm(&mut self, n: usize, vm: usize, what: &str) {
        if self.trace.on {
            let text = format!("guest {} {what}", self.vms[vm]);
            self.trace.add(self.now, &self.nodes[n].name, &text);
        }
    }

    /// Tells of the world, if anybody listens.
    pub fn note_world(&mut self, what: impl FnOnce() -> String) {
        if self.trace.on {
            let text = what();
            self.trace.add(self.now, "", &text);
        }
    }
}
