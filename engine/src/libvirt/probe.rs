//! Does libvirt ask the hook? Told by trying: a VM that the hook is sure to refuse is asked for.

use super::Inner;
use anyhow::anyhow;
use std::sync::Arc;
use steadfast_core::ids::VmId;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;

const NAME: &str = "steadfast-hook-test";

/// Asks libvirt to start a tiny VM of this UUID, paused. It is gone when this returns.
///
/// # Errors
/// libvirt refused, as it should, or could not be asked.
pub fn start(inner: &Arc<Inner>, vm: &VmId) -> anyhow::Result<()> {
    let vm = vm.clone();
    inner.connection.call("test the hook", move |connect| {
        // On a very slow machine one that was given up on may have come to life since, and would be in the way for ever.
        if let Ok(earlier) = Domain::lookup_by_name(connect, NAME) {
            let _ = earlier.destroy();
        }
        // A QEMU that can only do one of them refuses the other before the hook is asked.
        let [first, second] = ["kvm", "qemu"].map(|kind| create(connect, kind, &vm));
        first.or_else(|first| second.map_err(|second| anyhow!("{second:#}; {first:#}")))
    })
}

fn create(connect: &Connect, kind: &str, vm: &VmId) -> anyhow::Result<()> {
    let flags = sys::VIR_DOMAIN_START_PAUSED | sys::VIR_DOMAIN_START_AUTODESTROY;
    let domain = Domain::create_xml(connect, &definition(kind, vm), flags)?;
    domain.destroy()?;
    Ok(())
}

fn definition(kind: &str, vm: &VmId) -> String {
    format!(
        "<domain type='{kind}'><name>{NAME}</name><uuid>{vm}</uuid>\
         <memory unit='MiB'>16</memory><os><type>hvm</type></os></domain>"
    )
}
