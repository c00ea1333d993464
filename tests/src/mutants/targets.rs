//! Which faults aim at which planted bug.

use crate::sim::focus::Focus;
use crate::sim::profiles::{
    BAD_FENCES, BAD_STORAGE, BURIED, FAILING_STARTS, HALF_CONNECTED, LOST_COMMITS, OUTAGES,
    RESTARTS, RIVALS, SILENT_POLICIES, SLOW_STARTS,
};

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
    target("LastInOutageIsolated", OUTAGES),
    target("StaleWordBelieved", FAILING_STARTS),
    target("GivenUpOfOlderOwnership", FAILING_STARTS),
    target("EnrolledUnread", RESTARTS),
    target("PolicyAwaited", SILENT_POLICIES),
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
