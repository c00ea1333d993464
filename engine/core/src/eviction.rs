//! Evict, fence, prove: an evicted node's VMs are relocated as soon as one of five proofs holds (PROTOCOL section 5).
//! Nothing else ever proves a node dead. This file collects the evidence; `plan.rs` commits it.

use crate::action::Action;
use crate::beats::Beats;
use crate::config::{Config, surely_dead};
use crate::heartbeat::{Cycle, Heartbeat, Seen};
use crate::ids::{Ballot, NodeId, Stamp};
use crate::ledger::{Eviction, EvictionReason, Ledger, Proof};
use crate::liveness::{Facts, MISSED_BEATS};
use crate::message::Bound;
use crate::outbox::Outbox;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String};

/// A failed fence agent is ordered again after this.
const FENCE_AGAIN: Millis = Millis(5_000);

/// A fence agent is ordered only on a confirmation of the term younger than this many beats.
const FRESH_BEATS: u64 = 3;

/// One fence agent's run.
#[derive(Debug)]
enum Attempt {
    /// Ordered; it ends by itself or at its time-out.
    Running,
    /// It failed: again from `again` on.
    Failed { again: Instant },
    /// It succeeded.
    Succeeded,
    /// The page moved after the eviction was committed: the node lives and reads its eviction. No fence agent.
    Withheld,
}

/// What is known of one eviction.
#[derive(Debug, Default)]
struct Case {
    /// When this leader took it as committed.
    committed: Instant,
    /// The victim's page sequence then.
    sequence: u64,
    /// Rule 4's network bounds, by answering node.
    bounds: BTreeMap<NodeId, Instant>,
    /// Rule 4's storage bound.
    storage_bound: Option<Instant>,
    fence: Option<Attempt>,
    last_order: Option<Instant>,
    /// When an agent ended last, well or not.
    fence_ended: Option<Instant>,
    /// Orders that this leader gave.
    orders: u32,
    /// An earlier reign had recorded orders: its agent may be running still.
    earlier_orders: bool,
    failures: u32,
    /// The last failure, for people.
    trouble: Option<String>,
}

/// The leader's evidence on open evictions. Not carried over: a new leader collects its own.
#[derive(Debug, Default)]
pub(crate) struct Fencing {
    /// The reign that collects.
    ballot: Ballot,
    cases: BTreeMap<(NodeId, Stamp), Case>,
}

impl Fencing {
    /// This node leads no more.
    pub fn clear(&mut self) {
        self.cases.clear();
    }

    /// A reign begins, with no evidence.
    pub fn begin(&mut self, ballot: Ballot) {
        self.ballot = ballot;
        self.cases.clear();
    }

    /// A ledger is committed: opens a case for each eviction, closes those that are over.
    pub fn on_committed(
        &mut self,
        ledger: &Ledger,
        beats: &Beats,
        heartbeat: &Heartbeat,
        config: &Config,
        now: Instant,
    ) {
        self.cases.retain(|(node, stamp), _| {
            ledger.eviction(*node).is_some_and(|eviction| eviction.since == *stamp)
        });
        for (node, eviction) in ledger.evictions() {
            self.cases.entry((node, eviction.since)).or_insert_with(|| {
                let sequence = heartbeat.seen(node).map_or(0, |seen| seen.page.sequence);
                // The leader stops its own echoes and fixes its own instant as it takes the eviction as committed.
                let own = (config.me.node, beats.newest_echoed(node));
                let earlier = eviction.since.ballot != self.ballot && eviction.fence_orders > 0;
                let bounds = [own].into();
                Case {
                    committed: now,
                    sequence,
                    bounds,
                    earlier_orders: earlier,
                    storage_bound: unread(heartbeat),
                    ..Case::default()
                }
            });
        }
    }

    /// A node's promise never to echo that admission again.
    pub fn on_bound(&mut self, by: NodeId, bound: &Bound, received: Instant) {
        if by == bound.victim {
            return;
        }
        let mut cases = self.cases.iter_mut();
        let is_it = |of: Stamp| of == bound.eviction || mutant!(BoundOfOtherEviction);
        let case = cases.find(|((victim, of), _)| *victim == bound.victim && is_it(*of));
        if let Some((_, case)) = case {
            // Its clock may run 1 % fast: what it calls `age` may be shorter in our time.
            let age = Millis(bound.age.0 / 101 * 100);
            case.bounds.entry(by).or_insert(received - age);
        }
    }

    /// A complete cycle: fixes storage bounds, and finds out whether victims still write.
    pub fn on_cycle(&mut self, cycle: &Cycle, heartbeat: &Heartbeat, config: &Config) {
        for ((node, _), case) in &mut self.cases {
            let Some(seen) = heartbeat.seen(*node) else { continue };
            if cycle.read_began >= case.committed {
                // The sequence that the page *still shows in a read begun after the eviction was committed*.
                // A page that moves later belongs to a node that does not read its eviction: the bound moves with it.
                let shown = Some(seen.first_shown).filter(|_| !mutant!(PageNotReadAgain));
                case.storage_bound = case.storage_bound.max(shown);
                case.withhold_if_alive(seen, config, cycle.read_ended);
            }
        }
    }

    pub fn on_fence_ended(
        &mut self,
        victim: NodeId,
        eviction: Stamp,
        result: Result<(), String>,
        now: Instant,
    ) {
        let Some(case) = self.cases.get_mut(&(victim, eviction)) else { return };
        case.fence_ended = Some(now);
        case.fence = Some(match result {
            Err(_) if mutant!(FencedByFailure) => Attempt::Succeeded,
            Ok(()) => Attempt::Succeeded,
            Err(why) => {
                case.failures += 1;
                case.trouble = Some(why);
                Attempt::Failed { again: now + FENCE_AGAIN }
            }
        });
    }

    /// The eviction's fence agent may be ordered: never ordered, or failed long enough ago.
    pub fn wants_fence(
        &self,
        victim: NodeId,
        eviction: &Eviction,
        config: &Config,
        now: Instant,
    ) -> bool {
        let Some(case) = self.cases.get(&(victim, eviction.since)) else { return false };
        // A node that is isolated, or drained and in order, reads or hears of its eviction and stops by itself: it is given its own
        // time first. That its page did not move within the few milliseconds between the commit and the first look says nothing.
        let patience = match eviction.reason {
            EvictionReason::StorageIsolation
            | EvictionReason::NetworkIsolation
            | EvictionReason::Removed => config.timing.span(),
            EvictionReason::FullFailure | EvictionReason::Rebooted => Millis(0),
        };
        match case.fence {
            None => case.storage_bound.is_some() && now >= case.committed + patience,
            Some(Attempt::Failed { again }) => now >= again,
            Some(Attempt::Running | Attempt::Succeeded | Attempt::Withheld) => false,
        }
    }

    /// The next order is not yet recorded in the ledger.
    pub fn needs_record(&self, victim: NodeId, eviction: &Eviction) -> bool {
        let case = self.cases.get(&(victim, eviction.since));
        case.is_some_and(|case| eviction.fence_orders <= case.failures)
    }

    /// Orders the agents of evictions whose order is recorded in the committed ledger, once a cycle begun after the commit has
    /// confirmed the term and shown that the page did not move.
    pub fn order(
        &mut self,
        ledger: &Ledger,
        confirmed: Option<Instant>,
        beat: Millis,
        out: &mut Outbox,
    ) -> alloc::vec::Vec<NodeId> {
        // A leader that was paused since then may have been deposed, and the node admitted again.
        let fresh = |read: Instant| out.now.since(read) < beat * FRESH_BEATS;
        let confirmed = confirmed.filter(|read| fresh(*read));
        let mut ordered = alloc::vec::Vec::new();
        for (node, eviction) in ledger.evictions().filter(|(_, e)| e.proof.is_none()) {
            let Some(case) = self.cases.get_mut(&(node, eviction.since)) else { continue };
            let recorded = eviction.fence_orders > case.failures;
            let idle = matches!(case.fence, None | Some(Attempt::Failed { .. }));
            let reread = case.storage_bound.is_some()
                && confirmed.is_some_and(|read| read >= case.last_order.unwrap_or(case.committed));
            let checked = reread || mutant!(FencedUnread);
            if recorded && idle && checked && !out_of_turn(case, out.now) {
                case.fence = Some(Attempt::Running);
                case.last_order = Some(out.now);
                case.orders += 1;
                out.push(Action::Fence { victim: node, eviction: eviction.since });
                ordered.push(node);
            }
        }
        ordered
    }

    /// No re-admission while a fence agent may still act, nor on the word of a kernel that it has just ended: what beats some
    /// beats later beats after it. Else a node that is off is admitted, found dead, and fenced again as it boots.
    pub fn may_admit(
        &self,
        node: NodeId,
        eviction: &Eviction,
        config: &Config,
        now: Instant,
    ) -> bool {
        let Some(case) = self.cases.get(&(node, eviction.since)) else { return false };
        if eviction.fence_orders == 0 || mutant!(AdmittedDuringFence) {
            return true;
        }
        // Ordered by an earlier leader: its agent may be running until its time-out.
        let all_mine = !case.earlier_orders && eviction.fence_orders <= case.orders;
        let running = matches!(case.fence, Some(Attempt::Running));
        let others_end = (!all_mine).then_some(case.committed + config.timing.fence_timeout);
        let word = config.timing.beat * MISSED_BEATS;
        !running && case.fence_ended.max(others_end).is_none_or(|ended| now >= ended + word)
    }

    /// The first proof that holds, if any.
    pub fn proof(&self, node: NodeId, eviction: &Eviction, facts: &Facts<'_>) -> Option<Proof> {
        let case = self.cases.get(&(node, eviction.since))?;
        let page = facts.heartbeat.seen(node).map(|seen| &seen.page);
        let is_it = |stamp: Stamp| stamp == eviction.since || mutant!(NoneLeftOfOtherEviction);
        let says = |none_left: Option<Stamp>| none_left.is_some_and(is_it);
        let by_page = page.is_some_and(|page| says(page.none_left));
        let by_beat = facts.beats.heard(node).is_some_and(|heard| says(heard.beat.none_left));
        if by_page || by_beat {
            return Some(Proof::NoneLeft);
        }
        if matches!(case.fence, Some(Attempt::Succeeded)) {
            return Some(Proof::Fenced);
        }
        // Pages only: a beat can be read long after it was sent, a page read after the commit cannot.
        let reread = case.storage_bound.is_some();
        if reread && page.is_some_and(|page| page.boot() != eviction.boot && page.idle) {
            return Some(Proof::BootChanged);
        }
        let heard = facts.beats.heard(node).filter(|_| mutant!(BootChangedByBeat));
        if heard.is_some_and(|heard| heard.from.boot != eviction.boot) {
            return Some(Proof::BootChanged);
        }
        // A page that does not speak of the last arming enforces nothing that could be waited for.
        let arming = facts.ledger.armed_since;
        let shown = page.filter(|page| page.boot() == eviction.boot);
        let shown = shown.map(|page| page.span.filter(|_| page.arming >= arming));
        let end = case.time_bound(node, eviction, shown, facts.ledger)?;
        (facts.now >= end).then_some(Proof::TimeExpired)
    }

    /// What fencing waits for, for people.
    pub fn waits_for(&self, node: NodeId, eviction: &Eviction, nodes: usize) -> String {
        let Some(case) = self.cases.get(&(node, eviction.since)) else {
            return "waiting for a leader to collect proof".into();
        };
        let fence = match &case.fence {
            Some(Attempt::Running) => "fence agent running",
            Some(Attempt::Failed { .. }) => "fence agent failed, trying again",
            Some(Attempt::Withheld) => "its page moves: waiting for its own word",
            Some(Attempt::Succeeded) => "fenced",
            None => "no fence agent ordered",
        };
        let trouble = case.trouble.as_deref().map_or(String::new(), |t| alloc::format!(" ({t})"));
        let (have, need) = (case.bounds.len(), nodes.div_ceil(2));
        alloc::format!("{fence}{trouble}; time rule: {have} of {need} promises")
    }
}

/// As planted bugs, when the evicting page was begun: what landed between that and its own landing is passed over.
fn unread(heartbeat: &Heartbeat) -> Option<Instant> {
    let start = heartbeat.last_cycle.map(|(start, _)| start);
    match () {
        () if mutant!(PageNotReadAgain) => start,
        () if mutant!(ReadBegunBeforeCommit) => start,
        () => None,
    }
}

fn out_of_turn(case: &Case, now: Instant) -> bool {
    matches!(case.fence, Some(Attempt::Failed { again }) if now < again)
}

impl Case {
    /// A page that moved after the eviction belongs to a node that lives and reads it: no fence agent. One that fell silent
    /// again for longer than its lease and its watchdog is a candidate once more.
    fn withhold_if_alive(&mut self, seen: &Seen, config: &Config, now: Instant) {
        let patience = config.timing.lease + config.timing.stop;
        match self.fence {
            _ if mutant!(FencedThoughAlive) => {}
            None | Some(Attempt::Failed { .. }) if seen.page.sequence != self.sequence => {
                self.sequence = seen.page.sequence;
                self.fence = Some(Attempt::Withheld);
            }
            Some(Attempt::Withheld) if seen.page.sequence != self.sequence => {
                self.sequence = seen.page.sequence;
            }
            Some(Attempt::Withheld) if now.since(seen.first_shown) >= patience => self.fence = None,
            _ => {}
        }
    }

    /// Rule 4: `max(network bound, storage bound) + (L + S) * 1.01 + 250 ms`, by the victim's own L and S. Only promises of
    /// configured nodes count.
    /// `shown` is the span on its page under the evicted boot: a restarted agent may enforce a longer one, or none.
    fn time_bound(
        &self,
        victim: NodeId,
        eviction: &Eviction,
        shown: Option<Option<Millis>>,
        ledger: &Ledger,
    ) -> Option<Instant> {
        let span = match shown {
            Some(shown) => eviction.span.zip(shown).map(|(a, b)| a.max(b)),
            None => eviction.span,
        };
        let promise = |node: NodeId| self.bounds.get(&node).filter(|_| node != victim);
        // A victim that has not read of a change may still count by the nodes before it.
        if !ledger.is_half(|node| promise(node).is_some()) && !mutant!(BoundOfTooFew) {
            return None;
        }
        let network = *ledger.slots().filter_map(promise).max()?;
        let storage = self.storage_bound?;
        let bound = match () {
            () if mutant!(NoStorageBound) => network,
            () if mutant!(NoNetworkBound) => storage,
            () => network.max(storage),
        };
        Some(bound + surely_dead(span?))
    }
}

#[cfg(test)]
#[path = "tests/eviction.rs"]
mod tests;
