//! Clusters out of a number: the same number makes the same questions, on every machine and in every release of a major.
//!
//! Questions look as the host asks them (arrays sorted by id), with more trouble than most clusters have: nodes in every
//! status, sizes that overflow, labels that need escapes, rules that cannot be kept.

use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use crate::check::Question;
use crate::wire::{
    Affinity, NodeFacts, NodePriorityQuestion, PlacementQuestion, Reading, Resident, RiskQuestion,
    VmFacts,
};

/// Chance out of a number (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

/// A question that can be made up.
pub trait Generate: Question {
    /// Situations that are easily forgotten: nothing at all, one node, none alive, absurd numbers.
    fn edges() -> Vec<Self>;

    /// Any situation of a small cluster.
    fn random(dice: &mut Dice) -> Self;

    /// A cluster of so many nodes after a blackout: so many VMs need a place at once.
    fn largest(nodes: u32, vms: u32) -> Self;

    /// The same question with its arrays in other orders.
    fn reordered(&self) -> Vec<Self>;
}

const STATUSES: [&str; 6] = ["Leader", "Member", "Member", "Suspect", "Storage isolation", ""];
const LABELS: [&str; 5] = ["group", "keep-apart", "rack", "licence", "zone"];
const ODD_WORDS: [&str; 5] = ["", "\"quoted\" \\ back", "Zürich \u{1f980}", "two\nlines", "\u{1}"];
const READINGS: [&str; 32] = [
    "bond.bond0.failed_links",
    "clock.offset_ms",
    "clock.unsynchronised",
    "edac.mc0.correctable_per_hour",
    "edac.mc0.uncorrectable",
    "external.dcim.risk",
    "fan.fan2.failed",
    "kernel.hardware_errors",
    "kernel.io_errors",
    "link.eth0.errors_per_minute",
    "link.eth0.flaps_per_hour",
    "md.md0.missing",
    "multipath.mpatha.failed_paths",
    "multipath.mpatha.paths_left",
    "power_supply.psu1.failed",
    "power_supply.psu1.no_input",
    "psi.cpu.some_avg60_permille",
    "psi.io.full_avg60_permille",
    "psi.memory.full_avg60_permille",
    "sensor.p1v5.critical",
    "smart.sda.cable_errors_per_hour",
    "smart.sda.failing",
    "smart.sda.media_errors",
    "smart.sda.pending",
    "smart.sda.reallocated",
    "smart.sda.uncorrectable",
    "smart.sdb.reallocated",
    "smart.sdb.wear_percent",
    "smart.sdc.spare_percent",
    "temperature.cpu0.below_critical_c",
    "unheard.of",
    "unheard.of.too",
];

impl Dice {
    /// The same number throws the same.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.throw() % end.max(1)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).unwrap_or(0)
    }

    /// True one time in `times`.
    pub fn rarely(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these. There must be one.
    pub fn pick<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[usize::try_from(self.below(these.len() as u64)).unwrap_or(0)]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, usize::try_from(self.below(at as u64 + 1)).unwrap_or(0));
        }
    }

    /// Mostly below `end`, sometimes nothing or more than anybody has.
    fn size(&mut self, end: u64) -> u64 {
        match self.below(64) {
            0 => u64::MAX,
            1 => 0,
            _ => self.below(end),
        }
    }

    fn count(&mut self, end: u32) -> u32 {
        u32::try_from(self.size(end.into())).unwrap_or(u32::MAX)
    }

    fn word(&mut self, prefix: &str) -> String {
        if self.rarely(40) {
            return self.pick(&ODD_WORDS).to_string();
        }
        format!("{prefix}{}", self.small(4))
    }

    fn labels(&mut self) -> alloc::collections::BTreeMap<String, String> {
        let many = self.small(4);
        (0..many)
            .map(|_| {
                let key = *self.pick(&LABELS);
                (key.to_string(), self.word(&key[..1]))
            })
            .collect()
    }

    fn words(&mut self, prefix: &str) -> BTreeSet<String> {
        (0..self.small(3)).map(|_| self.word(prefix)).collect()
    }

    /// Mostly none.
    fn affinity(&mut self) -> Affinity {
        let mut affinity = Affinity::default();
        match self.below(12) {
            0 => affinity.together = self.words("t"),
            1 => affinity.apart = self.words("a"),
            2 => {
                let wanted = |dice: &mut Self| (format!("n{}", dice.small(12)), dice.small(200));
                affinity.nodes = (0..=self.small(3)).map(|_| wanted(self)).collect();
                affinity.strict = self.rarely(2);
                affinity.stays = self.rarely(4);
            }
            _ => {}
        }
        affinity
    }

    fn node(&mut self, id: u32) -> NodeFacts {
        let memory_mib = self.size(256_000);
        NodeFacts {
            id,
            name: format!("n{id}"),
            status: self.pick(&STATUSES).to_string(),
            memory_mib,
            memory_free_mib: self.size(memory_mib),
            real_memory_free_mib: self.size(128_000),
            vcpus: self.count(128),
            vcpus_used: self.count(400),
            load_permille: self.count(90_000),
            storage_latency_ms: self.size(3_000),
            network_age_ms: self.size(3_000),
            flaps: if self.rarely(4) { self.count(12) } else { 0 },
            risk: u16::try_from(self.count(1001)).unwrap_or(u16::MAX),
            cordoned: self.rarely(8),
            labels: self.labels(),
        }
    }

    fn vm(&mut self, id: String) -> VmFacts {
        VmFacts {
            name: format!("vm {}", self.word("v")),
            id,
            memory_mib: self.size(30_000),
            vcpus: self.count(40),
            priority: u16::try_from(self.below(11) * 100).unwrap_or(0),
            labels: self.labels(),
            last_node: (!self.rarely(8)).then(|| self.small(12)),
            affinity: self.affinity(),
            after: BTreeSet::new(),
        }
    }

    /// Few start after another, some of them in a circle.
    fn dependencies(&mut self, vms: &mut [VmFacts]) {
        let ids: Vec<String> = vms.iter().map(|vm| vm.id.clone()).collect();
        for vm in vms {
            while self.rarely(5) {
                vm.after.insert(self.pick(&ids).clone());
            }
        }
    }

    fn resident(&mut self, vm: String) -> Resident {
        let more = if self.rarely(4) { self.small(4) } else { 0 };
        let alike = (0..more).map(|_| (self.small(14), self.small(9))).collect();
        let (labels, affinity) = (self.labels(), self.affinity());
        Resident { vm, node: self.small(14), labels, affinity, alike }
    }

    /// So many ids in order, with gaps.
    fn ids(&mut self, many: u32) -> Vec<u32> {
        let mut last = 0;
        let next = |_| {
            last += 1 + u32::from(self.rarely(4));
            last
        };
        (0..many).map(next).collect()
    }

    fn placement(&mut self, nodes: u32, vms: u32, residents: u32) -> PlacementQuestion {
        let nodes = self.ids(nodes).into_iter().map(|id| self.node(id)).collect();
        let mut question = PlacementQuestion { nodes, ..PlacementQuestion::default() };
        let all = vms.saturating_add(residents);
        for number in self.ids(all) {
            if self.small(all) < vms {
                question.vms.push(self.vm(uuid(number)));
            } else {
                question.residents.push(self.resident(uuid(number)));
            }
        }
        self.dependencies(&mut question.vms);
        question.now_ms = self.below(1 << 40);
        question.seed = self.throw();
        question
    }

    fn telemetry(&mut self) -> Vec<Reading> {
        let some = READINGS.iter().filter(|_| self.rarely(2)).collect::<Vec<_>>();
        let reading = |name: &&str| Reading {
            name: name.to_string(),
            value: match self.below(16) {
                0 => i64::MAX,
                1 => i64::MIN,
                _ => i64::from(self.small(1_200)) - 100,
            },
            age_ms: self.size(900_000),
        };
        some.into_iter().map(reading).collect()
    }
}

impl Generate for NodePriorityQuestion {
    fn edges() -> Vec<Self> {
        let asked = |node| Self { now_ms: 1, seed: 1, node };
        vec![Self::default(), asked(healthy(1)), asked(dead(2)), asked(absurd(u32::MAX))]
    }

    fn random(dice: &mut Dice) -> Self {
        let id = 1 + dice.small(64);
        Self { now_ms: dice.below(1 << 40), seed: dice.throw(), node: dice.node(id) }
    }

    fn largest(nodes: u32, _: u32) -> Self {
        Self { now_ms: 1, seed: 1, node: healthy(nodes) }
    }

    fn reordered(&self) -> Vec<Self> {
        Vec::new()
    }
}

impl Generate for PlacementQuestion {
    fn edges() -> Vec<Self> {
        let asked = |nodes: &[NodeFacts], vms: &[VmFacts]| {
            let residents = vec![Resident { vm: uuid(9), node: 1, ..Resident::default() }];
            Self { now_ms: 1, seed: 1, nodes: nodes.to_vec(), vms: vms.to_vec(), residents }
        };
        let vms = [1, 2, 3].map(modest);
        let mut giant = modest(4);
        (giant.memory_mib, giant.vcpus, giant.priority) = (u64::MAX, u32::MAX, u16::MAX);
        vec![
            Self::default(),
            asked(&[healthy(1)], &vms),
            asked(&[], &vms),
            asked(&[healthy(1), healthy(2)], &[]),
            asked(&[dead(1), dead(2), dead(3)], &vms),
            asked(&[absurd(1), healthy(2), absurd(u32::MAX)], &[modest(1), giant]),
        ]
    }

    fn random(dice: &mut Dice) -> Self {
        let (nodes, vms, residents) = (dice.small(13), dice.small(20), dice.small(20));
        dice.placement(nodes, vms, residents)
    }

    fn largest(nodes: u32, vms: u32) -> Self {
        let vm = |number| {
            let mut vm = modest(number);
            vm.labels = [("group".to_string(), format!("g{}", number % 97))].into();
            vm.last_node = Some(number % nodes.max(1) + 1);
            vm.priority = u16::try_from(number % 11 * 100).unwrap_or(0);
            vm
        };
        Self {
            now_ms: 1,
            seed: 1,
            nodes: (1..=nodes).map(healthy).collect(),
            vms: (1..=vms).map(vm).collect(),
            residents: Vec::new(),
        }
    }

    fn reordered(&self) -> Vec<Self> {
        let (mut reversed, mut shuffled) = (self.clone(), self.clone());
        reversed.nodes.reverse();
        reversed.vms.reverse();
        reversed.residents.reverse();
        let mut dice = Dice::new(self.seed);
        dice.shuffle(&mut shuffled.nodes);
        dice.shuffle(&mut shuffled.vms);
        dice.shuffle(&mut shuffled.residents);
        vec![reversed, shuffled]
    }
}

impl Generate for RiskQuestion {
    fn edges() -> Vec<Self> {
        let asked = |node, telemetry| Self { now_ms: 1, seed: 1, node, telemetry };
        let all = |value| {
            let reading = |name: &&str| Reading { name: name.to_string(), value, age_ms: 0 };
            READINGS.iter().map(reading).collect::<Vec<_>>()
        };
        vec![
            Self::default(),
            asked(healthy(1), Vec::new()),
            asked(dead(2), all(0)),
            asked(healthy(3), all(i64::MAX)),
            asked(absurd(u32::MAX), all(i64::MIN)),
        ]
    }

    fn random(dice: &mut Dice) -> Self {
        let NodePriorityQuestion { now_ms, seed, node } = NodePriorityQuestion::random(dice);
        Self { now_ms, seed, node, telemetry: dice.telemetry() }
    }

    /// A node with a disk for each VM, 500 at most.
    fn largest(nodes: u32, vms: u32) -> Self {
        let of_disk = |disk| {
            let reading = move |what: &str, value| Reading {
                name: format!("smart.disk{disk:06}.{what}"),
                value,
                age_ms: 1_000,
            };
            [reading("pending", 1), reading("reallocated", i64::from(disk))]
        };
        let telemetry = (0..vms.min(500)).flat_map(of_disk).collect();
        Self { now_ms: 1, seed: 1, node: healthy(nodes), telemetry }
    }

    fn reordered(&self) -> Vec<Self> {
        let mut reversed = self.clone();
        reversed.telemetry.reverse();
        vec![reversed]
    }
}

/// A node about which there is no doubt.
pub(crate) fn healthy(id: u32) -> NodeFacts {
    NodeFacts {
        id,
        name: format!("n{id}"),
        status: if id == 1 { "Leader" } else { "Member" }.to_string(),
        memory_mib: 65_536,
        memory_free_mib: 65_536,
        real_memory_free_mib: 65_536,
        vcpus: 16,
        load_permille: 1_000,
        storage_latency_ms: 5,
        network_age_ms: 100,
        ..NodeFacts::default()
    }
}

/// The id of the VM with this number.
pub(crate) fn uuid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// A small VM without wishes.
pub(crate) fn modest(number: u32) -> VmFacts {
    VmFacts {
        id: uuid(number),
        name: format!("vm{number}"),
        memory_mib: 2_048,
        vcpus: 2,
        priority: 500,
        ..VmFacts::default()
    }
}

fn dead(id: u32) -> NodeFacts {
    let status = "Full failure".to_string();
    NodeFacts { status, cordoned: true, risk: 1000, memory_free_mib: 0, ..healthy(id) }
}

fn absurd(id: u32) -> NodeFacts {
    NodeFacts {
        memory_mib: 1,
        memory_free_mib: u64::MAX,
        vcpus: 0,
        vcpus_used: u32::MAX,
        load_permille: u32::MAX,
        storage_latency_ms: u64::MAX,
        network_age_ms: u64::MAX,
        flaps: u32::MAX,
        risk: u16::MAX,
        ..healthy(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_makes_the_same_clusters_and_another_makes_others() {
        let made = |seed| {
            let mut dice = Dice::new(seed);
            (0..20).map(|_| PlacementQuestion::random(&mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }

    #[test]
    fn questions_look_as_the_host_asks_them_sorted_by_id_and_none_twice() {
        let mut dice = Dice::new(3);
        for _ in 0..200 {
            let asked = PlacementQuestion::random(&mut dice);
            assert!(asked.nodes.is_sorted_by(|one, next| one.id < next.id));
            assert!(asked.vms.is_sorted_by(|one, next| one.id < next.id));
            assert!(asked.residents.is_sorted_by(|one, next| one.vm < next.vm));
            let asked = RiskQuestion::random(&mut dice);
            assert!(asked.telemetry.is_sorted_by(|one, next| one.name < next.name));
        }
    }

    #[test]
    fn clusters_have_the_trouble_that_policies_stumble_over() {
        let mut dice = Dice::new(4);
        let asked: Vec<_> = (0..300).map(|_| PlacementQuestion::random(&mut dice)).collect();
        let any_node =
            |holds: fn(&NodeFacts) -> bool| asked.iter().any(|q| q.nodes.iter().any(holds));
        let any_vm = |holds: fn(&VmFacts) -> bool| asked.iter().any(|q| q.vms.iter().any(holds));
        assert!(any_node(|node| node.cordoned) && any_node(|node| node.memory_mib == u64::MAX));
        assert!(any_node(|node| node.labels.values().any(|word| word.contains('"'))));
        assert!(any_vm(|vm| vm.affinity.strict) && any_vm(|vm| !vm.affinity.apart.is_empty()));
        assert!(asked.iter().any(|asked| asked.nodes.is_empty() && !asked.vms.is_empty()));
    }

    #[test]
    fn reordered_questions_hold_the_same_things_in_another_order() {
        let asked = PlacementQuestion::random(&mut Dice::new(5));
        for other in asked.reordered() {
            assert_ne!(other, asked);
            let mut sorted = other.clone();
            sorted.nodes.sort_by_key(|node| node.id);
            sorted.vms.sort_by(|one, next| one.id.cmp(&next.id));
            sorted.residents.sort_by(|one, next| one.vm.cmp(&next.vm));
            assert_eq!(sorted, asked);
        }
    }
}
