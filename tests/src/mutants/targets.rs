//! Which faults aim at which planted bug.

use crate::sim::aims::Trigger;
use crate::sim::faults::Kind;
use crate::sim::focus::Focus;
use crate::sim::plan::Class;
use crate::sim::policy::Mood;

/// How one planted bug is hunted.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name in `engine/core/src/mutants.rs`.
    pub name: &'static str,
    /// The faults that it needs.
    pub focus: Focus,
}

const fn target(name: &'static str, focus: Focus) -> Target {
    Target { name, focus }
}

/// Leaders lose storage, network or their agent in the middle of a commit, and what they wrote lands late.
const LOST_COMMITS: Focus = Focus::at(&[
    Kind::StallSome,
    Kind::LateWrites,
    Kind::Isolate,
    Kind::GuestDies,
    Kind::FailStarts,
    Kind::FastReboot,
])
.when(
    &[Trigger::WritesBody, Trigger::Commits, Trigger::Leads, Trigger::Confirms],
    &[Kind::Isolate, Kind::StallSome, Kind::LateWrites, Kind::PauseAgent],
)
.fast();

/// Terms begin while their claimants are stopped.
const RIVALS: Focus =
    Focus::at(&[Kind::CrashAgent, Kind::PauseAgent, Kind::CorosyncLoss, Kind::SlowStorage])
        .when(
            &[Trigger::Confirms, Trigger::Closes, Trigger::Leads],
            &[Kind::PauseAgent, Kind::PauseNode, Kind::CrashAgent, Kind::SlowStorage],
        )
        .fast();

/// Nodes lose everything and only time proves them dead.
const BURIED: Focus = Focus::at(&[Kind::Entomb, Kind::Isolate, Kind::StopsHang]).without_fencing();

/// Nodes that hear some others and have no storage, or the other way round.
const HALF_CONNECTED: Focus = Focus::at(&[
    Kind::Partition,
    Kind::StallSome,
    Kind::Isolate,
    Kind::Flapping,
    Kind::SlowStorage,
])
.without_fencing()
.fast();

/// Agents and nodes come back while others judge what they were.
const RESTARTS: Focus =
    Focus::at(&[Kind::CrashAgent, Kind::FastReboot, Kind::Isolate, Kind::StallSome, Kind::Entomb])
        .without_fencing()
        .fast();

/// Storage that is slow, fails or serves old pages.
const BAD_STORAGE: Focus = Focus::at(&[
    Kind::FailSome,
    Kind::SlowStorage,
    Kind::StaleReads,
    Kind::Isolate,
    Kind::Partition,
    Kind::LateWrites,
])
.without_fencing()
.fast();

/// Starts take long, and their nodes and agents get into trouble meanwhile.
const SLOW_STARTS: Focus = Focus::at(&[
    Kind::SlowStarts,
    Kind::FailStarts,
    Kind::CrashAgent,
    Kind::Isolate,
    Kind::StallSome,
    Kind::GuestDies,
])
.when(
    &[Trigger::Starts, Trigger::HandOver, Trigger::Orders, Trigger::GuestAppears],
    &[Kind::CrashAgent, Kind::Isolate, Kind::StallSome, Kind::PauseAgent],
)
.fast();

/// Owners give VMs up, crash and lose touch.
const FAILING_STARTS: Focus = Focus::at(&[
    Kind::FailStarts,
    Kind::GuestDies,
    Kind::CrashAgent,
    Kind::CorosyncLoss,
    Kind::StallSome,
    Kind::SlowNetwork,
    Kind::LateLeaves,
])
.when(
    &[Trigger::Starts, Trigger::Orders, Trigger::WritesBody],
    &[Kind::CrashAgent, Kind::StallSome, Kind::SlowNetwork, Kind::PauseAgent],
)
.fast();

/// Fence agents fail, hang and are late.
const BAD_FENCES: Focus =
    Focus::at(&[Kind::FenceDown, Kind::SlowFences, Kind::Entomb, Kind::Isolate, Kind::PauseAgent])
        .when(&[Trigger::Fences, Trigger::Evicts], &[Kind::PauseAgent, Kind::Isolate])
        .with_fencing()
        .fast();

/// One for each planted bug.
pub const TARGETS: &[Target] = &[
    target("RumourIsProof", LOST_COMMITS),
    target("ProofIgnoresPromises", LOST_COMMITS),
    target("ProofWithoutSecondRead", LOST_COMMITS),
    target("EqualPromiseAccepted", RIVALS),
    target("TermWithoutAdoption", LOST_COMMITS),
    target("AdoptsWhatItKnows", LOST_COMMITS),
    target("CommitUnwritten", Focus::ANY),
    target("CommitWithoutReadBack", LOST_COMMITS),
    target("BodyInNamedSlot", Focus::ANY),
    target("TornBodyAccepted", LOST_COMMITS),
    target("FreshPageAfterBoot", Focus::ANY),
    target("SequenceFromOne", Focus::ANY),
    target("StaleReadAccepted", BAD_STORAGE),
    target("UnreadableSlotsSkipped", BAD_STORAGE),
    target("CycleWithoutBody", BAD_STORAGE),
    target("NetworkBasisAtEnd", Focus::ANY),
    target("StorageBasisAtEnd", BAD_STORAGE),
    target("LeaseWithoutEchoes", BURIED),
    target("EchoOfEarlierLife", RESTARTS),
    target("EchoBeforeFirstRead", RESTARTS),
    target("EvictedEchoed", HALF_CONNECTED),
    target("CycleIgnoresAdmission", HALF_CONNECTED),
    target("AdmissionOfOtherBoot", RESTARTS),
    target("AdmittedByRumour", LOST_COMMITS),
    target("OwnEvictionIgnored", HALF_CONNECTED),
    target("WatchdogTooLong", BURIED),
    target("FeedWithoutSecondW", BURIED),
    target("FedByWhoeverRuns", BURIED),
    target("OpeningIsNoFeed", RESTARTS),
    target("FeedRecordsNow", RESTARTS),
    target("ForgottenStart", SLOW_STARTS),
    target("UnresolvedStartForgotten", SLOW_STARTS),
    target("NoneLeftByOldScan", SLOW_STARTS),
    target("ExitOfEarlierProcess", FAILING_STARTS),
    target("RelocatedWithoutProof", Focus::ANY),
    target("NoneLeftOfOtherEviction", HALF_CONNECTED),
    target("FencedByFailure", BAD_FENCES),
    target("FenceUnconfirmed", BAD_FENCES),
    target("AdmittedDuringFence", BAD_FENCES),
    target("AdmittedUnproved", HALF_CONNECTED),
    target("BootChangedWhileBusy", RESTARTS),
    target("BootChangedByBeat", RESTARTS),
    target("NoStorageBound", BURIED),
    target("NoNetworkBound", BURIED),
    target("BoundOfTooFew", HALF_CONNECTED),
    target("BoundForgetsRestart", RESTARTS),
    target("FirstShownAtReadBegin", BAD_STORAGE),
    target("TimeRuleWithoutMargin", BURIED),
    target("PageIgnored", HALF_CONNECTED),
    target("LastInOutageIsolated", Focus::class(Class::StorageForAll)),
    target("StaleWordBelieved", FAILING_STARTS),
    target("GivenUpOfOlderOwnership", FAILING_STARTS),
    target("EnrolledUnread", RESTARTS),
    target("PolicyAwaited", Focus::ANY.policies(Mood::Silent)),
    target("StaleTermObeyed", FAILING_STARTS),
    target("OrderToOtherIncarnation", FAILING_STARTS),
    target("OrderedWhileMoving", FAILING_STARTS),
    target("StartWithoutOrder", FAILING_STARTS),
    target("StartByRumour", FAILING_STARTS),
    target("StartWithoutLease", RESTARTS),
    target("GuestsWithoutHaStopped", Focus::ANY),
];

/// The target of this name.
///
/// # Errors
/// Names those that exist.
pub fn find(name: &str) -> Result<&'static Target, String> {
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let found = TARGETS.iter().find(|target| target.name == name);
    found.ok_or_else(|| format!("no planted bug is called {name}; there are: {}", names()))
}
