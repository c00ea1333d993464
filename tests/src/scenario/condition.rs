//! What a story waits for or expects.
//!
//! | words | true when |
//! |---|---|
//! | `n1 leads`, `nobody leads` | its term stands and it has not stepped down |
//! | `n2 status Full failure` | the leader shows it so |
//! | `n2 is on`, `off` | its kernel runs, or not |
//! | `n2 is admitted`, `evicted`, `proved`, `fenced`… | the ledger says so (proved: evicted, and runs nothing; then the proof's name) |
//! | `n2 is drained`, `avoided`, `trusted` | what proactive HA makes of it, by the ledger |
//! | `web runs`, `web runs on n2`, `web is down`, `all run` | ground truth, whatever anybody believes |
//! | `web belongs to n2` | the ledger names it the owner |
//! | `web was never down`, `web was down for less than 9s` | ground truth since the story began |
//! | `"some text"` | a line with it was logged since the last thing that was done |
//! | `no "some text"` | none was since the story began |
//! | `no reset`, `no eviction`, `no outage` | no node went down by itself or by others, none was evicted, no VM was down |

use super::stage::Stage;
use super::words::{Names, length};
use crate::sim::clock::Time;
use crate::sim::node::id;
use steadfast_core::ledger::Standing;
use steadfast_core::proactive::Level;

/// Something that is true or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// This node leads.
    Leads(usize),
    /// No node leads.
    NobodyLeads,
    /// The leader shows a node so.
    Status(usize, String),
    /// A node's kernel runs, or not.
    Power(usize, bool),
    /// A node's standing in the ledger, or the name of its proof.
    Standing(usize, String),
    /// A VM executes, there or anywhere.
    Runs(usize, Option<usize>),
    /// It executes nowhere.
    Down(usize),
    /// Every VM under HA executes.
    AllRun,
    /// The ledger names the owner.
    Belongs(usize, usize),
    /// It was down for less than this since the story began; for 0: never.
    DownLess(usize, Time),
    /// Logged since the last deed.
    Logged(String),
    /// Never logged.
    NeverLogged(String),
    /// No node went down by itself, by its watchdog or by a fence agent.
    NoReset,
    /// No node was evicted.
    NoEviction,
    /// No VM was down.
    NoOutage,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(words: &[&str], names: &Names) -> Result<Self, String> {
        let text = words.join(" ");
        if let Some(quoted) = quoted(&text) {
            return Ok(Self::Logged(quoted));
        }
        if let Some(quoted) = text.strip_prefix("no ").and_then(quoted) {
            return Ok(Self::NeverLogged(quoted));
        }
        Ok(match words {
            ["nobody", "leads"] => Self::NobodyLeads,
            [node, "leads"] => Self::Leads(names.node(node)?),
            [node, "status", status @ ..] => Self::Status(names.node(node)?, status.join(" ")),
            ["all", "run"] => Self::AllRun,
            ["no", "reset"] => Self::NoReset,
            ["no", "eviction"] => Self::NoEviction,
            ["no", "outage"] => Self::NoOutage,
            [vm, "runs"] => Self::Runs(names.vm(vm)?, None),
            [vm, "runs", "on", node] => Self::Runs(names.vm(vm)?, Some(names.node(node)?)),
            [vm, "belongs", "to", node] => Self::Belongs(names.vm(vm)?, names.node(node)?),
            [vm, "was", "never", "down"] => Self::DownLess(names.vm(vm)?, 0),
            [vm, "was", "down", "for", "less", "than", time] => {
                Self::DownLess(names.vm(vm)?, length(time)?)
            }
            [vm, "is", "down"] => Self::Down(names.vm(vm)?),
            [node, "is", "on"] => Self::Power(names.node(node)?, true),
            [node, "is", "off"] => Self::Power(names.node(node)?, false),
            [node, "is", standing @ ..] => Self::Standing(names.node(node)?, standing.join(" ")),
            _ => {
                return Err(format!("not understood: {text}; see tests/src/scenario/condition.rs"));
            }
        })
    }

    /// Is it true now?
    #[must_use]
    pub fn holds(&self, stage: &Stage) -> bool {
        let watch = &stage.watch;
        match self {
            Self::Leads(node) => watch.leader == Some(*node),
            Self::NobodyLeads => watch.leader.is_none(),
            Self::Status(node, words) => {
                watch.status[*node].is_some_and(|status| status.words() == words)
            }
            Self::Power(node, on) => stage.world.nodes[*node].boot.is_some() == *on,
            Self::Standing(node, words) => stage.has_standing(*node, words),
            Self::Runs(vm, node) => {
                watch.homes[*vm].is_some_and(|home| node.is_none_or(|n| n == home))
            }
            Self::Down(vm) => watch.homes[*vm].is_none(),
            Self::AllRun => stage.vms_under_ha().all(|vm| watch.homes[vm].is_some()),
            Self::Belongs(vm, node) => {
                let entry = watch.ledger.vms.get(&stage.world.vms[*vm]);
                entry.is_some_and(|entry| entry.owner == id(*node))
            }
            Self::DownLess(vm, limit) => {
                watch.down(*vm, stage.world.now) <= limit.saturating_sub(1)
            }
            Self::Logged(text) => watch.log.since_mark().any(|line| line.contains(text)),
            Self::NeverLogged(text) => !watch.log.lines().any(|line| line.contains(text)),
            Self::NoReset => watch.resets == 0,
            Self::NoEviction => watch.evictions == 0,
            Self::NoOutage => stage.vms_under_ha().all(|vm| watch.down(vm, stage.world.now) == 0),
        }
    }
}

impl Stage {
    fn has_standing(&self, node: usize, words: &str) -> bool {
        let entry = self.watch.ledger.nodes.get(&id(node));
        let level = entry.and_then(|entry| Some(entry.hold.as_ref()?.level));
        match words {
            "drained" => return level == Some(Level::Drain),
            "avoided" => return level == Some(Level::Avoid),
            "trusted" => return level.is_none(),
            _ => {}
        }
        match entry.map(|entry| &entry.standing) {
            Some(Standing::Admitted { .. }) => words == "admitted",
            Some(Standing::Evicted(eviction)) => match eviction.proof {
                Some(proof) => {
                    ["evicted", "proved"].contains(&words)
                        || super::log::plain(&format!("{proof:?}")) == words
                }
                None => words == "evicted",
            },
            _ => words == "new",
        }
    }

    /// Indices of VMs that are under HA by the ledger.
    pub fn vms_under_ha(&self) -> impl Iterator<Item = usize> {
        (0..self.world.vms.len())
            .filter(|vm| self.watch.ledger.vms.contains_key(&self.world.vms[*vm]))
    }
}

fn quoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.is_empty()).then(|| inner.to_string())
}
