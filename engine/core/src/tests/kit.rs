//! What every test of the core builds on: nodes n1..nN with standard timing, a disk in memory, and builders of records.

use crate::action::Action;
use crate::config::{Builtin, Config, Timing};
use crate::feature_level::FeatureLevel;
use crate::heartbeat::{Cycle, Heartbeat, Progress};
use crate::ids::{Ballot, BootId, Digest, Identity, Incarnation, NodeId, Stamp, VmId};
use crate::ledger::{Eviction, EvictionReason, Ledger, Standing, VmEntry, VmSpec};
use crate::message::{Beat, Body, Echo};
use crate::outbox::Outbox;
use crate::page::{Page, Pages};
use crate::time::{Instant, Millis};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;
use steadfast_sdk::wire::{
    NodeFacts, NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict,
    RankedNode, RankedVm, Score, VmFacts,
};

/// L + S of standard timing.
pub(crate) const SPAN: Millis = Millis(10_000);

pub(crate) fn id(node: u32) -> NodeId {
    NodeId(node)
}

pub(crate) fn at(ms: u64) -> Instant {
    Instant(ms)
}

/// The boot under which node `node` runs, unless a test says otherwise.
pub(crate) fn boot(node: u32) -> BootId {
    BootId(u128::from(node) * 1_000)
}

pub(crate) fn who(node: u32) -> Identity {
    Identity { node: id(node), boot: boot(node), incarnation: Incarnation(1) }
}

pub(crate) fn ballot(term: u64, node: u32) -> Ballot {
    Ballot { term, node }
}

pub(crate) fn stamp(term: u64, node: u32, version: u64) -> Stamp {
    Stamp { ballot: ballot(term, node), version }
}

pub(crate) fn genesis(nodes: u32) -> Ledger {
    let names: BTreeMap<NodeId, String> = (1..=nodes).map(|n| (id(n), format!("n{n}"))).collect();
    Ledger::genesis("test", &names)
}

/// A genesis that can be told from any other by its cluster name.
pub(crate) fn labelled(label: &str) -> Ledger {
    Ledger { cluster: label.into(), ..genesis(3) }
}

pub(crate) fn config(me: u32) -> Config {
    config_of(me, 3)
}

pub(crate) fn config_of(me: u32, nodes: u32) -> Config {
    Config {
        me: who(me),
        timing: Timing::standard(Millis(1_000)),
        genesis: genesis(nodes),
        fence_agents: BTreeSet::new(),
        verification: false,
        never_paused: true,
        inherited: None,
        name: format!("n{me}"),
        level: FeatureLevel::NEWEST,
        limits: crate::config::Limits::default(),
        builtin: Builtin { node_priority, placement },
    }
}

/// The lowest id leads.
pub(crate) fn node_priority(question: &NodePriorityQuestion) -> NodePriorityVerdict {
    let value = 1_000 - i64::from(question.node.id);
    NodePriorityVerdict { score: Score { value, terms: Vec::new() } }
}

/// Every node, in the order of the question.
pub(crate) fn placement(question: &PlacementQuestion) -> PlacementVerdict {
    let node = |facts: &NodeFacts| RankedNode { node: facts.id, score: Score::default() };
    let nodes: Vec<RankedNode> = question.nodes.iter().map(node).collect();
    let rank = |vm: &VmFacts| RankedVm { vm: vm.id.clone(), nodes: nodes.clone() };
    PlacementVerdict { vms: question.vms.iter().map(rank).collect() }
}

pub(crate) fn outbox(me: u32, now: u64) -> Outbox {
    Outbox::new(who(me), at(now))
}

/// Messages sent so far; takes them all.
pub(crate) fn sent(out: &mut Outbox) -> Vec<Body> {
    let actions = core::mem::take(&mut out.actions);
    let body = |action| match action {
        Action::Send(message) => Some(message.body),
        _ => None,
    };
    actions.into_iter().filter_map(body).collect()
}

pub(crate) fn page(node: u32, sequence: u64) -> Page {
    Page {
        level: FeatureLevel::NEWEST,
        writer: who(node),
        sequence,
        promised: Ballot::default(),
        accepted: Stamp::default(),
        slot: 1,
        digest: Digest::default(),
        armed: false,
        span: Some(SPAN),
        arming: Stamp::default(),
        disarmed: None,
        idle: false,
        none_left: None,
        last_words: None,
        view_size: 3,
        verification: None,
    }
}

/// Slots of three nodes; those not named are empty.
pub(crate) fn pages(written: impl IntoIterator<Item = Page>) -> Pages {
    let mut pages = slots(3);
    for page in written {
        pages.insert(page.writer.node, Some(page));
    }
    pages
}

/// Empty slots of so many nodes.
pub(crate) fn slots(nodes: u32) -> Pages {
    (1..=nodes).map(|node| (id(node), None)).collect()
}

pub(crate) fn cycle(began: u64, ended: u64, pages: &Pages) -> Cycle {
    Cycle {
        start: Some(at(began.saturating_sub(1))),
        read_began: at(began),
        read_ended: at(ended),
        pages: pages.clone(),
    }
}

pub(crate) fn beat(number: u64) -> Beat {
    Beat {
        level: FeatureLevel::NEWEST,
        number,
        echoes: Vec::new(),
        term: 0,
        leading: false,
        known: Stamp::default(),
        storage_age: None,
        network_age: None,
        lease_left: None,
        armed: false,
        span: Some(SPAN),
        arming: Stamp::default(),
        disarmed: None,
        idle: false,
        none_left: None,
        verification: None,
        bounds: Vec::new(),
        guests: Vec::new(),
        facts: NodeFacts::default(),
        policy: Digest::default(),
        policies: <_>::default(),
        risk: None,
    }
}

/// A beat that echoes beat `heard` of `of`.
pub(crate) fn echoing(number: u64, of: Identity, heard: u64) -> Box<Beat> {
    let (boot, incarnation) = (of.boot, of.incarnation);
    let echo = Echo { node: of.node, boot, incarnation, beat: heard };
    Box::new(Beat { echoes: [echo].into(), ..beat(number) })
}

pub(crate) fn admit(ledger: &mut Ledger, node: u32, since: Stamp) {
    let standing = Standing::Admitted { boot: boot(node), since };
    ledger.nodes.get_mut(&id(node)).unwrap().standing = standing;
}

pub(crate) fn eviction(node: u32, since: Stamp) -> Eviction {
    Eviction {
        boot: boot(node),
        since,
        reason: EvictionReason::FullFailure,
        span: Some(SPAN),
        fence_orders: 0,
        proof: None,
    }
}

pub(crate) fn evict(ledger: &mut Ledger, node: u32, since: Stamp) {
    set_eviction(ledger, node, eviction(node, since));
}

pub(crate) fn set_eviction(ledger: &mut Ledger, node: u32, eviction: Eviction) {
    ledger.nodes.get_mut(&id(node)).unwrap().standing = Standing::Evicted(eviction);
}

/// Three nodes, all admitted by `1.1v1`.
pub(crate) fn all_admitted() -> Ledger {
    admitted(3)
}

/// So many nodes, all admitted by `1.1v1`.
pub(crate) fn admitted(nodes: u32) -> Ledger {
    let mut ledger = genesis(nodes);
    (1..=nodes).for_each(|node| admit(&mut ledger, node, stamp(1, 1, 1)));
    ledger
}

pub(crate) fn vm(name: &str) -> VmId {
    VmId(format!("uuid-of-{name}"))
}

pub(crate) fn spec(name: &str) -> VmSpec {
    VmSpec { memory_mib: 512, ..VmSpec::new(vm(name), name, Digest::of(name.as_bytes())) }
}

pub(crate) fn own_vm(ledger: &mut Ledger, name: &str, owner: u32, since: Stamp) {
    let entry = VmEntry { acknowledged: true, ..VmEntry::new(spec(name), id(owner), since) };
    ledger.vms.insert(vm(name), entry);
}

/// One cycle of `heartbeat` over `pages`: the incarnation's first read, then write and read. Own slot is kept.
pub(crate) fn show(heartbeat: &mut Heartbeat, pages: &mut Pages, began: u64, ended: u64) -> Cycle {
    show_as(heartbeat, page(1, 0), pages, began, ended)
}

/// The same, with `own` as n1's page.
pub(crate) fn show_as(
    heartbeat: &mut Heartbeat,
    own: Page,
    pages: &mut Pages,
    began: u64,
    ended: u64,
) -> Cycle {
    let beat = Millis(500);
    let mut out = outbox(1, began);
    out.now = at(began);
    if heartbeat.is_idle() {
        heartbeat.write_page(own, beat, &mut out);
        let Some(Action::WritePage { id: write, page }) = out.actions.pop() else {
            panic!("no page is written");
        };
        pages.insert(id(1), Some(*page));
        heartbeat.on_write_ended(write, Ok(()), beat, &mut out);
    } else {
        heartbeat.next = at(began);
        heartbeat.on_time(&mut out);
    }
    let Some(Action::ReadPages { id: read, .. }) = out.actions.pop() else {
        panic!("nothing is read")
    };
    match heartbeat.on_pages_read(read, Ok(pages.clone()), beat, at(ended)) {
        Progress::PagesRead(cycle) => {
            heartbeat.finish(&cycle);
            cycle
        }
        other => panic!("the cycle did not finish: {other:?}"),
    }
}

/// Ids of n1..n3, as a heartbeat reads them.
pub(crate) fn nodes() -> BTreeSet<NodeId> {
    [id(1), id(2), id(3)].into()
}
