//! What systemd starts, in which order, and what it must not do.

use super::super::JOINED;
use super::super::change::{Change, unit};
use super::super::host::Host;
use super::super::step::Step;
use crate::doctor::Check;
use anyhow::Result;

const SLEEP: [&str; 4] =
    ["sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"];
/// The agent's unit, for systems whose package did not bring it.
const AGENT: &str = include_str!("../../../../examples/steadfastd.service");

/// A machine that sleeps wakes up with guests that run elsewhere by then.
pub(super) fn sleep(_: &Host) -> Result<Step> {
    let mask = |target: &str| Change::Link {
        path: format!("/etc/systemd/system/{target}"),
        to: "/dev/null".into(),
    };
    let why = "a node that sleeps would wake up with guests that run elsewhere by then";
    Ok(Step::new("sleep", why).with_all(SLEEP.map(mask)).then(&["systemctl", "daemon-reload"]))
}

/// libvirt's daemon for QEMU: one for all, or one of its own.
pub(super) fn libvirt_service(host: &Host) -> &'static str {
    let modular = unit(host, "virtqemud.socket").0 && !unit(host, "libvirtd.service").0;
    if modular { "virtqemud.service" } else { "libvirtd.service" }
}

pub(super) fn libvirt(host: &Host) -> Result<Step> {
    let step = Step::new("libvirt", "libvirt starts and stops guests for the agent");
    Ok(match libvirt_service(host) {
        // Started by its socket whenever somebody asks.
        "virtqemud.service" => {
            let text = "# Written by `steadfast node prepare`: this system has one daemon a driver.\n\
                        [Unit]\nWants=virtqemud.socket\nAfter=virtqemud.socket virtqemud.service\n";
            step.with(Change::running("virtqemud.socket"))
                .with(Change::text("/etc/systemd/system/steadfastd.service.d/libvirt.conf", text))
                .then(&["systemctl", "daemon-reload"])
        }
        // It ends when nobody asks for a while, and its socket starts it again.
        _ if unit(host, "libvirtd.socket").0 => step.with(Change::running("libvirtd.socket")),
        name => step.with(Change::running(name)),
    })
}

/// Off until the node belongs to a cluster: the package's example would form a cluster of its own.
pub(super) fn corosync(host: &Host) -> Result<Step> {
    const NAME: &str = "corosync";
    let text = "# Written by `steadfast node prepare`: the agent counts on it.\n[Unit]\nStartLimitIntervalSec=0\n\n\
                [Service]\nRestart=on-failure\nRestartSec=1s\n";
    let why = "corosync comes back if it dies, and stays off until this node belongs to a cluster";
    let step = Step::new(NAME, why)
        .with(Change::text("/etc/systemd/system/corosync.service.d/steadfast.conf", text))
        .then(&["systemctl", "daemon-reload"]);
    if host.has(JOINED) {
        return Ok(step);
    }
    let conf = host.text("/etc/corosync/corosync.conf").unwrap_or_default();
    if super::super::cluster::corosync::is_foreign(&conf) {
        let text = "corosync belongs to a cluster that others made; it is left as it is";
        let remedy =
            "for a cluster of steadfast's own: stop it, and move /etc/corosync/corosync.conf away";
        return Ok(step.say(Check::yellow(NAME, text, remedy)));
    }
    let (enabled, active) = (Some(false), Some(false));
    Ok(step.with(Change::Unit { name: "corosync.service".into(), enabled, active }))
}

/// The package brings the agent's unit; without a package it is written.
pub(super) fn agent(host: &Host) -> Result<Step> {
    let step = Step::new(
        "agent",
        "systemd starts the agent after corosync, libvirt and the shared storage",
    );
    let packaged = ["/lib/systemd/system", "/usr/lib/systemd/system"];
    let brought = packaged.iter().any(|folder| host.has(format!("{folder}/steadfastd.service")));
    if brought {
        return Ok(step);
    }
    let unit = Change::text("/etc/systemd/system/steadfastd.service", AGENT);
    Ok(step.with(unit).then(&["systemctl", "daemon-reload"]))
}

/// A node that reset itself is asked afterwards what happened.
pub(super) fn journal(_: &Host) -> Result<Step> {
    let text = "# Written by `steadfast node prepare`: what a node said before a reset is what explains it.\n\
                [Journal]\nStorage=persistent\nSyncIntervalSec=30s\nRateLimitIntervalSec=30s\nRateLimitBurst=20000\n";
    Ok(Step::new("journal", "what a node said before a reset is kept, and not cut short")
        .with(Change::text("/etc/systemd/journald.conf.d/50-steadfast.conf", text))
        .then(&["systemctl", "restart", "systemd-journald.service"]))
}
