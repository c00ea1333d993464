//! What a placement looks at: the question, and what this very verdict has already put where.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::wire::{NodeFacts, PlacementQuestion, VmFacts};

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
}

impl<'q> Situation<'q> {
    /// The situation before anything is placed.
    #[must_use]
    pub fn new(question: &'q PlacementQuestion) -> Self {
        let mut new = Self { question, nodes: question.nodes.clone(), labels: BTreeMap::new() };
        for (key, value) in question.vms.iter().flat_map(|vm| &vm.labels) {
            new.labels.entry(key).or_default().entry(value).or_default();
        }
        for resident in &question.residents {
            new.count_labels(&resident.labels, resident.node);
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

    /// Takes the VM as placed on the node: its memory and CPUs are used, its labels counted.
    pub fn place(&mut self, vm: &'q VmFacts, node: u32) {
        if let Some(node) = self.nodes.iter_mut().find(|facts| facts.id == node) {
            node.memory_free_mib = node.memory_free_mib.saturating_sub(vm.memory_mib);
            node.vcpus_used = node.vcpus_used.saturating_add(vm.vcpus);
        }
        self.count_labels(&vm.labels, node);
    }

    fn tally(&self, key: &str, value: &str) -> Option<&Tally> {
        self.labels.get(key)?.get(value)
    }

    fn count_labels(
        &mut self,
        labels: &BTreeMap<alloc::string::String, alloc::string::String>,
        node: u32,
    ) {
        for (key, value) in labels {
            let values = self.labels.get_mut(key.as_str());
            if let Some(tally) = values.and_then(|values| values.get_mut(value.as_str())) {
                let count = tally.entry(node).or_insert(0);
                *count = count.saturating_add(1);
            }
        }
    }
}
