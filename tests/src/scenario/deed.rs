//! What can happen in a story.
//!
//! | words | what happens |
//! |---|---|
//! | `power n2 off`, `power n2 on` | the plug is pulled, or the node is switched on |
//! | `host n2 shuts down`, `host n2 reboots` | somebody shuts it down in order; it is off, or back after the time of `reboots take` |
//! | `network n2 down`, `up` | its control network; `all` is a switch without power |
//! | `link n1->n3 down`, `up` | n3 does not hear n1 |
//! | `split n1 \| n2 n3` | sides that do not hear each other (undone by `network all up`) |
//! | `messages on the way reach n2 n3` | when the network breaks next, these get what the other side had sent |
//! | `lag n2 1s`, `lag n2 0s` | messages take so long to reach it |
//! | `corosync n2 dies`, `returns` | its corosync |
//! | `messages of n2 vanish`, `arrive` | corosync accepts and loses what it sends |
//! | `verification n2 fails`, `works` | its verification IPs |
//! | `storage n2 hangs`, `fails`, `works` | its storage |
//! | `storage n2 slow 400ms`, `writes late 3s`, `reads stale` | each stage of its reads and writes, or of its writes, takes up to so long; a cache serves old pages |
//! | `libvirtd n2 restarts` | it is back after 3 s, or after the `for` |
//! | `pause n2 12s`, `pause agent n2 12s`, `suspend n2 1min` | the node, its agent, or the whole hardware stands still |
//! | `agent n2 crashes`, `crashes as a ghost`, `crashes after 3 actions` | systemd starts it after 2 s, or after the `for` |
//! | `watchdog n2 fails`, `works` | somebody else has opened it |
//! | `guest web dies`, `shuts down`, `ignores ACPI`, `listens` | its process; what it does when asked to shut down |
//! | `guest web is moved by hand to n2` | somebody moves its process, behind our back |
//! | `starts fail`, `fail 2 times`, `hang`, `take 40s`, `work`, each with `of web` and `on n2` | libvirt, of this VM, on this node |
//! | `migrations of web fail 2 times` | live ones, the next |
//! | `stops hang on n2`, `stops work on n2` | a process in the kernel |
//! | `fence agents of n2 fail`, `hang`, `cut and hang`, `take 20s`, `work` | the device |
//! | `node priority of n2 is 7` | another generation of the policy is staged there; 0 at the beginning |
//! | `equipment of n2 at 900` | what an honest risk policy says of it, 0 to 1000 |
//! | `risk policies of n2 lie`, `flicker`, `are silent`, `are honest` | they say 1000; the truth and its contrary; nothing |
//! | `operator stops web` and the like | see `wish.rs` |
//! | `heal` | every fault is over, every node is on |
//!
//! What can be undone can be `for` a time: `network n2 down for 20s`.

use super::wish::Wish;
use super::words::{Names, length};
use crate::sim::clock::{SECOND, Time};
use crate::sim::risk::Candour;
use crate::sim::script::{FenceWill, StartWill};

/// Something happens. Nodes are bits, or one index; VMs are indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Nodes are switched on, or lose power.
    Power(u64, bool),
    /// A host is shut down in order; it comes back by itself, or not.
    HostStops(usize, bool),
    /// Their control network works, or not.
    Network(u64, bool),
    /// The second hears the first, or not.
    Link(usize, usize, bool),
    /// Sides that do not hear each other.
    Split(Vec<u64>),
    /// Who gets what is on its way when the network breaks.
    Receivers(u64),
    /// Messages to these take so long.
    Lag(u64, Time),
    /// Their corosync runs, or not.
    Corosync(u64, bool),
    /// Corosync sends what they give it, or not.
    Messages(u64, bool),
    /// They reach their verification IPs, or not.
    Verification(u64, bool),
    /// Their storage.
    Storage(u64, StorageWill),
    /// They stand still; the agent alone, or all processes.
    Pause(u64, Time, Still),
    /// An agent dies and comes back.
    Agent(usize, Time, Death),
    /// Their watchdogs can be opened and fed, or not.
    Watchdog(u64, bool),
    /// Their libvirtd is away for so long.
    Libvirt(u64, Time),
    /// A guest's process dies.
    GuestDies(usize),
    /// A guest shuts itself down.
    GuestShutsDown(usize),
    /// Somebody moves a guest's process to a node, behind our back.
    ByHand(usize, usize),
    /// A guest shuts down when asked to, or not.
    Listens(usize, bool),
    /// How starts behave; `None`: like any.
    Starts(Option<usize>, Option<usize>, Option<StartWill>),
    /// So many live migrations of a VM fail.
    MigrationsFail(usize, u32),
    /// Destroyed processes hang on these nodes, or not.
    StopsHang(u64, bool),
    /// How fence agents of these nodes behave; `None`: like any.
    FenceAgents(u64, Option<FenceWill>),
    /// Another generation of the node-priority policy is staged on them.
    NodePriority(u64, u64),
    /// Their equipment is so near to its end.
    Risk(u64, u16),
    /// How risk policies speak of them.
    RiskPolicies(u64, Candour),
    /// An operator wants something.
    Operator(Wish),
    /// Everything is well again.
    Heal,
}

/// How storage behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageWill {
    /// As it should.
    Works,
    /// Nothing ends.
    Hangs,
    /// Everything ends with an error.
    Fails,
    /// Each stage takes up to so much longer.
    Slow(Time),
    /// Each stage of a write does.
    LateWrites(Time),
    /// A cache serves old pages.
    Stale,
}

/// What stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still {
    /// The agent's process.
    Agent,
    /// Every process; hardware goes on.
    Node,
    /// Everything, the watchdog too.
    Hardware,
}

/// How an agent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Corosync sees it at once.
    Plain,
    /// Corosync never sees it.
    Ghost,
    /// In the middle of its next step, after so many actions.
    MidStep(usize),
}

/// libvirtd is back after this.
const LIBVIRT: Time = 3 * SECOND;
/// systemd starts an agent again after this.
const RESTART: Time = 2 * SECOND;

impl Deed {
    /// Reads a deed.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(words: &[&str], names: &Names) -> Result<Self, String> {
        let deed = match words {
            ["heal"] => Self::Heal,
            ["guest", vm, "dies"] => Self::GuestDies(names.vm(vm)?),
            ["guest", vm, "shuts", "down"] => Self::GuestShutsDown(names.vm(vm)?),
            ["guest", vm, "is", "moved", "by", "hand", "to", node] => {
                Self::ByHand(names.vm(vm)?, names.node(node)?)
            }
            ["guest", vm, "ignores", "ACPI"] => Self::Listens(names.vm(vm)?, false),
            ["guest", vm, "listens"] => Self::Listens(names.vm(vm)?, true),
            ["host", node, "shuts", "down"] => Self::HostStops(names.node(node)?, false),
            ["host", node, "reboots"] => Self::HostStops(names.node(node)?, true),
            ["link", link, state @ ("up" | "down")] => {
                let (from, to) = link.split_once("->").ok_or("write link n1->n3 down")?;
                Self::Link(names.node(from)?, names.node(to)?, *state == "up")
            }
            ["storage", nodes @ .., "slow", time] => {
                Self::Storage(names.mask(nodes)?, StorageWill::Slow(length(time)?))
            }
            ["storage", nodes @ .., "writes", "late", time] => {
                Self::Storage(names.mask(nodes)?, StorageWill::LateWrites(length(time)?))
            }
            ["storage", nodes @ .., "reads", "stale"] => {
                Self::Storage(names.mask(nodes)?, StorageWill::Stale)
            }
            ["libvirtd", nodes @ .., "restarts"] => Self::Libvirt(names.mask(nodes)?, LIBVIRT),
            ["split", sides @ ..] => Self::Split(split(sides, names)?),
            ["lag", nodes @ .., time] => Self::Lag(names.mask(nodes)?, length(time)?),
            ["pause", "agent", nodes @ .., time] => {
                Self::Pause(names.mask(nodes)?, length(time)?, Still::Agent)
            }
            ["pause", nodes @ .., time] => {
                Self::Pause(names.mask(nodes)?, length(time)?, Still::Node)
            }
            ["suspend", nodes @ .., time] => {
                Self::Pause(names.mask(nodes)?, length(time)?, Still::Hardware)
            }
            ["agent", node, "crashes", rest @ ..] => agent(names.node(node)?, rest)?,
            ["operator", wish @ ..] => Self::Operator(Wish::parse(wish, names)?),
            ["starts", rest @ ..] => starts(rest, names)?,
            ["migrations", "of", vm, "fail", times, "times"] => {
                Self::MigrationsFail(names.vm(vm)?, count(times)?)
            }
            ["node", "priority", "of", nodes @ .., "is", generation] => {
                Self::NodePriority(names.mask(nodes)?, count(generation)?)
            }
            ["equipment", "of", nodes @ .., "at", score] => {
                Self::Risk(names.mask(nodes)?, count(score)?)
            }
            ["risk", "policies", "of", nodes @ .., "are", "silent"] => {
                Self::RiskPolicies(names.mask(nodes)?, Candour::Silent)
            }
            ["risk", "policies", "of", nodes @ .., "are", "honest"] => {
                Self::RiskPolicies(names.mask(nodes)?, Candour::Honest)
            }
            ["risk", "policies", "of", nodes @ .., "lie"] => {
                Self::RiskPolicies(names.mask(nodes)?, Candour::Lying)
            }
            ["risk", "policies", "of", nodes @ .., "flicker"] => {
                Self::RiskPolicies(names.mask(nodes)?, Candour::Flickering)
            }
            ["stops", "hang", "on", nodes @ ..] => Self::StopsHang(names.mask(nodes)?, true),
            ["stops", "work", "on", nodes @ ..] => Self::StopsHang(names.mask(nodes)?, false),
            ["fence", "agents", "of", rest @ ..] => fence_agents(rest, names)?,
            ["messages", "on", "the", "way", "reach", nodes @ ..] => {
                Self::Receivers(names.mask(nodes)?)
            }
            [part, nodes @ .., state] => switch(part, nodes, state, names)?,
            _ => return Err(unknown(words)),
        };
        Ok(deed)
    }

    /// What undoes it, if anything does.
    #[must_use]
    pub fn opposite(&self) -> Option<Self> {
        Some(match self {
            Self::Power(nodes, on) => Self::Power(*nodes, !on),
            Self::Network(nodes, up) => Self::Network(*nodes, !up),
            Self::Split(sides) => Self::Network(sides.iter().fold(0, |all, side| all | side), true),
            Self::Lag(nodes, _) => Self::Lag(*nodes, 0),
            Self::Corosync(nodes, runs) => Self::Corosync(*nodes, !runs),
            Self::Messages(nodes, arrive) => Self::Messages(*nodes, !arrive),
            Self::Verification(nodes, works) => Self::Verification(*nodes, !works),
            Self::Storage(nodes, _) => Self::Storage(*nodes, StorageWill::Works),
            Self::Watchdog(nodes, works) => Self::Watchdog(*nodes, !works),
            Self::Starts(node, vm, Some(_)) => Self::Starts(*node, *vm, None),
            Self::StopsHang(nodes, hang) => Self::StopsHang(*nodes, !hang),
            Self::Listens(vm, listens) => Self::Listens(*vm, !listens),
            Self::FenceAgents(nodes, Some(_)) => Self::FenceAgents(*nodes, None),
            Self::NodePriority(nodes, _) => Self::NodePriority(*nodes, 0),
            Self::Risk(nodes, _) => Self::Risk(*nodes, 0),
            Self::RiskPolicies(nodes, _) => Self::RiskPolicies(*nodes, Candour::Honest),
            Self::Link(from, to, up) => Self::Link(*from, *to, !up),
            // Their `for` is how long they stay away.
            Self::Agent(..) | Self::Libvirt(..) => self.clone(),
            _ => return None,
        })
    }
}

fn unknown(words: &[&str]) -> String {
    format!("not understood: {}; see tests/src/scenario/deed.rs", words.join(" "))
}

/// `PART NODES STATE`, which is or is not as it should be.
fn switch(part: &str, nodes: &[&str], state: &str, names: &Names) -> Result<Deed, String> {
    if part == "messages" && nodes.first() == Some(&"of") {
        let nodes = names.mask(&nodes[1..])?;
        return match state {
            "vanish" => Ok(Deed::Messages(nodes, false)),
            "arrive" => Ok(Deed::Messages(nodes, true)),
            _ => Err(unknown(&[part, state])),
        };
    }
    let wrong = || unknown(&[&[part], nodes, &[state]].concat());
    let known = ["power", "network", "corosync", "verification", "watchdog", "storage"];
    if !known.contains(&part) {
        return Err(wrong());
    }
    let mask = names.mask(nodes)?;
    Ok(match (part, state) {
        ("power", "on" | "off") => Deed::Power(mask, state == "on"),
        ("network", "up" | "down") => Deed::Network(mask, state == "up"),
        ("corosync", "returns" | "dies") => Deed::Corosync(mask, state == "returns"),
        ("verification", "works" | "fails") => Deed::Verification(mask, state == "works"),
        ("watchdog", "works" | "fails") => Deed::Watchdog(mask, state == "works"),
        ("storage", "works") => Deed::Storage(mask, StorageWill::Works),
        ("storage", "hangs") => Deed::Storage(mask, StorageWill::Hangs),
        ("storage", "fails") => Deed::Storage(mask, StorageWill::Fails),
        _ => return Err(wrong()),
    })
}

fn split(words: &[&str], names: &Names) -> Result<Vec<u64>, String> {
    let sides: Vec<u64> =
        words.split(|word| *word == "|").map(|side| names.mask(side)).collect::<Result<_, _>>()?;
    if sides.len() < 2 {
        return Err("a split has two sides or more: n1 | n2 n3".into());
    }
    Ok(sides)
}

fn agent(node: usize, rest: &[&str]) -> Result<Deed, String> {
    let death = match rest {
        [] => Death::Plain,
        ["as", "a", "ghost"] => Death::Ghost,
        ["after", count, "actions"] => Death::MidStep(self::count(count)?),
        _ => return Err(unknown(rest)),
    };
    Ok(Deed::Agent(node, RESTART, death))
}

fn count<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("not a number: {word}"))
}

fn starts(words: &[&str], names: &Names) -> Result<Deed, String> {
    let (mut node, mut vm, mut words) = (None, None, words);
    if let ["of", name, rest @ ..] = words {
        (vm, words) = (Some(names.vm(name)?), rest);
    }
    loop {
        match words {
            [rest @ .., "on", name] => (node, words) = (Some(names.node(name)?), rest),
            [rest @ .., "of", name] => (vm, words) = (Some(names.vm(name)?), rest),
            _ => break,
        }
    }
    let will = match words {
        ["work"] => None,
        ["fail"] => Some(StartWill::Fails),
        ["fail", times, "times"] => Some(StartWill::FailsTimes(count(times)?)),
        ["hang"] => Some(StartWill::Hangs),
        ["take", time] => Some(StartWill::Takes(length(time)?)),
        _ => return Err(unknown(words)),
    };
    Ok(Deed::Starts(node, vm, will))
}

fn fence_agents(words: &[&str], names: &Names) -> Result<Deed, String> {
    let (nodes, will) = match words {
        [nodes @ .., "work"] => (nodes, None),
        [nodes @ .., "fail"] => (nodes, Some(FenceWill::Fails)),
        [nodes @ .., "cut", "and", "hang"] => (nodes, Some(FenceWill::CutsAndHangs)),
        [nodes @ .., "hang"] => (nodes, Some(FenceWill::Hangs)),
        [nodes @ .., "take", time] => (nodes, Some(FenceWill::Takes(length(time)?))),
        _ => return Err(unknown(words)),
    };
    Ok(Deed::FenceAgents(names.mask(nodes)?, will))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Deed, String> {
        let names = Names { nodes: 3, vms: vec!["web".into()] };
        Deed::parse(&text.split_whitespace().collect::<Vec<_>>(), &names)
    }

    #[test]
    fn deeds_read_like_sentences() {
        assert_eq!(parse("power n2 off"), Ok(Deed::Power(0b10, false)));
        assert_eq!(parse("network all down"), Ok(Deed::Network(0b111, false)));
        assert_eq!(parse("split n1 | n2 n3"), Ok(Deed::Split(vec![0b1, 0b110])));
        assert_eq!(parse("messages of n1 n2 vanish"), Ok(Deed::Messages(0b11, false)));
        assert_eq!(parse("storage n3 hangs"), Ok(Deed::Storage(0b100, StorageWill::Hangs)));
        let starts = Deed::Starts(Some(2), Some(0), Some(StartWill::Fails));
        assert_eq!(parse("starts fail of web on n3"), Ok(starts.clone()));
        assert_eq!(parse("starts of web fail on n3"), Ok(starts));
        let twice = Deed::Starts(None, Some(0), Some(StartWill::FailsTimes(2)));
        assert_eq!(parse("starts of web fail 2 times"), Ok(twice));
        assert_eq!(parse("host n3 reboots"), Ok(Deed::HostStops(2, true)));
        let migrations = Deed::MigrationsFail(0, 3);
        assert_eq!(parse("migrations of web fail 3 times"), Ok(migrations));
        let fence = Deed::FenceAgents(0b10, Some(FenceWill::CutsAndHangs));
        assert_eq!(parse("fence agents of n2 cut and hang"), Ok(fence));
        assert_eq!(
            parse("agent n1 crashes after 3 actions"),
            Ok(Deed::Agent(0, RESTART, Death::MidStep(3)))
        );
    }

    #[test]
    fn what_makes_no_sense_is_no_deed() {
        for text in ["", "power n2", "power n2 up", "power off", "split n1 n2", "lag n1", "storage"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_undone_twice_is_done_again() {
        let deed = parse("network n2 down").unwrap();
        assert_eq!(deed.opposite().and_then(|undone| undone.opposite()), Some(deed));
    }
}
