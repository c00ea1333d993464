//! Tallies: how many VMs with each word stand where.

use alloc::{collections::BTreeMap, string::String, vec, vec::Vec};
use core::cell::Cell;

use crate::wire::{NodeFacts, PlacementQuestion, Resident};
use crate::words::{Words, same};

/// How many VMs with each word stand in each failure domain, for each label of nodes that was asked for: kept up to date, so that an
/// answer is one look.
#[derive(Debug, Default)]
pub(crate) struct Domains(Vec<Domain>);

/// One label of nodes.
#[derive(Debug)]
pub(crate) struct Domain {
    label: String,
    /// The number of the domain at each place; `usize::MAX` is none.
    numbers: Vec<usize>,
    /// The places of each domain.
    members: Vec<Vec<usize>>,
    /// A count for each place and word. The places of a domain have the same: it is read far more often than a VM is placed.
    counts: Vec<u32>,
}

impl Domains {
    /// That of this label of nodes.
    pub(crate) fn of(&mut self, label: &str, nodes: &[NodeFacts], index: &Index<'_>) -> &Domain {
        let known = self.0.iter().position(|it| same(&it.label, label));
        let at = known.unwrap_or_else(|| {
            self.0.push(Domain::learn(label, nodes, index));
            self.0.len() - 1
        });
        &self.0[at]
    }

    /// So many more VMs with the word stand at the place.
    pub(crate) fn add_to(&mut self, word: usize, place: usize, many: u32) {
        self.0.iter_mut().for_each(|it| it.add_to(word, place, many));
    }
}

impl Domain {
    fn learn(label: &str, nodes: &[NodeFacts], index: &Index<'_>) -> Self {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(nodes.len());
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            let name = node.labels.get(label);
            let number = name.map(|name| *names.entry(name).or_insert(members.len()));
            members.resize(names.len(), Vec::new());
            number.into_iter().for_each(|number| members[number].push(place));
            numbers.push(number.unwrap_or(usize::MAX));
        }
        let counts = vec![0; nodes.len() * index.sums.len()];
        let mut new = Self { label: label.into(), numbers, members, counts };
        for word in 0..index.sums.len() {
            let tally = index.tally(word).iter().enumerate();
            let tally = tally.filter(|(_, many)| **many > 0);
            tally.for_each(|(place, many)| new.add_to(word, place, *many));
        }
        new
    }

    fn add_to(&mut self, word: usize, place: usize, many: u32) {
        // Places beyond are those of nodes that nobody asks about.
        let number = self.numbers.get(place).copied().unwrap_or(usize::MAX);
        let Some(members) = self.members.get(number) else { return };
        let from = word * self.numbers.len();
        let counts = &mut self.counts[from..from + self.numbers.len()];
        for place in members {
            counts[*place] = counts[*place].saturating_add(many);
        }
    }

    /// How many VMs with the word stand in the domain of each place, in the order of nodes.
    #[inline]
    pub(crate) fn all(&self, word: usize) -> &[u32] {
        let from = word * self.numbers.len();
        &self.counts[from..from + self.numbers.len()]
    }
}

/// Where each node stands in tallies: first those of the question in its order, then others that residents name.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) ids: Vec<u32>,
    /// Ids and places, see [`sorted_by_id`].
    sorted: Vec<u64>,
    pub(crate) here: Cell<usize>,
}

impl Places {
    pub(crate) fn of(question: &PlacementQuestion) -> Self {
        let mut ids: Vec<u32> = question.nodes.iter().map(|node| node.id).collect();
        let known = sorted_by_id(ids.iter().copied());
        let residents = question.residents.iter();
        let others = residents.flat_map(Resident::standing).map(|(node, _)| node);
        let mut others: Vec<u64> =
            others.filter(|id| find(&known, *id).is_none()).map(u64::from).collect();
        others.sort_unstable();
        others.dedup();
        ids.extend(others.into_iter().map(place_in));
        Self { sorted: sorted_by_id(ids.iter().copied()), ids, here: Cell::new(0) }
    }

    #[inline]
    pub(crate) fn of_id(&self, id: u32) -> Option<usize> {
        let here = self.here.get();
        if self.ids.get(here) == Some(&id) {
            return Some(here);
        }
        find(&self.sorted, id)
    }
}

/// Each id, in the upper half, with its place. One number each, since sorting those is code that is there already.
pub(crate) fn sorted_by_id(ids: impl Iterator<Item = u32>) -> Vec<u64> {
    let mut sorted: Vec<u64> = (0..).zip(ids).map(|(at, id)| u64::from(id) << 32 | at).collect();
    sorted.sort_unstable();
    sorted
}

/// The place that belongs to an id.
#[allow(clippy::cast_possible_truncation, reason = "only the lowest 32 bits are left")]
pub(crate) fn place_in(sorted: u64) -> u32 {
    sorted as u32
}

/// Of two nodes with one id, which no host asks, the first counts.
pub(crate) fn find(sorted: &[u64], id: u32) -> Option<usize> {
    let at = sorted.partition_point(|own| own >> 32 < u64::from(id));
    sorted.get(at).filter(|own| **own >> 32 == u64::from(id)).map(|own| place_in(*own) as usize)
}

/// How many VMs with each word stand at each place.
#[derive(Debug)]
pub(crate) struct Index<'q> {
    pub(crate) words: Words<'q>,
    pub(crate) width: usize,
    /// `width` counts a word.
    pub(crate) counts: Vec<u32>,
    /// All places together, also those that nobody asks about.
    pub(crate) sums: Vec<u32>,
}

impl<'q> Index<'q> {
    pub(crate) fn new(width: usize) -> Self {
        Self { words: Words::default(), width, counts: Vec::new(), sums: Vec::new() }
    }

    /// The word's number.
    pub(crate) fn add(&mut self, pair: (&'q str, &'q str)) -> usize {
        let word = self.words.add(pair);
        if word == self.sums.len() {
            self.sums.push(0);
            self.counts.resize(self.counts.len() + self.width, 0);
        }
        word
    }

    #[inline]
    pub(crate) fn tally(&self, word: usize) -> &[u32] {
        let from = word * self.width;
        &self.counts[from..from + self.width]
    }

    pub(crate) fn count_all(&mut self, pair: (&str, &str), row: &Resident, places: &Places) {
        let Some(word) = self.words.find(pair) else { return };
        row.standing().for_each(|(node, many)| self.add_to(word, places.of_id(node), many));
    }

    pub(crate) fn count(&mut self, pair: (&str, &str), place: Option<usize>) {
        let Some(word) = self.words.find(pair) else { return };
        self.add_to(word, place, 1);
    }

    pub(crate) fn add_to(&mut self, word: usize, place: Option<usize>, many: u32) {
        self.sums[word] = self.sums[word].saturating_add(many);
        let Some(place) = place else { return };
        let count = &mut self.counts[word * self.width + place];
        *count = count.saturating_add(many);
    }
}
