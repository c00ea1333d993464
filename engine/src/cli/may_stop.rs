//! `steadfast node may-stop`: what ending the agent on this node would cost. The packages ask it before they are removed.

use super::client::{Client, Failure};
use super::{say, say_json};
use serde::Serialize;
use steadfast_core::snapshot::{Snapshot, VmView};

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    may_stop: bool,
    /// HA VMs that would be left without a guard.
    vms: Vec<String>,
    text: String,
}

pub(super) async fn run(client: &Client, json: bool) -> Result<(), Failure> {
    let answer = answer(&client.status().await?.snapshot);
    if json {
        say_json(&answer)?
    } else {
        say(&answer.text)?
    }
    if answer.may_stop { Ok(()) } else { Err(Failure::Told) }
}

fn answer(snapshot: &Snapshot) -> Answer {
    let node = &snapshot.node.name;
    let guarded = |vm: &&VmView| is_here(vm, snapshot) && vm.state != "stopped";
    let vms: Vec<String> = snapshot.vms.iter().filter(guarded).map(|vm| vm.name.clone()).collect();
    if snapshot.disarm.as_ref().is_some_and(|disarm| !disarm.pending) {
        let text = format!("high availability is off: the agent on {node} may stop\n");
        return Answer { may_stop: true, vms, text };
    }
    if vms.is_empty() {
        let text = format!("no VM under high availability is on {node}: its agent may stop\n");
        return Answer { may_stop: true, vms, text };
    }
    let text = format!(
        "{node} has {} under high availability ({}): without its agent the watchdog resets {node}, and they start \
         elsewhere.\nMove them away first: steadfast node maintenance begin {node}\nOr switch high availability off for \
         the whole cluster: steadfast disarm\nTo restart the agent costs nothing: systemctl restart steadfastd\n",
        if vms.len() == 1 { "a VM".into() } else { format!("{} VMs", vms.len()) },
        vms.join(", ")
    );
    Answer { may_stop: false, vms, text }
}

/// By the ledger, or because it is on its way.
fn is_here(vm: &VmView, snapshot: &Snapshot) -> bool {
    let here = snapshot.node.id;
    vm.owner.id == here || vm.migrating_to.as_ref().is_some_and(|node| node.id == here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::rig;
    use steadfast_core::ids::Stamp;
    use steadfast_core::ledger::Disarm;

    /// As n1 sees it, with a VM on n2.
    fn snapshot() -> Snapshot {
        let mut snapshot = rig::snapshot();
        snapshot.vms = vec![rig::vm("web")];
        snapshot
    }

    #[test]
    fn an_agent_that_guards_vms_may_not_stop_unless_high_availability_is_off() {
        let mut snapshot = snapshot();
        snapshot.vms[0].owner = snapshot.node.clone();
        let refusal = answer(&snapshot);
        assert!(!refusal.may_stop && refusal.vms == ["web"], "{refusal:?}");
        assert!(refusal.text.contains("maintenance begin n1"), "{refusal:?}");
        let disarm = |pending| {
            Some(Disarm { since: Stamp::default(), limit: None, reason: String::new(), pending })
        };
        snapshot.disarm = disarm(true);
        assert!(!answer(&snapshot).may_stop, "not off yet");
        snapshot.disarm = disarm(false);
        assert!(answer(&snapshot).may_stop);
    }

    #[test]
    fn vms_of_other_nodes_do_not_keep_an_agent_but_one_that_arrives_does() {
        let mut snapshot = snapshot();
        assert!(answer(&snapshot).may_stop);
        snapshot.vms[0].migrating_to = Some(snapshot.node.clone());
        assert!(!answer(&snapshot).may_stop);
    }

    #[test]
    fn a_stopped_vm_does_not_keep_an_agent() {
        let mut snapshot = snapshot();
        (snapshot.vms[0].owner, snapshot.vms[0].state) = (snapshot.node.clone(), "stopped".into());
        assert!(answer(&snapshot).may_stop);
    }
}
