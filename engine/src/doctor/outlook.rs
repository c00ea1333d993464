//! What would happen if a node died now: of each node, from the standing plan.

use super::Check;
use crate::api::wire::NodePlan;
use std::collections::BTreeMap;
use steadfast_core::ids::VmId;

/// VMs and reasons that are told.
const TOLD: usize = 3;

/// One check, or one for each node whose VMs would not all run again. `None`: there is no plan now.
pub(crate) fn checks(
    plans: Option<&BTreeMap<String, NodePlan>>,
    name: impl Fn(&VmId) -> String,
) -> Vec<Check> {
    let Some(plans) = plans else {
        let text = "nobody can tell now: the machine or the placement policy did not answer";
        return vec![Check::yellow("if a node died", text, "see `steadfast plan`")];
    };
    let lacking = plans.iter().filter(|(_, plan)| plan.lacks > 0);
    let lacking: Vec<Check> = lacking.map(|(node, plan)| lack(node, plan, &name)).collect();
    if lacking.is_empty() { vec![all_fit(plans)] } else { lacking }
}

fn lack(node: &str, plan: &NodePlan, name: impl Fn(&VmId) -> String) -> Check {
    let NodePlan { vms, fits, waits, lacks, reasons, .. } = plan;
    let why: Vec<String> =
        reasons.iter().take(TOLD).map(|(vm, why)| format!("{}: {why}", name(vm))).collect();
    let more = if reasons.len() > TOLD { ", …" } else { "" };
    let text = format!(
        "{lacks} of its {vms} VMs would have no place, {fits} would start elsewhere, {waits} would wait \
         for others ({}{more})",
        why.join(", ")
    );
    let remedy = format!("free memory on other nodes, or smaller VMs; see `steadfast plan {node}`");
    Check::red(&format!("if {node} died"), text, remedy)
}

fn all_fit(plans: &BTreeMap<String, NodePlan>) -> Check {
    let with_vms: Vec<_> = plans.iter().filter(|(_, plan)| plan.vms > 0).collect();
    let tell = |(node, plan): &(&String, &NodePlan)| format!("{node} ({} VMs)", plan.vms);
    let told: Vec<String> = with_vms.iter().map(tell).collect();
    let least = with_vms.iter().map(|(_, plan)| plan.headroom_mib).min();
    let text = match least {
        None => "no node has HA VMs to lose".into(),
        Some(least) => format!(
            "whichever it is, every VM finds a place: {}; then {least} MiB are free at least",
            told.join(", ")
        ),
    };
    Check::green("if a node died", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn plan(vms: usize, lacks: usize) -> NodePlan {
        let unfit = |k: usize| (VmId(format!("uuid-of-vm{k}")), "needs 4000 MiB".to_string());
        NodePlan {
            vms,
            fits: vms - lacks,
            waits: 0,
            lacks,
            restart: Vec::new(),
            wait: Vec::new(),
            unfit: Vec::new(),
            headroom_mib: 512,
            decider: "placement 1".into(),
            reasons: (0..lacks).map(unfit).collect(),
        }
    }

    fn told(plans: &[(&str, NodePlan)]) -> Vec<Check> {
        let plans = plans.iter().map(|(node, plan)| ((*node).to_string(), plan.clone())).collect();
        checks(Some(&plans), |vm| vm.0.replace("uuid-of-", ""))
    }

    #[test]
    fn a_cluster_that_can_lose_any_node_is_green_in_one_line() {
        let told = told(&[("n1", plan(2, 0)), ("n2", plan(0, 0)), ("n3", plan(5, 0))]);
        assert_eq!((told.len(), told[0].level), (1, Level::Green));
        assert!(told[0].text.contains("n1 (2 VMs), n3 (5 VMs); then 512 MiB"), "{told:?}");
    }

    #[test]
    fn each_node_whose_vms_have_no_place_is_red_with_the_reasons() {
        let told = told(&[("n1", plan(6, 4)), ("n2", plan(1, 0)), ("n3", plan(1, 1))]);
        let names: Vec<_> = told.iter().map(|check| (check.name.as_str(), check.level)).collect();
        assert_eq!(names, [("if n1 died", Level::Red), ("if n3 died", Level::Red)]);
        assert!(told[0].text.starts_with("4 of its 6 VMs would have no place"), "{told:?}");
        assert!(told[0].text.contains("vm0: needs 4000 MiB") && told[0].text.contains('…'));
        assert!(told[0].remedy.contains("steadfast plan n1"));
    }

    #[test]
    fn without_a_plan_nothing_is_promised() {
        assert_eq!(checks(None, ToString::to_string)[0].level, Level::Yellow);
    }
}
