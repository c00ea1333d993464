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
    /// A leader takes its change for committed without looking for a higher promise.
    CommitWithoutReadBack = "3",
    /// A body is written over the one that the page on disk names.
    BodyInNamedSlot = "3",
    /// The first page of an incarnation forgets what the page on disk promised and accepted.
    FreshPageAfterBoot = "3",

    // The lease.
    /// The network's evidence counts from when the echo came in, not from when the beat was sent.
    NetworkBasisAtEnd = "4",
    /// The storage's evidence counts from the cycle's end, not from its beginning.
    StorageBasisAtEnd = "4",
    /// "None left" is said while a permitted start is still in flight.
    ForgottenStart = "4",

    // Evict, fence, relocate.
    /// An eviction alone makes orphans: nobody waits for a proof.
    RelocatedWithoutProof = "5",
    /// A fence agent's failure is taken for its success.
    FencedByFailure = "5",
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
