//! One boot of one node, as its agent's adapters reach the world. After the power cut it reaches nothing.

use super::guests::{Domain, Place};
use super::ring::MEMBERSHIP;
use super::world::{Host, State, World};
use crate::corosync::ClusterFacts;
use crate::driver::Inbox;
use crate::enrol;
use crate::libvirt::{DomainInfo, DomainXml, HostFacts};
use crate::pages::Gate;
use crate::threads;
use anyhow::{Context, Result, anyhow, bail};
use std::sync::Arc;
use steadfast_core::event::Event;
use steadfast_core::ids::{BootId, NodeId, Stamp, VmId};
use steadfast_core::message::Message;
use steadfast_core::time::{Instant, Millis};

/// What a fence agent takes.
const FENCE: Millis = Millis(800);

/// A node's place in the world, for one boot.
#[derive(Debug)]
pub struct Seat {
    world: Arc<World>,
    node: NodeId,
    boot: u64,
    boot_id: BootId,
}

impl Seat {
    /// The place of the boot that `node` has now; `None` without power.
    pub(super) fn take(world: &Arc<World>, node: NodeId) -> Option<Self> {
        let (boot, boot_id) = world.act(|state| {
            let host = state.host(node).filter(|host| host.up)?;
            Some((host.boot, host.boot_id))
        })?;
        Some(Self { world: Arc::clone(world), node, boot, boot_id })
    }

    fn at(&self) -> Place {
        (self.node, self.boot)
    }

    /// Counts the boots of its node.
    pub(super) fn number(&self) -> u64 {
        self.boot
    }

    /// Does something, if there is power.
    fn act<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.world.act(|state| state.seated(self.node, self.boot).is_some().then(|| work(state)))
    }

    /// Does something to its host, if there is power.
    fn host<T>(&self, work: impl FnOnce(&mut Host) -> T) -> Option<T> {
        self.world.act(|state| state.seated(self.node, self.boot).map(work))
    }

    // --- the node ---

    pub(crate) fn boot(&self) -> BootId {
        self.boot_id
    }

    pub(crate) fn cluster(&self) -> ClusterFacts {
        let nodes = self.world.act(|state| {
            state.hosts.iter().map(|(node, host)| (*node, host.name.clone())).collect()
        });
        ClusterFacts { local: self.node, membership: MEMBERSHIP, nodes }
    }

    /// Events go to `inbox` from now on; it is told of the power cut.
    pub(crate) fn begin(&self, inbox: &Arc<Inbox>) {
        if self.host(|host| host.inbox = Some(Arc::clone(inbox))).is_none() {
            inbox.cut_power();
        }
    }

    pub(crate) fn gate(&self) -> Gate {
        let ended = || {
            let gate = Gate::new(false);
            gate.end();
            gate
        };
        self.host(|host| host.gate.clone()).unwrap_or_else(ended)
    }

    pub(crate) fn reset(&self, reason: &str) {
        self.act(|state| state.cut_power(self.node, &format!("it reset itself: {reason}")));
    }

    // --- the control network ---

    pub(crate) fn join(&self) {
        self.act(|state| {
            if let Some(host) = state.host_mut(self.node) {
                host.member = true;
            }
            state.ring_grows();
        });
    }

    pub(crate) fn send(&self, message: Message) {
        self.act(|state| state.send(self.node, self.boot, message));
    }

    // --- power ---

    /// Arms and feeds; answers the time-out.
    pub(crate) fn feed_watchdog(&self, timeout: Millis) -> Result<Millis> {
        let fed = self.act(|state| {
            let fires = state.now + timeout;
            state.host_mut(self.node).map(|host| host.fires = Some(fires))
        });
        fed.flatten().context("this node has lost its power")?;
        Ok(timeout)
    }

    pub(crate) fn close_watchdog(&self) {
        self.host(|host| host.fires = None);
    }

    /// Switches another node off.
    pub(crate) fn fence(&self, victim: NodeId, eviction: Stamp) {
        let node = self.node;
        self.act(|state| {
            state.later_at(self.at(), FENCE, move |state| {
                state.cut_power(victim, "a fence agent switched it off");
                if let Some(host) = state.host(node) {
                    host.tell(Event::FenceEnded { victim, eviction, result: Ok(()) });
                }
            });
        });
    }

    // --- guests ---

    pub(crate) fn start_vm(
        self: &Arc<Self>,
        vm: VmId,
        xml: impl FnOnce() -> Result<String> + Send + 'static,
        not_after: Instant,
    ) {
        let (seat, guest) = (Arc::clone(self), vm.clone());
        let spawned = threads::spawn("demo-start", move || {
            let domain = xml().and_then(|xml| domain(&guest, xml));
            seat.act(|state| state.start(seat.at(), guest, domain, not_after));
        });
        if let Err(error) = spawned {
            let result = Err(format!("{error:#}"));
            self.host(|host| host.tell(Event::StartEnded { vm, result }));
        }
    }

    pub(crate) fn destroy_vm(&self, vm: VmId) {
        self.act(|state| state.destroy(self.at(), vm));
    }

    pub(crate) fn shut_down_vm(&self, vm: VmId) {
        self.act(|state| state.shut_down(self.at(), vm));
    }

    /// `uri` is `demo://NODE`.
    pub(crate) fn migrate_vm(&self, vm: VmId, uri: &str, not_after: Instant) {
        let target = uri.trim_start_matches("demo://").to_owned();
        self.act(|state| state.migrate(self.at(), vm, &target, not_after));
    }

    pub(crate) fn abort_migration(&self, vm: &VmId) {
        self.act(|state| state.abort(self.node, vm));
    }

    pub(crate) fn permit_arrival(&self, vm: VmId) {
        self.host(|host| host.permitted.insert(vm));
    }

    pub(crate) fn forbid_arrival(&self, vm: &VmId) {
        self.act(|state| {
            if let Some(host) = state.host_mut(self.node) {
                host.permitted.remove(vm);
            }
            state.scan(self.node);
        });
    }

    pub(crate) fn resume_vm(&self, vm: VmId, not_after: Instant) {
        self.act(|state| state.resume(self.at(), vm, not_after));
    }

    pub(crate) fn undefine_vm(&self, vm: &VmId) {
        self.act(|state| state.undefine(self.node, vm));
    }

    pub(crate) fn adopt_vm(&self, vm: &VmId) {
        self.host(|host| {
            if let Some(domain) = host.domains.get_mut(vm) {
                domain.autostart = false;
            }
        });
    }

    pub(crate) fn scan(&self) {
        self.act(|state| state.scan(self.node));
    }

    pub(crate) fn list(&self) -> Vec<DomainInfo> {
        self.act(|state| state.list(self.node)).unwrap_or_default()
    }

    pub(crate) fn domain_xml(&self, name: &str) -> Result<DomainXml> {
        match self.act(|state| state.domain_xml(self.node, name)) {
            Some(found) => found,
            None => bail!("this node has lost its power"),
        }
    }

    pub(crate) fn facts(&self) -> HostFacts {
        self.act(|state| state.facts(self.node)).unwrap_or_default()
    }
}

/// What the catalogue's definition says, read as for a VM that comes under HA.
fn domain(vm: &VmId, xml: String) -> Result<Domain> {
    let read = enrol::check(&xml, &[], |_| None);
    let known = read.map_err(|refusals| {
        let whats: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        anyhow!("the definition of {} cannot be used: {}", vm.0, whats.join("; "))
    })?;
    let (memory_mib, vcpus) = (known.memory_mib, known.vcpus);
    Ok(Domain { name: known.name, xml, memory_mib, vcpus, autostart: false })
}
