//! What a request is about, as it is configured now: its tag tells a client that it has changed, and the audit tells it before and
//! after. States and ages, which change by themselves, are not in it.

use super::settings::asked_now;
use crate::driver::Agent;
use crate::policy::Kind;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use steadfast_core::snapshot::{NodeView, Snapshot, VmView};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Nothing that could change.
    Nothing,
    /// The VM of the path.
    Vm,
    /// Which VMs are under HA.
    Vms,
    /// The node of the path.
    Node,
    /// Which nodes are configured.
    Nodes,
    /// Whether HA is on.
    Disarm,
    /// The kind of policy of the path.
    Policies,
    /// Verification IPs.
    Verification,
}

impl Subject {
    /// `None`: there is nothing, or nobody can tell now.
    pub(super) async fn look(self, agent: &Agent, name: &str) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Verification => serde_json::to_value(asked_now(agent)).ok(),
            _ => self.find(agent, &*agent.snapshot().await.ok()?, name),
        }
    }

    /// The same as of this snapshot.
    pub(super) fn find(self, agent: &Agent, snapshot: &Snapshot, name: &str) -> Option<Value> {
        match self {
            Self::Nothing | Self::Verification => None,
            Self::Vm => {
                let mut vms = snapshot.vms.iter();
                vms.find(|vm| vm.name == name || vm.id.0 == name).map(vm)
            }
            Self::Vms => {
                Some(snapshot.vms.iter().map(|vm| (vm.id.0.clone(), json!(vm.name))).collect())
            }
            Self::Node => snapshot.nodes.iter().find(|node| node.name == name).map(node),
            Self::Nodes => {
                let nodes = snapshot.nodes.iter();
                Some(nodes.map(|node| (node.name.clone(), json!(node.id))).collect())
            }
            Self::Disarm => Some(json!({ "disarm": snapshot.disarm })),
            Self::Policies => kind(agent, Kind::named(&name.replace('-', "_"))?),
        }
    }
}

fn vm(vm: &VmView) -> Value {
    json!({
        "id": vm.id, "name": vm.name, "owner": vm.owner.name, "priority": vm.priority, "memory_mib": vm.memory_mib,
        "vcpus": vm.vcpus, "labels": vm.labels, "desired": vm.desired, "migrating_to": vm.migrating_to, "home": vm.home,
    })
}

fn node(node: &NodeView) -> Value {
    json!({
        "id": node.id, "name": node.name, "maintenance": node.maintenance, "leaving": node.leaving,
        "eviction": node.eviction,
    })
}

fn kind(agent: &Agent, kind: Kind) -> Option<Value> {
    let live = agent.live().ok()?;
    let status = live.policies.status().kinds.into_iter().find(|status| status.kind == kind)?;
    let policies: Vec<Value> = status
        .policies
        .iter()
        .map(|it| json!({ "name": it.name, "version": it.version, "digest": it.digest, "deciding": it.deciding }))
        .collect();
    let from = status.rolled_back_from;
    Some(
        json!({ "kind": kind, "bind": status.bind, "rolled_back_from": from, "policies": policies }),
    )
}

/// The tag of what was seen, as HTTP writes it.
pub(super) fn tag(seen: &Value) -> String {
    let digest = Sha256::digest(seen.to_string());
    let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// `if-match` names the tag, or any.
pub(super) fn matches(wanted: &str, tag: Option<&str>) -> bool {
    let Some(tag) = tag else { return false };
    wanted.split(',').map(str::trim).any(|wanted| wanted == "*" || wanted == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_changes_with_what_is_configured_and_not_with_a_state() {
        let mut web = crate::driver::rig::vm("web");
        let before = tag(&vm(&web));
        web.state = "waiting".into();
        assert_eq!(tag(&vm(&web)), before);
        web.priority += 1;
        assert_ne!(tag(&vm(&web)), before);
        assert!(matches("*", Some(&before)) && matches(&format!("\"x\", {before}"), Some(&before)));
        assert!(!matches("*", None) && !matches("\"x\"", Some(&before)));
    }
}
