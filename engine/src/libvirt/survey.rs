//! What libvirt knows of domains and the host: for people and for placement, never for safety.

use super::{Inner, lock, thread};
use anyhow::Context as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use steadfast_core::ids::VmId;
use steadfast_core::time::{Instant, Millis};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// An answer older than this is looked for again when somebody asks. Changes come by event.
const STALE: Millis = Millis(5_000);

/// A domain as libvirt shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainInfo {
    /// libvirt name.
    pub name: String,
    /// UUID in lower case.
    pub uuid: VmId,
    /// libvirt's word, e.g. `running` or `shut off`. Not proof of anything.
    pub state: &'static str,
    /// Whether libvirt holds it to be active.
    pub active: bool,
    /// Whether libvirtd starts it when it starts itself.
    pub autostart: bool,
    /// Configured memory in MiB.
    pub memory_mib: u64,
    /// Configured virtual CPUs.
    pub vcpus: u32,
}

/// A domain's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    /// UUID in lower case.
    pub uuid: VmId,
    /// libvirt name.
    pub name: String,
    /// The definition of the next start, secrets left out.
    pub xml: String,
    /// Configured memory in MiB.
    pub memory_mib: u64,
    /// Configured virtual CPUs.
    pub vcpus: u32,
}

/// What the host has, and what active domains are configured to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Memory of the host in MiB (source: libvirt).
    pub memory_mib: u64,
    /// Memory that no active domain is configured to use, in MiB.
    pub memory_free_mib: u64,
    /// CPUs of the host.
    pub vcpus: u32,
    /// Virtual CPUs of active domains.
    pub vcpus_used: u32,
}

/// The last answer.
#[derive(Default)]
pub struct Survey {
    seen: Mutex<Option<Seen>>,
    /// Somebody looks at this moment.
    looking: AtomicBool,
    /// Something changed since the last look began.
    dirty: AtomicBool,
}

#[derive(Clone)]
struct Seen {
    at: Instant,
    domains: Vec<DomainInfo>,
    facts: HostFacts,
}

pub fn list(inner: &Arc<Inner>) -> Vec<DomainInfo> {
    if let Err(error) = look(inner) {
        tracing::debug!(error = format!("{error:#}"), "domains cannot be listed");
    }
    lock(&inner.survey.seen).as_ref().map(|seen| seen.domains.clone()).unwrap_or_default()
}

pub fn facts(inner: &Arc<Inner>) -> HostFacts {
    let seen = lock(&inner.survey.seen).as_ref().map(|seen| (seen.at, seen.facts));
    let now = (inner.clock)();
    if seen.is_none_or(|(at, _)| now.since(at) > STALE) {
        refresh(inner);
    }
    seen.map(|(_, facts)| facts).unwrap_or_default()
}

/// Looks again in the background; never more than one at a time. Never blocks.
pub fn refresh(inner: &Arc<Inner>) {
    inner.survey.dirty.store(true, Ordering::Release);
    if inner.survey.looking.swap(true, Ordering::AcqRel) {
        return;
    }
    let looker = inner.clone();
    let spawned = thread("libvirt-survey", move || {
        loop {
            while looker.survey.dirty.swap(false, Ordering::AcqRel) {
                if let Err(error) = look(&looker) {
                    tracing::debug!(error = format!("{error:#}"), "libvirt cannot be surveyed");
                }
            }
            looker.survey.looking.store(false, Ordering::Release);
            // A change between the last look and this store found somebody looking.
            if !looker.survey.dirty.load(Ordering::Acquire)
                || looker.survey.looking.swap(true, Ordering::AcqRel)
            {
                return;
            }
        }
    });
    if spawned.is_err() {
        inner.survey.looking.store(false, Ordering::Release);
    }
}

fn look(inner: &Arc<Inner>) -> anyhow::Result<()> {
    let at = (inner.clock)();
    let (domains, facts) = inner.connection.call("list domains", survey)?;
    let mut seen = lock(&inner.survey.seen);
    if seen.as_ref().is_none_or(|seen| seen.at <= at) {
        *seen = Some(Seen { at, domains, facts });
    }
    Ok(())
}

fn survey(connect: &Connect) -> anyhow::Result<(Vec<DomainInfo>, HostFacts)> {
    let host = connect.get_node_info()?;
    let mut domains = Vec::new();
    for domain in connect.list_all_domains(0)? {
        match describe(&domain) {
            Ok(info) => domains.push(info),
            // It was undefined since the list was made.
            Err(error) if error.code() == ErrorNumber::NoDomain => {}
            Err(error) => return Err(error.into()),
        }
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    let active = || domains.iter().filter(|domain| domain.active);
    let memory_mib = host.memory / 1024;
    let used: u64 = active().map(|domain| domain.memory_mib).sum();
    let facts = HostFacts {
        memory_mib,
        memory_free_mib: memory_mib.saturating_sub(used),
        vcpus: host.cpus,
        vcpus_used: active().map(|domain| domain.vcpus).sum(),
    };
    Ok((domains, facts))
}

fn describe(domain: &Domain) -> Result<DomainInfo, Error> {
    let info = domain.get_info()?;
    Ok(DomainInfo {
        name: domain.get_name()?,
        uuid: VmId(domain.get_uuid_string()?.to_ascii_lowercase()),
        state: state_name(info.state),
        active: domain.is_active()?,
        // A transient domain has no autostart.
        autostart: domain.get_autostart().unwrap_or(false),
        memory_mib: info.max_mem.div_ceil(1024),
        vcpus: info.nr_virt_cpu,
    })
}

/// As `virsh list` names them.
fn state_name(state: sys::virDomainState) -> &'static str {
    match state {
        sys::VIR_DOMAIN_RUNNING => "running",
        sys::VIR_DOMAIN_BLOCKED => "idle",
        sys::VIR_DOMAIN_PAUSED => "paused",
        sys::VIR_DOMAIN_SHUTDOWN => "in shutdown",
        sys::VIR_DOMAIN_SHUTOFF => "shut off",
        sys::VIR_DOMAIN_CRASHED => "crashed",
        sys::VIR_DOMAIN_PMSUSPENDED => "pmsuspended",
        _ => "no state",
    }
}

pub fn domain_xml(inner: &Arc<Inner>, name: &str) -> anyhow::Result<DomainXml> {
    let wanted = name.to_owned();
    inner.connection.call("read a definition", move |connect| {
        let by_name = Domain::lookup_by_name(connect, &wanted);
        let domain = by_name.or_else(|_| Domain::lookup_by_uuid_string(connect, &wanted));
        let domain = domain.with_context(|| {
            format!("libvirt on this node knows no VM {wanted:?}; `virsh list --all` shows them")
        })?;
        let info = describe(&domain)?;
        let xml = domain.get_xml_desc(sys::VIR_DOMAIN_XML_INACTIVE)?;
        let DomainInfo { name, uuid, memory_mib, vcpus, .. } = info;
        Ok(DomainXml { uuid, name, xml, memory_mib, vcpus })
    })
}
