//! `corosync.conf` as Steadfast writes and reads it.

use crate::config::Preset;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Where it lies.
pub(crate) const PATH: &str = "/etc/corosync/corosync.conf";
/// The key of all nodes.
pub(crate) const KEY: &str = "/etc/corosync/authkey";
/// The first words of a file of ours.
pub(crate) const MARK: &str = "# Written by `steadfast cluster`";

/// A node as corosync knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Member {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its address on each link, one or two.
    pub addresses: Vec<IpAddr>,
}

/// What a file of ours says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// Name of the cluster.
    pub cluster: String,
    /// How long a token may be away, in milliseconds.
    pub token_ms: u64,
    /// Grows with each change.
    pub version: u64,
    /// All nodes, by id.
    pub members: Vec<Member>,
}

/// The longest token with which the preset is safe, rounded: token + consensus is 2.2 times as long.
#[must_use]
pub fn token_ms(preset: Preset) -> u64 {
    match preset {
        Preset::Fast | Preset::Standard => 500,
        Preset::Calm => 2_000,
    }
}

impl Conf {
    /// The same with `member`, and the next version. Known with the same addresses, it changes nothing.
    ///
    /// # Errors
    /// Its name or an address is another's, or it has not as many links as the others.
    pub fn with(&self, name: &str, addresses: &[IpAddr]) -> Result<Self> {
        if let Some(known) = self.member(name) {
            ensure!(
                known.addresses == addresses,
                "{name} is a node at {} already, not at {}: remove it first (steadfast cluster remove-node {name})",
                listed(&known.addresses),
                listed(addresses)
            );
            return Ok(self.clone());
        }
        let taken =
            self.members.iter().find(|it| it.addresses.iter().any(|at| addresses.contains(at)));
        if let Some(other) = taken {
            bail!("{} has the address {}", other.name, listed(addresses));
        }
        let id = (1..).find(|id| self.members.iter().all(|it| it.id != *id)).unwrap_or(1);
        let mut next = self.clone();
        next.members.push(Member { id, name: name.into(), addresses: addresses.to_vec() });
        next.members.sort_by_key(|member| member.id);
        next.version += 1;
        next.check()?;
        Ok(next)
    }

    /// The same without the node `name`.
    ///
    /// # Errors
    /// It is none, or the last one.
    pub fn without(&self, name: &str) -> Result<Self> {
        ensure!(self.member(name).is_some(), "{name} is no node of {}", self.cluster);
        let mut next = self.clone();
        next.members.retain(|member| member.name != name);
        next.version += 1;
        next.check()?;
        Ok(next)
    }

    /// A node of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    fn check(&self) -> Result<()> {
        let first = self.members.first().context("a cluster needs a node")?;
        let links = first.addresses.len();
        for member in &self.members {
            check_name(&member.name)?;
            let has = member.addresses.len();
            ensure!(
                (1..=2).contains(&has),
                "{} has {has} addresses, 1 or 2 are possible",
                member.name
            );
            ensure!(
                has == links,
                "{} has {has} addresses, {} has {links}: give each node as many",
                member.name,
                first.name
            );
        }
        Ok(())
    }

    /// The file.
    #[must_use]
    pub fn render(&self) -> String {
        let links = self.members.first().map_or(1, |member| member.addresses.len());
        let mut interfaces = String::new();
        // With a low token, a link that dies must not take the ring with it: every packet takes both links, and a link is given up no
        // sooner than the token.
        let (interval, patience) = ((self.token_ms / 5).max(100), self.token_ms.max(500));
        for link in 0..links {
            let _ = write!(
                interfaces,
                "  interface {{\n    linknumber: {link}\n    knet_ping_interval: {interval}\n    knet_ping_timeout: {patience}\n  }}\n"
            );
        }
        let nodes: String = self.members.iter().map(node).collect();
        let Self { cluster, token_ms, version, .. } = self;
        let mode = if links > 1 { "  link_mode: active\n" } else { "" };
        format!(
            "{MARK}, which also changes it on all nodes at once.\n\
             totem {{\n  version: 2\n  config_version: {version}\n  cluster_name: {cluster}\n  transport: knet\n{mode}  \
             crypto_cipher: aes256\n  crypto_hash: sha256\n  token: {token_ms}\n  token_coefficient: 0\n{interfaces}}}\n\
             quorum {{\n  provider: corosync_votequorum\n}}\n\
             logging {{\n  to_stderr: no\n  to_logfile: no\n  to_syslog: yes\n  timestamp: hires\n}}\n\
             nodelist {{\n{nodes}}}\n"
        )
    }

    /// Reads a file of ours.
    ///
    /// # Errors
    /// It is none of ours, or damaged.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.starts_with(MARK), "{PATH} was not made by `steadfast cluster`");
        let mut conf =
            Self { cluster: String::new(), token_ms: 0, version: 0, members: Vec::new() };
        for line in text.lines().map(str::trim) {
            if line == "node {" {
                conf.members.push(Member { id: 0, name: String::new(), addresses: Vec::new() });
            }
            let Some((key, value)) = line.split_once(": ") else { continue };
            let number = || value.parse::<u64>().with_context(|| format!("{PATH}: {line}"));
            match (key, conf.members.last_mut()) {
                ("cluster_name", _) => conf.cluster = value.into(),
                ("config_version", _) => conf.version = number()?,
                ("token", _) => conf.token_ms = number()?,
                ("nodeid", Some(member)) => member.id = u32::try_from(number()?)?,
                ("name", Some(member)) => member.name = value.into(),
                ("ring0_addr" | "ring1_addr", Some(member)) => {
                    member
                        .addresses
                        .push(value.parse().with_context(|| format!("{PATH}: {line}"))?);
                }
                _ => {}
            }
        }
        ensure!(!conf.cluster.is_empty() && conf.token_ms > 0, "{PATH} is damaged");
        conf.check().with_context(|| format!("{PATH} is damaged"))?;
        Ok(conf)
    }

    /// How long a silent node stays unnoticed: token and consensus, which corosync makes 1.2 times as long.
    #[must_use]
    pub fn membership_ms(&self) -> u64 {
        self.token_ms + self.token_ms * 12 / 10
    }
}

fn node(member: &Member) -> String {
    let mut text = format!("  node {{\n    name: {}\n    nodeid: {}\n", member.name, member.id);
    for (link, address) in member.addresses.iter().enumerate() {
        let _ = writeln!(text, "    ring{link}_addr: {address}");
    }
    text + "  }\n"
}

/// Addresses as people write them.
#[must_use]
pub fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A name goes into files, certificates and addresses of libvirt.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    ensure!(
        first && name.len() <= 63 && name.bytes().all(good),
        "{name:?} is no name of a node: letters, digits, - and . are, at most 63"
    );
    Ok(())
}

/// `NAME=ADDRESS[,ADDRESS2]`.
///
/// # Errors
/// It is something else.
pub fn parse_member(text: &str) -> Result<(String, Vec<IpAddr>), String> {
    let wrong = || format!("expected NAME=ADDRESS or NAME=ADDRESS,ADDRESS2, got {text:?}");
    let (name, addresses) = text.split_once('=').ok_or_else(wrong)?;
    check_name(name).map_err(|error| error.to_string())?;
    let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
    let addresses = addresses.map_err(|_| wrong())?;
    if !(1..=2).contains(&addresses.len()) {
        return Err(wrong());
    }
    Ok((name.into(), addresses))
}

/// It was made by others, and is in use: neither ours nor a package's example.
#[must_use]
pub(crate) fn is_foreign(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let is_ours = text.starts_with(MARK);
    let address = |line: &str| line.strip_prefix("ring0_addr:").map(str::trim).map(String::from);
    !is_ours && lines.any(|line| address(line).is_some_and(|address| address != "127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> Conf {
        let (name, addresses) = parse_member("n1=10.0.0.1,10.1.0.1").expect("good");
        let members = vec![Member { id: 1, name, addresses }];
        Conf { cluster: "prod".into(), token_ms: 500, version: 1, members }
    }

    #[test]
    fn what_is_written_is_read_again_with_one_link_or_two() {
        let two = conf().with("n2", &["10.0.0.2".parse().unwrap(), "10.1.0.2".parse().unwrap()]);
        let two = two.expect("added");
        assert_eq!(Conf::parse(&two.render()).expect("ours"), two);
        assert_eq!((two.members[1].id, two.version, two.membership_ms()), (2, 2, 1_100));
        let mut one = conf();
        one.members[0].addresses.truncate(1);
        assert_eq!(Conf::parse(&one.render()).expect("ours"), one);
        assert!(!one.render().contains("linknumber: 1"));
    }

    #[test]
    fn a_free_id_is_given_again_and_the_same_node_changes_nothing() {
        let second = ["10.0.0.2".parse().unwrap(), "10.1.0.2".parse().unwrap()];
        let three = conf().with("n2", &second).unwrap();
        let three = three.with("n3", &["10.0.0.3".parse().unwrap(), "10.1.0.3".parse().unwrap()]);
        let three = three.unwrap();
        assert_eq!(three.with("n2", &second).unwrap(), three);
        let without = three.without("n2").unwrap();
        let again = without.with("n9", &second).unwrap();
        assert_eq!(again.member("n9").unwrap().id, 2);
    }

    #[test]
    fn names_addresses_and_links_that_do_not_fit_are_refused() {
        let one: IpAddr = "10.0.0.9".parse().unwrap();
        let told = |name: &str, at: &[IpAddr]| conf().with(name, at).unwrap_err().to_string();
        assert!(told("n2", &[one]).contains("give each node as many"));
        assert!(told("n1", &[one, one]).contains("remove it first"));
        assert!(told("n2", &["10.0.0.1".parse().unwrap(), one]).contains("n1 has the address"));
        for wrong in ["n1", "=10.0.0.1", "n 1=10.0.0.1", "n1=a", "n1=10.0.0.1,10.0.0.2,10.0.0.3"] {
            assert!(parse_member(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_presets_token_is_safe() {
        for preset in [Preset::Fast, Preset::Standard, Preset::Calm] {
            let conf = Conf { token_ms: token_ms(preset), ..conf() };
            let timing = preset.timing(steadfast_core::time::Millis(conf.membership_ms()));
            assert_eq!(crate::config::lint(&timing), vec![], "{preset:?}");
        }
    }

    #[test]
    fn the_example_of_a_package_is_nobodys_and_a_real_cluster_is_somebodys() {
        assert!(!is_foreign("") && !is_foreign(&conf().render()));
        assert!(!is_foreign(
            "nodelist {\n node {\n  # ring0_addr: 10.0.0.1\n  ring0_addr: 127.0.0.1\n"
        ));
        assert!(is_foreign("nodelist {\n node {\n  ring0_addr: node-a\n"));
    }
}
