//! `steadfast vm`.

use super::args::{Enable, VmCommand};
use super::client::{Client, Failure};
use super::format::encoded;
use super::{say, say_json, status};
use crate::api::wire::{Changed, EnableVm, MoveVm, SetPriority};
use serde::Serialize;
use steadfast_core::snapshot::VmView;

pub(super) async fn run(client: &Client, command: &VmCommand, json: bool) -> Result<(), Failure> {
    let path = |name: &str, verb: &str| format!("/v1/vms/{}/{verb}", encoded(name));
    match command {
        VmCommand::List => list(client, json).await,
        VmCommand::Enable(enable) => {
            let what = "is under high availability now";
            post(client, "/v1/vms", &wanted(enable), what, json).await
        }
        VmCommand::Disable { name } => {
            let changed = client.delete(&format!("/v1/vms/{}", encoded(name))).await?;
            tell(&changed, "is not under high availability any more; it is left as it is", json)
        }
        VmCommand::Priority { name, priority } => {
            let body = SetPriority { priority: *priority };
            let changed = client.put(&path(name, "priority"), &body).await?;
            tell(&changed, &format!("has restart priority {priority}"), json)
        }
        VmCommand::Start { name } => {
            post(client, &path(name, "start"), &(), "is to run", json).await
        }
        VmCommand::Stop { name } => {
            let what = "is to shut down, and stays off until it is started again";
            post(client, &path(name, "stop"), &(), what, json).await
        }
        VmCommand::Migrate { name, node } => {
            let what = format!("is to move live to {node}; watch it with `steadfast vm list`");
            let body = MoveVm { to: node.clone() };
            post(client, &path(name, "migrate"), &body, &what, json).await
        }
        VmCommand::Relocate { name, node } => {
            let what = format!("is to stop, and to start on {node}");
            let body = MoveVm { to: node.clone() };
            post(client, &path(name, "relocate"), &body, &what, json).await
        }
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let vms: Vec<VmView> = client.get("/v1/vms").await?;
    if json { say_json(&vms) } else { say(&status::vms(&vms)) }
}

fn wanted(enable: &Enable) -> EnableVm {
    EnableVm {
        name: enable.name.clone(),
        priority: enable.priority,
        labels: enable.labels.iter().cloned().collect(),
        max_restarts: enable.max_restarts,
        max_relocations: enable.max_relocations,
        on_shutdown: enable.on_shutdown.into(),
        after: enable.after.clone(),
    }
}

async fn post(
    client: &Client,
    path: &str,
    body: &impl Serialize,
    what: &str,
    json: bool,
) -> Result<(), Failure> {
    tell(&client.post(path, body).await?, what, json)
}

fn tell(changed: &Changed, what: &str, json: bool) -> Result<(), Failure> {
    if json {
        return say_json(changed);
    }
    let notes: String = changed.notes.iter().map(|note| format!("  {note}\n")).collect();
    say(&format!("{} {what} (ledger {})\n{notes}", changed.vm, changed.stamp))
}
