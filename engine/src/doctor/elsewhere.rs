//! HA VMs of this node that could not run on another one: they were enabled when they could, and their definition has changed since.

use super::Check;
use crate::enrol;
use roxmltree::{Document, Node};
use std::path::{Path, PathBuf};

const NAME: &str = "run elsewhere";
/// Where the kernel lists network devices.
const NETWORKS: &str = "/sys/class/net";

/// The definition of a VM's next start, or why libvirt does not tell it.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) vm: String,
    pub(crate) xml: Result<String, String>,
}

/// What a definition is judged by.
pub(crate) struct Surroundings<'a> {
    pub(crate) shared_paths: &'a [PathBuf],
    /// Why a path does not really lead to shared storage.
    pub(crate) is_local: &'a dyn Fn(&Path) -> Option<String>,
    /// Is there a network device of this name?
    pub(crate) has_network: &'a dyn Fn(&str) -> bool,
}

/// A network device of this host.
pub(crate) fn has_network(device: &str) -> bool {
    !device.contains('/') && Path::new(NETWORKS).join(device).exists()
}

/// Red for each VM that could not start elsewhere, yellow for what is only worse there; green if there is neither.
pub(crate) fn checks(definitions: &[Definition], around: &Surroundings<'_>) -> Vec<Check> {
    let found: Vec<Check> = definitions.iter().filter_map(|one| check(one, around)).collect();
    if !found.is_empty() {
        return found;
    }
    let text = match definitions.len() {
        0 => "no HA VM is on this node".into(),
        count => format!("nothing ties this node's {count} HA VMs to it"),
    };
    vec![Check::green(NAME, text)]
}

fn check(definition: &Definition, around: &Surroundings<'_>) -> Option<Check> {
    let Definition { vm, xml } = definition;
    let name = format!("{NAME}: {vm}");
    let xml = match xml {
        Ok(xml) => xml,
        Err(why) => {
            return Some(Check::yellow(&name, why, format!("see `virsh dumpxml {vm}`")));
        }
    };
    let mut ties: Vec<String> = Vec::new();
    let mut remarks: Vec<String> = Vec::new();
    match enrol::check(xml, around.shared_paths, around.is_local) {
        Ok(enrolled) => remarks.extend(enrolled.warnings),
        Err(refusals) => ties.extend(refusals.iter().map(ToString::to_string)),
    }
    if let Ok(document) = Document::parse(xml) {
        let domain = document.root_element();
        ties.extend(missing_networks(domain, around.has_network));
        remarks.extend(processor(domain));
    }
    if !ties.is_empty() {
        let remedy = format!("change it with `virsh edit {vm}`, or `steadfast vm disable {vm}`");
        return Some(Check::red(&name, ties.join("; "), remedy));
    }
    let remedy = "it starts elsewhere, but not with everything it has here";
    (!remarks.is_empty()).then(|| Check::yellow(&name, remarks.join("; "), remedy))
}

/// Bridges and devices that are not even here, where it runs: it could not be started again.
fn missing_networks(domain: Node<'_, '_>, has_network: &dyn Fn(&str) -> bool) -> Vec<String> {
    let interfaces = domain.descendants().filter(|node| node.has_tag_name("interface"));
    let device = |interface: Node<'_, '_>| {
        let source = interface.children().find(|node| node.has_tag_name("source"))?;
        let key = match interface.attribute("type")? {
            "bridge" => "bridge",
            "direct" => "dev",
            // libvirt's own networks are asked of libvirt when the VM starts.
            _ => return None,
        };
        let device = source.attribute(key)?;
        (!has_network(device)).then(|| format!("its network device {device} is not on this node"))
    };
    interfaces.filter_map(device).collect()
}

/// With the host's own processor it starts everywhere, and moves live only to the same one.
fn processor(domain: Node<'_, '_>) -> Option<String> {
    let cpu = domain.children().find(|node| node.has_tag_name("cpu"))?;
    let passed = matches!(cpu.attribute("mode"), Some("host-passthrough" | "maximum"));
    passed.then(|| {
        "its CPU model is the host's own: it moves live only to a node with the same processor; a named \
         model that all nodes have avoids that"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn xml(cpu: &str, disk: &str, bridge: &str) -> String {
        format!(
            "<domain type='kvm'><name>web</name><uuid>6c1a2f3e-0000-4000-8000-000000000001</uuid>\
             <memory unit='MiB'>512</memory><vcpu>1</vcpu>{cpu}<devices>\
             <disk type='file' device='disk'><source file='{disk}'/><target dev='vda'/></disk>\
             <interface type='bridge'><source bridge='{bridge}'/></interface></devices></domain>"
        )
    }

    fn told(definitions: &[Definition]) -> Vec<Check> {
        let shared = [PathBuf::from("/shared")];
        let around = Surroundings {
            shared_paths: &shared,
            is_local: &|_| None,
            has_network: &|name| name == "br0",
        };
        checks(definitions, &around)
    }

    fn of(xml: String) -> Check {
        told(&[Definition { vm: "web".into(), xml: Ok(xml) }]).remove(0)
    }

    #[test]
    fn a_vm_that_could_start_anywhere_is_green() {
        let check = of(xml("<cpu mode='custom'/>", "/shared/web.qcow2", "br0"));
        assert_eq!((check.level, check.name.as_str()), (Level::Green, NAME));
        assert_eq!(told(&[])[0].level, Level::Green);
    }

    #[test]
    fn a_local_disk_or_a_missing_bridge_is_red_and_says_which() {
        let check = of(xml("", "/var/lib/web.qcow2", "br7"));
        assert_eq!((check.level, check.name.as_str()), (Level::Red, "run elsewhere: web"));
        assert!(check.text.contains("disk vda (/var/lib/web.qcow2)"), "{}", check.text);
        assert!(check.text.contains("network device br7 is not on this node"), "{}", check.text);
    }

    #[test]
    fn what_is_only_worse_elsewhere_is_yellow_and_so_is_silence() {
        let check = of(xml("<cpu mode='host-passthrough'/>", "/shared/web.qcow2", "br0"));
        assert_eq!(check.level, Level::Yellow);
        assert!(check.text.contains("moves live only to a node with the same processor"));
        let silent = Definition { vm: "db".into(), xml: Err("libvirt does not answer".into()) };
        assert_eq!(told(&[silent])[0].level, Level::Yellow);
    }
}
