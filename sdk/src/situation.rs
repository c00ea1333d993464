//! What a placement looks at: the question, and what this very verdict has already put where.

use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::cell::RefCell;
use core::ops::Range;

use crate::tally::{Domains, Index, Places, place_in};
use crate::wire::{NodeFacts, PlacementQuestion, Resident, VmFacts};

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
    /// Keys of labels, by word.
    keys: Vec<Key<'q>>,
    own: Own,
    /// VMs of the question, by number, that bear each word of `together`.
    sharing: Vec<Vec<u64>>,
    placed: BTreeSet<&'q str>,
    focus: Option<Focus<'q>>,
    domains: RefCell<Domains>,
}

impl<'q> Situation<'q> {
    /// The situation before anything is placed.
    #[must_use]
    #[inline(never)]
    pub fn new(question: &'q PlacementQuestion) -> Self {
        let places = Places::of(question);
        let (mut labels, mut together, mut apart) =
            [(); 3].map(|()| Index::new(places.ids.len())).into();
        let mut sharing: Vec<Vec<u64>> = Vec::new();
        let mut own = Own { words: Vec::with_capacity(question.vms.len()), ends: Vec::new() };
        own.ends.reserve(question.vms.len());
        for (number, vm) in (0..).zip(&question.vms) {
            own.words.extend(vm.labels.iter().map(|label| labels.add((label.0, label.1))));
            own.ends.push(own.words.len());
            vm.affinity.apart.iter().for_each(|word| _ = apart.add((word, "")));
            for word in &vm.affinity.together {
                let at = together.add((word, ""));
                sharing.resize(together.words.known().len(), Vec::new());
                sharing[at].push(number);
            }
        }
        let nodes = question.nodes.clone();
        let keys = labels.words.known().iter().map(|(key, _)| Key { key, ends: ends(key) });
        let keys = keys.collect();
        let (placed, focus, domains) = (BTreeSet::new(), None, RefCell::default());
        let mut new = Self {
            question,
            nodes,
            places,
            labels,
            together,
            apart,
            keys,
            own,
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
        self.shared(vm, key).map_or(0, |label| self.sharing(label, node))
    }

    /// How many VMs that share the VM's own value of the label `key` stand on nodes that share the
    /// node's value of the label `domain` (a rack, a room); 0 if either has no such label.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the ends of a literal are computed by the compiler")]
    pub fn peers_in_domain(&self, vm: &VmFacts, key: &str, node: &NodeFacts, domain: &str) -> u32 {
        self.shared(vm, key).map_or(0, |label| self.sharing_in_domain(label, node, domain))
    }

    /// The VM's own label `key`, if it has one: looked up once for all that is asked about it below.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the ends of a literal are computed by the compiler")]
    pub fn shared(&self, vm: &VmFacts, key: &str) -> Option<Shared> {
        self.word_of(vm, key, ends(key)).map(Shared)
    }

    /// How many VMs with this label stand on the node: see [`Situation::peers`].
    #[must_use]
    pub fn sharing(&self, label: Shared, node: u32) -> u32 {
        self.on(&self.labels, label.0, node)
    }

    /// How many VMs with this label stand in the node's domain: see [`Situation::peers_in_domain`].
    #[must_use]
    pub fn sharing_in_domain(&self, label: Shared, node: &NodeFacts, domain: &str) -> u32 {
        let Some(place) = self.places.of_id(node.id) else { return 0 };
        let mut domains = self.domains.borrow_mut();
        let all = domains.of(domain, &self.nodes, &self.labels).all(label.0);
        all.get(place).copied().unwrap_or(0)
    }

    /// How many VMs with this label stand anywhere, on nodes that are not in the question too.
    #[must_use]
    pub fn sharing_anywhere(&self, label: Shared) -> u32 {
        self.labels.sums[label.0]
    }

    /// Takes `here` off the node's value for each VM that [`Situation::sharing`] counts, and `around` for each that
    /// [`Situation::sharing_in_domain`] does. `values` has one for each node, in the order of [`Situation::nodes`]. Nothing is cut
    /// off: it must be known that the values stay in range.
    pub fn take_off_for_sharing(
        &self,
        label: Shared,
        here: i64,
        (domain, around): (&str, i64),
        values: &mut [i64],
    ) {
        let mut domains = self.domains.borrow_mut();
        let in_domain = domains.of(domain, &self.nodes, &self.labels).all(label.0);
        let on_node = self.labels.tally(label.0);
        for ((value, many_here), many) in values.iter_mut().zip(on_node).zip(in_domain) {
            let lost = here.wrapping_mul(i64::from(*many_here));
            let lost = lost.wrapping_add(around.wrapping_mul(i64::from(*many)));
            *value = value.wrapping_sub(lost);
        }
    }

    /// The number of the VM's own label of this key, if it has one.
    #[inline]
    fn word_of(&self, vm: &VmFacts, key: &str, ends: (u64, u64)) -> Option<usize> {
        match self.focus_on(vm) {
            Some(focus) => self.focused_word(focus, key, ends),
            None => self.labels.words.find((key, vm.labels.get(key)?)),
        }
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
        self.focus_on(vm).map_or_else(|| self.load_together(vm), |focus| focus.load)
    }

    /// Takes the VM as placed on the node: its memory and CPUs are used, its labels counted.
    #[inline(never)]
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
        self.count_in(vm, place);
        if !vm.affinity.together.is_empty() {
            self.placed.insert(&vm.id);
        }
    }

    /// The next questions are about this VM on all nodes: what of the answers does not depend on the node is looked up now.
    pub(crate) fn focus(&mut self, vm: &'q VmFacts) {
        let labels = self.own_labels(vm);
        self.focus = labels.map(|labels| Focus { vm, labels, load: self.load_together(vm) });
    }

    /// Where the words of the VM's labels are in `own`, if it is one of the question's own.
    fn own_labels(&self, vm: &VmFacts) -> Option<Range<usize>> {
        let vms = &self.question.vms;
        // Where it is in the array tells its number.
        let from = (&raw const *vm).addr().checked_sub(vms.as_ptr().addr())?;
        let number = from / size_of::<VmFacts>();
        vms.get(number).filter(|it| core::ptr::eq(*it, vm))?;
        let from = number.checked_sub(1).map_or(0, |before| self.own.ends[before]);
        Some(from..self.own.ends[number])
    }

    /// The next question is likely to be about the node at this place.
    #[inline]
    pub(crate) fn look_at(&self, place: usize) {
        self.places.here.set(place);
    }

    /// Where the node of this id stands in [`Situation::nodes`].
    #[must_use]
    pub fn place_of(&self, id: u32) -> Option<usize> {
        self.places.of_id(id).filter(|place| *place < self.nodes.len())
    }

    #[inline]
    fn focus_on(&self, vm: &VmFacts) -> Option<&Focus<'q>> {
        self.focus.as_ref().filter(|focus| core::ptr::eq(focus.vm, vm))
    }

    #[inline]
    fn focused_word(&self, focus: &Focus<'_>, key: &str, ends: (u64, u64)) -> Option<usize> {
        let mut words = self.own.words[focus.labels.clone()].iter().copied();
        words.find(|word| self.keys[*word].is(key, ends))
    }

    fn load_together(&self, vm: &VmFacts) -> (u64, u32) {
        if vm.affinity.together.is_empty() {
            return (vm.memory_mib, vm.vcpus);
        }
        let words = vm.affinity.together.iter();
        let known = words.filter_map(|word| self.together.words.find((word, "")));
        let mut others: Vec<u64> = known.flat_map(|word| &self.sharing[word]).copied().collect();
        others.sort_unstable();
        others.dedup();
        let others = others.into_iter().map(|number| &self.question.vms[place_in(number) as usize]);
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

    fn count_in(&mut self, vm: &VmFacts, place: Option<usize>) {
        if let Some(focus) = self.focus.take().filter(|focus| core::ptr::eq(focus.vm, vm)) {
            focus.labels.for_each(|at| self.count_label(self.own.words[at], place));
        } else {
            for (key, value) in &vm.labels {
                let word = self.labels.words.find((key, value));
                word.into_iter().for_each(|word| self.count_label(word, place));
            }
        }
        vm.affinity.together.iter().for_each(|word| self.together.count((word, ""), place));
        vm.affinity.apart.iter().for_each(|word| self.apart.count((word, ""), place));
    }

    fn count_label(&mut self, word: usize, place: Option<usize>) {
        self.labels.add_to(word, place, 1);
        let domains = self.domains.get_mut();
        place.into_iter().for_each(|place| domains.add_to(word, place, 1));
    }

    #[inline]
    fn on(&self, index: &Index<'_>, word: usize, node: u32) -> u32 {
        self.places.of_id(node).map_or(0, |place| index.tally(word)[place])
    }
}

/// A label that a VM has in common with others, in one [`Situation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared(usize);

/// The VM that is being scored.
#[derive(Debug)]
struct Focus<'q> {
    vm: &'q VmFacts,
    /// Where the words of its labels are among all VMs' own.
    labels: Range<usize>,
    load: (u64, u32),
}

/// Labels of all VMs of the question.
#[derive(Debug)]
struct Own {
    words: Vec<usize>,
    /// Where those of each VM end, and those of the next begin.
    ends: Vec<usize>,
}

/// A label's key.
#[derive(Debug)]
struct Key<'q> {
    key: &'q str,
    ends: (u64, u64),
}

impl Key<'_> {
    #[inline]
    fn is(&self, key: &str, ends: (u64, u64)) -> bool {
        let alike = self.key.len() == key.len() && self.ends == ends;
        // Up to sixteen bytes there is nothing between the ends.
        alike && (key.len() <= 16 || self.key == key)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Dice, Generate};

    fn one_by_one(
        now: &Situation<'_>,
        vm: &VmFacts,
        key: &str,
        (node, domain): (&NodeFacts, &str),
    ) -> u32 {
        let (Some(value), Some(place)) = (vm.labels.get(key), node.labels.get(domain)) else {
            return 0;
        };
        let peers = now.nodes.iter().filter(|other| other.labels.get(domain) == Some(place));
        peers.fold(0, |sum, other| sum.saturating_add(now.count(key, value, other.id)))
    }

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
                        assert_eq!(peers, one_by_one(&now, vm, key, (node, domain)));
                        found += peers;
                    }
                }
                asked.nodes.first().into_iter().for_each(|node| now.place(vm, node.id));
            }
        }
        assert!(found > 100, "{found} peers were found at all");
    }
}
