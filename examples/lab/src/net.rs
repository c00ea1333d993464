//! The lab's networks: three bridges in a namespace that plays the switch room.
//!
//! Links 0 and 1 carry corosync; link 2 is the network of the guests, where the verification
//! address answers.

use std::process::Command;

use anyhow::Result;

use crate::lab::{Lab, Node};
use crate::sys;

/// Links of the cluster's own traffic.
pub const CONTROL: &[u8] = &[0, 1];
pub const ALL: &[u8] = &[0, 1, 2];
/// Answers on the guests' network, as a gateway would.
pub const VERIFICATION: &str = "10.77.2.254";

pub fn create(lab: &Lab) -> Result<()> {
    add_namespace(&lab.switch())?;
    let mut batch = String::from("link set lo up\n");
    for link in ALL {
        batch += &format!("link add br{link} type bridge\n");
        batch += &format!("link set br{link} type bridge stp_state 0 mcast_snooping 0\n");
        batch += &format!("link set br{link} up\n");
    }
    batch += &format!("addr add {VERIFICATION}/24 dev br2\n");
    ip_batch(&lab.switch(), &batch)?;
    lab.nodes().try_for_each(|node| connect(lab, node))
}

/// Gives a node its network namespace, and its cables to the switches.
pub fn connect(lab: &Lab, node: Node) -> Result<()> {
    let namespace = lab.namespace(node);
    add_namespace(&namespace)?;
    let mut at_switch = String::new();
    let mut at_node = String::from("link set lo up\n");
    for link in ALL {
        at_switch +=
            &format!("link add {node}e{link} type veth peer name eth{link} netns {namespace}\n");
        at_switch += &format!("link set {node}e{link} master br{link} up\n");
        at_node += &format!("addr add {}/24 dev eth{link}\n", node.address(*link));
        at_node += &format!("link set eth{link} up\n");
    }
    ip_batch(&lab.switch(), &at_switch)?;
    ip_batch(&namespace, &at_node)
}

/// Pulls or plugs cables at the switch.
pub fn set_links(lab: &Lab, node: Node, links: &[u8], up: bool) -> Result<()> {
    let state = if up { "up" } else { "down" };
    let lines: Vec<String> =
        links.iter().map(|link| format!("link set {node}e{link} {state}\n")).collect();
    ip_batch(&lab.switch(), &lines.concat())
}

/// Which cables of the node are plugged in.
pub fn links_up(lab: &Lab, node: Node) -> Result<Vec<u8>> {
    let text = sys::run(Command::new("ip").args(["-n", &lab.switch(), "-br", "link"]))?;
    let is_up = |link: &u8| {
        text.lines()
            .any(|line| line.starts_with(&format!("{node}e{link}@")) && line.contains(" UP "))
    };
    Ok(ALL.iter().copied().filter(is_up).collect())
}

/// Removes the namespaces, and with them everything in them.
pub fn remove(lab: &Lab) {
    for name in namespaces(lab) {
        let _ = sys::run(Command::new("ip").args(["netns", "del", &name]));
    }
}

/// The lab's network namespaces, also those of an earlier lab with more nodes.
pub fn namespaces(lab: &Lab) -> Vec<String> {
    let prefix = lab.prefix();
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

fn add_namespace(name: &str) -> Result<()> {
    sys::run(Command::new("ip").args(["netns", "add", name])).map(drop)
}

fn ip_batch(namespace: &str, batch: &str) -> Result<()> {
    sys::run_with_input(Command::new("ip").args(["-n", namespace, "-batch", "-"]), batch)
}
