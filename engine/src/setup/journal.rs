//! What was there before: written down before each change, so that it can be put back, and so that a repeat after a power cut knows
//! what is still to be done.

use super::host::Host;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Newest format of the file.
const FORMAT: u16 = 1;

/// What a change was about to overwrite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Before {
    /// A file, or its absence.
    File {
        /// Where.
        path: String,
        /// Its bytes as hex, and its mode; `None`: there was none.
        was: Option<(String, u32)>,
    },
    /// A folder that was not there.
    Folder {
        /// Where.
        path: String,
    },
    /// A folder had other permission bits.
    Mode {
        /// Where.
        path: String,
        /// Its bits.
        was: u32,
    },
    /// A link that was not there.
    Link {
        /// Where.
        path: String,
    },
    /// Packages that were not installed.
    Packages {
        /// `apt-get` or `dnf`.
        manager: String,
        /// All that were, until the installation has ended.
        before: BTreeSet<String>,
        /// What it brought.
        brought: Option<BTreeSet<String>>,
    },
    /// A unit of systemd.
    Unit {
        /// Its name.
        name: String,
        /// It was started at boot.
        enabled: bool,
        /// It ran.
        active: bool,
    },
    /// Openings of a firewall that were not there, as the firewall names them.
    Ports {
        /// `firewalld` or `ufw`.
        firewall: String,
        /// The openings.
        opened: Vec<String>,
    },
}

impl Before {
    /// What it is about: the first word about a thing counts, whatever was done to it later.
    fn subject(&self) -> String {
        match self {
            Self::File { path, .. } | Self::Link { path } => format!("file {path}"),
            Self::Folder { path } | Self::Mode { path, .. } => format!("folder {path}"),
            Self::Packages { .. } => "packages".into(),
            Self::Unit { name, .. } => format!("unit {name}"),
            Self::Ports { firewall, .. } => format!("ports {firewall}"),
        }
    }

    /// In words, for whoever undoes it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::File { path, was: Some(_) } => format!("put back {path}"),
            Self::File { path, was: None } | Self::Link { path } => format!("remove {path}"),
            Self::Folder { path } => format!("remove {path}, if nothing else is in it"),
            Self::Mode { path, was } => format!("give {path} mode {was:o} again"),
            Self::Packages { .. } => "remove the packages that came".into(),
            Self::Unit { name, enabled, active } => {
                let enabled = if *enabled { "enabled" } else { "disabled" };
                let active = if *active { "running" } else { "stopped" };
                format!("leave {name} {enabled} and {active}")
            }
            Self::Ports { firewall, opened } => {
                format!("close {} in {firewall}", opened.join(", "))
            }
        }
    }
}

/// The file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Written {
    format: u16,
    before: Vec<Before>,
    /// Commands that a change still owes, e.g. a restart.
    owed: BTreeSet<String>,
}

/// What was there before, as it is on disk.
#[derive(Debug)]
pub struct Journal {
    path: &'static str,
    written: Written,
}

impl Journal {
    /// Reads the journal at `path`, if there is one.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn open(host: &Host, path: &'static str) -> Result<Self> {
        let Some(bytes) = host.bytes(path)? else {
            return Ok(Self { path, written: Written { format: FORMAT, ..Written::default() } });
        };
        let written: Written =
            serde_json::from_slice(&bytes).with_context(|| format!("{path} is damaged"))?;
        let format = written.format;
        ensure!(format <= FORMAT, "{path} has format {format}, this version knows {FORMAT}");
        Ok(Self { path, written })
    }

    /// Nothing was ever changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.before.is_empty()
    }

    /// What was there before, in the order of the changes.
    #[must_use]
    pub fn before(&self) -> &[Before] {
        &self.written.before
    }

    /// Writes down what a change is about to overwrite, unless an earlier one did.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note(&mut self, host: &Host, before: Before) -> Result<()> {
        let subject = before.subject();
        if self.written.before.iter().any(|known| known.subject() == subject) {
            // Packages and ports add up.
            let changed = self.written.before.iter_mut().any(|known| known.grow(&before));
            return if changed { self.save(host) } else { Ok(()) };
        }
        self.written.before.push(before);
        self.save(host)
    }

    /// The installation has ended, and these are there now.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_brought(&mut self, host: &Host, now: &BTreeSet<String>) -> Result<()> {
        for known in &mut self.written.before {
            if let Before::Packages { before, brought, .. } = known {
                *brought = Some(now.difference(before).cloned().collect());
            }
        }
        self.save(host)
    }

    /// A command is owed from now on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn owe(&mut self, host: &Host, command: &str) -> Result<()> {
        if self.written.owed.insert(command.to_owned()) { self.save(host) } else { Ok(()) }
    }

    /// It is owed.
    #[must_use]
    pub fn owes(&self, command: &str) -> bool {
        self.written.owed.contains(command)
    }

    /// It was run.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn pay(&mut self, host: &Host, command: &str) -> Result<()> {
        if self.written.owed.remove(command) { self.save(host) } else { Ok(()) }
    }

    /// Folders that were made for the journal itself: they go after it.
    pub(super) fn own_folders(&self) -> Vec<String> {
        let own = |before: &Before| match before {
            Before::Folder { path } if self.path.starts_with(path.as_str()) => Some(path.clone()),
            _ => None,
        };
        self.written.before.iter().map_while(own).collect()
    }

    /// The last note was undone.
    pub(super) fn strike(&mut self, host: &Host) -> Result<()> {
        self.written.before.pop();
        self.save(host)
    }

    /// Nothing is left of it.
    pub(super) fn end(self, host: &Host) -> Result<()> {
        host.remove(self.path)
    }

    fn save(&self, host: &Host) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.written).context("the journal has no words")?;
        host.write(self.path, &text, 0o600)
    }
}

impl Before {
    /// Takes in what a later change of the same kind is about to add; true if that is something.
    fn grow(&mut self, more: &Self) -> bool {
        match (self, more) {
            (Self::Ports { firewall, opened }, Self::Ports { firewall: of, opened: more })
                if firewall == of =>
            {
                let count = opened.len();
                let new = more.iter().filter(|port| !opened.contains(port)).cloned();
                opened.extend(new.collect::<Vec<_>>());
                opened.len() > count
            }
            _ => false,
        }
    }
}

/// As the journal keeps bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// And gives them back.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
