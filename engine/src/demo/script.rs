//! What can be done to a demonstration, and when: buttons, commands and scripts say the same words.

use super::world::State;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use steadfast_core::ids::NodeId;

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Pull a node's plug; it stays off.
    Kill(String),
    /// Switch it on.
    Boot(String),
    /// Unplug its networks: the control network, and that of the verification IPs.
    Cut(String),
    /// Plug them in.
    Join(String),
    /// Its storage answers no more.
    Stall(String),
    /// Its storage answers.
    Heal(String),
    /// Storage answers nobody any more.
    StallAll,
    /// Storage answers everybody.
    HealStorage,
    /// Everything is plugged in, answers and has power.
    HealAll,
}

const WORDS: &str = "kill:NODE, boot:NODE, cut:NODE, join:NODE, stall:NODE, heal:NODE, stall, heal";

impl Deed {
    /// The deed of this name on a node.
    #[must_use]
    pub fn on(word: &str, node: &str) -> Option<Self> {
        let node = node.to_owned();
        Some(match word {
            "kill" => Self::Kill(node),
            "boot" => Self::Boot(node),
            "cut" => Self::Cut(node),
            "join" => Self::Join(node),
            "stall" => Self::Stall(node),
            "heal" => Self::Heal(node),
            _ => return None,
        })
    }

    /// The node that it is done to.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Kill(node)
            | Self::Boot(node)
            | Self::Cut(node)
            | Self::Join(node)
            | Self::Stall(node)
            | Self::Heal(node) => Some(node),
            Self::StallAll | Self::HealStorage | Self::HealAll => None,
        }
    }

    pub(super) fn apply(&self, state: &mut State, node: Option<NodeId>) {
        let nodes = node.map_or_else(|| state.ids(), |node| vec![node]);
        for node in nodes {
            match self {
                Self::Kill(_) => state.pull(node, "its plug was pulled"),
                Self::Boot(_) => state.boot_slowly(node),
                Self::Cut(_) => state.plug(node, false),
                Self::Join(_) => state.plug(node, true),
                Self::Stall(_) | Self::StallAll => state.stall(node),
                Self::Heal(_) | Self::HealStorage => state.open(node),
                Self::HealAll => {
                    state.open(node);
                    state.plug(node, true);
                    state.boot_slowly(node);
                }
            }
        }
    }
}

impl FromStr for Deed {
    type Err = String;

    /// `kill:n2` or `kill n2`; `stall` and `heal` without a node are for all.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is nothing that can be done; try: {WORDS}");
        let mut words = text.split([':', ' ']).filter(|word| !word.is_empty());
        let deed = match (words.next(), words.next()) {
            (Some("stall"), None) => Some(Self::StallAll),
            (Some("heal"), None) => Some(Self::HealAll),
            (Some(word), Some(node)) => Self::on(word, node),
            _ => None,
        };
        deed.filter(|_| words.next().is_none()).ok_or_else(refused)
    }
}

/// Deeds and when they are done, counted from when the cluster is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script(pub Vec<(Duration, Deed)>);

impl FromStr for Script {
    type Err = String;

    /// `kill:n2@5s,boot:n2@20s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut deeds = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (deed, at) = part
                .trim()
                .split_once('@')
                .ok_or_else(|| format!("{part:?} does not say when; write e.g. kill:n2@5s"))?;
            let seconds = at.trim_end_matches('s').parse::<f64>().ok();
            let at = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            deeds.push((at.ok_or_else(|| format!("{part:?}: write e.g. @5s"))?, deed.parse()?));
        }
        deeds.sort_by_key(|(at, _)| *at);
        Ok(Self(deeds))
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(node) => write!(f, "kill {node}"),
            Self::Boot(node) => write!(f, "boot {node}"),
            Self::Cut(node) => write!(f, "cut {node}"),
            Self::Join(node) => write!(f, "join {node}"),
            Self::Stall(node) => write!(f, "stall {node}"),
            Self::Heal(node) => write!(f, "heal {node}"),
            Self::StallAll => f.write_str("stall"),
            Self::HealStorage => f.write_str("heal storage"),
            Self::HealAll => f.write_str("heal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_in_the_order_of_their_times() {
        let script: Script = "boot:n2@20s, kill:n2@5s,stall@7.5".parse().expect("understood");
        let expected = [
            (Duration::from_secs(5), Deed::Kill("n2".into())),
            (Duration::from_millis(7_500), Deed::StallAll),
            (Duration::from_secs(20), Deed::Boot("n2".into())),
        ];
        assert_eq!(script.0, expected);
    }

    #[test]
    fn what_is_not_understood_says_what_would_be() {
        for wrong in ["kill", "kill:n2:n3", "explode:n2", ""] {
            let refused = wrong.parse::<Deed>().expect_err("refused");
            assert!(refused.contains("kill:NODE"), "{refused}");
        }
        assert!("kill:n2".parse::<Script>().expect_err("no time").contains("@5s"));
        assert_eq!("heal".parse(), Ok(Deed::HealAll));
        assert_eq!("heal n1".parse(), Ok(Deed::Heal("n1".into())));
    }
}
