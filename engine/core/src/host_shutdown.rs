//! A host that goes down on purpose: what becomes of its VMs is the operator's choice (`Limits::host_shutdown`).
//!
//! | way | its VMs | when it is back |
//! |---|---|---|
//! | migrate | move away live; what cannot is shut down and started elsewhere | they return |
//! | failover | are shut down and started elsewhere | - |
//! | freeze | are shut down and wait for it, for `host_freeze` at most | are started there |
//! | conditional | freeze at a reboot, failover when it is switched off | |
//!
//! The agent hears that the host is to stop, asks the leader for a way (it is in the ledger then), and lets the host go when no HA
//! guest is left. If nobody else can take its VMs, or some are still there after `host_freeze`, they wait for it, whatever was
//! chosen: they are shut down in order.
//!
//! Why a VM still never runs twice: nothing here moves a VM. VMs leave by the ways that are there (a migration, or proof 5), and freezing
//! only *withholds*: new places for VMs that are proved to run nowhere, and a fence agent that nobody needs. The host that is silent
//! is evicted like any other, and what is started anywhere is started by the rules for all.
//!
//! It ends by itself: when the host is admitted under another boot, or its agent speaks as a later incarnation, because the shutdown
//! was called off.

use crate::action::Action;
use crate::decision::Kind;
use crate::guest::GuestState;
use crate::ids::{Identity, NodeId, Stamp, VmId};
use crate::ledger::{HostStop, Leave, Ledger, Way};
use crate::liveness::Facts;
use crate::machine::Machine;
use crate::message::Change;
use crate::outbox::Note;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// The request's name among this node's own; operators' count from below.
const REQUEST: u64 = u64::MAX;
/// No leader has taken the wish for so long: VMs are shut down without it, and the host is let go.
const UNHEARD_LIMIT: Millis = Millis(30_000);
/// It was refused, or not heard: it is asked again after this.
const ASK_AGAIN: Millis = Millis(2_000);
/// Nothing runs here any more, but not every VM has found a place: the host is let go after this.
const EMPTY_LIMIT: Millis = Millis(5_000);

/// What becomes of the VMs of a host that is shut down or rebooted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostShutdown {
    /// They wait for a host that reboots, and are started elsewhere if it is switched off.
    #[default]
    Conditional,
    /// They wait for it.
    Freeze,
    /// They are started elsewhere.
    Failover,
    /// They move away live, and return.
    Migrate,
}

impl HostShutdown {
    fn way(self, reboot: bool) -> Way {
        match self {
            Self::Migrate => Way::Migrate,
            Self::Failover => Way::Failover,
            Self::Freeze => Way::Freeze,
            Self::Conditional if reboot => Way::Freeze,
            Self::Conditional => Way::Failover,
        }
    }
}

/// What this node knows of hosts on their way down: of its own, and as a leader of the others.
#[derive(Debug, Default)]
pub(crate) struct HostStops {
    /// Its own: reboot or not, and since when.
    own: Option<(bool, Instant)>,
    /// No HA guest has been left here since then.
    empty: Option<Instant>,
    let_go: bool,
    /// When the leader was asked last.
    asked: Option<Instant>,
    /// This leader first led with these then: their limit counts from there.
    led: BTreeMap<NodeId, (Stamp, Instant)>,
}

impl HostStops {
    pub fn clear(&mut self) {
        self.led.clear();
    }

    /// How long this leader has led with the stop of this host.
    fn lasted(&mut self, node: NodeId, since: Stamp, now: Instant) -> Millis {
        let known = self.led.get(&node).filter(|(stop, _)| *stop == since);
        let (_, began) = known.copied().unwrap_or((since, now));
        self.led.insert(node, (since, began));
        now.since(began)
    }
}

impl Ledger {
    /// Its host is on its way down, or down, on purpose.
    #[must_use]
    pub fn host_stop(&self, node: NodeId) -> Option<&HostStop> {
        self.nodes.get(&node)?.stopping.as_ref()
    }

    /// Its host's VMs are shut down there, and wait for it.
    #[must_use]
    pub fn is_freezing(&self, node: NodeId) -> bool {
        self.host_stop(node).is_some_and(|stop| stop.way == Way::Freeze)
    }
}

// --- the leader ------------------------------------------------------------------------------------------

/// A host is to stop: its agent says so.
pub(crate) fn begin(
    next: &mut Ledger,
    (who, reboot): (Identity, bool),
    stamp: Stamp,
    facts: &Facts<'_>,
    notes: &mut Vec<Note>,
) -> Result<bool, String> {
    let admitted = next.admission(who.node).is_some_and(|(boot, _)| boot == who.boot);
    let Some(entry) = next.nodes.get_mut(&who.node).filter(|_| admitted) else {
        return Err(alloc::format!("{} is not admitted under this boot", next.name(who.node)));
    };
    if entry.stopping.as_ref().is_some_and(|stop| stop.who == who) {
        return Ok(false);
    }
    let way = facts.config.limits.host_shutdown.way(reboot);
    entry.stopping = Some(HostStop { since: stamp, who, way, reboot });
    let text = alloc::format!("{}: {}", entry.name, words(way, reboot));
    notes.push(Note::new(Kind::Maintenance, "PROTOCOL 7", text).node(who.node));
    if way == Way::Failover {
        give_away(next, who.node, stamp);
    }
    Ok(true)
}

/// What happens, for people.
#[must_use]
pub fn words(way: Way, reboot: bool) -> &'static str {
    match (way, reboot) {
        (Way::Migrate, true) => "its host reboots; its VMs move away, and return",
        (Way::Migrate, false) => "its host is shut down; its VMs move away, and return",
        (Way::Failover, true) => "its host reboots; its VMs are started elsewhere",
        (Way::Failover, false) => "its host is shut down; its VMs are started elsewhere",
        (Way::Freeze, true) => "its host reboots; its VMs wait for it",
        (Way::Freeze, false) => "its host is shut down; its VMs wait for it",
    }
}

fn give_away(next: &mut Ledger, node: NodeId, stamp: Stamp) {
    let reason = alloc::format!("the host {} goes down", next.name(node));
    let stays = |entry: &&mut crate::ledger::VmEntry| entry.owner == node && entry.may_run_here();
    for entry in next.vms.values_mut().filter(stays) {
        entry.leave = Some(Leave { to: None, since: stamp, reason: reason.clone() });
    }
}

/// Ends what is over, freezes where nobody else is left, and freezes nothing for ever. True if `next` changed.
pub(crate) fn keep(
    next: &mut Ledger,
    stops: &mut HostStops,
    facts: &Facts<'_>,
    notes: &mut Vec<Note>,
) -> bool {
    let stopping = |node: &NodeId| Some((*node, next.host_stop(*node)?.clone()));
    let found: Vec<(NodeId, HostStop)> = next.nodes.keys().filter_map(stopping).collect();
    stops.led.retain(|node, _| found.iter().any(|(found, _)| found == node));
    let mut changed = false;
    for (node, stop) in found {
        let (way, text) = match turn(node, &stop, next, stops, facts) {
            Turn::GoOn => continue,
            Turn::Back => (None, String::from("is used again")),
            Turn::Becomes(way, text) => (Some(way), text),
        };
        changed = true;
        let Some(entry) = next.nodes.get_mut(&node) else { continue };
        entry.stopping = way.map(|way| HostStop { way, ..stop.clone() });
        let text = alloc::format!("{}: {text}", entry.name);
        notes.push(Note::new(Kind::Maintenance, "PROTOCOL 7", text).node(node));
        for vm in next.vms.values_mut().filter(|vm| vm.owner == node) {
            vm.leave.take_if(|leave| leave.since == stop.since && leave.to.is_none());
        }
    }
    changed
}

/// What becomes of a host's stop now.
enum Turn {
    GoOn,
    Back,
    Becomes(Way, String),
}

fn turn(
    node: NodeId,
    stop: &HostStop,
    next: &Ledger,
    stops: &mut HostStops,
    facts: &Facts<'_>,
) -> Turn {
    if is_back(node, stop, next, facts) {
        return Turn::Back;
    }
    let limit = facts.config.limits.host_freeze;
    let over = stops.lasted(node, stop.since, facts.now) >= limit;
    let (heirs, up) = (has_heirs(node, next, facts), facts.is_beating(node));
    match stop.way {
        // A guest that is still there cannot be started elsewhere: it goes down first.
        Way::Freeze if heirs && over && !(up && has_guests(node, facts)) => {
            let text = alloc::format!("its host is not back after {limit}: its VMs wait no longer");
            Turn::Becomes(Way::Failover, text)
        }
        Way::Freeze => Turn::GoOn,
        Way::Migrate | Way::Failover if up && !heirs => {
            Turn::Becomes(Way::Freeze, "nobody can take its VMs: they wait for it".into())
        }
        Way::Migrate | Way::Failover if over && up && has_guests(node, facts) => {
            let text =
                alloc::format!("not all of its VMs found a place within {limit}: they shut down");
            Turn::Becomes(Way::Freeze, text)
        }
        Way::Migrate | Way::Failover => Turn::GoOn,
    }
}

/// HA guests are there still, by the host's own word.
fn has_guests(node: NodeId, facts: &Facts<'_>) -> bool {
    let is_there = |vm: &VmId| {
        use GuestState::{Leaving, Running, Starting, Stopping};
        matches!(facts.state_of(node, vm), Some(Running | Starting | Stopping | Leaving))
    };
    facts.ledger.owned_by(node).any(|(vm, _)| is_there(vm))
}

fn is_back(node: NodeId, stop: &HostStop, next: &Ledger, facts: &Facts<'_>) -> bool {
    if next.admission(node).is_some_and(|(boot, _)| boot != stop.who.boot) {
        return true;
    }
    facts.word_of(node).is_some_and(|heard| {
        heard.from.boot == stop.who.boot && heard.from.incarnation > stop.who.incarnation
    })
}

/// Another node is good and stays.
fn has_heirs(node: NodeId, next: &Ledger, facts: &Facts<'_>) -> bool {
    next.nodes.iter().any(|(other, entry)| {
        *other != node
            && !entry.wants_empty()
            && next.admission(*other).is_some()
            && facts.is_beating(*other)
    })
}

// --- the host itself -------------------------------------------------------------------------------------

impl Machine {
    /// The host is to stop.
    pub(crate) fn on_host_stopping(&mut self, reboot: bool) {
        let now = self.out.now;
        self.host.own.get_or_insert((reboot, now));
    }

    /// Asks for a way, and lets the host go when nothing is left to be done here.
    pub(crate) fn stop_host(&mut self) {
        let now = self.out.now;
        let Some((reboot, _)) = self.host.own.filter(|_| !self.host.let_go) else { return };
        let proved = self.register.proved().map(|known| known.ledger.clone());
        let ledger = proved.unwrap_or_else(|| self.register.ledger());
        let heard = self.own_stop(&ledger).is_some();
        let left = self.own_way(&ledger).is_some_and(|way| self.is_left(way, &ledger));
        if left || ledger.is_off() {
            self.host.let_go = true;
            let text = match heard || ledger.is_off() {
                true => "the host may stop",
                false => "the host may stop, though no leader has heard of it",
            };
            let note = Note::new(Kind::Maintenance, "PROTOCOL 7", text.into());
            self.out.record(note.node(self.config.me.node));
            self.out.push(Action::LetHostStop);
        } else if !heard && self.host.asked.is_none_or(|at| now.since(at) >= ASK_AGAIN) {
            self.host.asked = Some(now);
            let change = Change::StopHost { who: self.config.me, reboot };
            self.enrolment.ask(REQUEST, change, now);
        }
    }

    /// This host is on its way down: nothing is started here any more.
    pub(crate) fn is_going_down(&self) -> bool {
        self.host.own.is_some()
    }

    /// What becomes of the VMs here, if this host goes down. Without a leader's word they are shut down in the end: they would die with
    /// the host.
    pub(crate) fn own_way(&self, ledger: &Ledger) -> Option<Way> {
        let (_, asked) = self.host.own?;
        let alone = self.out.now.since(asked) >= UNHEARD_LIMIT;
        self.own_stop(ledger).map(|stop| stop.way).or(alone.then_some(Way::Freeze))
    }

    /// This incarnation's own stop, by this ledger.
    fn own_stop<'a>(&self, ledger: &'a Ledger) -> Option<&'a HostStop> {
        ledger.host_stop(self.me()).filter(|stop| stop.who == self.config.me)
    }

    /// No HA guest is here, and those that were have other places, or wait.
    fn is_left(&mut self, way: Way, ledger: &Ledger) -> bool {
        let now = self.out.now;
        if !self.is_idle() {
            self.host.empty = None;
            self.guests.scan_if(self.scan_is_old(), &mut self.out);
            return false;
        }
        let since = *self.host.empty.get_or_insert(now);
        let has_any = ledger.owned_by(self.me()).any(|(_, entry)| entry.may_run());
        way == Way::Freeze || !has_any || now.since(since) >= EMPTY_LIMIT
    }

    /// Another guest here was started after it: that one is shut down first.
    pub(crate) fn is_needed_here(&self, vm: &VmId, ledger: &Ledger) -> bool {
        let mut others = ledger.owned_by(self.me());
        others.any(|(other, entry)| entry.spec.after.contains(vm) && self.guests.is_present(other))
    }
}

#[cfg(test)]
#[path = "tests/host_shutdown.rs"]
mod tests;
