//! Admission control: a drain begins only if the others can take what is to move.

use super::{Level, important};
use crate::ids::NodeId;
use crate::liveness::Facts;
use crate::placement::admit;
use crate::question::question;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use steadfast_sdk::wire::{NodeFacts, PlacementVerdict};

/// What is lacking if the important VMs of `node` were to move now. The built-in policy says where; nobody is asked for a rehearsal.
pub(super) fn lack(
    node: NodeId,
    holds: &BTreeMap<NodeId, Level>,
    good: &[NodeFacts],
    facts: &Facts<'_>,
) -> Option<String> {
    let vms = important(node, facts);
    if vms.is_empty() {
        return None;
    }
    let takes = |facts_of: &&NodeFacts| {
        let other = NodeId(facts_of.id);
        other != node && !holds.contains_key(&other) && !facts.ledger.wants_empty(other)
    };
    let takers: Vec<NodeFacts> = good.iter().filter(takes).cloned().collect();
    if takers.is_empty() {
        return Some("no other node is good and not at risk itself".into());
    }
    let question = question(&vms, takers, facts);
    let verdict = (facts.config.builtin.placement)(&question);
    let admitted = admit(&question, &verdict, &PlacementVerdict::default(), &BTreeMap::new());
    let (vm, why) = admitted.waiting.into_iter().next()?;
    let name = facts.ledger.vms.get(&vm).map_or("?", |entry| entry.spec.name.as_str());
    Some(alloc::format!("the others cannot take {name}: {why}"))
}

/// Once the VMs of `node` have moved, the others could still lose any one of them, by memory: a record says so, or not.
pub(super) fn is_spare(
    node: NodeId,
    holds: &BTreeMap<NodeId, Level>,
    good: &[NodeFacts],
    facts: &Facts<'_>,
) -> bool {
    let memory = |of: NodeId| {
        let vms = facts.ledger.owned_by(of).filter(|(_, entry)| entry.may_run());
        vms.map(|(_, entry)| entry.spec.memory_mib).fold(0, u64::saturating_add)
    };
    let stays = |taker: &&NodeFacts| taker.id != node.0 && !holds.contains_key(&NodeId(taker.id));
    let free = |taker: &NodeFacts| taker.memory_free_mib;
    let all = good.iter().filter(stays).map(free).fold(0, u64::saturating_add);
    let moved = memory(node);
    good.iter().filter(stays).all(|lost| {
        let rest = all.saturating_sub(free(lost));
        rest >= moved.saturating_add(memory(NodeId(lost.id)))
    })
}
