//! HA on and off for a VM: asked on any node, decided by the leader, true once committed.
//!
//! The commit may land without the owner hearing of it: until the owner has said that it read it (`acknowledged`), its
//! silence, its "none left" and its expired lease prove nothing about this VM (see `recovery.rs`).

use crate::action::Action;
use crate::ids::{Identity, NodeId, Stamp};
use crate::ledger::{Ledger, VmEntry, VmSpec};
use crate::message::{Body, Change, Reply, Request};
use crate::outbox::Outbox;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// A request is sent again until it is answered, and given up after this: its outcome is unknown then.
const GIVE_UP: Millis = Millis(12_000);
const SEND_AGAIN: Millis = Millis(1_500);

#[derive(Debug)]
struct Own {
    change: Change,
    asked: Instant,
    sent: Option<Instant>,
}

/// Own requests, and those that this node, as leader, is to decide.
#[derive(Debug, Default)]
pub(crate) struct Enrolment {
    own: BTreeMap<u64, Own>,
    queue: Vec<(Identity, Request, Instant)>,
    /// In the commit under way: who waits for which stamp.
    committing: Vec<(Identity, u64)>,
}

impl Enrolment {
    pub fn ask(&mut self, id: u64, change: Change, now: Instant) {
        self.own.insert(id, Own { change, asked: now, sent: None });
    }

    /// Sends what is due; answers what took too long.
    pub fn on_time(&mut self, me: Identity, has_leader: bool, out: &mut Outbox) {
        let now = out.now;
        for (id, own) in &mut self.own {
            let due = own.sent.is_none_or(|at| now.since(at) >= SEND_AGAIN);
            if has_leader && due {
                own.sent = Some(now);
                out.send(Body::Request(Request { id: *id, change: own.change.clone() }));
            }
        }
        let expired = |own: &Own| now.since(own.asked) >= GIVE_UP;
        let late: Vec<u64> =
            self.own.iter().filter(|(_, o)| expired(o)).map(|(id, _)| *id).collect();
        for id in late {
            let own = self.own.remove(&id);
            let sent = own.is_some_and(|own| own.sent.is_some());
            let why = if sent {
                "the leader did not answer in time: the outcome is unknown; look at `steadfast vm list`"
            } else {
                "there is no leader: is a majority of the nodes up? see `steadfast status`"
            };
            out.push(Action::Answer(Reply { to: me, id, result: Err(why.into()) }));
        }
    }

    /// The leader answered.
    pub fn on_reply(&mut self, reply: &Reply, out: &mut Outbox) {
        if self.own.remove(&reply.id).is_some() {
            out.push(Action::Answer(reply.clone()));
        }
    }

    /// A request was delivered to this node, which leads.
    pub fn on_request(&mut self, from: Identity, request: Request, now: Instant) {
        let known = |(who, queued, _): &(Identity, Request, Instant)| {
            *who == from && queued.id == request.id
        };
        let committing = self.committing.contains(&(from, request.id));
        if !committing && !self.queue.iter().any(known) {
            self.queue.push((from, request, now));
        }
    }

    /// Puts queued requests into the next ledger; refuses those that cannot be. What is so already in the `committed` ledger
    /// is answered at once, what is so only in `next` at its commit.
    pub fn apply(
        &mut self,
        next: &mut Ledger,
        stamp: Stamp,
        committed: Stamp,
        is_good: impl Fn(NodeId) -> bool,
        out: &mut Outbox,
    ) -> bool {
        let mut changed = false;
        for (from, request, received) in core::mem::take(&mut self.queue) {
            // Its sender was told "unknown" by now, and may have decided otherwise.
            if out.now.since(received) >= GIVE_UP {
                continue;
            }
            match apply(next, from.node, &request.change, stamp, &is_good) {
                Ok(true) => {
                    changed = true;
                    self.committing.push((from, request.id));
                }
                Ok(false) if changed => self.committing.push((from, request.id)),
                Ok(false) => reply(from, request.id, Ok(committed), out),
                Err(why) => reply(from, request.id, Err(why), out),
            }
        }
        changed
    }

    pub fn on_committed(&mut self, stamp: Stamp, out: &mut Outbox) {
        for (to, id) in core::mem::take(&mut self.committing) {
            reply(to, id, Ok(stamp), out);
        }
    }

    /// This node leads no more: requesters ask the next leader.
    pub fn on_deposed(&mut self) {
        self.queue.clear();
        self.committing.clear();
    }

    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        (!self.own.is_empty()).then(|| now + Millis(500))
    }
}

fn reply(to: Identity, id: u64, result: Result<Stamp, String>, out: &mut Outbox) {
    out.send(Body::Reply(Reply { to, id, result }));
}

/// Another VM with the same libvirt name: both could never be on one node.
fn is_namesake(vm: &VmEntry, spec: &VmSpec) -> bool {
    vm.spec.name == spec.name && vm.spec.id != spec.id
}

/// `Ok(false)`: it is so already.
fn apply(
    next: &mut Ledger,
    from: NodeId,
    change: &Change,
    stamp: Stamp,
    is_good: &impl Fn(NodeId) -> bool,
) -> Result<bool, String> {
    match change {
        Change::DisableVm(vm) => {
            let Some(entry) = next.vms.get(vm) else { return Ok(false) };
            // The entry is what remembers that its owner may run it.
            if !is_good(entry.owner) {
                return Err(alloc::format!(
                    "{} may run on {}, which is not a good node now; try again when it is, or when the VM has moved",
                    entry.spec.name,
                    next.name(entry.owner)
                ));
            }
            Ok(next.vms.remove(vm).is_some())
        }
        Change::EnableVm(spec) => {
            let name = next.name(from);
            if let Some(other) = next.vms.values().find(|vm| is_namesake(vm, spec)) {
                return Err(alloc::format!(
                    "another VM is called {}: UUID {}; rename one of them",
                    spec.name,
                    other.spec.id
                ));
            }
            if let Some(known) = next.vms.get_mut(&spec.id) {
                let same = known.spec == **spec;
                if !same && known.owner == from {
                    known.spec = (**spec).clone();
                    return Ok(true);
                }
                let owner = known.owner;
                return if same && owner == from {
                    Ok(false)
                } else {
                    Err(alloc::format!(
                        "{} is under HA already, on {}; ask there",
                        spec.name,
                        next.name(owner)
                    ))
                };
            }
            if !is_good(from) {
                return Err(alloc::format!(
                    "{name} is not a good node now (see `steadfast status`); try again when it is a Member"
                ));
            }
            next.vms.insert(spec.id.clone(), VmEntry::new((**spec).clone(), from, stamp));
            Ok(true)
        }
        _ => Err("not known to this version".into()),
    }
}

#[cfg(test)]
#[path = "tests/enrolment.rs"]
mod tests;
