//! Scenes: a few faults that belong together, in an order and at distances that lead close to one bug. Chance alone finds
//! them too, in millions of runs. A scene is played several times in a run; whom it hits, and the instants, the seed decides.

use super::aims::{Aim, Role, Trigger};
use super::clock::{MS, SECOND, Time};
use super::faults::{Fault, Kind};
use super::plan::Plan;
use super::rng::Rng;
use super::wishes::{Wanted, Wish};

/// A scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// A leader is cut off in mid-commit, what it wrote lands while its successor is held up between promise and body.
    Usurped,
    /// The same, and somebody's reads are so slow that one shows slots of before the promise and of after the body.
    Straddled,
    /// Commits take seconds, and a node in the view without storage is evicted.
    SlowCommits,
    /// A node that only storage keeps alive reads for seconds, then not at all.
    SlowReader,
    /// Everybody reads for seconds, and a node that only storage keeps alive falls silent.
    SlowReaders,
    /// HA is switched off and on again for VMs, and a node reads nothing of it.
    Enrolled,
    /// A node is evicted, comes back and is evicted again, while another one reads nothing of it.
    SecondEviction,
    /// An eviction lands seconds late, while its victim lives on storage alone, and then loses that.
    LateEviction,
    /// The same, and the leader sees nothing from the commit on.
    BlindLeader,
    /// A node that has heard nothing for a while comes back, leads, and judges by what it heard then.
    Returning,
    /// A leader dies with an order on its way to a node that cannot carry it out yet.
    StaleOrders,
    /// A node gives up a VM and restarts its agent, while the commit takes seconds that moves the VM away.
    MovedAway,
    /// A node's agent is another one already, and the leader does not know.
    CrossedOrders,
}

impl Scene {
    /// How long one play takes.
    fn length(self) -> Time {
        match self {
            Self::SecondEviction | Self::LateEviction | Self::BlindLeader | Self::Returning => {
                65 * SECOND
            }
            Self::SlowReader | Self::SlowReaders | Self::Enrolled => 45 * SECOND,
            _ => 30 * SECOND,
        }
    }
}

impl Plan {
    /// Replaces what was drawn at random by the focus's scene.
    pub fn draw_scene(&mut self, rng: &mut Rng) {
        let Some(scene) = self.focus.and_then(|focus| focus.scene) else { return };
        self.faults.clear();
        self.aims.clear();
        let mut at = 22 * SECOND;
        for _ in 0..rng.range(1, 3) {
            self.play(scene, at, rng);
            at += scene.length();
        }
        self.heal = at;
    }

    fn play(&mut self, scene: Scene, at: Time, rng: &mut Rng) {
        match scene {
            Scene::Usurped => self.usurped(at, false, rng),
            Scene::Straddled => self.usurped(at, true, rng),
            Scene::SlowCommits => self.slow_commits(at, rng),
            Scene::SlowReader => self.slow_reader(at, false, rng),
            Scene::SlowReaders => self.slow_reader(at, true, rng),
            Scene::Enrolled => self.enrolled(at, rng),
            Scene::SecondEviction => self.second_eviction(at, rng),
            Scene::LateEviction => self.late_eviction(at, rng),
            Scene::BlindLeader => {
                self.late_eviction(at, rng);
                let blind = self.fault(Kind::StallSome, 0, (2_000, 9_500), rng);
                self.aim((at, Trigger::Evicts, 1), Role::Actor, (0, 5), blind, rng);
            }
            Scene::Returning => self.returning(at, rng),
            Scene::StaleOrders => self.stale_orders(at, rng),
            Scene::MovedAway => self.moved_away(at, rng),
            Scene::CrossedOrders => self.crossed_orders(at, rng),
        }
    }

    fn usurped(&mut self, at: Time, straddled: bool, rng: &mut Rng) {
        self.change_something(at, rng);
        let witness = self.fault(Kind::SlowStorage, rng.index(self.nodes), (20_000, 27_000), rng);
        let hung = self.fault(Kind::StallSome, 0, (3_500, 9_000), rng);
        match rng.below(3) {
            _ if straddled => {
                self.faults.push((at, Fault { lag: rng.range(10, 24) * SECOND, ..witness }));
            }
            0 => self.faults.push((at, Fault { lag: rng.range(6, 20) * SECOND, ..witness })),
            1 => self.aim((at, Trigger::WritesBody, 1), Role::Other, (0, 100), hung, rng),
            _ => {}
        }
        let cut = self.fault(Kind::Isolate, 0, (2_200, 8_000), rng);
        let cut = match rng.chance(300) && !straddled {
            true => Fault { cruel: true, length: rng.range(8, 25) * SECOND, ..cut },
            false => Fault { cruel: false, ..cut },
        };
        let held = self.fault(Kind::StallSome, 0, (2_000, 9_000), rng);
        self.aim((at, Trigger::WritesBody, 1), Role::Actor, (0, 25), cut, rng);
        self.aim((at, Trigger::WritesBody, 2), Role::Actor, (0, 5), held, rng);
    }

    fn slow_commits(&mut self, at: Time, rng: &mut Rng) {
        self.change_something(at, rng);
        self.slow_down(Kind::SlowStorage, u64::MAX, at, rng);
        let n = rng.index(self.nodes);
        let stall = self.fault(Kind::StallSome, n, (18_000, 28_000), rng);
        self.faults.push((at + rng.range(0, 3_000) * MS, stall));
    }

    fn slow_reader(&mut self, at: Time, others: bool, rng: &mut Rng) {
        let n = rng.index(self.nodes);
        let alone = self.fault(Kind::CorosyncLoss, n, (35_000, 35_000), rng);
        let slow = self.fault(Kind::SlowStorage, n, (35_000, 35_000), rng);
        let gone = self.fault(Kind::StallSome, n, (25_000, 30_000), rng);
        let until = rng.range(1_000, 12_000) * MS;
        let slow = match others {
            // Slow as long as the last sign is on its way to them.
            true => Fault {
                nodes: self.all() & !(1 << n),
                lag: rng.range(6, 16) * SECOND,
                length: until + rng.range(0, 1_000) * MS,
                ..slow
            },
            false => Fault { lag: rng.range(6, 24) * SECOND, ..slow },
        };
        self.faults.push((at, slow));
        self.faults.push((at + rng.range(0, 4_000) * MS, alone));
        self.faults.push((at + until, gone));
    }

    fn enrolled(&mut self, at: Time, rng: &mut Rng) {
        for vm in 0..self.vms {
            let (node, asked) = (rng.index(self.nodes), rng.index(self.nodes));
            let wish = Wish { wanted: Wanted::Disable, vm, node, at: asked, cruel: false };
            self.wishes.push((at + rng.range(0, 2_000) * MS, wish));
        }
        let n = rng.index(self.nodes);
        let blind = self.fault(Kind::StallSome, n, (24_000, 30_000), rng);
        self.faults.push((at + rng.range(1_000, 10_000) * MS, blind));
    }

    fn second_eviction(&mut self, at: Time, rng: &mut Rng) {
        let n = rng.index(self.nodes);
        let once = self.fault(Kind::Isolate, n, (7_000, 9_000), rng);
        let blind = self.fault(Kind::StallSome, 0, (38_000, 45_000), rng);
        let again = self.fault(Kind::Isolate, n, (25_000, 30_000), rng);
        self.faults.push((at, once));
        self.aim((at, Trigger::Evicts, 1), Role::Other, (50, 1_500), blind, rng);
        self.faults.push((at + rng.range(13_000, 18_000) * MS, again));
    }

    fn late_eviction(&mut self, at: Time, rng: &mut Rng) {
        self.verification = true;
        let n = rng.index(self.nodes);
        let patience = self.timing.network_isolation.0 * MS;
        let alone = self.fault(Kind::CorosyncLoss, n, (60_000, 60_000), rng);
        let gone = self.fault(Kind::StallSome, n, (30_000, 30_000), rng);
        self.faults.push((at, Fault { unverified: 1 << n, ..alone }));
        let late = self.fault(Kind::LateWrites, n, (20_000, 20_000), rng);
        let late = Fault { nodes: self.all() & !(1 << n), lag: rng.range(4, 10) * SECOND, ..late };
        self.faults.push((at + patience - 3 * SECOND, late));
        self.faults.push((at + patience + rng.range(0, 9_000) * MS, gone));
    }

    fn returning(&mut self, at: Time, rng: &mut Rng) {
        let victim = rng.index(self.nodes);
        let other = (victim + 1 + rng.index(self.nodes - 1)) % self.nodes;
        let third = (0..self.nodes).find(|n| *n != victim && *n != other).unwrap_or(other);
        let deaf = self.fault(Kind::CorosyncLoss, other, (19_000, 25_000), rng);
        if rng.chance(500) {
            let reboot = self.fault(Kind::FastReboot, victim, (0, 0), rng);
            self.faults.push((at, reboot));
            self.faults.push((at.saturating_sub(rng.range(0, 3_000) * MS), deaf));
        } else {
            let once = self.fault(Kind::Isolate, victim, (6_000, 9_000), rng);
            self.faults.push((at, once));
            self.aim((at, Trigger::Proves, 1), Role::Other, (0, 60), deaf, rng);
        }
        for vm in 0..self.vms {
            let wish = Wish { wanted: Wanted::Relocate, vm, node: victim, at: third, cruel: false };
            self.wishes.push((at + rng.range(10_000, 16_000) * MS, wish));
        }
        let gone = self.fault(Kind::Isolate, victim, (28_000, 32_000), rng);
        self.faults.push((at + rng.range(19_000, 22_000) * MS, gone));
        let dies = self.fault(Kind::CrashAgent, third, (0, 0), rng);
        let dies = Fault { cruel: false, lag: rng.range(0, 3_000) * MS, ..dies };
        self.faults.push((at + rng.range(18_000, 25_000) * MS, dies));
    }

    fn stale_orders(&mut self, at: Time, rng: &mut Rng) {
        self.slow_down(Kind::SlowStorage, u64::MAX, at, rng);
        for k in 0..3 {
            let from = at + k * 9 * SECOND;
            self.change_something(from, rng);
            let dies = self.fault(Kind::CrashAgent, 0, (0, 0), rng);
            let dies = Fault { cruel: false, lag: rng.range(0, 4_000) * MS, ..dies };
            self.aim((from, Trigger::Orders, 1), Role::Actor, (0, 800), dies, rng);
        }
    }

    fn moved_away(&mut self, at: Time, rng: &mut Rng) {
        self.frail = true;
        let fails = self.fault(Kind::FailStarts, 0, (20_000, 25_000), rng);
        self.faults.push((at, fails));
        self.slow_down(Kind::SlowStorage, rng.bits(), at, rng);
        for k in 0..4 {
            let from = at + (1 + k * 6) * SECOND;
            self.change_something(from, rng);
            let dies = self.fault(Kind::CrashAgent, 0, (0, 0), rng);
            let dies = Fault { cruel: false, lag: rng.range(0, 300) * MS, ..dies };
            let nth = rng.range(1, 5);
            self.aim((from, Trigger::WritesBody, nth), Role::Other, (0, 500), dies, rng);
        }
    }

    fn crossed_orders(&mut self, at: Time, rng: &mut Rng) {
        self.slow_down(Kind::SlowNetwork, u64::MAX, at, rng);
        for k in 0..4 {
            let from = at + (4 + k * 6) * SECOND;
            self.change_something(from, rng);
            let dies = self.fault(Kind::CrashAgent, 0, (0, 0), rng);
            let dies = Fault { cruel: false, lag: rng.range(0, 500) * MS, ..dies };
            self.aim((from, Trigger::Orders, 1), Role::Object, (0, 1_500), dies, rng);
        }
    }

    /// A fault on this node, so many milliseconds long.
    fn fault(&self, kind: Kind, n: usize, (least, most): (u64, u64), rng: &mut Rng) -> Fault {
        let mut fault = Fault::draw(kind, self, rng);
        fault.aim(n, self.nodes, rng);
        Fault { nodes: 1 << n, unverified: 0, length: rng.range(least, most) * MS, ..fault }
    }

    /// One of these nodes, or many, are slow for the whole scene.
    fn slow_down(&mut self, kind: Kind, nodes: u64, at: Time, rng: &mut Rng) {
        let fault = self.fault(kind, 0, (27_000, 27_000), rng);
        let lag = rng.range(1_000, 6_000) * MS;
        self.faults.push((at, Fault { nodes: nodes & self.all(), lag, ..fault }));
    }

    /// So many milliseconds after this happens, the fault hits.
    fn aim(
        &mut self,
        (from, trigger, nth): (Time, Trigger, u64),
        role: Role,
        (least, most): (u64, u64),
        fault: Fault,
        rng: &mut Rng,
    ) {
        let delay = rng.range(least, most) * MS;
        self.aims.push(Aim { from, trigger, nth, delay, role, fault });
    }

    /// An operator wants a few changes, so that there is something to commit and to start.
    fn change_something(&mut self, at: Time, rng: &mut Rng) {
        for _ in 0..3 {
            let (vm, node, asked) =
                (rng.index(self.vms), rng.index(self.nodes), rng.index(self.nodes));
            let first = rng.pick(&[Wanted::Stop, Wanted::Relocate, Wanted::Start]);
            let wish = Wish { wanted: first, vm, node, at: asked, cruel: true };
            let soon = at + rng.range(0, 4_000) * MS;
            self.wishes.push((soon, wish.clone()));
            let start = Wish { wanted: Wanted::Start, ..wish };
            self.wishes.push((soon + rng.range(1_000, 5_000) * MS, start));
        }
    }
}
