//! One node: power, boots, pauses. Its agent's lives: `agent.rs`.

use super::agent::Agent;
use super::clock::{Clock, MS, SECOND, Time};
use super::faults::bits;
use super::hypervisor::Handed;
use super::migration::Copy;
use super::queue::{Needs, What};
use super::script::Told;
use super::watchdog::{FeedRecord, Watchdog};
use super::world::World;
use std::collections::BTreeMap;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::{BootId, NodeId, VmId};
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
    /// Processes that are to be destroyed hang until then.
    pub stops_hang: Time,
    /// libvirtd does not run until then.
    pub libvirt_down: Time,
    /// Which policies are active.
    pub policy: u64,
    /// Its host is on its way down: in which boot, and whether it reboots.
    pub stops: Option<(u64, bool)>,
    /// What its agent speaks, or spoke when it ran last.
    pub speaks: FeatureLevel,
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
    /// Processes of VMs that do not execute them: copies on their way in, leftovers on their way out.
    pub copies: BTreeMap<usize, Copy>,
    /// VMs that may arrive by migration, as bits (tmpfs).
    pub permitted: u64,
    /// Starts that libvirt works on.
    pub starts: Vec<Handed>,
    /// Page and body writes under way in the kernel.
    pub writes: u32,
    /// Lives of libvirtd so far.
    pub libvirt: u64,
    /// The agent, if it runs.
    pub agent: Option<Agent>,
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
        self.note_awake(n);
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
        self.note_awake(n);
        let boots = self.nodes[n].boots;
        for what in ready {
            let gone = self.nodes[n].boot.is_none() || self.nodes[n].boots != boots;
            if let Some(what) = Some(what).filter(|_| !gone).and_then(|what| self.park(what)) {
                self.happen(what);
            }
        }
        if slept {
            self.topology_changed();
        }
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
            copies: BTreeMap::new(),
            permitted: 0,
            starts: Vec::new(),
            writes: 0,
            libvirt: 0,
            agent: None,
        });
        let boot = node.boots;
        // The guest without HA is autostarted; so is what the operator has not yet put under HA.
        let other = self.plan.vms + n;
        let running = if other < self.vms.len() { 1 << other } else { 0 };
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
        self.check_calm(n, why);
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
        self.note_awake(n);
        self.topology_changed();
        self.check_outage(n, why);
        self.cover("went down by", why);
        // The plan says when a node comes back that it had cut; all others reboot.
        if !matches!(why, "fault" | "shutdown") {
            let after = self.rng.range(4, 40) * SECOND;
            if let Some(after) = self.script.reboot.unwrap_or(Some(after)) {
                self.queue.push(self.now + after, What::Boot { node: n });
            }
        }
    }
}

/// Index of an HA VM of this world, or of a guest without HA.
#[must_use]
pub fn index_of(vms: &[VmId], vm: &VmId) -> usize {
    vms.iter().position(|known| known == vm).unwrap_or(usize::MAX)
}

/// Boot id of a node's `number`th boot.
#[must_use]
pub fn boot_id(n: usize, number: u64) -> BootId {
    BootId(((n as u128 + 1) << 112) | (u128::from(number) << 96))
}
