//! Which faults aim at which planted bug.

use crate::sim::faults::Kind;
use crate::sim::focus::Focus;

/// How one planted bug is hunted.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name in `engine/core/src/mutants.rs`.
    pub name: &'static str,
    /// The faults that it needs.
    pub focus: Focus,
    /// Number of nodes, if it matters.
    pub nodes: Option<usize>,
}

const fn target(name: &'static str, focus: Focus) -> Target {
    Target { name, focus, nodes: None }
}

/// One for each planted bug.
pub const TARGETS: &[Target] = &[
    target(
        "RumourIsProof",
        Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::GuestDies, Kind::FailStarts]).fast(),
    ),
    target(
        "ProofIgnoresPromises",
        Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::GuestDies, Kind::FailStarts]).fast(),
    ),
    target(
        "ProofWithoutSecondRead",
        Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::GuestDies, Kind::FailStarts]).fast(),
    ),
    target(
        "EqualPromiseAccepted",
        Focus::at(&[Kind::PauseAgent, Kind::PauseNode, Kind::PowerCut, Kind::CrashAgent]).fast(),
    ),
    target(
        "TermWithoutAdoption",
        Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::Partition, Kind::PauseAgent]).fast(),
    ),
    target("AdoptsWhatItKnows", Focus::ANY),
    target("CommitUnwritten", Focus::ANY),
    target(
        "CommitWithoutReadBack",
        Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::GuestDies, Kind::FailStarts]).fast(),
    ),
    target("BodyInNamedSlot", Focus::ANY),
    target("TornBodyAccepted", Focus::ANY),
    target("FreshPageAfterBoot", Focus::ANY),
    target("SequenceFromOne", Focus::ANY),
    target("StaleReadAccepted", Focus::ANY),
    target("UnreadableSlotsSkipped", Focus::ANY),
    target("CycleWithoutBody", Focus::ANY),
    target("NetworkBasisAtEnd", Focus::ANY),
    target(
        "StorageBasisAtEnd",
        Focus::at(&[Kind::StallSome, Kind::Partition, Kind::PauseAgent, Kind::Entomb])
            .without_fencing()
            .fast(),
    ),
    target("LeaseWithoutEchoes", Focus::ANY),
    target(
        "EchoOfEarlierLife",
        Focus::at(&[Kind::CrashAgent, Kind::Entomb, Kind::Isolate]).without_fencing(),
    ),
    target(
        "EchoBeforeFirstRead",
        Focus::at(&[Kind::StallSome, Kind::CrashAgent, Kind::Partition, Kind::Isolate])
            .without_fencing()
            .fast(),
    ),
    target(
        "EvictedEchoed",
        Focus::at(&[Kind::StallSome, Kind::Partition, Kind::Isolate]).without_fencing().fast(),
    ),
    target(
        "CycleIgnoresAdmission",
        Focus::at(&[Kind::Partition, Kind::Isolate, Kind::Verification]).without_fencing(),
    ),
    target("AdmissionOfOtherBoot", Focus::at(&[Kind::PowerCut, Kind::PowerCutAll]).fast()),
    target("AdmittedByRumour", Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::PowerCut]).fast()),
    target("OwnEvictionIgnored", Focus::at(&[Kind::StallSome, Kind::Isolate, Kind::Partition])),
    target("WatchdogTooLong", Focus::at(&[Kind::Entomb]).without_fencing()),
    target("FeedWithoutSecondW", Focus::at(&[Kind::Entomb]).without_fencing()),
    target("FedByWhoeverRuns", Focus::at(&[Kind::Entomb]).without_fencing()),
    target("OpeningIsNoFeed", Focus::ANY),
    target(
        "FeedRecordsNow",
        Focus::at(&[Kind::Isolate, Kind::CrashAgent]).without_fencing().fast(),
    ),
    target("ForgottenStart", Focus::at(&[Kind::SlowStarts, Kind::Isolate, Kind::StallSome])),
    target(
        "UnresolvedStartForgotten",
        Focus::at(&[Kind::SlowStarts, Kind::CrashAgent, Kind::Isolate, Kind::StallSome]).fast(),
    ),
    target(
        "NoneLeftByOldScan",
        Focus::at(&[Kind::SlowStarts, Kind::Isolate, Kind::StallSome, Kind::GuestDies]).fast(),
    ),
    target(
        "ExitOfEarlierProcess",
        Focus::at(&[Kind::GuestDies, Kind::FailStarts, Kind::CrashAgent]).fast(),
    ),
    target("RelocatedWithoutProof", Focus::ANY),
    target(
        "NoneLeftOfOtherEviction",
        Focus::at(&[Kind::Isolate, Kind::StallSome, Kind::Partition]).without_fencing().fast(),
    ),
    target("FencedByFailure", Focus::at(&[Kind::FenceDown, Kind::Entomb]).with_fencing()),
    target(
        "FenceUnconfirmed",
        Focus::at(&[Kind::FenceDown, Kind::PauseAgent, Kind::Isolate]).with_fencing().fast(),
    ),
    target(
        "AdmittedDuringFence",
        Focus::at(&[Kind::FenceDown, Kind::Isolate, Kind::StallSome]).with_fencing().fast(),
    ),
    target(
        "AdmittedUnproved",
        Focus::at(&[Kind::StallSome, Kind::Isolate]).without_fencing().fast(),
    ),
    target("BootChangedWhileBusy", Focus::ANY),
    target(
        "BootChangedByBeat",
        Focus::at(&[Kind::PowerCut, Kind::Partition, Kind::CrashAgent, Kind::Isolate])
            .without_fencing()
            .fast(),
    ),
    target(
        "NoStorageBound",
        Focus::at(&[Kind::Entomb, Kind::Partition, Kind::StallSome]).without_fencing(),
    ),
    target(
        "NoNetworkBound",
        Focus::at(&[Kind::Entomb, Kind::Partition, Kind::StallSome]).without_fencing(),
    ),
    target(
        "BoundOfTooFew",
        Focus::at(&[Kind::StallSome, Kind::Partition, Kind::Isolate]).without_fencing().fast(),
    ),
    target(
        "BoundForgetsRestart",
        Focus::at(&[Kind::CrashAgent, Kind::PowerCut, Kind::Entomb]).without_fencing().fast(),
    ),
    target(
        "FirstShownAtReadBegin",
        Focus::at(&[Kind::StallSome, Kind::Partition, Kind::Entomb, Kind::PauseAgent])
            .without_fencing()
            .fast(),
    ),
    target("TimeRuleWithoutMargin", Focus::at(&[Kind::Entomb]).without_fencing()),
    target("PageIgnored", Focus::ANY),
    target("LastInOutageIsolated", Focus::ANY),
    target(
        "StaleWordBelieved",
        Focus::at(&[Kind::FailStarts, Kind::CrashAgent, Kind::CorosyncLoss]).fast(),
    ),
    target(
        "GivenUpOfOlderOwnership",
        Focus::at(&[Kind::FailStarts, Kind::GuestDies, Kind::StallSome]).fast(),
    ),
    target(
        "EnrolledUnread",
        Focus::at(&[Kind::Isolate, Kind::StallSome, Kind::Partition]).without_fencing(),
    ),
    target("PolicyAwaited", Focus::ANY),
    target(
        "StaleTermObeyed",
        Focus::at(&[Kind::FailStarts, Kind::PauseAgent, Kind::GuestDies, Kind::Partition]).fast(),
    ),
    target(
        "OrderToOtherIncarnation",
        Focus::at(&[Kind::FailStarts, Kind::CrashAgent, Kind::SlowNetwork, Kind::Partition]).fast(),
    ),
    target(
        "OrderedWhileMoving",
        Focus::at(&[Kind::FailStarts, Kind::CrashAgent, Kind::StallSome]).fast(),
    ),
    target("StartWithoutOrder", Focus::at(&[Kind::FailStarts, Kind::CrashAgent]).fast()),
    target("StartByRumour", Focus::ANY),
    target(
        "StartWithoutLease",
        Focus::at(&[Kind::Isolate, Kind::Entomb, Kind::GuestDies]).without_fencing().fast(),
    ),
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
