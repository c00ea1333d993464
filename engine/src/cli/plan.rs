//! `steadfast plan`: what would happen if a node died now.

use super::client::{Client, Failure};
use super::format::{encoded, table};
use super::{say, say_json};
use crate::api::wire::NodePlan;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use steadfast_core::ids::VmId;
use steadfast_core::snapshot::VmView;

type Plans = BTreeMap<String, NodePlan>;

/// Every node in one table, or one node with its VMs.
pub(super) async fn print(client: &Client, node: Option<&str>, json: bool) -> Result<(), Failure> {
    let Some(node) = node else {
        let plans: Plans = client.get("/v1/plan").await?;
        return if json { say_json(&plans) } else { say(&overview(&plans)) };
    };
    let plan: NodePlan = client.get(&format!("/v1/plan/{}", encoded(node))).await?;
    if json {
        return say_json(&plan);
    }
    say(&detail(node, &plan, &client.status().await?.snapshot.vms))
}

fn overview(plans: &Plans) -> String {
    let header =
        ["IF THIS NODE DIED NOW", "VMS", "START ELSEWHERE", "WAIT", "NO PLACE", "LEFT FREE"];
    let mut rows = table(&header);
    for (node, one) in plans {
        let numbers = [one.vms, one.fits, one.waits, one.lacks].map(|number| number.to_string());
        let free = format!("{} MiB", one.headroom_mib);
        rows.add_row([node.clone()].into_iter().chain(numbers).chain([free]));
    }
    let mut text = format!("{}\n\n{}", rows.trim_fmt(), verdict(plans));
    if let Some(one) = plans.values().find(|one| !one.decider.is_empty()) {
        let _ = writeln!(text, "Planned by {}; nothing is decided.", one.decider);
    }
    text
}

/// What somebody who reads one line must know.
pub(super) fn verdict(plan: &Plans) -> String {
    let short: Vec<_> = plan.iter().filter(|(_, one)| one.lacks > 0).collect();
    if short.is_empty() {
        return "Any one node may die: every VM has a place elsewhere.\n".into();
    }
    short.iter().fold(String::new(), |mut text, (node, one)| {
        let _ = writeln!(
            text,
            "If {node} died, {} of its {} VMs would have no place: free memory elsewhere, or see `steadfast plan {node}`.",
            one.lacks, one.vms
        );
        text
    })
}

fn detail(node: &str, plan: &NodePlan, vms: &[VmView]) -> String {
    if plan.vms == 0 {
        return format!("No HA VM is to run on {node}: nothing would have to move.\n");
    }
    let mut rows = table(&["VM", "PRIORITY", "IF IT DIED NOW"]);
    let mut add = |id: &VmId, what: String| {
        let vm = vms.iter().find(|vm| vm.id == *id);
        let name = vm.map_or_else(|| id.0.clone(), |vm| vm.name.clone());
        let priority = vm.map_or_else(|| "-".into(), |vm| vm.priority.to_string());
        rows.add_row([name, priority, what]);
    };
    plan.restart.iter().for_each(|it| add(&it.vm, format!("starts on {}", it.to)));
    plan.wait.iter().for_each(|id| add(id, "waits until others run".into()));
    for id in &plan.unfit {
        let why = plan.reasons.get(id).map(|why| format!(": {why}")).unwrap_or_default();
        add(id, format!("has no place{why}"));
    }
    let NodePlan { vms, fits, waits, lacks, headroom_mib, .. } = plan;
    format!(
        "If {node} died now: {fits} of {vms} VMs start elsewhere, {waits} wait for others, {lacks} have no place; \
         {headroom_mib} MiB stay free.\n\n{}\n",
        rows.trim_fmt()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(fits: usize, lacks: usize) -> NodePlan {
        NodePlan { vms: fits + lacks, fits, lacks, ..NodePlan::default() }
    }

    #[test]
    fn one_line_says_whether_any_node_may_die() {
        let mut all = BTreeMap::from([("n1".to_owned(), plan(2, 0)), ("n2".into(), plan(0, 0))]);
        assert!(verdict(&all).starts_with("Any one node may die"));
        all.insert("n3".into(), plan(1, 2));
        assert!(verdict(&all).starts_with("If n3 died, 2 of its 3 VMs"), "{}", verdict(&all));
    }

    #[test]
    fn a_vm_without_a_place_says_why() {
        let mut plan = plan(0, 1);
        let id = VmId("uuid-of-db".into());
        plan.unfit = vec![id.clone()];
        plan.reasons = BTreeMap::from([(id, "n2 lacks 512 MiB".into())]);
        let text = detail("n1", &plan, &[crate::driver::rig::vm("db")]);
        assert!(text.contains("db  500       has no place: n2 lacks 512 MiB"), "{text}");
    }
}
