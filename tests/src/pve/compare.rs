//! What came of a story, with them and with us. An outcome is the same where an operator would not notice a difference, or
//! would be glad of it: nobody else is cut off, every service ends in the same state on a node that it may be on, nothing
//! ran twice, and nothing was down longer.

use super::outcome::{Ended, Outcome, State};
use super::story::{Service, Story};
use super::translate::vm_name;
use crate::scenario::runner;
use crate::scenario::stage::Stage;
use crate::sim::clock::SECOND;
use steadfast_core::ids::VmId;
use steadfast_core::ledger::{Desired, VmEntry};

/// Seconds by which a service may be down longer than theirs: a live migration stops it for less, theirs count none.
pub const TOLERANCE: u64 = 2;
/// Their stories begin at this second of their clock.
const THEIR_BEGIN: u64 = 20;

/// Our end, read from the stage and the log.
#[derive(Debug)]
pub struct Ours<'a> {
    /// The stage at the end.
    pub stage: &'a Stage,
    /// What the runner says.
    pub told: &'a runner::Outcome,
}

/// Every difference, in a sentence; none is what we want.
#[must_use]
pub fn differences(story: &Story, theirs: &Outcome, ours: &Ours<'_>) -> Vec<String> {
    let mut found: Vec<String> = ours.told.failure.iter().cloned().collect();
    let cut_off: Vec<&str> =
        nodes(story).filter(|node| ours.is_cut_off(&node.0)).map(|n| n.1).collect();
    let expected: Vec<&str> = theirs.fenced.iter().map(String::as_str).collect();
    let off_by_command = |node: &&str| is_shut_down(story, node);
    if cut_off.iter().any(|node| !expected.contains(node) && !off_by_command(node)) {
        found.push(format!("we cut off {cut_off:?}, they {expected:?}"));
    }
    let evicted = |node: &&str| nodes(story).any(|n| n.1 == *node && ours.is_evicted(&n.0));
    if expected.iter().any(|node| !cut_off.contains(node) && !evicted(node)) {
        found.push(format!("they cut off {expected:?}, we {cut_off:?}"));
    }
    for (id, ended) in &theirs.services {
        let plain = Service::default();
        let service = story.services.get(id).unwrap_or(&plain);
        found.extend(ours.differs(story, id, service, ended));
    }
    found
}

/// (our name, their name)
fn nodes(story: &Story) -> impl Iterator<Item = (String, &str)> {
    story.nodes.iter().enumerate().map(|(at, node)| (format!("n{}", at + 1), node.name.as_str()))
}

/// It is switched off by a command: that it is found dead is no news.
fn is_shut_down(story: &Story, node: &str) -> bool {
    use super::story::Command;
    story.steps.iter().flatten().any(|command| {
        matches!(command, Command::Shutdown(n) | Command::Reboot(n) | Command::Power(n, false) if n == node)
    })
}

impl Ours<'_> {
    /// Guests were taken from it: by its lease, by a reset, or by an eviction. To evict a node that runs nothing hurts nobody.
    fn is_cut_off(&self, node: &str) -> bool {
        let from = format!("from {node}");
        let log = || self.told.log.iter();
        let takes = |line: &&String| line.contains("gives ") && line.ends_with(&from);
        let stops = |line: &&String| {
            line.split_whitespace().nth(1) == Some(node)
                && (line.contains("this node's lease is over") || line.contains("goes down by"))
        };
        self.is_evicted(node) && log().any(|line| takes(&line)) || log().any(|line| stops(&line))
    }

    fn is_evicted(&self, node: &str) -> bool {
        let evicts = format!("evicts {node}:");
        self.told.log.iter().any(|line| line.contains(&evicts))
    }

    fn entry(&self, id: &str) -> Option<&VmEntry> {
        self.stage.watch.ledger.vms.get(&VmId(vm_name(id)))
    }

    fn home(&self, id: &str) -> Option<usize> {
        let name = VmId(vm_name(id));
        let at = self.stage.world.vms.iter().position(|vm| *vm == name)?;
        self.stage.watch.homes[at]
    }

    /// Seconds down since `first`, and when it last came back, both by the story's clock.
    fn down(&self, id: &str, first: u64) -> (u64, u64) {
        let name = VmId(vm_name(id));
        let Some(at) = self.stage.world.vms.iter().position(|vm| *vm == name) else {
            return (0, 0);
        };
        let begin = self.stage.begin;
        let counts = begin + first * SECOND;
        let of_it = self.stage.watch.ended.iter().filter(|(vm, ..)| *vm == at);
        let length = |(_, from, to): &(usize, u64, u64)| to.saturating_sub((*from).max(counts));
        let back = of_it.clone().map(|(.., to)| to.saturating_sub(begin)).max();
        (of_it.map(length).sum::<u64>() / SECOND, back.unwrap_or(0) / SECOND)
    }

    fn state(&self, id: &str) -> State {
        let home = self.home(id);
        match self.entry(id) {
            _ if self.stage.watch.ledger.is_off() => State::Frozen,
            Some(entry) if entry.failed.is_some() => State::Failed,
            Some(entry) if entry.desired == Desired::Stopped => State::Stopped,
            _ if home.is_some() => State::Started,
            Some(entry) if self.stage.watch.ledger.is_freezing(entry.owner) => State::Frozen,
            Some(_) => State::Waiting,
            None => State::Stopped,
        }
    }

    fn differs(
        &self,
        story: &Story,
        id: &str,
        service: &Service,
        theirs: &Ended,
    ) -> Option<String> {
        let (state, home) = (self.state(id), self.home(id));
        if self.entry(id).is_none() && theirs.state == State::Started {
            // Not under HA with us: they leave it alone too, and it is where it was.
            return None;
        }
        if state != theirs.state {
            return Some(format!("{id} ends {state:?}, with them {:?}", theirs.state));
        }
        if state != State::Started {
            return None;
        }
        let at = home.and_then(|home| story.nodes.get(home)).map_or("", |node| node.name.as_str());
        if at != theirs.node && !self.may_be_on(story, id, service, at, theirs) {
            return Some(format!("{id} ends on {at}, with them on {}", theirs.node));
        }
        // Before they first started it, it may be down here too; a node that stops its guests sooner loses no time that counts
        // if it has them back as soon.
        let (down, back) = self.down(id, theirs.first_started().saturating_sub(THEIR_BEGIN));
        let late = back + THEIR_BEGIN > theirs.last_started() + TOLERANCE;
        (late && down > theirs.down + TOLERANCE)
            .then(|| format!("{id} was down for {down} s, with them for {} s", theirs.down))
    }

    /// They chose another node among several that were right: so may we.
    fn may_be_on(
        &self,
        story: &Story,
        id: &str,
        service: &Service,
        at: &str,
        theirs: &Ended,
    ) -> bool {
        let moved = theirs.node != service.node && at != service.node;
        let free = service.nodes.is_empty() || service.nodes.contains_key(at) || !service.strict;
        let best = |node: &str| service.nodes.get(node).map_or(0, |weight| weight + 1);
        let as_good = best(at) >= best(&theirs.node);
        moved && free && as_good && self.keeps_company(story, id, service)
    }

    fn keeps_company(&self, story: &Story, id: &str, service: &Service) -> bool {
        let home = self.home(id);
        story.services.iter().filter(|(other, _)| *other != id).all(|(other, facts)| {
            let there = self.home(other);
            let same = there.is_some() && there == home;
            let apart = !facts.apart.is_disjoint(&service.apart);
            let together = !facts.together.is_disjoint(&service.together);
            !(if same { apart } else { together && there.is_some() })
        })
    }
}
