//! Which system this is.

use super::super::change::Manager;
use super::super::host::Host;
use super::super::step::Step;
use crate::doctor::Check;
use anyhow::{Context, Result};

/// A system that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    /// Debian, Ubuntu and their kin.
    Debian,
    /// RHEL and its kin; the repository that has corosync, where it is not on by itself.
    RedHat(Option<&'static str>),
}

const KNOWN: &str =
    "Debian 12 or Ubuntu 22.04 and later, AlmaLinux, Rocky, RHEL or CentOS 9 and RED OS are known";

impl System {
    /// What `/etc/os-release` says.
    pub(super) fn of(host: &Host) -> Result<Self> {
        let text = host.text("/etc/os-release").or_else(|| host.text("/usr/lib/os-release"));
        let text = text.context("there is no /etc/os-release")?;
        let field = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_lowercase()
        };
        let id = field("ID");
        let like = format!("{id} {}", field("ID_LIKE"));
        let any = |names: &[&str]| like.split_whitespace().any(|word| names.contains(&word));
        if any(&["debian", "ubuntu"]) {
            return Ok(Self::Debian);
        }
        let repository = match id.as_str() {
            "almalinux" | "rocky" | "centos" => Some("highavailability"),
            _ => None,
        };
        if any(&["rhel", "centos", "fedora", "redos", "almalinux", "rocky"]) {
            return Ok(Self::RedHat(repository));
        }
        anyhow::bail!("{id:?} is not a system that can be prepared; {KNOWN}")
    }

    pub(super) fn manager(self) -> Manager {
        match self {
            Self::Debian => Manager::Apt,
            Self::RedHat(repository) => Manager::Dnf(repository),
        }
    }
}

/// May this be prepared at all?
pub(super) fn step(host: &Host) -> Result<Step> {
    let step = Step::new("system", "only systems that were tried are changed");
    if host.is_this_machine() && !is_root() {
        return Ok(step.say(Check::red(
            "system",
            "only root may change a system",
            "try with sudo",
        )));
    }
    if !host.has("/run/systemd/system") {
        let remedy = "boot it with systemd; containers cannot be nodes";
        return Ok(step.say(Check::red("system", "systemd does not run here", remedy)));
    }
    let check = match System::of(host) {
        Ok(_) => kvm(host),
        Err(error) => Check::red("system", format!("{error:#}"), "use one of these"),
    };
    Ok(step.say(check))
}

/// Guests need it; a machine to try things on may go without.
fn kvm(host: &Host) -> Check {
    if host.has("/dev/kvm") {
        return Check::green("system", "");
    }
    let remedy = "switch virtualization on in its firmware, or, in a virtual machine, on its host";
    Check::yellow(
        "system",
        "/dev/kvm is missing: guests only run emulated, many times slower",
        remedy,
    )
}

#[allow(unsafe_code)]
fn is_root() -> bool {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
