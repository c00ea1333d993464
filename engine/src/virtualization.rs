//! Is this machine a virtual one? Then somebody may pause it from outside, its clock and its watchdog with it, and rule 4 of
//! PROTOCOL section 5 is refused unless the operator states that nobody does.

use std::fs;
use std::path::Path;

/// Vendors and products of virtual machines, as their firmware names them.
const PRODUCTS: [&str; 12] = [
    "QEMU",
    "KVM",
    "VMware",
    "VirtualBox",
    "innotek",
    "Xen",
    "Bochs",
    "Parallels",
    "Virtual Machine",
    "Google Compute Engine",
    "OpenStack",
    "Amazon EC2",
];

/// What shows that this machine is a virtual one; `None`: nothing does.
#[must_use]
pub fn evidence() -> Option<String> {
    evidence_below(Path::new("/"))
}

fn evidence_below(root: &Path) -> Option<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    if has_flag(&read("proc/cpuinfo")) {
        return Some("the CPU has the flag `hypervisor` (/proc/cpuinfo)".into());
    }
    // A CPU need not say so (ARM has no such flag); its firmware or its kernel does.
    let kind = read("sys/hypervisor/type");
    if !kind.trim().is_empty() {
        return Some(format!("/sys/hypervisor/type is {}", kind.trim()));
    }
    if root.join("proc/device-tree/hypervisor").exists() {
        return Some("the device tree has a hypervisor".into());
    }
    ["sys_vendor", "product_name"].iter().find_map(|field| {
        let value = read(&format!("sys/class/dmi/id/{field}"));
        let value = value.trim();
        // A bare-metal instance of a cloud carries the cloud's name too.
        let known = PRODUCTS.iter().any(|product| value.starts_with(product));
        let is_metal = read("sys/class/dmi/id/product_name").contains(".metal");
        (known && !is_metal).then(|| format!("/sys/class/dmi/id/{field} is {value}"))
    })
}

fn has_flag(cpuinfo: &str) -> bool {
    let is_flags = |line: &&str| line.starts_with("flags") || line.starts_with("Features");
    let line = cpuinfo.lines().find(is_flags).unwrap_or_default();
    line.split_ascii_whitespace().any(|flag| flag == "hypervisor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("steadfast-virt-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_flag_of_the_cpu_shows_it() {
        let text = "processor : 0\nflags\t\t: fpu sse2 hypervisor lahf_lm\n";
        let root = Root::new("flag", &[("proc/cpuinfo", text)]);
        assert!(evidence_below(&root.0).is_some_and(|text| text.contains("hypervisor")));
    }

    #[test]
    fn firmware_shows_it_where_the_cpu_does_not() {
        let cpu = ("proc/cpuinfo", "Features : fp asimd\n");
        let root = Root::new("dmi", &[cpu, ("sys/class/dmi/id/sys_vendor", "QEMU\n")]);
        assert_eq!(
            evidence_below(&root.0).as_deref(),
            Some("/sys/class/dmi/id/sys_vendor is QEMU")
        );
    }

    #[test]
    fn bare_metal_shows_nothing() {
        let cpu = ("proc/cpuinfo", "flags : fpu sse2\n");
        let vendor = ("sys/class/dmi/id/sys_vendor", "Dell Inc.\n");
        let root = Root::new("metal", &[cpu, vendor]);
        assert_eq!(evidence_below(&root.0), None);
        let vendor = ("sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
        let product = ("sys/class/dmi/id/product_name", "c5.metal\n");
        let root = Root::new("cloud", &[cpu, vendor, product]);
        assert_eq!(evidence_below(&root.0), None);
    }
}
