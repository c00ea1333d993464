//! Openings in the firewall that runs, if one does.

use super::super::change::{Change, unit};
use super::super::host::Host;
use super::super::step::Step;
use crate::doctor::Check;
use anyhow::Result;

/// What nodes say to each other: corosync's links, the agents' API, a join, and live migration.
pub const PORTS: [&str; 4] = ["5405-5412/udp", "7443/tcp", "7444/tcp", "49152-49215/tcp"];
const NAME: &str = "firewall";

pub(super) fn step(host: &Host) -> Result<Step> {
    let step = Step::new(NAME, "nodes must reach each other: corosync, the agents, live migration");
    let open = || PORTS.iter().map(ToString::to_string).collect();
    if unit(host, "firewalld.service").1 {
        return Ok(step.with(Change::Ports { firewall: "firewalld", open: open() }));
    }
    if host.knows("ufw") && host.ask("ufw", &["status"]).out.contains("Status: active") {
        return Ok(step.with(Change::Ports { firewall: "ufw", open: open() }));
    }
    if unit(host, "nftables.service").1 || unit(host, "iptables.service").1 {
        let text = "rules of your own are loaded at boot; they are left alone";
        let remedy = format!("let in from the other nodes: {}", PORTS.join(", "));
        return Ok(step.say(Check::yellow(NAME, text, remedy)));
    }
    Ok(step.say(Check::green(NAME, "none runs here")))
}
