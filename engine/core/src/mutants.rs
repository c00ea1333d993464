//! Planted bugs, for `cargo sim mutants`: the simulator must catch each of them, or it could not catch a real one.
//!
//! Compiled only under `--cfg steadfast_mutants`, which no feature can switch on and `steadfast-engine` refuses. At the place
//! of the bug stands one small expression with [`mutant!`](crate), which is `false` in every other build. One bug is
//! planted at a time, for the whole process. What the simulator needs to find each is in `tests/src/mutants/targets.rs`.

use core::sync::atomic::{AtomicU8, Ordering};

macro_rules! planted {
    ($(#[doc = $text:literal] $name:ident = $section:literal,)+) => {
        /// A planted bug: what goes wrong, and the section of PROTOCOL that forbids it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant { $(#[doc = $text] $name,)+ }

        impl Mutant {
            /// Every planted bug.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What goes wrong, in one sentence.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text.trim_ascii(),)+ }
            }

            /// The section of PROTOCOL that forbids it.
            #[must_use]
            pub fn section(self) -> &'static str {
                match self { $(Self::$name => $section,)+ }
            }
        }
    };
}

planted! {
    // The ledger.
    /// A body counts as committed as soon as it is read.
    RumourIsProof = "3",
    /// A body counts as committed although a higher ballot is promised.
    ProofIgnoresPromises = "3",
    /// A body counts as committed by the very read that first shows it.
    ProofWithoutSecondRead = "3",
    /// A term begins although another node promised an equal one.
    EqualPromiseAccepted = "3",
    /// A term stands without the second write and read: nothing is adopted.
    TermWithoutAdoption = "3",
    /// A new leader adopts the body that it knows, not the newest on disk.
    AdoptsWhatItKnows = "3",
    /// A change counts as committed before it is written: an eviction without commit.
    CommitUnwritten = "3",
    /// A leader takes its change for committed without looking for a higher promise.
    CommitWithoutReadBack = "3",
    /// What a cycle concludes rests on a read that began before its page was written.
    ReadBegunBeforeWrite = "3",
    /// A body is written over the one that the page on disk names.
    BodyInNamedSlot = "3",
    /// A body whose digest is not what its page says is used all the same.
    TornBodyAccepted = "3",
    /// The first page of an incarnation forgets what the page on disk promised and accepted.
    FreshPageAfterBoot = "3",
    /// The first page of an incarnation counts from one.
    SequenceFromOne = "3",
    /// A page that is older than it was before is taken as read.
    StaleReadAccepted = "3",
    /// A cycle that could not read every slot counts as finished.
    UnreadableSlotsSkipped = "3",
    /// A cycle that could not read the newest body counts as finished.
    CycleWithoutBody = "3",

    // The lease.
    /// The network's evidence counts from when the echo came in, not from when the beat was sent.
    NetworkBasisAtEnd = "4",
    /// The storage's evidence counts from the cycle's end, not from its beginning.
    StorageBasisAtEnd = "4",
    /// A beat renews the lease without anybody's echo.
    LeaseWithoutEchoes = "4",
    /// An echo of a beat of an earlier boot or incarnation counts.
    EchoOfEarlierLife = "4",
    /// An agent echoes before it has read pages and ledger.
    EchoBeforeFirstRead = "4",
    /// A node whose eviction is known is echoed.
    EvictedEchoed = "4",
    /// An eviction that is only a rumour does not stop the echoes.
    RumourEchoed = "4",
    /// An older body undoes an eviction that was heard of: its node is echoed again.
    OlderBodyRestores = "4",
    /// A cycle renews the lease without looking for this node's own admission.
    CycleIgnoresAdmission = "4",
    /// The admission of another boot counts.
    AdmissionOfOtherBoot = "4",
    /// The first lease of an admission needs no proof of it.
    AdmittedByRumour = "4",
    /// A node that learns of its own eviction goes on.
    OwnEvictionIgnored = "4",
    /// The feed rule counts with a shorter time-out than the watchdog has.
    WatchdogTooLong = "4",
    /// The feed rule leaves out the second time-out: a pause between check and feed.
    FeedWithoutSecondW = "4",
    /// The watchdog is fed as long as the agent runs.
    FedByWhoeverRuns = "4",
    /// An agent that comes back opens the watchdog over guests that run, as if opening it were no feed.
    OpeningIsNoFeed = "4",
    /// The record of a feed holds the time of the feed, not the lease's basis.
    FeedRecordsNow = "4",
    /// "None left" is said while a permitted start is still in flight.
    ForgottenStart = "4",
    /// "None left" is said while an earlier incarnation's start is still in flight.
    UnresolvedStartForgotten = "4",
    /// "None left" is said by a scan that began before the last start ended, or before the eviction was known.
    NoneLeftByOldScan = "4",
    /// A process's exit is taken for the end of the one that runs now.
    ExitOfEarlierProcess = "4",

    // Evict, fence, relocate.
    /// An eviction alone makes orphans: nobody waits for a proof.
    RelocatedWithoutProof = "5",
    /// "None left" for another eviction is taken as proof.
    NoneLeftOfOtherEviction = "5",
    /// A fence agent's failure is taken for its success.
    FencedByFailure = "5",
    /// A fence agent is ordered before the victim's page was read again.
    FencedUnread = "5",
    /// A fence agent is ordered although the victim's page moves.
    FencedThoughAlive = "5",
    /// A node is admitted again while a fence agent may still hit it.
    AdmittedDuringFence = "5",
    /// A node is admitted again although nothing proves that it runs nothing.
    AdmittedUnproved = "5",
    /// A beat, which may be read late, shows another boot.
    BootChangedByBeat = "5",
    /// The time rule counts from the network alone.
    NoStorageBound = "5",
    /// The time rule counts from storage alone.
    NoNetworkBound = "5",
    /// A promise about another eviction of the same node counts.
    BoundOfOtherEviction = "5",
    /// The time rule needs the promise of the leader alone.
    BoundOfTooFew = "5",
    /// A page counts as first seen when the read began that showed it.
    FirstShownAtReadBegin = "5",
    /// The page sequence is not re-read: the storage bound stays what it was when the eviction was committed.
    PageNotReadAgain = "5",
    /// A read begun before the commit counts as the post-commit read of the victim's page.
    ReadBegunBeforeCommit = "5",
    /// The time rule waits for half of the time.
    TimeRuleTooShort = "5",
    /// A node that only the network lost is evicted: its page is not looked at.
    PageIgnored = "5",
    /// After an outage for everybody, whoever has storage last is evicted.
    LastInOutageIsolated = "5",
    /// What an owner says of an earlier ownership keeps nobody from ordering a start, and moves the VM.
    GivenUpOfOlderOwnership = "5",
    /// An owner answers for a VM of which it has not read yet that it is under HA.
    EnrolledUnread = "5",
    /// An owner acknowledges after its eviction that a VM is under HA, and an earlier proof is taken to cover it.
    EvictedAcknowledges = "5",

    // Upgrades.
    /// The leader raises the feature level to its own without asking what the others speak.
    LevelOfTheLeaderAlone = "3",

    // Elections.
    /// An election waits for its policy for ever.
    PolicyAwaited = "6",

    // Starting.
    /// An order of an older term is obeyed.
    StaleTermObeyed = "7",
    /// An order to another incarnation is obeyed.
    OrderToOtherIncarnation = "7",
    /// A VM is ordered to start while a commit moves it.
    OrderedWhileMoving = "7",
    /// A node starts what it owns without an order.
    StartWithoutOrder = "7",
    /// A node starts what a rumour says that it owns.
    StartByRumour = "7",
    /// A copy is resumed as soon as it is there, whoever owns the VM.
    ResumedUnowned = "7",
    /// A source says departed before libvirt has called the migration a success.
    DepartedWithoutWord = "7",
    /// A source that said departed starts the VM again.
    DepartedThenRestarted = "7",
    /// A VM changes hands while its source says that it is leaving.
    MovedWhileLeaving = "7",
    /// A source replaces the process of a guest that is on its way.
    StartedWhileLeaving = "7",
    /// Guests without HA are stopped with the others.
    GuestsWithoutHaStopped = "7",
}

/// 0: none; otherwise one more than the mutant's number.
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants one bug, or none, in every machine of this process.
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.store(mutant.map_or(0, |mutant| mutant as u8 + 1), Ordering::Relaxed);
}

/// Is this bug planted now?
#[inline]
#[must_use]
pub fn is_planted(mutant: Mutant) -> bool {
    PLANTED.load(Ordering::Relaxed) == mutant as u8 + 1
}
