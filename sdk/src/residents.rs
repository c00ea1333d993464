//! What of the VMs that stay where they are matters to those that need a place: for the host, which asks.
//!
//! Of ten thousand VMs few share a word with the orphans of one node, and of those that do many are alike. What no policy
//! can tell apart is sent once.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::{String, ToString},
    vec::Vec,
};

use crate::wire::{Affinity, Resident, VmFacts};
use crate::words::Words;

/// Gathers residents, each with what it shares with some VM that needs a place; those alike make one row.
#[derive(Debug)]
pub struct Residents<'a> {
    labels: Words<'a>,
    together: Words<'a>,
    apart: Words<'a>,
    rows: Vec<Resident>,
    /// How many more of each row stand on which node.
    alike: Vec<BTreeMap<u32, u32>>,
    /// Rows by the numbers of what they share.
    known: BTreeMap<Vec<u32>, usize>,
    key: Vec<u32>,
}

impl<'a> Residents<'a> {
    /// For a question about these VMs.
    #[must_use]
    pub fn of(vms: &'a [VmFacts]) -> Self {
        let [mut labels, mut together, mut apart] = [(); 3].map(|()| Words::default());
        for vm in vms {
            vm.labels.iter().for_each(|(key, value)| _ = labels.add((key, value)));
            vm.affinity.together.iter().for_each(|word| _ = together.add((word, "")));
            vm.affinity.apart.iter().for_each(|word| _ = apart.add((word, "")));
        }
        let (rows, alike, known, key) = (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
        Self { labels, together, apart, rows, alike, known, key }
    }

    /// One that stays on the node.
    pub fn add(
        &mut self,
        vm: &str,
        node: u32,
        labels: &BTreeMap<String, String>,
        affinity: &Affinity,
    ) {
        self.key.clear();
        let shared = labels.iter().filter_map(|(key, value)| self.labels.find((key, value)));
        self.key.extend(shared.map(number));
        for (words, own) in [(&self.together, &affinity.together), (&self.apart, &affinity.apart)] {
            self.key.push(u32::MAX);
            self.key.extend(own.iter().filter_map(|word| words.find((word, ""))).map(number));
        }
        if self.key.len() == 2 {
            return;
        }
        if let Some(row) = self.known.get(&self.key) {
            let row = *row;
            let many = self.alike[row].entry(node).or_insert(0_u32);
            *many = many.saturating_add(1);
            return;
        }
        self.known.insert(self.key.clone(), self.rows.len());
        self.rows.push(self.row(vm, node, labels, affinity));
        self.alike.push(BTreeMap::new());
    }

    /// All rows, in the order in which the first of each was added.
    #[must_use]
    pub fn rows(mut self) -> Vec<Resident> {
        for (row, alike) in self.rows.iter_mut().zip(self.alike) {
            row.alike = alike.into_iter().collect();
        }
        self.rows
    }

    fn row(
        &self,
        vm: &str,
        node: u32,
        labels: &BTreeMap<String, String>,
        affinity: &Affinity,
    ) -> Resident {
        let shared = labels.iter().filter(|(key, value)| self.labels.find((key, value)).is_some());
        let words = |known: &Words<'_>, own: &BTreeSet<String>| {
            own.iter().filter(|word| known.find((word, "")).is_some()).cloned().collect()
        };
        Resident {
            vm: vm.to_string(),
            node,
            labels: shared.map(|(key, value)| (key.clone(), value.clone())).collect(),
            affinity: Affinity {
                together: words(&self.together, &affinity.together),
                apart: words(&self.apart, &affinity.apart),
                ..Affinity::default()
            },
            alike: Vec::new(),
        }
    }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Dice, Generate};
    use crate::situation::Situation;
    use crate::wire::PlacementQuestion;

    fn gathered(question: &PlacementQuestion) -> PlacementQuestion {
        let mut residents = Residents::of(&question.vms);
        for it in &question.residents {
            for (node, many) in it.standing() {
                (0..many).for_each(|_| residents.add(&it.vm, node, &it.labels, &it.affinity));
            }
        }
        PlacementQuestion { residents: residents.rows(), ..question.clone() }
    }

    #[test]
    fn a_policy_sees_the_same_with_all_residents_and_with_those_that_matter() {
        let mut dice = Dice::new(17);
        let mut fewer = 0;
        for _ in 0..400 {
            let all = PlacementQuestion::random(&mut dice);
            let few = gathered(&all);
            fewer += usize::from(few.residents.len() < all.residents.len());
            let (one, other) = (Situation::new(&all), Situation::new(&few));
            for vm in &all.vms {
                for key in vm.labels.keys() {
                    for node in 0..16 {
                        assert_eq!(one.peers(vm, key, node), other.peers(vm, key, node));
                    }
                }
                for node in 0..16 {
                    assert_eq!(one.adversaries(vm, node), other.adversaries(vm, node));
                    let away = |it: &Situation<'_>| it.is_away_from_its_own(vm, node);
                    assert_eq!(away(&one), away(&other));
                }
            }
        }
        assert!(fewer > 300, "only {fewer}");
    }

    #[test]
    fn those_alike_make_one_row_and_those_with_nothing_in_common_none() {
        let label = |value: &str| BTreeMap::from([("group".to_string(), value.to_string())]);
        let vms = [VmFacts { labels: label("web"), ..VmFacts::default() }];
        let mut residents = Residents::of(&vms);
        let none = Affinity::default();
        for (vm, node, group) in [("a", 1, "web"), ("b", 1, "web"), ("c", 2, "web"), ("d", 1, "db")]
        {
            residents.add(vm, node, &label(group), &none);
        }
        let rows = residents.rows();
        assert_eq!((rows.len(), rows[0].vm.as_str(), rows[0].node), (1, "a", 1));
        assert_eq!(rows[0].alike, [(1, 1), (2, 1)]);
    }
}
