//! What policies are told of this node, measured every few seconds on a thread of its own.

use crate::Sink;
use crate::libvirt::Hypervisor;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_sdk::wire::NodeFacts;

/// How often the node is measured.
const INTERVAL: Duration = Duration::from_secs(5);
/// Before libvirt has answered for the first time, look more often.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);

/// What does not change.
#[derive(Debug, Clone)]
pub struct Named {
    /// Corosync node id.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Labels from the configuration.
    pub labels: BTreeMap<String, String>,
}

/// Starts to measure; each measurement is an [`Event::FactsMeasured`].
///
/// # Errors
/// No thread can be started.
pub fn start(named: Named, hypervisor: Arc<Hypervisor>, events: Sink) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("telemetry".into());
    thread.spawn(move || {
        let mut told = None;
        loop {
            let facts = measure(&named, &hypervisor);
            let is_known = facts.memory_mib > 0;
            if told.as_ref() != Some(&facts) {
                events(Event::FactsMeasured(Box::new(facts.clone())));
                told = Some(facts);
            }
            std::thread::sleep(if is_known { INTERVAL } else { FIRST_INTERVAL });
        }
    })?;
    Ok(())
}

fn measure(named: &Named, hypervisor: &Hypervisor) -> NodeFacts {
    let host = hypervisor.facts();
    NodeFacts {
        id: named.id.0,
        name: named.name.clone(),
        memory_mib: host.memory_mib,
        memory_free_mib: host.memory_free_mib,
        vcpus: host.vcpus,
        vcpus_used: host.vcpus_used,
        load_permille: fs::read_to_string("/proc/loadavg").map_or(0, |text| load_permille(&text)),
        labels: named.labels.clone(),
        ..NodeFacts::default()
    }
}

/// `0.52 0.58 0.59 1/467 12345` is 520: thousandths of a CPU.
fn load_permille(text: &str) -> u32 {
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    let (whole, part) = first.split_once('.').unwrap_or((first, "0"));
    let hundredths: String = part.chars().chain("00".chars()).take(2).collect();
    let whole: u32 = whole.parse().unwrap_or(0);
    whole.saturating_mul(1_000).saturating_add(hundredths.parse::<u32>().unwrap_or(0) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_read_in_thousandths() {
        assert_eq!(load_permille("0.52 0.58 0.59 1/467 12345\n"), 520);
        assert_eq!(load_permille("12.05 1 1"), 12_050);
        assert_eq!(load_permille("3"), 3_000);
        assert_eq!(load_permille("nonsense"), 0);
    }
}
