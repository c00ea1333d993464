//! What may execute on this node. Source of truth: processes, not libvirt's word (PROTOCOL section 4, "none left").

use crate::action::Action;
use crate::budget::Restarts;
use crate::ids::{Stamp, VmId};
use crate::ledger::Ledger;
use crate::outbox::Outbox;
use crate::time::{Instant, Millis};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use serde::{Deserialize, Serialize};

/// A guest as its node reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The VM.
    pub vm: VmId,
    /// Its state there.
    pub state: GuestState,
}

/// State of an HA VM on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestState {
    /// Asked to start; not yet seen.
    Starting,
    /// Its QEMU process exists.
    Running,
    /// Destroy was asked for; its process exists still.
    Stopping,
    /// It may arrive here, paused, by the live migration that commit `since` began.
    Expected {
        /// The migration.
        since: Stamp,
    },
    /// It is being migrated away from here.
    Leaving,
    /// Its guest shut itself down under the ownership `since`, its process is gone, and it is to stay off.
    ShutDown {
        /// The ownership.
        since: Stamp,
    },
    /// A live migration took it away: its process is gone, no start is in flight, and this incarnation will not start it under the
    /// ownership `since` any more. Proof 5, and leave for the target to resume it.
    Departed {
        /// The ownership given up.
        since: Stamp,
    },
    /// Its process is gone, no start is in flight, and this incarnation will not start it under the ownership that
    /// commit `since` gave: proof 5 of PROTOCOL section 5.
    GivenUp {
        /// The ownership given up.
        since: Stamp,
        /// libvirt's words, or what happened.
        reason: String,
    },
}

/// A scan of processes and of starts in flight (source: `/proc`, and the record of starts on tmpfs).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestScan {
    /// When the scan began.
    pub began: Instant,
    /// Every VM (by UUID) with a QEMU process on this node, HA or not.
    pub present: BTreeSet<VmId>,
    /// VMs for which a start that *any earlier* incarnation of this boot asked for may still be under way.
    pub unresolved: BTreeSet<VmId>,
}

/// A destroy that did not end the process is repeated after this.
const DESTROY_AGAIN: Millis = Millis(1_000);
/// Processes are scanned at least this often.
const SCAN_EVERY: Millis = Millis(5_000);

/// Why this incarnation will not start a VM any more under one ownership. Said only once its process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It cannot run here, or may not.
    GivenUp(String),
    /// Its guest shut itself down, and is to stay off.
    ShutDown,
    /// A live migration took it away.
    Departed,
}

/// What may execute here, and what was asked for.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    scan: Option<GuestScan>,
    scan_asked: Option<Instant>,
    /// Starts permitted by this incarnation that have not ended, and until when they may be handed over.
    starting: BTreeMap<VmId, Instant>,
    /// Copies that may arrive by live migration.
    arriving: BTreeSet<VmId>,
    /// When the last start was permitted or ended: a scan must begin after it to prove anything.
    disturbed: Instant,
    destroying: BTreeMap<VmId, Instant>,
    adopted: BTreeSet<VmId>,
    undefined: BTreeMap<VmId, Stamp>,
    /// HA VMs by the newest ledgers read.
    ha: BTreeSet<VmId>,
    /// What this incarnation has said it will not start any more, under which ownership.
    endings: BTreeMap<VmId, (Stamp, Ending)>,
    /// How often they ended.
    pub restarts: Restarts,
    ledger_known: bool,
    /// The last body, and whether it was proved: the same tells nothing new.
    read: Option<(Arc<Ledger>, bool)>,
    /// Counts what changes who is present or watched.
    changes: u64,
    /// An earlier incarnation of this boot had a lease: what executes here may be HA VMs, whatever they are called.
    had_lease: bool,
}

impl Guests {
    pub fn new(had_lease: bool) -> Self {
        Self { had_lease, ..Self::default() }
    }

    /// A body was read. A rumour only adds HA VMs; a committed body names them all.
    pub fn on_ledger(&mut self, ledger: &Arc<Ledger>, proved: bool) {
        let known = self.read.as_ref();
        if known.is_some_and(|(read, how)| Arc::ptr_eq(read, ledger) && *how == proved) {
            return;
        }
        self.read = Some((ledger.clone(), proved));
        self.ledger_known = true;
        if proved {
            self.ha = ledger.vms.keys().cloned().collect();
            // What comes under HA again is adopted again.
            self.adopted.retain(|vm| ledger.vms.contains_key(vm));
            self.endings.retain(|vm, (s, _)| ledger.vms.get(vm).is_some_and(|e| e.since == *s));
        } else {
            self.ha.extend(ledger.vms.keys().cloned());
        }
    }

    pub fn on_scanned(&mut self, scan: GuestScan) {
        self.scan_asked = None;
        self.changes += 1;
        if self.scan.as_ref().is_none_or(|known| known.began <= scan.began) {
            self.destroying.retain(|vm, _| scan.present.contains(vm));
            self.scan = Some(scan);
        }
    }

    /// A process of this VM is gone, perhaps not the one that executes now: only a scan that begins after this tells.
    pub fn on_exited(&mut self, vm: &VmId, died: bool, window: Millis, now: Instant) {
        self.adopted.remove(vm);
        self.changes += 1;
        if let Some(scan) = self.scan.as_mut().filter(|_| mutant!(ExitOfEarlierProcess)) {
            scan.present.remove(vm);
        } else {
            self.disturbed = now;
        }
        // What was stopped on purpose, or was not ours to keep running, says nothing about the VM.
        if died && !self.is_destroying(vm) && self.is_ha(vm) {
            self.restarts.on_died(vm, window, now);
        }
    }

    /// It was to be handed over by then; `None`: nobody had permitted it.
    pub fn on_start_ended(&mut self, vm: &VmId, now: Instant) -> Option<Instant> {
        self.disturbed = now;
        self.starting.remove(vm)
    }

    /// A copy may arrive from now on.
    pub fn permit_arrival(&mut self, vm: &VmId) {
        self.arriving.insert(vm.clone());
    }

    pub fn may_arrive(&self, vm: &VmId) -> bool {
        self.arriving.contains(vm)
    }

    /// None may arrive any more. Whether one did is told by a scan that begins after this.
    pub fn forbid_arrival(&mut self, vm: &VmId, now: Instant) {
        if self.arriving.remove(vm) {
            self.disturbed = now;
        }
    }

    /// Something ended: only a scan that begins after this tells what is left.
    pub fn disturb(&mut self, now: Instant) {
        self.disturbed = now;
    }

    pub fn is_destroying(&self, vm: &VmId) -> bool {
        self.destroying.contains_key(vm)
    }

    /// Permits a start. The scan that proves "none left" must begin after it has ended.
    pub fn permit(&mut self, vm: &VmId, since: Stamp, not_after: Instant, now: Instant) {
        self.restarts.runs_under(vm, since);
        self.restarts.on_permitted(vm);
        self.starting.insert(vm.clone(), not_after);
        self.disturbed = now;
    }

    /// This incarnation will not start `vm` under the ownership `since` any more.
    pub fn end(&mut self, vm: &VmId, since: Stamp, ending: Ending) {
        self.endings.insert(vm.clone(), (since, ending));
    }

    pub fn has_ended(&self, vm: &VmId, since: Stamp) -> bool {
        self.endings.get(vm).is_some_and(|(ended, _)| *ended == since)
    }

    pub fn is_present(&self, vm: &VmId) -> bool {
        self.scan.as_ref().is_some_and(|scan| scan.present.contains(vm))
    }

    pub fn is_starting(&self, vm: &VmId) -> bool {
        self.starting.contains_key(vm)
    }

    /// The same number: the same processes are present, and the same ones watched.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many starts are under way.
    pub fn starting(&self) -> usize {
        self.starting.len()
    }

    pub fn is_ha(&self, vm: &VmId) -> bool {
        self.ha.contains(vm)
    }

    /// Unknown to have any process: no scan yet, or it may be one that an earlier incarnation asked for.
    pub fn is_uncertain(&self, vm: &VmId) -> bool {
        let unresolved = self.scan.as_ref().is_some_and(|scan| scan.unresolved.contains(vm));
        self.is_disturbed() || unresolved
    }

    /// HA VMs with a process here.
    pub fn present_ha(&self) -> Vec<VmId> {
        let present = self.scan.iter().flat_map(|scan| &scan.present);
        present.filter(|vm| self.is_ha(vm) || mutant!(GuestsWithoutHaStopped)).cloned().collect()
    }

    /// "None left": no HA VM has a process, and no start of any incarnation is in flight, by a scan that began after
    /// the last start ended and at or after `since`.
    pub fn none_left(&self, since: Instant) -> bool {
        let Some(scan) = &self.scan else { return false };
        self.ledger_known
            && (self.starting.is_empty() || mutant!(ForgottenStart))
            && self.arriving.is_empty()
            && (scan.began >= self.disturbed.max(since) || mutant!(NoneLeftByOldScan))
            && (scan.unresolved.is_empty() || mutant!(UnresolvedStartForgotten))
            && !scan.present.iter().any(|vm| self.is_ha(vm))
    }

    /// HA guests may execute: present, starting, or not known not to.
    pub fn may_execute(&self) -> bool {
        let may_come = !self.starting.is_empty() || !self.arriving.is_empty();
        let mut present = self.scan.iter().flat_map(|scan| &scan.present);
        if may_come || present.any(|vm| self.is_ha(vm)) {
            return true;
        }
        let unnamed = self.had_lease && !self.ledger_known;
        self.scan.as_ref().map_or(unnamed, |scan| {
            !scan.unresolved.is_empty() || unnamed && !scan.present.is_empty()
        })
    }

    /// Asks for a scan if one is due or `wanted`.
    pub fn scan_if(&mut self, wanted: bool, out: &mut Outbox) {
        let due = self.scan.as_ref().is_none_or(|scan| out.now.since(scan.began) >= SCAN_EVERY);
        let pending = self.scan_asked.is_some_and(|at| out.now.since(at) < SCAN_EVERY);
        if (due || wanted) && !pending {
            self.scan_asked = Some(out.now);
            out.push(Action::ScanGuests);
        }
    }

    /// Something changed after the newest scan began: it does not tell what executes now.
    pub fn is_disturbed(&self) -> bool {
        self.scan.as_ref().is_none_or(|scan| scan.began < self.disturbed)
    }

    /// When the newest scan began.
    pub fn scanned(&self) -> Option<Instant> {
        self.scan.as_ref().map(|scan| scan.began)
    }

    /// Destroys `vm` here, again and again until its process is gone.
    pub fn destroy(&mut self, vm: &VmId, reason: &str, out: &mut Outbox) -> bool {
        let asked = self.destroying.get(vm).copied();
        if asked.is_some_and(|at| out.now.since(at) < DESTROY_AGAIN) {
            return false;
        }
        self.destroying.insert(vm.clone(), out.now);
        out.push(Action::DestroyVm { vm: vm.clone(), reason: reason.into() });
        asked.is_none()
    }

    /// Watches a guest that belongs here. True if it was not watched before.
    pub fn adopt(&mut self, vm: &VmId, since: Stamp, out: &mut Outbox) -> bool {
        self.restarts.runs_under(vm, since);
        let news = !self.adopted.contains(vm);
        if news {
            self.adopted.insert(vm.clone());
            out.push(Action::AdoptVm { vm: vm.clone() });
        }
        news
    }

    /// The VM belongs elsewhere: its domain here is removed, once per ownership.
    pub fn undefine(&mut self, vm: &VmId, since: Stamp, out: &mut Outbox) {
        if self.undefined.get(vm) != Some(&since) {
            self.undefined.insert(vm.clone(), since);
            out.push(Action::UndefineVm { vm: vm.clone() });
        }
    }

    pub fn forget_undefined(&mut self, vm: &VmId) {
        self.undefined.remove(vm);
    }

    /// HA VMs by the newest ledgers read.
    pub fn ha(&self) -> &BTreeSet<VmId> {
        &self.ha
    }

    /// What the processes say of an HA VM here, and what this incarnation has said about it.
    pub fn state(&self, vm: &VmId) -> Option<GuestState> {
        if self.destroying.contains_key(vm) {
            Some(GuestState::Stopping)
        } else if self.is_present(vm) {
            Some(GuestState::Running)
        } else if self.is_starting(vm) {
            Some(GuestState::Starting)
        } else if self.is_uncertain(vm) {
            None
        } else {
            let (since, ending) = self.endings.get(vm)?.clone();
            Some(match ending {
                Ending::GivenUp(reason) => GuestState::GivenUp { since, reason },
                Ending::ShutDown => GuestState::ShutDown { since },
                Ending::Departed => GuestState::Departed { since },
            })
        }
    }
}

#[cfg(test)]
#[path = "tests/guest.rs"]
mod tests;
