//! Operators' requests: asked on any node, decided by the leader (`wishes.rs`), true once committed.
//!
//! HA may be switched on without the owner hearing of it: the commit may land without the owner hearing of it: until the owner has said that it read it (`acknowledged`), its
//! silence, its "none left" and its expired lease prove nothing about this VM (see `recovery.rs`).

use crate::action::Action;
use crate::ids::{Identity, Stamp};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::message::{Body, Change, Reply, Request, STALE};
use crate::outbox::{Note, Outbox};
use crate::time::{Instant, Millis};
use crate::wishes::Desk;
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// A request is sent again until it is answered, and given up after this: its outcome is unknown then.
const GIVE_UP: Millis = Millis(12_000);
const SEND_AGAIN: Millis = Millis(1_500);
const UNKNOWN: &str =
    "the leader did not answer in time: the outcome is unknown; look at `steadfast vm list`";

impl Machine {
    /// Somebody on this node asks for a change.
    pub(crate) fn on_change_requested(&mut self, id: u64, change: Change) {
        match change.refused_at(self.register.ledger().level) {
            Some(why) => {
                let to = self.config.me;
                self.out.push(Action::Answer(Reply { to, id, result: Err(why) }));
            }
            None => self.enrolment.ask(id, change, self.out.now),
        }
    }
}

#[derive(Debug)]
struct Own {
    change: Change,
    asked: Instant,
    sent: Option<Instant>,
    /// It was sent more than once: an earlier one may have been granted, and its answer lost.
    again: bool,
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
        self.own.insert(id, Own { change, asked: now, sent: None, again: false });
    }

    /// Sends what is due; answers what took too long.
    pub fn on_time(&mut self, me: Identity, has_leader: bool, out: &mut Outbox) {
        let now = out.now;
        for (id, own) in &mut self.own {
            let due = own.sent.is_none_or(|at| now.since(at) >= SEND_AGAIN);
            if has_leader && due {
                own.again = own.sent.is_some();
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
                UNKNOWN
            } else {
                "there is no leader: is a majority of the nodes up? see `steadfast status`"
            };
            out.push(Action::Answer(Reply { to: me, id, result: Err(why.into()) }));
        }
    }

    /// The leader answered.
    pub fn on_reply(&mut self, reply: &Reply, out: &mut Outbox) {
        let Some(own) = self.own.remove(&reply.id) else { return };
        let mut reply = reply.clone();
        // Stale by what it did itself, perhaps.
        if own.again && reply.result.as_ref().is_err_and(|why| why == STALE) {
            reply.result = Err(UNKNOWN.into());
        }
        out.push(Action::Answer(reply));
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
        desk: &Desk<'_>,
        committed: Stamp,
        notes: &mut Vec<Note>,
        out: &mut Outbox,
    ) -> bool {
        let mut changed = false;
        for (from, request, received) in core::mem::take(&mut self.queue) {
            // Its sender was told "unknown" by now, and may have decided otherwise.
            if out.now.since(received) >= GIVE_UP {
                continue;
            }
            let (change, fresh) = match &request.change {
                // The leader's own changes of this commit count too.
                Change::AsOf { stamp, change } => {
                    (&**change, *stamp == committed && *next == *desk.facts.ledger)
                }
                change => (change, true),
            };
            let granted = match fresh {
                true => desk.apply(next, from.node, change, notes),
                false => Err(STALE.into()),
            };
            match granted {
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

#[cfg(test)]
#[path = "tests/enrolment.rs"]
mod tests;
