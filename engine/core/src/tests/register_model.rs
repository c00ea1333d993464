//! Three registers over one disk under random schedules: slots are read one by one, writes land at any moment, bodies tear,
//! nodes crash and come back, ballots rise in mid-commit. Whatever anybody calls committed is one chain.

use super::*;
use crate::feature_level::FeatureLevel;
use crate::ids::Digest;
use crate::kit::{genesis, id, page, pages};
use proptest::prelude::*;
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

const NODES: u32 = 3;

/// What a node does with the disk.
enum Work {
    Down,
    Unread,
    Idle,
    WritingBody { slot: u8, bytes: Arc<[u8]>, landed: u8 },
    WritingPage { page: Box<Page>, start: Instant, landed: bool },
    Reading { start: Option<Instant>, began: Instant, got: Pages },
    ReadingBody { wanted: Wanted, cycle: Cycle },
}

struct Node {
    register: Register,
    sequence: u64,
    work: Work,
}

/// The disk, and everything ever claimed of the ledger.
struct World {
    nodes: BTreeMap<NodeId, Node>,
    pages: Pages,
    bodies: BTreeMap<(NodeId, u8), Arc<[u8]>>,
    now: Instant,
    changes: u32,
    announced: Vec<Stamp>,
    committed: BTreeMap<u64, String>,
    named: BTreeMap<Stamp, Digest>,
    terms: BTreeMap<u64, BTreeSet<NodeId>>,
}

fn fresh(node: NodeId) -> Node {
    let genesis = crate::ledger::Ledger { cluster: String::new(), ..genesis(NODES) };
    Node {
        register: Register::new(node, FeatureLevel::NEWEST, genesis),
        sequence: 0,
        work: Work::Unread,
    }
}

impl World {
    fn new() -> Self {
        Self {
            nodes: (1..=NODES).map(|node| (id(node), fresh(id(node)))).collect(),
            pages: pages([]),
            bodies: BTreeMap::new(),
            now: Instant(1),
            changes: 0,
            announced: Vec::new(),
            committed: BTreeMap::new(),
            named: BTreeMap::new(),
            terms: BTreeMap::new(),
        }
    }

    /// One step: node, what it does, and chance.
    fn step(&mut self, node: u32, what: u8, chance: u8) {
        let node = id(node);
        self.now = self.now + crate::time::Millis(u64::from(chance % 3 / 2));
        match what {
            0..=1 => self.crash(node, chance),
            2..=11 => self.decide(node, chance),
            12..=13 => self.hear(node, chance),
            _ => self.advance(node, chance),
        }
        self.claim(node);
    }

    /// A crash: the write in flight has landed, or not, or in part.
    fn crash(&mut self, node: NodeId, chance: u8) {
        if chance.is_multiple_of(2) {
            self.land(node);
        }
        let there = self.nodes.get_mut(&node).unwrap();
        *there = Node { work: Work::Down, ..fresh(node) };
    }

    fn decide(&mut self, node: NodeId, chance: u8) {
        let there = self.nodes.get_mut(&node).unwrap();
        let register = &mut there.register;
        if register.known().is_none() {
            return;
        }
        let (leads, busy) = (register.leading().is_some(), register.is_busy());
        match chance % 16 {
            0 => register.resign(),
            1 => drop(register.begin(0)),
            _ if leads && !busy => {
                self.changes += 1;
                let mut next = (*register.ledger()).clone();
                next.cluster.push_str(&format!("/{}", self.changes));
                assert!(register.commit(next));
            }
            2..=7 if !busy => drop(register.begin(0)),
            _ => {}
        }
    }

    fn hear(&mut self, node: NodeId, chance: u8) {
        let there = self.nodes.get_mut(&node).unwrap();
        if !self.announced.is_empty() && !matches!(there.work, Work::Down) {
            let stamp = self.announced[usize::from(chance) % self.announced.len()];
            there.register.on_committed_heard(stamp);
        }
    }

    /// The write in flight becomes visible, a body first torn, then whole.
    fn land(&mut self, node: NodeId) {
        match &mut self.nodes.get_mut(&node).unwrap().work {
            Work::WritingBody { slot, bytes, landed } => {
                let torn: Arc<[u8]> = bytes[..bytes.len() / 2].into();
                let visible = if *landed == 0 { torn } else { bytes.clone() };
                *landed += 1;
                self.bodies.insert((node, *slot), visible);
            }
            Work::WritingPage { page, landed, .. } => {
                *landed = true;
                if page.accepted != Stamp::default() {
                    let digest = self.named.entry(page.accepted).or_insert(page.digest);
                    assert_eq!(*digest, page.digest, "one (ballot, version) has two bodies");
                }
                self.pages.insert(node, Some((**page).clone()));
            }
            _ => {}
        }
    }

    /// The node goes on with what it is doing.
    fn advance(&mut self, node: NodeId, chance: u8) {
        let now = self.now;
        let there = self.nodes.get_mut(&node).unwrap();
        match core::mem::replace(&mut there.work, Work::Idle) {
            Work::Down => there.work = Work::Unread,
            Work::Unread => {
                there.work = Work::Reading { start: None, began: now, got: Pages::new() };
            }
            Work::Idle => self.begin_cycle(node),
            Work::WritingBody { landed: 2, .. } => {
                there.register.on_body_written();
                self.write_page(node);
            }
            Work::WritingPage { start, landed: true, .. } => {
                let start = Some(start);
                there.work = Work::Reading { start, began: now, got: Pages::new() };
            }
            Work::Reading { start, began, mut got } => {
                let left: Vec<NodeId> =
                    self.pages.keys().filter(|n| !got.contains_key(n)).copied().collect();
                let slot = left[usize::from(chance) % left.len()];
                got.insert(slot, self.pages[&slot].clone());
                if left.len() > 1 {
                    there.work = Work::Reading { start, began, got };
                } else {
                    let cycle = Cycle { start, read_began: began, read_ended: now, pages: got };
                    self.on_pages(node, cycle);
                }
            }
            Work::ReadingBody { wanted, cycle } => self.on_body(node, wanted, &cycle),
            writing => {
                there.work = writing;
                self.land(node);
            }
        }
    }

    fn begin_cycle(&mut self, node: NodeId) {
        let there = self.nodes.get_mut(&node).unwrap();
        match there.register.take_body() {
            Some((slot, bytes)) => {
                let named = self.pages[&node].as_ref().filter(|p| p.accepted != Stamp::default());
                let free = named.is_none_or(|page| page.slot != slot);
                assert!(free, "a body goes into the slot that the page on disk names");
                there.work = Work::WritingBody { slot, bytes, landed: 0 };
            }
            None => self.write_page(node),
        }
    }

    fn write_page(&mut self, node: NodeId) {
        let start = self.now;
        let there = self.nodes.get_mut(&node).unwrap();
        there.sequence += 1;
        let mut page = Box::new(page(node.0, there.sequence));
        there.register.fill(&mut page);
        there.work = Work::WritingPage { page, start, landed: false };
    }

    fn on_pages(&mut self, node: NodeId, cycle: Cycle) {
        let there = self.nodes.get_mut(&node).unwrap();
        if let (None, Some(page)) = (cycle.start, &cycle.pages[&node]) {
            there.sequence = page.sequence;
            there.register.adopt_page(page);
        }
        match there.register.wanted(&cycle.pages) {
            Some(wanted) => there.work = Work::ReadingBody { wanted, cycle },
            None => self.on_cycle(node, &cycle),
        }
    }

    fn on_body(&mut self, node: NodeId, wanted: Wanted, cycle: &Cycle) {
        let there = self.nodes.get_mut(&node).unwrap();
        let bytes = &self.bodies[&(wanted.node, wanted.slot)];
        match there.register.on_body(wanted, bytes, cycle.read_ended) {
            Ok(()) => self.on_cycle(node, cycle),
            Err(_) if cycle.start.is_none() => there.work = Work::Unread,
            Err(_) => there.work = Work::Idle,
        }
    }

    fn on_cycle(&mut self, node: NodeId, cycle: &Cycle) {
        let there = self.nodes.get_mut(&node).unwrap();
        let before = there.register.leading();
        match there.register.on_cycle(cycle) {
            Outcome::None => assert_eq!(there.register.leading(), before),
            Outcome::Barred => unreachable!("all of them are configured"),
            Outcome::Beaten { by, .. } => {
                assert!(by.node != node.0 && there.register.leading().is_none());
            }
            Outcome::TermStands => {
                let leaders = self.terms.entry(there.register.leading().unwrap().term).or_default();
                leaders.insert(node);
                assert_eq!(leaders.len(), 1, "two leaders of one term");
                self.announced.push(there.register.known().unwrap().stamp);
            }
            Outcome::Committed { .. } => {
                self.announced.push(there.register.known().unwrap().stamp);
            }
        }
    }

    /// What a node calls committed is on the one chain, for ever.
    fn claim(&mut self, node: NodeId) {
        let register = &self.nodes[&node].register;
        let Some(known) = register.proved() else { return };
        let (version, body) = (known.stamp.version, known.ledger.cluster.clone());
        let there = self.committed.entry(version).or_insert_with(|| body.clone());
        assert_eq!(*there, body, "two bodies of version {version} are called committed");
        for (older, body) in self.committed.range(..version) {
            assert!(there_is_prefix(body, &self.committed[&version]), "version {older} is lost");
        }
        for (later, body) in self.committed.range(version + 1..) {
            assert!(
                there_is_prefix(&self.committed[&version], body),
                "{version} is not in {later}"
            );
        }
    }
}

fn there_is_prefix(older: &str, newer: &str) -> bool {
    newer.strip_prefix(older).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn schedule() -> impl Strategy<Value = Vec<(u32, u8, u8)>> {
    // Long runs of one node's steps let terms stand; short ones set them against each other.
    let burst = (1..=NODES, 1usize..60, prop::collection::vec((0u8..160, any::<u8>()), 60));
    let bursts = prop::collection::vec(burst, 1..50);
    bursts.prop_map(|bursts| {
        let steps = bursts.into_iter().flat_map(|(node, length, steps)| {
            steps.into_iter().take(length).map(move |(what, chance)| (node, what, chance))
        });
        steps.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, max_shrink_iters: 20_000, ..Default::default() })]

    #[test]
    fn under_any_schedule_what_is_called_committed_is_one_chain(steps in schedule()) {
        let mut world = World::new();
        for (node, what, chance) in steps {
            world.step(node, what, chance);
        }
    }
}

/// The model is worth nothing if its schedules commit nothing.
#[test]
fn random_schedules_commit_depose_and_adopt() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut versions, mut terms) = (0, 0);
    for _ in 0..200 {
        let steps = schedule().new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        steps.iter().for_each(|(node, what, chance)| world.step(*node, *what, *chance));
        versions += world.committed.len();
        terms += world.terms.len();
    }
    assert!(versions > 600 && terms > 400, "{versions} versions, {terms} terms in 200 runs");
}
