//! HA off and on for everybody (PROTOCOL section 7, disarm).
//!
//! Why a VM still never runs twice: while the ledger says *disarmed*, the leader evicts, fences, relocates and orders nothing. A node
//! stops enforcing its lease only when its own page on disk says so, and from then on no time proves it dead: rule 4
//! counts only pages that show the *last* arming (`plan.rs`, `eviction.rs`). A node that never hears of the arming is waited
//! for, or fenced. A disarming is put off while a node is evicted without proof, a VM has no place, is on its way to another node, or
//! is being started: it would be left off. From the wish on, none is sent on its way any more (`wishes.rs`, `maintenance.rs`).
//!
//! While HA was off, VMs may have been moved by hand. After the arming nobody starts one before every node that may run it
//! has looked at its processes *since it read the arming* and said nothing of the VM: until then it is `unseen`. Owners forget what they ran, and a page or beat shows the arming only after such a look.

use crate::action::Action;
use crate::decision::Kind;
use crate::guest::GuestState;
use crate::heartbeat::Cycle;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Disarm, Ledger, VmEntry};
use crate::liveness::Facts;
use crate::machine::Machine;
use crate::orders::idle_owner;
use crate::outbox::{Note, Outbox};
use crate::page::Page;
use crate::recovery::is_orphan;
use crate::start_order::held_by;
use crate::time::{Instant, Millis};
use alloc::{string::String, vec::Vec};

/// A watchdog that was not closed is closed again after this.
const CLOSE_AGAIN: Millis = Millis(2_000);

/// What this node has read of it, and done.
#[derive(Debug, Default)]
pub(crate) struct Disarming {
    /// The commit that disarmed, by the newest ledger read with proof.
    pub read: Option<Stamp>,
    /// It is in force here: this node's page on disk says so, or there is no lease to enforce.
    pub in_force: bool,
    /// The arming commit of the newest ledger read with proof, once processes were looked at since.
    pub arming: Stamp,
    /// One that was read, and when; processes are to be looked at.
    read_arming: Option<(Stamp, Instant)>,
    /// When it was armed again here.
    pub ended: Option<Instant>,
    close_asked: Option<Instant>,
    closed: bool,
    /// This leader first led with that disarming then: its limit counts from there.
    led: Option<(Stamp, Instant)>,
}

impl Ledger {
    /// HA is off: disarmed, and not put off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.disarm.as_ref().is_some_and(|disarm| !disarm.pending)
    }
}

impl Disarming {
    fn on_proved(&mut self, ledger: &Ledger, now: Instant) {
        let since = ledger.disarm.as_ref().filter(|d| !d.pending).map(|disarm| disarm.since);
        if since.is_none() && self.in_force {
            self.ended = Some(now);
        }
        if since != self.read {
            (self.read, self.in_force) = (since, false);
            (self.close_asked, self.closed) = (None, false);
        }
        let known = self.read_arming.map_or(self.arming, |(arming, _)| arming);
        if ledger.armed_since > known {
            self.read_arming = Some((ledger.armed_since, now));
        }
    }

    /// Processes were looked at, beginning at `began`.
    fn on_scanned(&mut self, began: Instant) {
        if let Some((arming, _)) = self.read_arming.take_if(|(_, read)| began >= *read) {
            self.arming = arming;
        }
    }

    /// What an earlier incarnation of this boot wrote on the page: HA was off then, and no lease has been enforced since.
    fn adopt(&mut self, disarmed: Stamp) {
        (self.read, self.in_force) = (Some(disarmed), true);
    }

    /// Closes the watchdog, until it is closed.
    fn close(&mut self, out: &mut Outbox) {
        let asked = self.close_asked.is_some_and(|at| out.now.since(at) < CLOSE_AGAIN);
        if !self.closed && !asked {
            self.close_asked = Some(out.now);
            out.push(Action::CloseWatchdog);
        }
    }
}

impl Machine {
    /// HA is off here: nothing is started, stopped, adopted or expelled.
    pub(crate) fn is_disarmed(&self) -> bool {
        self.disarming.in_force
    }

    /// A ledger was read with proof.
    pub(crate) fn read_disarming(&mut self, ledger: &Ledger) {
        let before = self.disarming.read;
        self.disarming.on_proved(ledger, self.out.now);
        let after = self.disarming.read;
        // Neither fed by this incarnation nor inherited: no lease is enforced that could still end.
        if after.is_some() && self.lease.is_unused() {
            self.begin_disarmed();
        }
        if before != after {
            let text = match &ledger.disarm {
                Some(disarm) if after.is_some() => {
                    alloc::format!("HA is off, nothing is touched: {}", disarm.reason)
                }
                _ => "HA is on again".into(),
            };
            self.out.record(Note::new(Kind::Disarm, "PROTOCOL 7", text).node(self.me()));
            self.heartbeat.hurry(self.out.now, Millis(0));
        }
    }

    /// A cycle is complete: what its page said of disarming is on disk.
    pub(crate) fn on_page_written(&mut self, cycle: &Cycle) {
        let own = cycle.pages.get(&self.me()).and_then(Option::as_ref);
        let written = own.filter(|_| cycle.start.is_some()).and_then(|page| page.disarmed);
        if written.is_some() && written == self.disarming.read {
            self.begin_disarmed();
        }
    }

    fn begin_disarmed(&mut self) {
        self.disarming.in_force = true;
        // Whoever moves a VM by hand moves it away from here too.
        self.guests.restarts.forget_all();
        self.lease.may_reopen();
    }

    /// The first read of an incarnation showed this boot's own page.
    pub(crate) fn adopt_disarming(&mut self, page: &Page) {
        let disarmed = page.disarmed.filter(|_| page.boot() == self.config.me.boot);
        if let Some(disarmed) = disarmed {
            self.disarming.adopt(disarmed);
            self.begin_disarmed();
        }
    }

    /// Looks at processes, if an arming was read since they were last looked at.
    pub(crate) fn look_after_arming(&mut self) {
        if let Some(began) = self.guests.scanned() {
            self.disarming.on_scanned(began);
        }
        let wanted = self.disarming.read_arming.is_some() && self.scan_is_old();
        self.guests.scan_if(wanted, &mut self.out);
    }

    /// What there is to do for a node's own guests while HA is off: look at them, and let go of the watchdog.
    pub(crate) fn leave_guests(&mut self) {
        self.guests.scan_if(false, &mut self.out);
        self.ordered.clear();
        // A reset that was ordered and hangs is left to the watchdog: nothing else would ever end this node's limbo.
        if !self.lease.is_resetting() {
            self.disarming.close(&mut self.out);
        }
    }

    pub(crate) fn on_watchdog_fed(&mut self, ended: Instant) {
        // A feed that was under way when the watchdog was closed says nothing of the device as it is now.
        if !(self.is_disarmed() && self.disarming.closed) {
            self.lease.on_fed(ended);
        }
    }

    pub(crate) fn on_watchdog_closed(&mut self) {
        if self.is_disarmed() {
            self.disarming.closed = true;
            self.lease.on_closed();
        }
    }

    /// A rumour says that HA is off, and this incarnation knows of no lease: nothing is stopped before a proof says otherwise.
    pub(crate) fn may_be_disarmed(&self) -> bool {
        self.lease.is_unused() && self.register.ledger().is_off()
    }
}

/// What the leader has to know to switch HA off and on.
#[derive(Debug, Default)]
pub(crate) struct Outlook {
    /// Why HA cannot be switched off now: somebody's death is not proved, or a VM has no place.
    pub obstacle: Option<String>,
    /// VMs that run on one other node than their owner, who says that it does not run them.
    pub moved: Vec<(VmId, NodeId)>,
}

impl Outlook {
    pub fn of(facts: &Facts<'_>) -> Self {
        let moved = |vm: &VmId| Some((vm.clone(), moved_to(vm, facts)?));
        let vms = facts.ledger.vms.keys().filter(|_| facts.ledger.is_off());
        Self { obstacle: obstacle(facts), moved: vms.filter_map(moved).collect() }
    }
}

/// The leader's part: carries out what was put off, and arms again when the limit is over. True if `next` changed.
pub(crate) fn keep(
    next: &mut Ledger,
    stamp: Stamp,
    disarming: &mut Disarming,
    facts: &Facts<'_>,
    notes: &mut Vec<Note>,
) -> bool {
    let Some(disarm) = next.disarm.clone() else {
        disarming.led = None;
        return false;
    };
    if disarm.pending {
        return obstacle(facts).is_none() && begin(next, stamp, disarm, notes);
    }
    let led = disarming.led.filter(|(since, _)| *since == disarm.since);
    let (_, since) = *disarming.led.insert(led.unwrap_or((disarm.since, facts.now)));
    let over = disarm.limit.is_some_and(|limit| facts.now.since(since) >= limit);
    over && arm(next, stamp, &Outlook::of(facts), "the limit of the disarming is over", notes)
}

fn begin(next: &mut Ledger, stamp: Stamp, disarm: Disarm, notes: &mut Vec<Note>) -> bool {
    let text = alloc::format!("HA is switched off: {}", disarm.reason);
    notes.push(Note::new(Kind::Disarm, "PROTOCOL 7", text));
    next.disarm = Some(Disarm { since: stamp, pending: false, ..disarm });
    true
}

/// Why HA cannot be switched off now: somebody's death is not proved, or a VM has no place.
fn obstacle(facts: &Facts<'_>) -> Option<String> {
    let ledger = facts.ledger;
    if let Some((node, _)) = ledger.evictions().find(|(_, eviction)| eviction.proof.is_none()) {
        return Some(alloc::format!(
            "{} is evicted and not proved to run nothing",
            ledger.name(node)
        ));
    }
    if let Some(why) = moving(ledger) {
        return Some(why);
    }
    let orphan = ledger.vms.values().find(|entry| is_orphan(ledger, entry, facts));
    if let Some(entry) = orphan {
        return Some(alloc::format!("{} is being recovered", entry.spec.name));
    }
    let started = ledger.vms.values().find(|entry| is_being_started(entry, facts));
    started.map(|entry| alloc::format!("{} is being started", entry.spec.name))
}

/// Its owner is to start it and can, but does not run it yet: with HA off it would not.
fn is_being_started(entry: &VmEntry, facts: &Facts<'_>) -> bool {
    let starts = facts.state_of(entry.owner, &entry.spec.id) == Some(&GuestState::Starting);
    let due = || idle_owner(entry, facts).is_some() && held_by(entry, facts).is_none();
    entry.may_run() && (starts || due())
}

/// A VM that is on its way to another node, live or by being shut down and started there.
fn moving(ledger: &Ledger) -> Option<String> {
    let moves =
        |entry: &&VmEntry| entry.migration.is_some() || entry.resumes || entry.leave.is_some();
    let entry = ledger.vms.values().find(moves)?;
    Some(alloc::format!("{} is being moved", entry.spec.name))
}

/// Switches HA off, now or as soon as nothing stands against it.
pub(crate) fn disarm(
    next: &mut Ledger,
    stamp: Stamp,
    (limit, reason): (Option<Millis>, &str),
    outlook: &Outlook,
    notes: &mut Vec<Note>,
) -> bool {
    if let Some(known) = &mut next.disarm {
        let same = known.limit == limit && known.reason == reason;
        (known.limit, known.reason) = (limit, reason.into());
        return !same;
    }
    let wish = Disarm { since: stamp, limit, reason: reason.into(), pending: true };
    // The same commit may evict somebody, or send a VM on its way.
    let evicted = next.evictions().find(|(_, eviction)| eviction.proof.is_none());
    let evicted = evicted.map(|(node, _)| alloc::format!("{} is evicted now", next.name(node)));
    match outlook.obstacle.clone().or(evicted).or_else(|| moving(next)) {
        None => begin(next, stamp, wish, notes),
        Some(why) => {
            let text = alloc::format!("HA will be switched off later: {why}");
            notes.push(Note::new(Kind::Disarm, "PROTOCOL 7", text));
            next.disarm = Some(wish);
            true
        }
    }
}

/// Switches HA on. A VM that was moved by hand meanwhile belongs to the node on which it runs.
pub(crate) fn arm(
    next: &mut Ledger,
    stamp: Stamp,
    outlook: &Outlook,
    why: &str,
    notes: &mut Vec<Note>,
) -> bool {
    let Some(disarm) = next.disarm.take() else { return false };
    if disarm.pending {
        return true;
    }
    next.armed_since = stamp;
    next.vms.values_mut().for_each(|entry| entry.unseen = true);
    notes.push(Note::new(Kind::Disarm, "PROTOCOL 7", alloc::format!("HA is switched on: {why}")));
    for (vm, node) in &outlook.moved {
        let name = next.name(*node);
        let Some(entry) = next.vms.get_mut(vm) else { continue };
        (entry.owner, entry.since, entry.acknowledged) = (*node, stamp, false);
        (entry.resumes, entry.migration) = (false, None);
        let what = &entry.spec.name;
        let text = alloc::format!("{what} was moved to {name} by hand; {name} is its owner now");
        notes.push(Note::new(Kind::Disarm, "PROTOCOL 7", text).vm(vm).node(*node));
    }
    true
}

/// VMs of which every node that may run them has said, since the last arming, that it does not, their owners excepted.
pub(crate) fn see(next: &mut Ledger, facts: &Facts<'_>) -> bool {
    let ledger = facts.ledger;
    // A node that is evicted and not proved to run nothing may run them too.
    let may_run = |node: &&NodeId| match ledger.eviction(**node) {
        Some(eviction) => eviction.proof.is_none(),
        None => ledger.admission(**node).is_some(),
    };
    let nodes: Vec<NodeId> = ledger.nodes.keys().filter(may_run).copied().collect();
    let mut changed = false;
    for (vm, entry) in next.vms.iter_mut().filter(|(_, entry)| entry.unseen) {
        let looked = |node: &NodeId| {
            facts.word_of(*node).is_some_and(|heard| {
                let silent = heard.report(vm).is_none();
                heard.beat.arming >= ledger.armed_since && (silent || *node == entry.owner)
            })
        };
        if nodes.iter().all(looked) {
            entry.unseen = false;
            changed = true;
        }
    }
    changed
}

/// The one admitted node that says it runs the VM, if that is not its owner, who says it does not.
fn moved_to(vm: &VmId, facts: &Facts<'_>) -> Option<NodeId> {
    let entry = facts.ledger.vms.get(vm)?;
    let says = |node: NodeId| Some(facts.word_of(node)?.report(vm).map(|report| &report.state));
    if says(entry.owner)?.is_some() {
        return None;
    }
    let others = facts.ledger.nodes.keys().filter(|node| **node != entry.owner);
    let mut runs = others.filter(|node| matches!(says(**node), Some(Some(_))));
    let (first, second) = (runs.next().copied()?, runs.next());
    let running = says(first) == Some(Some(&GuestState::Running));
    (second.is_none() && running && facts.ledger.admission(first).is_some()).then_some(first)
}

#[cfg(test)]
#[path = "tests/disarm.rs"]
mod tests;
