//! The shipped policies as modules: the same answers as the agent's own twins.

use steadfast_sdk::wire::{NodePriorityQuestion, Reading, Resident, RiskQuestion};

use super::*;
use crate::policy::DeciderKind;

/// A small generator (xorshift): the same clusters in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }

    fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).unwrap()
    }

    fn node(&mut self, id: u32) -> NodeFacts {
        NodeFacts {
            id,
            status: ["Leader", "Member", "Suspect", "Excluded"][self.small(4) as usize].into(),
            memory_free_mib: self.below(80_000),
            vcpus: self.small(64),
            vcpus_used: self.small(300),
            load_permille: self.small(90_000),
            storage_latency_ms: self.below(3_000),
            network_age_ms: self.below(3_000),
            flaps: self.small(12),
            risk: u16::try_from(self.below(1001)).unwrap(),
            cordoned: self.below(8) == 0,
            ..node(id)
        }
    }

    fn vm(&mut self, number: u32) -> VmFacts {
        let mut vm = vm(number);
        vm.memory_mib = self.below(30_000);
        vm.vcpus = self.small(40);
        vm.priority = u16::try_from(self.below(4) * 300).unwrap();
        if self.below(2) == 0 {
            vm.labels.insert("keep-apart".into(), format!("k{}", self.below(3)));
        }
        vm
    }

    fn placement(&mut self) -> PlacementQuestion {
        let nodes: Vec<_> = (0..self.small(12)).map(|id| self.node(id + 1)).collect();
        let vms: Vec<_> = (0..self.small(30)).map(|number| self.vm(number)).collect();
        let resident = |dice: &mut Self, at: u32| Resident {
            vm: format!("r{at}"),
            node: dice.small(12),
            labels: dice.vm(at).labels,
            ..Resident::default()
        };
        let residents = (0..self.small(20)).map(|at| resident(self, at)).collect();
        PlacementQuestion { now_ms: self.below(9), seed: self.0, nodes, vms, residents }
    }

    fn risk(&mut self) -> RiskQuestion {
        let names = ["smart.sda.pending", "edac.mc0.uncorrectable", "md.md0.missing", "x"];
        let readings = (0..self.small(9)).map(|_| Reading {
            name: names[self.small(4) as usize].into(),
            value: i64::from(self.small(200)) - 50,
            age_ms: self.below(900_000),
        });
        let telemetry = readings.collect();
        RiskQuestion { node: self.node(1), telemetry, ..RiskQuestion::default() }
    }
}

fn shipped() -> (Folder, Arc<PolicyStore>) {
    let folder = Folder::new();
    for name in ["node-priority", "placement", "risk"] {
        folder.drop_file(&format!("{name}.wasm"), &built(name));
    }
    let store = folder.start();
    (folder, store)
}

#[test]
fn the_shipped_modules_answer_what_their_built_in_twins_answer() {
    let (_folder, store) = shipped();
    let mut dice = Dice(0x5eed);
    for _ in 0..300 {
        let asked = dice.placement();
        let answer = store.ask_placement(&asked);
        assert_eq!(answer.decider.kind, DeciderKind::Active, "{:?}", answer.decider);
        assert_eq!(answer.verdict, steadfast_policy_placement::builtin(&asked));
        let asked = NodePriorityQuestion { node: dice.node(3), ..Default::default() };
        let answer = store.ask_node_priority(&asked);
        assert_eq!(answer.decider.kind, DeciderKind::Active, "{:?}", answer.decider);
        assert_eq!(answer.verdict, steadfast_policy_node_priority::builtin(&asked));
        let asked = dice.risk();
        let answer = store.ask_risk(&asked);
        assert_eq!(answer.decider.kind, DeciderKind::Active, "{:?}", answer.decider);
        assert_eq!(answer.verdict, steadfast_policy_risk::builtin(&asked));
    }
}

#[test]
fn the_rack_aware_example_changes_the_next_placement_when_it_is_dropped() {
    let (folder, store) = shipped();
    let mut asked = question(3, 2);
    for vm in &mut asked.vms {
        vm.labels = [("group".to_string(), "db".to_string())].into();
    }
    asked.nodes[0].labels = asked.nodes[2].labels.clone();
    // The default placement prefers another rack too, but not for its headroom.
    asked.nodes[1].memory_free_mib = 5_000;
    asked.nodes[1].labels = [("rack".to_string(), "far".to_string())].into();
    let chosen = |store: &PolicyStore| -> Vec<u32> {
        let verdict = store.ask_placement(&asked).verdict;
        verdict.vms.iter().map(|ranked| ranked.nodes[0].node).collect()
    };
    assert_eq!(chosen(&store), [1, 3]);
    folder.drop_file("rack-aware.wasm", &built("rack-aware"));
    eventually(&store, |status| status.name == "rack-aware" && status.deciding);
    assert_eq!(chosen(&store), [1, 2]);
}
