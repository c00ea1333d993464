//! The watchdog: the machine's own, or as a last resort the kernel's.

use super::super::change::{Act, Change};
use super::super::host::Host;
use super::super::step::Step;
use crate::doctor::Check;
use anyhow::{Result, ensure};
use std::fs;

const NAME: &str = "watchdog";
/// Loads it at each boot. Distributions keep watchdog drivers from being loaded by themselves: a deny list, which `modules-load.d` obeys
/// too. A driver that is asked for by its name is loaded nevertheless, so that the agent's own unit asks.
const DROP_IN: &str = "/etc/systemd/system/steadfastd.service.d/watchdog.conf";
const SOFT: &str = "softdog";
/// systemd's own feeding.
const MANAGER: &str = "/etc/systemd/system.conf.d/50-steadfast.conf";
/// Others that want it.
const RIVALS: [&str; 3] = ["watchdog.service", "wd_keepalive.service", "watchdogd.service"];

/// A device with its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// `/dev/watchdog0`.
    pub(crate) path: String,
    /// As its driver calls it.
    pub(crate) identity: String,
}

impl Device {
    pub(crate) fn is_soft(&self) -> bool {
        self.identity.to_lowercase().contains("software")
    }
}

/// Those that there are, real ones first.
pub(crate) fn devices(host: &Host) -> Vec<Device> {
    let device = |name: String| {
        let identity = host.text(format!("/sys/class/watchdog/{name}/identity"))?;
        Some(Device { path: format!("/dev/{name}"), identity: identity.trim().into() })
    };
    let mut all: Vec<Device> =
        host.names("/sys/class/watchdog").into_iter().filter_map(device).collect();
    all.sort_by_key(Device::is_soft);
    // A kernel that tells nothing of them.
    if all.is_empty() && host.has("/dev/watchdog0") {
        all.push(Device { path: "/dev/watchdog0".into(), identity: "a watchdog".into() });
    }
    all
}

pub(super) fn step(host: &Host) -> Result<Step> {
    let why = "a node that hangs must reset itself: nothing else proves that its guests are gone";
    let mut step = Step::new(NAME, why);
    let found = devices(host);
    let real = found.iter().find(|device| !device.is_soft());
    if let Some(holder) = holder(host) {
        let text = format!("{holder} holds the watchdog already");
        let remedy = "stop and disable it: only one process can feed a watchdog";
        return Ok(step.say(Check::red(NAME, text, remedy)));
    }
    for rival in RIVALS {
        let (enabled, active) = super::super::change::unit(host, rival);
        if enabled || active {
            let (enabled, active) = (Some(false), Some(false));
            step = step.with(Change::Unit { name: rival.into(), enabled, active });
        }
    }
    step = give_back(host, step);
    match real {
        Some(device) => {
            let text = format!("{} at {}", device.identity, device.path);
            // What was found by itself is found by itself again, unless we had to ask for it.
            let step = if host.has(DROP_IN) { load(host, step) } else { step };
            Ok(step.say(Check::green(NAME, text)))
        }
        None => Ok(ask_for_driver(host, step)),
    }
}

/// A driver for hardware that is there, or else the kernel's own.
fn ask_for_driver(host: &Host, step: Step) -> Step {
    let fitting = fitting(host);
    let try_them = fitting.clone();
    let names = fitting.join(", ");
    let what = match fitting.is_empty() {
        true => format!("load {SOFT}"),
        false => format!("load a driver: {names}, else {SOFT}"),
    };
    let act = Act {
        what,
        look: Box::new(|host| Ok(devices(host).first().map(|device| device.identity.clone()))),
        act: Box::new(move |host| {
            for driver in try_them.iter().map(String::as_str).chain([SOFT]) {
                let _ = host.run("modprobe", &[driver]);
                if let Some(device) = devices(host).first() {
                    return Ok(format!("{} at {}", device.identity, device.path));
                }
            }
            ensure!(false, "no driver gave a watchdog: has this kernel the module {SOFT}?");
            Ok(String::new())
        }),
    };
    let is_soft = fitting.is_empty();
    let step = load(host, step).with(Change::Act(act));
    if !is_soft {
        return step;
    }
    let text = "there is no hardware watchdog; the kernel's own (softdog) does not help against a kernel that hangs";
    let remedy =
        "switch the board's on (firmware, BMC), or add one (in a virtual machine: i6300esb)";
    step.say(Check::yellow(NAME, text, remedy))
}

/// At each boot, before the agent starts; the kernel's own only if no other came.
fn load(host: &Host, step: Step) -> Step {
    let fitting = fitting(host);
    let load = |driver: &str| {
        format!("ExecStartPre=-/bin/sh -c '[ -e /dev/watchdog0 ] || modprobe -q {driver}'\n")
    };
    let lines: String = fitting.iter().map(String::as_str).chain([SOFT]).map(load).collect();
    let text = format!(
        "# Written by `steadfast node prepare`. Most systems keep watchdog drivers from loading by themselves.\n\
         [Service]\n{lines}"
    );
    step.with(Change::text(DROP_IN, text)).then(&["systemctl", "daemon-reload"])
}

/// systemd feeds the watchdog itself where it is told so: it must give it back.
fn give_back(host: &Host, step: Step) -> Step {
    let value = host.ask("systemctl", &["show", "-p", "RuntimeWatchdogUSec", "--value"]).out;
    let is_used = !matches!(value.as_str(), "" | "0" | "infinity") || host.has(MANAGER);
    if !is_used {
        return step;
    }
    let text = "# Written by `steadfast node prepare`: the agent feeds the watchdog.\n[Manager]\nRuntimeWatchdogSec=0\n";
    step.with(Change::text(MANAGER, text)).then(&["systemctl", "daemon-reexec"])
}

/// Another process that has it open; the agent and systemd (see above) are none.
fn holder(host: &Host) -> Option<String> {
    let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit()) && name != "1";
    host.names("/proc").into_iter().filter(is_process).find_map(|process| {
        let name = host.text(format!("/proc/{process}/comm"))?.trim().to_owned();
        // Stopped by this step.
        if ["steadfastd", "watchdog", "wd_keepalive", "watchdogd"].contains(&name.as_str()) {
            return None;
        }
        let folder = format!("/proc/{process}/fd");
        let holds = host.names(&folder).iter().any(|fd| {
            let to = fs::read_link(host.at(format!("{folder}/{fd}")));
            to.is_ok_and(|to| to.to_string_lossy().starts_with("/dev/watchdog"))
        });
        holds.then(|| format!("{name} (process {process})"))
    })
}

/// Drivers that may fit this machine's hardware, by what its buses list.
fn fitting(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    for slot in host.names("/sys/bus/pci/devices") {
        let read = |name: &str| {
            let text = host.text(format!("/sys/bus/pci/devices/{slot}/{name}")).unwrap_or_default();
            text.trim().to_lowercase()
        };
        let (vendor, device, class) = (read("vendor"), read("device"), read("class"));
        let driver = match (vendor.as_str(), device.as_str()) {
            ("0x8086", "0x25ab") => "i6300esb",
            ("0x8086", _) if class.starts_with("0x0601") => "iTCO_wdt",
            ("0x1022" | "0x1002", _) if class.starts_with("0x0c05") => "sp5100_tco",
            ("0x103c", "0x3306" | "0x3307" | "0x3205") => "hpwdt",
            _ => continue,
        };
        if !found.iter().any(|known| known == driver) {
            found.push(driver.to_owned());
        }
    }
    if host.has("/dev/ipmi0") {
        found.push("ipmi_watchdog".into());
    }
    found
}
