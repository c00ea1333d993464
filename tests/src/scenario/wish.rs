//! What operators ask for, and where.
//!
//! | words | what is asked |
//! |---|---|
//! | `operator enables web on n2` | HA for a VM that is defined on n2 |
//! | `operator disables web` | no HA for it any more |
//! | `operator starts web`, `stops web` | it is to run, or to be off |
//! | `operator migrates web to n3`, `relocates web to n3` | it is moved live, or stopped and started there |
//! | `operator begins maintenance of n2`, with `restarting` | it is emptied; what cannot move live is restarted elsewhere |
//! | `operator ends maintenance of n2` | it is used again |
//! | `operator disarms`, `disarms for 5min`, `arms` | HA is off, or on again |
//! | `operator adds n4`, `removes n3` | configured nodes |
//!
//! It is asked where the last words say, `on n1`, or else on the leader, or else on the first node that has an agent.

use super::words::{Names, length};
use crate::sim::clock::{MS, Time};
use crate::sim::node::id;
use steadfast_core::ids::VmId;
use steadfast_core::message::Change;
use steadfast_core::time::Millis;

/// A wish, and on which node it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub what: What,
    /// Where.
    pub on: Option<usize>,
}

/// What is asked for. Nodes and VMs are indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// HA for a VM.
    Enable(usize),
    /// No HA for it.
    Disable(usize),
    /// Anything that needs no more than names.
    Change(Box<Change>),
}

impl Wish {
    /// Reads a wish, without the word `operator`.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(words: &[&str], names: &Names) -> Result<Self, String> {
        let (words, on) = match words {
            [rest @ .., "on", node] => (rest, Some(names.node(node)?)),
            _ => (words, None),
        };
        let vm = |word: &str| names.vm(word).map(|_| VmId(word.into()));
        let node = |word: &str| names.node(word).map(id);
        let change = |change: Change| What::Change(Box::new(change));
        let what = match words {
            ["enables", name] => What::Enable(names.vm(name)?),
            ["disables", name] => What::Disable(names.vm(name)?),
            ["starts", name] => change(Change::StartVm(vm(name)?)),
            ["stops", name] => change(Change::StopVm(vm(name)?)),
            ["migrates", name, "to", to] => {
                change(Change::MigrateVm { vm: vm(name)?, to: node(to)? })
            }
            ["relocates", name, "to", to] => {
                change(Change::RelocateVm { vm: vm(name)?, to: node(to)? })
            }
            ["begins", "maintenance", "of", name, rest @ ..] if rest.len() < 2 => {
                let restart = rest == ["restarting"];
                let (node, reason) = (node(name)?, "a story".into());
                change(Change::BeginMaintenance { node, restart, reason })
            }
            ["ends", "maintenance", "of", name] => change(Change::EndMaintenance(node(name)?)),
            ["disarms"] => change(disarm(None)),
            ["disarms", "for", time] => change(disarm(Some(length(time)?))),
            ["arms"] => change(Change::Arm),
            ["adds", name] => change(Change::AddNode { node: node(name)?, name: (*name).into() }),
            ["removes", name] => change(Change::RemoveNode(node(name)?)),
            _ => {
                let words = words.join(" ");
                return Err(format!("not understood: {words}; see tests/src/scenario/wish.rs"));
            }
        };
        Ok(Self { what, on })
    }
}

fn disarm(limit: Option<Time>) -> Change {
    let limit = limit.map(|time| Millis(time / MS));
    Change::Disarm { limit, reason: "a story".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_told_on_a_node_or_on_any() {
        let names = Names { nodes: 3, vms: vec!["web".into()] };
        let parse = |text: &str| Wish::parse(&text.split(' ').collect::<Vec<_>>(), &names);
        assert_eq!(parse("enables web on n2"), Ok(Wish { what: What::Enable(0), on: Some(1) }));
        let stop = What::Change(Box::new(Change::StopVm(VmId("web".into()))));
        assert_eq!(parse("stops web"), Ok(Wish { what: stop, on: None }));
        assert!(parse("disarms for 5min").is_ok());
        for wrong in ["stops", "stops db", "migrates web to n9", "begins maintenance", "dances"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
