//! The leader's orders to owners. An order is no right: its owner starts only by what it has read with proof (`starting.rs`).
//!
//! Sent until the owner's beat says something of the VM, to one incarnation of it, and only for what the commit under way leaves as
//! it is: that commit may rest on the owner's not running it.

use crate::beats::Heard;
use crate::decision::Kind;
use crate::guest::{GuestReport, GuestState};
use crate::ids::{Identity, Stamp, VmId};
use crate::ledger::{Ledger, VmEntry};
use crate::liveness::Facts;
use crate::message::{Body, StartOrder};
use crate::outbox::{Note, Outbox};
use crate::start_order::{by_priority, held_by};
use crate::time::Instant;
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// Orders given and not obeyed yet, and those that wait for others.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The ownership ordered, and when it was last.
    given: BTreeMap<VmId, (Stamp, Instant)>,
    /// VMs that wait for others to run, and why.
    held: BTreeMap<VmId, String>,
}

impl Orders {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Orders every owner that is good and does not run its VM to start it. True if there is none, whatever is being committed.
    pub fn give(
        &mut self,
        leading: (u64, Stamp),
        committing: Option<&Ledger>,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) -> bool {
        self.forget(facts);
        let mut idle = Vec::new();
        for (vm, entry) in &facts.ledger.vms {
            match idle_owner(entry, facts) {
                Some(_) => idle.push((vm, entry)),
                None => drop(self.held.remove(vm)),
            }
        }
        let none = idle.is_empty();
        for (vm, entry) in by_priority(idle.into_iter()) {
            let Some(to) = idle_owner(entry, facts) else { continue };
            let moves = committing.is_some_and(|next| !keeps(next, vm, entry));
            if moves && !mutant!(OrderedWhileMoving) {
                continue;
            }
            match held_by(entry, facts) {
                Some(why) => self.hold(entry, why, out),
                None => self.start(leading, entry, to, facts, out),
            }
        }
        none
    }

    fn start(
        &mut self,
        (term, stamp): (u64, Stamp),
        entry: &VmEntry,
        to: Identity,
        facts: &Facts<'_>,
        out: &mut Outbox,
    ) {
        let vm = &entry.spec.id;
        self.held.remove(vm);
        let given = self.given.get(vm).filter(|(since, _)| *since == entry.since);
        let again = facts.config.timing.beat * 2;
        if given.is_some_and(|(_, at)| out.now.since(*at) < again) {
            return;
        }
        if given.is_none() {
            let (name, node) = (&entry.spec.name, facts.ledger.name(entry.owner));
            let text = alloc::format!("{node} is ordered to start {name}");
            let note = Note::new(Kind::StartOrdered, "PROTOCOL 7", text);
            out.record(note.vm(vm).node(entry.owner));
        }
        self.given.insert(vm.clone(), (entry.since, out.now));
        let (vm, since) = (vm.clone(), entry.since);
        out.send(Body::StartVm(StartOrder { term, stamp, vm, since, to }));
    }

    fn hold(&mut self, entry: &VmEntry, why: String, out: &mut Outbox) {
        let vm = &entry.spec.id;
        if self.held.get(vm) != Some(&why) {
            let text = alloc::format!("{} waits: {why}", entry.spec.name);
            out.record(Note::new(Kind::Waiting, "PROTOCOL 7", text).vm(vm).node(entry.owner));
            self.held.insert(vm.clone(), why);
        }
    }

    /// A VM that runs, or is under HA no more: the next time it is ordered is a new story.
    fn forget(&mut self, facts: &Facts<'_>) {
        let vms = &facts.ledger.vms;
        self.held.retain(|vm, _| vms.contains_key(vm));
        self.given.retain(|vm, _| {
            let runs =
                |entry: &VmEntry| facts.state_of(entry.owner, vm) == Some(&GuestState::Running);
            vms.get(vm).is_some_and(|entry| !runs(entry))
        });
    }
}

/// The owner's present incarnation, if it is good and says nothing of the VM. Under another boot than the admitted one, or
/// before it has a lease, it would only forget the order, and wait for the next.
pub(crate) fn idle_owner(entry: &VmEntry, facts: &Facts<'_>) -> Option<Identity> {
    let known = entry.acknowledged && !entry.unseen;
    let stays = facts.ledger.host_stop(entry.owner).is_none();
    let may = known && stays && entry.may_run_here() && entry.migration.is_none();
    let (boot, _) = facts.ledger.admission(entry.owner).filter(|_| may)?;
    let ready = |heard: &&Heard| heard.from.boot == boot && heard.beat.lease_left.is_some();
    let heard = facts.word_of(entry.owner).filter(ready)?;
    let older = |report: &&GuestReport| {
        let of = |since: Stamp| since != entry.since && mutant!(GivenUpOfOlderOwnership);
        matches!(report.state, GuestState::GivenUp { since, .. } if of(since))
    };
    let said = heard.report(&entry.spec.id).filter(|report| !older(report));
    said.is_none().then_some(heard.from)
}

/// `next` leaves the VM where it is, wanted as it is, and its owner admitted.
fn keeps(next: &Ledger, vm: &VmId, entry: &VmEntry) -> bool {
    next.admission(entry.owner).is_some()
        && next.vms.get(vm).is_some_and(|planned| {
            let same = planned.since == entry.since && planned.migration.is_none();
            same && planned.may_run_here()
        })
}

#[cfg(test)]
#[path = "tests/orders.rs"]
mod tests;
