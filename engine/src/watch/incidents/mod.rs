//! Incidents: what went wrong, from the first sign to the end, with milestones. Made of decisions, which say why, and of the state,
//! which says when it is over.
//!
//! Decisions may come late (of a node that was cut off) and in any order: each is put where its time belongs.

mod incident;
#[cfg(test)]
mod tests;

use super::seen::{Seen, VmSeen};
use crate::api::wire::DecisionReport;
use std::collections::{BTreeMap, VecDeque};
use steadfast_core::decision::Kind;

use incident::milestone;
pub(super) use incident::{Incident, Milestone, Severity, Touched};

/// A node is well again when it has been for so long.
const STEADY_MS: u64 = 2_000;
/// A VM that is down for so long is an incident of its own, unless its node's is open.
const VM_DOWN_MS: u64 = 5_000;
/// Closed incidents that late decisions may still belong to.
const REMEMBERED: usize = 50;
/// Early decisions that wait for the incident that they belong to.
const EARLY: usize = 500;

/// A VM as it was seen last.
#[derive(Debug)]
struct Known {
    vm: VmSeen,
    /// Since when it is down, or, if it is not, when it was looked at.
    since: u64,
    /// When it was first seen with the owner that it has.
    owned_since: u64,
}

/// Makes incidents of one cluster.
#[derive(Debug, Default)]
pub(in crate::watch) struct Tracker {
    next: i64,
    incidents: Vec<Incident>,
    nodes: BTreeMap<String, (String, u64)>,
    vms: BTreeMap<String, Known>,
    /// Steps of a failover that nobody had told of yet: each agent tells its own decisions, in its own time.
    early: VecDeque<DecisionReport>,
    /// Nobody sees the cluster: nothing ends.
    blind: bool,
}

impl Tracker {
    /// Goes on with incidents that are still open or were closed lately, and gives new ones numbers from `next` on.
    pub(in crate::watch) fn new(incidents: Vec<Incident>, next: i64) -> Self {
        Self { next, incidents, blind: true, ..Self::default() }
    }

    /// A decision: the incidents that it changed.
    pub(in crate::watch) fn decided(&mut self, report: &DecisionReport) -> Vec<Incident> {
        let Some(index) = self.belongs_to(report) else {
            self.wait_with(report);
            return Vec::new();
        };
        if report.kind == Kind::Evicted {
            let before = self.incidents.clone();
            self.put(index, report);
            self.place_early();
            return self.changes(&before);
        }
        let before = self.incidents[index].clone();
        self.put(index, report);
        self.changed(index, &before)
    }

    fn put(&mut self, index: usize, report: &DecisionReport) {
        let incident = &mut self.incidents[index];
        incident.add(milestone(report));
        incident.learn(report);
        if report.kind == Kind::Evicted {
            self.touch_vms(index);
        }
    }

    /// Only what follows from an eviction: the rest of what belongs to no incident is everyday.
    fn wait_with(&mut self, report: &DecisionReport) {
        let follows = matches!(
            report.kind,
            Kind::FenceOrdered
                | Kind::Fenced
                | Kind::Proved
                | Kind::Decided
                | Kind::Waiting
                | Kind::StartOrdered
                | Kind::StartRefused
                | Kind::VmRunning
        );
        if !follows {
            return;
        }
        if self.early.len() >= EARLY {
            self.early.pop_front();
        }
        self.early.push_back(report.clone());
    }

    /// A node is evicted: what came early may belong to it.
    fn place_early(&mut self) {
        for report in std::mem::take(&mut self.early) {
            match self.belongs_to(&report) {
                Some(index) => self.put(index, &report),
                None => self.early.push_back(report),
            }
        }
    }

    /// The incident that `report` tells of; a new one if it begins one.
    fn belongs_to(&mut self, report: &DecisionReport) -> Option<usize> {
        let at = report.wall_ms;
        let vm = report.vm_id.as_ref().map(|id| id.0.as_str());
        match report.kind {
            Kind::Suspected | Kind::Status if is_failing(&report.text) => {
                let node = report.node.as_deref()?;
                Some(self.of_node(node, at).unwrap_or_else(|| self.open_node(node, at)))
            }
            Kind::Evicted | Kind::LastWords | Kind::Reset => {
                let node = report.node.as_deref()?;
                Some(self.of_node(node, at).unwrap_or_else(|| self.open_node(node, at)))
            }
            Kind::Suspected
            | Kind::Status
            | Kind::FenceOrdered
            | Kind::Fenced
            | Kind::Proved
            | Kind::Admitted
            | Kind::Lease => self.of_node(report.node.as_deref()?, at),
            Kind::Election | Kind::Elected | Kind::Deposed => self.newest_open(at),
            Kind::VmFailed | Kind::StartFailed => {
                let vm = vm?;
                let known = self.of_vm(vm, at).or_else(|| self.of_failover(vm, at));
                Some(known.unwrap_or_else(|| self.open_vm(vm, report.vm.as_deref(), at)))
            }
            Kind::Decided
            | Kind::Waiting
            | Kind::StartOrdered
            | Kind::StartRefused
            | Kind::VmRunning
            | Kind::VmExited => self.of_vm(vm?, at).or_else(|| self.of_failover(vm?, at)),
            Kind::Alarm => Some(self.open_alarm(report)),
            _ => None,
        }
    }

    fn find(&self, at: u64, wanted: impl Fn(&Incident) -> bool) -> Option<usize> {
        self.incidents.iter().rposition(|it| it.covers(at) && wanted(it))
    }

    fn of_node(&self, node: &str, at: u64) -> Option<usize> {
        self.find(at, |it| it.node.as_deref() == Some(node))
    }

    fn of_vm(&self, vm: &str, at: u64) -> Option<usize> {
        self.find(at, |it| it.vms.iter().any(|touched| touched.id == vm))
    }

    /// A VM that nobody knew to be on the node, but that is placed while it is evicted. Who owns it now says nothing of who
    /// owned it before: after a pause the state, which is new, may be seen before the decisions that led to it.
    fn of_failover(&self, vm: &str, at: u64) -> Option<usize> {
        let then = self.vms.get(vm).filter(|known| known.owned_since < at);
        let owner = then.map(|known| known.vm.owner.as_str());
        let lost = |it: &Incident| it.evicted && (owner.is_none() || owner == it.node.as_deref());
        self.find(at, |it| lost(it) && it.closed_wall_ms.is_none())
    }

    fn newest_open(&self, at: u64) -> Option<usize> {
        self.find(at, |it| it.node.is_some() && it.closed_wall_ms.is_none())
    }

    fn open_node(&mut self, node: &str, at: u64) -> usize {
        let title = format!("{node} is not well");
        self.open(Incident { node: Some(node.into()), title, ..Incident::begun(at) })
    }

    fn open_vm(&mut self, vm: &str, name: Option<&str>, at: u64) -> usize {
        let known = self.vms.get(vm).map(|known| known.vm.name.clone());
        let name = name.map(Into::into).or(known).unwrap_or_else(|| vm.to_string());
        let title = format!("{name} is down");
        let vms = vec![Touched { id: vm.into(), name, running_wall_ms: None }];
        let severity = Severity::Critical;
        self.open(Incident { vms, title, severity, ..Incident::begun(at) })
    }

    /// Over as soon as it is told: it is for a person to read.
    fn open_alarm(&mut self, report: &DecisionReport) -> usize {
        let at = report.wall_ms;
        let title = "an agent asks for a person".to_string();
        let (node, closed_wall_ms) = (report.node.clone(), Some(at));
        self.open(Incident { node, title, closed_wall_ms, ..Incident::begun(at) })
    }

    fn open(&mut self, incident: Incident) -> usize {
        let closed = |it: &Incident| it.closed_wall_ms.is_some();
        if self.incidents.iter().filter(|it| closed(it)).count() > REMEMBERED
            && let Some(oldest) = self.incidents.iter().position(closed)
        {
            self.incidents.remove(oldest);
        }
        self.incidents.push(Incident { id: self.next, ..incident });
        self.next += 1;
        self.incidents.len() - 1
    }

    /// VMs of the node of an incident, as long as the state has them there.
    fn touch_vms(&mut self, index: usize) {
        let Some(node) = self.incidents[index].node.clone() else { return };
        let lost = self.vms.iter().filter(|(_, known)| known.vm.owner == node && !known.vm.runs);
        let lost: Vec<(String, String)> =
            lost.map(|(id, known)| (id.clone(), known.vm.name.clone())).collect();
        lost.iter().for_each(|(id, name)| self.incidents[index].touch(id, name));
    }

    /// A look at the cluster: the incidents that it changed.
    pub(in crate::watch) fn seen(&mut self, seen: &Seen) -> Vec<Incident> {
        if seen.whole {
            self.nodes.retain(|name, _| seen.nodes.contains_key(name));
            self.vms.retain(|id, _| seen.vms.contains_key(id));
        }
        self.blind = false;
        let at = seen.wall_ms;
        let before = self.incidents.clone();
        for (name, status) in &seen.nodes {
            self.see_node(name, status.as_deref(), at);
        }
        for (id, vm) in &seen.vms {
            self.see_vm(id, vm.as_ref(), at);
        }
        self.changes(&before)
    }

    fn see_node(&mut self, name: &str, status: Option<&str>, at: u64) {
        let Some(status) = status else {
            self.nodes.remove(name);
            return;
        };
        let known = self.nodes.get(name);
        if known.is_some_and(|(known, _)| known == status) {
            return;
        }
        self.nodes.insert(name.into(), (status.into(), at));
        if !FAILING.contains(&status) {
            return;
        }
        let index = self.of_node(name, at).unwrap_or_else(|| self.open_node(name, at));
        let text = format!("{name} is {status}");
        let incident = &mut self.incidents[index];
        incident.back_wall_ms = None;
        incident.closed_wall_ms = None;
        let decision_id = None;
        incident.add(Milestone { at_wall_ms: at, name: "suspected".into(), text, decision_id });
        if status == "Evicted" {
            incident.evicted = true;
            self.touch_vms(index);
            self.place_early();
        }
    }

    fn see_vm(&mut self, id: &str, vm: Option<&VmSeen>, at: u64) {
        let Some(vm) = vm else {
            self.vms.remove(id);
            // It is no HA VM any more: nobody waits for it.
            self.incidents.iter_mut().for_each(|it| it.runs_again(id, at));
            return;
        };
        let known = self.vms.get(id);
        let was_down = known.is_some_and(|known| known.vm.down);
        let since = known.filter(|_| was_down && vm.down).map_or(at, |known| known.since);
        let same_owner = known.filter(|known| known.vm.owner == vm.owner);
        let owned_since = same_owner.map_or(at, |known| known.owned_since);
        self.vms.insert(id.into(), Known { vm: vm.clone(), since, owned_since });
        if vm.runs {
            self.incidents.iter_mut().for_each(|it| it.runs_again(id, at));
        } else if vm.down && !was_down {
            let lost = |it: &Incident| it.evicted && it.node.as_deref() == Some(&vm.owner);
            if let Some(index) = self.find(at, |it| lost(it) && it.closed_wall_ms.is_none()) {
                self.incidents[index].touch(id, &vm.name);
            }
        }
    }

    /// Nobody sees the cluster any more.
    pub(in crate::watch) fn go_blind(&mut self) {
        self.blind = true;
    }

    /// Time passes: what is over by now, and what has gone on for too long.
    pub(in crate::watch) fn tick(&mut self, now: u64) -> Vec<Incident> {
        if self.blind {
            return Vec::new();
        }
        let before = self.incidents.clone();
        self.open_long_down(now);
        for index in 0..self.incidents.len() {
            if self.incidents[index].closed_wall_ms.is_none() {
                self.end_if_over(index, now);
            }
        }
        self.changes(&before)
    }

    fn open_long_down(&mut self, now: u64) {
        let long = |since: u64| now.saturating_sub(since) >= VM_DOWN_MS;
        let down: Vec<(String, u64)> = (self.vms.iter())
            .filter(|(_, known)| known.vm.down && long(known.since))
            .map(|(id, known)| (id.clone(), known.since))
            .collect();
        for (vm, since) in down {
            let open = |it: &Incident| {
                it.closed_wall_ms.is_none() && it.vms.iter().any(|touched| touched.id == vm)
            };
            if !self.incidents.iter().any(open) {
                self.open_vm(&vm, None, since);
            }
        }
    }

    fn end_if_over(&mut self, index: usize, now: u64) {
        let incident = &mut self.incidents[index];
        let mut end = incident.opened_wall_ms;
        if let Some(node) = &incident.node {
            let known = self.nodes.get(node);
            let well = known.is_none_or(|(status, since)| {
                !FAILING.contains(&status.as_str()) && now.saturating_sub(*since) >= STEADY_MS
            });
            let quiet = incident.milestones.last().map_or(0, |last| last.at_wall_ms) + STEADY_MS;
            if !well || now < quiet {
                return;
            }
            let seen = known.map_or(now, |(_, since)| *since);
            let back = *incident.back_wall_ms.get_or_insert(seen.max(incident.opened_wall_ms));
            end = end.max(back);
        }
        for touched in &mut incident.vms {
            let known = self.vms.get(&touched.id);
            let runs = known.is_none_or(|known| known.vm.runs || !known.vm.down);
            if !runs {
                return;
            }
            // Without a word of when: it ran when we looked.
            let at = touched.running_wall_ms.get_or_insert(known.map_or(now, |known| known.since));
            end = end.max(*at);
        }
        incident.closed_wall_ms = Some(end);
    }

    fn changes(&mut self, before: &[Incident]) -> Vec<Incident> {
        let known: BTreeMap<i64, &Incident> = before.iter().map(|it| (it.id, it)).collect();
        let none = Incident::default();
        let indices = 0..self.incidents.len();
        indices
            .flat_map(|index| {
                let before = known.get(&self.incidents[index].id).copied().unwrap_or(&none);
                self.changed(index, before)
            })
            .collect()
    }

    fn changed(&mut self, index: usize, before: &Incident) -> Vec<Incident> {
        let incident = &mut self.incidents[index];
        if incident == before {
            return Vec::new();
        }
        incident.sum_up();
        vec![incident.clone()]
    }
}

/// Statuses of nodes that are not well.
const FAILING: [&str; 6] = [
    "Suspect",
    "Network isolation",
    "Storage isolation",
    "Full failure",
    "Excluded from HA cluster",
    "Evicted",
];

/// `n2 is Suspect: ...`
fn is_failing(text: &str) -> bool {
    let status = text.split_once(" is ").map_or("", |(_, rest)| rest);
    let status = status.split(':').next().unwrap_or_default();
    FAILING.contains(&status)
}
