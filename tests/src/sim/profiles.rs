//! Profiles of faults: each aims at one kind of trouble. `cargo sim swarm --focus NAME` tries one, `cargo sim mutants` hunts
//! planted bugs with them.

use super::aims::Trigger;
use super::faults::Kind;
use super::focus::Focus;
use super::plan::Class;
use super::policy::Mood;
use super::scenes::Scene;

/// Leaders lose storage, network or their agent in the middle of a commit, and what they wrote lands late.
pub const LOST_COMMITS: Focus = Focus::at(
    "lost-commits",
    &[
        Kind::StallSome,
        Kind::LateWrites,
        Kind::Isolate,
        Kind::GuestDies,
        Kind::FailStarts,
        Kind::FastReboot,
    ],
)
.when(
    &[Trigger::WritesBody, Trigger::Commits, Trigger::Leads, Trigger::Confirms],
    &[Kind::Isolate, Kind::StallSome, Kind::LateWrites, Kind::PauseAgent],
)
.fast();

/// Terms begin while their claimants are stopped.
pub const RIVALS: Focus = Focus::at(
    "rivals",
    &[Kind::CrashAgent, Kind::PauseAgent, Kind::CorosyncLoss, Kind::SlowStorage],
)
.when(
    &[Trigger::Confirms, Trigger::Closes, Trigger::Leads],
    &[Kind::PauseAgent, Kind::PauseNode, Kind::CrashAgent, Kind::SlowStorage],
)
.fast();

/// Nodes lose everything and only time proves them dead.
pub const BURIED: Focus =
    Focus::at("buried", &[Kind::Entomb, Kind::Isolate, Kind::StopsHang]).without_fencing();

/// Nodes that hear some others and have no storage, or the other way round.
pub const HALF_CONNECTED: Focus = Focus::at(
    "half-connected",
    &[Kind::Partition, Kind::StallSome, Kind::Isolate, Kind::Flapping, Kind::SlowStorage],
)
.without_fencing()
.fast();

/// Nodes that only the network loses, and whose fence agents are at hand.
pub const CUT_OFF: Focus =
    Focus::at("cut-off", &[Kind::CorosyncLoss, Kind::Partition]).with_fencing().fast();

/// Agents and nodes come back while others judge what they were.
pub const RESTARTS: Focus = Focus::at(
    "restarts",
    &[Kind::CrashAgent, Kind::FastReboot, Kind::Isolate, Kind::StallSome, Kind::Entomb],
)
.without_fencing()
.fast();

/// Storage that is slow, fails or serves old pages.
pub const BAD_STORAGE: Focus = Focus::at(
    "bad-storage",
    &[
        Kind::FailSome,
        Kind::SlowStorage,
        Kind::StaleReads,
        Kind::Isolate,
        Kind::Partition,
        Kind::LateWrites,
    ],
)
.without_fencing()
.fast();

/// Starts take long, and their nodes and agents get into trouble meanwhile.
pub const SLOW_STARTS: Focus = Focus::at(
    "slow-starts",
    &[
        Kind::SlowStarts,
        Kind::FailStarts,
        Kind::CrashAgent,
        Kind::Isolate,
        Kind::StallSome,
        Kind::GuestDies,
    ],
)
.when(
    &[Trigger::Starts, Trigger::HandOver, Trigger::Orders, Trigger::GuestAppears],
    &[Kind::CrashAgent, Kind::Isolate, Kind::StallSome, Kind::PauseAgent],
)
.fast();

/// Owners give VMs up, crash and lose touch.
pub const FAILING_STARTS: Focus = Focus::at(
    "failing-starts",
    &[
        Kind::FailStarts,
        Kind::GuestDies,
        Kind::CrashAgent,
        Kind::CorosyncLoss,
        Kind::StallSome,
        Kind::SlowNetwork,
        Kind::LateLeaves,
    ],
)
.when(
    &[Trigger::Starts, Trigger::Orders, Trigger::WritesBody],
    &[Kind::CrashAgent, Kind::StallSome, Kind::SlowNetwork, Kind::PauseAgent],
)
.fast();

/// Fence agents fail, hang and are late.
pub const BAD_FENCES: Focus = Focus::at(
    "bad-fences",
    &[Kind::FenceDown, Kind::SlowFences, Kind::Entomb, Kind::Isolate, Kind::PauseAgent],
)
.when(&[Trigger::Fences, Trigger::Evicts], &[Kind::PauseAgent, Kind::Isolate])
.with_fencing()
.fast();

/// Storage fails for everybody, and nothing else.
pub const OUTAGES: Focus = Focus::any("outages").class(Class::StorageForAll);

/// Policies never answer.
pub const SILENT_POLICIES: Focus = Focus::any("silent-policies").policies(Mood::Silent);

/// A guest's end becomes known when the next one runs already.
pub const LATE_EXITS: Focus = Focus::at(
    "late-exits",
    &[Kind::LateExits, Kind::GuestDies, Kind::GuestDies, Kind::StopsHang, Kind::Isolate],
)
.without_fencing()
.fast();

/// See [`Scene::Usurped`].
pub const USURPED: Focus = Focus::scene("usurped", Scene::Usurped);
/// See [`Scene::Straddled`].
pub const STRADDLED: Focus = Focus::scene("straddled", Scene::Straddled);
/// See [`Scene::SlowCommits`].
pub const SLOW_COMMITS: Focus = Focus::scene("slow-commits", Scene::SlowCommits);
/// See [`Scene::SlowReader`].
pub const SLOW_READER: Focus =
    Focus::scene("slow-reader", Scene::SlowReader).without_fencing().nodes(3);
/// See [`Scene::SlowReaders`].
pub const SLOW_READERS: Focus =
    Focus::scene("slow-readers", Scene::SlowReaders).without_fencing().nodes(3);
/// See [`Scene::Enrolled`].
pub const ENROLLED: Focus = Focus::scene("enrolled", Scene::Enrolled).without_fencing();
/// See [`Scene::SecondEviction`].
pub const SECOND_EVICTION: Focus =
    Focus::scene("second-eviction", Scene::SecondEviction).without_fencing().nodes(3);
/// See [`Scene::LateEviction`].
pub const LATE_EVICTION: Focus =
    Focus::scene("late-eviction", Scene::LateEviction).without_fencing().nodes(3);
/// See [`Scene::BlindLeader`].
pub const BLIND_LEADER: Focus =
    Focus::scene("blind-leader", Scene::BlindLeader).without_fencing().nodes(3);
/// See [`Scene::Returning`].
pub const RETURNING: Focus = Focus::scene("returning", Scene::Returning).without_fencing().nodes(3);
/// See [`Scene::StaleOrders`].
pub const STALE_ORDERS: Focus = Focus::scene("stale-orders", Scene::StaleOrders);
/// See [`Scene::MovedAway`].
pub const MOVED_AWAY: Focus = Focus::scene("moved-away", Scene::MovedAway);
/// See [`Scene::CrossedOrders`].
pub const CROSSED_ORDERS: Focus = Focus::scene("crossed-orders", Scene::CrossedOrders);

/// Operators want many things, and agents, guests and nodes die meanwhile.
pub const WISHES: Focus =
    Focus::at("wishes", &[Kind::GuestDies, Kind::CrashAgent, Kind::LibvirtRestart, Kind::PowerCut])
        .wished();

/// Every profile.
pub const ALL: &[Focus] = &[
    Focus::ANY,
    LOST_COMMITS,
    RIVALS,
    BURIED,
    HALF_CONNECTED,
    RESTARTS,
    BAD_STORAGE,
    SLOW_STARTS,
    FAILING_STARTS,
    BAD_FENCES,
    OUTAGES,
    SILENT_POLICIES,
    LATE_EXITS,
    CUT_OFF,
    USURPED,
    STRADDLED,
    SLOW_COMMITS,
    SLOW_READER,
    SECOND_EVICTION,
    LATE_EVICTION,
    BLIND_LEADER,
    RETURNING,
    STALE_ORDERS,
    MOVED_AWAY,
    CROSSED_ORDERS,
    SLOW_READERS,
    ENROLLED,
    WISHES,
];

/// The profile of this name.
#[must_use]
pub fn find(name: &str) -> Option<Focus> {
    ALL.iter().copied().find(|focus| focus.name == name)
}
