//! One change of a machine: a value that knows whether it is done already, does itself, and is undone by what the journal kept.

use super::host::Host;
use super::journal::{Before, Journal, hex, unhex};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fmt;

/// What is to be so.
pub enum Change {
    /// A folder is there. One that is there keeps its mode, unless it must be closed.
    Folder {
        /// Where.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A file has these bytes.
    File {
        /// Where.
        path: String,
        /// All of it.
        bytes: Vec<u8>,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: String,
        /// What it names.
        to: String,
    },
    /// Packages are installed.
    Packages {
        /// Who installs them.
        manager: Manager,
        /// Their names.
        names: Vec<String>,
        /// Units that they bring, which are as they are now once the packages are gone again.
        units: Vec<String>,
    },
    /// A unit of systemd is started at boot, and runs, or neither.
    Unit {
        /// Its name.
        name: String,
        /// What is wanted; `None`: as it is.
        enabled: Option<bool>,
        /// The same.
        active: Option<bool>,
    },
    /// A firewall lets these in.
    Ports {
        /// `firewalld` or `ufw`.
        firewall: &'static str,
        /// As the firewall writes them: `5405-5412/udp`.
        open: Vec<String>,
    },
    /// Something else.
    Act(Act),
}

/// A look at a machine: what there is, if it is done.
pub type Look = Box<dyn Fn(&Host) -> Result<Option<String>>>;

/// Does it, and says what there is now. May be done twice.
pub type Deed = Box<dyn Fn(&Host) -> Result<String>>;

/// A change in code.
#[allow(missing_debug_implementations)]
pub struct Act {
    /// In words, as an order: "make the store in /mnt/ha".
    pub what: String,
    /// It is done already: what there is.
    pub look: Look,
    /// Does it.
    pub act: Deed,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

/// Who installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// Debian and its kin.
    Apt,
    /// RHEL and its kin; with a repository of that name besides those that are on.
    Dnf(Option<&'static str>),
}

impl Manager {
    const fn program(self) -> &'static str {
        match self {
            Self::Apt => "apt-get",
            Self::Dnf(_) => "dnf",
        }
    }

    /// Names of all installed packages.
    #[must_use]
    pub fn installed(self, host: &Host) -> BTreeSet<String> {
        match self {
            Self::Apt => {
                let form = "${db:Status-Abbrev} ${Package}\n";
                let said = host.ask("dpkg-query", &["-W", "-f", form]);
                // The first letter is what is wanted (a package may be held), the second what is.
                let name = |line: &str| {
                    let (state, name) = line.split_once(char::is_whitespace)?;
                    (state.get(1..2) == Some("i")).then(|| name.trim().to_owned())
                };
                said.out.lines().filter_map(name).collect()
            }
            Self::Dnf(_) => {
                let said = host.ask("rpm", &["-qa", "--qf", "%{NAME}\n"]);
                said.out.lines().map(|line| line.trim().to_owned()).collect()
            }
        }
    }

    fn install(self, host: &Host, names: &[String]) -> Result<()> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match self {
            Self::Apt => {
                let install = [&["-y", "--no-install-recommends", "install"][..], &names].concat();
                // Its lists may be old, or missing on a fresh machine.
                if host.run("apt-get", &install).is_ok() {
                    return Ok(());
                }
                host.burn()?;
                let updated = host.ask("apt-get", &["-y", "update"]);
                host.run("apt-get", &install).map(drop).with_context(|| {
                    let words = if updated.good { String::new() } else { updated.words() };
                    format!("cannot install {} {words}", names.join(" "))
                })
            }
            Self::Dnf(repository) => {
                let with = repository.map(|name| format!("--enablerepo={name}"));
                let with: Vec<&str> = with.iter().map(String::as_str).collect();
                host.run("dnf", &[&["-y"][..], &with, &["install"], &names].concat())
                    .map(drop)
                    .with_context(|| format!("cannot install {}", names.join(" ")))
            }
        }
    }
}

impl Change {
    /// A file of text that everybody may read.
    #[must_use]
    pub fn text(path: &str, text: impl Into<String>) -> Self {
        Self::File { path: path.into(), bytes: text.into().into_bytes(), mode: 0o644 }
    }

    /// A unit that is started at boot and runs.
    #[must_use]
    pub fn running(name: &str) -> Self {
        Self::Unit { name: name.into(), enabled: Some(true), active: Some(true) }
    }

    /// As an order: "write /etc/x".
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Folder { path, mode } => format!("make {path} (mode {mode:o})"),
            Self::File { path, .. } => format!("write {path}"),
            Self::Link { path, to } => format!("link {path} to {to}"),
            Self::Packages { manager, names, .. } => {
                format!("{} install {}", manager.program(), names.join(" "))
            }
            Self::Unit { name, enabled, active } => {
                let word = |wanted: &Option<bool>, yes: &'static str, no: &'static str| {
                    wanted.map(|wanted| if wanted { yes } else { no })
                };
                let words = [word(enabled, "enable", "disable"), word(active, "start", "stop")];
                let words: Vec<&str> = words.into_iter().flatten().collect();
                format!("{} {name}", words.join(" and "))
            }
            Self::Ports { firewall, open } => format!("open {} in {firewall}", open.join(", ")),
            Self::Act(act) => act.what.clone(),
        }
    }

    /// It is so already.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn is_done(&self, host: &Host) -> Result<bool> {
        Ok(match self {
            Self::Folder { path, mode } => {
                host.mode(path).is_some_and(|now| !is_too_open(now, *mode))
            }
            Self::File { path, bytes, mode } => {
                host.bytes(path)?.as_ref() == Some(bytes) && host.mode(path) == Some(*mode)
            }
            Self::Link { path, to } => std::fs::read_link(host.at(path))
                .is_ok_and(|found| found == *std::path::Path::new(to)),
            Self::Packages { manager, names, .. } => {
                let there = manager.installed(host);
                names.iter().all(|name| there.contains(name))
            }
            Self::Unit { name, enabled, active } => {
                let (is_enabled, is_active) = unit(host, name);
                enabled.is_none_or(|wanted| wanted == is_enabled)
                    && active.is_none_or(|wanted| wanted == is_active)
            }
            Self::Ports { firewall, open } => open.iter().all(|port| is_open(host, firewall, port)),
            Self::Act(act) => (act.look)(host)?.is_some(),
        })
    }

    /// Makes it so; what was there goes to the journal first.
    ///
    /// # Errors
    /// It cannot be done; a repeat goes on here.
    pub fn apply(&self, host: &Host, journal: &mut Journal) -> Result<()> {
        match self {
            Self::Folder { path, mode } => make_folder(host, journal, path, *mode),
            Self::File { path, bytes, mode } => {
                let was =
                    host.bytes(path)?.map(|old| (hex(&old), host.mode(path).unwrap_or(0o644)));
                make_parents(host, journal, path)?;
                journal.note(host, Before::File { path: path.clone(), was })?;
                host.write(path, bytes, *mode)
            }
            Self::Link { path, to } => {
                if host.has(path) {
                    bail!("{path} is there already and is something else: move it away");
                }
                make_parents(host, journal, path)?;
                journal.note(host, Before::Link { path: path.clone() })?;
                host.link(path, to)
            }
            Self::Packages { manager, names, units } => {
                install(host, journal, *manager, (names, units))
            }
            Self::Unit { name, enabled, active } => {
                note_unit(host, journal, name)?;
                set_unit(host, name, (*enabled, *active))
            }
            Self::Ports { firewall, open } => {
                let closed: Vec<String> =
                    open.iter().filter(|port| !is_open(host, firewall, port)).cloned().collect();
                let opened = closed.clone();
                journal.note(host, Before::Ports { firewall: (*firewall).into(), opened })?;
                closed.iter().try_for_each(|port| set_port(host, firewall, port, true))?;
                reload(host, firewall)
            }
            Self::Act(act) => (act.act)(host).map(drop),
        }
    }
}

/// A folder for secrets must be nobody else's; others may be as their package made them.
fn is_too_open(now: u32, wanted: u32) -> bool {
    wanted & 0o077 == 0 && now & 0o077 != 0
}

fn make_folder(host: &Host, journal: &mut Journal, path: &str, mode: u32) -> Result<()> {
    if let Some(was) = host.mode(path) {
        journal.note(host, Before::Mode { path: path.into(), was })?;
        return host.set_mode(path, mode);
    }
    make_parents(host, journal, path)?;
    journal.note(host, Before::Folder { path: path.into() })?;
    host.make_folder(path, mode)
}

/// Folders on the way, each noted, so that forgetting leaves none.
fn make_parents(host: &Host, journal: &mut Journal, path: &str) -> Result<()> {
    match path.rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() && !host.has(parent) => {
            make_folder(host, journal, parent, 0o755)
        }
        _ => Ok(()),
    }
}

fn install(
    host: &Host,
    journal: &mut Journal,
    manager: Manager,
    (names, units): (&[String], &[String]),
) -> Result<()> {
    let there = manager.installed(host);
    units.iter().try_for_each(|unit| note_unit(host, journal, unit))?;
    let program = manager.program().to_owned();
    let (before, brought) = (there.clone(), None);
    journal.note(host, Before::Packages { manager: program, before, brought })?;
    let missing: Vec<String> =
        names.iter().filter(|name| !there.contains(*name)).cloned().collect();
    manager.install(host, &missing)?;
    journal.note_brought(host, &manager.installed(host))
}

// --- systemd -----------------------------------------------------------------------------------------

/// It is started at boot; it runs.
#[must_use]
pub fn unit(host: &Host, name: &str) -> (bool, bool) {
    let word = |verb| host.ask("systemctl", &[verb, name]).out;
    let enabled = ["enabled", "enabled-runtime", "static", "indirect", "generated", "alias"];
    let active = ["active", "activating", "reloading"];
    (enabled.contains(&word("is-enabled").as_str()), active.contains(&word("is-active").as_str()))
}

fn note_unit(host: &Host, journal: &mut Journal, name: &str) -> Result<()> {
    let (enabled, active) = unit(host, name);
    journal.note(host, Before::Unit { name: name.into(), enabled, active })
}

fn set_unit(host: &Host, name: &str, wanted: (Option<bool>, Option<bool>)) -> Result<()> {
    let (enabled, active) = unit(host, name);
    match wanted.0 {
        Some(true) if !enabled => drop(host.run("systemctl", &["enable", name])?),
        Some(false) if enabled => drop(host.run("systemctl", &["disable", name])?),
        _ => {}
    }
    match wanted.1 {
        Some(true) if !active => drop(host.run("systemctl", &["start", name])?),
        Some(false) if active => drop(host.run("systemctl", &["stop", name])?),
        _ => {}
    }
    Ok(())
}

// --- firewalls ---------------------------------------------------------------------------------------

fn is_open(host: &Host, firewall: &str, port: &str) -> bool {
    match firewall {
        "firewalld" => {
            let query = format!("--query-port={port}");
            host.ask("firewall-cmd", &["--permanent", &query]).good
        }
        _ => {
            let rules = host.ask("ufw", &["show", "added"]).out;
            let rule = format!("ufw allow {}", as_ufw(port));
            rules.lines().any(|line| line.trim() == rule)
        }
    }
}

fn set_port(host: &Host, firewall: &str, port: &str, open: bool) -> Result<()> {
    match (firewall, open) {
        ("firewalld", open) => {
            let word = if open { "add" } else { "remove" };
            host.run("firewall-cmd", &["--permanent", &format!("--{word}-port={port}")]).map(drop)
        }
        (_, true) => host.run("ufw", &["allow", &as_ufw(port)]).map(drop),
        (_, false) => host.run("ufw", &["delete", "allow", &as_ufw(port)]).map(drop),
    }
}

fn reload(host: &Host, firewall: &str) -> Result<()> {
    match firewall {
        "firewalld" => host.run("firewall-cmd", &["--reload"]).map(drop),
        _ => Ok(()),
    }
}

fn as_ufw(port: &str) -> String {
    port.replace('-', ":")
}

// --- undoing -----------------------------------------------------------------------------------------

/// Puts back what the journal kept, the last first. What cannot be put back is told, and the rest goes on.
///
/// # Errors
/// A change cannot be undone; a repeat goes on there.
pub fn undo(host: &Host, mut journal: Journal, mut tell: impl FnMut(&str)) -> Result<()> {
    let daemon =
        |before: &Before| matches!(before, Before::File { path, .. } if path.contains("/systemd/"));
    let reload_daemon = journal.before().iter().any(daemon);
    while let Some(before) = journal.before().last().cloned() {
        let folders = journal.own_folders();
        if folders.len() == journal.before().len() {
            journal.end(host)?;
            for path in folders.iter().rev() {
                remove_folder(host, path, &mut tell)?;
            }
            return if reload_daemon { tell_systemd(host) } else { Ok(()) };
        }
        tell(&before.words());
        put_back(host, &before, &mut tell)?;
        journal.strike(host)?;
    }
    journal.end(host)?;
    if reload_daemon { tell_systemd(host) } else { Ok(()) }
}

fn tell_systemd(host: &Host) -> Result<()> {
    host.run("systemctl", &["daemon-reload"]).map(drop)
}

fn remove_folder(host: &Host, path: &str, tell: &mut impl FnMut(&str)) -> Result<()> {
    if !host.remove_folder(path)? {
        tell(&format!("{path} is kept: there is something of others in it"));
    }
    Ok(())
}

fn put_back(host: &Host, before: &Before, tell: &mut impl FnMut(&str)) -> Result<()> {
    match before {
        Before::File { path, was: Some((bytes, mode)) } => {
            let bytes = unhex(bytes).with_context(|| format!("what {path} was is damaged"))?;
            host.write(path, &bytes, *mode)
        }
        Before::File { path, was: None } | Before::Link { path } => host.remove(path),
        Before::Folder { path } => remove_folder(host, path, tell),
        Before::Mode { path, was } => host.set_mode(path, *was),
        Before::Unit { name, enabled, active } => {
            set_unit(host, name, (Some(*enabled), Some(*active)))
        }
        Before::Ports { firewall, opened } => {
            let open = opened.iter().filter(|port| is_open(host, firewall, port));
            open.into_iter().try_for_each(|port| set_port(host, firewall, port, false))?;
            reload(host, firewall)
        }
        Before::Packages { manager, before, brought } => {
            let manager = if manager == "dnf" { Manager::Dnf(None) } else { Manager::Apt };
            remove_packages(host, manager, before, brought.as_ref())
        }
    }
}

fn remove_packages(
    host: &Host,
    manager: Manager,
    before: &BTreeSet<String>,
    brought: Option<&BTreeSet<String>>,
) -> Result<()> {
    let now = manager.installed(host);
    let extra = now.difference(before);
    // Not ourselves, and not what somebody installed later.
    let ours = extra.filter(|name| brought.is_none_or(|brought| brought.contains(*name)));
    let gone: Vec<&str> =
        ours.map(String::as_str).filter(|name| !name.starts_with("steadfast")).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let verb: &[&str] = match manager {
        Manager::Apt => &["-y", "purge"],
        Manager::Dnf(_) => &["-y", "--noautoremove", "remove"],
    };
    host.run(manager.program(), &[verb, &gone].concat()).map(drop)
}
