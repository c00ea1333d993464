//! How a placement is made of scores: each VM in order takes its best node, and the next sees it there.
//!
//! Ten thousand VMs on 64 nodes are 640,000 scores, of which some 30,000 are ever read by anybody. So all are first computed without
//! their terms, and only those that a verdict explains once more with them.

use alloc::vec::Vec;

use crate::kinds::{
    EXPLAIN_ALL, EXPLAINED, EXPLAINED_OF_MANY, FEWEST_RANKED, MANY, Placement, RANKED_PAIRS,
};
use crate::score;
use crate::situation::Situation;
use crate::sizes::Sizes;
use crate::tally;
use crate::wire::{PlacementQuestion, PlacementVerdict, RankedNode, RankedVm, Score, VmFacts};

#[inline(never)]
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

/// So many keys are looked at together.
const FOUR: usize = 4;

/// Ranks the candidates of one VM after the other.
struct Ranking<'p, P: ?Sized> {
    policy: &'p P,
    explain_all: bool,
    /// So many best candidates otherwise.
    explained: usize,
    /// By place: the value of [`Placement::node_score`], and which it is by id.
    nodes: Vec<(i64, u32)>,
    /// By place: all of it.
    node_scores: Vec<Score>,
    sizes: Sizes,
    /// Of the VM on each node.
    values: Vec<i64>,
    /// Places by id.
    by_id: Vec<u32>,
    /// The same as keys, see [`key`].
    keys: Vec<u64>,
    best: Best,
}

impl<'p, P: Placement + ?Sized> Ranking<'p, P> {
    #[inline(never)]
    fn new(policy: &'p P, now: &Situation<'_>) -> Self {
        let (vms, nodes) = (now.question().vms.len().max(1), now.nodes());
        let by_id = tally::sorted_by_id(nodes.iter().map(|node| node.id));
        let by_id: Vec<u32> = by_id.into_iter().map(tally::place_in).collect();
        let node_scores: Vec<Score> = nodes.iter().map(|node| policy.node_score(node)).collect();
        let mut scored: Vec<(i64, u32)> =
            node_scores.iter().map(|score| (in_range(score), 0)).collect();
        (0..).zip(&by_id).for_each(|(rank, place)| scored[*place as usize].1 = rank);
        Self {
            policy,
            explained: if vms > MANY { EXPLAINED_OF_MANY } else { EXPLAINED },
            explain_all: vms.saturating_mul(nodes.len()) <= EXPLAIN_ALL,
            nodes: scored,
            node_scores,
            sizes: Sizes::default(),
            values: Vec::new(),
            by_id,
            keys: Vec::new(),
            best: Best { most: (RANKED_PAIRS / vms).max(FEWEST_RANKED), keys: Vec::new() },
        }
    }

    /// A VM was placed on the node.
    fn update(&mut self, node: u32, now: &Situation<'_>) {
        let Some(place) = now.place_of(node) else { return };
        let score = self.policy.node_score(&now.nodes()[place]);
        self.nodes[place].0 = in_range(&score);
        self.node_scores[place] = score;
        self.sizes.changed(place);
    }

    /// The VM's candidates, best first, equals by id, no more than the verdict may rank.
    #[inline(never)]
    fn of(&mut self, vm: &VmFacts, now: &Situation<'_>) -> Vec<RankedNode> {
        if self.explain_all || !score::quietly(|| self.find_best(vm, now)) {
            return self.explained(vm, now);
        }
        let candidate = |(rank, key): (usize, &u64)| {
            let (value, place) = (key_value(*key), self.by_id[key_rank(*key)] as usize);
            let quick = Score { value, terms: Vec::new() };
            let full = if rank < self.explained { self.full(vm, place, now) } else { None };
            RankedNode { node: now.nodes()[place].id, score: full.unwrap_or(quick) }
        };
        self.best.keys.iter().enumerate().map(candidate).collect()
    }

    /// All candidates with their terms.
    #[inline(never)]
    fn explained(&self, vm: &VmFacts, now: &Situation<'_>) -> Vec<RankedNode> {
        let mut scores: Vec<Option<Score>> =
            (0..now.nodes().len()).map(|place| self.full(vm, place, now)).collect();
        let ranked = scores.iter().zip(&self.nodes).filter_map(|(score, (_, rank))| {
            // A score out of range is sorted as if it were at its end.
            let value = score.as_ref()?.value.clamp(Score::MIN, Score::MAX);
            Some(key(value, *rank))
        });
        let mut keys: Vec<u64> = ranked.collect();
        keys.sort_unstable();
        keys.truncate(self.best.most);
        let candidate = |key: u64| {
            let place = self.by_id[key_rank(key)] as usize;
            let score = scores[place].take().unwrap_or_default();
            RankedNode { node: now.nodes()[place].id, score }
        };
        keys.into_iter().map(candidate).collect()
    }

    #[inline(never)]
    fn full(&self, vm: &VmFacts, place: usize, now: &Situation<'_>) -> Option<Score> {
        let node = &now.nodes()[place];
        now.look_at(place);
        let score = self.policy.pair_score(vm, node, now)?;
        // There are thousands of them, and the first touch of memory costs more than a copy.
        Some(score::packed(score.plus_all(&self.node_scores[place])))
    }

    /// Fills `best` with the keys of the VM's best candidates, best first. `false`: a score is out of range, and the host shall
    /// see it.
    fn find_best(&mut self, vm: &VmFacts, now: &Situation<'_>) -> bool {
        let all = now.nodes().len() <= self.best.most;
        let sound = if self.value_all(vm, now) {
            self.keep_values(all);
            true
        } else {
            self.best.keys.clear();
            self.keep_pairs(vm, now, all)
        };
        if all {
            self.best.keys.sort_unstable();
        }
        sound
    }

    /// Fills `values`, if the policy can tell them at once.
    #[inline(never)]
    fn value_all(&mut self, vm: &VmFacts, now: &Situation<'_>) -> bool {
        let (policy, size) = (self.policy, now.load_of(vm));
        let nodes = &self.nodes;
        let value = |place: usize| {
            policy.size_value(size, &now.nodes()[place]).saturating_add(nodes[place].0)
        };
        self.values.clear();
        self.values.extend_from_slice(self.sizes.values(size, nodes.len(), value));
        policy.add_pair_values(vm, now, &mut self.values)
    }

    #[inline(never)]
    fn keep_values(&mut self, all: bool) {
        let key = |value: i64, rank| key(value.clamp(Score::MIN, Score::MAX), rank);
        self.best.keys.clear();
        if all {
            let pairs = self.values.iter().zip(&self.nodes);
            self.best.keys.extend(pairs.map(|(value, (_, rank))| key(*value, *rank)));
            return;
        }
        self.keys.clear();
        let pairs = self.values.iter().zip(&self.nodes);
        self.keys.extend(pairs.map(|(value, (_, rank))| key(*value, *rank)));
        if self.best.most == FEWEST_RANKED {
            let lowest = self.lowest();
            self.best.keys.extend(lowest);
        } else {
            self.keys.iter().for_each(|key| self.best.keep(*key));
        }
    }

    /// The lowest of `keys`. All of them are in those fours whose lowest ones are the lowest of all fours.
    fn lowest(&mut self) -> [u64; FEWEST_RANKED] {
        self.keys.resize(self.keys.len().next_multiple_of(FOUR), u64::MAX);
        let (fours, _) = self.keys.as_chunks::<FOUR>();
        if fours.len() <= FEWEST_RANKED {
            return lowest(self.keys.iter().copied());
        }
        let first: [u64; FEWEST_RANKED] =
            lowest(fours.iter().map(|[a, b, c, d]| (*a.min(b)).min(*c.min(d))));
        lowest(first.into_iter().flat_map(|key| fours[self.by_id[key_rank(key)] as usize / FOUR]))
    }

    #[inline(never)]
    fn keep_pairs(&mut self, vm: &VmFacts, now: &Situation<'_>, all: bool) -> bool {
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
                self.best.keys.push(key);
            } else {
                self.best.keep(key);
            }
        }
        true
    }
}

/// Keys of a VM's best candidates, best first.
#[derive(Default)]
struct Best {
    /// So many are kept at most.
    most: usize,
    keys: Vec<u64>,
}

impl Best {
    /// Puts the key where it belongs, unless there are enough better ones.
    #[inline]
    fn keep(&mut self, key: u64) {
        if self.keys.len() == self.most {
            if self.keys.last().is_some_and(|last| *last < key) {
                return;
            }
            self.keys.pop();
        }
        // Not `insert`: that is a call out of the module, for eight numbers.
        self.keys.push(key);
        let mut at = self.keys.len() - 1;
        while at > 0 && self.keys[at - 1] > key {
            self.keys[at] = self.keys[at - 1];
            at -= 1;
        }
        self.keys[at] = key;
    }
}

/// The lowest keys, in order. No branch depends on a key: which are the lowest, no processor can guess.
fn lowest<const N: usize>(keys: impl Iterator<Item = u64>) -> [u64; N] {
    let mut lowest = [u64::MAX; N];
    for mut key in keys {
        for low in &mut lowest {
            (*low, key) = (key.min(*low), key.max(*low));
        }
    }
    lowest
}

/// What of a score is in range; what is not is refused when the verdict explains it.
fn in_range(score: &Score) -> i64 {
    score.value.clamp(Score::MIN, Score::MAX)
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
