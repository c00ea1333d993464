//! What a placement looks at: the question, and what this very verdict has already put where.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use crate::wire::{Affinity, NodeFacts, PlacementQuestion, VmFacts};

/// VMs with one label, by node.
type Tally = BTreeMap<u32, u32>;

/// The cluster as it will be once the VMs placed so far have started.
///
/// Indexed once, so that a look-up costs the same with ten VMs and with ten thousand. Only labels that
/// some VM of the question bears are indexed.
#[derive(Debug)]
pub struct Situation<'q> {
    question: &'q PlacementQuestion,
    nodes: Vec<NodeFacts>,
    labels: BTreeMap<&'q str, BTreeMap<&'q str, Tally>>,
    /// VMs by node, for each word of `together` and of `apart` that some VM of the question bears.
    together: BTreeMap<&'q str, Tally>,
    apart: BTreeMap<&'q str, Tally>,
    placed: BTreeSet<&'q str>,
}

impl<'q> Situation<'q> {
    /// The situation before anything is placed.
    #[must_use]
    pub fn new(question: &'q PlacementQuestion) -> Self {
        let words = |of: fn(&Affinity) -> &BTreeSet<String>| {
            let words = question.vms.iter().flat_map(move |vm| of(&vm.affinity));
            words.map(|word| (word.as_str(), Tally::new())).collect()
        };
        let mut new = Self {
            question,
            nodes: question.nodes.clone(),
            labels: BTreeMap::new(),
            together: words(|affinity| &affinity.together),
            apart: words(|affinity| &affinity.apart),
            placed: BTreeSet::new(),
        };
        for (key, value) in question.vms.iter().flat_map(|vm| &vm.labels) {
            new.labels.entry(key).or_default().entry(value).or_default();
        }
        for resident in &question.residents {
            new.count_labels(&resident.labels, resident.node);
            new.count_affinity(&resident.affinity, resident.node);
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
        self.nodes.iter().find(|node| node.id == id)
    }

    /// How many VMs with the label `key` = `value` stand on the node. Only labels that some VM of the
    /// question bears are counted.
    #[must_use]
    pub fn count(&self, key: &str, value: &str, node: u32) -> u32 {
        self.tally(key, value).and_then(|tally| tally.get(&node)).copied().unwrap_or(0)
    }

    /// How many VMs that share the VM's own value of the label `key` stand on the node; 0 if it has no
    /// such label.
    #[must_use]
    pub fn peers(&self, vm: &VmFacts, key: &str, node: u32) -> u32 {
        vm.labels.get(key).map_or(0, |value| self.count(key, value, node))
    }

    /// How many VMs that share the VM's own value of the label `key` stand on nodes that share the
    /// node's value of the label `domain` (a rack, a room); 0 if either has no such label.
    #[must_use]
    pub fn peers_in_domain(&self, vm: &VmFacts, key: &str, node: &NodeFacts, domain: &str) -> u32 {
        let (Some(value), Some(place)) = (vm.labels.get(key), node.labels.get(domain)) else {
            return 0;
        };
        let Some(tally) = self.tally(key, value) else { return 0 };
        let same = |other: &&NodeFacts| other.labels.get(domain) == Some(place);
        let peers = self.nodes.iter().filter(same).filter_map(|other| tally.get(&other.id));
        peers.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many VMs stand on the node that must not share one with this VM.
    #[must_use]
    pub fn adversaries(&self, vm: &VmFacts, node: u32) -> u32 {
        let on = |word: &String| self.apart.get(word.as_str()).and_then(|tally| tally.get(&node));
        vm.affinity.apart.iter().filter_map(on).fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The VM must share a node with others, and those that have one stand elsewhere.
    #[must_use]
    pub fn is_away_from_its_own(&self, vm: &VmFacts, node: u32) -> bool {
        let away = |word: &String| {
            let tally = self.together.get(word.as_str());
            tally.is_some_and(|tally| !tally.is_empty() && !tally.contains_key(&node))
        };
        vm.affinity.together.iter().any(away)
    }

    /// Memory in MiB and virtual CPUs of the VM and of those of the question, not placed yet, that must share its node.
    #[must_use]
    pub fn load_of(&self, vm: &VmFacts) -> (u64, u32) {
        let (mut memory, mut cpus) = (vm.memory_mib, vm.vcpus);
        if vm.affinity.together.is_empty() {
            return (memory, cpus);
        }
        let shares = |other: &&VmFacts| {
            other.id != vm.id
                && !self.placed.contains(other.id.as_str())
                && !other.affinity.together.is_disjoint(&vm.affinity.together)
        };
        for other in self.question.vms.iter().filter(shares) {
            memory = memory.saturating_add(other.memory_mib);
            cpus = cpus.saturating_add(other.vcpus);
        }
        (memory, cpus)
    }

    /// Takes the VM as placed on the node: its memory and CPUs are used, its labels counted.
    pub fn place(&mut self, vm: &'q VmFacts, node: u32) {
        if let Some(node) = self.nodes.iter_mut().find(|facts| facts.id == node) {
            node.memory_free_mib = node.memory_free_mib.saturating_sub(vm.memory_mib);
            node.vcpus_used = node.vcpus_used.saturating_add(vm.vcpus);
        }
        self.count_labels(&vm.labels, node);
        self.count_affinity(&vm.affinity, node);
        self.placed.insert(&vm.id);
    }

    fn count_affinity(&mut self, affinity: &Affinity, node: u32) {
        let count = |index: &mut BTreeMap<&'q str, Tally>, words: &BTreeSet<String>| {
            for word in words {
                if let Some(tally) = index.get_mut(word.as_str()) {
                    let count = tally.entry(node).or_insert(0);
                    *count = count.saturating_add(1);
                }
            }
        };
        count(&mut self.together, &affinity.together);
        count(&mut self.apart, &affinity.apart);
    }

    fn tally(&self, key: &str, value: &str) -> Option<&Tally> {
        self.labels.get(key)?.get(value)
    }

    fn count_labels(&mut self, labels: &BTreeMap<String, String>, node: u32) {
        for (key, value) in labels {
            let values = self.labels.get_mut(key.as_str());
            if let Some(tally) = values.and_then(|values| values.get_mut(value.as_str())) {
                let count = tally.entry(node).or_insert(0);
                *count = count.saturating_add(1);
            }
        }
    }
}
