//! A VM as a story declares it: `vm web on n1`, and then
//!
//! | words | default |
//! |---|---|
//! | `priority=900` | 500 |
//! | `memory=2048` (MiB), `vcpus=2` | 1024, 1 |
//! | `restarts=0`, `relocations=1` | 3, 3 |
//! | `shutdown=stop`: it stays off when its guest shuts itself down | it is started again |
//! | `after=db,mail`: those run before it is started | any time |
//! | `prefers=n1:2,n2:1`, `strict` (nowhere else), `stays` (does not go back by itself) | no matter where |
//! | `together=shop`, `apart=db` | no matter with whom |
//! | `without HA` | under HA when the story begins |

use std::collections::{BTreeMap, BTreeSet};
use steadfast_core::ids::{Digest, VmId};
use steadfast_core::ledger::{OnShutdown, VmSpec};

/// A VM as a story declares it.
#[derive(Debug, Clone)]
pub struct VmSetup {
    /// What its operator says of it. Its name is its UUID in this world.
    pub spec: VmSpec,
    /// Where it runs when the story begins.
    pub home: usize,
    /// Under HA when the story begins.
    pub ha: bool,
}

impl VmSetup {
    /// Reads what comes after its home.
    ///
    /// # Errors
    /// If a word is not understood.
    pub fn parse(name: &str, home: usize, rest: &[&str]) -> Result<Self, String> {
        let spec = VmSpec::new(VmId(name.into()), name, Digest::of(name.as_bytes()));
        let spec = VmSpec { memory_mib: 1_024, ..spec };
        let mut vm = Self { spec, home, ha: true };
        for word in rest {
            vm.take(word).ok_or_else(|| format!("not understood of {name}: {word}"))?;
        }
        Ok(vm)
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let spec = &mut self.spec;
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "priority" => spec.priority = value.parse().ok()?,
            "memory" => spec.memory_mib = value.parse().ok()?,
            "vcpus" => spec.vcpus = value.parse().ok()?,
            "restarts" => spec.max_restarts = value.parse().ok()?,
            "relocations" => spec.max_relocations = value.parse().ok()?,
            "shutdown" if value == "stop" => spec.on_shutdown = OnShutdown::Stop,
            "after" => spec.after = list(value).map(VmId).collect(),
            "prefers" => spec.affinity.nodes = preferences(value)?,
            "strict" => spec.affinity.strict = true,
            "stays" => spec.affinity.stays = true,
            "together" => spec.affinity.together = list(value).collect::<BTreeSet<_>>(),
            "apart" => spec.affinity.apart = list(value).collect::<BTreeSet<_>>(),
            "without" => self.ha = false,
            "HA" if !self.ha => {}
            _ => return None,
        }
        Some(())
    }
}

fn list(value: &str) -> impl Iterator<Item = String> + '_ {
    value.split(',').map(String::from)
}

fn preferences(value: &str) -> Option<BTreeMap<String, u32>> {
    let one = |word: &str| {
        let (node, weight) = word.split_once(':').unwrap_or((word, "0"));
        Some((node.to_string(), weight.parse().ok()?))
    };
    value.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_what_its_words_say() {
        let words = ["priority=9", "after=db,mail", "prefers=n1:2,n2", "strict", "shutdown=stop"];
        let vm = VmSetup::parse("web", 0, &words).unwrap();
        assert_eq!(vm.spec.priority, 9);
        assert_eq!(vm.spec.after.len(), 2);
        assert_eq!(vm.spec.affinity.preference("n1"), 3);
        assert_eq!(vm.spec.affinity.preference("n2"), 1);
        assert!(!vm.spec.affinity.allows("n3"));
        assert_eq!(vm.spec.on_shutdown, OnShutdown::Stop);
        assert!(VmSetup::parse("web", 0, &["priority=high"]).is_err());
        assert!(VmSetup::parse("web", 0, &["HA"]).is_err());
    }
}
