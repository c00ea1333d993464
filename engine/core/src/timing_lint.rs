//! The linter of PROTOCOL section 9: which sets of time-outs are refused, why, and the nearest safe set. The proof of each
//! inequality, on one time line, is in `engine/SAFETY.md`.

use crate::config::Timing;
use crate::time::Millis;
use alloc::{string::String, vec, vec::Vec};
use core::fmt;

/// What a clean stop of every guest takes at least. Shorter, and the watchdog fires first, always.
pub const CLEAN_STOP: Millis = Millis(1_000);

/// A time-out that an operator can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The beat interval.
    Beat,
    /// L.
    Lease,
    /// S.
    Stop,
    /// W.
    Watchdog,
    /// The storage cycle deadline.
    StorageDeadline,
    /// When a full failure is evicted.
    FullFailure,
    /// How long a lease must be good for a start.
    StartMargin,
    /// How long ballots are waited for.
    ElectionWindow,
    /// How long policies are waited for.
    PolicyDeadline,
    /// How long a fence agent may take.
    FenceTimeout,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Beat,
        Self::Lease,
        Self::Stop,
        Self::Watchdog,
        Self::StorageDeadline,
        Self::FullFailure,
        Self::StartMargin,
        Self::ElectionWindow,
        Self::PolicyDeadline,
        Self::FenceTimeout,
    ];

    /// Its name in the configuration file's `[timing]`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Beat => "beat_ms",
            Self::Lease => "lease_ms",
            Self::Stop => "stop_ms",
            Self::Watchdog => "watchdog_ms",
            Self::StorageDeadline => "storage_deadline_ms",
            Self::FullFailure => "full_failure_ms",
            Self::StartMargin => "start_margin_ms",
            Self::ElectionWindow => "election_window_ms",
            Self::PolicyDeadline => "policy_deadline_ms",
            Self::FenceTimeout => "fence_timeout_ms",
        }
    }

    /// Its value in `timing`.
    #[must_use]
    pub fn get(self, timing: &Timing) -> Millis {
        *self.place(&mut timing.clone())
    }

    /// Where its value lies.
    pub fn place(self, timing: &mut Timing) -> &mut Millis {
        match self {
            Self::Beat => &mut timing.beat,
            Self::Lease => &mut timing.lease,
            Self::Stop => &mut timing.stop,
            Self::Watchdog => &mut timing.watchdog,
            Self::StorageDeadline => &mut timing.storage_deadline,
            Self::FullFailure => &mut timing.full_failure,
            Self::StartMargin => &mut timing.start_margin,
            Self::ElectionWindow => &mut timing.election_window,
            Self::PolicyDeadline => &mut timing.policy_deadline,
            Self::FenceTimeout => &mut timing.fence_timeout,
        }
    }
}

/// One inequality: it holds if the first side is at most the second.
struct Inequality {
    name: &'static str,
    sides: fn(&Timing) -> (Millis, Millis),
    keys: &'static [Key],
}

const INEQUALITIES: [Inequality; 12] = [
    // No length of time may be 0: the machine would spin, or never wait for anybody.
    Inequality { name: "1 ms <= beat", sides: |t| (TICK, t.beat), keys: &[Key::Beat] },
    Inequality {
        name: "1 ms <= election window",
        sides: |t| (TICK, t.election_window),
        keys: &[Key::ElectionWindow],
    },
    Inequality {
        name: "1 ms <= policy deadline",
        sides: |t| (TICK, t.policy_deadline),
        keys: &[Key::PolicyDeadline],
    },
    Inequality {
        name: "1 ms <= fence time-out",
        sides: |t| (TICK, t.fence_timeout),
        keys: &[Key::FenceTimeout],
    },
    // Two lost beats in a row cost no lease.
    Inequality {
        name: "3 beats <= L",
        sides: |t| (t.beat * 3, t.lease),
        keys: &[Key::Beat, Key::Lease],
    },
    // A feed once a beat is in time although one is skipped.
    Inequality {
        name: "2 beats <= W",
        sides: |t| (t.beat * 2, t.watchdog),
        keys: &[Key::Beat, Key::Watchdog],
    },
    // Evidence two beats old still allows a feed.
    Inequality {
        name: "2 W <= L + S - 2 beats",
        sides: |t| (t.watchdog * 2, t.span().less(t.beat * 2)),
        keys: &[Key::Watchdog, Key::Lease, Key::Stop, Key::Beat],
    },
    // The last feed is at most basis + L + S - 2 W: with a shorter S the watchdog fires before a clean stop could end.
    Inequality {
        name: "W + 1 s (a clean stop) <= S",
        sides: |t| (t.watchdog + CLEAN_STOP, t.stop),
        keys: &[Key::Watchdog, Key::Stop],
    },
    // While corosync finds out that a node is gone nobody's beats are echoed: that must cost no lease and no feed.
    Inequality {
        name: "token + consensus + 2 beats <= min(L, L + S - W)",
        sides: |t| (t.membership + t.beat * 2, patience(t)),
        keys: &[Key::Beat, Key::Lease, Key::Stop, Key::Watchdog],
    },
    // A lease can live by storage alone on an array that is just in time.
    Inequality {
        name: "2 x storage cycle deadline + 1 beat <= min(L, L + S - W)",
        sides: |t| (t.storage_deadline * 2 + t.beat, patience(t)),
        keys: &[Key::StorageDeadline, Key::Beat, Key::Lease, Key::Stop, Key::Watchdog],
    },
    // Silence is told from a lost beat, and from a membership change.
    Inequality {
        name: "max(3 beats, token + consensus) <= full failure",
        sides: |t| (least_full_failure(t), t.full_failure),
        keys: &[Key::Beat, Key::FullFailure],
    },
    // A start that was just permitted is stopped in time.
    Inequality {
        name: "max(2 beats, W - S + 1 beat) <= start margin",
        sides: |t| (least_start_margin(t), t.start_margin),
        keys: &[Key::Beat, Key::Watchdog, Key::Stop, Key::StartMargin],
    },
];

/// The shortest length of time there is here.
const TICK: Millis = Millis(1);

/// How long evidence may be missing before a lease, or the last feed, is over.
fn patience(timing: &Timing) -> Millis {
    timing.lease.min(timing.span().less(timing.watchdog))
}

fn least_full_failure(timing: &Timing) -> Millis {
    timing.membership.max(timing.beat * 3)
}

/// The shortest start margin that is safe with the other time-outs.
#[must_use]
pub fn least_start_margin(timing: &Timing) -> Millis {
    (timing.watchdog + timing.beat).less(timing.stop).max(timing.beat * 2)
}

/// An inequality that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The inequality, as PROTOCOL section 9 has it.
    pub inequality: &'static str,
    /// Its greater side, which should be the lesser.
    pub left: Millis,
    /// Its other side.
    pub right: Millis,
    /// What to change, as in the nearest safe set: whoever does so for every refusal has that set.
    pub changes: Vec<Change>,
    /// Corosync's share of it, if it has one: token + consensus may be lowered instead.
    pub membership: Option<Millis>,
}

/// One time-out of the nearest safe set that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// Its value now.
    pub from: Millis,
    /// The nearest safe value.
    pub to: Millis,
}

impl Change {
    fn of(key: Key, timing: &Timing, safe: &Timing) -> Option<Self> {
        let (from, to) = (key.get(timing), key.get(safe));
        (from != to).then_some(Self { key, from, to })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = if self.to > self.from { "at least" } else { "at most" };
        write!(f, "{} to {bound} {}", self.key.name(), self.to.0)
    }
}

impl Refusal {
    /// What is wrong, with both numbers.
    #[must_use]
    pub fn what(&self) -> String {
        let Self { inequality, left, right, .. } = self;
        alloc::format!("unsafe timing: {inequality} does not hold: {left} > {right}")
    }

    /// What to do, with the nearest safe values.
    #[must_use]
    pub fn remedy(&self) -> String {
        let changes: Vec<String> =
            self.changes.iter().map(|change| alloc::format!("{change}")).collect();
        let mut text = alloc::format!("set {}", changes.join(" and "));
        if let Some(most) = self.membership {
            text += &alloc::format!(
                ", or in corosync.conf set token_coefficient to 0 and lower token until token + consensus is at \
                 most {most}"
            );
        }
        text
    }
}

/// Every inequality that `timing` breaks, with what to do. Empty: it is safe.
#[must_use]
pub fn lint(timing: &Timing) -> Vec<Refusal> {
    let broken = |entry: &&Inequality| !entry.holds(timing);
    let broken: Vec<_> = INEQUALITIES.iter().filter(broken).collect();
    if broken.is_empty() {
        return Vec::new();
    }
    let safe = nearest_safe(timing);
    let mut found: Vec<Refusal> =
        broken.into_iter().map(|entry| entry.refuse(timing, &safe)).collect();
    // What has to follow the others, although it breaks nothing now.
    let named: Vec<Change> = found.iter().flat_map(|refusal| refusal.changes.clone()).collect();
    let unnamed = Key::ALL.iter().filter_map(|key| Change::of(*key, timing, &safe));
    if let Some(last) = found.last_mut() {
        last.changes.extend(unnamed.filter(|change| !named.contains(change)));
    }
    found
}

/// Names of all inequalities, that of the device's W included.
pub fn names() -> impl Iterator<Item = &'static str> {
    INEQUALITIES.iter().map(|entry| entry.name).chain([LONGER_DEVICE])
}

/// What [`check_read_back`] refuses.
const LONGER_DEVICE: &str = "W as the device says it <= W";

impl Inequality {
    fn holds(&self, timing: &Timing) -> bool {
        let (left, right) = (self.sides)(timing);
        left <= right
    }

    fn refuse(&self, timing: &Timing, safe: &Timing) -> Refusal {
        let (left, right) = (self.sides)(timing);
        Refusal {
            inequality: self.name,
            left,
            right,
            changes: self.keys.iter().filter_map(|key| Change::of(*key, timing, safe)).collect(),
            membership: self.most_membership(timing),
        }
    }

    /// The longest token + consensus with which this inequality holds, if it is what breaks it.
    fn most_membership(&self, timing: &Timing) -> Option<Millis> {
        let quick = Timing { membership: Millis(0), ..timing.clone() };
        if !self.holds(&quick) {
            return None;
        }
        let (left, right) = (self.sides)(timing);
        let (least, _) = (self.sides)(&quick);
        // Either the membership is added to the rest of that side, or it is the greater of two.
        let share = if left == timing.membership { Millis(0) } else { least };
        Some(right.less(share))
    }
}

/// The nearest safe set: `timing` itself if it is safe. W gives way first, because L and S are what a failover without a fence
/// agent takes; where it cannot, S and L grow. Token + consensus is corosync's, and taken as it is.
#[must_use]
pub fn nearest_safe(timing: &Timing) -> Timing {
    let mut safe = with_least_lease(timing);
    let longest_watchdog =
        Millis(safe.span().less(safe.beat * 2).0 / 2).min(safe.stop.less(CLEAN_STOP));
    safe.watchdog = safe.watchdog.min(longest_watchdog).max(safe.beat * 2);
    with_room_for_watchdog(safe)
}

/// The nearest safe set for a device that cannot do another W.
fn nearest_safe_for_device(timing: &Timing) -> Timing {
    with_room_for_watchdog(with_least_lease(timing))
}

fn with_least_lease(timing: &Timing) -> Timing {
    let mut safe = timing.clone();
    for key in [Key::Beat, Key::ElectionWindow, Key::PolicyDeadline, Key::FenceTimeout] {
        let place = key.place(&mut safe);
        *place = (*place).max(TICK);
    }
    let by_network = safe.membership + safe.beat * 2;
    let by_storage = safe.storage_deadline * 2 + safe.beat;
    safe.lease = safe.lease.max(safe.beat * 3).max(by_network).max(by_storage);
    safe
}

fn with_room_for_watchdog(mut safe: Timing) -> Timing {
    safe.stop = safe.stop.max(safe.watchdog + CLEAN_STOP);
    safe.lease = safe.lease.max((safe.watchdog * 2 + safe.beat * 2).less(safe.stop));
    safe.full_failure = safe.full_failure.max(least_full_failure(&safe));
    safe.start_margin = safe.start_margin.max(least_start_margin(&safe));
    safe
}

/// W as the driver reads it back must be safe too, and no longer than the configured one, by which everybody reckons. A
/// shorter one (drivers round down to seconds) only fires earlier.
///
/// # Errors
/// The inequality that does not hold; its remedy keeps the device's W.
pub fn check_read_back(timing: &Timing, read_back: Millis) -> Result<(), Refusal> {
    let real = Timing { watchdog: read_back, ..timing.clone() };
    if read_back > timing.watchdog {
        let safe = nearest_safe_for_device(&real);
        let longer = Inequality {
            name: LONGER_DEVICE,
            sides: |t| (t.watchdog, t.watchdog),
            keys: &[Key::Watchdog, Key::Stop, Key::Lease, Key::StartMargin],
        };
        let refusal = longer.refuse(timing, &safe);
        return Err(Refusal {
            left: read_back,
            right: timing.watchdog,
            membership: None,
            ..refusal
        });
    }
    let feed =
        INEQUALITIES.iter().find(|entry| entry.name == "2 beats <= W" && !entry.holds(&real));
    feed.map_or(Ok(()), |entry| {
        let shorter = Timing { beat: Millis(read_back.0 / 2).max(TICK), ..real.clone() };
        let changes = vec![Change { key: Key::Beat, from: real.beat, to: shorter.beat }];
        Err(Refusal { changes, ..entry.refuse(&real, &shorter) })
    })
}

#[cfg(test)]
#[path = "tests/timing_lint.rs"]
mod tests;
