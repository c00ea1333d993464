//! The feature level: how two releases work in one cluster while it is upgraded, a node at a time.
//!
//! Every node says on its page the highest level that it *speaks*. The ledger says which level is *in force*, and nobody uses
//! more than that. The leader raises it once every configured node's page says that it can read more: so the oldest
//! decides. It never falls: a release that does not speak it refuses the ledger, takes part in nothing and says why.
//!
//! Pages and messages may gain fields at any time, since older releases pass over what they do not know. What an older
//! release would lose when it writes (a field of the ledger), fail to read (a new variant) or do otherwise waits for its
//! level. A change that no level can bridge is a new major: `LEDGER_FORMAT`, `MESSAGE_FORMAT`, the format of blocks, the ABI's
//! of policies.
//!
//! | level | what it brings |
//! |---|---|
//! | 0 | everything of the first release |
//! | 1 | the priority of a VM is changed while it is under HA ([`Change::SetPriority`]); changes that a stale asker does not get ([`Change::AsOf`]) |

use crate::decision::Kind;
use crate::ids::NodeId;
use crate::ledger::Ledger;
use crate::liveness::Facts;
use crate::message::Change;
use crate::outbox::Note;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// A feature level.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FeatureLevel(pub u16);

impl FeatureLevel {
    /// What every release speaks.
    pub const OLDEST: Self = Self(0);
    /// What this release speaks.
    pub const NEWEST: Self = Self(1);

    /// For serde: what is not said is the oldest.
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn is_oldest(&self) -> bool {
        *self == Self::OLDEST
    }
}

impl core::fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Change {
    /// The level from which on every leader understands it.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        match self {
            Self::SetPriority { .. } => FeatureLevel(1),
            Self::AsOf { change, .. } => change.level().max(FeatureLevel(1)),
            _ => FeatureLevel::OLDEST,
        }
    }

    /// Why it cannot be asked for yet.
    pub(crate) fn refused_at(&self, in_force: FeatureLevel) -> Option<String> {
        (self.level() > in_force).then(|| {
            alloc::format!(
                "the cluster works at feature level {in_force}, this needs {}: finish the upgrade of every node \
                 (`steadfast status` says which speaks less)",
                self.level()
            )
        })
    }
}

/// What `node` speaks, as its page says; `None`: no page of it was seen.
pub(crate) fn spoken(node: NodeId, facts: &Facts<'_>) -> Option<FeatureLevel> {
    if node == facts.config.me.node {
        return Some(facts.config.level);
    }
    facts.heartbeat.seen(node).map(|seen| seen.page.level)
}

/// Raises the level to what every configured node speaks. True if it did.
pub(crate) fn raise(next: &mut Ledger, facts: &Facts<'_>, notes: &mut Vec<Note>) -> bool {
    // While a node comes or goes, one that the ledger does not name may still read it.
    if next.changing.is_some() || next.level >= facts.config.level {
        return false;
    }
    let heard = |node: &NodeId| {
        if mutant!(LevelOfTheLeaderAlone) {
            return facts.config.level;
        }
        spoken(*node, facts).unwrap_or_default()
    };
    let common = next.nodes.keys().map(heard).min().unwrap_or_default();
    if common <= next.level {
        return false;
    }
    let was = core::mem::replace(&mut next.level, common);
    let text = alloc::format!(
        "the cluster works at feature level {common} from now on, was {was}: every node speaks it, none of an older release may return"
    );
    notes.push(Note::new(Kind::Level, "PROTOCOL 3", text));
    true
}

#[cfg(test)]
#[path = "tests/feature_level.rs"]
mod tests;
