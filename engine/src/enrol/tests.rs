use super::{Enrolled, Refusal, check, parse_mib};
use std::path::{Path, PathBuf};

const HEAD: &str = "<name>web</name><uuid>AB000000-0000-4000-8000-000000000001</uuid>
    <memory unit='GiB'>2</memory><currentMemory>1024</currentMemory><vcpu current='1'>4</vcpu>";
const DISK: &str = "<disk type='file' device='disk'><source file='/shared/web.img'/>
    <target dev='vda'/></disk>";

fn ask(body: &str) -> Result<Enrolled, Vec<Refusal>> {
    let unmounted = |path: &Path| path.starts_with("/gone").then(|| "not mounted".to_owned());
    let shared = [PathBuf::from("/shared"), PathBuf::from("/gone")];
    let domain = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>";
    check(&format!("{domain}{body}</domain>"), &shared, unmounted)
}

fn with(devices: &str) -> Result<Enrolled, Vec<Refusal>> {
    ask(&format!("{HEAD}<devices>{DISK}{devices}</devices>"))
}

fn with_os(os: &str) -> Result<Enrolled, Vec<Refusal>> {
    ask(&format!("{HEAD}{os}<devices>{DISK}</devices>"))
}

/// Refused for exactly one reason, which names all of `words`.
#[track_caller]
fn assert_refused(answer: Result<Enrolled, Vec<Refusal>>, words: &[&str]) {
    let refusals = answer.expect_err("it must be refused");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let text = refusals[0].to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

#[track_caller]
fn assert_accepted(answer: Result<Enrolled, Vec<Refusal>>) -> Enrolled {
    answer.unwrap_or_else(|refusals| panic!("{refusals:?}"))
}

#[test]
fn a_vm_whose_disks_are_shared_is_accepted_with_its_size() {
    let vm = assert_accepted(with(""));
    assert_eq!(vm.uuid.0, "ab000000-0000-4000-8000-000000000001");
    assert_eq!((vm.name.as_str(), vm.memory_mib, vm.vcpus), ("web", 2048, 4));
    assert_eq!(vm.shared, [PathBuf::from("/shared/web.img")]);
    assert_eq!(vm.warnings, [""; 0]);
}

#[test]
fn a_disk_that_only_this_host_has_is_refused_with_its_path_and_a_remedy() {
    let local = "<disk type='file' device='disk'><source file='/var/lib/x.img'/>
        <target dev='vdb'/></disk>";
    assert_refused(with(local), &["disk vdb", "/var/lib/x.img", "/shared, /gone", "move it"]);
    let block = "<disk type='block'><source dev='/dev/sdb'/><target dev='vdb'/></disk>";
    assert_refused(with(block), &["disk vdb", "/dev/sdb"]);
    let directory = "<disk type='dir'><source dir='/srv'/><target dev='vdb'/></disk>";
    assert_refused(with(directory), &["/srv"]);
    let volume = "<disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/></disk>";
    assert_refused(with(volume), &["p/v", "storage pool"]);
}

#[test]
fn a_path_that_only_looks_shared_is_refused() {
    for (path, word) in [
        ("/shared/../var/x.img", "\"..\""),
        ("/sharedness/x.img", "not under shared storage"),
        ("shared/x.img", "absolute"),
        ("/gone/x.img", "not mounted"),
    ] {
        let disk = format!("<disk type='file'><source file='{path}'/><target dev='vdb'/></disk>");
        assert_refused(with(&disk), &[path, word]);
    }
}

#[test]
fn a_backing_file_on_this_host_is_refused() {
    let chain = "<disk type='file'><source file='/shared/top'/><backingStore type='file'>
        <source file='/var/base'/><backingStore/></backingStore><target dev='vdb'/></disk>";
    assert_refused(with(chain), &["backingStore of disk vdb", "/var/base"]);
}

#[test]
fn network_disks_are_accepted_unless_their_server_is_this_host() {
    let rbd = "<disk type='network'><source protocol='rbd' name='p/i'>
        <host name='mon1' port='6789'/></source><target dev='vdb'/></disk>";
    assert_accepted(with(rbd));
    let nbd = "<disk type='network'><source protocol='nbd'>
        <host transport='unix' socket='/run/nbd'/></source><target dev='vdb'/></disk>";
    assert_refused(with(nbd), &["/run/nbd", "this host itself"]);
}

#[test]
fn an_empty_drive_is_accepted_and_one_with_local_media_refused() {
    assert_accepted(with("<disk type='file' device='cdrom'><target dev='sda'/></disk>"));
    let iso = "<disk type='file' device='cdrom'><source file='/iso/a.iso'/>
        <target dev='sda'/></disk>";
    assert_refused(with(iso), &["cdrom sda", "/iso/a.iso"]);
    let floppy = "<disk type='file' device='floppy'><source file='/iso/f'/>
        <target dev='fda'/></disk>";
    assert_refused(with(floppy), &["floppy fda"]);
}

#[test]
fn pieces_of_the_host_are_refused() {
    for (device, word) in [
        (
            "<hostdev mode='subsystem' type='pci'><driver name='vfio'/><source>
             <address domain='0' bus='0x65' slot='0' function='0'/></source></hostdev>",
            "bus=0x65",
        ),
        (
            "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>",
            "usb",
        ),
        ("<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>", "mdev"),
        ("<interface type='hostdev'><source><address type='pci'/></source></interface>", "network"),
        ("<filesystem type='mount'><source dir='/home'/><target dir='h'/></filesystem>", "/home"),
        ("<filesystem type='ram'><source usage='1'/></filesystem>", "file system"),
        ("<tpm model='tpm-tis'><backend type='passthrough'/></tpm>", "TPM"),
        ("<serial type='dev'><source path='/dev/ttyS0'/></serial>", "/dev/ttyS0"),
        ("<disk type='nvme'><source namespace='1'/><target dev='vdb'/></disk>", "disk vdb"),
    ] {
        assert_refused(with(device), &[word]);
    }
}

#[test]
fn consoles_logs_and_firmware_images_are_fine() {
    assert_accepted(with(
        "<serial type='file'><source path='/var/log/x'/></serial>
        <console type='pty'/><interface type='bridge'><source bridge='br0'/></interface>",
    ));
    assert_accepted(with_os("<os><loader type='rom'>/usr/share/x.rom</loader></os>"));
    let stateless = "<os firmware='efi'><loader stateless='yes'/></os>";
    assert_accepted(with_os(stateless));
}

#[test]
fn uefi_variables_must_be_shared() {
    let loader = "<loader type='pflash' readonly='yes'>/usr/share/OVMF.fd</loader>";
    let local = format!("<os>{loader}<nvram>/var/lib/libvirt/nvram/web.fd</nvram></os>");
    assert_refused(with_os(&local), &["NVRAM", "/var/lib/libvirt/nvram/web.fd"]);
    assert_refused(with_os(&format!("<os>{loader}</os>")), &["NVRAM", "<nvram>"]);
    assert_refused(with_os("<os firmware='efi'/>"), &["NVRAM"]);
    let source = "<nvram type='file'><source file='/shared/web.fd'/></nvram>";
    assert_accepted(with_os(&format!("<os>{loader}{source}</os>")));
}

#[test]
fn a_local_tpm_state_and_raw_arguments_are_accepted_with_a_warning() {
    let vm = assert_accepted(with("<tpm><backend type='emulator'/></tpm>"));
    assert!(vm.warnings[0].contains("TPM"), "{:?}", vm.warnings);
    let raw = |value: &str| {
        ask(&format!(
            "{HEAD}<devices>{DISK}</devices>
             <qemu:commandline><qemu:arg value='{value}'/></qemu:commandline>"
        ))
    };
    assert_eq!(assert_accepted(raw("-nodefaults")).warnings.len(), 1);
    assert_refused(raw("vfio-pci,host=1"), &["vfio-pci,host=1"]);
}

#[test]
fn another_hypervisor_is_refused_because_its_process_could_not_be_found() {
    let shared = [PathBuf::from("/shared")];
    let lxc = check(&format!("<domain type='lxc'>{HEAD}</domain>"), &shared, |_| None);
    assert_refused(lxc, &["lxc"]);
    assert_refused(with("<emulator>/opt/vmm</emulator>"), &["/opt/vmm", "qemu-system-*"]);
}

#[test]
fn every_missing_or_unreadable_number_is_named_at_once() {
    let refusals = ask("<uuid>x</uuid><vcpu>many</vcpu>").unwrap_err();
    let whats: Vec<_> = refusals.iter().map(|refusal| refusal.what.as_str()).collect();
    assert_eq!(whats, ["name", "uuid", "vcpu", "memory"]);
    assert_refused(check("<domain", &[], |_| None), &["unreadable"]);
    assert_refused(check("<network/>", &[], |_| None), &["<network>"]);
}

#[test]
fn memory_is_read_in_every_unit_and_rounded_up() {
    for (text, unit, mib) in [
        ("1048576", None, 1024),
        ("1", Some("b"), 1),
        ("16", Some("MiB"), 16),
        ("16", Some("M"), 16),
        ("1", Some("GB"), 954),
        ("2", Some("TiB"), 2 << 20),
        ("1025", Some("k"), 2),
    ] {
        assert_eq!(parse_mib(text, unit), Ok(mib), "{text} {unit:?}");
    }
    for (text, unit) in
        [("0", None), ("x", None), ("1", Some("parsec")), ("99999999999", Some("T"))]
    {
        assert!(parse_mib(text, unit).is_err(), "{text} {unit:?}");
    }
}
