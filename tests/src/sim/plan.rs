//! What a seed decides before the world begins: configuration, and which faults when.

use super::aims::Aim;
use super::clock::{MS, SECOND, Time};
use super::faults::{Fault, Kind};
use super::focus::Focus;
use super::policy::{self, Mood};
use super::risk::Candour;
use super::rng::Rng;
use super::wishes;
use serde::{Deserialize, Serialize};
use steadfast_core::config::{Builtin, Limits, Timing};
use steadfast_core::time::Millis;

/// Which promise a run tests beside the ones that always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// No faults: nothing may stop.
    Quiet,
    /// Storage fails for everybody, nothing else: nothing may stop.
    StorageForAll,
    /// The control network fails for everybody, nothing else: nothing may stop.
    NetworkForAll,
    /// A random subset of fault kinds, mixed.
    Swarm,
}

/// A lie planted in the world, to see whether the checker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plant {
    /// Fence agents report success and cut nothing.
    LyingFence,
    /// One node's clock runs at half speed.
    SlowClock,
    /// Watchdogs and resets do nothing.
    DeadWatchdog,
}

/// What a caller may fix; the seed decides the rest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// Number of nodes.
    pub nodes: Option<usize>,
    /// Class.
    pub class: Option<Class>,
    /// A planted lie.
    pub plant: Option<Plant>,
    /// A direction for the faults.
    pub focus: Option<Focus>,
    /// Promises that are not looked at.
    pub overlook: &'static [&'static str],
    /// The only fault kind, beside directed ones.
    pub kind: Option<Kind>,
}

/// Everything that is decided beforehand.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Number of nodes, 2..=64.
    pub nodes: usize,
    /// Number of VMs that come under HA.
    pub vms: usize,
    /// Timing of every machine.
    pub timing: Timing,
    /// Nodes with a fence agent, as bits.
    pub fence_agents: u64,
    /// Verification IPs are configured.
    pub verification: bool,
    /// Rule 4 is allowed.
    pub never_paused: bool,
    /// The operator adds and removes nodes.
    pub reconfigured: bool,
    /// Nodes that the first ledger does not name, as bits.
    pub strangers: u64,
    /// Limits of every machine.
    pub limits: Limits,
    /// The built-in policies are those that ship; otherwise the plain ones of stories.
    pub shipped: bool,
    /// Who answers when a policy is asked, e.g. the Wasm host; `None`: the built-in policies themselves.
    #[serde(skip)]
    pub host: Option<Builtin>,
    /// How policies behave.
    pub mood: Mood,
    /// Clock rates, ticks per million.
    pub rates: Vec<u64>,
    /// Class.
    pub class: Class,
    /// A planted lie.
    pub plant: Option<Plant>,
    /// A direction for the faults.
    #[serde(skip)]
    pub focus: Option<Focus>,
    /// Fault kinds that may occur.
    pub kinds: Vec<Kind>,
    /// Faults by time.
    pub faults: Vec<(Time, Fault)>,
    /// What operators want, by time.
    #[serde(default)]
    pub wishes: Vec<(Time, wishes::Wish)>,
    /// When which node's equipment becomes how bad.
    #[serde(default)]
    pub omens: Vec<(Time, usize, u16)>,
    /// How risk policies speak of it.
    #[serde(default)]
    pub candour: Candour,
    /// Directed faults.
    pub aims: Vec<Aim>,
    /// VMs are given up after their first failure.
    #[serde(default)]
    pub frail: bool,
    /// Storage faults may last minutes.
    pub patient: bool,
    /// systemd keeps the watchdog's descriptor over restarts of the agent.
    pub fd_store: bool,
    /// A rolling upgrade: when each node has the newer release; empty: everybody has it.
    #[serde(default)]
    pub upgrades: Vec<Time>,
    /// Promises that are not looked at.
    pub overlook: Vec<String>,
    /// When everything heals.
    pub heal: Time,
    /// Everything runs by this long after healing.
    pub bound: Time,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn new(seed: u64, wish: Wish) -> Self {
        Self::draw(seed, wish, &mut Rng::new(seed))
    }

    /// The plan that `rng` gives.
    #[must_use]
    pub fn draw(seed: u64, wish: Wish, rng: &mut Rng) -> Self {
        let class = wish.class.unwrap_or_else(|| draw_class(rng));
        let nodes = draw_nodes(rng);
        let nodes = wish.nodes.unwrap_or(nodes);
        let membership = Millis(rng.pick(&[1_100, 1_100, 2_070]));
        let fast = rng.chance(300) && membership.0 < 2_000;
        let all = u64::MAX >> (64 - nodes);
        let mut plan = Self {
            seed,
            nodes,
            vms: rng.index(5) + 2,
            timing: if fast { Timing::fast(membership) } else { Timing::standard(membership) },
            fence_agents: rng.pick(&[0, 0, all, all, rng.clone().bits() & all]),
            verification: rng.chance(700),
            never_paused: rng.chance(850),
            reconfigured: false,
            strangers: 0,
            limits: draw_limits(seed),
            shipped: true,
            host: None,
            mood: Mood::draw(rng, class == Class::Swarm),
            rates: draw_rates(rng, nodes, wish.plant),
            class,
            plant: wish.plant,
            focus: wish.focus,
            kinds: Vec::new(),
            faults: Vec::new(),
            wishes: Vec::new(),
            omens: Vec::new(),
            candour: Candour::Honest,
            aims: Vec::new(),
            frail: false,
            patient: rng.chance(100),
            fd_store: rng.chance(700),
            upgrades: Vec::new(),
            overlook: wish.overlook.iter().map(|rule| (*rule).into()).collect(),
            heal: 0,
            bound: 240 * SECOND,
        };
        if wish.plant == Some(Plant::LyingFence) {
            plan.fence_agents = all;
        }
        if wish.plant == Some(Plant::SlowClock) {
            // Only rule 4 trusts a clock.
            (plan.fence_agents, plan.never_paused) = (0, true);
        }
        plan.take_focus();
        plan.draw_faults(wish.kind, rng);
        plan.draw_scene(rng);
        plan.draw_members();
        plan.draw_wishes();
        plan.draw_host_stops();
        plan.draw_omens();
        plan.draw_upgrades();
        plan
    }

    /// The whole plan as a text that `cargo sim replay` reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The plan in a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let plan: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let sizes = [plan.rates.len()].into_iter();
        let sides = plan.faults.iter().map(|(_, fault)| fault.sides.len());
        let aims = plan.aims.iter().map(|aim| aim.fault.sides.len());
        match sizes.chain(sides).chain(aims).find(|size| *size != plan.nodes) {
            Some(size) => Err(format!("a list of {size} nodes in a plan of {}", plan.nodes)),
            None if !(2..=64).contains(&plan.nodes) || !(1..=60).contains(&plan.vms) => {
                Err(format!("{} nodes and {} VMs", plan.nodes, plan.vms))
            }
            None => Ok(plan),
        }
    }

    /// In a line, for people.
    #[must_use]
    pub fn title(&self) -> String {
        format!(
            "seed {}: {:?}, {} nodes, {} VMs, {:?} policies, fence agents {:b}, rule 4 {}, L {} S {} W {}; \
             {} faults of {:?}, {} directed ones, healed at {} s",
            self.seed,
            self.class,
            self.nodes,
            self.vms,
            self.mood,
            self.fence_agents,
            self.never_paused,
            self.timing.lease,
            self.timing.stop,
            self.timing.watchdog,
            self.faults.len(),
            self.kinds,
            self.aims.len(),
            self.heal / SECOND,
        )
    }

    /// The built-in policies.
    #[must_use]
    pub fn builtin(&self) -> Builtin {
        if self.shipped { policy::SHIPPED } else { policy::PLAIN }
    }

    /// Who answers when a policy is asked.
    #[must_use]
    pub fn policies(&self) -> Builtin {
        self.host.unwrap_or_else(|| self.builtin())
    }

    /// Every node, as bits.
    #[must_use]
    pub fn all(&self) -> u64 {
        u64::MAX >> (64 - self.nodes)
    }

    /// This promise is not looked at.
    #[must_use]
    pub fn overlooks(&self, rule: &str) -> bool {
        self.overlook.iter().any(|known| known == rule)
    }

    fn draw_faults(&mut self, only: Option<Kind>, rng: &mut Rng) {
        let mixed = self.class == Class::Swarm;
        let quiet_until = if mixed && rng.chance(150) { 0 } else { 25 * SECOND };
        let mut at = quiet_until;
        let longest = match self.nodes {
            17.. => 40, // A large cluster costs far more.
            _ if self.patient => 500,
            _ => 150,
        };
        let phase = rng.range(30, longest) * SECOND;
        self.kinds = self.draw_kinds(rng);
        if let Some(only) = only {
            self.kinds = vec![only];
        }
        let pace = rng.pick(&[4 * SECOND, 10 * SECOND, 25 * SECOND]);
        let pace = self.focus.map_or(pace, |focus| pace.min(focus.pace));
        while !self.kinds.is_empty() {
            // Now and then faults come in bursts.
            at += if rng.chance(300) { rng.skewed(1, 5 * SECOND) } else { rng.range(1, 2 * pace) };
            if at > quiet_until + phase {
                break;
            }
            let kind = rng.pick(&self.kinds);
            let fault = Fault::draw(kind, self, rng);
            self.faults.push((at, fault));
            if !mixed {
                at += 90 * SECOND; // One outage at a time.
            }
        }
        if mixed && self.plant != Some(Plant::SlowClock) && rng.chance(500) {
            for _ in 0..rng.range(1, 6) {
                let from = quiet_until + rng.range(0, phase);
                self.aims.push(Aim::draw(from, self, rng));
            }
        }
        self.draw_shots((quiet_until, quiet_until + phase), rng);
        self.heal = quiet_until + phase + 20 * SECOND;
        if !mixed {
            self.heal += 60 * SECOND;
        }
    }

    fn draw_kinds(&self, rng: &mut Rng) -> Vec<Kind> {
        use Kind::{LateWrites, NetworkForAll, SlowStorage, StaleReads, StorageForAll};
        match self.class {
            Class::Quiet => Vec::new(),
            Class::StorageForAll => {
                vec![StorageForAll, rng.pick(&[StorageForAll, SlowStorage, LateWrites, StaleReads])]
            }
            Class::NetworkForAll => vec![NetworkForAll],
            Class::Swarm if self.plant == Some(Plant::SlowClock) => vec![Kind::Entomb],
            Class::Swarm if self.focus.is_some_and(|focus| !focus.kinds.is_empty()) => {
                self.focus.map_or(Vec::new(), |focus| focus.kinds.to_vec())
            }
            Class::Swarm => {
                let some = rng.pick(&[100, 200, 350, 500]);
                let kinds: Vec<_> = Kind::SWARM.into_iter().filter(|_| rng.chance(some)).collect();
                if kinds.is_empty() { vec![rng.pick(&Kind::SWARM)] } else { kinds }
            }
        }
    }

    /// A length near one of the protocol's own boundaries, or any.
    pub fn length(&self, rng: &mut Rng) -> Time {
        let timing = &self.timing;
        let boundary = rng.pick(&[
            timing.lease.0,
            timing.stop.0,
            timing.lease.0 + timing.stop.0,
            timing.watchdog.0,
            timing.lease.0 - timing.watchdog.0.min(timing.lease.0),
            timing.membership.0,
            timing.full_failure.0,
            timing.network_isolation.0,
            timing.storage_isolation.0,
            steadfast_core::config::surely_dead(timing.span()).0,
            timing.lease.0 / 2,
        ]);
        match rng.below(3) {
            0 => rng.range(100, 30_000) * MS,
            1 => (boundary + rng.below(600)).saturating_sub(300).max(50) * MS,
            _ => (boundary + rng.below(6_000)).saturating_sub(1_000).max(50) * MS,
        }
    }
}

/// Mostly few: a large cluster costs far more, and shows little that a small one does not.
fn draw_nodes(rng: &mut Rng) -> usize {
    match rng.below(2_000) {
        0..1_200 => 3,
        1_200..1_440 => 2,
        1_440..1_680 => 4,
        1_680..1_920 => 5,
        1_920..1_990 => rng.index(4) + 6,
        1_990..1_999 => rng.index(7) + 10,
        _ => rng.index(48) + 17,
    }
}

fn draw_class(rng: &mut Rng) -> Class {
    match rng.below(100) {
        0..4 => Class::Quiet,
        4..11 => Class::StorageForAll,
        11..18 => Class::NetworkForAll,
        _ => Class::Swarm,
    }
}

/// By chance of its own, so that known seeds keep their stories.
fn draw_limits(seed: u64) -> Limits {
    let mut rng = Rng::new(seed ^ 0x11_17);
    Limits {
        witness: rng.pick(&[None, None, Some(true), Some(false)]),
        max_evictions: rng.pick(&[None, None, None, Some(1)]),
        ..Limits::default()
    }
}

fn draw_rates(rng: &mut Rng, nodes: usize, plant: Option<Plant>) -> Vec<u64> {
    let mut draw =
        || rng.pick(&[995_000, 1_000_000, 1_005_000, 995_000 + rng.clone().below(10_001)]);
    let mut rates: Vec<u64> = (0..nodes).map(|_| draw()).collect();
    if plant == Some(Plant::SlowClock) {
        // 30 % are not enough: the second W of the feed rule hides them.
        rates[nodes - 1] = 500_000;
    }
    rates
}
