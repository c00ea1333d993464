//! What makes a machine a member: keys, certificates, configuration. `init` makes them, `join` receives them; both put them in place by
//! the same steps.

use super::super::change::Change;
use super::super::host::Host;
use super::super::step::{Plan, Step};
use super::{activation, config_file, corosync, pki};
use crate::doctor::Check;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::thread::sleep;
use std::time::Duration;

const AGENT: &str = "steadfastd.service";
const COROSYNC: &str = "corosync.service";
/// What this node is called.
pub(crate) const NODE: &str = "/var/lib/steadfast/node";
/// How long a unit may take to be there.
const PATIENCE_S: u32 = 30;

/// All that a member has and others have not. Secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// Name of the node.
    pub(crate) name: String,
    /// Corosync's key, in hex.
    pub(crate) authkey: String,
    pub(crate) corosync: String,
    pub(crate) config: String,
    pub(crate) authority: String,
    pub(crate) authority_key: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// The cluster was activated.
    pub(crate) active: bool,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Membership {
    /// Puts everything in its place and starts what is to run.
    pub(crate) fn plan(&self) -> Plan<'_> {
        vec![
            Box::new(|_| Ok(self.keys())),
            Box::new(|_| Ok(self.configuration())),
            Box::new(|host| Ok(self.activation(host))),
            Box::new(|_| Ok(self.corosync())),
            Box::new(start),
        ]
    }

    fn keys(&self) -> Step {
        let file = |path: &str, text: &str, mode| Change::File {
            path: path.into(),
            bytes: text.as_bytes().to_vec(),
            mode,
        };
        Step::new(
            "keys",
            "agents of this cluster know each other by certificates of its own authority",
        )
        .with(Change::Folder { path: "/etc/steadfast/pki".into(), mode: 0o700 })
        .with(file(pki::AUTHORITY_KEY, &self.authority_key, 0o600))
        .with(file(pki::AUTHORITY, &self.authority, 0o644))
        .with(file(pki::NODE_KEY, &self.key, 0o600))
        .with(file(pki::NODE, &self.certificate, 0o644))
        .then(&["systemctl", "try-restart", AGENT])
    }

    fn configuration(&self) -> Step {
        let bytes = self.config.clone().into_bytes();
        // Fence agents' passwords may be in it.
        let file = Change::File { path: config_file::PATH.into(), bytes, mode: 0o600 };
        Step::new("config", "what the agent goes by, the same on all nodes").with(file).then(&[
            "systemctl",
            "try-restart",
            AGENT,
        ])
    }

    fn activation(&self, host: &Host) -> Step {
        let why = "nothing is elected and no watchdog opened before `steadfast cluster activate`";
        let step =
            Step::new("activation", why).with(Change::text(NODE, format!("{}\n", self.name)));
        if host.has(activation::PATH) {
            return step;
        }
        let text = if self.active { activation::ACTIVE } else { activation::WAITING };
        step.with(Change::text(activation::PATH, text))
    }

    fn corosync(&self) -> Step {
        let bytes = super::super::journal::unhex(&self.authkey).unwrap_or_default();
        // Noted as it was, before the restart below starts it.
        let enabled = Change::Unit { name: COROSYNC.into(), enabled: Some(true), active: None };
        Step::new("corosync", "who is there: encrypted, on one link or two")
            .with(enabled)
            .with(Change::File { path: corosync::KEY.into(), bytes, mode: 0o400 })
            .with(Change::text(corosync::PATH, self.corosync.clone()))
            .then(&["systemctl", "restart", COROSYNC])
    }
}

fn start(_: &Host) -> Result<Step> {
    let mut step = Step::new("start", "corosync and the agent run, now and after each boot")
        .with(Change::running(COROSYNC))
        .with(Change::running(AGENT));
    step.verify = Some(|host| {
        let runs = |name| super::super::change::unit(host, name).1;
        for _ in 0..PATIENCE_S * 4 {
            if runs(COROSYNC) && runs(AGENT) && host.has("/run/steadfast/api.sock") {
                return Check::green("start", "corosync and the agent run");
            }
            sleep(Duration::from_millis(250));
        }
        let missing = if runs(COROSYNC) { AGENT } else { COROSYNC };
        let text = format!("{missing} does not run after {PATIENCE_S} s");
        Check::yellow("start", text, format!("journalctl -u {missing}"))
    });
    Ok(step)
}

/// The hex digits of a new secret of so many bytes.
///
/// # Errors
/// The kernel gives none.
pub(crate) fn secret(bytes: usize) -> Result<String> {
    use std::io::Read as _;
    let mut secret = vec![0; bytes];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(super::super::journal::hex(&secret))
}
