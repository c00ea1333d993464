//! The guests that a lab is about, and what must be true of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::api;
use crate::lab::{Lab, Node};
use crate::qemu::Guest;
use crate::{sys, wait};

const FILE: &str = "guests.json";
/// Guests of a lab that is not bare, with the number of their node. The last one has no HA.
const DEFAULT: [(&str, u8, bool); 4] =
    [("web", 2, true), ("db", 3, true), ("mail", 1, true), ("scratch", 1, false)];
pub const WITHOUT_HA: &str = "scratch";

/// Long enough for a fence agent that never answers and for a lease that must run out.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

impl Lab {
    /// The default guests, on their nodes, with HA where they have it.
    pub fn create_guests(&self) -> Result<()> {
        for (name, number, _) in DEFAULT {
            self.add_vm(name, self.placed(number))?;
        }
        wait::until("first words of the guests", Duration::from_secs(30), || {
            let up = DEFAULT
                .iter()
                .all(|(name, number, _)| self.console(name, self.placed(*number)).contains('.'));
            Ok(up.then_some(()))
        })?;
        if self.options.no_agent {
            return Ok(());
        }
        self.wait_for_leader()?;
        for (name, number, _) in DEFAULT.iter().filter(|(_, _, ha)| *ha) {
            self.enable_ha(name, self.placed(*number))?;
        }
        Ok(())
    }

    fn placed(&self, number: u8) -> Node {
        Node(number.min(self.options.nodes))
    }

    /// Puts a guest that runs on `node` under HA, and remembers that it is.
    pub fn enable_ha(&self, name: &str, node: Node) -> Result<()> {
        self.steadfast(node, &["vm", "enable", name])?;
        let mut names = self.ha_guests();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        sys::write(&self.run.join(FILE), serde_json::to_vec(&names)?)
    }

    /// Moves an HA guest by hand, with its HA off meanwhile.
    pub fn rehome(&self, name: &str, to: Node) -> Result<()> {
        self.steadfast(self.live_node()?, &["vm", "disable", name])?;
        for node in self.nodes().filter(|node| self.power(*node).is_some()) {
            self.remove_vm(name, node);
        }
        self.add_vm(name, to)?;
        self.enable_ha(name, to)
    }

    /// Names of the guests that were put under HA here.
    pub fn ha_guests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.run.join(FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub fn wait_for_leader(&self) -> Result<Node> {
        wait::until("election of a leader", RECOVERY_LIMIT, || Ok(api::leader(self)))
    }

    /// Until all nodes are on and in good standing, and every HA guest runs exactly once and is
    /// known as running. Gives the leader.
    pub fn wait_until_good(&self) -> Result<Node> {
        let mut reason = String::new();
        let outcome = wait::until("good state of the whole lab", RECOVERY_LIMIT, || {
            let found = self.what_is_wrong();
            reason = found.clone().err().unwrap_or_default();
            Ok(found.ok())
        });
        outcome.with_context(|| format!("the lab does not get into a good state: {reason}"))
    }

    /// The leader, or the first thing that is not as it should be.
    fn what_is_wrong(&self) -> Result<Node, String> {
        let leader = api::leader(self).ok_or("the agents do not agree on a leader")?;
        for node in self.nodes() {
            let status = api::status(self, node).map_err(|error| format!("{error:#}"))?;
            let fine =
                |status: &str| ["leader", "member"].contains(&status.to_lowercase().as_str());
            if let Some(ill) = status.nodes.iter().find(|other| !fine(&other.status)) {
                return Err(format!("{node} sees {} as {}", ill.name, ill.status));
            }
            if status.nodes.len() != usize::from(self.options.nodes) {
                return Err(format!("{node} knows {} nodes", status.nodes.len()));
            }
            for name in self.ha_guests() {
                match status.vms.iter().find(|vm| vm.name == name) {
                    Some(vm) if vm.state == "running" => {}
                    Some(vm) => return Err(format!("{node} sees {name} as {}", vm.state)),
                    None => return Err(format!("{node} does not know {name}")),
                }
            }
        }
        self.check_single().map_err(|error| format!("{error:#}"))?;
        Ok(leader)
    }

    /// Ground truth: every HA guest has exactly one process, and nobody else wrote its disk.
    pub fn check_single(&self) -> Result<()> {
        let mut homes: BTreeMap<String, Vec<Node>> = BTreeMap::new();
        for guest in self.guests() {
            homes.entry(guest.name).or_default().push(guest.node);
        }
        for name in self.ha_guests() {
            match homes.get(&name).map_or(&[][..], Vec::as_slice) {
                [_] => {}
                [] => bail!("{name} runs nowhere"),
                several => bail!("{name} runs {} times, on {several:?}", several.len()),
            }
            if let Some(node) = self.nodes().find(|node| self.console(&name, *node).contains('X')) {
                bail!("{name} on {node} found a foreign record on its disk: it ran twice");
            }
        }
        Ok(())
    }

    /// The guest without HA: its process, to be compared later.
    pub fn bystander(&self) -> Option<Guest> {
        self.homes(WITHOUT_HA).into_iter().next()
    }

    /// Whether the guest without HA was left alone: the same process, still ticking, if its node
    /// was not powered off since; nowhere else in any case.
    pub fn check_bystander(&self, before: &Guest, its_node_died: bool) -> Result<String> {
        let homes = self.homes(WITHOUT_HA);
        if its_node_died {
            if let Some(guest) = homes.first() {
                bail!("{WITHOUT_HA} has no HA, but was started on {}", guest.node);
            }
            return Ok(format!("{WITHOUT_HA} went down with {} and stayed down", before.node));
        }
        if homes != [before.clone()] {
            bail!("{WITHOUT_HA} was not left alone: it was {before:?}, now it is {homes:?}");
        }
        let length = || self.console(WITHOUT_HA, before.node).len();
        let earlier = length();
        wait::until("next tick of the guest without HA", Duration::from_secs(10), || {
            Ok((length() > earlier).then_some(()))
        })?;
        Ok(format!("{WITHOUT_HA} still runs on {} (same process)", before.node))
    }
}
