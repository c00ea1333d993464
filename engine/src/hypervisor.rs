//! What runs the guests: libvirt, or a demonstration's memory.

use crate::demo::Seat;
use crate::libvirt::{self, DomainInfo, DomainXml, HostFacts, Permission};
use std::sync::Arc;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;

/// One node's.
#[derive(Debug)]
pub enum Hypervisor {
    /// libvirt and QEMU.
    Libvirt(Arc<libvirt::Hypervisor>),
    /// Guests that are only entries of a table.
    Demo(Arc<Seat>),
}

impl Hypervisor {
    /// `Action::StartVm` -> `Event::StartEnded`. `xml` may block.
    pub fn start_vm(
        &self,
        vm: VmId,
        xml: impl FnOnce() -> anyhow::Result<String> + Send + 'static,
        not_after: Instant,
    ) {
        match self {
            Self::Libvirt(it) => it.start_vm(vm, xml, not_after),
            Self::Demo(seat) => seat.start_vm(vm, xml, not_after),
        }
    }

    /// `Action::DestroyVm` -> `Event::StopEnded`.
    pub fn destroy_vm(&self, vm: VmId) {
        match self {
            Self::Libvirt(it) => it.destroy_vm(vm),
            Self::Demo(seat) => seat.destroy_vm(vm),
        }
    }

    /// `Action::ShutDownVm`: asks the guest, which may ignore it.
    pub fn shut_down_vm(&self, vm: VmId) {
        match self {
            Self::Libvirt(it) => it.shut_down_vm(vm),
            Self::Demo(seat) => seat.shut_down_vm(vm),
        }
    }

    /// `Action::MigrateVm` -> `Event::MigrationEnded`. `uri` names the target's libvirt.
    pub fn migrate_vm(&self, vm: VmId, uri: String, not_after: Instant) {
        match self {
            Self::Libvirt(it) => it.migrate_vm(vm, uri, not_after),
            Self::Demo(seat) => seat.migrate_vm(vm, &uri, not_after),
        }
    }

    /// `Action::AbortMigration`: answered by the migration's own `Event::MigrationEnded`.
    pub fn abort_migration(&self, vm: VmId) {
        match self {
            Self::Libvirt(it) => it.abort_migration(vm),
            Self::Demo(seat) => seat.abort_migration(&vm),
        }
    }

    /// `Action::PermitArrival`.
    pub fn permit_arrival(&self, vm: VmId) {
        match self {
            Self::Libvirt(it) => it.permit_arrival(vm),
            Self::Demo(seat) => seat.permit_arrival(vm),
        }
    }

    /// `Action::ForbidArrival`.
    pub fn forbid_arrival(&self, vm: &VmId) {
        match self {
            Self::Libvirt(it) => it.forbid_arrival(vm),
            Self::Demo(seat) => seat.forbid_arrival(vm),
        }
    }

    /// `Action::ResumeVm` -> `Event::ResumeEnded`.
    pub fn resume_vm(&self, vm: VmId, not_after: Instant) {
        match self {
            Self::Libvirt(it) => it.resume_vm(vm, not_after),
            Self::Demo(seat) => seat.resume_vm(vm, not_after),
        }
    }

    /// `Action::UndefineVm`: removes the definition here, unless the VM runs.
    pub fn undefine_vm(&self, vm: VmId) {
        match self {
            Self::Libvirt(it) => it.undefine_vm(vm),
            Self::Demo(seat) => seat.undefine_vm(&vm),
        }
    }

    /// `Action::AdoptVm`: autostart off, its exit will be told.
    pub fn adopt_vm(&self, vm: VmId) {
        match self {
            Self::Libvirt(it) => it.adopt_vm(vm),
            Self::Demo(seat) => seat.adopt_vm(&vm),
        }
    }

    /// `Action::ScanGuests` -> `Event::GuestsScanned`, of a scan that begins after this call.
    pub fn scan(&self) {
        match self {
            Self::Libvirt(it) => it.scan(),
            Self::Demo(seat) => seat.scan(),
        }
    }

    /// Every domain that is known here.
    #[must_use]
    pub fn list(&self) -> Vec<DomainInfo> {
        match self {
            Self::Libvirt(it) => it.list(),
            Self::Demo(seat) => seat.list(),
        }
    }

    /// The definition of one domain, by name or UUID. May wait.
    ///
    /// # Errors
    /// There is no such domain, or nobody answers.
    pub fn domain_xml(&self, name: &str) -> anyhow::Result<DomainXml> {
        match self {
            Self::Libvirt(it) => it.domain_xml(name),
            Self::Demo(seat) => seat.domain_xml(name),
        }
    }

    /// What this host has and what its domains are configured to use. Never blocks.
    #[must_use]
    pub fn facts(&self) -> HostFacts {
        match self {
            Self::Libvirt(it) => it.facts(),
            Self::Demo(seat) => seat.facts(),
        }
    }

    /// Can guests be started here?
    ///
    /// # Errors
    /// Why not, with the remedy.
    pub fn healthy(&self) -> Result<(), String> {
        match self {
            Self::Libvirt(it) => it.healthy(),
            Self::Demo(_) => Ok(()),
        }
    }

    // --- libvirt's hook, which a demonstration does not have ---

    /// What this agent allows libvirt's hook to let pass.
    #[must_use]
    pub fn permission(&self, vm: &VmId) -> Option<Permission> {
        match self {
            Self::Libvirt(it) => it.permission(vm),
            Self::Demo(_) => None,
        }
    }

    /// The hook is about to let `vm` arrive.
    ///
    /// # Errors
    /// Why it must not.
    pub fn pass_arrival(&self, vm: &VmId) -> anyhow::Result<()> {
        match self {
            Self::Libvirt(it) => it.pass_arrival(vm),
            Self::Demo(_) => anyhow::bail!("a demonstration has no hook"),
        }
    }

    /// The hook was told that libvirt is done with `vm`.
    pub fn released(&self, vm: &VmId) {
        if let Self::Libvirt(it) = self {
            it.released(vm);
        }
    }

    /// How often libvirt was connected: another number means that libvirtd may be another one.
    #[must_use]
    pub fn connections(&self) -> usize {
        match self {
            Self::Libvirt(it) => it.connections(),
            Self::Demo(_) => 0,
        }
    }

    /// Asks libvirt for a VM of this UUID that the hook is to refuse. May wait.
    ///
    /// # Errors
    /// It was refused, or libvirt could not be asked.
    pub fn test_hook(&self, vm: &VmId) -> anyhow::Result<()> {
        match self {
            Self::Libvirt(it) => it.test_hook(vm),
            Self::Demo(_) => anyhow::bail!("a demonstration has no hook"),
        }
    }
}
