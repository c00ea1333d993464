//! `steadfast.toml` as `cluster init` writes it; afterwards it is the operator's.

use crate::config::{Config, Preset};
use crate::pages::Place;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Where it lies.
pub(crate) const PATH: &str = "/etc/steadfast/steadfast.toml";
/// Where the agents' API listens.
pub(crate) const PORT: u16 = 7443;

/// What the operator chooses.
#[derive(Debug, Clone)]
pub struct Choices {
    /// Name of the cluster.
    pub cluster: String,
    /// Time-outs.
    pub preset: Preset,
    /// Single time-outs, as the configuration names them.
    pub timing: BTreeMap<String, u64>,
    /// The store.
    pub place: Place,
    /// Where disks of VMs lie.
    pub shared_paths: Vec<String>,
    /// Addresses that tell whether the VM network works.
    pub verification: Vec<IpAddr>,
    /// Fence agents: node, agent, options.
    pub fence: Vec<Fence>,
    /// Nobody pauses the nodes from outside.
    pub never_paused: bool,
    /// The watchdog.
    pub watchdog: String,
}

/// A fence agent, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Whom it switches off.
    pub node: String,
    /// Its program.
    pub agent: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// `NODE=AGENT[,KEY=VALUE]...`.
///
/// # Errors
/// It is something else.
pub fn parse_fence(text: &str) -> Result<Fence, String> {
    let wrong = || format!("expected NODE=AGENT,KEY=VALUE,..., got {text:?}");
    let (node, rest) = text.split_once('=').ok_or_else(wrong)?;
    let mut parts = rest.split(',');
    let agent = parts.next().filter(|agent| !agent.is_empty()).ok_or_else(wrong)?;
    let pair = |part: &str| part.split_once('=').map(|(key, value)| (key.into(), value.into()));
    let options: Option<BTreeMap<String, String>> = parts.map(pair).collect();
    Ok(Fence { node: node.into(), agent: agent.into(), options: options.ok_or_else(wrong)? })
}

impl Choices {
    /// The whole file.
    #[must_use]
    pub fn render(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.into()).to_string();
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let preset = format!("{:?}", self.preset).to_lowercase();
        let mut text = format!(
            "# Written by `steadfast cluster init`; yours from now on, and the same on all nodes but for [node].\n\
             # Every key with its default: /usr/share/doc/steadfast/examples/steadfast.toml\n\
             # Check it with: steadfast config check {PATH}\n\n\
             [cluster]\nname = {}\n# \"fast\" | \"standard\" | \"calm\". What failures cost with it: steadfast doctor\npreset = \"{preset}\"\n",
            quoted(&self.cluster)
        );
        if !self.timing.is_empty() {
            text.push_str("\n# Unsafe sets are refused, with the nearest safe value.\n[timing]\n");
            for (key, ms) in &self.timing {
                let _ = writeln!(text, "{key} = {ms}");
            }
        }
        let key = self.place.key().trim_start_matches("storage.");
        let place = quoted(&self.place.to_string());
        let paths = list(self.shared_paths.iter().map(|path| quoted(path)).collect());
        let addresses = list(self.verification.iter().map(|at| quoted(&at.to_string())).collect());
        let _ = write!(
            text,
            "\n[storage]\n{key} = {place}\n# Where disks of HA VMs may lie.\nshared_paths = {paths}\n\n\
             [watchdog]\ndevice = {}\n\n\
             # Addresses on the VM network that tell \"my network is dead\" from \"the control network is dead\"; three are good.\n\
             [verification]\naddresses = {addresses}\n\n\
             [policies]\ndirectory = \"/etc/steadfast/policies\"\n\n\
             # For policies, e.g. to keep copies of a service in different racks: labels = {{ rack = \"a\" }}\n[node]\n\n\
             [run]\n# Only on a virtual machine: your word that its host never pauses it.\nnever_paused = {}\n",
            quoted(&self.watchdog),
            self.never_paused
        );
        text.push_str(&api());
        for fence in &self.fence {
            let (node, agent) = (quoted(&fence.node), quoted(&fence.agent));
            let _ = write!(text, "\n[[fence]]\nnode = {node}\nagent = {agent}\n[fence.options]\n");
            for (key, value) in &fence.options {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
        if self.fence.is_empty() {
            text.push_str(
                "\n# How a dead node is switched off for sure; one section a node. Without any, time is the proof.\n\
                 # [[fence]]\n# node = \"n2\"\n# agent = \"fence_ipmilan\"\n# [fence.options]\n# ip = \"198.51.100.2\"\n",
            );
        }
        text
    }
}

/// How agents know each other.
fn api() -> String {
    use super::pki::{AUTHORITY, MEMBER, NODE, NODE_KEY};
    format!(
        "\n# Agents know each other by certificates of the cluster's own authority. Add people and services below.\n\
         [api]\nlisten = \"0.0.0.0:{PORT}\"\ncertificate = \"{NODE}\"\nkey = \"{NODE_KEY}\"\nclient_ca = \"{AUTHORITY}\"\n\n\
         [[api.user]]\nname = \"members\"\nrole = \"administrator\"\ncertificate = \"{MEMBER}\"\n"
    )
}

/// A file that is there already belongs to the operator: it is kept, if it is for the same cluster and lets members in.
///
/// # Errors
/// It says something else, with both.
pub(crate) fn check_existing(text: &str, wanted: &Choices) -> Result<()> {
    let config = Config::parse(text).map_err(|problems| anyhow::anyhow!("{PATH}:\n{problems}"))?;
    let move_away = format!("correct one of both, or move {PATH} away");
    let (is, want) = (&config.cluster, &wanted.cluster);
    ensure!(is == want, "{PATH} is for cluster {is:?}, not {want:?}; {move_away}");
    let (is, want) = (&config.storage, &wanted.place);
    ensure!(is == want, "{PATH} has its store in {is}, not {want}; {move_away}");
    let lets_in = config.api.tls.is_some()
        && config
            .api
            .users
            .iter()
            .any(|user| user.certificate.as_deref() == Some(super::pki::MEMBER));
    ensure!(lets_in, "{PATH} does not let members in; add to it:\n{}", api());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn choices() -> Choices {
        Choices {
            cluster: "prod".into(),
            preset: Preset::Standard,
            timing: BTreeMap::new(),
            place: Place::Directory("/mnt/shared/steadfast".into()),
            shared_paths: vec!["/mnt/shared/images".into()],
            verification: vec!["192.0.2.1".parse().unwrap()],
            fence: vec![parse_fence("n2=fence_ipmilan,ip=198.51.100.2,username=ha").unwrap()],
            never_paused: true,
            watchdog: "/dev/watchdog0".into(),
        }
    }

    #[test]
    fn the_file_says_what_was_chosen() {
        let config = Config::parse(&choices().render()).expect("good");
        assert_eq!((config.cluster.as_str(), config.preset), ("prod", Preset::Standard));
        assert_eq!(config.storage, choices().place);
        assert_eq!(config.watchdog, Some("/dev/watchdog0".into()));
        assert_eq!(config.fence[0].options["ip"], "198.51.100.2");
        assert!(config.never_paused && config.api.tls.is_some());
        let timing = [("token_is_no_key".to_owned(), 1)].into();
        assert!(Config::parse(&Choices { timing, ..choices() }.render()).is_err());
        let device = Choices { place: Place::Device("/dev/mapper/ha".into()), ..choices() };
        assert_eq!(Config::parse(&device.render()).expect("good").storage, device.place);
        let bare = Choices { fence: vec![], ..choices() };
        assert!(Config::parse(&bare.render()).expect("good").fence.is_empty());
    }

    #[test]
    fn a_file_of_the_operators_is_kept_if_it_is_for_this_cluster() {
        let mine = choices().render() + "\n[limits]\nflaps = 4\n";
        check_existing(&mine, &choices()).expect("kept");
        let other = Choices { cluster: "test".into(), ..choices() };
        let told = check_existing(&mine, &other).expect_err("another").to_string();
        assert!(told.contains("\"prod\", not \"test\""), "{told}");
        let least =
            "[cluster]\nname = \"prod\"\n[storage]\ndirectory = \"/mnt/shared/steadfast\"\n";
        let told = check_existing(least, &choices()).expect_err("closed").to_string();
        assert!(told.contains("client_ca"), "{told}");
    }

    #[test]
    fn fence_agents_are_named_with_their_options() {
        assert!(parse_fence("n2=fence_ipmilan").is_ok());
        for wrong in ["n2", "n2=", "n2=fence_ipmilan,ip"] {
            assert!(parse_fence(wrong).is_err(), "{wrong}");
        }
    }
}
