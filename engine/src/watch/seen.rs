//! What of the state matters for history and alarms: who is well, and what runs.

use super::cluster::name_of;
use super::health::is_down;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A look at a cluster, or at what changed of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) wall_ms: u64,
    /// All there is; otherwise what changed.
    pub(super) whole: bool,
    /// Statuses by name; `None`: the node is no more.
    pub(super) nodes: BTreeMap<String, Option<String>>,
    /// VMs by UUID; `None`: it is no HA VM any more.
    pub(super) vms: BTreeMap<String, Option<VmSeen>>,
}

/// A VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VmSeen {
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) runs: bool,
    /// It should run, and is known not to.
    pub(super) down: bool,
}

impl Seen {
    /// All of `state`.
    pub(super) fn all(state: &Map<String, Value>, wall_ms: u64) -> Self {
        let mut seen = Self { wall_ms, whole: true, ..Self::default() };
        for name in keys(state.get("nodes")) {
            seen.look_at_node(state, name);
        }
        for id in keys(state.get("vms")) {
            seen.look_at_vm(state, id);
        }
        seen
    }

    /// What `patch` changed of `state`, which has it already; `None`: nothing that matters.
    pub(super) fn changed(state: &Map<String, Value>, patch: &Value, wall_ms: u64) -> Option<Self> {
        let mut seen = Self { wall_ms, ..Self::default() };
        let has = |change: &Value, fields: &[&str]| {
            change.is_null() || fields.iter().any(|field| change.get(field).is_some())
        };
        for (name, change) in entries(patch.get("nodes")) {
            if has(change, &["status"]) {
                seen.look_at_node(state, name);
            }
        }
        for (id, change) in entries(patch.get("vms")) {
            if has(change, &["state", "owner", "desired"]) {
                seen.look_at_vm(state, id);
            }
        }
        (!seen.nodes.is_empty() || !seen.vms.is_empty()).then_some(seen)
    }

    fn look_at_node(&mut self, state: &Map<String, Value>, name: &str) {
        let status = state.get("nodes").and_then(|nodes| nodes.get(name)?.get("status")?.as_str());
        self.nodes.insert(name.into(), status.map(Into::into));
    }

    fn look_at_vm(&mut self, state: &Map<String, Value>, id: &str) {
        let vm = state.get("vms").and_then(|vms| vms.get(id));
        self.vms.insert(id.into(), vm.map(VmSeen::of));
    }
}

impl VmSeen {
    fn of(vm: &Value) -> Self {
        let field = |key: &str| vm.get(key).and_then(Value::as_str).unwrap_or_default();
        Self {
            name: field("name").into(),
            owner: name_of(vm.get("owner")).unwrap_or_default(),
            runs: ["running", "migrating"].contains(&field("state")),
            down: is_down(vm),
        }
    }
}

fn entries(map: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    map.and_then(Value::as_object).into_iter().flatten()
}

fn keys(map: Option<&Value>) -> impl Iterator<Item = &String> {
    entries(map).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_tells_the_vm_as_it_is_now_and_ages_are_no_change() {
        let state = json!({
            "nodes": {"n1": {"status": "Leader"}},
            "vms": {"u1": {"name": "web", "state": "orphan", "owner": {"id": 1, "name": "n1"}}},
        });
        let state = state.as_object().expect("object");
        let ages = json!({"nodes": {"n1": {"beat_age": 3}}, "wall_ms": 4});
        assert_eq!(Seen::changed(state, &ages, 5), None);
        let patch = json!({"vms": {"u1": {"state": "orphan"}, "u2": null}});
        let seen = Seen::changed(state, &patch, 5).expect("a change");
        let web = VmSeen { name: "web".into(), owner: "n1".into(), runs: false, down: true };
        assert_eq!(seen.vms["u1"], Some(web));
        assert_eq!(seen.vms["u2"], None);
        assert_eq!(Seen::all(state, 5).nodes["n1"].as_deref(), Some("Leader"));
    }
}
