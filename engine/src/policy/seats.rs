//! Which generation decides which kind: the files of the folder, and one seat a kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::generation::Generation;
use super::status::StageTime;
use super::{Failure, Kind, Limits, PolicyStatus, State};

/// All that is known of the folder and of who decides.
#[derive(Default)]
pub(super) struct Book {
    pub(super) files: BTreeMap<String, FileEntry>,
    seats: [Seat; 3],
    generations: u64,
}

/// One file, present or gone.
#[derive(Default)]
pub(super) struct FileEntry {
    /// What was tried last; the same again is not tried again.
    pub(super) tried: Option<([u8; 32], bool)>,
    /// The newest content that passed.
    pub(super) newest: Option<Arc<Generation>>,
    pub(super) stages: Vec<StageTime>,
    pub(super) failure: Option<Failure>,
    pub(super) present: bool,
}

/// Who decides a kind.
#[derive(Default)]
struct Seat {
    active: Option<Arc<Generation>>,
    last_good: Option<Arc<Generation>>,
    ambiguous: bool,
}

/// One candidate for a question, best first.
pub(super) struct Rung {
    pub(super) generation: Arc<Generation>,
    pub(super) last_good: bool,
}

impl Book {
    /// Numbers a new generation and makes it its file's newest.
    pub(super) fn admit(&mut self, mut generation: Generation) {
        self.generations += 1;
        generation.number = self.generations;
        let entry = self.files.entry(generation.file.clone()).or_default();
        entry.newest = Some(Arc::new(generation));
    }

    /// Gives every kind to the policy that the folder's files name for it.
    pub(super) fn assign(&mut self, limits: &Limits) {
        for kind in Kind::ALL {
            let (custom, default) = self.claimants(kind);
            let seat = &mut self.seats[kind.seat()];
            seat.ambiguous = custom.len() > 1;
            let chosen = match custom.as_slice() {
                [one] => Some(one),
                [] => default.as_slice().first(),
                _ if seat.active.is_none() => default.as_slice().first(),
                _ => None,
            };
            if let Some(chosen) = chosen {
                seat.take(kind, chosen, limits);
            }
        }
        self.forget_the_gone();
    }

    /// The generations to ask, best first.
    pub(super) fn rungs(&self, kind: Kind) -> Vec<Rung> {
        let seat = &self.seats[kind.seat()];
        let active = seat.active.iter().map(|it| (it, self.is_outdated(it)));
        let before = seat.last_good.iter().map(|it| (it, true));
        let rung = |(it, last_good): (&Arc<Generation>, bool)| Rung {
            generation: Arc::clone(it),
            last_good,
        };
        active.chain(before).map(rung).collect()
    }

    /// Digest of who would be asked first.
    pub(super) fn digest(&self, kind: Kind, limits: &Limits) -> [u8; 32] {
        let first = self.first(kind, limits);
        first.map_or_else(|| kind.twin_digest(), |rung| rung.generation.digests.all)
    }

    pub(super) fn status(&self, limits: &Limits) -> Vec<PolicyStatus> {
        let mut all: Vec<_> = Kind::ALL
            .into_iter()
            .map(|kind| PolicyStatus::built_in(kind, self.first(kind, limits).is_none()))
            .collect();
        for (file, entry) in &self.files {
            self.status_of_file(file, entry, limits, &mut all);
        }
        for kind in Kind::ALL {
            // Generations that no file holds any more.
            let missing = |rung: &Rung| !self.is_newest(&rung.generation);
            for rung in self.rungs(kind).into_iter().filter(missing) {
                all.push(self.status_of(&rung.generation, kind, limits));
            }
        }
        all.sort_by(|a, b| (a.kind, a.generation, &a.file).cmp(&(b.kind, b.generation, &b.file)));
        all
    }

    fn status_of_file(
        &self,
        file: &str,
        entry: &FileEntry,
        limits: &Limits,
        all: &mut Vec<PolicyStatus>,
    ) {
        let kinds = entry.newest.iter().flat_map(|it| it.kinds.iter().map(move |kind| (it, *kind)));
        for (generation, kind) in kinds {
            let mut status = self.status_of(generation, kind, limits);
            status.stages.clone_from(&entry.stages);
            all.push(status);
        }
        if let Some(failure) = &entry.failure {
            let mut status = PolicyStatus::empty(file, State::Failed);
            status.stages.clone_from(&entry.stages);
            status.last_error = Some(failure.clone());
            all.push(status);
        }
    }

    fn status_of(&self, it: &Arc<Generation>, kind: Kind, limits: &Limits) -> PolicyStatus {
        let seat = &self.seats[kind.seat()];
        let active = seat.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, it));
        let before = seat.last_good.as_ref().is_some_and(|before| Arc::ptr_eq(before, it));
        let state = match () {
            () if it.is_suspended(kind, limits) => State::Suspended,
            () if active && self.is_outdated(it) => State::LastGood,
            () if active => State::Active,
            () if before => State::LastGood,
            () if seat.ambiguous && !it.is_default() => State::Ambiguous,
            () => State::Standby,
        };
        let first = self.first(kind, limits);
        let deciding = first.is_some_and(|first| Arc::ptr_eq(&first.generation, it));
        PolicyStatus::of(it, kind, state, deciding)
    }

    fn first(&self, kind: Kind, limits: &Limits) -> Option<Rung> {
        self.rungs(kind).into_iter().find(|rung| !rung.generation.is_suspended(kind, limits))
    }

    /// Custom and default policies of the kind whose files are there, each content once.
    fn claimants(&self, kind: Kind) -> (Vec<Arc<Generation>>, Vec<Arc<Generation>>) {
        let there = self.files.values().filter(|entry| entry.present);
        let mut all: Vec<_> = there.filter_map(|entry| entry.newest.clone()).collect();
        all.retain(|generation| generation.kinds.contains(&kind));
        all.sort_by_key(|generation| (generation.digests.all, generation.number));
        all.dedup_by_key(|generation| generation.digests.all);
        // Of several shipped ones, the one loaded last.
        all.sort_by_key(|generation| std::cmp::Reverse(generation.number));
        all.into_iter().partition(|generation| !generation.is_default())
    }

    fn is_newest(&self, it: &Arc<Generation>) -> bool {
        let newest = self.files.get(&it.file).and_then(|entry| entry.newest.as_ref());
        newest.is_some_and(|newest| Arc::ptr_eq(newest, it))
    }

    /// Whether its file is gone, or holds something else by now.
    fn is_outdated(&self, it: &Arc<Generation>) -> bool {
        let entry = self.files.get(&it.file);
        !entry.is_some_and(|entry| entry.present && entry.failure.is_none()) || !self.is_newest(it)
    }

    fn forget_the_gone(&mut self) {
        self.files.retain(|_, entry| entry.present);
    }
}

impl Seat {
    fn take(&mut self, kind: Kind, chosen: &Arc<Generation>, limits: &Limits) {
        let same = |it: &Arc<Generation>| it.digests == chosen.digests;
        if self.active.as_ref().is_some_and(same) {
            // The same under another name, or put back after something else.
            self.active = Some(Arc::clone(chosen));
            return;
        }
        let before = self.active.replace(Arc::clone(chosen));
        if before.as_ref().is_some_and(|before| !before.is_suspended(kind, limits)) {
            self.last_good = before;
        }
        if self.last_good.as_ref().is_some_and(same) {
            self.last_good = None;
        }
    }
}
