//! Hands actions to their adapters. Every call here returns at once.

use super::edge::{Edge, Fence, Network};
use super::questions::{Question, Questions};
use crate::Sink;
use crate::hypervisor::Hypervisor;
use crate::last_words::LastWords;
use crate::pages::PageStore;
use crate::watchdog::Watchdog;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use steadfast_core::action::Action;
use steadfast_core::event::Event;
use steadfast_core::ids::{Digest, VmId};
use steadfast_core::message::Message;
use steadfast_core::time::Instant;

/// All adapters.
pub(super) struct Hands {
    pub(super) edge: Edge,
    pub(super) network: Network,
    pub(super) pages: Arc<PageStore>,
    pub(super) hypervisor: Arc<Hypervisor>,
    pub(super) watchdog: Option<Watchdog>,
    pub(super) fence: Fence,
    pub(super) questions: Questions,
    /// libvirt of another node, with `{node}` for its name.
    pub(super) migrate_uri: String,
    pub(super) sysrq: PathBuf,
    pub(super) last_words: LastWords,
    pub(super) events: Sink,
    pub(super) told_no_watchdog: AtomicBool,
}

impl Hands {
    /// Hands over one action.
    pub(super) fn act(&self, action: &Action) {
        match action {
            Action::Send(message) => self.network.send(Message::clone(message)),
            Action::FeedWatchdog { basis, last, not_after } => self.feed(*basis, *last, *not_after),
            Action::ResetNode { reason } => self.edge.reset(&self.sysrq, &self.last_words, reason),
            Action::Fence { victim, eviction } => self.fence.fence(*victim, *eviction),
            Action::AskPriority { .. } | Action::AskPlacement { .. } => self.ask(action),
            Action::WritePage { .. }
            | Action::WriteBody { .. }
            | Action::ReadPages { .. }
            | Action::ReadBody { .. } => self.store(action),
            Action::ScanGuests
            | Action::StartVm { .. }
            | Action::DestroyVm { .. }
            | Action::ShutDownVm { .. }
            | Action::UndefineVm { .. }
            | Action::AdoptVm { .. } => self.run(action),
            Action::MigrateVm { .. }
            | Action::AbortMigration { .. }
            | Action::PermitArrival { .. }
            | Action::ForbidArrival { .. }
            | Action::ResumeVm { .. } => self.move_live(action),
            Action::CloseWatchdog => self.close_watchdog(),
            // The driver does these itself.
            Action::Answer(_) | Action::Record(_) | Action::LetHostStop => {}
        }
    }

    /// The node has lost its power: what has a thread of its own ends it.
    pub(super) fn end(&self) {
        self.watchdog.iter().for_each(Watchdog::end);
    }

    fn store(&self, action: &Action) {
        match action {
            Action::WritePage { id, page } => self.pages.write_page(*id, Clone::clone(&**page)),
            Action::WriteBody { id, slot, bytes } => {
                self.pages.write_body(*id, *slot, Arc::clone(bytes));
            }
            Action::ReadPages { id, nodes } => self.pages.read_pages(*id, Arc::clone(nodes)),
            Action::ReadBody { id, node, slot } => self.pages.read_body(*id, *node, *slot),
            _ => {}
        }
    }

    fn run(&self, action: &Action) {
        match action {
            Action::ScanGuests => self.hypervisor.scan(),
            Action::StartVm { vm, xml, not_after } => self.start(vm, *xml, *not_after),
            Action::DestroyVm { vm, .. } => self.hypervisor.destroy_vm(vm.clone()),
            Action::ShutDownVm { vm } => self.hypervisor.shut_down_vm(vm.clone()),
            Action::UndefineVm { vm } => self.hypervisor.undefine_vm(vm.clone()),
            Action::AdoptVm { vm } => self.hypervisor.adopt_vm(vm.clone()),
            _ => {}
        }
    }

    fn move_live(&self, action: &Action) {
        match action {
            Action::MigrateVm { vm, name, not_after, .. } => {
                let uri = self.migrate_uri.replace("{node}", name);
                self.hypervisor.migrate_vm(vm.clone(), uri, *not_after);
            }
            Action::AbortMigration { vm } => self.hypervisor.abort_migration(vm.clone()),
            Action::PermitArrival { vm } => self.hypervisor.permit_arrival(vm.clone()),
            Action::ForbidArrival { vm } => self.hypervisor.forbid_arrival(vm),
            Action::ResumeVm { vm, not_after } => {
                self.hypervisor.resume_vm(vm.clone(), *not_after);
            }
            _ => {}
        }
    }

    fn start(&self, vm: &VmId, xml: Digest, not_after: Instant) {
        let pages = Arc::clone(&self.pages);
        self.hypervisor.start_vm(vm.clone(), move || pages.get_catalogue(xml), not_after);
    }

    fn feed(&self, basis: Option<Instant>, last: Option<Instant>, not_after: Instant) {
        match &self.watchdog {
            Some(watchdog) => watchdog.feed(basis, last, not_after),
            // Once: the machine asks again after each answer, and without one only every other beat.
            None if self.told_no_watchdog.swap(true, Ordering::Relaxed) => {}
            None => {
                let reason = "no watchdog is configured: set [watchdog] device".into();
                (self.events)(Event::WatchdogFailed { reason });
            }
        }
    }

    fn close_watchdog(&self) {
        match &self.watchdog {
            Some(watchdog) => watchdog.release(),
            None => (self.events)(Event::WatchdogClosed),
        }
    }

    fn ask(&self, action: &Action) {
        match action {
            Action::AskPriority { id, policy, question } => {
                self.questions.ask(Question::Priority(*id, *policy, question.clone()));
            }
            Action::AskPlacement { id, question } => {
                self.questions.ask(Question::Placement(*id, question.clone()));
            }
            _ => {}
        }
    }
}
