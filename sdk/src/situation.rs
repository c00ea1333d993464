//! What a placement looks at: the question, and what this very verdict has already put where.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec,
    vec::Vec,
};
use core::cell::{Cell, RefCell};

use crate::wire::{Affinity, NodeFacts, PlacementQuestion, Resident, VmFacts};
use crate::words::Words;

/// The cluster as it will be once the VMs placed so far have started.
///
/// Indexed once, so that a look-up costs the same with ten VMs and with ten thousand. Only labels that
/// some VM of the question bears are indexed.
#[derive(Debug)]
pub struct Situation<'q> {
    question: &'q PlacementQuestion,
    nodes: Vec<NodeFacts>,
    places: Places,
    /// VMs with each label, with each word of `together` and of `apart` that some VM of the question bears.
    labels: Index<'q>,
    together: Index<'q>,
    apart: Index<'q>,
    /// VMs of the question, by number, that bear each word of `together`.
    sharing: Vec<Vec<u32>>,
    placed: BTreeSet<&'q str>,
    focus: Option<Focus<'q>>,
    domains: RefCell<Domains>,
}

impl<'q> Situation<'q> {
    /// The situation before anything is placed.
    #[must_use]
    pub fn new(question: &'q PlacementQuestion) -> Self {
        let places = Places::of(question);
        let (mut labels, mut together, mut apart) =
            [(); 3].map(|()| Index::new(places.ids.len())).into();
        let mut sharing: Vec<Vec<u32>> = Vec::new();
        for (number, vm) in (0..).zip(&question.vms) {
            vm.labels.iter().for_each(|(key, value)| labels.add((key, value)));
            vm.affinity.apart.iter().for_each(|word| apart.add((word, "")));
            for word in &vm.affinity.together {
                together.add((word, ""));
                sharing.resize(together.words.known().len(), Vec::new());
                let at = together.words.find((word, ""));
                at.into_iter().for_each(|at| sharing[at].push(number));
            }
        }
        let nodes = question.nodes.clone();
        let (placed, focus, domains) = (BTreeSet::new(), None, RefCell::default());
        let mut new = Self {
            question,
            nodes,
            places,
            labels,
            together,
            apart,
            sharing,
            placed,
            focus,
            domains,
        };
        for resident in &question.residents {
            new.count_residents(resident);
        }
        new
    }

    /// What the host asked.
    #[must_use]
    pub fn question(&self) -> &'q PlacementQuestion {
        self.question
    }

    /// The nodes of the question, in its order, with what was placed so far taken off their free
    /// memory and added to their used CPUs.
    #[must_use]
    pub fn nodes(&self) -> &[NodeFacts] {
        &self.nodes
    }

    /// The node with this id, if the question has it.
    #[must_use]
    pub fn node(&self, id: u32) -> Option<&NodeFacts> {
        self.nodes.get(self.places.of_id(id)?)
    }

    /// How many VMs with the label `key` = `value` stand on the node. Only labels that some VM of the
    /// question bears are counted.
    #[must_use]
    pub fn count(&self, key: &str, value: &str, node: u32) -> u32 {
        let label = self.labels.words.find((key, value));
        label.map_or(0, |label| self.on(&self.labels, label, node))
    }

    /// How many VMs that share the VM's own value of the label `key` stand on the node; 0 if it has no
    /// such label.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the ends of a literal are computed by the compiler")]
    pub fn peers(&self, vm: &VmFacts, key: &str, node: u32) -> u32 {
        let (head, tail) = ends(key);
        self.peers_by(vm, key, head, tail, node)
    }

    fn peers_by(&self, vm: &VmFacts, key: &str, head: u64, tail: u64, node: u32) -> u32 {
        let Some(focus) = self.focus_on(vm) else { return self.peers_of_any(vm, key, node) };
        let Some(label) = focus.label(key, head, tail) else { return 0 };
        let place = self.places.of_id(node);
        let count = place.and_then(|it| self.labels.counts.get(label.counts_from.wrapping_add(it)));
        count.copied().unwrap_or(0)
    }

    #[cold]
    fn peers_of_any(&self, vm: &VmFacts, key: &str, node: u32) -> u32 {
        vm.labels.get(key).map_or(0, |value| self.count(key, value, node))
    }

    /// How many VMs that share the VM's own value of the label `key` stand on nodes that share the
    /// node's value of the label `domain` (a rack, a room); 0 if either has no such label.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the ends of a literal are computed by the compiler")]
    pub fn peers_in_domain(&self, vm: &VmFacts, key: &str, node: &NodeFacts, domain: &str) -> u32 {
        let (head, tail) = ends(key);
        let Some(focus) = self.focus_on(vm) else {
            return self.count_in_domain(vm, key, node, domain);
        };
        match focus.label(key, head, tail) {
            Some(label) => self.domain_peers(label.counts_from, node.id, domain),
            None => 0,
        }
    }

    fn domain_peers(&self, from: usize, node: u32, domain: &str) -> u32 {
        let Some(place) = self.places.of_id(node) else { return 0 };
        let counts = &self.labels.counts[from..from + self.labels.width];
        self.domains.borrow_mut().peers(&self.nodes, (domain, place), (from, counts))
    }

    #[cold]
    fn count_in_domain(&self, vm: &VmFacts, key: &str, node: &NodeFacts, domain: &str) -> u32 {
        let (Some(value), Some(place)) = (vm.labels.get(key), node.labels.get(domain)) else {
            return 0;
        };
        let Some(label) = self.labels.words.find((key, value)) else { return 0 };
        let same = |other: &&NodeFacts| other.labels.get(domain) == Some(place);
        let peers = self.nodes.iter().filter(same);
        peers.fold(0, |sum, other| sum.saturating_add(self.on(&self.labels, label, other.id)))
    }

    /// How many VMs stand on the node that must not share one with this VM.
    #[must_use]
    #[inline]
    pub fn adversaries(&self, vm: &VmFacts, node: u32) -> u32 {
        if vm.affinity.apart.is_empty() {
            return 0;
        }
        let on = |word: &String| {
            let word = self.apart.words.find((word, ""));
            word.map_or(0, |word| self.on(&self.apart, word, node))
        };
        vm.affinity.apart.iter().fold(0, |sum, word| sum.saturating_add(on(word)))
    }

    /// The VM must share a node with others, and those that have one stand elsewhere.
    #[must_use]
    #[inline]
    pub fn is_away_from_its_own(&self, vm: &VmFacts, node: u32) -> bool {
        if vm.affinity.together.is_empty() {
            return false;
        }
        let away = |word: &String| {
            let word = self.together.words.find((word, ""));
            word.is_some_and(|word| {
                self.together.sums[word] > 0 && self.on(&self.together, word, node) == 0
            })
        };
        vm.affinity.together.iter().any(away)
    }

    /// Memory in MiB and virtual CPUs of the VM and of those of the question, not placed yet, that must share its node.
    #[must_use]
    #[inline]
    pub fn load_of(&self, vm: &VmFacts) -> (u64, u32) {
        if vm.affinity.together.is_empty() {
            return (vm.memory_mib, vm.vcpus);
        }
        self.focus_on(vm).map_or_else(|| self.load_together(vm), |focus| focus.load)
    }

    /// Takes the VM as placed on the node: its memory and CPUs are used, its labels counted.
    pub fn place(&mut self, vm: &'q VmFacts, node: u32) {
        let place = self.places.of_id(node);
        if let Some(node) = place.and_then(|place| self.nodes.get_mut(place)) {
            node.memory_free_mib = node.memory_free_mib.saturating_sub(vm.memory_mib);
            node.vcpus_used = node.vcpus_used.saturating_add(vm.vcpus);
            // What is 0 is not known, and stays so.
            if node.real_memory_free_mib > 0 {
                let left = node.real_memory_free_mib.saturating_sub(vm.memory_mib);
                node.real_memory_free_mib = left.max(1);
            }
        }
        self.count_in(&vm.labels, &vm.affinity, place);
        if !vm.affinity.together.is_empty() {
            self.placed.insert(&vm.id);
        }
        self.focus = None;
        self.domains.get_mut().forget();
    }

    /// The next questions are about this VM on all nodes: what of the answers does not depend on the node is looked up now.
    pub(crate) fn focus(&mut self, vm: &'q VmFacts) {
        self.domains.get_mut().forget();
        let mut labels = self.focus.take().map_or_else(Vec::new, |focus| focus.labels);
        labels.clear();
        labels.extend(vm.labels.iter().filter_map(|(key, value)| {
            let counts_from = self.labels.words.find((key, value))? * self.labels.width;
            let (head, tail) = ends(key);
            Some(Label { key, head, tail, counts_from })
        }));
        self.focus = Some(Focus { vm, labels, load: self.load_together(vm) });
    }

    /// The next question is likely to be about the node at this place.
    #[inline]
    pub(crate) fn look_at(&self, place: usize) {
        self.places.here.set(place);
    }

    /// Where the node of this id stands in [`Situation::nodes`].
    pub(crate) fn place_of(&self, id: u32) -> Option<usize> {
        self.places.of_id(id).filter(|place| *place < self.nodes.len())
    }

    #[inline]
    fn focus_on(&self, vm: &VmFacts) -> Option<&Focus<'q>> {
        self.focus.as_ref().filter(|focus| core::ptr::eq(focus.vm, vm))
    }

    fn load_together(&self, vm: &VmFacts) -> (u64, u32) {
        let words = vm.affinity.together.iter();
        let known = words.filter_map(|word| self.together.words.find((word, "")));
        let mut others: Vec<u32> = known.flat_map(|word| &self.sharing[word]).copied().collect();
        others.sort_unstable();
        others.dedup();
        let others = others.into_iter().map(|number| &self.question.vms[number as usize]);
        let waits =
            |other: &&VmFacts| other.id != vm.id && !self.placed.contains(other.id.as_str());
        others.filter(waits).fold((vm.memory_mib, vm.vcpus), |(memory, cpus), other| {
            (memory.saturating_add(other.memory_mib), cpus.saturating_add(other.vcpus))
        })
    }

    fn count_residents(&mut self, row: &Resident) {
        for (key, value) in &row.labels {
            self.labels.count_all((key, value), row, &self.places);
        }
        for word in &row.affinity.together {
            self.together.count_all((word, ""), row, &self.places);
        }
        for word in &row.affinity.apart {
            self.apart.count_all((word, ""), row, &self.places);
        }
    }

    fn count_in(
        &mut self,
        labels: &BTreeMap<String, String>,
        affinity: &Affinity,
        place: Option<usize>,
    ) {
        labels.iter().for_each(|(key, value)| self.labels.count((key, value), place));
        affinity.together.iter().for_each(|word| self.together.count((word, ""), place));
        affinity.apart.iter().for_each(|word| self.apart.count((word, ""), place));
    }

    #[inline]
    fn on(&self, index: &Index<'_>, word: usize, node: u32) -> u32 {
        self.places.of_id(node).map_or(0, |place| index.tally(word)[place])
    }
}

/// The VM that is being scored.
#[derive(Debug)]
struct Focus<'q> {
    vm: &'q VmFacts,
    labels: Vec<Label<'q>>,
    load: (u64, u32),
}

impl<'q> Focus<'q> {
    #[inline]
    fn label(&self, key: &str, head: u64, tail: u64) -> Option<&Label<'q>> {
        self.labels.iter().find(|label| {
            let alike = label.key.len() == key.len() && label.head == head && label.tail == tail;
            // Up to sixteen bytes there is nothing between the ends.
            alike && (key.len() <= 16 || label.key == key)
        })
    }
}

/// One of its labels.
#[derive(Debug)]
struct Label<'q> {
    key: &'q str,
    head: u64,
    tail: u64,
    /// Where its counts begin.
    counts_from: usize,
}

/// A key's first eight bytes and its last eight: all there is to most keys, compared in two instructions.
#[inline(always)]
#[allow(clippy::inline_always, reason = "those of a literal are computed by the compiler")]
fn ends(key: &str) -> (u64, u64) {
    let key = key.as_bytes();
    match (key.first_chunk(), key.last_chunk()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => (key.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0),
    }
}

/// Which nodes share a failure domain, and how many peers of the VM in focus stand in each: looked up once a VM, not once a node.
#[derive(Debug, Default)]
struct Domains {
    /// For each label of nodes that was asked for: the number of the domain at each place, from 1; 0 is none.
    known: Vec<(String, Vec<usize>)>,
    /// For each of those and each label of the VM in focus: VMs by the number of the domain.
    sums: Vec<(usize, usize, Vec<u32>)>,
    /// Sums that nobody needs any more, to be used again.
    spare: Vec<Vec<u32>>,
}

impl Domains {
    fn peers(
        &mut self,
        nodes: &[NodeFacts],
        (domain, place): (&str, usize),
        (label, tally): (usize, &[u32]),
    ) -> u32 {
        let known = self.known.iter().position(|(own, _)| own == domain);
        let known = known.unwrap_or_else(|| self.learn(nodes, domain));
        let numbers = &self.known[known].1;
        let Some(&number) = numbers.get(place).filter(|number| **number > 0) else { return 0 };
        let found = self.sums.iter().find(|(own, other, _)| (*own, *other) == (known, label));
        if let Some((_, _, sums)) = found {
            return sums[number];
        }
        let mut sums = self.spare.pop().unwrap_or_default();
        sums.clear();
        sums.resize(nodes.len() + 1, 0_u32);
        for (number, many) in numbers.iter().zip(tally) {
            sums[*number] = sums[*number].saturating_add(*many);
        }
        let peers = sums[number];
        self.sums.push((known, label, sums));
        peers
    }

    /// The next answers are about another VM, or another situation.
    fn forget(&mut self) {
        self.spare.extend(self.sums.drain(..).map(|(_, _, sums)| sums));
    }

    fn learn(&mut self, nodes: &[NodeFacts], domain: &str) -> usize {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(nodes.len());
        for node in nodes {
            let next = names.len() + 1;
            let name = node.labels.get(domain);
            numbers.push(name.map_or(0, |name| *names.entry(name).or_insert(next)));
        }
        self.known.push((domain.into(), numbers));
        self.known.len() - 1
    }
}

/// Where each node stands in tallies: first those of the question in its order, then others that residents name.
#[derive(Debug)]
struct Places {
    ids: Vec<u32>,
    sorted: Vec<(u32, usize)>,
    here: Cell<usize>,
}

impl Places {
    fn of(question: &PlacementQuestion) -> Self {
        let mut ids: Vec<u32> = question.nodes.iter().map(|node| node.id).collect();
        let sort = |ids: &[u32]| {
            let mut sorted: Vec<(u32, usize)> = ids.iter().copied().zip(0..).collect();
            sorted.sort_unstable();
            // Of two nodes with one id, which no host asks, the first counts.
            sorted.dedup_by_key(|(id, _)| *id);
            sorted
        };
        let known = sort(&ids);
        let is_known = |id: &u32| known.binary_search_by_key(id, |(id, _)| *id).is_ok();
        let residents = question.residents.iter();
        let mut others: Vec<u32> = residents
            .flat_map(Resident::standing)
            .map(|(node, _)| node)
            .filter(|id| !is_known(id))
            .collect();
        others.sort_unstable();
        others.dedup();
        ids.extend(others);
        Self { sorted: sort(&ids), ids, here: Cell::new(0) }
    }

    #[inline]
    fn of_id(&self, id: u32) -> Option<usize> {
        let here = self.here.get();
        if self.ids.get(here) == Some(&id) {
            return Some(here);
        }
        let at = self.sorted.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.sorted[at].1)
    }
}

/// How many VMs with each word stand at each place.
#[derive(Debug)]
struct Index<'q> {
    words: Words<'q>,
    width: usize,
    /// `width` counts a word.
    counts: Vec<u32>,
    /// All places together, also those that nobody asks about.
    sums: Vec<u32>,
}

impl<'q> Index<'q> {
    fn new(width: usize) -> Self {
        Self { words: Words::default(), width, counts: Vec::new(), sums: Vec::new() }
    }

    fn add(&mut self, pair: (&'q str, &'q str)) {
        if self.words.add(pair) == self.sums.len() {
            self.sums.push(0);
            self.counts.extend(vec![0; self.width]);
        }
    }

    #[inline]
    fn tally(&self, word: usize) -> &[u32] {
        let from = word * self.width;
        &self.counts[from..from + self.width]
    }

    fn count_all(&mut self, pair: (&str, &str), row: &Resident, places: &Places) {
        let Some(word) = self.words.find(pair) else { return };
        row.standing().for_each(|(node, many)| self.add_to(word, places.of_id(node), many));
    }

    fn count(&mut self, pair: (&str, &str), place: Option<usize>) {
        let Some(word) = self.words.find(pair) else { return };
        self.add_to(word, place, 1);
    }

    fn add_to(&mut self, word: usize, place: Option<usize>, many: u32) {
        self.sums[word] = self.sums[word].saturating_add(many);
        let Some(place) = place else { return };
        let count = &mut self.counts[word * self.width + place];
        *count = count.saturating_add(many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Dice, Generate};

    #[test]
    fn peers_in_a_domain_are_the_same_whether_the_vm_is_in_focus_or_not() {
        let mut dice = Dice::new(6);
        let mut found = 0;
        for _ in 0..200 {
            let asked = PlacementQuestion::random(&mut dice);
            let mut now = Situation::new(&asked);
            for vm in &asked.vms {
                now.focus(vm);
                for (key, domain) in [("group", "rack"), ("zone", "rack"), ("group", "none")] {
                    for node in &asked.nodes {
                        let peers = now.peers_in_domain(vm, key, node, domain);
                        assert_eq!(peers, now.count_in_domain(vm, key, node, domain));
                        found += peers;
                    }
                }
                asked.nodes.first().into_iter().for_each(|node| now.place(vm, node.id));
            }
        }
        assert!(found > 100, "{found} peers were found at all");
    }
}
