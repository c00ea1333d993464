//! All that is known of the folder and of who decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::generation::Generation;
use super::load::Fingerprint;
use super::seats::{Seat, same};
use super::settings::Settings;
use super::status::{KindStatus, PoliciesStatus, StageTime};
use super::{Failure, Kind, PolicyStatus, State};

/// The folder's files, and one seat a kind.
#[derive(Default)]
pub(super) struct Book {
    pub(super) files: BTreeMap<String, FileEntry>,
    pub(super) seats: [Seat; 3],
    generations: u64,
}

/// One file.
#[derive(Default)]
pub(super) struct FileEntry {
    /// What was tried last; the same again is not tried again.
    pub(super) tried: Option<Fingerprint>,
    /// The newest content that passed.
    pub(super) newest: Option<Arc<Generation>>,
    /// Stages of the last attempt.
    pub(super) stages: Vec<StageTime>,
    pub(super) failure: Option<Failure>,
    pub(super) present: bool,
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
    pub(super) fn assign(&mut self, settings: &Settings) {
        for kind in Kind::ALL {
            self.seats[kind.seat()].assign(kind, &self.files, settings);
        }
        self.files.retain(|_, entry| entry.present);
    }

    pub(super) fn seat(&self, kind: Kind) -> &Seat {
        &self.seats[kind.seat()]
    }

    /// The generations to ask, best first.
    pub(super) fn rungs(&self, kind: Kind) -> Vec<Rung> {
        let seat = self.seat(kind);
        let is_active = |it: &Arc<Generation>| {
            seat.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, it))
        };
        let rung = |it: &Arc<Generation>| Rung {
            generation: Arc::clone(it),
            last_good: !is_active(it) || self.is_outdated(it) && seat.turned_away.is_none(),
        };
        seat.ladder().map(rung).collect()
    }

    /// The one generation of this digest.
    pub(super) fn rung_of(&self, kind: Kind, digest: [u8; 32]) -> Option<Rung> {
        let generation = Arc::clone(self.seat(kind).of_digest(digest)?);
        Some(Rung { generation, last_good: false })
    }

    /// Digest of who would be asked first.
    pub(super) fn digest(&self, kind: Kind, settings: &Settings) -> [u8; 32] {
        let first = self.first(kind, settings);
        first.map_or_else(|| kind.twin_digest(), |first| first.digests.all)
    }

    /// Those that are asked without deciding.
    pub(super) fn shadows(&self, kind: Kind, settings: &Settings) -> Vec<Arc<Generation>> {
        let decides = self.first(kind, settings);
        let wanted = |it: &&Arc<Generation>| {
            settings.shadow.wants(&it.manifest.name, &it.file)
                && it.kinds.contains(&kind)
                && !decides.as_ref().is_some_and(|first| same(first, it))
        };
        self.files
            .values()
            .filter_map(|entry| entry.newest.as_ref())
            .filter(wanted)
            .cloned()
            .collect()
    }

    pub(super) fn status(&self, settings: &Settings) -> PoliciesStatus {
        let kinds = Kind::ALL.map(|kind| self.status_of_kind(kind, settings)).into();
        let failed = |(file, entry): (&String, &FileEntry)| {
            let mut status = PolicyStatus::empty(file, State::Failed);
            status.last_error = Some(entry.failure.clone()?);
            status.stages.clone_from(&entry.stages);
            Some(status)
        };
        PoliciesStatus { kinds, failed: self.files.iter().filter_map(failed).collect() }
    }

    /// Every generation for the kind that is still there.
    pub(super) fn known(&self, kind: Kind) -> Vec<Arc<Generation>> {
        let mut known: Vec<Arc<Generation>> = self.seat(kind).ladder().cloned().collect();
        for newest in self.files.values().filter_map(|entry| entry.newest.as_ref()) {
            let is_it = |it: &Arc<Generation>| Arc::ptr_eq(it, newest);
            if newest.kinds.contains(&kind) && !known.iter().any(is_it) {
                known.push(Arc::clone(newest));
            }
        }
        known.sort_by_key(|it| it.number);
        known
    }

    fn status_of_kind(&self, kind: Kind, settings: &Settings) -> KindStatus {
        let seat = self.seat(kind);
        let first = self.first(kind, settings);
        let known = self.known(kind);
        let shadows = self.shadows(kind, settings);
        let mut policies = vec![PolicyStatus::built_in(kind, first.is_none())];
        policies.extend(known.iter().map(|it| {
            let mut status = self.status_of(it, kind, settings);
            status.deciding = first.as_ref().is_some_and(|first| Arc::ptr_eq(first, it));
            status.shadow = shadows.iter().any(|shadow| Arc::ptr_eq(shadow, it));
            status
        }));
        KindStatus {
            bind: settings.bind.get(&kind).cloned(),
            ambiguous: seat.ambiguous,
            rolled_back_from: seat
                .turned_away
                .as_ref()
                .map(|it| super::generation::hex(&it.digest)),
            policies,
            ..KindStatus::new(kind)
        }
    }

    fn status_of(&self, it: &Arc<Generation>, kind: Kind, settings: &Settings) -> PolicyStatus {
        let seat = self.seat(kind);
        let active = seat.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, it));
        let before = seat.earlier.iter().any(|before| Arc::ptr_eq(before, it));
        let state = match () {
            () if seat.is_turned_away(it) => State::RolledBack,
            () if it.is_suspended(kind, &settings.limits) => State::Suspended,
            () if active && self.is_outdated(it) && seat.turned_away.is_none() => State::LastGood,
            () if active => State::Active,
            () if before => State::LastGood,
            () if seat.ambiguous && !it.is_default() => State::Ambiguous,
            () => State::Standby,
        };
        PolicyStatus::of(it, kind, state, &settings.limits)
    }

    pub(super) fn first(&self, kind: Kind, settings: &Settings) -> Option<Arc<Generation>> {
        let mut ladder = self.seat(kind).ladder();
        ladder.find(|it| !it.is_suspended(kind, &settings.limits)).cloned()
    }

    /// Whether its file is gone, or holds something else by now.
    fn is_outdated(&self, it: &Arc<Generation>) -> bool {
        let entry = self.files.get(&it.file);
        let there = entry.filter(|entry| entry.present && entry.failure.is_none());
        let newest = there.and_then(|entry| entry.newest.as_ref());
        !newest.is_some_and(|newest| Arc::ptr_eq(newest, it))
    }
}

/// Custom and default policies of the kind whose files are there, each content once; of several shipped ones, the one
/// loaded last comes first.
pub(super) fn claimants(
    files: &BTreeMap<String, FileEntry>,
    kind: Kind,
) -> (Vec<Arc<Generation>>, Vec<Arc<Generation>>) {
    let there = files.values().filter(|entry| entry.present);
    let mut all: Vec<_> = there.filter_map(|entry| entry.newest.clone()).collect();
    all.retain(|generation| generation.kinds.contains(&kind));
    all.sort_by_key(|generation| (generation.digests.all, generation.number));
    all.dedup_by_key(|generation| generation.digests.all);
    all.sort_by_key(|generation| std::cmp::Reverse(generation.number));
    all.into_iter().partition(|generation| !generation.is_default())
}
