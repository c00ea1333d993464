//! Starts. Until the hand-over to libvirt a start can be called off at any moment; from then on it
//! is in flight until libvirt's word, or until no libvirtd exists that could still carry it out.

use super::connection::{Pending, daemons};
use super::{Inner, lock, thread};
use crate::guests::ProcessId;
use anyhow::{Context as _, anyhow, bail};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorDomain, ErrorNumber};
use virt::sys;

/// QEMUs that begin at the same time; hung ones leave as many threads for everything else.
const MAX_STARTS: usize = 4;
/// How often a start that waits looks at the clock and whether it was called off.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often a start in doubt asks for a scan.
const DOUBT_AGAIN: Duration = Duration::from_millis(200);

/// Starts under way.
#[derive(Default)]
pub struct Starting {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    phases: BTreeMap<VmId, (Phase, Instant)>,
    permits_taken: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// libvirt has not seen it.
    Preparing,
    /// libvirt may carry it out at any moment.
    HandedOver,
    /// Called off before the hand-over, or to be destroyed as soon as it ended.
    CalledOff,
}

/// How a handed-over start ended.
enum Outcome {
    Running,
    Failed(anyhow::Error),
    /// The connection died: libvirtd may carry it out yet.
    Unknown(anyhow::Error),
}

type Xml = Box<dyn FnOnce() -> anyhow::Result<String> + Send>;

/// One start on its way.
#[derive(Clone)]
struct Start {
    inner: Arc<Inner>,
    vm: VmId,
    not_after: Instant,
    /// libvirt may have seen it: from here on an error alone ends nothing.
    handed_over: Arc<AtomicBool>,
    /// It must not be handed over any more.
    withdrawn: Arc<AtomicBool>,
}

pub fn start(
    inner: &Arc<Inner>,
    vm: VmId,
    xml: impl FnOnce() -> anyhow::Result<String> + Send + 'static,
    not_after: Instant,
) {
    if !inner.starting.begin(&vm, not_after) {
        tracing::info!(%vm, "a start of this VM is under way already; it answers for both");
        return;
    }
    let (handed_over, withdrawn) = (Arc::default(), Arc::default());
    let inner_too = inner.clone();
    let start = Start { inner: inner_too, vm: vm.clone(), not_after, handed_over, withdrawn };
    if let Err(error) = thread("libvirt-start", move || start.run(Box::new(xml))) {
        end(inner, vm, Err(error));
    }
}

pub fn adopt(inner: &Arc<Inner>, vm: VmId) {
    if let Some(guests) = inner.guests.get() {
        guests.adopt(&vm);
    }
    let worker = inner.clone();
    let spawned = thread("libvirt-adopt", move || {
        let wanted = vm.clone();
        let result = worker.connection.call("switch autostart off", move |connect| {
            let domain = lookup(connect, &wanted)?.context("libvirt does not know it")?;
            super::migrate::resume_leftover(&domain)?;
            autostart_off(&domain)
        });
        if let Err(error) = result {
            let error = format!("{error:#}");
            tracing::info!(%vm, error, "libvirt could not prepare an adopted VM");
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(error = format!("{error:#}"), "no thread for libvirt; raise TasksMax");
    }
}

/// A destroy was asked for: a start that libvirt has not seen ends, any other is destroyed at once
/// when it ends.
pub fn call_off(inner: &Inner, vm: &VmId) {
    if let Some((phase, _)) = lock(&inner.starting.state).phases.get_mut(vm) {
        *phase = Phase::CalledOff;
    }
    inner.starting.freed.notify_all();
}

fn end(inner: &Arc<Inner>, vm: VmId, result: anyhow::Result<()>) {
    lock(&inner.starting.state).phases.remove(&vm);
    let result = result.map_err(|error| format!("cannot start VM {vm}: {error:#}"));
    tracing::info!(%vm, ?result, "start ended");
    inner.emit(Event::StartEnded { vm, result });
    inner.scan();
}

impl Starting {
    fn begin(&self, vm: &VmId, not_after: Instant) -> bool {
        let mut state = lock(&self.state);
        if state.phases.contains_key(vm) {
            return false;
        }
        state.phases.insert(vm.clone(), (Phase::Preparing, not_after));
        true
    }

    /// A start of this VM is on its way.
    pub fn has(&self, vm: &VmId) -> bool {
        lock(&self.state).phases.contains_key(vm)
    }

    /// libvirt may carry out a start of this VM, which was to be handed over until then.
    pub fn is_handed_over(&self, vm: &VmId) -> Option<Instant> {
        let state = lock(&self.state);
        let (phase, not_after) = state.phases.get(vm)?;
        (*phase == Phase::HandedOver).then_some(*not_after)
    }
}

/// The right to be one of the starts inside libvirt; given back when dropped.
struct Permit(Arc<Inner>);

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.0.starting.state).permits_taken -= 1;
        self.0.starting.freed.notify_all();
    }
}

impl Start {
    fn run(self, xml: Xml) {
        let result = self.prepare_and_create(xml);
        end(&self.inner, self.vm, result);
    }

    fn prepare_and_create(&self, xml: Xml) -> anyhow::Result<()> {
        if crate::systemd::is_shutting_down() {
            bail!("this node is shutting down: its VMs run on other nodes");
        }
        let xml = self.fetch(xml)?;
        self.wait_for_stop()?;
        let permit = self.permit()?;
        self.wait_for_libvirt()?;
        if self.define(xml)? {
            return Ok(());
        }
        if let Some(guests) = self.inner.guests.get() {
            guests.adopt(&self.vm);
        }
        self.hand_over(permit)
    }

    /// Reads the definition on a thread of its own: dead storage must not keep a start in flight.
    fn fetch(&self, xml: Xml) -> anyhow::Result<String> {
        let (sender, result) = mpsc::sync_channel(1);
        thread("libvirt-fetch", move || {
            let _ = sender.send(xml());
        })?;
        loop {
            match result.recv_timeout(LOOK_AGAIN) {
                Ok(xml) => return xml.context("cannot read its definition from the catalogue"),
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("reading its definition failed"),
                Err(mpsc::RecvTimeoutError::Timeout) => self.may_go_on("reading its definition")?,
            }
        }
    }

    /// A destroy under way would hit this start. A later one calls it off.
    fn wait_for_stop(&self) -> anyhow::Result<()> {
        while let Some(reason) = self.inner.stopping.reason(&self.vm) {
            self.may_go_on(reason)?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn permit(&self) -> anyhow::Result<Permit> {
        let mut state = lock(&self.inner.starting.state);
        while state.permits_taken >= MAX_STARTS {
            let wait = self.inner.starting.freed.wait_timeout(state, LOOK_AGAIN);
            drop(wait.unwrap_or_else(PoisonError::into_inner).0);
            self.may_go_on("waiting for other starts")?;
            state = lock(&self.inner.starting.state);
        }
        state.permits_taken += 1;
        Ok(Permit(self.inner.clone()))
    }

    fn wait_for_libvirt(&self) -> anyhow::Result<()> {
        while let Err(reason) = self.inner.connection.healthy() {
            self.may_go_on("waiting for libvirt").context(reason)?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Defines it as the catalogue says; `true` if it is active already.
    fn define(&self, xml: String) -> anyhow::Result<bool> {
        let vm = self.vm.clone();
        must_name(&vm, &xml)?;
        self.inner.connection.call("define a VM", move |connect| {
            let known = lookup(connect, &vm)?;
            if let Some(domain) = &known
                && domain.is_active()?
            {
                return Ok(true);
            }
            let domain = match known {
                Some(domain) if is_same(&domain, &xml)? => domain,
                _ => Domain::define_xml(connect, &xml).context("libvirt refuses its definition")?,
            };
            let got = domain.get_uuid_string()?;
            if !got.eq_ignore_ascii_case(&vm.0) {
                bail!(
                    "mismatched UUID in the catalogue: expected {vm}, got {got}; enable it again"
                );
            }
            autostart_off(&domain)?;
            Ok(false)
        })
    }

    fn hand_over(&self, permit: Permit) -> anyhow::Result<()> {
        let worker = self.clone();
        let create = move |connect: &Connect| worker.create(connect, permit);
        let pending = self.inner.connection.begin("start a VM", create);
        let outcome = pending.and_then(|pending| self.outcome(&pending));
        let result = match outcome {
            Ok(Outcome::Running) => Ok(()),
            Ok(Outcome::Failed(error)) => Err(error),
            Ok(Outcome::Unknown(error)) => self.doubt(error),
            Err(error) if self.handed_over.load(Ordering::Acquire) => self.doubt(error),
            Err(error) => Err(error),
        };
        if self.handed_over.load(Ordering::Acquire) {
            self.inner.records.remove(&self.vm);
            self.destroy_if_called_off()?;
        }
        result
    }

    fn outcome(&self, pending: &Pending<Outcome>) -> anyhow::Result<Outcome> {
        let mut warned = false;
        loop {
            // Until the hand-over it can be withdrawn, however long libvirt keeps it waiting.
            let is_handed_over = self.handed_over.load(Ordering::Acquire);
            let patience = if is_handed_over { self.inner.deadline } else { LOOK_AGAIN };
            if let Some(result) = pending.wait(patience) {
                return result;
            }
            if !is_handed_over {
                self.may_go_on("waiting for libvirt").or_else(|error| self.withdraw(error))?;
            } else if !std::mem::replace(&mut warned, true) {
                tracing::warn!(
                    vm = %self.vm,
                    deadline_ms = self.inner.deadline.as_millis(),
                    "a start is overdue inside libvirt and counts as in flight; is storage or \
                     libvirtd hung?"
                );
            }
        }
    }

    /// Fails with `error`, unless the hand-over was quicker.
    fn withdraw(&self, error: anyhow::Error) -> anyhow::Result<()> {
        let _state = lock(&self.inner.starting.state);
        if self.handed_over.load(Ordering::Acquire) {
            return Ok(());
        }
        self.withdrawn.store(true, Ordering::Release);
        Err(error)
    }

    /// On the calling thread: the last look at the clock, then the point of no return.
    fn create(&self, connect: &Connect, _permit: Permit) -> anyhow::Result<Outcome> {
        let domain = lookup(connect, &self.vm)?.context("its definition vanished")?;
        // After the look-up: the daemon that answered it is among them, or the call will fail.
        self.pass_the_point_of_no_return(&daemons()?)?;
        // A memory image saved here in the past must never meet disks that ran elsewhere since.
        match domain.create_with_flags(sys::VIR_DOMAIN_START_FORCE_BOOT) {
            Ok(_) => Ok(Outcome::Running),
            Err(error) if !connect.is_alive().unwrap_or(false) || is_transport(&error) => {
                Ok(Outcome::Unknown(error.into()))
            }
            Err(error) => {
                let hint = "the guest's log in /var/log/libvirt/qemu may tell more";
                Ok(Outcome::Failed(anyhow!(error).context(hint)))
            }
        }
    }

    fn may_go_on(&self, doing: &str) -> anyhow::Result<()> {
        let (now, not_after) = ((self.inner.clock)(), self.not_after);
        if now > not_after {
            let late = now.since(not_after);
            bail!("too late by {late} while {doing}: the lease allows no start any more");
        }
        match lock(&self.inner.starting.state).phases.get(&self.vm) {
            Some((Phase::CalledOff, _)) => bail!("called off by a destroy while {doing}"),
            _ => Ok(()),
        }
    }

    /// Records the start and looks at the clock for the last time: nothing slow comes after it.
    fn pass_the_point_of_no_return(&self, daemons: &[ProcessId]) -> anyhow::Result<()> {
        self.may_go_on("handing it to libvirt")?;
        let (inner, vm) = (&self.inner, &self.vm);
        let mut state = lock(&inner.starting.state);
        let phase = state.phases.get_mut(vm).map(|(phase, _)| phase);
        let phase = phase.filter(|phase| **phase == Phase::Preparing);
        let Some(phase) = phase.filter(|_| !self.withdrawn.load(Ordering::Acquire)) else {
            bail!("withdrawn in the last moment before libvirt");
        };
        inner.records.add(vm, daemons, (inner.clock)())?;
        if (inner.clock)() > self.not_after {
            inner.records.remove(vm);
            bail!("too late in the last moment before libvirt: the lease allows no start any more");
        }
        *phase = Phase::HandedOver;
        self.handed_over.store(true, Ordering::Release);
        Ok(())
    }

    /// The connection died in mid-call. Only a scan tells: QEMU is there, or no libvirtd is left
    /// that could start it.
    fn doubt(&self, error: anyhow::Error) -> anyhow::Result<()> {
        self.inner.records.doubt(&self.vm);
        while self.inner.records.is_doubtful(&self.vm) {
            self.inner.scan();
            std::thread::sleep(DOUBT_AGAIN);
        }
        if super::stop::is_present(&self.inner, &self.vm)? {
            return Ok(());
        }
        Err(error.context("the connection to libvirt died during the start, and no QEMU came"))
    }

    fn destroy_if_called_off(&self) -> anyhow::Result<()> {
        let phase = lock(&self.inner.starting.state).phases.get(&self.vm).copied();
        if !matches!(phase, Some((Phase::CalledOff, _))) {
            return Ok(());
        }
        super::stop::kill(&self.inner, &self.vm)?;
        bail!("destroyed again: a destroy was asked for while libvirt started it")
    }
}

/// Before libvirt sees it: another VM's definition would replace that one's.
fn must_name(vm: &VmId, xml: &str) -> anyhow::Result<()> {
    let document = roxmltree::Document::parse(xml).context("its definition is no XML")?;
    let mut elements = document.root_element().children();
    let got = elements.find(|element| element.has_tag_name("uuid")).and_then(|uuid| uuid.text());
    let got = got.unwrap_or("none").trim();
    if !got.eq_ignore_ascii_case(&vm.0) {
        bail!("mismatched UUID in the catalogue: expected {vm}, got {got}; enable it again");
    }
    Ok(())
}

pub fn lookup(connect: &Connect, vm: &VmId) -> Result<Option<Domain>, Error> {
    match Domain::lookup_by_uuid_string(connect, &vm.0) {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same(domain: &Domain, xml: &str) -> Result<bool, Error> {
    Ok(domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?.trim() == xml.trim())
}

fn autostart_off(domain: &Domain) -> anyhow::Result<()> {
    if domain.get_autostart()? {
        domain.set_autostart(false).context("cannot switch its autostart off")?;
    }
    Ok(())
}

/// Errors that are not libvirtd's answer but the lack of one.
pub fn is_transport(error: &Error) -> bool {
    error.domain() == ErrorDomain::Rpc || error.code() == ErrorNumber::Rpc
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, stop};
    use super::*;
    use crate::libvirt::{Connection, Records, arrive::Arrivals, survey};
    use steadfast_core::ids::Incarnation;

    #[test]
    fn a_start_waits_for_an_abandoned_destroy_and_says_why_it_was_too_late() {
        let name = format!("steadfast-start-{}", std::process::id());
        let run_directory = std::env::temp_dir().join(name);
        let settings = Settings {
            uri: "test:///default".into(),
            run_directory: run_directory.clone(),
            call_deadline: Duration::from_secs(1),
            incarnation: Incarnation(1),
        };
        let (sender, told) = mpsc::channel();
        let begun = std::time::Instant::now();
        let now = move || Instant(u64::try_from(begun.elapsed().as_micros()).unwrap_or(0));
        let inner = Arc::new(Inner {
            clock: Arc::new(now),
            events: Arc::new(move |event| drop(sender.send(event))),
            deadline: settings.call_deadline,
            connection: Connection::new(&settings),
            records: Records::open(&run_directory, settings.incarnation).unwrap(),
            guests: std::sync::OnceLock::new(),
            starting: Starting::default(),
            stopping: Arc::default(),
            leaving: Arc::default(),
            arriving: Arrivals::default(),
            survey: survey::Survey::default(),
        });
        let vm = VmId("a".into());
        let reason = |not_after| {
            start(&inner, vm.clone(), || Ok("<domain/>".into()), not_after);
            match told.recv_timeout(Duration::from_secs(5)).unwrap() {
                Event::StartEnded { result, .. } => result.unwrap_err(),
                other => panic!("{other:?}"),
            }
        };
        let hung = stop::Stopping::call(&inner.stopping, &vm);
        let late = reason(now() + steadfast_core::time::Millis(100));
        assert!(late.contains("waiting for a stop of it that hangs in libvirt"), "{late}");
        drop(hung);
        let other = reason(now() + steadfast_core::time::Millis(100));
        assert!(other.contains("waiting for libvirt"), "{other}");
        let _ = std::fs::remove_dir_all(run_directory);
    }
}
