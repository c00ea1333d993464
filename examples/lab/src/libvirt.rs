//! libvirt's configuration in a node, and the lab's guests.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::{Lab, Node, SHARED, fnv};
use crate::sys;

/// The guest's program, assembled when a lab comes up.
const GUEST_SOURCE: &str = include_str!("../guest/haguest.S");
const GUEST_ROM: &str = "guest/haguest.rom";
const DISK_BYTES: u64 = 1 << 20;
/// Sector 1 is all that the guest uses.
const RECORD_OFFSET: u64 = 512;
/// The daemon's own log, in a node's `/var/log`.
pub const LOG: &str = "libvirt/libvirtd.log";
/// Debian's libvirt does not start without this account, although `qemu.conf` names another one. Only the package
/// `libvirt-daemon-system` makes it, and that one would start libvirt on the machine itself.
const USER: &str = "libvirt-qemu";
/// Debian's reserved number for it.
const USER_NUMBER: u32 = 64055;

/// Fresh settings: nothing of the machine's own libvirt, least of all its guests.
pub fn configure(lab: &Lab, node: Node) -> Result<()> {
    let folder = lab.home(node).join("etc/libvirt");
    sys::make_dir(&folder)?;
    // Without a host UUID of its own, a node would refuse migrations as "same host". They come over TCP without a
    // password: nobody else is on the lab's network.
    let daemon = format!(
        "auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nunix_sock_group = \"root\"\n\
         host_uuid = \"00000000-0000-4000-8000-{:012}\"\n\
         listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"{}\"\nauth_tcp = \"none\"\n\
         log_outputs = \"3:file:/var/log/{LOG}\"\n",
        node.0,
        node.address(0)
    );
    // No control groups, namespaces or security drivers: the node has none. QEMU's own output goes
    // to a file, so that no virtlogd is needed.
    let qemu = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\n\
                cgroup_controllers = [ ]\nnamespaces = [ ]\nstdio_handler = \"file\"\n\
                dynamic_ownership = 0\nremember_owner = 0\n";
    sys::write(&folder.join("libvirtd.conf"), daemon)?;
    sys::write(&folder.join("qemu.conf"), qemu)
}

/// In the node's own `/etc` alone; the machine's accounts stay as they are.
pub fn ensure_user(etc: &Path) -> Result<()> {
    let lines = [
        (
            "passwd",
            format!("{USER}:x:{USER_NUMBER}:{USER_NUMBER}::/nonexistent:/usr/sbin/nologin\n"),
        ),
        ("group", format!("{USER}:x:{USER_NUMBER}:\n")),
    ];
    for (name, line) in lines {
        let path = etc.join(name);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(text) = with_account(&text, &line) {
            sys::write(&path, text)?;
        }
    }
    Ok(())
}

/// An account file's text with one more line, unless it has that name already.
fn with_account(text: &str, line: &str) -> Option<String> {
    let of = |line: &str| line.split(':').next().map(str::to_owned);
    let known = text.lines().any(|other| of(other) == of(line));
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    (!known).then(|| format!("{text}{end}{line}"))
}

pub fn is_ready(lab: &Lab, node: Node) -> bool {
    let Some(process) = lab.power(node) else { return false };
    UnixStream::connect(process.root().join("run/libvirt/libvirt-sock")).is_ok()
}

/// Assembles the guest's ROM on the shared storage.
pub fn build_guest(lab: &Lab) -> Result<()> {
    let folder = lab.run.join("guest");
    sys::make_dir(&folder)?;
    sys::make_dir(&lab.backing().join("guest"))?;
    sys::make_dir(&lab.backing().join("disks"))?;
    let (source, object) = (folder.join("haguest.S"), folder.join("haguest.o"));
    sys::write(&source, GUEST_SOURCE)?;
    sys::run(Command::new("as").arg("--32").arg(&source).arg("-o").arg(&object))?;
    sys::run(
        Command::new("ld")
            .args(["-m", "elf_i386", "-Ttext", "0", "--oformat", "binary", "-o"])
            .arg(lab.backing().join(GUEST_ROM))
            .arg(&object),
    )
    .map(drop)
}

/// The same for a name in every lab, so that a guest is recognised by its process alone.
pub fn uuid(name: &str) -> String {
    let high = fnv(name.as_bytes());
    let low = fnv(format!("{name}/steadfast-lab").as_bytes());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}

/// The same on every node: the ROM and the disk are on shared storage, the serial log is not.
pub fn domain_xml(name: &str) -> String {
    format!(
        "<domain type='qemu'>
  <name>{name}</name>
  <uuid>{}</uuid>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <loader type='rom'>{SHARED}/{GUEST_ROM}</loader>
  </os>
  <features><acpi/><apic/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='{SHARED}/disks/{name}.img'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path='/var/log/libvirt/{name}.serial' append='on'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
",
        uuid(name)
    )
}

impl Lab {
    /// Defines a guest on a node and starts it, as an operator would, without HA.
    pub fn add_vm(&self, name: &str, node: Node) -> Result<()> {
        let disk = self.backing().join(format!("disks/{name}.img"));
        let file = fs::File::options().create(true).truncate(false).write(true).open(&disk);
        file.and_then(|file| file.set_len(DISK_BYTES))
            .with_context(|| format!("cannot make {}", disk.display()))?;
        let xml = self.run.join(format!("guest/{name}.xml"));
        sys::write(&xml, domain_xml(name))?;
        self.exec(node, "virsh", &["--quiet", "define", &xml.to_string_lossy()])?;
        self.exec(node, "virsh", &["--quiet", "start", name]).map(drop)
    }

    /// Removes a guest from a node; no error if it is not there.
    pub fn remove_vm(&self, name: &str, node: Node) {
        for action in ["destroy", "undefine"] {
            let _ = self.exec(node, "virsh", &["--quiet", action, name]);
        }
    }

    /// The guest's own count of its seconds, from its disk: it goes on over restarts and moves.
    pub fn count(&self, name: &str) -> Result<u32> {
        let disk = self.backing().join(format!("disks/{name}.img"));
        let mut count = [0; 4];
        let file = fs::File::open(&disk).with_context(|| format!("no {}", disk.display()))?;
        file.read_exact_at(&mut count, RECORD_OFFSET)?;
        Ok(u32::from_le_bytes(count))
    }

    /// What the guest has printed on this node since the node's files were made.
    pub fn console(&self, name: &str, node: Node) -> String {
        let path = self.log(node, &format!("libvirt/{name}.serial"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_uuid_and_it_is_well_formed() {
        let web = uuid("web");
        assert_eq!(web, uuid("web"));
        assert_ne!(web, uuid("db"));
        let lengths: Vec<usize> = web.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{web}");
    }

    #[test]
    fn an_account_is_added_once() {
        let line = "libvirt-qemu:x:64055:\n";
        assert_eq!(with_account("root:x:0:", line).unwrap(), format!("root:x:0:\n{line}"));
        assert_eq!(with_account("", line).unwrap(), line);
        assert_eq!(with_account("libvirt-qemu2:x:7:\n", line).unwrap().lines().count(), 2);
        assert_eq!(with_account("libvirt-qemu:x:109:\nroot:x:0:\n", line), None);
    }

    #[test]
    fn a_guest_can_start_on_any_node() {
        let xml = domain_xml("web");
        assert!(xml.contains(&uuid("web")));
        assert!(xml.contains("<source file='/mnt/shared/disks/web.img'/>"));
        assert!(xml.contains("<loader type='rom'>/mnt/shared/guest/haguest.rom</loader>"));
    }
}
