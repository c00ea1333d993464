//! Coverage: what has happened at all, by group. A state of the protocol that no seed ever reaches is not tested.

use super::chain::fresh;
use super::faults::Kind as Fault;
use super::policy::Mood;
use super::wishes::Wanted;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use steadfast_core::decision::{Decision, Kind};
use steadfast_core::ledger::{EvictionReason, Ledger, Proof};
use steadfast_core::message::Body;
use steadfast_core::snapshot::Status;

/// Points seen, by group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Coverage {
    seen: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Coverage {
    fn add(&mut self, group: &'static str, point: &str) {
        let points = self.seen.entry(group).or_default();
        if !points.contains(point) {
            points.insert(point.to_owned());
        }
    }
}

/// In how many seeds each point was seen.
#[derive(Debug, Default, Clone)]
pub struct Atlas {
    points: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Atlas {
    /// An atlas of everything that should be seen, and never was.
    #[must_use]
    pub fn blank() -> Self {
        let mut atlas = Self::default();
        atlas.expect("statuses", STATUSES.iter().map(|status| status.words().into()));
        atlas.expect("proofs", words(PROOFS).chain(["GivenUp".into()]));
        atlas.expect("reasons", words(REASONS));
        atlas.expect("decisions", words(DECISIONS));
        atlas.expect("messages", MESSAGES.iter().map(|name| (*name).into()));
        atlas.expect("moods", words(&Mood::ALL[..7]));
        atlas.expect("faults", words(&Fault::SWARM));
        atlas.expect("wishes", words(&Wanted::ALL));
        atlas.expect("wishes", words(&[Wanted::StopHost]));
        for (group, points) in OTHERS {
            atlas.expect(group, points.iter().map(|point| (*point).into()));
        }
        atlas
    }

    fn expect(&mut self, group: &'static str, points: impl Iterator<Item = String>) {
        self.points.entry(group).or_default().extend(points.map(|point| (point, 0)));
    }

    /// One seed more, with these faults.
    pub fn add<'a>(&mut self, coverage: &Coverage, faults: impl Iterator<Item = &'a Fault>) {
        let seen = self.points.entry("faults").or_default();
        faults.for_each(|fault| *seen.entry(format!("{fault:?}")).or_default() += 1);
        for (group, points) in &coverage.seen {
            let group = self.points.entry(group).or_default();
            for point in points {
                *group.entry(point.clone()).or_default() += 1;
            }
        }
    }

    /// What two saw together.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (group, points) in other.points {
            let group = self.points.entry(group).or_default();
            for (point, seeds) in points {
                *group.entry(point).or_default() += seeds;
            }
        }
        self
    }

    /// Lines for people, and what was never seen.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |(group, points): (&&str, &BTreeMap<String, u64>)| {
            let seen = points.iter().filter(|(_, seeds)| **seeds > 0);
            let seen: Vec<_> = seen.map(|(point, seeds)| format!("{point} {seeds}")).collect();
            let never: Vec<_> =
                points.iter().filter(|(_, seeds)| **seeds == 0).map(|(p, _)| p.as_str()).collect();
            let mut line = format!("{group:<14}{}", seen.join(", "));
            if !never.is_empty() {
                line += &format!("; NEVER SEEN: {}", never.join(", "));
            }
            line
        };
        self.points.iter().map(line).collect()
    }
}

fn words<T: Debug>(items: &[T]) -> impl Iterator<Item = String> {
    items.iter().map(|item| format!("{item:?}"))
}

/// Every variant, so that none can be forgotten: one that is missing here does not compile.
macro_rules! every {
    ($name:ident: $kind:ident [$($variant:ident),* $(,)?]) => {
        const $name: &[$kind] = &[$($kind::$variant),*];
        const _: fn($kind) = |one| match one { $($kind::$variant => {})* };
    };
}

every!(STATUSES: Status [
    Leader, Member, Joining, Suspect, NetworkIsolation, StorageIsolation, FullFailure, Excluded,
    Evicted, NoQuorum, StorageOutage, NetworkUnstable, Maintenance, Disarmed,
]);

every!(PROOFS: Proof [NoneLeft, Fenced, BootChanged, TimeExpired]);

every!(REASONS: EvictionReason [
    FullFailure, NetworkIsolation, StorageIsolation, Rebooted, Removed,
]);

every!(DECISIONS: Kind [
    Suspected, Status, Election, Elected, Deposed, Evicted, FenceOrdered, Fenced, Proved, Admitted,
    Decided, Waiting, StartOrdered, StartRefused, StartFailed, VmRunning, VmExited, VmStopped, Lease,
    Reset, LastWords, Enrolment, Membership, Wish, VmFailed, Migration, Maintenance, Risk, Disarm,
    Policy, Level, Alarm,
]);

/// Every message but beats, which there are in every seed. See [`World::cover_message`].
const MESSAGES: [&str; 10] = [
    "Ballot",
    "Close",
    "Committed",
    "Confirm",
    "Decline",
    "Leading",
    "MigrateVm",
    "Reply",
    "Request",
    "StartVm",
];

/// Points of the world itself.
const OTHERS: [(&str, &[&str]); 7] = [
    ("migrations", &["aborted", "done", "failed", "refused", "resumed"]),
    ("fence agents", &["ordered", "succeeded", "failed", "hung", "hung, and had cut"]),
    ("feeds", &["refused"]),
    ("went down by", &["fault", "fence agent", "reset", "shutdown", "watchdog"]),
    ("starts", &["done", "failed", "lost with libvirtd", "too late"]),
    ("stops", &["in D state"]),
    ("sysrq", &["hangs"]),
];

impl World {
    /// Something has happened.
    pub fn cover(&mut self, group: &'static str, point: &str) {
        self.stats.coverage.add(group, point);
    }

    /// The same, for what has a name in the source only.
    pub fn cover_debug(&mut self, group: &'static str, point: impl Debug) {
        self.stats.coverage.add(group, &format!("{point:?}"));
    }

    /// A machine has recorded a decision.
    pub fn cover_record(&mut self, decision: &Decision) {
        self.cover_debug("decisions", decision.kind);
        if !matches!(decision.kind, Kind::Status | Kind::Suspected) {
            return;
        }
        let told = decision.text.split_once(" is ").map_or("", |(_, told)| told);
        let is_told = |status: &&Status| {
            told.strip_prefix(status.words()).is_some_and(|rest| !rest.starts_with(' '))
        };
        if let Some(status) = STATUSES.iter().find(is_told) {
            self.cover("statuses", status.words());
        }
    }

    /// A machine sends a message.
    pub fn cover_message(&mut self, body: &Body) {
        let name = match body {
            Body::Ballot(_) => "Ballot",
            Body::Close { .. } => "Close",
            Body::Committed(_) => "Committed",
            Body::Confirm { .. } => "Confirm",
            Body::Decline { .. } => "Decline",
            Body::Leading { .. } => "Leading",
            Body::Reply(_) => "Reply",
            Body::MigrateVm(_) => "MigrateVm",
            Body::Request(_) => "Request",
            Body::StartVm(_) => "StartVm",
            Body::Beat(_) => return,
        };
        self.cover("messages", name);
    }

    /// The ledger has changed.
    pub fn cover_change(&mut self, before: &Ledger, after: &Ledger) {
        let changed = fresh(before, after);
        for (node, eviction) in after.evictions() {
            let bit = 1_u64 << super::node::index(node).min(63);
            if changed.evicted & bit != 0 {
                self.cover_debug("reasons", eviction.reason);
            }
            if let Some(proof) = eviction.proof.filter(|_| changed.proved & bit != 0) {
                self.cover_debug("proofs", proof);
                self.cover("reason, proof", &format!("{:?} by {proof:?}", eviction.reason));
            }
        }
        for vm in &changed.moved {
            let owner = before.vms.get(vm).map(|entry| entry.owner);
            if owner.is_some_and(|owner| before.admission(owner).is_some()) {
                self.cover("proofs", "GivenUp");
            }
        }
    }
}
