//! Timing and identity. Every derived time-out is a function here, with its reason.

use crate::feature_level::FeatureLevel;
use crate::host_shutdown::HostShutdown;
use crate::ids::{Identity, NodeId};
use crate::ledger::Ledger;
use crate::proactive::Settings;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeSet, string::String};
use serde::{Deserialize, Serialize};
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict,
};

/// PROTOCOL section 9. All in milliseconds of own time.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Beat interval, and storage cycle interval.
    pub beat: Millis,
    /// L: the lease is good until basis + L.
    pub lease: Millis,
    /// S: by basis + L + S no HA VM is left, or the node is reset.
    pub stop: Millis,
    /// W: the watchdog's time-out, as the driver reads it back.
    pub watchdog: Millis,
    /// How long corosync needs to notice a silent node: token + consensus.
    pub membership: Millis,
    /// Full failure is evicted after this, if a fence agent is configured.
    pub full_failure: Millis,
    /// Network isolation is evicted after this.
    pub network_isolation: Millis,
    /// Storage isolation is evicted after this.
    pub storage_isolation: Millis,
    /// Ballots are waited for this long.
    pub election_window: Millis,
    /// A policy answers within this, or the built-in one counts.
    pub policy_deadline: Millis,
    /// A start needs a lease that is good for this long.
    pub start_margin: Millis,
    /// A node whose storage cycles take longer than this cannot keep its lease by storage alone: two cycles and the beat
    /// between them must fit into a lease. Nothing is cancelled then; the linter, the bounds and `doctor` use it.
    pub storage_deadline: Millis,
    /// No fence agent is used on a node not seen alive in this leader's incarnation until this has passed.
    pub boot_grace: Millis,
    /// A fence agent is killed after this.
    pub fence_timeout: Millis,
    /// A VM whose start ended without a process, or whose process died, is tried again after this, doubled each time.
    pub restart_backoff: Millis,
}

impl Timing {
    /// Preset `standard` for a corosync that notices a silent node within `membership`.
    #[must_use]
    pub fn standard(membership: Millis) -> Self {
        Self::preset(membership, 500, 5_000, 5_000, 4_000, 1_500, 15_000, 15_000, 2_000)
    }

    /// Preset `fast`.
    #[must_use]
    pub fn fast(membership: Millis) -> Self {
        Self::preset(membership, 250, 3_500, 3_000, 2_000, 750, 6_000, 10_000, 1_000)
    }

    /// Preset `calm`.
    #[must_use]
    pub fn calm(membership: Millis) -> Self {
        Self::preset(membership, 1_000, 15_000, 8_000, 6_000, 5_000, 30_000, 40_000, 5_000)
    }

    #[allow(clippy::too_many_arguments)]
    fn preset(
        membership: Millis,
        beat: u64,
        lease: u64,
        stop: u64,
        watchdog: u64,
        full_failure: u64,
        network_isolation: u64,
        storage_isolation: u64,
        storage_deadline: u64,
    ) -> Self {
        Self {
            beat: Millis(beat),
            lease: Millis(lease),
            stop: Millis(stop),
            watchdog: Millis(watchdog),
            membership,
            full_failure: Millis(full_failure.max(membership.0)),
            network_isolation: Millis(network_isolation),
            storage_isolation: Millis(storage_isolation),
            election_window: Millis(1_000),
            policy_deadline: Millis(250),
            // W - S + 1 beat, at least 2 beats (section 9): a start just permitted is stopped in time.
            start_margin: Millis((2 * beat).max((watchdog + beat).saturating_sub(stop))),
            storage_deadline: Millis(storage_deadline),
            boot_grace: Millis(300_000),
            fence_timeout: Millis(30_000),
            restart_backoff: Millis(1_000),
        }
    }

    /// L + S: how long after its basis a node may still execute HA VMs.
    #[must_use]
    pub fn span(&self) -> Millis {
        self.lease + self.stop
    }
}

/// Rule 4: what must pass after the younger bound until a node that enforces `span` (its L + S) runs nothing: 1 % more for
/// clocks that run apart, and 250 ms for rounding and the last instruction.
#[must_use]
pub fn surely_dead(span: Millis) -> Millis {
    let margin = Millis(span.0.div_ceil(100) + 250);
    if mutant!(TimeRuleTooShort) { Millis(span.0 / 2) } else { span + margin }
}

/// What a machine is told when it is made.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who it is.
    pub me: Identity,
    /// Timing.
    pub timing: Timing,
    /// The ledger before the first leader, as written by `steadfast storage init`.
    pub genesis: Ledger,
    /// Nodes for which a fence agent is configured.
    pub fence_agents: BTreeSet<NodeId>,
    /// Verification IPs are configured.
    pub verification: bool,
    /// The operator states that this node is never paused from outside, or it runs on bare metal: rule 4 is sound.
    pub never_paused: bool,
    /// What an earlier incarnation of this boot left on tmpfs.
    pub inherited: Option<Inherited>,
    /// Own name.
    pub name: String,
    /// The feature level that it speaks: [`FeatureLevel::NEWEST`], or less for a while (`feature_level.rs`).
    pub level: FeatureLevel,
    /// How much at once, how often, how long.
    pub limits: Limits,
    /// Answers when no policy does in time.
    pub builtin: Builtin,
}

/// Limits that an operator may set. All durations in milliseconds of own time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Exactly half of the nodes may act, with storage as the witness (PROTOCOL section 6); `None`: with two nodes only.
    pub witness: Option<bool>,
    /// Mass-failure brake: more evictions than this within one L need a fence agent; `None`: half of N, rounded down.
    pub max_evictions: Option<usize>,
    /// A node that left and came back this often within `flap_window` is shown as unstable.
    pub flaps: u32,
    /// See `flaps`.
    pub flap_window: Millis,
    /// Starts under way on one node at once.
    pub parallel_starts: usize,
    /// Live migrations under way in the cluster at once.
    pub parallel_migrations: usize,
    /// A migration that takes longer is called off.
    pub migration_timeout: Millis,
    /// A guest that was asked to shut down is destroyed after this.
    pub shutdown_timeout: Millis,
    /// Budgets of restarts and relocations come back after a VM ran for this long.
    pub budget_window: Millis,
    /// What becomes of the VMs of a host that is shut down or rebooted.
    pub host_shutdown: HostShutdown,
    /// VMs that wait for their host are started elsewhere after this.
    pub host_freeze: Millis,
    /// Nodes whose equipment announces a failure.
    pub proactive: Settings,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            witness: None,
            max_evictions: None,
            flaps: 3,
            flap_window: Millis(600_000),
            parallel_starts: 8,
            parallel_migrations: 2,
            migration_timeout: Millis(600_000),
            shutdown_timeout: Millis(60_000),
            budget_window: Millis(600_000),
            host_shutdown: HostShutdown::default(),
            host_freeze: Millis(600_000),
            proactive: Settings::default(),
        }
    }
}

impl Config {
    /// What this node's page says of rule 4: the span that it enforces, if nothing from outside can pause it.
    #[must_use]
    pub fn span(&self) -> Option<Millis> {
        self.never_paused.then(|| self.timing.span())
    }
}

/// The default policies' native twins: what counts when a policy is missing, late or wrong.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Twin of the default node-priority policy.
    pub node_priority: fn(&NodePriorityQuestion) -> NodePriorityVerdict,
    /// Twin of the default placement policy.
    pub placement: fn(&PlacementQuestion) -> PlacementVerdict,
}

/// What outlives an incarnation within a boot (source: tmpfs record).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// Basis of its lease at its last feed.
    pub basis: Option<Instant>,
    /// An instant at which its last feed had surely ended; `None` if it never fed.
    pub last_feed_ended: Option<Instant>,
}
