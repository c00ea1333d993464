//! `steadfast node`: maintenance, and nodes that come and go.

use super::args::{Maintenance, NodeCommand};
use super::client::{Client, Failure};
use super::format::encoded;
use super::{cluster, may_stop, say, say_json, status, telemetry};
use crate::api::wire::{AddNode, BeginMaintenance};
use crate::config::Config;
use crate::hook::{Places, install};
use std::path::{Path, PathBuf};
use steadfast_core::snapshot::NodeView;

pub(super) async fn run(client: &Client, command: &NodeCommand, json: bool) -> Result<(), Failure> {
    match command {
        NodeCommand::List => {
            let nodes: Vec<NodeView> = client.get("/v1/nodes").await?;
            if json { say_json(&nodes) } else { say(&status::nodes(&nodes)) }
        }
        NodeCommand::Telemetry => telemetry::print(client, json).await,
        NodeCommand::Maintenance(command) => maintenance(client, command, json).await,
        NodeCommand::Add { node: (id, name) } => {
            let body = AddNode { id: *id, name: name.clone() };
            let done = client.post("/v1/nodes", &body).await?;
            cluster::tell(&done, &format!("{name} belongs to the cluster now"), json)
        }
        NodeCommand::Remove { node } => {
            let done = client.delete(&format!("/v1/nodes/{}", encoded(node))).await?;
            let what = format!("{node} is to leave: its VMs move away, then it is removed");
            cluster::tell(&done, &what, json)
        }
        NodeCommand::MayStop => may_stop::run(client, json).await,
        NodeCommand::InstallHook { config, hooks, program } => {
            install_hook(config, hooks, program.as_deref())
        }
        NodeCommand::RemoveHook { hooks } => remove_hook(hooks),
        // Need no agent, and are done already.
        NodeCommand::Prepare(_) | NodeCommand::Forget(_) => Ok(()),
    }
}

async fn maintenance(client: &Client, command: &Maintenance, json: bool) -> Result<(), Failure> {
    let path = |node: &str| format!("/v1/nodes/{}/maintenance", encoded(node));
    match command {
        Maintenance::Begin { node, restart, reason } => {
            let body = BeginMaintenance { restart: *restart, reason: reason.clone() };
            let done = client.post(&path(node), &body).await?;
            let what =
                format!("{node} is in maintenance: its VMs move away, see `steadfast status`");
            cluster::tell(&done, &what, json)
        }
        Maintenance::End { node } => {
            let done = client.delete(&path(node)).await?;
            let what = format!("{node} is used again; VMs that were moved off it return");
            cluster::tell(&done, &what, json)
        }
    }
}

fn install_hook(config: &Path, hooks: &Path, program: Option<&Path>) -> Result<(), Failure> {
    let usage = |problems: crate::config::Problems| Failure::Usage(problems.to_string());
    let places = Places::of(&Config::load(config).map_err(usage)?);
    let own = std::env::current_exe().map_err(|error| Failure::Other(error.into()))?;
    let program: PathBuf = program.map_or(own, Path::to_owned);
    let changed = install::install(hooks, &program, &places).map_err(Failure::Other)?;
    say(if changed {
        "the hook is installed; libvirt looks for hooks only when it starts: systemctl restart libvirtd \
         (guests keep running); `steadfast status` warns while it does not work\n"
    } else {
        "the hook was installed already\n"
    })
}

fn remove_hook(hooks: &Path) -> Result<(), Failure> {
    let removed = install::remove(hooks).map_err(Failure::Other)?;
    say(if removed { "the hook is removed\n" } else { "there was no hook\n" })
}
