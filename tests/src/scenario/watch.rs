//! Watches a world and writes the log: what machines decide, and what is true.

use super::log::Log;
use crate::sim::clock::{MS, Time};
use crate::sim::node::index;
use crate::sim::script::Told;
use crate::sim::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steadfast_core::action::Action;
use steadfast_core::decision::{Decision, Kind};
use steadfast_core::ledger::Ledger;
use steadfast_core::message::{Body, Reply};
use steadfast_core::snapshot::Status;

/// What was seen so far.
#[derive(Debug)]
pub struct Watch {
    /// The log.
    pub log: Log,
    /// The node whose term stands, until it steps down or ends.
    pub leader: Option<usize>,
    /// The newest committed ledger that a leader announced.
    pub ledger: Arc<Ledger>,
    pub(super) version: u64,
    /// Statuses as a leader showed them last, by node.
    pub status: Vec<Option<Status>>,
    /// What each node last showed of itself.
    own: Vec<Option<Status>>,
    /// Where each VM executes.
    pub homes: Vec<Option<usize>>,
    /// Since when each VM has been down, and how long it was down before.
    outages: Vec<(Option<Time>, Time)>,
    counts: Vec<u32>,
    /// Outages that are over: whose, from, to.
    pub ended: Vec<(usize, Time, Time)>,
    /// Nodes that went down by themselves, their watchdogs or fence agents.
    pub resets: u32,
    /// Evictions.
    pub evictions: u32,
    /// When the leader beat last.
    pub beat: Time,
    /// Who asked what.
    pub requests: BTreeMap<u64, Request>,
    destroying: BTreeSet<(usize, String)>,
    /// Words of waits and refusals that were logged, so that they are not repeated.
    said: BTreeMap<(usize, String), String>,
}

/// An operator's request on its way.
#[derive(Debug, Clone)]
pub struct Request {
    /// In words.
    pub text: String,
    /// The VM that is not under HA any more if it is granted.
    pub disables: Option<usize>,
}

impl Watch {
    /// Sees a world for the first time.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let (nodes, vms) = (world.nodes.len(), world.vms.len());
        Self {
            ledger: Arc::new(world.genesis.clone()),
            status: vec![None; nodes],
            own: vec![None; nodes],
            homes: vec![None; vms],
            outages: vec![(None, 0); vms],
            counts: vec![0; vms],
            ended: Vec::new(),
            log: Log::default(),
            leader: None,
            version: 0,
            resets: 0,
            evictions: 0,
            beat: 0,
            requests: BTreeMap::new(),
            destroying: BTreeSet::new(),
            said: BTreeMap::new(),
        }
    }

    /// The story begins: what was before does not count.
    pub fn begin(&mut self, now: Time) {
        self.log.clear();
        (self.resets, self.evictions) = (0, 0);
        self.counts.fill(0);
        self.ended.clear();
        for outage in &mut self.outages {
            *outage = (outage.0.map(|_| now), 0);
        }
    }

    /// How long a VM was down until now.
    #[must_use]
    pub fn down(&self, vm: usize, now: Time) -> Time {
        let (since, before) = self.outages[vm];
        before + since.map_or(0, |since| now - since)
    }

    /// Takes what the world told since the last time.
    pub fn look(&mut self, world: &mut World) {
        let mut decided = None;
        for told in std::mem::take(&mut world.script.told) {
            if let Told::Does { node, action } = told {
                if matches!(*action, Action::Record(_) | Action::Send(_)) {
                    decided = Some(node);
                }
                self.does(world, node, &action);
            } else {
                self.happens(world, told);
            }
        }
        if let Some(node) = decided {
            self.look_at_statuses(world, node);
        }
    }

    pub(super) fn add(&mut self, world: &World, node: usize, what: &str) {
        self.log.add(world.now, &world.nodes[node].name, what);
    }

    // --- what is true --------------------------------------------------------------------------------

    fn happens(&mut self, world: &World, told: Told) {
        match told {
            Told::Boots { node, executing } => {
                self.add(world, node, "boots");
                (0..world.vms.len())
                    .filter(|vm| executing >> vm & 1 == 1)
                    .for_each(|vm| self.comes(world, node, vm));
            }
            Told::Off { node, why, lost } => self.off(world, node, why, lost),
            Told::AgentStarts { node } => self.add(world, node, "agent starts"),
            Told::AgentDies { node } => {
                self.add(world, node, "agent dies");
                self.silenced(node);
            }
            Told::Runs { node, vm } => self.comes(world, node, vm),
            Told::Ends { node, vm, why } => {
                self.goes(world, vm);
                if vm < world.plan.vms {
                    let why = why.trim_start_matches("is ");
                    self.add(world, node, &format!("{} ends: {why}", world.vms[vm]));
                }
            }
            Told::Leaves { vm } => self.goes(world, vm),
            Told::Does { .. } => {}
        }
    }

    fn off(&mut self, world: &World, node: usize, why: &str, lost: u64) {
        let names = (0..world.plan.vms).filter(|vm| lost >> vm & 1 == 1);
        let names: Vec<_> = names.map(|vm| world.vms[vm].to_string()).collect();
        let with =
            if names.is_empty() { String::new() } else { format!(", with {}", names.join(", ")) };
        let how = match why {
            "fault" => "loses power".to_string(),
            "shutdown" => "is off".to_string(),
            other => format!("goes down by its {other}"),
        };
        let how = how.replace("by its reset", "by sysrq");
        self.add(world, node, &format!("{how}{with}"));
        self.resets += u32::from(!matches!(why, "fault" | "shutdown"));
        (0..world.vms.len()).filter(|vm| lost >> vm & 1 == 1).for_each(|vm| self.goes(world, vm));
        self.silenced(node);
        self.own[node] = None;
    }

    fn silenced(&mut self, node: usize) {
        self.leader = self.leader.filter(|leader| *leader != node);
        self.destroying.retain(|(n, _)| *n != node);
        self.said.retain(|(n, _), _| *n != node);
    }

    fn comes(&mut self, world: &World, node: usize, vm: usize) {
        self.homes[vm] = Some(node);
        self.destroying.remove(&(node, world.vms[vm].0.clone()));
        let (since, before) = self.outages[vm];
        self.ended.extend(since.map(|since| (vm, since, world.now)));
        self.outages[vm] = (None, before + since.map_or(0, |since| world.now - since));
        if vm < world.plan.vms {
            self.add(world, node, &format!("{} runs", world.vms[vm]));
        }
    }

    fn goes(&mut self, world: &World, vm: usize) {
        self.homes[vm] = None;
        self.counts[vm] += 1;
        self.outages[vm].0 = Some(world.now);
    }

    /// The last lines: where each VM is, and how long it was down.
    pub fn conclude(&mut self, world: &World) {
        for vm in 0..world.plan.vms {
            let down = self.down(vm, world.now);
            let times = self.counts[vm];
            let place = match self.homes[vm] {
                Some(node) => format!("runs on {}", world.nodes[node].name),
                None => "does not run".into(),
            };
            let text = match times {
                0 if down == 0 => format!("{} {place}, was never down", world.vms[vm]),
                _ => format!("{} {place}, was down for {} ms", world.vms[vm], down / MS),
            };
            let often = if times > 1 { format!(" in {times} outages") } else { String::new() };
            self.log.add(world.now, "=", &(text + &often));
        }
    }

    // --- what machines do ----------------------------------------------------------------------------

    fn does(&mut self, world: &mut World, node: usize, action: &Action) {
        match action {
            Action::Record(decision) => self.records(world, node, decision),
            Action::Send(message) => match &message.body {
                Body::Leading { term } => {
                    self.leader = Some(node);
                    self.add(world, node, &format!("leads, term {term}"));
                }
                Body::Committed(_) => self.look_at_ledger(world, node),
                Body::Beat(_) if self.leader == Some(node) => self.beat = world.now,
                _ => {}
            },
            Action::Fence { victim, .. } => {
                let text = format!("runs the fence agent of n{}", victim.0);
                self.add(world, node, &text);
            }
            Action::StartVm { vm, .. } => self.add(world, node, &format!("starts {vm}")),
            Action::DestroyVm { vm, reason } if self.destroying.insert((node, vm.0.clone())) => {
                self.add(world, node, &format!("destroys {vm}: {reason}"));
            }
            Action::ShutDownVm { vm } => self.add(world, node, &format!("asks {vm} to shut down")),
            Action::MigrateVm { vm, name, .. } => {
                self.add(world, node, &format!("migrates {vm} to {name}"));
            }
            Action::AbortMigration { vm } => {
                self.add(world, node, &format!("calls off the migration of {vm}"));
            }
            Action::ResumeVm { vm, .. } => self.add(world, node, &format!("resumes {vm}")),
            Action::CloseWatchdog => self.add(world, node, "closes its watchdog"),
            Action::Answer(reply) => self.answers(world, reply),
            _ => {}
        }
    }

    fn answers(&mut self, world: &mut World, reply: &Reply) {
        let Some(request) = self.requests.remove(&reply.id) else { return };
        let answer = match &reply.result {
            Ok(_) => "done".to_string(),
            Err(why) => format!("refused: {why}"),
        };
        self.log.add(world.now, "op", &format!("{}: {answer}", request.text));
        if let (Some(vm), Ok(_)) = (request.disables, &reply.result) {
            world.enrolments.retain(|enrolment| enrolment.vm != vm);
        }
    }

    fn records(&mut self, world: &World, node: usize, decision: &Decision) {
        let about = decision.node.map_or(String::new(), |node| format!("{node}"));
        let about = decision.vm.as_ref().map_or(about, |vm| vm.0.clone());
        match decision.kind {
            Kind::Waiting | Kind::StartRefused => {
                let old = self.said.insert((node, about), decision.text.clone());
                if old.as_ref() != Some(&decision.text) {
                    self.add(world, node, &decision.text);
                }
            }
            Kind::Deposed => {
                self.leader = self.leader.filter(|leader| *leader != node);
                self.add(world, node, &decision.text);
            }
            Kind::StartOrdered
            | Kind::StartFailed
            | Kind::Fenced
            | Kind::Lease
            | Kind::Reset
            | Kind::Risk
            | Kind::Policy
            | Kind::Alarm => {
                self.add(world, node, &decision.text);
            }
            Kind::VmRunning => {
                self.said.remove(&(node, about));
            }
            _ => {}
        }
    }

    // --- statuses ------------------------------------------------------------------------------------

    /// The leader's word counts for all; of itself every node has a say.
    fn look_at_statuses(&mut self, world: &World, node: usize) {
        let agent = world.nodes[node].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        let Some(agent) = agent else { return };
        let leads = self.leader == Some(node);
        let snapshot = agent.machine.snapshot(world.own(node));
        let quorate = snapshot.quorate;
        for view in &snapshot.nodes {
            let k = index(view.id);
            // Without a majority a leader's word of others is old.
            if leads && (quorate || k == node) {
                let old = self.status[k].replace(view.status);
                if old.map(calm) != Some(calm(view.status)) {
                    self.add(world, k, &format!("status: {}", calm(view.status).words()));
                }
            }
            if k == node && !leads && self.own[k] != Some(view.status) {
                self.own[k] = Some(view.status);
                let words = view.status.words();
                let troubled = matches!(view.status, Status::NoQuorum | Status::StorageOutage);
                if troubled {
                    self.add(world, k, &format!("sees itself: {words}"));
                }
            }
        }
    }
}

/// Who leads is told by itself.
fn calm(status: Status) -> Status {
    if status == Status::Leader { Status::Member } else { status }
}
