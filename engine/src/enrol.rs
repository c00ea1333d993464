//! May this VM come under HA? Only one that any node can start: everything it needs must be on
//! shared storage, and nothing of it may be a piece of one host.

use roxmltree::{Document, Node};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use steadfast_core::ids::VmId;

/// A VM that can come under HA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// UUID in lower case.
    pub uuid: VmId,
    /// libvirt name.
    pub name: String,
    /// Configured memory in MiB, rounded up.
    pub memory_mib: u64,
    /// Configured virtual CPUs, the most that it can have.
    pub vcpus: u32,
    /// Files and devices on shared storage that it uses.
    pub shared: Vec<PathBuf>,
    /// What works, but not as well on another node; for people.
    pub warnings: Vec<String>,
}

/// Why a VM cannot come under HA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, e.g. `disk vda`.
    pub what: String,
    /// Where: a path, an address or an element of the definition.
    pub place: String,
    /// Why that cannot be HA.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}; {}", self.what, self.place, self.why, self.remedy)
    }
}

/// Checks a domain's inactive XML.
///
/// A path counts as shared if it lies under one of `shared_paths` and `is_local`, which answers
/// the reason if it does not really lead to shared storage (e.g. "not mounted"), says `None`.
///
/// # Errors
/// Every reason why it cannot come under HA.
pub fn check(
    xml: &str,
    shared_paths: &[PathBuf],
    is_local: impl Fn(&Path) -> Option<String>,
) -> Result<Enrolled, Vec<Refusal>> {
    let document = Document::parse(xml).map_err(|error| {
        let remedy = "take it from `virsh dumpxml --inactive`";
        vec![refusal("definition", "domain XML", &format!("unreadable: {error}"), remedy)]
    })?;
    let mut check = Check {
        shared_paths,
        is_local: &is_local,
        shared: Vec::new(),
        warnings: Vec::new(),
        refusals: Vec::new(),
    };
    let enrolled = check.domain(document.root_element());
    match (enrolled, check.refusals.is_empty()) {
        (Some(identity), true) => {
            Ok(Enrolled { shared: check.shared, warnings: check.warnings, ..identity })
        }
        _ => Err(check.refusals),
    }
}

fn refusal(what: &str, place: &str, why: &str, remedy: &str) -> Refusal {
    let [what, place, why, remedy] = [what, place, why, remedy].map(str::to_owned);
    Refusal { what, place, why, remedy }
}

struct Check<'a> {
    shared_paths: &'a [PathBuf],
    is_local: &'a dyn Fn(&Path) -> Option<String>,
    shared: Vec<PathBuf>,
    warnings: Vec<String>,
    refusals: Vec<Refusal>,
}

impl Check<'_> {
    fn domain(&mut self, domain: Node<'_, '_>) -> Option<Enrolled> {
        if !domain.has_tag_name("domain") {
            let why = format!("the root element is <{}>", domain.tag_name().name());
            self.refuse("definition", "domain XML", &why, "give a <domain>");
            return None;
        }
        self.kind(domain);
        self.firmware(domain);
        for devices in children(domain, "devices") {
            for device in devices.children().filter(Node::is_element) {
                self.device(device);
            }
        }
        self.command_line(domain);
        self.identity(domain)
    }

    fn refuse(&mut self, what: &str, place: &str, why: &str, remedy: &str) {
        self.refusals.push(refusal(what, place, why, remedy));
    }

    fn identity(&mut self, domain: Node<'_, '_>) -> Option<Enrolled> {
        let name = self.required(domain, "name", |text| Ok(text.to_owned()));
        let uuid = self.required(domain, "uuid", parse_uuid);
        let vcpus = self.required(domain, "vcpu", |text| {
            let count: u32 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
            if count > 0 { Ok(count) } else { Err("it is 0".to_owned()) }
        });
        let unit = child(domain, "memory").and_then(|memory| memory.attribute("unit"));
        let memory_mib = self.required(domain, "memory", |text| parse_mib(text, unit));
        Some(Enrolled {
            uuid: uuid?,
            name: name?,
            memory_mib: memory_mib?,
            vcpus: vcpus?,
            shared: Vec::new(),
            warnings: Vec::new(),
        })
    }

    fn required<T>(
        &mut self,
        domain: Node<'_, '_>,
        tag: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = child(domain, tag).and_then(|node| node.text()).map_or("", str::trim);
        let value = if text.is_empty() { Err("it is missing".to_owned()) } else { parse(text) };
        let refuse = |why: String| {
            let remedy = "take the definition from `virsh dumpxml --inactive`, which fills it in";
            self.refuse(tag, &format!("<{tag}>"), &why, remedy);
        };
        value.map_err(refuse).ok()
    }

    /// Guests are found by QEMU's process: another hypervisor's could not be proved gone.
    fn kind(&mut self, domain: Node<'_, '_>) {
        let kind = domain.attribute("type").unwrap_or("");
        if !matches!(kind, "kvm" | "qemu") {
            let why = format!("a domain of type {kind:?} has no QEMU process to watch");
            self.refuse("hypervisor", "<domain type>", &why, "use type kvm");
        }
        let devices = child(domain, "devices");
        let emulator = devices.and_then(|devices| child(devices, "emulator"));
        let path = emulator.and_then(|emulator| emulator.text()).unwrap_or("").trim();
        let file = Path::new(path).file_name().map(|file| file.to_string_lossy());
        if file.is_some_and(|file| !file.starts_with("qemu") && file != "kvm") {
            let why = "guests are found by the name of their process, which starts with qemu";
            self.refuse("emulator", path, why, "use qemu-system-* or qemu-kvm");
        }
    }

    fn firmware(&mut self, domain: Node<'_, '_>) {
        let Some(os) = child(domain, "os") else { return };
        for tag in ["kernel", "initrd", "dtb"] {
            if let Some(path) = child(os, tag).and_then(|node| node.text())
                && self.why_local(Path::new(path.trim())).is_some()
            {
                self.warnings.push(format!("{tag} {path}: every node must have the same file"));
            }
        }
        let nvram = child(os, "nvram");
        match nvram.and_then(nvram_path) {
            Some(path) => {
                let why = "the guest's UEFI variables would stay behind on this host";
                self.must_be_shared("NVRAM", &path, why);
            }
            None if nvram.is_some() || needs_nvram(os) => {
                let why = "libvirt would keep the UEFI variables on this host's own disk";
                let remedy = "give <nvram> a path on shared storage, or use a stateless loader";
                self.refuse("NVRAM", "<os>", why, remedy);
            }
            None => {}
        }
    }

    fn device(&mut self, device: Node<'_, '_>) {
        match device.tag_name().name() {
            "disk" => self.disk(device),
            "hostdev" => self.hostdev(device),
            "interface" => self.interface(device),
            "filesystem" => self.filesystem(device),
            "tpm" => self.tpm(device),
            "memory" => self.memory_device(device),
            "serial" | "parallel" | "console" | "channel" => self.character_device(device),
            "smartcard" if device.attribute("mode") != Some("passthrough") => {
                self.piece_of_host("smart card", device.attribute("mode").unwrap_or("host"));
            }
            "input" if matches!(device.attribute("type"), Some("passthrough" | "evdev")) => {
                self.piece_of_host("input device", source_text(device).as_str());
            }
            "shmem" => {
                let name = device.attribute("name").unwrap_or("shmem");
                self.warnings.push(format!("{name}: memory shared with others on one host only"));
            }
            _ => {}
        }
    }

    fn disk(&mut self, disk: Node<'_, '_>) {
        let target = child(disk, "target").and_then(|node| node.attribute("dev"));
        let kind = disk.attribute("device").unwrap_or("disk");
        let what = format!("{kind} {}", target.unwrap_or("without target"));
        // The disk itself, then its backing chain and data file, each with a type of its own.
        self.medium(&what, disk, matches!(kind, "cdrom" | "floppy"));
        let layers = ["backingStore", "dataStore", "mirror"];
        for layer in disk.descendants().filter(|node| layers.iter().any(|l| node.has_tag_name(*l)))
        {
            self.medium(&format!("{} of {what}", layer.tag_name().name()), layer, true);
        }
    }

    fn medium(&mut self, what: &str, holder: Node<'_, '_>, may_be_empty: bool) {
        let kind = holder.attribute("type").unwrap_or("file");
        let Some(source) = child(holder, "source") else {
            if !may_be_empty {
                let remedy = "give it a <source> on shared storage";
                self.refuse(what, "<source>", "it has none, so it cannot be checked", remedy);
            }
            return;
        };
        let path = ["file", "dev", "dir"].iter().find_map(|name| source.attribute(*name));
        match (kind, path) {
            ("file" | "block" | "dir", Some(path)) => {
                self.must_be_shared(what, Path::new(path), "another node cannot read it");
            }
            ("file" | "block" | "dir", None) if may_be_empty => {}
            ("network", _) => self.network_disk(what, source),
            ("volume", _) => {
                let pool = source.attribute("pool").unwrap_or("?");
                let place = format!("{pool}/{}", source.attribute("volume").unwrap_or("?"));
                let why = "a storage pool is a definition of one host, which may differ elsewhere";
                self.refuse(what, &place, why, "name its path: type='file' or type='block'");
            }
            ("nvme", _) => self.piece_of_host(what, &source_text(holder)),
            _ => {
                let why = format!("a source of type {kind:?} lives on this host");
                self.refuse(what, kind, &why, "use a file, block device or network disk");
            }
        }
    }

    fn network_disk(&mut self, what: &str, source: Node<'_, '_>) {
        let is_local = |host: &Node<'_, '_>| {
            host.attribute("transport") == Some("unix")
                || matches!(host.attribute("name"), Some("localhost" | "127.0.0.1" | "::1"))
        };
        if let Some(host) = children(source, "host").find(is_local) {
            let place = host.attribute("socket").or(host.attribute("name")).unwrap_or("unix");
            let why = "its server is this host itself";
            self.refuse(what, place, why, "name a server that every node reaches");
        }
    }

    fn must_be_shared(&mut self, what: &str, path: &Path, consequence: &str) {
        match self.why_local(path) {
            None => self.shared.push(path.to_owned()),
            Some(why) => {
                let why = format!("{why}: {consequence}");
                let remedy = "move it to shared storage, or name that storage in `shared_paths`";
                self.refuse(what, &path.display().to_string(), &why, remedy);
            }
        }
    }

    fn why_local(&self, path: &Path) -> Option<String> {
        let plain = path.is_absolute() && !path.components().any(|c| c == Component::ParentDir);
        if !plain {
            return Some("it is not an absolute path without \"..\"".to_owned());
        }
        if !self.shared_paths.iter().any(|shared| path.starts_with(shared)) {
            let known: Vec<_> = self.shared_paths.iter().map(|p| p.display().to_string()).collect();
            return Some(format!("it is not under shared storage ({})", known.join(", ")));
        }
        (self.is_local)(path)
    }

    fn piece_of_host(&mut self, what: &str, place: &str) {
        let why = "it is a piece of this host, which dies with it";
        self.refuse(what, place, why, "remove it, or leave the VM without HA");
    }

    fn hostdev(&mut self, device: Node<'_, '_>) {
        let kind = device.attribute("type").or(device.attribute("mode")).unwrap_or("device");
        self.piece_of_host(&format!("host device ({kind})"), &source_text(device));
    }

    fn interface(&mut self, device: Node<'_, '_>) {
        let kind = device.attribute("type").unwrap_or("");
        if matches!(kind, "hostdev" | "vdpa" | "vhostuser") {
            self.piece_of_host(&format!("network interface ({kind})"), &source_text(device));
        }
    }

    fn filesystem(&mut self, device: Node<'_, '_>) {
        let source = child(device, "source");
        let names = ["dir", "file", "dev"];
        match source.and_then(|source| names.iter().find_map(|name| source.attribute(*name))) {
            Some(path) => {
                self.must_be_shared("file system", Path::new(path), "another node cannot read it");
            }
            None => self.piece_of_host("file system", &source_text(device)),
        }
    }

    fn tpm(&mut self, device: Node<'_, '_>) {
        let Some(backend) = child(device, "backend") else { return };
        match backend.attribute("type") {
            Some("emulator") => {
                let source = child(backend, "source").and_then(|node| node.attribute("path"));
                match source {
                    Some(path) => {
                        self.must_be_shared("TPM", Path::new(path), "its secrets stay behind");
                    }
                    None => self.warnings.push(
                        "TPM: its state is kept on this host; after a failover the guest meets an \
                         empty TPM, unless /var/lib/libvirt/swtpm is shared"
                            .to_owned(),
                    ),
                }
            }
            Some("external") => self.piece_of_host("TPM", "external"),
            kind => self.piece_of_host("TPM", kind.unwrap_or("passthrough")),
        }
    }

    fn memory_device(&mut self, device: Node<'_, '_>) {
        let source = child(device, "source").and_then(|source| child(source, "path"));
        if let Some(path) = source.and_then(|path| path.text()) {
            let path = Path::new(path.trim());
            self.must_be_shared("memory device", path, "its content would stay behind");
        }
    }

    fn character_device(&mut self, device: Node<'_, '_>) {
        if device.attribute("type") == Some("dev") {
            self.piece_of_host(device.tag_name().name(), &source_text(device));
        }
    }

    fn command_line(&mut self, domain: Node<'_, '_>) {
        let is_raw = |node: &Node<'_, '_>| node.tag_name().name() == "commandline";
        let Some(raw) = domain.children().find(is_raw) else { return };
        let mut arguments = raw.children().filter_map(|node| node.attribute("value"));
        if let Some(vfio) = arguments.find(|value| value.contains("vfio")) {
            self.piece_of_host("QEMU argument", vfio);
        } else {
            let warning = "raw QEMU arguments are not checked: no local path or device in them?";
            self.warnings.push(warning.to_owned());
        }
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, tag: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(tag))
}

fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    tag: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name(tag))
}

/// The source of a device, whatever its attributes, for a message.
fn source_text(device: Node<'_, '_>) -> String {
    let Some(source) = child(device, "source") else { return "no source".to_owned() };
    let own = source.attributes().chain(source.descendants().skip(1).flat_map(|n| n.attributes()));
    let words: Vec<_> = own.map(|a| format!("{}={}", a.name(), a.value())).collect();
    if words.is_empty() { "no source".to_owned() } else { words.join(" ") }
}

fn nvram_path(nvram: Node<'_, '_>) -> Option<PathBuf> {
    let source = child(nvram, "source").and_then(|source| source.attribute("file"));
    let path = source.or(nvram.text()).map(str::trim).filter(|path| !path.is_empty())?;
    Some(PathBuf::from(path))
}

fn needs_nvram(os: Node<'_, '_>) -> bool {
    let loader = child(os, "loader");
    let attribute = |name| loader.and_then(|loader| loader.attribute(name));
    let uefi = os.attribute("firmware") == Some("efi") || attribute("type") == Some("pflash");
    uefi && attribute("stateless") != Some("yes") && attribute("type") != Some("rom")
}

fn parse_uuid(text: &str) -> Result<VmId, String> {
    let uuid = text.to_ascii_lowercase();
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    let digits = uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if digits && groups == [8, 4, 4, 4, 12] {
        return Ok(VmId(uuid));
    }
    Err(format!("{text:?} is not of the form 8-4-4-4-12 hex digits"))
}

/// libvirt's units: the default is KiB, a single letter is binary.
fn parse_mib(text: &str, unit: Option<&str>) -> Result<u64, String> {
    let amount: u64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    let unit = unit.unwrap_or("KiB");
    let bytes: u64 = match unit {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "m" | "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "g" | "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "t" | "T" | "TiB" => 1 << 40,
        _ => return Err(format!("unknown unit {unit:?}")),
    };
    match amount.checked_mul(bytes).map(|bytes| bytes.div_ceil(1 << 20)) {
        Some(0) => Err("it is 0".to_owned()),
        Some(mib) => Ok(mib),
        None => Err(format!("{text} {unit} is more than any host has")),
    }
}

#[cfg(test)]
mod tests;
