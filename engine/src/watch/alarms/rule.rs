//! What is worth an alarm.

/// One kind of alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A node failed, was cut off or evicted.
    NodeDown,
    /// A VM does not run although it should.
    VmDown,
    /// A VM's budgets are spent: nothing is tried any more.
    VmFailed,
    /// The cluster has no leader, or no majority.
    NoLeader,
    /// No agent answers.
    Unreachable,
    /// Nobody has shared storage.
    Storage,
    /// A node announces the failure of its equipment.
    Risk,
    /// An agent asks for a person.
    Warning,
    /// Something that the agents call impossible.
    Impossible,
    /// Clocks differ.
    Clock,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NodeDown,
        Self::VmDown,
        Self::VmFailed,
        Self::NoLeader,
        Self::Unreachable,
        Self::Storage,
        Self::Risk,
        Self::Warning,
        Self::Impossible,
        Self::Clock,
    ];

    /// Its name in the configuration and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeDown => "node_down",
            Self::VmDown => "vm_down",
            Self::VmFailed => "vm_failed",
            Self::NoLeader => "no_leader",
            Self::Unreachable => "unreachable",
            Self::Storage => "storage",
            Self::Risk => "risk",
            Self::Warning => "warning",
            Self::Impossible => "impossible",
            Self::Clock => "clock",
        }
    }

    /// The rule of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

impl Rule {
    /// `critical`: VMs stand still, or may; otherwise `warning`.
    pub(super) fn severity(self) -> &'static str {
        match self {
            Self::NodeDown
            | Self::VmDown
            | Self::VmFailed
            | Self::NoLeader
            | Self::Unreachable
            | Self::Storage
            | Self::Impossible => "critical",
            Self::Risk | Self::Warning | Self::Clock => "warning",
        }
    }
}
