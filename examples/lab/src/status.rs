//! What there is, by the kernel's word first and by the agents' second.

use anyhow::Result;
use comfy_table::Table;

use crate::lab::{Lab, Node};
use crate::{agent, faultfs, net};

const DAEMONS: [&str; 3] = ["corosync", "libvirtd", agent::DAEMON];

pub fn print(lab: &Lab) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["node", "power", "daemons", "links", "storage", "guests (QEMU processes)"]);
    for node in lab.nodes() {
        table.add_row(row(lab, node)?);
    }
    println!("{table}");
    let switches = if lab.power_switches_work() { "work" } else { "do not answer" };
    let known = if lab.options.fence_agent { "configured" } else { "not configured" };
    println!("power switches {switches}; fence agent {known}; logs in {}", lab.run.display());
    if lab.runs_agents() {
        let node = lab.live_node()?;
        println!("\n{}", lab.steadfast(node, &["status"])?);
    }
    Ok(())
}

fn row(lab: &Lab, node: Node) -> Result<[String; 6]> {
    let power = match lab.power(node) {
        Some(process) => format!("on (pid {})", process.pid),
        None => "off".into(),
    };
    let processes = lab.processes(node);
    let runs = |name: &&str| processes.iter().any(|(_, found)| found == *name);
    let daemons: Vec<&str> = DAEMONS.into_iter().filter(runs).collect();
    let links: Vec<String> =
        net::links_up(lab, node)?.iter().map(|link| link.to_string()).collect();
    let storage =
        if power == "off" { Ok("-".into()) } else { faultfs::describe(&lab.fault_control(node)) };
    let here = lab.guests().into_iter().filter(|guest| guest.node == node);
    let guests: Vec<String> = here
        .map(|guest| format!("{} {} ({})", guest.name, guest.uuid, guest.process.pid))
        .collect();
    Ok([
        node.to_string(),
        power,
        daemons.join(" "),
        links.join(" "),
        storage.unwrap_or_else(|_| "no answer".into()),
        guests.join("\n"),
    ])
}
