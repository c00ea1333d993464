//! How a cluster is, in a word and a sentence.

use serde::Serialize;
use serde_json::{Map, Value};

/// The worst that is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, schemars::JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Worst {
    /// Nothing needs a person.
    Ok,
    /// Somebody should look.
    Warning,
    /// VMs are down, or nothing is known.
    Critical,
}

/// In short.
#[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema, Serialize)]
pub(super) struct Health {
    pub(super) nodes: usize,
    pub(super) vms: usize,
    pub(super) worst: Worst,
    pub(super) text: String,
}

/// Names told one by one.
const NAMED: usize = 3;

/// A node with this status does what it should.
pub(super) fn is_good(status: &str) -> bool {
    ["Leader", "Member", "Maintenance", "Disarmed"].contains(&status)
}

/// A VM that is to run and does not, as far as is known. Where the operator wants it to be off, it is not down.
pub(super) fn is_down(vm: &Value) -> bool {
    let field = |key: &str| vm.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_fine = ["running", "migrating", "unknown", ""].contains(&field("state"));
    !is_fine && field("desired") != "stopped"
}

/// What `state` shows, of a cluster whose agents answer or do not.
pub(super) fn health(state: &Map<String, Value>, connected: bool) -> Health {
    let count = |key: &str| state.get(key).and_then(Value::as_object).map_or(0, Map::len);
    let (nodes, vms) = (count("nodes"), count("vms"));
    let mut found: Vec<(Worst, String)> = Vec::new();
    if !connected {
        found.push((Worst::Critical, "no agent answers".into()));
    } else {
        found.extend(of_cluster(state));
        found.extend(of_vms(state));
        found.extend(of_nodes(state));
        found.extend(of_warnings(state));
    }
    found.sort_by_key(|(worst, _)| std::cmp::Reverse(*worst));
    let worst = found.first().map_or(Worst::Ok, |(worst, _)| *worst);
    let texts: Vec<String> = found.into_iter().map(|(_, text)| text).collect();
    let text = if texts.is_empty() { "all is well".into() } else { texts.join("; ") };
    Health { nodes, vms, worst, text }
}

fn of_cluster(state: &Map<String, Value>) -> Vec<(Worst, String)> {
    let is_null = |key: &str| state.get(key).is_none_or(Value::is_null);
    let mut found = Vec::new();
    if state.get("quorate").and_then(Value::as_bool) == Some(false) {
        found.push((Worst::Critical, "no quorum".into()));
    } else if is_null("leader") {
        found.push((Worst::Warning, "no leader".into()));
    }
    if !is_null("disarm") {
        found.push((Worst::Warning, "HA is switched off for everybody".into()));
    }
    found
}

fn of_vms(state: &Map<String, Value>) -> Option<(Worst, String)> {
    let vms = state.get("vms")?.as_object()?;
    let name = |vm: &Value| vm.get("name").and_then(Value::as_str).unwrap_or("?").to_string();
    let down: Vec<String> = vms.values().filter(|vm| is_down(vm)).map(name).collect();
    let verb = if down.len() == 1 { "is" } else { "are" };
    (!down.is_empty()).then(|| (Worst::Critical, format!("{} {verb} down", named(&down))))
}

fn of_nodes(state: &Map<String, Value>) -> Option<(Worst, String)> {
    let nodes = state.get("nodes")?.as_object()?;
    let status = |node: &Value| node.get("status_text").or(node.get("status")).cloned();
    let bad: Vec<String> = nodes
        .iter()
        .filter_map(|(name, node)| Some((name, status(node)?.as_str()?.to_string())))
        .filter(|(_, status)| !is_good(status))
        .map(|(name, status)| format!("{name}: {status}"))
        .collect();
    (!bad.is_empty()).then(|| (Worst::Warning, named(&bad)))
}

fn of_warnings(state: &Map<String, Value>) -> Vec<(Worst, String)> {
    let warnings = state.get("warnings").and_then(Value::as_array);
    let text = |warning: &Value| Some((Worst::Warning, warning.as_str()?.to_string()));
    warnings.map(|all| all.iter().filter_map(text).collect()).unwrap_or_default()
}

fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(state: &Value, connected: bool) -> (Worst, String) {
        let found = health(state.as_object().expect("object"), connected);
        (found.worst, found.text)
    }

    #[test]
    fn the_worst_is_told_first() {
        let mut state = json!({
            "quorate": true, "leader": {"id": 1, "name": "n1"},
            "nodes": {"n1": {"status": "Leader"}, "n2": {"status": "Member"}},
            "vms": {"u1": {"name": "web", "state": "running"}},
        });
        assert_eq!(told(&state, true), (Worst::Ok, "all is well".into()));
        state["nodes"]["n2"]["status"] = json!("Full failure");
        assert_eq!(told(&state, true), (Worst::Warning, "n2: Full failure".into()));
        state["vms"]["u1"]["state"] = json!("orphan");
        let text = "web is down; n2: Full failure".to_string();
        assert_eq!(told(&state, true), (Worst::Critical, text));
        assert_eq!(told(&state, false), (Worst::Critical, "no agent answers".into()));
    }

    #[test]
    fn a_vm_that_is_to_be_off_is_not_down() {
        assert!(!is_down(&json!({"state": "stopped", "desired": "stopped"})));
        assert!(is_down(&json!({"state": "stopped", "desired": "running"})));
    }
}
