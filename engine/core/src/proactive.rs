//! Proactive HA: a node whose equipment announces a failure is emptied before it fails.
//!
//! ```text
//!  risk policy ── score, reasons ── beat ── the leader: hysteresis (`gauge.rs`) ── warn ── avoid ── drain
//!  of each node                                                          event, alarm ─┘       │       │
//!                                                     commit: no VM is placed there, unless ───┘       │
//!                                                     no other node can take it                        │
//!                                                     commit: its important VMs move away, live only ──┘
//! ```
//!
//! A risk policy is advice like any other, and may lie about every node at once. So nothing here stops, evicts or fences anything;
//! a held node still takes a VM that has no other place; at most a quarter of the nodes (one at least) is drained at once, and at most
//! half are held; a drain begins only when nothing else is going on and the others have room; and what nobody says any more changes nothing.
//!
//! What is done stands in the ledger, apart from operators' wishes: it outlives the leader, ends by itself when the node is well again
//! (its VMs return then), and never ends an operator's maintenance.

mod gauge;
mod own;
mod room;
mod settings;

use crate::decision::Kind;
use crate::groups::Groups;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Hold, Ledger, VmEntry};
use crate::liveness::Facts;
use crate::outbox::{Note, Outbox};
use crate::recovery::is_orphan;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use gauge::Gauge;
use steadfast_sdk::wire::NodeFacts;

pub use own::Assessed;
pub(crate) use own::OwnRisk;
pub use settings::{Level, Mode, Settings, most_drained, most_held};

/// What a leader would do, and what speaks against it, is looked at again after this.
const LOOK_AGAIN: Millis = Millis(1_000);
/// Rule that records name.
const RULE: &str = "PROACTIVE";

/// The leader's view of everybody's risk. A new leader knows what the ledger holds, and counts readings anew.
#[derive(Debug, Default)]
pub(crate) struct Proactive {
    gauges: BTreeMap<NodeId, Gauge>,
    looked: Option<Instant>,
    /// What shadow mode would hold now.
    shadow: BTreeMap<NodeId, Level>,
    /// Why a node is not held as its risk calls for; told once.
    obstacles: BTreeMap<NodeId, String>,
}

impl Proactive {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes everybody's newest readings, and tells what changes.
    pub fn read(&mut self, facts: &Facts<'_>, out: &mut Outbox) {
        let settings = &facts.config.limits.proactive;
        self.gauges.retain(|node, _| facts.ledger.nodes.contains_key(node));
        for (node, entry) in &facts.ledger.nodes {
            let Some(heard) = facts.word_of(*node) else { continue };
            let Some(report) = &heard.beat.risk else { continue };
            let held = entry.hold.as_ref().map_or(Level::Calm, |hold| hold.level);
            let gauge = self.gauges.entry(*node).or_insert_with(|| Gauge::new(held));
            let Some(before) = gauge.read(heard.from, report, settings, facts.now) else {
                continue;
            };
            self.looked = None;
            if settings.mode > Mode::Off {
                tell(*node, &entry.name, before, gauge, settings.mode, out);
            }
        }
    }

    /// There may be something to hold, drain or release.
    pub fn is_due(&self, next: &Ledger, now: Instant) -> bool {
        let held = next.nodes.values().any(|node| node.hold.is_some());
        let idle = !held && self.shadow.is_empty();
        let calm = self.gauges.values().all(|gauge| gauge.level < Level::Avoid);
        let looked = self.looked.is_some_and(|at| now.since(at) < LOOK_AGAIN);
        !(idle && calm || looked)
    }

    /// Holds, drains and releases what is due, in the next ledger; in shadow mode only in mind. True if `next` changed.
    pub fn keep(
        &mut self,
        next: &mut Ledger,
        stamp: Stamp,
        good: impl FnOnce() -> Vec<NodeFacts>,
        facts: &Facts<'_>,
        notes: &mut Vec<Note>,
    ) -> bool {
        let mode = facts.config.limits.proactive.mode;
        self.looked = Some(facts.now);
        let mut holds = self.held_now(next, mode);
        let changed = self.release(&mut holds, next, mode, notes);
        self.hold(&mut holds, good, next, stamp, facts, notes) || changed
    }

    fn held_now(&self, next: &Ledger, mode: Mode) -> BTreeMap<NodeId, Level> {
        match mode {
            Mode::Shadow => self.shadow.clone(),
            _ => next.holds().map(|(node, hold)| (node, hold.level)).collect(),
        }
    }

    /// Nodes that are well again are used again.
    fn release(
        &mut self,
        holds: &mut BTreeMap<NodeId, Level>,
        next: &mut Ledger,
        mode: Mode,
        notes: &mut Vec<Note>,
    ) -> bool {
        let mut changed = false;
        for (node, entry) in &mut next.nodes {
            let Some(hold) = &entry.hold else { continue };
            let gauge = self.gauges.get(node);
            let calls = gauge.map_or(hold.level, |gauge| gauge.level);
            let why = match mode {
                Mode::Drain if calls >= hold.level => continue,
                Mode::Drain => alloc::format!("its risk is {} now", gauge.map_or(0, Gauge::score)),
                _ => "[proactive] mode says so".into(),
            };
            let keeps = mode == Mode::Drain && calls == Level::Avoid;
            let what = if keeps { "is drained no more" } else { "is used again" };
            let text = alloc::format!("{} {what}: {why}", entry.name);
            notes.push(Note::new(Kind::Risk, RULE, text).node(*node));
            entry.hold = entry.hold.take().filter(|_| keeps);
            if let Some(hold) = &mut entry.hold {
                hold.level = Level::Avoid;
            }
            changed = true;
        }
        let calls = |node: &NodeId| self.gauges.get(node).map_or(Level::Calm, |gauge| gauge.level);
        if mode == Mode::Drain {
            *holds = self.held_now(next, mode);
        } else {
            holds.retain(|node, level| {
                *level = calls(node).min(*level);
                *level >= Level::Avoid
            });
            self.shadow.clone_from(holds);
        }
        changed
    }

    /// Nodes at risk are held, those with the highest score first, as far as nothing speaks against it.
    fn hold(
        &mut self,
        holds: &mut BTreeMap<NodeId, Level>,
        good: impl FnOnce() -> Vec<NodeFacts>,
        next: &mut Ledger,
        stamp: Stamp,
        facts: &Facts<'_>,
        notes: &mut Vec<Note>,
    ) -> bool {
        let mode = facts.config.limits.proactive.mode;
        let held = |node: &NodeId| holds.get(node).copied().unwrap_or(Level::Calm);
        let rises = |(node, gauge): &(&NodeId, &Gauge)| {
            gauge.level >= Level::Avoid
                && gauge.level > held(node)
                && next.nodes.contains_key(*node)
        };
        let mut due: Vec<(NodeId, Gauge)> =
            self.gauges.iter().filter(rises).map(|(node, gauge)| (*node, gauge.clone())).collect();
        due.sort_by_key(|(node, gauge)| (core::cmp::Reverse(gauge.score()), *node));
        self.obstacles.retain(|node, _| due.iter().any(|(other, _)| other == node));
        if due.is_empty() || mode < Mode::Shadow || mode == Mode::Warn {
            return false;
        }
        let good = good();
        let mut changed = false;
        for (node, gauge) in due {
            let scene = Scene { holds, next, good: &good, facts };
            let (level, obstacle) = scene.admit(node, gauge.level);
            self.tell_obstacle(node, obstacle, &gauge, next, notes);
            if holds.get(&node).is_some_and(|known| *known >= level) || level < Level::Avoid {
                continue;
            }
            let spare = room::is_spare(node, holds, &good, facts);
            let note = hold_note(node, &next.name(node), level, &gauge, mode);
            notes.push(note.fact("the rest can lose one more node", spare));
            holds.insert(node, level);
            if mode == Mode::Drain {
                changed |= set_hold(next, node, level, &gauge, stamp);
            }
        }
        if mode == Mode::Shadow {
            self.shadow.clone_from(holds);
        }
        changed
    }

    fn tell_obstacle(
        &mut self,
        node: NodeId,
        obstacle: Option<String>,
        gauge: &Gauge,
        next: &Ledger,
        notes: &mut Vec<Note>,
    ) {
        let Some(why) = obstacle else {
            self.obstacles.remove(&node);
            return;
        };
        if self.obstacles.get(&node) != Some(&why) {
            let what = words(gauge.level, Mode::Warn);
            let text = alloc::format!("{} {what}, and is not: {why}", next.name(node));
            notes.push(gauge.note(Kind::Risk, text).node(node));
            self.obstacles.insert(node, why);
        }
    }

    /// What this leader makes of a node's risk, in words.
    pub fn words(&self, node: NodeId) -> Option<String> {
        let gauge = self.gauges.get(&node)?;
        if let Some(why) = self.obstacles.get(&node) {
            let what = words(gauge.level, Mode::Warn);
            return Some(alloc::format!("it {what}, and is not: {why}"));
        }
        let shadow = self.shadow.get(&node)?;
        Some(alloc::format!("it {} (shadow mode)", words(*shadow, Mode::Shadow)))
    }

    /// What this leader's hysteresis says of it.
    pub fn level(&self, node: NodeId) -> Option<Level> {
        self.gauges.get(&node).map(|gauge| gauge.level)
    }
}

/// What there is when a node is to be held.
struct Scene<'a> {
    holds: &'a BTreeMap<NodeId, Level>,
    next: &'a Ledger,
    good: &'a [NodeFacts],
    facts: &'a Facts<'a>,
}

impl Scene<'_> {
    /// How far it may go with `node`, and why not as far as `level`.
    fn admit(&self, node: NodeId, level: Level) -> (Level, Option<String>) {
        let others = self.holds.keys().filter(|other| **other != node).count();
        let most = most_held(self.next.nodes.len());
        if others >= most {
            let why = alloc::format!(
                "of {} nodes at most {most} may be held at once (held now: {others}); are their readings right?",
                self.next.nodes.len()
            );
            return (Level::Warn, Some(why));
        }
        if level < Level::Drain {
            return (level, None);
        }
        match self.obstacle(node) {
            Some(why) => (Level::Avoid, Some(why)),
            None => (level, None),
        }
    }

    /// Why `node` is not drained now.
    fn obstacle(&self, node: NodeId) -> Option<String> {
        let settings = &self.facts.config.limits.proactive;
        let drained =
            |(other, level): &(&NodeId, &Level)| **other != node && **level == Level::Drain;
        let mut drained = self.holds.iter().filter(drained).map(|(other, _)| *other);
        let (first, budget) = (drained.next(), settings.budget(self.next.nodes.len()));
        let count = drained.count() + usize::from(first.is_some());
        if count >= budget {
            return Some(match first {
                Some(first) => alloc::format!(
                    "{} is drained already, and at most {budget} may be at once",
                    self.next.name(first)
                ),
                None => "[proactive] max_drained is 0".into(),
            });
        }
        self.in_the_way(node).or_else(|| room::lack(node, self.holds, self.good, self.facts))
    }

    /// What else is going on.
    fn in_the_way(&self, node: NodeId) -> Option<String> {
        let next = self.next;
        if next.wants_empty(node) {
            return Some("it is being emptied already: an operator's wish goes first".into());
        }
        if next.admission(node).is_none() || !self.facts.is_beating(node) {
            return Some("it is not a good node now".into());
        }
        if next.disarm.is_some() {
            return Some("HA is off, or will be".into());
        }
        if next.changing.is_some() {
            return Some("the configured nodes are being changed".into());
        }
        if let Some(why) = trouble(next, self.facts) {
            return Some(why);
        }
        let leaves = |(other, entry): &(&NodeId, &crate::ledger::NodeEntry)| {
            **other != node
                && entry.wants_empty()
                && next.owned_by(**other).any(|(_, vm)| vm.may_run())
        };
        let (_, other) = next.nodes.iter().find(leaves)?;
        Some(alloc::format!("{} is being emptied", other.name))
    }
}

/// VMs are on their way after a failure: they go first.
fn trouble(ledger: &Ledger, facts: &Facts<'_>) -> Option<String> {
    let open = |(_, eviction): &(NodeId, &crate::ledger::Eviction)| eviction.proof.is_none();
    if let Some((node, _)) = ledger.evictions().find(open) {
        return Some(alloc::format!("{} is evicted, and not proved dead yet", ledger.name(node)));
    }
    let lost = |entry: &&VmEntry| {
        let gone = ledger.eviction(entry.owner).is_some() && entry.may_run();
        gone || is_orphan(ledger, entry, facts)
    };
    let lost = ledger.vms.values().find(lost)?;
    Some(alloc::format!("{} has no place yet", lost.spec.name))
}

fn set_hold(next: &mut Ledger, node: NodeId, level: Level, gauge: &Gauge, stamp: Stamp) -> bool {
    let Some(entry) = next.nodes.get_mut(&node) else { return false };
    let (score, reason) = (gauge.score(), gauge.reasons());
    entry.hold = Some(Hold { since: stamp, level, score, reason });
    true
}

/// A level that hysteresis gives has changed: tells why, and asks for repair.
fn tell(node: NodeId, name: &str, before: Level, gauge: &Gauge, mode: Mode, out: &mut Outbox) {
    let (score, reasons) = (gauge.score(), gauge.reasons());
    if gauge.level < before {
        let text = alloc::format!("{name} is less at risk: its risk is {score} now");
        out.record(gauge.note(Kind::Risk, text).node(node));
        return;
    }
    let text = alloc::format!("{name} is at risk: {score} of 1000: {reasons}");
    out.record(gauge.note(Kind::Risk, text).node(node));
    if before < Level::Avoid && gauge.level >= Level::Avoid {
        let what = match (mode, gauge.level) {
            (Mode::Drain, Level::Drain) => "its VMs are to move away meanwhile",
            (Mode::Drain, _) => "no VM is placed there meanwhile",
            _ => "nothing is moved",
        };
        let text = alloc::format!("{name} needs repair: {reasons}; {what}");
        out.record(gauge.note(Kind::Alarm, text).node(node));
    }
}

fn hold_note(node: NodeId, name: &str, level: Level, gauge: &Gauge, mode: Mode) -> Note {
    let (score, reasons) = (gauge.score(), gauge.reasons());
    let text = alloc::format!("{name} {}: its risk is {score}: {reasons}", words(level, mode));
    gauge.note(Kind::Risk, text).node(node)
}

/// What is done at a level, as the rest of a sentence about the node.
pub(crate) fn words(level: Level, mode: Mode) -> &'static str {
    match (level, mode) {
        (Level::Drain, Mode::Drain) => "is drained, live",
        (Level::Drain, Mode::Shadow) => "would be drained, live",
        (Level::Drain, _) => "is to be drained",
        (_, Mode::Drain) => "gets no VM while another node can take it",
        (_, Mode::Shadow) => "would get no VM while another node can take it",
        _ => "is to get no VM",
    }
}

// --- what follows from it --------------------------------------------------------------------------------

impl Ledger {
    /// Nodes that proactive HA holds.
    pub fn holds(&self) -> impl Iterator<Item = (NodeId, &Hold)> {
        self.nodes.iter().filter_map(|(node, entry)| Some((*node, entry.hold.as_ref()?)))
    }

    /// Proactive HA holds `node`: nothing is placed there while another node can take it.
    #[must_use]
    pub fn is_held(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|entry| entry.hold.is_some())
    }

    /// Proactive HA drains `node`, and why.
    #[must_use]
    pub fn drain_of(&self, node: NodeId) -> Option<&Hold> {
        self.nodes.get(&node)?.drain()
    }
}

/// VMs that are to move away because their nodes are at risk, and why. Groups go as one, if one of them is important.
pub(crate) fn endangered<'a>(facts: &Facts<'a>) -> BTreeMap<&'a VmId, String> {
    let ledger = facts.ledger;
    let mut found = BTreeMap::new();
    if ledger.holds().all(|(_, hold)| hold.level < Level::Drain) || trouble(ledger, facts).is_some()
    {
        return found;
    }
    for (node, hold) in ledger.holds().filter(|(_, hold)| hold.level == Level::Drain) {
        // An operator's wish goes first.
        if ledger.wants_empty(node) {
            continue;
        }
        let why =
            alloc::format!("{} is at risk ({}): {}", ledger.name(node), hold.score, hold.reason);
        found.extend(important(node, facts).into_iter().map(|vm| (&vm.spec.id, why.clone())));
    }
    found
}

/// VMs of `node` that are moved in advance.
pub(crate) fn important<'a>(node: NodeId, facts: &Facts<'a>) -> Vec<&'a VmEntry> {
    let least = facts.config.limits.proactive.important;
    let groups = Groups::wanted(facts.ledger);
    let is_important = |entry: &VmEntry| {
        let group = groups.get(&entry.spec.id).filter(|_| !entry.spec.affinity.together.is_empty());
        entry.spec.priority >= least
            || group.is_some_and(|group| group.members.iter().any(|m| m.spec.priority >= least))
    };
    let vms = facts.ledger.owned_by(node).map(|(_, entry)| entry);
    vms.filter(|entry| entry.may_run_here() && is_important(entry)).collect()
}

#[cfg(test)]
#[path = "tests/proactive.rs"]
mod tests;
