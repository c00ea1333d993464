//! Guests as the kernel sees them: QEMU processes. This is the lab's ground truth; no API of ours
//! and no libvirt is asked.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use crate::lab::{Lab, Node};
use crate::libvirt;
use crate::sys::{self, Process};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    pub node: Node,
    pub name: String,
    pub uuid: String,
    pub process: Process,
}

impl Lab {
    /// Every guest's process in every node of the lab, by name and node.
    pub fn guests(&self) -> Vec<Guest> {
        let nodes: HashMap<PathBuf, Node> = self
            .nodes()
            .filter_map(|node| Some((self.power(node)?.namespace("pid")?, node)))
            .collect();
        let mut guests: Vec<Guest> = sys::pids()
            .into_iter()
            .filter_map(|pid| {
                let node = *nodes.get(&sys::namespace(pid, "pid")?)?;
                let (name, uuid) = identity(&command_line(pid)?)?;
                let process = Process::new(pid).filter(|process| process.is_alive())?;
                Some(Guest { node, name, uuid, process })
            })
            .collect();
        guests.sort_by(|one, other| (&one.name, one.node).cmp(&(&other.name, other.node)));
        guests
    }

    /// The processes of one guest: more than one is a split brain.
    pub fn homes(&self, name: &str) -> Vec<Guest> {
        let uuid = libvirt::uuid(name);
        self.guests().into_iter().filter(|guest| guest.uuid == uuid).collect()
    }
}

fn command_line(pid: i32) -> Option<Vec<String>> {
    // The name is looked at first: most processes are not QEMU, and this is asked often.
    if !sys::command_name(pid)?.starts_with("qemu-system") {
        return None;
    }
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into()).collect())
}

/// Name and UUID; libvirt's probes of QEMU have neither.
fn identity(words: &[String]) -> Option<(String, String)> {
    let value = |option: &str| {
        let position = words.iter().position(|word| word == option)?;
        words.get(position + 1).cloned()
    };
    let name = value("-name")?;
    let name = name.split(',').find_map(|part| part.strip_prefix("guest=")).unwrap_or(&name);
    Some((name.to_owned(), value("-uuid")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_from_a_probe() {
        let line = |text: &str| -> Vec<String> { text.split(' ').map(String::from).collect() };
        let guest = line("/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -uuid u-1");
        assert_eq!(identity(&guest), Some(("web".into(), "u-1".into())));
        assert_eq!(identity(&line("/usr/bin/qemu-system-x86_64 -S -machine none")), None);
    }
}
