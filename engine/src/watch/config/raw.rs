//! The file as people write it.

use super::{
    Address, ClusterSettings, MailSettings, Receiver, Retention, RuleSettings, Secret, Settings,
    Way,
};
use crate::config::file::missing;
use crate::config::{self, Api, Problem, RawUser};
use crate::watch::alarms::Rule;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    api: RawApi,
    database: RawDatabase,
    rules: RawRules,
    cluster: Vec<RawCluster>,
    alarm: Vec<RawReceiver>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawApi {
    listen: Option<SocketAddr>,
    machine: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    user: Vec<RawUser>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawDatabase {
    file: Option<PathBuf>,
    keep_days: Option<u64>,
    keep_mib: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRules {
    vm_down_ms: Option<u64>,
    patience_ms: Option<u64>,
    clock_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawCluster {
    id: Option<String>,
    agents: BTreeMap<String, String>,
    others: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    identity: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawReceiver {
    name: Option<String>,
    rules: Vec<String>,
    clusters: Vec<String>,
    repeat_minutes: Option<u64>,
    webhook: Option<RawWebhook>,
    exec: Option<RawExec>,
    mail: Option<RawMail>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    url: String,
    secret: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExec {
    command: Vec<String>,
    timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMail {
    server: String,
    user: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    from: String,
    to: Vec<String>,
}

/// The settings that `file` says; `is_whole`: nothing was left out of it because it was mistyped.
pub(super) fn resolve(file: File, is_whole: bool, problems: &mut Vec<Problem>) -> Settings {
    if file.cluster.is_empty() && is_whole {
        let example = "id = \"production\"\nagents = { n1 = \"https://n1:7443\" }";
        problems.push(missing("[[cluster]]", example));
    }
    let clusters: Vec<_> =
        file.cluster.into_iter().map(|raw| raw.resolve(is_whole, problems)).collect();
    check_twice("clusters are called", clusters.iter().map(|cluster| &cluster.id), problems);
    let known: BTreeSet<&str> = clusters.iter().map(|cluster| cluster.id.as_str()).collect();
    let receivers: Vec<_> =
        file.alarm.into_iter().filter_map(|raw| raw.resolve(&known, problems)).collect();
    check_twice("alarms are called", receivers.iter().map(|one| &one.name), problems);
    Settings {
        listen: file.api.listen.unwrap_or(Settings::LISTEN),
        machine: file.api.machine.clone(),
        access: file.api.resolve(problems),
        database: file.database.file(),
        retention: file.database.retention(problems),
        rules: file.rules.resolve(),
        clusters,
        receivers,
        demo: false,
    }
}

fn check_twice<'a>(
    what: &str,
    names: impl Iterator<Item = &'a String>,
    problems: &mut Vec<Problem>,
) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let text = format!("two {what} {name}");
            problems.push(Problem::new(text, "give each a name of its own"));
        }
    }
}

impl RawApi {
    /// By the same rules as an agent's; without TLS nobody but this machine comes in.
    fn resolve(self, problems: &mut Vec<Problem>) -> Api {
        let Self { certificate, key, client_ca, user, listen, .. } = self;
        let listen = listen.unwrap_or(Settings::LISTEN);
        let plain = certificate.is_none() && key.is_none();
        if plain && !listen.ip().is_loopback() {
            problems.push(Problem::new(
                format!("api.listen is {listen}, which others can reach, without TLS"),
                "add api.certificate, api.key and [[api.user]], or listen on 127.0.0.1",
            ));
        }
        let listen = (!plain).then_some(listen);
        config::RawApi { socket: None, listen, certificate, key, client_ca, user }.resolve(problems)
    }
}

impl RawDatabase {
    fn file(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| "/var/lib/steadfast-watch/history.db".into())
    }

    fn retention(&self, problems: &mut Vec<Problem>) -> Retention {
        let least = Retention::default();
        let days = self.keep_days.unwrap_or(least.age.as_secs() / DAY.as_secs());
        let mib = self.keep_mib.unwrap_or(least.bytes >> 20);
        if !(1..=36_500).contains(&days) {
            let text = format!("database.keep_days is {days}");
            problems.push(Problem::new(text, "set it from 1 to 36500"));
        }
        if !(16..=1 << 20).contains(&mib) {
            let text = format!("database.keep_mib is {mib}");
            problems.push(Problem::new(text, "set it from 16 to 1048576"));
        }
        Retention {
            age: DAY * u32::try_from(days).unwrap_or(36_500),
            bytes: mib.min(1 << 20) << 20,
        }
    }
}

impl RawRules {
    fn resolve(&self) -> RuleSettings {
        let usual = RuleSettings::default();
        let or = |given: Option<u64>, usual| given.map_or(usual, Duration::from_millis);
        RuleSettings {
            vm_down: or(self.vm_down_ms, usual.vm_down),
            patience: or(self.patience_ms, usual.patience),
            clock: or(self.clock_ms, usual.clock),
        }
    }
}

impl RawCluster {
    fn resolve(self, is_whole: bool, problems: &mut Vec<Problem>) -> ClusterSettings {
        let id = self.id.unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if is_whole && (id.is_empty() || !id.chars().all(fits)) {
            let text = format!("cluster.id is {id:?}");
            problems
                .push(Problem::new(text, "use letters, digits, -, _ and .: it is part of URLs"));
        }
        if is_whole && self.agents.is_empty() {
            let example = "agents = { n1 = \"https://n1:7443\" }";
            problems.push(missing(&format!("agents of cluster {id}"), example));
        }
        let mut agents = BTreeMap::new();
        for (node, text) in &self.agents {
            agents.extend(address(text, problems).map(|address| (node.clone(), address)));
        }
        let others = self.others.or_else(|| others(&agents));
        check_others(others.as_deref(), problems);
        let what = format!("token of cluster {id}");
        let token = secret(&what, self.token, self.token_file, problems);
        let (ca, identity) = (self.ca, self.identity);
        ClusterSettings { id, agents, others, token, ca, identity }
    }
}

/// When agents' addresses are made of their nodes' names, the others' are made alike.
fn others(agents: &BTreeMap<String, Address>) -> Option<String> {
    agents.iter().find_map(|(node, address)| match address {
        Address::Url(url) if url.contains(&format!("//{node}:")) => {
            Some(url.replacen(&format!("//{node}:"), "//{node}:", 1))
        }
        Address::Url(url) if url.contains(&format!("//{node}.")) => {
            Some(url.replacen(&format!("//{node}."), "//{node}.", 1))
        }
        _ => None,
    })
}

fn check_others(others: Option<&str>, problems: &mut Vec<Problem>) {
    let Some(text) = others else { return };
    if !text.contains("{node}") {
        problems.push(Problem::new(
            format!("cluster.others is {text:?}, the same for every node"),
            "put {node} where the name of the node belongs, e.g. https://{node}:7443",
        ));
    } else {
        address(&text.replace("{node}", "n1"), problems);
    }
}

/// An agent's address: tokens and certificates never travel in the clear.
pub(in crate::watch) fn address(text: &str, problems: &mut Vec<Problem>) -> Option<Address> {
    let told = problems.len();
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        if !path.is_absolute() {
            let text = format!("the agent's address {text:?} has no whole path");
            problems.push(Problem::new(text, "e.g. unix:/run/steadfast/api.sock"));
        }
        return (problems.len() == told).then_some(Address::Unix(path));
    }
    let host = |rest: &str| rest.split(['/', ':']).next().unwrap_or_default().to_string();
    let is_local = |host: &str| host == "localhost" || host.starts_with("127.") || host == "[";
    let trouble = match text.split_once("://") {
        Some(("https", rest)) if !host(rest).is_empty() => None,
        Some(("http", rest)) if is_local(&host(rest)) => None,
        Some(("http", _)) => Some("would send tokens in the clear"),
        _ => Some("is no address of an agent"),
    };
    if let Some(trouble) = trouble {
        let remedy = "use https://host:port, or unix:/path on this machine";
        problems.push(Problem::new(format!("{text} {trouble}"), remedy));
        return None;
    }
    Some(Address::Url(text.trim_end_matches('/').into()))
}

/// A secret that is given, or the first line of a file.
fn secret(
    what: &str,
    given: Option<String>,
    file: Option<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Option<Secret> {
    let Some(path) = file else { return given.map(Secret) };
    if given.is_some() {
        let text = format!("{what} is given twice, also by {}", path.display());
        problems.push(Problem::new(text, "keep the file: it can be readable by root alone"));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(Secret(text.lines().next().unwrap_or_default().trim().into())),
        Err(error) => {
            let text = format!("{what}: {} is unreadable: {error}", path.display());
            problems.push(Problem::new(text, "put it there, readable by this service"));
            None
        }
    }
}

impl RawReceiver {
    fn resolve(mut self, known: &BTreeSet<&str>, problems: &mut Vec<Problem>) -> Option<Receiver> {
        let name = self.name.take().unwrap_or_default();
        if name.is_empty() {
            problems.push(missing("alarm.name", "name = \"on call\""));
        }
        self.check(&name, known, problems);
        let way = self.way(&name, problems)?;
        let minutes = self.repeat_minutes.filter(|minutes| *minutes > 0);
        let repeat = minutes.map(|minutes| Duration::from_secs(60 * minutes));
        Some(Receiver { name, rules: self.rules, clusters: self.clusters, repeat, way })
    }

    fn check(&self, name: &str, known: &BTreeSet<&str>, problems: &mut Vec<Problem>) {
        for rule in self.rules.iter().filter(|rule| Rule::find(rule).is_none()) {
            let names: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
            let text = format!("alarm {name} wants rule {rule:?}, which does not exist");
            problems.push(Problem::new(text, format!("rules are {}", names.join(", "))));
        }
        for cluster in self.clusters.iter().filter(|id| !known.contains(id.as_str())) {
            let text = format!("alarm {name} is for cluster {cluster:?}, which does not exist");
            problems.push(Problem::new(text, "name clusters by their id"));
        }
    }

    fn way(&mut self, name: &str, problems: &mut Vec<Problem>) -> Option<Way> {
        let ways = (self.webhook.take(), self.exec.take(), self.mail.take());
        match ways {
            (Some(hook), None, None) => hook.resolve(problems),
            (None, Some(exec), None) => exec.resolve(name, problems),
            (None, None, Some(mail)) => mail.resolve(name, problems),
            _ => {
                let text = format!("alarm {name} must have one of webhook, exec or mail");
                problems
                    .push(Problem::new(text, "e.g. exec = { command = [\"/usr/bin/logger\"] }"));
                None
            }
        }
    }
}

impl RawWebhook {
    fn resolve(self, problems: &mut Vec<Problem>) -> Option<Way> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            let text = format!("webhook.url is {:?}", self.url);
            problems.push(Problem::new(text, "begin it with https://"));
            return None;
        }
        Some(Way::Webhook { url: self.url, secret: self.secret.map(Secret) })
    }
}

impl RawExec {
    fn resolve(self, name: &str, problems: &mut Vec<Problem>) -> Option<Way> {
        if self.command.first().is_none_or(String::is_empty) {
            let what = format!("exec.command of alarm {name}");
            problems.push(missing(&what, "command = [\"/usr/bin/logger\", \"-t\", \"ha\"]"));
            return None;
        }
        let timeout = Duration::from_millis(self.timeout_ms.unwrap_or(10_000));
        Some(Way::Exec { command: self.command, timeout })
    }
}

impl RawMail {
    fn resolve(self, name: &str, problems: &mut Vec<Problem>) -> Option<Way> {
        let what = format!("mail.password of alarm {name}");
        let password = secret(&what, self.password, self.password_file, problems);
        let is_good = self.server.starts_with("smtp://") || self.server.starts_with("smtps://");
        if !is_good {
            let text = format!("mail.server is {:?}", self.server);
            problems.push(Problem::new(text, "e.g. smtps://mail.example.org:465"));
        }
        for address in self.to.iter().chain([&self.from]) {
            if address.parse::<lettre::message::Mailbox>().is_err() {
                let text = format!("{address:?} is no address of mail");
                problems.push(Problem::new(text, "e.g. HA <ha@example.org>"));
            }
        }
        if self.to.is_empty() {
            problems.push(missing("mail.to", "to = [\"on-call@example.org\"]"));
        }
        let login = self.user.zip(password);
        let Self { server, from, to, .. } = self;
        Some(Way::Mail(MailSettings { server, login, from, to }))
    }
}
