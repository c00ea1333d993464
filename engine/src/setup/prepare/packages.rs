//! What is installed: corosync, libvirt with QEMU, and a time service if there is none.

use super::super::change::Change;
use super::super::host::Host;
use super::super::step::Step;
use super::system::System;
use super::time;

const DEBIAN: [&str; 5] =
    ["corosync", "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils"];
const RED_HAT: [&str; 4] = ["corosync", "libvirt", "qemu-kvm", "qemu-img"];
/// Units that these bring.
const UNITS: [&str; 3] = ["corosync.service", "libvirtd.service", "libvirt-guests.service"];

pub(super) fn step(host: &Host, system: System) -> Step {
    let names: &[&str] = match system {
        System::Debian => &DEBIAN,
        System::RedHat(_) => &RED_HAT,
    };
    let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut units: Vec<String> = UNITS.iter().map(ToString::to_string).collect();
    if time::service(host).is_none() {
        names.push("chrony".into());
        units.push(time::unit_of_chrony(system).into());
    }
    let why =
        "corosync tells who is there, libvirt and QEMU run guests, a time service keeps the clock";
    Step::new("packages", why).with(Change::Packages { manager: system.manager(), names, units })
}
