//! Guests in memory: processes that begin, end and move, as QEMU's do under libvirt, with the times that those take.

use super::world::State;
use crate::libvirt::{DomainInfo, DomainXml, HostFacts};
use anyhow::{Context, Result};
use steadfast_core::event::Event;
use steadfast_core::guest::GuestScan;
use steadfast_core::ids::{NodeId, VmId};
use steadfast_core::time::{Instant, Millis};

/// From the order to a process that executes.
const START: Millis = Millis(400);
/// From the order to the process's end.
const DESTROY: Millis = Millis(150);
/// A guest that is asked to shut down takes this long.
const SHUT_DOWN: Millis = Millis(1_500);
/// Until the target has a process for what arrives.
const PREPARE: Millis = Millis(150);
/// Until all memory is there.
const COPY: Millis = Millis(1_500);
/// From an answer to the look at the processes that follows it.
const SCAN: Millis = Millis(10);
/// Until a complete copy executes.
const RESUME: Millis = Millis(50);

/// A domain as it is defined on a node.
#[derive(Debug, Clone)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) xml: String,
    pub(super) memory_mib: u64,
    pub(super) vcpus: u32,
    /// It is started with its host: of no use to a VM under HA, and switched off for it.
    pub(super) autostart: bool,
}

/// One QEMU process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Executing,
    /// It waits, paused, for the end of this migration.
    Copy {
        migration: u64,
        complete: bool,
    },
}

/// One boot of one node.
pub(super) type Place = (NodeId, u64);

impl State {
    // --- what is there ---

    /// Answers with what has a process here.
    pub(super) fn scan(&self, node: NodeId) {
        let Some(host) = self.host(node) else { return };
        let present = host.processes.keys().cloned().collect();
        let scan = GuestScan { began: self.now, present, unresolved: <_>::default() };
        host.tell(Event::GuestsScanned(scan));
    }

    pub(super) fn list(&self, node: NodeId) -> Vec<DomainInfo> {
        let Some(host) = self.host(node) else { return Vec::new() };
        let describe = |(vm, domain): (&VmId, &Domain)| {
            let process = host.processes.get(vm);
            DomainInfo {
                name: domain.name.clone(),
                uuid: vm.clone(),
                state: match process {
                    Some(Process::Executing) => "running",
                    Some(Process::Copy { .. }) => "paused",
                    None => "shut off",
                },
                active: process.is_some(),
                autostart: domain.autostart,
                memory_mib: domain.memory_mib,
                vcpus: domain.vcpus,
            }
        };
        host.domains.iter().map(describe).collect()
    }

    pub(super) fn domain_xml(&self, node: NodeId, name: &str) -> Result<DomainXml> {
        let host = self.host(node).context("no such node")?;
        let mut domains = host.domains.iter();
        let found = domains.find(|(vm, domain)| domain.name == name || vm.0 == name);
        let (vm, domain) = found.with_context(|| format!("{} has no VM {name}", host.name))?;
        Ok(DomainXml {
            uuid: vm.clone(),
            name: domain.name.clone(),
            xml: domain.xml.clone(),
            memory_mib: domain.memory_mib,
            vcpus: domain.vcpus,
        })
    }

    pub(super) fn facts(&self, node: NodeId) -> HostFacts {
        let Some(host) = self.host(node) else { return HostFacts::default() };
        let active = || host.processes.keys().filter_map(|vm| host.domains.get(vm));
        let used: u64 = active().map(|domain| domain.memory_mib).sum();
        HostFacts {
            memory_mib: host.memory_mib,
            memory_free_mib: host.memory_mib.saturating_sub(used),
            vcpus: host.vcpus,
            vcpus_used: active().map(|domain| domain.vcpus).sum(),
        }
    }

    fn vm_name(&self, vm: &VmId) -> String {
        let known = self.hosts.values().find_map(|host| host.domains.get(vm));
        known.map_or_else(|| vm.0.clone(), |domain| domain.name.clone())
    }

    // --- begin and end ---

    /// Executes from now on. Whoever asked, the witness sees it.
    pub(super) fn execute(&mut self, node: NodeId, vm: &VmId) {
        let name = self.vm_name(vm);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.processes.insert(vm.clone(), Process::Executing);
        let (place, now) = (host.name.clone(), self.now);
        if !self.truth.began(now, (node, &place), &name) {
            tracing::error!(vm = name, node = place, "alarm: a VM executes in two places");
        }
        self.note(format!("{name} runs on {place}"));
    }

    /// What ended was a process of `vm` here.
    pub(super) fn process_ended(&mut self, node: NodeId, vm: &VmId, process: Process) {
        if process != Process::Executing {
            return;
        }
        let name = self.vm_name(vm);
        self.truth.ended(self.now, node, &name);
        let place = self.host(node).map(|host| host.name.clone()).unwrap_or_default();
        self.note(format!("{name} has ended on {place}"));
    }

    /// Ends the process of `vm`, tells of it, and says whether there was one.
    fn exit(&mut self, node: NodeId, vm: &VmId) -> bool {
        let Some(host) = self.hosts.get_mut(&node) else { return false };
        let Some(process) = host.processes.remove(vm) else { return false };
        host.tell(Event::GuestExited { vm: vm.clone() });
        self.process_ended(node, vm, process);
        true
    }

    /// VMs without HA are started with their host.
    pub(super) fn start_unprotected(&mut self, node: NodeId) {
        let Some(host) = self.host(node) else { return };
        let wanted = host.domains.iter().filter(|(_, domain)| domain.autostart);
        let wanted: Vec<VmId> = wanted.map(|(vm, _)| vm.clone()).collect();
        for vm in wanted {
            if !self.host(node).is_some_and(|host| host.processes.contains_key(&vm)) {
                self.execute(node, &vm);
            }
        }
    }

    pub(super) fn start(&mut self, at: Place, vm: VmId, domain: Result<Domain>, until: Instant) {
        let now = self.now;
        let Some(host) = self.seated(at.0, at.1) else { return };
        let began = domain.and_then(|domain| {
            anyhow::ensure!(now <= until, "not handed over: too late for this lease");
            anyhow::ensure!(!host.processes.contains_key(&vm), "it is running already");
            host.domains.insert(vm.clone(), domain);
            Ok(())
        });
        if let Err(error) = began {
            host.tell(Event::StartEnded { vm, result: Err(format!("{error:#}")) });
            return self.scan_soon(at.0);
        }
        self.later_at(at, START, move |state| {
            let is_there = state.host(at.0).is_some_and(|host| host.processes.contains_key(&vm));
            if !is_there {
                state.execute(at.0, &vm);
            }
            state.answer(at.0, Event::StartEnded { vm, result: Ok(()) });
        });
    }

    /// The answer, and then what a look at the processes shows.
    fn answer(&mut self, node: NodeId, event: Event) {
        if let Some(host) = self.host(node) {
            host.tell(event);
        }
        self.scan_soon(node);
    }

    /// A scan proves something only if it began after the agent knew what it is about.
    fn scan_soon(&mut self, node: NodeId) {
        self.later(SCAN, move |state| state.scan(node));
    }

    pub(super) fn destroy(&mut self, at: Place, vm: VmId) {
        self.later_at(at, DESTROY, move |state| {
            let gone = state.exit(at.0, &vm);
            let result = if gone { Ok(()) } else { Err("it is not running".into()) };
            state.answer(at.0, Event::StopEnded { vm, result });
        });
    }

    pub(super) fn shut_down(&mut self, at: Place, vm: VmId) {
        self.later_at(at, SHUT_DOWN, move |state| {
            let process = state.host(at.0).and_then(|host| host.processes.get(&vm));
            if process == Some(&Process::Executing) {
                state.answer(at.0, Event::GuestShutDown { vm: vm.clone() });
                state.exit(at.0, &vm);
                state.scan_soon(at.0);
            }
        });
    }

    pub(super) fn undefine(&mut self, node: NodeId, vm: &VmId) {
        if let Some(host) = self.host_mut(node)
            && !host.processes.contains_key(vm)
        {
            host.domains.remove(vm);
        }
    }

    // --- migrations ---

    /// To the node of this name.
    pub(super) fn migrate(&mut self, at: Place, vm: VmId, target: &str, until: Instant) {
        let to = self.hosts.iter().find(|(_, host)| host.name == target).map(|(node, _)| *node);
        self.migrations += 1;
        let (number, now) = (self.migrations, self.now);
        let Some(host) = self.seated(at.0, at.1) else { return };
        let Some(to) = to.filter(|_| now <= until) else {
            let result = Err(format!("{target} does not answer, or it is too late"));
            return host.tell(Event::MigrationEnded { vm, result });
        };
        host.leaving.insert(vm.clone(), number);
        self.later_at(at, PREPARE, move |state| state.prepare_copy(at, vm, to, number));
    }

    fn is_leaving(&self, node: NodeId, vm: &VmId, number: u64) -> bool {
        self.host(node).is_some_and(|host| host.leaving.get(vm) == Some(&number))
    }

    fn prepare_copy(&mut self, at: Place, vm: VmId, to: NodeId, number: u64) {
        let source = self.host(at.0);
        let executes = source.is_some_and(|host| {
            host.plugged && host.processes.get(&vm) == Some(&Process::Executing)
        });
        let domain = source.and_then(|host| host.domains.get(&vm)).cloned();
        let goes = executes && self.is_leaving(at.0, &vm, number);
        let target = self.hosts.get_mut(&to).filter(|target| {
            let free = !target.processes.contains_key(&vm);
            goes && target.up && target.plugged && free && target.permitted.contains(&vm)
        });
        let Some((target, domain)) = target.zip(domain) else {
            return self.migration_failed(at.0, vm, "the target does not accept it");
        };
        target.domains.insert(vm.clone(), domain);
        target.processes.insert(vm.clone(), Process::Copy { migration: number, complete: false });
        let there = (to, target.boot);
        self.scan_soon(to);
        // Not only while the source has power: the copy must end with it.
        self.later(COPY, move |state| state.switch_over(at, there, vm, number));
    }

    fn switch_over(&mut self, at: Place, there: Place, vm: VmId, number: u64) {
        let plugged = |state: &Self, node| state.host(node).is_some_and(|host| host.plugged);
        let reached = plugged(self, at.0) && plugged(self, there.0);
        let copy = Process::Copy { migration: number, complete: false };
        let is_there = self
            .seated(there.0, there.1)
            .is_some_and(|host| host.processes.get(&vm) == Some(&copy));
        let alive = self.seated(at.0, at.1).is_some();
        let goes = alive && reached && is_there && self.is_leaving(at.0, &vm, number);
        let executes = self
            .host(at.0)
            .is_some_and(|host| host.processes.get(&vm) == Some(&Process::Executing));
        if !(goes && executes) {
            self.drop_copy(there, &vm, number);
            if alive {
                self.migration_failed(at.0, vm, "it broke off");
            }
            return;
        }
        if let Some(target) = self.host_mut(there.0) {
            let complete = Process::Copy { migration: number, complete: true };
            target.processes.insert(vm.clone(), complete);
        }
        self.exit(at.0, &vm);
        if let Some(source) = self.host_mut(at.0) {
            source.leaving.remove(&vm);
        }
        self.answer(at.0, Event::MigrationEnded { vm, result: Ok(()) });
    }

    fn drop_copy(&mut self, (node, boot): Place, vm: &VmId, number: u64) {
        let Some(host) = self.seated(node, boot) else { return };
        let copy = host.processes.get(vm);
        if matches!(copy, Some(Process::Copy { migration, .. }) if *migration == number) {
            self.exit(node, vm);
            self.scan_soon(node);
        }
    }

    fn migration_failed(&mut self, node: NodeId, vm: VmId, why: &str) {
        if let Some(host) = self.host_mut(node) {
            host.leaving.remove(&vm);
        }
        self.answer(node, Event::MigrationEnded { vm, result: Err(why.into()) });
    }

    pub(super) fn abort(&mut self, node: NodeId, vm: &VmId) {
        // Its next step finds that it is not wanted any more.
        if let Some(host) = self.host_mut(node) {
            host.leaving.remove(vm);
        }
    }

    /// A complete copy goes on here.
    pub(super) fn resume(&mut self, at: Place, vm: VmId, until: Instant) {
        self.later_at(at, RESUME, move |state| {
            let process = state.host(at.0).and_then(|host| host.processes.get(&vm)).copied();
            let result = match process {
                Some(Process::Executing) => Ok(()),
                _ if state.now > until => Err("too late for this lease".to_owned()),
                Some(Process::Copy { complete: true, .. }) => {
                    state.execute(at.0, &vm);
                    Ok(())
                }
                Some(Process::Copy { .. }) => Err("its copy is not complete".into()),
                None => Err("there is no process of it".into()),
            };
            state.answer(at.0, Event::ResumeEnded { vm, result });
        });
    }
}
