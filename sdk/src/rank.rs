//! How a placement is made of scores: each VM in order takes its best node, and the next sees it there.
//!
//! Ten thousand VMs on 64 nodes are 640,000 scores, of which some 30,000 are ever read by anybody. So all are first computed without
//! their terms, and only those that a verdict explains once more with them.

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::kinds::{EXPLAIN_ALL, EXPLAINED, FEWEST_RANKED, Placement, RANKED_PAIRS};
use crate::score;
use crate::situation::Situation;
use crate::wire::{
    NodeFacts, PlacementQuestion, PlacementVerdict, RankedNode, RankedVm, Score, VmFacts,
};

pub(crate) fn placement<P: Placement + ?Sized>(
    policy: &P,
    question: &PlacementQuestion,
) -> PlacementVerdict {
    let mut situation = Situation::new(question);
    let mut ranking = Ranking::new(policy, &situation);
    let order = policy.order(question);
    let mut verdict = PlacementVerdict { vms: Vec::with_capacity(order.len()) };
    for vm in order {
        situation.focus(vm);
        let nodes = ranking.of(vm, &situation);
        if let Some(best) = nodes.first() {
            situation.place(vm, best.node);
            ranking.update(best.node, &situation);
        }
        verdict.vms.push(RankedVm { vm: vm.id.clone(), nodes });
    }
    verdict
}

/// Ranks the candidates of one VM after the other.
struct Ranking<'p, P: ?Sized> {
    policy: &'p P,
    /// Of so many candidates a VM has at most.
    most: usize,
    explain_all: bool,
    /// By place: [`Placement::node_score`], and which it is by id.
    nodes: Vec<(i64, u32)>,
    /// Places by id.
    by_id: Vec<u32>,
    best: Vec<u64>,
}

impl<'p, P: Placement + ?Sized> Ranking<'p, P> {
    fn new(policy: &'p P, now: &Situation<'_>) -> Self {
        let (vms, nodes) = (now.question().vms.len().max(1), now.nodes());
        let mut by_id: Vec<u32> = (0..u32::try_from(nodes.len()).unwrap_or(u32::MAX)).collect();
        by_id.sort_by_key(|place| nodes[*place as usize].id);
        let mut scored: Vec<(i64, u32)> =
            nodes.iter().map(|node| (node_value(policy, node), 0)).collect();
        (0..).zip(&by_id).for_each(|(rank, place)| scored[*place as usize].1 = rank);
        Self {
            policy,
            most: (RANKED_PAIRS / vms).max(FEWEST_RANKED),
            explain_all: vms.saturating_mul(nodes.len()) <= EXPLAIN_ALL,
            nodes: scored,
            by_id,
            best: Vec::new(),
        }
    }

    /// A VM was placed on the node.
    fn update(&mut self, node: u32, now: &Situation<'_>) {
        let Some(place) = now.place_of(node) else { return };
        self.nodes[place].0 = node_value(self.policy, &now.nodes()[place]);
    }

    /// The VM's candidates, best first, equals by id, no more than the verdict may rank.
    fn of(&mut self, vm: &VmFacts, now: &Situation<'_>) -> Vec<RankedNode> {
        if self.explain_all || !score::quietly(|| self.find_best(vm, now)) {
            return self.explained(vm, now);
        }
        let candidate = |(rank, key): (usize, &u64)| {
            let (value, place) = (key_value(*key), self.by_id[key_rank(*key)] as usize);
            let quick = Score { value, terms: Vec::new() };
            let full = if rank < EXPLAINED { self.full(vm, place, now) } else { None };
            RankedNode { node: now.nodes()[place].id, score: full.unwrap_or(quick) }
        };
        self.best.iter().enumerate().map(candidate).collect()
    }

    /// All candidates with their terms.
    fn explained(&self, vm: &VmFacts, now: &Situation<'_>) -> Vec<RankedNode> {
        let candidate = |(place, node): (usize, &NodeFacts)| {
            self.full(vm, place, now).map(|score| RankedNode { node: node.id, score })
        };
        let mut ranked: Vec<RankedNode> =
            now.nodes().iter().enumerate().filter_map(candidate).collect();
        ranked.sort_unstable_by_key(|ranked| (Reverse(ranked.score.value), ranked.node));
        ranked.truncate(self.most);
        ranked
    }

    fn full(&self, vm: &VmFacts, place: usize, now: &Situation<'_>) -> Option<Score> {
        let node = &now.nodes()[place];
        now.look_at(place);
        self.policy.pair_score(vm, node, now).map(|score| score.plus(self.policy.node_score(node)))
    }

    /// Fills `best` with the keys of the VM's best candidates, best first. `false`: a score is out of range, and the host shall
    /// see it.
    fn find_best(&mut self, vm: &VmFacts, now: &Situation<'_>) -> bool {
        let all = now.nodes().len() <= self.most;
        self.best.clear();
        self.best.reserve(now.nodes().len().min(self.most));
        for (place, node) in now.nodes().iter().enumerate() {
            now.look_at(place);
            let Some(score) = self.policy.pair_score(vm, node, now) else { continue };
            if !score::is_within(score.value, Score::MAX) {
                return false;
            }
            let (nodes, rank) = self.nodes[place];
            let sum = score.value.wrapping_add(nodes).clamp(Score::MIN, Score::MAX);
            let key = key(sum, rank);
            if all {
                self.best.push(key);
            } else {
                self.keep(key);
            }
        }
        if all {
            self.best.sort_unstable();
        }
        true
    }

    /// Puts the key where it belongs, unless there are enough better ones.
    #[inline]
    fn keep(&mut self, key: u64) {
        if self.best.len() == self.most {
            // Most candidates end here.
            if self.best.last().is_some_and(|last| *last < key) {
                return;
            }
            self.best.pop();
        }
        // Not `insert`: that is a call out of the module, for eight numbers.
        self.best.push(key);
        let mut at = self.best.len() - 1;
        while at > 0 && self.best[at - 1] > key {
            self.best[at] = self.best[at - 1];
            at -= 1;
        }
        self.best[at] = key;
    }
}

/// What of [`Placement::node_score`] is in range; what is not is refused when the verdict explains it.
fn node_value<P: Placement + ?Sized>(policy: &P, node: &NodeFacts) -> i64 {
    score::quietly(|| policy.node_score(node).value).clamp(Score::MIN, Score::MAX)
}

/// Sorts by value, the highest first, then by rank. The value must be in range.
#[inline]
fn key(value: i64, rank: u32) -> u64 {
    Score::MAX.wrapping_sub(value).cast_unsigned() << 32 | u64::from(rank)
}

fn key_value(key: u64) -> i64 {
    Score::MAX.wrapping_sub((key >> 32).cast_signed())
}

#[allow(clippy::cast_possible_truncation, reason = "only the lowest 32 bits are left")]
fn key_rank(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}
