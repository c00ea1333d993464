//! Everybody else: operators, policies' answers, verification IPs, facts, the world's second hand.

use super::clock::{MS, SECOND, Time};
use super::faults::bits;
use super::node::id;
use super::queue::What;
use super::world::World;
use steadfast_core::action::QuestionId;
use steadfast_core::event::{Decider, Event};
use steadfast_core::ids::Digest;
use steadfast_core::ledger::VmSpec;
use steadfast_core::message::{Change, PolicyDigests, Reply};
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
    /// It need not run: its operator wants it off.
    pub off: bool,
    /// What the operator says of the VM, if it is not like any other.
    pub spec: Option<Box<VmSpec>>,
}

impl World {
    /// What a fresh agent is told by its adapters.
    pub fn greet(&mut self, n: usize, epoch: u64) {
        let node_priority = Digest::of(format!("policy {}", self.nodes[n].policy).as_bytes());
        let digests = PolicyDigests { node_priority, ..PolicyDigests::default() };
        let delay = self.rng.range(1, 30) * MS;
        self.answer(n, epoch, delay, Event::PoliciesStaged(digests));
        self.remind_of_stop(n, epoch);
        self.measure(n, epoch);
    }

    /// Another policy is staged on the node; perhaps the one that others have.
    pub fn change_policy(&mut self, n: usize) {
        let generation = self.rng.below(3);
        self.stage_policy(n, generation);
    }

    /// This generation of the node-priority policy is staged on the node.
    pub fn stage_policy(&mut self, n: usize, generation: u64) {
        self.nodes[n].policy = generation;
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
        let memory_mib = self.script.memory.get(&n).copied().unwrap_or(65_536);
        let facts = NodeFacts {
            id: id(n).0,
            name: self.nodes[n].name.clone(),
            memory_mib,
            memory_free_mib: memory_mib.saturating_sub(self.memory_used(n)),
            vcpus: 64,
            ..NodeFacts::default()
        };
        let delay = self.rng.range(1, 30) * MS;
        self.answer(n, epoch, delay, Event::FactsMeasured(Box::new(facts)));
    }

    fn memory_used(&self, n: usize) -> u64 {
        let executing = self.executing(n);
        let spec = |vm: usize| self.enrolments.iter().find(|e| e.vm == vm)?.spec.as_ref();
        let memory = |vm: usize| spec(vm).map_or(1_024, |spec| spec.memory_mib);
        (0..self.vms.len()).filter(|vm| executing >> vm & 1 == 1).map(memory).sum()
    }

    /// Asks the node-priority policy: the generation that the nodes have agreed on.
    pub fn ask_priority(
        &mut self,
        n: usize,
        epoch: u64,
        (id, policy): (QuestionId, Digest),
        q: &NodePriorityQuestion,
    ) {
        let (mood, policies) = (self.plan.mood.now(&mut self.rng), self.plan.policies());
        self.cover_debug("moods", mood);
        let Some(delay) = mood.delay(&mut self.rng) else { return };
        let verdict = mood.priority(q, policies, &mut self.rng);
        let decider = Decider { digest: policy, ..mood.decider() };
        self.answer(n, epoch, delay, Event::PriorityAnswered { id, verdict, decider });
    }

    /// Asks the placement policy.
    pub fn ask_placement(&mut self, n: usize, epoch: u64, id: QuestionId, q: &PlacementQuestion) {
        let (mood, policies) = (self.plan.mood.now(&mut self.rng), self.plan.policies());
        self.cover_debug("moods", mood);
        let Some(delay) = mood.delay(&mut self.rng) else { return };
        let (verdict, decider) = (mood.placement(q, policies, &mut self.rng), mood.decider());
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
        self.ask_about_risk();
        self.look_after();
        self.keep_members();
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
        let spec = self.enrolments[k].spec.clone().unwrap_or_else(|| self.plain_spec(vm));
        let change = Box::new(Change::EnableVm(spec));
        self.note_vm(home, vm, "is to come under HA");
        let delay = self.rng.range(0, 50 * MS);
        self.answer(home, epoch, delay, Event::ChangeRequested { id, change });
    }

    /// A VM like any other.
    #[must_use]
    pub fn plain_spec(&self, vm: usize) -> Box<VmSpec> {
        let name = &self.vms[vm].0;
        let plain = VmSpec::new(self.vms[vm].clone(), name, Digest::of(name.as_bytes()));
        let max_restarts = if self.plan.frail { 0 } else { plain.max_restarts };
        Box::new(VmSpec { memory_mib: 1_024, max_restarts, ..plain })
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
