//! What is new in the ledger, for the log.

use super::log::plain;
use super::watch::Watch;
use crate::sim::world::World;
use steadfast_core::host_shutdown::words;
use steadfast_core::ids::NodeId;
use steadfast_core::ledger::{Desired, Ledger, NodeEntry, Standing, VmEntry};

impl Watch {
    /// The leader has committed.
    pub(super) fn look_at_ledger(&mut self, world: &World, leader: usize) {
        let agent = world.nodes[leader].boot.as_ref().and_then(|boot| boot.agent.as_ref());
        let Some(agent) = agent else { return };
        let version = agent.machine.snapshot(world.own(leader)).ledger.stamp.version;
        if version <= self.version {
            return;
        }
        self.version = version;
        let new = agent.machine.ledger();
        let old = std::mem::replace(&mut self.ledger, new.clone());
        let mut news = cluster(&old, &new);
        for (id, entry) in &new.nodes {
            self.evictions += u32::from(is_evicted(old.nodes.get(id), entry));
            news.extend(node(*id, old.nodes.get(id), entry));
        }
        for (vm, entry) in &new.vms {
            news.extend(self::vm(&new, old.vms.get(vm), entry));
        }
        for text in news {
            self.add(world, leader, &text);
        }
    }
}

fn cluster(old: &Ledger, new: &Ledger) -> Vec<String> {
    let mut news = Vec::new();
    match (old.is_off(), new.is_off()) {
        (false, true) => news.push("switches HA off".into()),
        (true, false) => news.push("switches HA on".into()),
        _ if old.disarm.is_none() && new.disarm.is_some() => {
            news.push("will switch HA off as soon as it can".into());
        }
        _ => {}
    }
    let gone = old.nodes.iter().filter(|(id, _)| !new.nodes.contains_key(*id));
    news.extend(gone.map(|(_, entry)| format!("{} is configured no more", entry.name)));
    let gone = old.vms.keys().filter(|vm| !new.vms.contains_key(*vm));
    news.extend(gone.map(|vm| format!("{vm} is not under HA any more")));
    if old.changing.is_some() && new.changing.is_none() {
        news.push("the change of nodes is acknowledged by everybody".into());
    }
    news
}

fn is_evicted(old: Option<&NodeEntry>, new: &NodeEntry) -> bool {
    let eviction = |entry: &NodeEntry| match &entry.standing {
        Standing::Evicted(eviction) => Some(eviction.since),
        _ => None,
    };
    eviction(new).is_some() && eviction(new) != old.and_then(eviction)
}

fn node(id: NodeId, old: Option<&NodeEntry>, new: &NodeEntry) -> Vec<String> {
    let name = &new.name;
    let mut news = Vec::new();
    let Some(old) = old else { return vec![format!("{name} is configured, as node {}", id.0)] };
    match (&old.maintenance, &new.maintenance) {
        (None, Some(_)) => news.push(format!("{name} goes into maintenance")),
        (Some(_), None) => news.push(format!("{name} is in maintenance no more")),
        _ => {}
    }
    match (&old.stopping, &new.stopping) {
        (old, Some(stop)) if old.as_ref().is_none_or(|old| old.way != stop.way) => {
            news.push(format!("{name}: {}", words(stop.way, stop.reboot)));
        }
        (Some(_), None) => news.push(format!("{name}'s host is used again")),
        _ => {}
    }
    if new.leaving && !old.leaving {
        news.push(format!("{name} is to leave the cluster"));
    }
    if old.standing == new.standing {
        return news;
    }
    match &new.standing {
        Standing::Admitted { .. } => news.push(format!("admits {name}")),
        Standing::Evicted(eviction) => {
            let proved = match &old.standing {
                Standing::Evicted(known) if known.since == eviction.since => known.proof.is_some(),
                _ => {
                    let why = plain(&format!("{:?}", eviction.reason));
                    news.push(format!("evicts {name}: {why}"));
                    false
                }
            };
            if let Some(proof) = eviction.proof.filter(|_| !proved) {
                let proof = plain(&format!("{proof:?}"));
                news.push(format!("{name} is proved to run nothing: {proof}"));
            }
        }
        Standing::New => {}
    }
    news
}

fn vm(ledger: &Ledger, old: Option<&VmEntry>, new: &VmEntry) -> Vec<String> {
    let (vm, owner) = (&new.spec.name, ledger.name(new.owner));
    let Some(old) = old else { return vec![format!("{vm} is under HA, on {owner}")] };
    let mut news = Vec::new();
    if old.owner != new.owner {
        news.push(format!("gives {vm} to {owner}, from {}", ledger.name(old.owner)));
    } else if old.since != new.since {
        news.push(format!("gives {vm} to {owner} again"));
    }
    match (old.desired, new.desired) {
        (Desired::Running, Desired::Stopped) => news.push(format!("{vm} is to be off")),
        (Desired::Stopped, Desired::Running) => news.push(format!("{vm} is to run")),
        _ => {}
    }
    match (&old.failed, &new.failed) {
        (None, Some(why)) => news.push(format!("{vm} has failed: {why}")),
        (Some(_), None) => news.push(format!("{vm} is forgiven")),
        _ => {}
    }
    match (&old.migration, &new.migration) {
        (None, Some(to)) => {
            let (name, why) = (ledger.name(to.to), &to.reason);
            news.push(format!("{vm} is to migrate to {name}: {why}"));
        }
        (Some(_), None) if old.owner == new.owner => {
            news.push(format!("the migration of {vm} is off"));
        }
        _ => {}
    }
    news
}
