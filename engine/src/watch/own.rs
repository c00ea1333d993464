//! The VM in which this service runs itself, if it is one of a cluster it follows: found by the UUID that the hypervisor shows.
//!
//! libvirt gives a guest its domain's UUID as the product UUID of DMI. Whether it is an HA VM, the state says; a VM that is not one
//! yet is looked for among those that are defined on the nodes.

use super::cluster::Cluster;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Readable by root alone.
const PRODUCT: &str = "/sys/class/dmi/id/product_uuid";
const LOOK: Duration = Duration::from_secs(2);
/// Agents are asked about VMs that are no HA VMs this often.
const ASK: Duration = Duration::from_secs(30);

/// The UUID of this machine, as the hypervisor or the firmware shows it.
pub(super) fn uuid() -> Option<String> {
    read(Path::new(PRODUCT))
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?.trim().to_ascii_lowercase();
    let is_uuid = text.len() == 36 && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    is_uuid.then_some(text)
}

/// Looks for this machine among the cluster's VMs again and again.
pub(super) async fn recognise(cluster: Arc<Cluster>, uuid: String) {
    let mut asked: Option<Instant> = None;
    let mut defined = None;
    loop {
        let mut found = cluster.board.look(|state| find(state.get("vms"), &uuid));
        if found.is_none() && cluster.own().connected {
            if asked.is_none_or(|at| at.elapsed() >= ASK) {
                asked = Some(Instant::now());
                defined = ask(&cluster, &uuid).await;
            }
            found.clone_from(&defined);
        }
        cluster.change_own(|own| own.self_vm = found);
        tokio::time::sleep(LOOK).await;
    }
}

/// A VM of a node of the cluster that is no HA VM.
async fn ask(cluster: &Cluster, uuid: &str) -> Option<Value> {
    for agent in cluster.agents().into_iter().filter(|agent| agent.is_reachable()) {
        for id in [uuid, &swap(uuid)] {
            let known = agent.client.get::<Value>(&format!("/v1/domains/{id}")).await;
            let name = known.ok().and_then(|vm| Some(vm.get("name")?.as_str()?.to_string()));
            if let Some(name) = name {
                return Some(of(id, &name, false));
            }
        }
    }
    None
}

/// It, if it is an HA VM. Some firmware shows the first three groups with their bytes the other way round.
fn find(vms: Option<&Value>, uuid: &str) -> Option<Value> {
    let vms = vms?.as_object()?;
    let swapped = swap(uuid);
    let is_it = |id: &str| id.eq_ignore_ascii_case(uuid) || id.eq_ignore_ascii_case(&swapped);
    let (id, vm) = vms.iter().find(|(id, _)| is_it(id))?;
    Some(of(id, vm.get("name").and_then(Value::as_str).unwrap_or(id), true))
}

fn of(id: &str, name: &str, protected: bool) -> Value {
    json!({ "id": id, "name": name, "protected": protected, "means": means(name, protected) })
}

/// What it means, honestly.
fn means(name: &str, protected: bool) -> String {
    match protected {
        true => format!(
            "HA-watch runs in {name}, an HA VM: if its node dies, it starts elsewhere. While it moves, nobody is shown anything and no \
             alarm is sent; failovers go on without it, and what happened meanwhile is in the history afterwards"
        ),
        false => format!(
            "HA-watch runs in {name}, which is no HA VM: if its node dies, page, history and alarms are away until somebody starts it. \
             Failovers go on without it"
        ),
    }
}

/// The bytes of the first three groups the other way round.
fn swap(uuid: &str) -> String {
    let groups: Vec<&str> = uuid.split('-').collect();
    let turn = |(index, group): (usize, &&str)| match index {
        0..3 if group.is_ascii() => {
            let bytes = group.as_bytes().chunks(2).rev().flatten();
            bytes.map(|byte| char::from(*byte)).collect()
        }
        _ => (*group).to_string(),
    };
    groups.iter().enumerate().map(turn).collect::<Vec<String>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "4c4c4544-0051-3610-8052-b4c04f4d3132";

    #[test]
    fn it_finds_itself_by_its_uuid_also_when_the_firmware_turns_bytes() {
        let vms = json!({ UUID.to_ascii_uppercase(): {"name": "watch"}, "u2": {"name": "web"} });
        let found = find(Some(&vms), UUID).expect("it is there");
        assert_eq!(
            (found["name"].as_str(), found["protected"].as_bool()),
            (Some("watch"), Some(true))
        );
        assert_eq!(swap(UUID), "44454c4c-5100-1036-8052-b4c04f4d3132");
        assert!(find(Some(&vms), &swap(UUID)).is_some());
        assert_eq!(find(Some(&json!({"u2": {}})), UUID), None);
    }

    #[test]
    fn what_it_means_is_told_for_both_cases() {
        assert!(means("watch", true).contains("no alarm is sent"));
        assert!(means("watch", false).contains("is no HA VM"));
    }
}
