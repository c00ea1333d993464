//! Which generation decides which kind: one seat a kind, with the generations before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::book::claimants;
use super::generation::Generation;
use super::settings::{Settings, is_called};
use super::{Kind, Limits};

/// So many generations before the active one are kept for rollback and as last good ones.
const KEPT: usize = 3;

/// Who decides a kind.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) active: Option<Arc<Generation>>,
    /// Those that were active before, the newest last.
    pub(super) earlier: Vec<Arc<Generation>>,
    /// Several policies claim the kind and none is bound.
    pub(super) ambiguous: bool,
    /// What an operator turned away; it stays so until the folder says something else.
    pub(super) turned_away: Option<TurnedAway>,
}

/// A generation that an operator rolled back from.
#[derive(Clone)]
pub(super) struct TurnedAway {
    pub(super) digest: [u8; 32],
    /// Itself, if this agent has ever loaded it.
    pub(super) generation: Option<Arc<Generation>>,
    /// It decides on other nodes, and is still to come here: that the folder says something else means nothing yet.
    pub(super) expected: bool,
}

/// What the folder's files say of one kind.
pub(super) enum Choice {
    /// This one.
    One(Arc<Generation>),
    /// Whoever decides goes on: nobody claims it, several do, or the bound one is not there.
    AsBefore,
}

impl Seat {
    /// Gives the seat to the policy that the folder names for it.
    pub(super) fn assign(
        &mut self,
        kind: Kind,
        files: &BTreeMap<String, super::book::FileEntry>,
        settings: &Settings,
    ) {
        let (custom, default) = claimants(files, kind);
        self.ambiguous = !settings.bind.contains_key(&kind) && custom.len() > 1;
        let chosen = match choose(kind, &custom, &default, settings) {
            Choice::One(chosen) if self.is_turned_away(&chosen) => {
                self.turned_away.iter_mut().for_each(|away| {
                    (away.expected, away.generation) = (false, Some(Arc::clone(&chosen)));
                });
                self.instead(custom, &default)
            }
            Choice::One(chosen) => {
                let as_before = self.active.as_ref().is_some_and(|active| same(active, &chosen));
                // The folder says something else than what an operator turned away.
                self.turned_away.take_if(|away| !(away.expected && as_before));
                Some(chosen)
            }
            Choice::AsBefore if self.active.is_none() => default.first().cloned(),
            Choice::AsBefore => None,
        };
        if let Some(chosen) = chosen {
            self.take(kind, &chosen, &settings.limits);
        }
    }

    /// While the folder names what was turned away: whoever decides, else what is left.
    fn instead(
        &self,
        custom: Vec<Arc<Generation>>,
        default: &[Arc<Generation>],
    ) -> Option<Arc<Generation>> {
        if self.active.is_some() {
            return None;
        }
        let mut left = custom.into_iter().chain(default.iter().cloned());
        left.find(|it| !self.is_turned_away(it))
    }

    pub(super) fn is_turned_away(&self, it: &Generation) -> bool {
        self.turned_away.as_ref().is_some_and(|away| away.digest == it.digests.all)
    }

    fn take(&mut self, kind: Kind, chosen: &Arc<Generation>, limits: &Limits) {
        let before = self.active.replace(Arc::clone(chosen));
        // The same under another name, or put back after something else, is no news.
        let before = before.filter(|it| !same(it, chosen) && !it.is_suspended(kind, limits));
        self.earlier.extend(before);
        self.earlier.retain(|it| !same(it, chosen));
        let surplus = self.earlier.len().saturating_sub(KEPT);
        self.earlier.drain(..surplus);
    }

    /// Puts the generation before the active one in its place; the agent's own if there is none. `None`: the agent's
    /// own decides already.
    pub(super) fn roll_back(&mut self) -> Option<Arc<Generation>> {
        let from = self.active.take()?;
        self.active = self.earlier.pop();
        let (digest, generation) = (from.digests.all, Some(Arc::clone(&from)));
        self.turned_away.get_or_insert(TurnedAway { digest, generation, expected: false });
        Some(from)
    }

    /// Turns one generation away, whoever decides here: an operator who saw it decide elsewhere means that one, and may be faster
    /// than this node's loading.
    pub(super) fn turn_away(&mut self, digest: [u8; 32]) {
        if self.active.as_ref().is_some_and(|active| active.digests.all == digest) {
            self.roll_back();
            return;
        }
        let is_it = |it: &Arc<Generation>| it.digests.all == digest;
        let known = self.earlier.iter().position(is_it).map(|index| self.earlier.remove(index));
        if known.is_none() && self.turned_away.as_ref().is_none_or(|away| away.digest != digest) {
            self.turned_away = Some(TurnedAway { digest, generation: None, expected: true });
        }
    }

    /// What was turned away may decide again; false: nothing was.
    pub(super) fn forgive(&mut self, kind: Kind, limits: &Limits) -> bool {
        let Some(away) = self.turned_away.take() else { return false };
        if let Some(generation) = away.generation {
            self.take(kind, &generation, limits);
        }
        true
    }

    /// The generations to ask, best first.
    pub(super) fn ladder(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.active.iter().chain(self.earlier.iter().rev())
    }

    /// The generation of this digest, if it is still there.
    pub(super) fn of_digest(&self, digest: [u8; 32]) -> Option<&Arc<Generation>> {
        let away = self.turned_away.iter().filter_map(|away| away.generation.as_ref());
        self.ladder().chain(away).find(|it| it.digests.all == digest)
    }
}

/// Both are the same module with the same parameters under the same limits.
pub(super) fn same(a: &Generation, b: &Generation) -> bool {
    a.digests == b.digests
}

fn choose(
    kind: Kind,
    custom: &[Arc<Generation>],
    default: &[Arc<Generation>],
    settings: &Settings,
) -> Choice {
    let one = |it: &Arc<Generation>| Choice::One(Arc::clone(it));
    if let Some(bound) = settings.bind.get(&kind) {
        let mut all = custom.iter().chain(default);
        let found = all.find(|it| is_called(bound, &it.manifest.name, &it.file));
        return found.map_or(Choice::AsBefore, one);
    }
    match custom {
        [only] => one(only),
        [] => default.first().map_or(Choice::AsBefore, one),
        _ => Choice::AsBefore,
    }
}
