//! The clock. No decision rests on it (leases go by the kernel's own clock), but logs of several nodes are read side by side, and chrony
//! must not bend the kernel's timers further than the leases allow.

use super::super::change::{Change, unit};
use super::super::host::Host;
use super::super::step::Step;
use super::Options;
use super::system::System;
use crate::doctor::Check;

/// What chrony may bend the clock by, in parts per million; `doctor` refuses more.
const SLEW: &str = "# Written by `steadfast node prepare`: leases count on timers that run true.\nmaxslewrate 4000\n";
const NAME: &str = "clock";
/// An offset that is worth a word, in seconds.
const FAR: f64 = 0.5;

/// A time service, by what its unit is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Chrony(&'static str),
    Other(&'static str),
}

/// The one that is configured; `None`: none is.
pub(super) fn service(host: &Host) -> Option<Service> {
    let used = |name: &&str| {
        let (enabled, active) = unit(host, name);
        enabled || active
    };
    let chrony = ["chrony.service", "chronyd.service"].into_iter().find(used);
    let others = [
        "ntp.service",
        "ntpsec.service",
        "ntpd.service",
        "openntpd.service",
        "systemd-timesyncd.service",
    ];
    let other = || others.into_iter().find(used).map(Service::Other);
    chrony.map(Service::Chrony).or_else(other)
}

pub(super) const fn unit_of_chrony(system: System) -> &'static str {
    match system {
        System::Debian => "chrony.service",
        System::RedHat(_) => "chronyd.service",
    }
}

pub(super) fn step(host: &Host, system: System, options: &Options) -> Step {
    let step = Step::new(NAME, "logs of several nodes are read side by side; timers must run true");
    match service(host) {
        Some(Service::Other(name)) => {
            let mut step = step;
            if let Some(command) = ["timedatectl"].into_iter().find(|it| host.knows(it)) {
                let said = host.ask(command, &["show", "-p", "NTPSynchronized", "--value"]);
                step = step.say(synchronized(name, said.out == "yes"));
            }
            step
        }
        Some(Service::Chrony(unit)) => chrony(host, step, unit, options),
        None => chrony(host, step, unit_of_chrony(system), options),
    }
}

fn synchronized(name: &str, yes: bool) -> Check {
    if yes {
        return Check::green(NAME, format!("{name} is kept, and the clock is synchronised"));
    }
    let text = format!("{name} is kept, but the clock is not synchronised");
    Check::yellow(NAME, text, "see that it reaches its servers: timedatectl timesync-status")
}

fn chrony(host: &Host, step: Step, unit: &'static str, options: &Options) -> Step {
    let main = ["/etc/chrony/chrony.conf", "/etc/chrony.conf"];
    let Some(main) = main.into_iter().find(|path| host.has(path)) else {
        // Packages come first; only a preview sees this.
        return step.with(Change::running(unit));
    };
    let text = host.text(main).unwrap_or_default();
    let wanted = servers(&text, host, options) + SLEW;
    let folder = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("confdir")).then(|| words.next())?
    });
    let file = match folder {
        Some(folder) => Change::text(&format!("{folder}/steadfast.conf"), wanted),
        None if text.contains(SLEW) => Change::text(main, text.clone()),
        None => Change::text(main, format!("{}\n{wanted}", text.trim_end())),
    };
    let mut step =
        step.with(file).with(Change::running(unit)).then(&["systemctl", "restart", unit]);
    step.verify = Some(match options.wait_s {
        0 => |host| offset(host, 0),
        1..=10 => |host| offset(host, 5),
        _ => |host| offset(host, 30),
    });
    step
}

/// Servers of the operator's, as lines; none if chrony knows some.
fn servers(text: &str, host: &Host, options: &Options) -> String {
    let names = |line: &str| {
        let first = line.split_whitespace().next();
        first.is_some_and(|word| ["server", "pool", "peer", "refclock"].contains(&word))
    };
    let mut more = host.names("/etc/chrony/sources.d").into_iter();
    if text.lines().any(names) || more.any(|name| name.ends_with(".sources")) {
        return String::new();
    }
    options.time_servers.iter().map(|server| format!("server {server} iburst\n")).collect()
}

/// Waits for chrony, so many seconds, and shows how far the clock is off.
fn offset(host: &Host, patience: u32) -> Check {
    let sources = host.ask("chronyc", &["-n", "-c", "sources"]).out;
    if sources.lines().all(|line| line.trim().is_empty()) {
        let remedy = "give it one: steadfast node prepare --time-server NAME, or in chrony.conf";
        return Check::yellow(NAME, "chrony knows no time server", remedy);
    }
    let tries = patience.max(1).to_string();
    let good = host.ask("chronyc", &["waitsync", &tries, "0.5", "0", "1"]).good;
    let tracking = host.ask("chronyc", &["-n", "-c", "tracking"]).out;
    // Its fifth field: seconds that the clock is ahead of true time, negative if behind.
    let seconds = tracking.split(',').nth(4).and_then(|field| field.parse::<f64>().ok());
    match seconds {
        Some(seconds) if good && seconds.abs() < FAR => {
            Check::green(NAME, format!("synchronised, {:.3} ms off", seconds * 1_000.0))
        }
        _ => {
            let text = format!("not synchronised within {patience} s");
            Check::yellow(NAME, text, "see `chronyc -n sources`: are the servers reached?")
        }
    }
}
