//! Which faults aim at which planted bug, and which promise it breaks.
//!
//! What is not planted, because another rule covers it so well that nothing can happen (each was tried, thousands of seeds long):
//!
//! - a start without a lease: only a proof lets a node start, and a node whose lease ends stops what starts;
//! - another boot as proof 3 although HA VMs execute under it: nobody starts them before a commit has admitted that boot;
//! - a bound that forgets its node's restart: a new incarnation has echoed nothing before its first read;
//! - the word of a node that has left the view since: an order names one incarnation, the next one refuses it;
//! - a fence agent ordered on an old confirmation of the term: who slept for so long has heard of nobody, and his watchdog has fired;
//! - a copy of an unfinished migration that passes for the guest: it is expelled before its node can own the VM.
//!
//! `GivenUpOfOlderOwnership` switches off both rules that it meets.

use crate::sim::focus::Focus;
use crate::sim::profiles::{
    BAD_FENCES, BAD_STORAGE, BLIND_LEADER, BURIED, CROSSED_ORDERS, CUT_OFF, ENROLLED,
    FAILING_STARTS, HALF_CONNECTED, LATE_EVICTION, LATE_EXITS, LOST_COMMITS, MOVED_AWAY, OUTAGES,
    RESTARTS, RETURNING, SECOND_EVICTION, SILENT_POLICIES, SLOW_COMMITS, SLOW_READER, SLOW_READERS,
    SLOW_STARTS, STALE_ORDERS, STRADDLED, USURPED, WISHES,
};

/// How one planted bug is hunted.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name in `engine/core/src/mutants.rs`.
    pub name: &'static str,
    /// The faults that it needs.
    pub focus: Focus,
    /// The promises that it breaks: a run that breaks another one says nothing about this bug.
    pub rules: &'static [&'static str],
}

/// Something is taken for committed that is not.
const LEDGER: &[&str] = &["ledger_is_linear"];
/// A node that takes its own old page for somebody else's writes no more; or worse.
const STALE: &[&str] = &["ledger_is_linear", "eventually_up", "policy_is_advice"];
/// A VM moves, starts, or runs where it must not.
const PROOF: &[&str] =
    &["no_start_without_proof", "one_home", "proofs_are_true", "starts_where_it_belongs"];
/// "None left" is said too early: to others, or to the own watchdog.
const NONE_LEFT: &[&str] = &["no_start_without_proof", "proofs_are_true", "one_home", "feed_rule"];
/// A guest goes on from what it was once.
const COPIES: &[&str] = &["fresh_copies", "no_start_without_proof", "one_home"];
/// Something waits for ever.
const LIVENESS: &[&str] = &["eventually_up", "policy_is_advice"];

const fn target(name: &'static str, focus: Focus, rules: &'static [&'static str]) -> Target {
    Target { name, focus, rules }
}

/// One for each planted bug.
pub const TARGETS: &[Target] = &[
    target("RumourIsProof", USURPED, LEDGER),
    target("ProofIgnoresPromises", USURPED, LEDGER),
    target("ProofWithoutSecondRead", STRADDLED, LEDGER),
    target("EqualPromiseAccepted", STALE_ORDERS, LEDGER),
    target("TermWithoutAdoption", USURPED, LEDGER),
    target("AdoptsWhatItKnows", LOST_COMMITS, LEDGER),
    target("CommitUnwritten", Focus::ANY, LEDGER),
    target("CommitWithoutReadBack", LOST_COMMITS, LEDGER),
    target("ReadBegunBeforeWrite", LOST_COMMITS, LEDGER),
    target("BodyInNamedSlot", Focus::ANY, &["named_slot"]),
    target("TornBodyAccepted", SLOW_COMMITS, LEDGER),
    target("FreshPageAfterBoot", Focus::ANY, &["page_grows"]),
    target("SequenceFromOne", Focus::ANY, &["page_grows"]),
    target("StaleReadAccepted", BAD_STORAGE, STALE),
    target("UnreadableSlotsSkipped", BAD_STORAGE, LEDGER),
    target("CycleWithoutBody", BAD_STORAGE, &["ledger_is_linear", "echo_rule"]),
    target("NetworkBasisAtEnd", Focus::ANY, PROOF),
    target("StorageBasisAtEnd", SLOW_READER, PROOF),
    target("LeaseWithoutEchoes", BURIED, PROOF),
    target("EchoOfEarlierLife", RESTARTS, PROOF),
    target("EchoBeforeFirstRead", RESTARTS, &["echo_rule"]),
    target("EvictedEchoed", HALF_CONNECTED, &["echo_rule"]),
    target("RumourEchoed", SLOW_COMMITS, &["echo_rule"]),
    target("OlderBodyRestores", SLOW_COMMITS, &["echo_rule"]),
    target("CycleIgnoresAdmission", HALF_CONNECTED, PROOF),
    target("AdmissionOfOtherBoot", RESTARTS, &["lease_rule"]),
    target("AdmittedByRumour", SLOW_COMMITS, &["lease_rule"]),
    target("OwnEvictionIgnored", HALF_CONNECTED, LIVENESS),
    target("WatchdogTooLong", BURIED, &["feed_rule"]),
    target("FeedWithoutSecondW", BURIED, &["feed_rule"]),
    target("FedByWhoeverRuns", BURIED, &["feed_rule"]),
    target("OpeningIsNoFeed", RESTARTS, &["feed_rule"]),
    target("FeedRecordsNow", RESTARTS, PROOF),
    target("ForgottenStart", SLOW_STARTS, NONE_LEFT),
    target("UnresolvedStartForgotten", SLOW_STARTS, NONE_LEFT),
    target("NoneLeftByOldScan", SLOW_STARTS, PROOF),
    target("ExitOfEarlierProcess", LATE_EXITS, PROOF),
    target("RelocatedWithoutProof", Focus::ANY, PROOF),
    target("NoneLeftOfOtherEviction", RETURNING, PROOF),
    target("FencedByFailure", BAD_FENCES, PROOF),
    target("FencedUnread", Focus::ANY, &["shot_rule"]),
    target("FencedThoughAlive", BAD_FENCES, &["shot_rule"]),
    target("AdmittedDuringFence", BAD_FENCES, &["no_late_shot"]),
    target("AdmittedUnproved", HALF_CONNECTED, PROOF),
    target("BootChangedByBeat", RETURNING, PROOF),
    target("NoStorageBound", BURIED, PROOF),
    target("NoNetworkBound", BURIED, PROOF),
    target("BoundOfOtherEviction", SECOND_EVICTION, PROOF),
    target("BoundOfTooFew", HALF_CONNECTED, PROOF),
    target("FirstShownAtReadBegin", SLOW_READERS, PROOF),
    target("PageNotReadAgain", LATE_EVICTION, PROOF),
    target("ReadBegunBeforeCommit", BLIND_LEADER, PROOF),
    target("TimeRuleTooShort", BURIED, PROOF),
    target("PageIgnored", CUT_OFF, &["calm"]),
    target("LastInOutageIsolated", OUTAGES, &["no_single_channel"]),
    target("GivenUpOfOlderOwnership", MOVED_AWAY, PROOF),
    target("EnrolledUnread", ENROLLED, PROOF),
    target("EvictedAcknowledges", ENROLLED, PROOF),
    target("LevelOfTheLeaderAlone", RESTARTS, &["oldest_decides"]),
    target("PolicyAwaited", SILENT_POLICIES, LIVENESS),
    target("StaleTermObeyed", STALE_ORDERS, &["one_leader_per_term"]),
    target("OrderToOtherIncarnation", CROSSED_ORDERS, &["one_leader_per_term"]),
    target("OrderedWhileMoving", MOVED_AWAY, PROOF),
    target("StartWithoutOrder", FAILING_STARTS, &["one_leader_per_term"]),
    target("StartByRumour", SLOW_COMMITS, PROOF),
    target("ResumedUnowned", WISHES, PROOF),
    target("DepartedWithoutWord", WISHES, COPIES),
    target("DepartedThenRestarted", WISHES, PROOF),
    target("MovedWhileLeaving", WISHES, PROOF),
    target("StartedWhileLeaving", WISHES, COPIES),
    target("GuestsWithoutHaStopped", Focus::ANY, &["hands_off"]),
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
