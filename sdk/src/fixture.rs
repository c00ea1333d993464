//! Clusters for tests, built by name.
//!
//! ```
//! use steadfast_sdk::{fixture::Fixture, prelude::*};
//! # parameters! { pub struct Emptiest {} }
//! # impl Placement for Emptiest {
//! #     fn score(&self, _: &VmFacts, node: &NodeFacts, _: &Situation<'_>) -> Option<Score> {
//! #         Some(Score::new().term("free memory", mib(node.memory_free_mib)))
//! #     }
//! # }
//! # export_policy! { Emptiest: Placement, name = "emptiest", about = "The emptiest node first." }
//! # fn main() {
//! let cluster = Fixture::cluster(3)
//!     .resident("db1", "n1")
//!     .resident("web1", "n2")
//!     .node("n3", |node| node.memory_free_mib = 60_000)
//!     .fail("n1");
//! assert_eq!(cluster.place::<Emptiest>()["db1"], "n2");
//! # }
//! ```

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};

use crate::generate::{healthy, modest};
use crate::run::{Policy, run};
use crate::wire::{
    NodeFacts, NodePriorityQuestion, PlacementQuestion, PlacementVerdict, Reading, Resident,
    RiskQuestion, Score, VmFacts,
};

/// A cluster under construction, and the three questions about it. A name that it does not have is a panic: it is for tests.
#[derive(Debug, Clone, Default)]
pub struct Fixture {
    nodes: Vec<NodeFacts>,
    failed: Vec<NodeFacts>,
    vms: Vec<VmFacts>,
    /// Where VMs stand, by VM id: those of the others are asked about.
    stands: BTreeMap<String, u32>,
    telemetry: BTreeMap<u32, Vec<Reading>>,
}

impl Fixture {
    /// So many healthy, empty nodes, `n1`, `n2`, … of 64 GiB and 16 CPUs each. `n1` leads.
    #[must_use]
    pub fn cluster(nodes: u32) -> Self {
        Self { nodes: (1..=nodes).map(healthy).collect(), ..Self::default() }
    }

    /// Changes what is known of a node.
    #[must_use]
    pub fn node(mut self, name: &str, change: impl FnOnce(&mut NodeFacts)) -> Self {
        change(self.node_mut(name));
        self
    }

    /// Gives a node a label.
    #[must_use]
    pub fn label(self, node: &str, key: &str, value: &str) -> Self {
        self.node(node, |node| {
            node.labels.insert(key.to_string(), value.to_string());
        })
    }

    /// A VM that needs a place: 2 GiB, 2 CPUs, priority 500.
    #[must_use]
    pub fn vm(mut self, name: &str) -> Self {
        let number = u32::try_from(self.vms.len()).unwrap_or(u32::MAX);
        self.vms.push(VmFacts { name: name.to_string(), ..modest(number + 1) });
        self
    }

    /// A VM that runs on a node. Its memory and CPUs are used there.
    #[must_use]
    pub fn resident(mut self, name: &str, node: &str) -> Self {
        let node = self.id(node);
        self = self.vm(name);
        if let Some(vm) = self.vms.last_mut() {
            vm.last_node = Some(node);
            self.stands.insert(vm.id.clone(), node);
        }
        self
    }

    /// Changes what is known of a VM.
    #[must_use]
    pub fn change(mut self, vm: &str, change: impl FnOnce(&mut VmFacts)) -> Self {
        let found = self.vms.iter_mut().find(|known| known.name == vm);
        change(found.unwrap_or_else(|| panic!("the fixture has no VM {vm:?}")));
        self
    }

    /// Gives a VM a label.
    #[must_use]
    pub fn vm_label(self, vm: &str, key: &str, value: &str) -> Self {
        self.change(vm, |vm| {
            vm.labels.insert(key.to_string(), value.to_string());
        })
    }

    /// The VM `vm` starts only once `other` runs.
    #[must_use]
    pub fn starts_after(self, vm: &str, other: &str) -> Self {
        let id = self.vms.iter().find(|known| known.name == other).map(|known| known.id.clone());
        let id = id.unwrap_or_else(|| panic!("the fixture has no VM {other:?}"));
        self.change(vm, |vm| {
            vm.after.insert(id);
        })
    }

    /// A node dies: it can take no VM, and those that ran there need a place.
    #[must_use]
    pub fn fail(mut self, node: &str) -> Self {
        let id = self.id(node);
        self.stands.retain(|_, on| *on != id);
        let at = self.nodes.iter().position(|known| known.id == id);
        if let Some(mut dead) = at.map(|at| self.nodes.remove(at)) {
            dead.status = "Full failure".to_string();
            self.failed.push(dead);
        }
        self
    }

    /// A reading of a node's equipment, just taken.
    #[must_use]
    pub fn telemetry(self, node: &str, name: &str, value: i64) -> Self {
        self.aged(node, name, value, 0)
    }

    /// A reading of a node's equipment, `age_ms` milliseconds old.
    #[must_use]
    pub fn aged(mut self, node: &str, name: &str, value: i64, age_ms: u64) -> Self {
        let id = self.id(node);
        let readings = self.telemetry.entry(id).or_default();
        readings.retain(|reading| reading.name != name);
        readings.push(Reading { name: name.to_string(), value, age_ms });
        readings.sort_by(|one, next| one.name.cmp(&next.name));
        self
    }

    /// How well would this node lead?
    #[must_use]
    pub fn node_priority(&self, node: &str) -> NodePriorityQuestion {
        let node = self.used(self.find(node));
        let mut question = NodePriorityQuestion { now_ms: NOW_MS, seed: 0, node };
        question.seed = seed(&question);
        question
    }

    /// How likely is this node to fail soon?
    #[must_use]
    pub fn risk(&self, node: &str) -> RiskQuestion {
        let node = self.used(self.find(node));
        let telemetry = self.telemetry.get(&node.id).cloned().unwrap_or_default();
        let mut question = RiskQuestion { now_ms: NOW_MS, seed: 0, node, telemetry };
        question.seed = seed(&question);
        question
    }

    /// Where do the VMs that stand nowhere go?
    #[must_use]
    pub fn placement(&self) -> PlacementQuestion {
        let resident = |vm: &VmFacts| {
            let node = *self.stands.get(&vm.id)?;
            let (labels, affinity) = (vm.labels.clone(), vm.affinity.clone());
            Some(Resident { vm: vm.id.clone(), node, labels, affinity, alike: Vec::new() })
        };
        let mut homeless: Vec<VmFacts> = self.homeless().cloned().collect();
        let asked: BTreeSet<String> = homeless.iter().map(|vm| vm.id.clone()).collect();
        homeless.iter_mut().for_each(|vm| vm.after.retain(|id| asked.contains(id)));
        let mut question = PlacementQuestion {
            now_ms: NOW_MS,
            seed: 0,
            nodes: self.nodes.iter().map(|node| self.used(node)).collect(),
            vms: homeless,
            residents: self.vms.iter().filter_map(resident).collect(),
        };
        question.seed = seed(&question);
        question
    }

    /// What a policy does with [`Fixture::placement`]: each VM's first choice, by their names; `""` where it has none.
    #[must_use]
    pub fn place<P: Policy>(&self) -> BTreeMap<String, String> {
        self.chosen(&run::<P, _>(&self.placement()))
    }

    /// Each VM's first choice in a verdict, by their names; `""` where it has none.
    #[must_use]
    pub fn chosen(&self, verdict: &PlacementVerdict) -> BTreeMap<String, String> {
        let node = |id| self.nodes.iter().find(|node| node.id == id);
        let choice = |vm: &VmFacts| {
            let ranked = verdict.vms.iter().find(|ranked| ranked.vm == vm.id);
            let first = ranked.and_then(|ranked| ranked.nodes.first());
            let name = first.and_then(|first| node(first.node)).map(|node| node.name.clone());
            (vm.name.clone(), name.unwrap_or_default())
        };
        self.homeless().map(choice).collect()
    }

    fn homeless(&self) -> impl Iterator<Item = &VmFacts> {
        self.vms.iter().filter(|vm| !self.stands.contains_key(&vm.id))
    }

    /// The names of VMs in the order in which a policy starts them.
    #[must_use]
    pub fn order<P: Policy>(&self) -> Vec<String> {
        let name = |id: &str| self.vms.iter().find(|vm| vm.id == id).map(|vm| vm.name.clone());
        let verdict = run::<P, _>(&self.placement());
        verdict.vms.iter().filter_map(|ranked| name(&ranked.vm)).collect()
    }

    /// What a policy says to [`Fixture::node_priority`].
    #[must_use]
    pub fn priority_of<P: Policy>(&self, node: &str) -> Score {
        run::<P, _>(&self.node_priority(node)).score
    }

    /// What a policy says to [`Fixture::risk`].
    #[must_use]
    pub fn risk_of<P: Policy>(&self, node: &str) -> Score {
        run::<P, _>(&self.risk(node)).score
    }

    fn find(&self, name: &str) -> &NodeFacts {
        let mut all = self.nodes.iter().chain(&self.failed);
        let found = all.find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the fixture has no node {name:?}"))
    }

    fn id(&self, name: &str) -> u32 {
        self.find(name).id
    }

    fn node_mut(&mut self, name: &str) -> &mut NodeFacts {
        let mut all = self.nodes.iter_mut().chain(&mut self.failed);
        let found = all.find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the fixture has no node {name:?}"))
    }

    /// The node with what stands on it taken off its room.
    fn used(&self, node: &NodeFacts) -> NodeFacts {
        let mut node = node.clone();
        for vm in self.vms.iter().filter(|vm| self.stands.get(&vm.id) == Some(&node.id)) {
            node.memory_free_mib = node.memory_free_mib.saturating_sub(vm.memory_mib);
            node.vcpus_used = node.vcpus_used.saturating_add(vm.vcpus);
            // What is 0 is not known, and stays so.
            if node.real_memory_free_mib > 0 {
                let left = node.real_memory_free_mib.saturating_sub(vm.memory_mib);
                node.real_memory_free_mib = left.max(1);
            }
        }
        node
    }
}

/// When fixtures ask: some time after the start of the host.
const NOW_MS: u64 = 3_600_000;

/// A digest of the question (FNV-1a), as the host's own is of another sort.
fn seed<Q: serde::Serialize>(question: &Q) -> u64 {
    let bytes = serde_json::to_vec(question).unwrap_or_default();
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    parameters! {
        /// The emptiest node.
        pub struct Emptiest {}
    }

    impl Placement for Emptiest {
        fn score(&self, _: &VmFacts, node: &NodeFacts, _: &Situation<'_>) -> Option<Score> {
            Some(Score::new().term("free memory", mib(node.memory_free_mib)))
        }
    }

    export_policy! { Emptiest: Placement, name = "emptiest", about = "The emptiest node." }

    #[test]
    fn the_vms_of_a_dead_node_need_a_place_and_it_can_take_none() {
        let cluster = Fixture::cluster(3).resident("a", "n1").resident("b", "n2").fail("n1");
        let asked = cluster.placement();
        assert_eq!(asked.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(
            asked.vms.iter().map(|vm| (&*vm.name, vm.last_node)).collect::<Vec<_>>(),
            [("a", Some(1))]
        );
        assert_eq!((asked.residents.len(), asked.residents[0].node), (1, 2));
        assert_eq!(cluster.node_priority("n1").node.status, "Full failure");
    }

    #[test]
    fn a_resident_uses_room_and_so_does_a_vm_once_it_is_placed() {
        let cluster = Fixture::cluster(2).resident("a", "n1").vm("b").vm("c");
        let nodes = cluster.placement().nodes;
        assert_eq!(nodes[0].memory_free_mib + 2_048, nodes[1].memory_free_mib);
        assert_eq!((nodes[0].vcpus_used, nodes[1].vcpus_used), (2, 0));
        let placed = cluster.place::<Emptiest>();
        assert_eq!((&*placed["b"], &*placed["c"]), ("n2", "n1"));
    }

    #[test]
    fn a_later_reading_of_the_same_name_replaces_the_earlier_one() {
        let cluster = Fixture::cluster(1).telemetry("n1", "b", 1).telemetry("n1", "a", 2);
        let readings = cluster.aged("n1", "b", 3, 50).risk("n1").telemetry;
        let seen: Vec<_> = readings.iter().map(|it| (&*it.name, it.value, it.age_ms)).collect();
        assert_eq!(seen, [("a", 2, 0), ("b", 3, 50)]);
    }

    #[test]
    #[should_panic(expected = "no node \"n9\"")]
    fn a_node_that_is_not_there_is_said() {
        let _ = Fixture::cluster(3).fail("n9");
    }
}
