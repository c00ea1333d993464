//! Fence agents: slow, broken, hanging, late, but never lying (unless planted).

use super::clock::{MS, Time};
use super::node::id;
use super::plan::Plant;
use super::queue::What;
use super::script::FenceWill;
use super::world::World;
use steadfast_core::event::Event;
use steadfast_core::ids::Stamp;

/// A fence agent at work.
#[derive(Debug, Clone, Copy)]
pub struct FenceRun {
    /// Who runs it.
    pub node: usize,
    /// Which agent.
    pub epoch: u64,
    /// Its power.
    pub boot: u64,
    /// Whom.
    pub victim: usize,
    /// For what.
    pub eviction: Stamp,
    /// What comes next.
    pub stage: FenceStage,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceStage {
    /// The leader's agent starts the fence agent.
    Begin,
    /// The device cuts the power.
    Cut,
    /// The agent exits with success.
    Succeed,
    /// It exits with failure, or is killed.
    Fail,
}

impl World {
    /// Orders the fence agent of `victim`. The agent that is to start it may be stopped before it does.
    pub fn fence(&mut self, node: usize, epoch: u64, victim: usize, eviction: Stamp) {
        let boot = self.nodes[node].boots;
        self.cover("fence agents", "ordered");
        let run = FenceRun { node, epoch, boot, victim, eviction, stage: FenceStage::Begin };
        if self.script.on {
            return self.begin_fence(run);
        }
        let at = self.now + self.rng.skewed(50, 5_000);
        self.queue.push(at, What::Fence(run));
    }

    fn begin_fence(&mut self, run: FenceRun) {
        let FenceRun { node, epoch, victim, .. } = run;
        if self.agent(node, epoch).is_none() {
            return;
        }
        let run = FenceRun { stage: FenceStage::Fail, ..run };
        let timeout = self.plan.timing.fence_timeout.0 * MS;
        if let Some(will) = self.script.fences.get(&victim) {
            return self.fence_by_will(run, *will);
        }
        if self.fence_down > self.now || self.plan.fence_agents >> victim & 1 == 0 {
            let hangs = self.rng.chance(400);
            let cuts = hangs && self.rng.chance(300);
            self.cover("fence agents", if hangs { "hung" } else { "failed" });
            if cuts {
                self.cover("fence agents", "hung, and had cut");
            }
            let delay = if hangs { timeout } else { self.rng.range(10, 2_000) * MS };
            if cuts {
                // Killed at its time-out, but the device had done it.
                let at = self.now + self.rng.range(20 * MS, timeout);
                self.queue.push(at, What::Fence(FenceRun { stage: FenceStage::Cut, ..run }));
            }
            self.queue.push(self.now + delay, What::Fence(run));
            return;
        }
        let late = self.slow_fences > self.now || self.rng.chance(30);
        let delay: Time =
            if late { self.rng.range(3_000, 28_000) } else { self.rng.skewed(20, 3_000) };
        let cut = FenceRun { stage: FenceStage::Cut, ..run };
        self.queue.push(self.now + delay * MS, What::Fence(cut));
        let after = delay + self.rng.skewed(0, 1_500);
        let done = FenceRun { stage: FenceStage::Succeed, ..run };
        self.queue.push(self.now + after * MS, What::Fence(done));
    }

    fn fence_by_will(&mut self, run: FenceRun, will: FenceWill) {
        let cut = FenceRun { stage: FenceStage::Cut, ..run };
        let done = FenceRun { stage: FenceStage::Succeed, ..run };
        let timeout = self.plan.timing.fence_timeout.0 * MS;
        match will {
            FenceWill::Fails => self.queue.push(self.now + 500 * MS, What::Fence(run)),
            FenceWill::Hangs => self.queue.push(self.now + timeout, What::Fence(run)),
            FenceWill::CutsAndHangs => {
                self.queue.push(self.now + 500 * MS, What::Fence(cut));
                self.queue.push(self.now + timeout, What::Fence(run));
            }
            FenceWill::Takes(length) => {
                self.queue.push(self.now + length, What::Fence(cut));
                self.queue.push(self.now + length, What::Fence(done));
            }
        }
    }

    /// The next stage of a fence agent.
    pub fn fence_on(&mut self, run: FenceRun) {
        let gone = self.nodes[run.node].boot.is_none() || self.nodes[run.node].boots != run.boot;
        let victim = id(run.victim);
        match run.stage {
            FenceStage::Begin => self.begin_fence(run),
            // An order that has left the node is carried out even if the node dies.
            FenceStage::Cut if gone && self.rng.chance(500) => {}
            FenceStage::Cut if self.plan.plant == Some(Plant::LyingFence) => {}
            FenceStage::Cut => {
                self.check_shot(run.victim, run.eviction);
                self.cut(run.victim, "fence agent");
            }
            FenceStage::Succeed | FenceStage::Fail if gone => {}
            FenceStage::Succeed => {
                self.cover("fence agents", "succeeded");
                self.fence_ended(run, Ok(()));
            }
            FenceStage::Fail => self.fence_ended(run, Err(format!("no answer about {victim}"))),
        }
    }

    fn fence_ended(&mut self, run: FenceRun, result: Result<(), String>) {
        self.note(run.node, || format!("fence agent for n{} ends: {result:?}", run.victim + 1));
        let event = Event::FenceEnded { victim: id(run.victim), eviction: run.eviction, result };
        self.answer(run.node, run.epoch, 0, event);
    }
}
