//! The leader's next ledger: proofs, evictions, admissions, places and requests, derived from facts at every step and committed
//! together. Nothing is queued that facts can tell again, so a new leader goes on where the old one was.

use crate::brake::Brake;
use crate::config::surely_dead;
use crate::decision::Kind;
use crate::eviction::Fencing;
use crate::ids::{BootId, NodeId, Stamp};
use crate::ledger::{Eviction, EvictionReason, Ledger, NodeEntry, Proof, Standing};
use crate::liveness::{Facts, Liveness, reason_words};
use crate::maintenance::is_spared;
use crate::membership;
use crate::outbox::{Note, Outbox};
use crate::time::Millis;
use alloc::{string::String, vec::Vec};

/// Sets the proofs that hold now. True if any does.
pub(crate) fn apply_proofs(next: &mut Ledger, fencing: &Fencing, facts: &Facts<'_>) -> bool {
    let mut changed = false;
    for (node, entry) in &mut next.nodes {
        let Standing::Evicted(eviction) = &mut entry.standing else { continue };
        if eviction.proof.is_some() {
            continue;
        }
        eviction.proof = fencing.proof(*node, eviction, facts);
        changed |= eviction.proof.is_some();
    }
    changed
}

/// Evicts who is due: failed nodes, unless too many fail at once, rebooted ones, and one that is drained to be removed.
pub(crate) fn apply_evictions(
    next: &mut Ledger,
    stamp: Stamp,
    liveness: &Liveness,
    brake: &mut Brake,
    facts: &Facts<'_>,
) -> bool {
    if !facts.beating_may_act() {
        return false;
    }
    let (rebooted, me) = (rebooted(facts), facts.config.me.node);
    let mut due: Vec<(NodeId, EvictionReason)> = liveness.due(facts);
    due.retain(|(node, _)| *node != me && !rebooted.contains(node));
    let braked = brake.holds(due.len(), facts);
    due.retain(|(node, _)| !braked || facts.may_fence(*node));
    let mut changed = false;
    for (node, reason) in due {
        let span = enforced_span(node, facts).filter(|_| !braked);
        changed |= evict(next, node, reason, stamp, span, facts);
    }
    let drained = membership::drained(facts).map(|node| (node, EvictionReason::Removed));
    let others = rebooted.into_iter().map(|node| (node, EvictionReason::Rebooted)).chain(drained);
    for (node, reason) in others {
        changed |= evict(next, node, reason, stamp, enforced_span(node, facts), facts);
    }
    changed
}

/// Its page, which is never read late, shows another boot than `boot`, and that no HA VM executes under it.
fn shows_other_boot(node: NodeId, boot: BootId, facts: &Facts<'_>) -> bool {
    let page = facts.heartbeat.seen(node).map(|seen| &seen.page);
    page.is_some_and(|page| page.boot() != boot && page.idle)
}

/// Admitted nodes whose page shows another boot than the admitted one.
fn rebooted(facts: &Facts<'_>) -> Vec<NodeId> {
    let other_boot = |node: &NodeId| {
        let shown = facts.heartbeat.seen(*node).map(|seen| seen.page.boot());
        facts.ledger.admission(*node).is_some_and(|(boot, _)| shown.is_some_and(|s| s != boot))
    };
    facts.ledger.nodes.keys().copied().filter(other_boot).collect()
}

fn evict(
    next: &mut Ledger,
    node: NodeId,
    reason: EvictionReason,
    stamp: Stamp,
    span: Option<Millis>,
    facts: &Facts<'_>,
) -> bool {
    let Some((boot, _)) = next.admission(node) else { return false };
    let fence = reason == EvictionReason::FullFailure && facts.may_fence(node);
    let eviction = Eviction {
        boot,
        since: stamp,
        reason,
        span,
        fence_orders: u32::from(fence),
        // A node that shows another boot has lost its VMs with the old kernel, and has proved that nobody has started
        // them again: proof 3 holds already.
        proof: shows_other_boot(node, boot, facts).then_some(Proof::BootChanged),
    };
    next.nodes.entry(node).and_modify(|entry| entry.standing = Standing::Evicted(eviction));
    true
}

/// The longest L + S that its page or beat showed, armed, under its admitted boot. The victim's own numbers count, not the
/// leader's: their configurations may differ.
fn enforced_span(node: NodeId, facts: &Facts<'_>) -> Option<Millis> {
    let (boot, _) = facts.ledger.admission(node)?;
    let page = facts.heartbeat.seen(node).map(|seen| &seen.page);
    let arming = facts.ledger.armed_since;
    let by_page = page.filter(|p| p.boot() == boot && p.armed && p.arming >= arming)?.span;
    // A beat that denies the rule overrules the page; silence on the network leaves the page's word.
    match facts.beats.heard(node).filter(|heard| heard.from.boot == boot) {
        None => by_page,
        Some(heard) if heard.beat.armed && heard.beat.arming >= arming => {
            by_page.zip(heard.beat.span).map(|(a, b)| a.max(b))
        }
        Some(_) => None,
    }
}

/// Fence orders are in the ledger before they are given.
pub(crate) fn record_fence_orders(next: &mut Ledger, fencing: &Fencing, facts: &Facts<'_>) -> bool {
    if !facts.beating_may_act() {
        return false;
    }
    let mut changed = false;
    for (node, entry) in &mut next.nodes {
        let Standing::Evicted(eviction) = &mut entry.standing else { continue };
        let open = eviction.proof.is_none() && facts.may_fence(*node);
        let wanted = open && fencing.wants_fence(*node, eviction, facts.config, facts.now);
        if wanted && fencing.needs_record(*node, eviction) {
            eviction.fence_orders += 1;
            changed = true;
        }
    }
    changed
}

/// Admits who is in order: in view, cycles complete, watchdog open, and proved to run nothing.
pub(crate) fn apply_admissions(
    next: &mut Ledger,
    stamp: Stamp,
    fencing: &Fencing,
    own: Option<BootId>,
    facts: &Facts<'_>,
) -> bool {
    let mut changed = false;
    for (node, entry) in &mut next.nodes {
        let may = match &entry.standing {
            Standing::Admitted { .. } => false,
            _ if entry.leaving => false,
            Standing::New => true,
            Standing::Evicted(eviction) => {
                (eviction.proof.is_some() || mutant!(AdmittedUnproved))
                    && fencing.may_admit(*node, eviction, facts.config, facts.now)
            }
        };
        if !may {
            continue;
        }
        let boot =
            if *node == facts.config.me.node { own } else { ready(*node, &entry.standing, facts) };
        if let Some(boot) = boot {
            entry.standing = Standing::Admitted { boot, since: stamp };
            changed = true;
        }
    }
    changed
}

/// The boot under which `node` is ready to be admitted. Its page must show it: pages are never read late.
fn ready(node: NodeId, standing: &Standing, facts: &Facts<'_>) -> Option<BootId> {
    let heard = facts.word_of(node)?;
    let page = &facts.heartbeat.seen(node)?.page;
    let beat = &heard.beat;
    let stored = facts.storage_age(node)? < facts.config.timing.lease;
    let same = page.writer == heard.from;
    let idle = beat.idle && page.idle || mutant!(AdmittedUnproved);
    let armed = beat.armed && page.armed;
    let said = match standing {
        // Under the evicted boot only its own word for this very eviction counts.
        Standing::Evicted(eviction) if eviction.boot == page.boot() => {
            page.none_left == Some(eviction.since) || mutant!(AdmittedUnproved)
        }
        _ => true,
    };
    (same && idle && armed && stored && said).then_some(page.boot())
}

/// An enrolment is acknowledged when its owner has read it, and counts that VM among those it answers for, and when every other
/// admitted node has read it too, and has stopped what it may have been running under that UUID. An owner that is evicted reads
/// it too late: what it or time has proved of it, or will by a word already said, is about other VMs.
pub(crate) fn acknowledge(next: &mut Ledger, facts: &Facts<'_>) -> bool {
    let mut changed = false;
    for entry in next.vms.values_mut().filter(|entry| !entry.acknowledged) {
        let mut admitted =
            facts.ledger.nodes.keys().filter(|n| facts.ledger.admission(**n).is_some());
        let read = |node: &NodeId| {
            facts.word_of(*node).is_some_and(|heard| {
                let silent = heard.report(&entry.spec.id).is_none();
                heard.beat.known >= entry.since && (silent || *node == entry.owner)
            })
        };
        let admission = facts.ledger.admission(entry.owner);
        let in_time = admission.is_some() || mutant!(EvictedAcknowledges);
        if in_time && read(&entry.owner) && admitted.all(read) {
            entry.acknowledged = true;
            changed = true;
        }
    }
    changed
}

/// Tells what a commit changed of nodes' standing.
pub(crate) fn tell(before: &Ledger, after: &Ledger, out: &mut Outbox) {
    for (node, entry) in &after.nodes {
        let old = before.nodes.get(node).map(|entry| &entry.standing);
        match (&entry.standing, old) {
            (new, Some(old)) if new == old => {}
            (Standing::Admitted { boot, .. }, _) => {
                let text = alloc::format!("{} is admitted under boot {boot}", entry.name);
                out.record(Note::new(Kind::Admitted, "PROTOCOL 4", text).node(*node));
            }
            (Standing::Evicted(eviction), old) => {
                let before = match old {
                    Some(Standing::Evicted(old)) if old.since == eviction.since => Some(old),
                    _ => None,
                };
                let spared = is_spared(after, *node).then(|| words_for_spared(entry));
                let freezes = after.is_freezing(*node);
                tell_eviction(*node, &entry.name, eviction, (before, spared, freezes), out);
            }
            (Standing::New, _) => {}
        }
    }
}

fn tell_eviction(
    node: NodeId,
    name: &str,
    eviction: &Eviction,
    (before, spared, freezes): (Option<&Eviction>, Option<&str>, bool),
    out: &mut Outbox,
) {
    if before.is_none() {
        let next = what_next(eviction, spared, freezes);
        let why = reason_words(eviction.reason);
        let text = alloc::format!("{name} is evicted: {why}; {next}");
        let note = Note::new(Kind::Evicted, "PROTOCOL 5", text).node(node);
        out.record(
            note.fact("eviction", eviction.since).fact("time rule", eviction.span.is_some()),
        );
    }
    if let (Some(proof), None) = (eviction.proof, before.and_then(|old| old.proof)) {
        let text = alloc::format!("{name} runs nothing: {}", proof_words(proof));
        out.record(Note::new(Kind::Proved, rule(proof), text).node(node));
    }
}

/// Why no fence agent is used on it.
fn words_for_spared(entry: &NodeEntry) -> &'static str {
    match &entry.stopping {
        Some(_) => "its host went down on purpose, so it is not fenced",
        None => "it is in maintenance and no VM is its own, so it is not fenced",
    }
}

fn what_next(eviction: &Eviction, spared: Option<&str>, freezes: bool) -> String {
    if freezes {
        return "its host went down on purpose, and its VMs wait for it".into();
    }
    if eviction.proof.is_some() {
        return "its VMs are relocated now".into();
    }
    if let Some(why) = spared {
        return why.into();
    }
    if eviction.fence_orders > 0 {
        return "its fence agent is next".into();
    }
    if let Some(span) = eviction.span {
        let wait = surely_dead(span);
        return alloc::format!(
            "its VMs are relocated on its own word, or {wait} after its last sign"
        );
    }
    "its VMs wait for its own word, a reboot or a fence agent".into()
}

/// The proof as people read it.
pub(crate) fn proof_words(proof: Proof) -> &'static str {
    match proof {
        Proof::NoneLeft => "it says so itself (none left)",
        Proof::Fenced => "its fence agent succeeded",
        Proof::BootChanged => "it came back under another boot",
        Proof::TimeExpired => "its lease and its watchdog have run out",
    }
}

fn rule(proof: Proof) -> &'static str {
    match proof {
        Proof::NoneLeft => "PROTOCOL 5.1",
        Proof::Fenced => "PROTOCOL 5.2",
        Proof::BootChanged => "PROTOCOL 5.3",
        Proof::TimeExpired => "PROTOCOL 5.4",
    }
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
