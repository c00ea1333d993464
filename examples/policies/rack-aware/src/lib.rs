//! An example to copy: VMs of one `group` stand in different racks where that is possible.
//!
//! It takes the default placement's score and one thought more.
use steadfast_policy_placement::PlacementDefault;
use steadfast_sdk::prelude::*;

parameters! {
    /// What a shared rack costs.
    pub struct RackAware {
        /// Points lost for each VM of the group in the node's rack.
        shared_rack: i64 = 200_000,
    }
}

impl Placement for RackAware {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, now: &Situation<'_>) -> Option<Score> {
        let peers = now.peers_in_domain(vm, "group", node, "rack");
        let score = PlacementDefault::default().score(vm, node, now)?;
        Some(score.term("same rack", -points(peers.into(), self.shared_rack)))
    }
}

export_policy! {
    RackAware: Placement,
    name = "rack-aware",
    about = "Spreads the VMs of a group over racks, then as the default placement.",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, rack: &str) -> NodeFacts {
        let labels = [("rack".to_string(), rack.to_string())].into();
        let (memory_mib, memory_free_mib) = (8_000, 8_000 - u64::from(id));
        NodeFacts { id, labels, memory_mib, memory_free_mib, vcpus: 8, ..Default::default() }
    }

    #[test]
    fn the_second_vm_of_a_group_goes_to_another_rack() {
        let labels = [("group".to_string(), "db".to_string())].into();
        let vm = |id: &str| VmFacts { id: id.into(), memory_mib: 10, ..Default::default() };
        let vms =
            ["a", "b"].map(|id| VmFacts { labels: std::clone::Clone::clone(&labels), ..vm(id) });
        let nodes = vec![node(1, "a"), node(2, "a"), node(3, "b")];
        let asked = PlacementQuestion { nodes, vms: vms.to_vec(), ..Default::default() };
        let verdict = RackAware::default().placement(&asked);
        let chosen: Vec<u32> = verdict.vms.iter().map(|ranked| ranked.nodes[0].node).collect();
        assert_eq!(chosen, [1, 3]);
    }
}
