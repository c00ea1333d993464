//! Corosync's configuration, and what its log says about the membership.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::lab::{Coefficient, Lab, Node};
use crate::sys;

pub const LOG: &str = "corosync/corosync.log";
const READY: &str = "Completed service synchronization, ready to provide service";

/// All nodes have the same file and key.
pub fn configure(lab: &Lab) -> Result<()> {
    let mut key = [0; 256];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("cannot make corosync's key")?;
    for node in lab.nodes() {
        let folder = folder(lab, node);
        sys::make_dir(&folder)?;
        sys::write(&folder.join("corosync.conf"), configuration(lab))?;
        sys::write(&folder.join("authkey"), key)?;
    }
    Ok(())
}

/// The lab has another number of nodes: gives all of them the new node list, and has it read by those that run.
pub fn reconfigure(lab: &Lab) -> Result<()> {
    let key = fs::read(folder(lab, Node(1)).join("authkey")).context("n1 has no key")?;
    for node in lab.nodes() {
        let folder = folder(lab, node);
        sys::make_dir(&folder)?;
        sys::write(&folder.join("corosync.conf"), configuration(lab))?;
        sys::write(&folder.join("authkey"), &key)?;
    }
    let running = lab.nodes().find(|node| lab.power(*node).is_some());
    let running = running.context("no node is on: corosync reads its node list when it starts")?;
    lab.exec(running, "corosync-cfgtool", &["-R"]).map(drop)
}

fn folder(lab: &Lab, node: Node) -> PathBuf {
    lab.home(node).join("etc/corosync")
}

/// With a low token, the loss of one of two links would break the ring: knet looks at its links
/// every 200 ms and waits for missing answers, and until then it sends tokens into the dead one.
/// So every packet takes both links, and a link is given up no sooner than the token itself: a
/// shorter time-out than two looks makes healthy links flap.
fn configuration(lab: &Lab) -> String {
    let token = lab.options.token_ms;
    let coefficient = match lab.options.token_coefficient {
        Coefficient::Default => String::new(),
        Coefficient::Ms(ms) => format!("  token_coefficient: {ms}\n"),
    };
    let interface = |link: u8| {
        format!(
            "  interface {{\n    linknumber: {link}\n    knet_ping_interval: {}\n    \
             knet_ping_timeout: {}\n  }}\n",
            (token / 5).max(100),
            token.max(500),
        )
    };
    let nodes: String = lab
        .nodes()
        .map(|node| {
            format!(
                "  node {{\n    name: {node}\n    nodeid: {}\n    ring0_addr: {}\n    \
                 ring1_addr: {}\n  }}\n",
                node.0,
                node.address(0),
                node.address(1)
            )
        })
        .collect();
    format!(
        "totem {{\n  version: 2\n  cluster_name: lab\n  transport: knet\n  link_mode: active\n  \
         crypto_cipher: aes256\n  crypto_hash: sha256\n  token: {token}\n{coefficient}{}{}}}\n\
         quorum {{\n  provider: corosync_votequorum\n}}\n\
         logging {{\n  to_stderr: no\n  to_syslog: no\n  to_logfile: yes\n  \
         logfile: /var/log/{LOG}\n  timestamp: hires\n}}\n\
         nodelist {{\n{nodes}}}\n",
        interface(0),
        interface(1),
    )
}

/// Each boot has a log of its own, so that what an earlier boot said is not believed.
pub fn rotate_log(lab: &Lab, node: Node) -> Result<()> {
    let log = lab.log(node, LOG);
    if log.exists() {
        fs::rename(&log, log.with_extension(format!("{}.log", sys::wall_ms())))?;
    }
    Ok(())
}

pub fn is_ready(lab: &Lab, node: Node) -> bool {
    fs::read_to_string(lab.log(node, LOG)).is_ok_and(|text| text.contains(READY))
}

/// The members that this node's corosync saw last, when it has a quorum.
pub fn members(lab: &Lab, node: Node) -> Vec<Node> {
    let text = fs::read_to_string(lab.log(node, LOG)).unwrap_or_default();
    last_members(&text)
}

fn last_members(log: &str) -> Vec<Node> {
    let Some((_, list)) =
        log.lines().rev().find_map(|line| line.split_once("[QUORUM] Members[")?.1.split_once("]:"))
    else {
        return Vec::new();
    };
    list.split_whitespace().filter_map(|id| id.parse().ok().map(Node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_membership_counts() {
        let log = "Nov 23 03:00:00.1 [7] n1 corosync notice  [QUORUM] Members[1]: 1\n\
                   Nov 23 03:00:01.1 [7] n1 corosync notice  [QUORUM] Members[3]: 1 2 3\n\
                   Nov 23 03:00:01.2 [7] n1 corosync notice  [MAIN  ] done\n";
        assert_eq!(last_members(log), [Node(1), Node(2), Node(3)]);
        assert!(last_members("").is_empty());
    }

    #[test]
    fn the_default_coefficient_is_left_to_corosync() {
        let mut options = crate::lab::Options::default();
        let make = |options| {
            let here = std::path::Path::new("/tmp/lab");
            configuration(&Lab::new(here, here, options).unwrap())
        };
        assert!(make(options.clone()).contains("token_coefficient: 0\n"));
        options.token_coefficient = Coefficient::Default;
        assert!(!make(options).contains("token_coefficient"));
    }
}
