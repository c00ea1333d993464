//! Directed faults: something happens, and at that instant, or a time-out later, give or take a little, a fault hits
//! whom it concerns. Chance alone rarely finds these places.

use super::clock::{MS, Time};
use super::faults::{Fault, Kind};
use super::node::index;
use super::plan::Plan;
use super::queue::What;
use super::rng::Rng;
use super::world::World;
use serde::{Deserialize, Serialize};
use steadfast_core::action::Action;
use steadfast_core::decision::Kind as Tells;
use steadfast_core::message::Body;

/// What a directed fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// A leader has committed an eviction.
    Evicts,
    /// A leader has committed a proof.
    Proves,
    /// A leader has committed an admission.
    Admits,
    /// A leader has committed anything.
    Commits,
    /// A term stands.
    Leads,
    /// The ballots of a round are closed.
    Closes,
    /// Somebody confirms a winner.
    Confirms,
    /// A leader orders a start.
    Orders,
    /// A fence agent is ordered.
    Fences,
    /// A machine asks for a start.
    Starts,
    /// A start is about to be handed to libvirt.
    HandOver,
    /// A guest's process has appeared.
    GuestAppears,
    /// A machine asks for a destroy.
    Destroys,
    /// A node states "none left", or that it is evicted.
    Lease,
    /// A body is about to be written.
    WritesBody,
    /// A page is about to be written.
    WritesPage,
    /// Pages are about to be read.
    ReadsPages,
    /// A feed is between its check and the device.
    Feed,
    /// An agent has started.
    AgentStarts,
    /// A target lets a copy in.
    Permits,
    /// A source asks for a migration.
    Migrates,
    /// A guest has left its source.
    Leaves,
    /// A target lets a guest go on.
    Resumes,
    /// HA is switched off or on on a node.
    Disarms,
}

impl Trigger {
    const ALL: [Self; 19] = [
        Self::Evicts,
        Self::Proves,
        Self::Admits,
        Self::Commits,
        Self::Leads,
        Self::Closes,
        Self::Confirms,
        Self::Orders,
        Self::Fences,
        Self::Starts,
        Self::HandOver,
        Self::GuestAppears,
        Self::Destroys,
        Self::Lease,
        Self::WritesBody,
        Self::WritesPage,
        Self::ReadsPages,
        Self::Feed,
        Self::AgentStarts,
    ];

    /// What only operators' wishes lead to.
    const WISHED: [Self; 5] =
        [Self::Permits, Self::Migrates, Self::Leaves, Self::Resumes, Self::Disarms];

    /// It happens many times a second.
    fn is_common(self) -> bool {
        matches!(self, Self::WritesPage | Self::ReadsPages | Self::Feed | Self::Confirms)
    }
}

/// Whom a directed fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Who did it.
    Actor,
    /// Whom it is about, if that is somebody else.
    Object,
    /// Somebody else.
    Other,
}

/// A directed fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aim {
    /// Nothing that happens earlier counts.
    pub from: Time,
    /// What it waits for.
    pub trigger: Trigger,
    /// And how many of these.
    pub nth: u64,
    /// How much later it hits.
    pub delay: Time,
    /// Whom.
    pub role: Role,
    /// The fault.
    pub fault: Fault,
}

impl Aim {
    /// A directed fault.
    pub fn draw(from: Time, plan: &Plan, rng: &mut Rng) -> Self {
        Self::draw_of(&Trigger::ALL, from, plan, rng)
    }

    /// A directed fault at what operators' wishes lead to.
    pub fn draw_wished(from: Time, plan: &Plan, rng: &mut Rng) -> Self {
        Self::draw_of(&Trigger::WISHED, from, plan, rng)
    }

    fn draw_of(triggers: &[Trigger], from: Time, plan: &Plan, rng: &mut Rng) -> Self {
        const KINDS: [Kind; 16] = [
            Kind::PowerCut,
            Kind::FastReboot,
            Kind::CutMidStep,
            Kind::PauseNode,
            Kind::PauseAgent,
            Kind::CrashAgent,
            Kind::Partition,
            Kind::OneWay,
            Kind::Isolate,
            Kind::Entomb,
            Kind::CorosyncLoss,
            Kind::SlowNetwork,
            Kind::StallSome,
            Kind::FailSome,
            Kind::LateWrites,
            Kind::StorageForAll,
        ];
        let trigger = rng.pick(triggers);
        let nth = if trigger.is_common() { rng.skewed(1, 400) } else { rng.skewed(1, 6) };
        let delay = match rng.below(10) {
            0..4 => 0,
            4..6 => rng.skewed(1, 50 * MS),
            _ => plan.length(rng),
        };
        let role = rng.pick(&[Role::Actor, Role::Actor, Role::Object, Role::Object, Role::Other]);
        let fault = Fault::draw(rng.pick(&KINDS), plan, rng);
        Self { from, trigger, nth, delay, role, fault }
    }
}

impl World {
    /// Does any directed fault wait for this?
    #[must_use]
    pub fn aims_at(&self, trigger: Trigger) -> bool {
        self.aims >> (trigger as u32) & 1 == 1
    }

    /// `n` has done it.
    pub fn aim(&mut self, trigger: Trigger, n: usize) {
        self.aim_about(trigger, n, n);
    }

    /// `n` has done it to `object`.
    pub fn aim_about(&mut self, trigger: Trigger, n: usize, object: usize) {
        if !self.aims_at(trigger) || self.healed {
            return;
        }
        for k in 0..self.plan.aims.len() {
            let aim = &mut self.plan.aims[k];
            if aim.trigger == trigger && aim.from <= self.now && aim.nth > 0 {
                aim.nth -= 1;
                if aim.nth == 0 {
                    self.shoot(k, n, object);
                }
            }
        }
        self.count_aims();
    }

    /// Which triggers somebody still waits for.
    pub fn count_aims(&mut self) {
        let waiting = self.plan.aims.iter().filter(|aim| aim.nth > 0);
        self.aims = waiting.fold(0, |mask, aim| mask | 1 << (aim.trigger as u32));
    }

    fn shoot(&mut self, k: usize, n: usize, object: usize) {
        let (count, aim) = (self.nodes.len(), self.plan.aims[k].clone());
        let target = match aim.role {
            Role::Actor => n,
            Role::Object => object,
            Role::Other => (n + 1 + self.rng.index(count - 1)) % count,
        };
        let mut fault = aim.fault;
        fault.aim(target, count, &mut self.rng);
        self.note_world(|| {
            let (kind, delay) = (fault.kind, aim.delay);
            format!("AIM {kind:?} at n{}, {delay} us after {:?}", target + 1, aim.trigger)
        });
        self.stats.aimed += 1;
        let at = self.now + aim.delay;
        self.plan.faults.push((at, fault));
        let index = self.plan.faults.len() - 1;
        self.queue.push(at, What::Fault { index });
    }

    /// What an action is a trigger for.
    pub fn aim_at(&mut self, n: usize, action: &Action) {
        if self.aims == 0 {
            return;
        }
        match action {
            Action::WriteBody { .. } => self.aim(Trigger::WritesBody, n),
            Action::WritePage { .. } => self.aim(Trigger::WritesPage, n),
            Action::ReadPages { .. } => self.aim(Trigger::ReadsPages, n),
            Action::StartVm { .. } => self.aim(Trigger::Starts, n),
            Action::DestroyVm { .. } => self.aim(Trigger::Destroys, n),
            Action::PermitArrival { .. } => self.aim(Trigger::Permits, n),
            Action::MigrateVm { to, .. } => self.aim_about(Trigger::Migrates, n, index(*to)),
            Action::ResumeVm { .. } => self.aim(Trigger::Resumes, n),
            Action::Fence { victim, .. } => self.aim_about(Trigger::Fences, n, index(*victim)),
            Action::Send(message) => self.aim_at_message(n, &message.body),
            Action::Record(decision) => {
                let object = decision.node.map_or(n, index);
                match decision.kind {
                    Tells::Evicted => self.aim_about(Trigger::Evicts, n, object),
                    Tells::Proved => self.aim_about(Trigger::Proves, n, object),
                    Tells::Admitted => self.aim_about(Trigger::Admits, n, object),
                    Tells::Lease => self.aim(Trigger::Lease, n),
                    Tells::Disarm => self.aim_about(Trigger::Disarms, n, object),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn aim_at_message(&mut self, n: usize, body: &Body) {
        match body {
            Body::Committed(_) => self.aim(Trigger::Commits, n),
            Body::Leading { .. } => self.aim(Trigger::Leads, n),
            Body::Close { .. } => self.aim(Trigger::Closes, n),
            Body::Confirm { winner, .. } => {
                self.aim_about(Trigger::Confirms, n, index(*winner));
            }
            Body::StartVm(order) => self.aim_about(Trigger::Orders, n, index(order.to.node)),
            _ => {}
        }
    }
}
