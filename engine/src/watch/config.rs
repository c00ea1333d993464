//! HA-watch's configuration: TOML as people write it, checked at once and with remedies, as the agent's is.

mod raw;

pub(super) use raw::address;

use crate::config::{Api, Problem, Problems, file};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What HA-watch runs on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its page and API listen.
    pub listen: SocketAddr,
    /// TLS, and who may come in: as with an agent's API. Without TLS only this machine can.
    pub access: Api,
    /// The clusters it follows.
    pub clusters: Vec<ClusterSettings>,
    /// The history's file.
    pub database: PathBuf,
    /// How much of it is kept.
    pub retention: Retention,
    /// What is worth an alarm.
    pub rules: RuleSettings,
    /// Who is told.
    pub receivers: Vec<Receiver>,
    /// UUID of the machine that this service runs on, where it may not read it itself.
    pub machine: Option<String>,
    /// It is part of `steadfast demo`.
    pub demo: bool,
}

/// One cluster.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Its name in addresses of this API.
    pub id: String,
    /// Agents' addresses, by node: one that lives is enough.
    pub agents: BTreeMap<String, Address>,
    /// The address of any other node's agent, with `{node}` for the node's name; without it others are not looked for.
    pub others: Option<String>,
    /// Bearer token for all of them.
    pub token: Option<Secret>,
    /// Certificates (PEM) that sign the agents'; without them the system's.
    pub ca: Option<PathBuf>,
    /// This service's certificate and key in one PEM file.
    pub identity: Option<PathBuf>,
}

impl ClusterSettings {
    /// A cluster whose agents are reached by unix sockets: node name and socket of each.
    #[must_use]
    pub fn of_sockets<N, P>(id: &str, sockets: impl IntoIterator<Item = (N, P)>) -> Self
    where
        N: Into<String>,
        P: Into<PathBuf>,
    {
        let agent = |(node, socket): (N, P)| (node.into(), Address::Unix(socket.into()));
        let agents = sockets.into_iter().map(agent).collect();
        Self { id: id.into(), agents, others: None, token: None, ca: None, identity: None }
    }
}

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket on this machine.
    Unix(PathBuf),
    /// `https://host:port`, or plain `http` on this machine.
    Url(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// A token or key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How much history is kept: the first bound that is reached counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Older entries go.
    pub age: Duration,
    /// The file grows no larger than this many bytes, or a little more.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(400 * 86_400), bytes: 2 << 30 }
    }
}

/// What is worth an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleSettings {
    /// A VM may be down for so long before somebody is told.
    pub vm_down: Duration,
    /// The same of a leader, or of the way to the agents.
    pub patience: Duration,
    /// Clocks may differ by so much.
    pub clock: Duration,
}

impl Default for RuleSettings {
    fn default() -> Self {
        Self {
            vm_down: Duration::from_secs(30),
            patience: Duration::from_secs(15),
            clock: Duration::from_secs(2),
        }
    }
}

/// Who is told of alarms.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name in the history.
    pub name: String,
    /// The rules it wants; empty: all.
    pub rules: Vec<String>,
    /// The clusters it wants; empty: all.
    pub clusters: Vec<String>,
    /// Told again after this while nobody acknowledged; `None`: told once.
    pub repeat: Option<Duration>,
    /// The way.
    pub way: Way,
}

/// A way to tell somebody.
#[derive(Debug, Clone)]
pub enum Way {
    /// JSON by POST.
    Webhook {
        /// To this address.
        url: String,
        /// Key of the HMAC in the header `X-Steadfast-Signature`.
        secret: Option<Secret>,
    },
    /// A program, with JSON on its stdin.
    Exec {
        /// It and its arguments.
        command: Vec<String>,
        /// Killed after this.
        timeout: Duration,
    },
    /// E-mail.
    Mail(MailSettings),
}

/// How e-mail is sent.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// `smtp://` or `smtps://`, host and port.
    pub server: String,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// Sender.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
}

impl Settings {
    /// Where it listens when nobody says: this machine alone.
    pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8470);

    /// What `steadfast demo` embeds: one cluster, on loopback, without alarms.
    #[must_use]
    pub fn for_demo(cluster: ClusterSettings, database: PathBuf) -> Self {
        let (retention, rules) = (Retention::default(), RuleSettings::default());
        let (clusters, receivers, listen) = (vec![cluster], Vec::new(), Self::LISTEN);
        let machine = None;
        let access = Api::default();
        Self {
            listen,
            access,
            clusters,
            database,
            retention,
            rules,
            receivers,
            machine,
            demo: true,
        }
    }

    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("{} is unreadable: {error}", path.display());
            Problems(vec![Problem::new(what, "create it from examples/watch.toml")])
        })?;
        Self::parse(&text)
    }

    /// Reads and checks `text`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let (file, mut problems) = file::read(text);
        let told = problems.len();
        let settings = raw::resolve(file, told == 0, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(Problems(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[[cluster]]\nid = \"c\"\nagents = { n1 = \"unix:/run/a.sock\" }\n";

    fn problems(more: &str) -> String {
        let text = format!("{LEAST}{more}");
        Settings::parse(&text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_least_is_a_cluster_with_an_agent() {
        let settings = Settings::parse(LEAST).expect("good");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8470");
        assert_eq!(settings.retention, Retention::default());
        let cluster = &settings.clusters[0];
        assert_eq!(cluster.agents["n1"], Address::Unix("/run/a.sock".into()));
        assert!(Settings::parse("").expect_err("no cluster").to_string().contains("[[cluster]]"));
    }

    #[test]
    fn the_example_is_a_good_configuration() {
        let text = include_str!("../../../examples/watch.toml");
        let settings = Settings::parse(text).map_err(|problems| problems.to_string());
        let settings = settings.expect("good");
        assert_eq!(settings.clusters.len(), 2);
        assert_eq!(settings.receivers.len(), 3);
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_a_remedy() {
        let found = problems("color = 1\n[database]\nkeep_days = 0\n[api]\nlisten = \"here\"\n");
        assert!(found.contains("line 4: unknown key `color`"), "{found}");
        assert!(found.contains("database.keep_days is 0"), "{found}");
        assert!(found.contains("line 8: "), "{found}");
    }

    #[test]
    fn others_than_this_machine_come_in_by_tls_and_by_name() {
        let found = problems("[api]\nlisten = \"0.0.0.0:8470\"\n");
        assert!(found.contains("0.0.0.0:8470") && found.contains("api.certificate"), "{found}");
        let tls = "[api]\nlisten = \"0.0.0.0:8470\"\ncertificate = \"c\"\nkey = \"k\"\n";
        assert!(problems(tls).contains("nobody may come in"));
        let hex = "ab".repeat(32);
        let user =
            format!("[[api.user]]\nname = \"a\"\nrole = \"viewer\"\ntoken_sha256 = \"{hex}\"\n");
        let settings = Settings::parse(&format!("{LEAST}{tls}{user}")).expect("good");
        assert_eq!(settings.access.users.len(), 1);
        let plain = Settings::parse(&format!("{LEAST}{user}")).expect("tokens on this machine");
        assert!(plain.access.tls.is_none() && plain.access.users.len() == 1);
    }

    #[test]
    fn tokens_do_not_travel_in_the_clear() {
        let found = problems("[[cluster]]\nid = \"d\"\nagents = { n1 = \"http://10.0.0.1:80\" }\n");
        assert!(found.contains("http://10.0.0.1:80"), "{found}");
        assert!(found.contains("https://"), "{found}");
        let local = "[[cluster]]\nid = \"d\"\nagents = { n1 = \"http://127.0.0.1:80\" }\n";
        Settings::parse(local).expect("on this machine it is fine");
    }

    #[test]
    fn two_clusters_have_two_names_that_fit_an_address() {
        let found = problems("[[cluster]]\nid = \"c\"\nagents = { n1 = \"unix:/b\" }\n");
        assert!(found.contains("two clusters are called c"), "{found}");
        let found = problems("[[cluster]]\nid = \"a/b\"\nagents = { n1 = \"unix:/b\" }\n");
        assert!(found.contains("\"a/b\""), "{found}");
    }

    #[test]
    fn a_receiver_has_one_way_and_rules_that_exist() {
        let found = problems("[[alarm]]\nname = \"x\"\nrules = [\"fire\"]\n");
        assert!(found.contains("webhook, exec or mail"), "{found}");
        assert!(found.contains("fire") && found.contains("node_down"), "{found}");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secret("hush".into())), "(secret)");
    }
}
