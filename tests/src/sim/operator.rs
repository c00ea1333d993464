//! Everybody else: operators, policies' answers, verification IPs, facts, the world's second hand.

use super::clock::{MS, SECOND, Time};
use super::faults::bits;
use super::node::id;
use super::queue::What;
use super::world::World;
use steadfast_core::action::QuestionId;
use steadfast_core::event::Event;
use steadfast_core::ids::Digest;
use steadfast_core::ledger::VmSpec;
use steadfast_core::message::Reply;
use steadfast_sdk::wire::{NodeFacts, NodePriorityQuestion, PlacementQuestion};

/// An operator's wish: HA for one VM.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The VM's index.
    pub vm: usize,
    /// Where it is defined.
    pub home: usize,
    /// The last request, and when to ask again.
    pub asked: (u64, Time),
    /// Ever asked?
    pub begun: bool,
    /// Granted.
    pub granted: bool,
}

impl World {
    /// What a fresh agent is told by its adapters.
    pub fn greet(&mut self, n: usize, epoch: u64) {
        let digest = Digest::of(format!("policy {}", self.nodes[n].policy).as_bytes());
        let delay = self.rng.range(1, 30) * MS;
        self.answer(n, epoch, delay, Event::PolicyActivated { digest });
        self.measure(n, epoch);
    }

    /// Another policy is active on the node; perhaps the one that others have.
    pub fn change_policy(&mut self, n: usize) {
        self.nodes[n].policy = self.rng.below(3);
        if let Some(epoch) = self.epoch(n) {
            self.greet(n, epoch);
        }
    }

    fn measure(&mut self, n: usize, epoch: u64) {
        let now = self.now;
        let Some(agent) = self.agent(n, epoch) else { return };
        if agent.tells_facts(now) {
            self.tell_facts(n, epoch);
        }
        if self.plan.verification {
            let reachable = !self.net.unverified(n);
            let delay = self.rng.range(1, 30) * MS;
            self.answer(n, epoch, delay, Event::VerificationChecked { reachable });
        }
    }

    fn tell_facts(&mut self, n: usize, epoch: u64) {
        let used = u64::from(self.executing(n).count_ones());
        let facts = NodeFacts {
            id: id(n).0,
            name: self.nodes[n].name.clone(),
            memory_mib: 65_536,
            memory_free_mib: 65_536 - 1_024 * used,
            vcpus: 64,
            ..NodeFacts::default()
        };
        let delay = self.rng.range(1, 30) * MS;
        self.answer(n, epoch, delay, Event::FactsMeasured(Box::new(facts)));
    }

    /// Asks the node-priority policy.
    pub fn ask_priority(&mut self, n: usize, epoch: u64, id: QuestionId, q: &NodePriorityQuestion) {
        let mood = self.plan.mood.now(&mut self.rng);
        self.cover_debug("moods", mood);
        let Some(delay) = mood.delay(&mut self.rng) else { return };
        let (verdict, decider) = (mood.priority(q, &mut self.rng), mood.decider());
        self.answer(n, epoch, delay, Event::PriorityAnswered { id, verdict, decider });
    }

    /// Asks the placement policy.
    pub fn ask_placement(&mut self, n: usize, epoch: u64, id: QuestionId, q: &PlacementQuestion) {
        let mood = self.plan.mood.now(&mut self.rng);
        self.cover_debug("moods", mood);
        let Some(delay) = mood.delay(&mut self.rng) else { return };
        let (verdict, decider) = (mood.placement(q, &mut self.rng), mood.decider());
        self.answer(n, epoch, delay, Event::PlacementAnswered { id, verdict, decider });
    }

    /// The second hand.
    pub fn tick(&mut self) {
        for n in 0..self.nodes.len() {
            if let Some(epoch) = self.epoch(n) {
                self.measure(n, epoch);
            }
        }
        if self.check.led {
            (0..self.enrolments.len()).for_each(|k| self.ask_for_ha(k));
        }
        self.check_alive();
        self.queue.push(self.now + SECOND, What::Tick);
    }

    fn ask_for_ha(&mut self, k: usize) {
        let (vm, home) = (self.enrolments[k].vm, self.enrolments[k].home);
        if self.enrolments[k].granted || self.enrolments[k].asked.1 > self.now {
            return;
        }
        let Some(epoch) = self.epoch(home) else { return };
        self.requests += 1;
        let id = self.requests;
        self.enrolments[k].asked = (id, self.now + 5 * SECOND);
        self.enrolments[k].begun = true;
        let spec = VmSpec {
            id: self.vms[vm].clone(),
            name: self.vms[vm].0.clone(),
            xml: Digest::of(self.vms[vm].0.as_bytes()),
            memory_mib: 1_024,
            vcpus: 1,
            priority: 500,
            labels: std::collections::BTreeMap::default(),
        };
        self.note_vm(home, vm, "is to come under HA");
        let delay = self.rng.range(0, 50 * MS);
        self.answer(home, epoch, delay, Event::EnableRequested { id, spec: Box::new(spec) });
    }

    /// An operator reads the answer.
    pub fn replied(&mut self, n: usize, reply: &Reply) {
        let now = self.now;
        let same = |e: &&mut Enrolment| e.home == n && e.asked.0 == reply.id && !e.granted;
        let Some(enrolment) = self.enrolments.iter_mut().find(same) else { return };
        match &reply.result {
            Ok(_) => enrolment.granted = true,
            // An earlier request, whose outcome was unknown, had gone through, and the VM has moved since.
            Err(why) if why.contains("under HA already") => enrolment.granted = true,
            Err(_) => enrolment.asked.1 = now + 2 * SECOND,
        }
    }

    /// VMs that were granted HA, as bits.
    #[must_use]
    pub fn granted(&self) -> u64 {
        bits(self.enrolments.iter().filter(|e| e.granted).map(|e| e.vm))
    }
}
