//! What is wrong with a cluster now, as far as a person should know.

use super::Rule;
use crate::watch::cluster::Cluster;
use crate::watch::config::RuleSettings;
use crate::watch::health::is_down;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is wrong, by rule and subject. `sees`: the cluster is seen; otherwise what was wrong may still be.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sees: bool,
    pub(super) conditions: BTreeMap<(Rule, String), String>,
}

pub(super) fn find(cluster: &Cluster, rules: &RuleSettings, now: u64) -> Found {
    let own = cluster.own();
    let mut found = Found { sees: own.connected, ..Found::default() };
    if !own.connected {
        let text = "no agent answers: what happens there is not known".to_string();
        found.conditions.insert((Rule::Unreachable, String::new()), text);
        return found;
    }
    found.conditions = cluster.board.look(|state| of_state(state, rules, now));
    for (id, text) in cluster.impossible() {
        found.conditions.insert((Rule::Impossible, id), text);
    }
    found
}

/// A person need not be told before it has lasted for so long.
pub(super) fn patience(rule: Rule, rules: &RuleSettings) -> Duration {
    match rule {
        Rule::VmDown => rules.vm_down,
        Rule::NodeDown | Rule::VmFailed | Rule::Impossible => Duration::ZERO,
        Rule::NoLeader
        | Rule::Unreachable
        | Rule::Storage
        | Rule::Risk
        | Rule::Warning
        | Rule::Clock => rules.patience,
    }
}

fn of_state(
    state: &Map<String, Value>,
    rules: &RuleSettings,
    now: u64,
) -> BTreeMap<(Rule, String), String> {
    let mut found = BTreeMap::new();
    for (name, node) in entries(state, "nodes") {
        of_node(name, node, &mut found);
    }
    for vm in entries(state, "vms").map(|(_, vm)| vm).filter(|vm| is_down(vm)) {
        let (name, reason) = (text(vm, "name"), text(vm, "reason"));
        let rule = if text(vm, "state") == "failed" { Rule::VmFailed } else { Rule::VmDown };
        let told = with_reason(&format!("{name} is {}", text(vm, "state")), reason);
        found.insert((rule, name.into()), told);
    }
    let is_null = |key: &str| state.get(key).is_none_or(Value::is_null);
    if state.get("quorate").and_then(Value::as_bool) == Some(false) {
        found.insert(
            (Rule::NoLeader, String::new()),
            "the nodes that are seen are no majority".into(),
        );
    } else if is_null("leader") {
        found.insert((Rule::NoLeader, String::new()), "the cluster has no leader".into());
    }
    let warnings = state.get("warnings").and_then(Value::as_array).into_iter().flatten();
    for warning in warnings.filter_map(Value::as_str) {
        found.insert((Rule::Warning, warning.into()), warning.into());
    }
    found.extend(of_clock(state, rules, now));
    found
}

fn of_node(name: &str, node: &Value, found: &mut BTreeMap<(Rule, String), String>) {
    let (status, reason) = (text(node, "status"), text(node, "reason"));
    let told = with_reason(&format!("{name}: {status}"), reason);
    let rule = match status {
        "Network isolation"
        | "Storage isolation"
        | "Full failure"
        | "Excluded from HA cluster"
        | "Evicted" => Some(Rule::NodeDown),
        "Storage outage" => Some(Rule::Storage),
        _ => None,
    };
    found.extend(rule.map(|rule| ((rule, name.into()), told)));
    let risk = node.get("risk").filter(|risk| !["", "calm", "none"].contains(&text(risk, "level")));
    if let Some(risk) = risk {
        let told =
            with_reason(&format!("{name}: risk {}", text(risk, "level")), text(risk, "text"));
        found.insert((Rule::Risk, name.into()), told);
    }
}

fn of_clock(
    state: &Map<String, Value>,
    rules: &RuleSettings,
    now: u64,
) -> Option<((Rule, String), String)> {
    let theirs = state.get("wall_ms")?.as_u64()?;
    let node = state.get("node")?.get("name")?.as_str()?;
    // The state is up to a second old by itself.
    let off = Duration::from_millis(now.abs_diff(theirs).saturating_sub(1_000));
    (off >= rules.clock).then(|| {
        let text = format!("the clock of {node} and this one differ by {} s", off.as_secs());
        ((Rule::Clock, node.into()), text)
    })
}

fn entries<'a>(
    state: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    state.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn with_reason(text: &str, reason: &str) -> String {
    if reason.is_empty() { text.into() } else { format!("{text}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_named_by_rule_and_subject() {
        let state = json!({
            "wall_ms": 10_000, "node": {"id": 1, "name": "n1"}, "leader": {"id": 1, "name": "n1"}, "quorate": true,
            "nodes": {"n1": {"status": "Leader"}, "n2": {"status": "Evicted", "reason": "it is dead"},
                      "n3": {"status": "Suspect"}},
            "vms": {"u1": {"name": "web", "state": "orphan"}, "u2": {"name": "db", "state": "failed"},
                    "u3": {"name": "off", "state": "stopped", "desired": "stopped"}},
            "warnings": ["no watchdog"],
        });
        let state = state.as_object().expect("object");
        let found = of_state(state, &RuleSettings::default(), 10_900);
        let texts: Vec<(&str, &str)> =
            found.iter().map(|((rule, _), text)| (rule.name(), text.as_str())).collect();
        let expected = [
            ("node_down", "n2: Evicted: it is dead"),
            ("vm_down", "web is orphan"),
            ("vm_failed", "db is failed"),
            ("warning", "no watchdog"),
        ];
        assert_eq!(texts, expected);
        let late = of_state(state, &RuleSettings::default(), 14_000);
        let clock = &late[&(Rule::Clock, "n1".to_string())];
        assert_eq!(clock, "the clock of n1 and this one differ by 3 s");
    }
}
