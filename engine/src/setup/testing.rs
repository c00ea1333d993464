//! Machines of tests: a folder for a root, and programs that keep what they did in it.

use super::host::{Host, Said, Tools};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A machine's root, removed at the end.
#[derive(Debug)]
pub(crate) struct Machine(pub(crate) PathBuf);

impl Machine {
    /// A fresh Debian 12.
    pub(crate) fn debian(name: &str) -> Self {
        // In memory, where there is a place for it: thousands of small files are made.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let root = base.join(format!("steadfast-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let machine = Self(root);
        machine.put("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        machine.put("dev/kvm", "");
        machine.put("run/systemd/system/x", "");
        machine.put("etc/systemd/system/x", "");
        machine.put("var/lib/x", "");
        machine.put("fake/packages/libc6", "");
        machine.put("fake/enabled/systemd-timesyncd.service", "");
        machine.put("fake/active/systemd-timesyncd.service", "");
        machine
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn host(&self) -> Host {
        let tools: Tools = Arc::new(run);
        Host::with_tools(&self.0, tools)
    }

    /// What was run, a line each.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.0.join("fake.log")).unwrap_or_default()
    }

    /// Everything that is there, but for the log.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        self.walk(|path, found| {
            let bytes = match found.is_symlink() {
                true => fs::read_link(path).expect("a link").to_string_lossy().as_bytes().to_vec(),
                false if found.is_file() => fs::read(path).expect("a file"),
                false => Vec::new(),
            };
            (found.permissions().mode(), bytes)
        })
    }

    /// When each was changed last.
    pub(crate) fn times(&self) -> BTreeMap<PathBuf, (i64, i64)> {
        self.walk(|_, found| (found.mtime(), found.mtime_nsec()))
    }

    fn walk<T>(&self, look: impl Fn(&Path, &fs::Metadata) -> T) -> BTreeMap<PathBuf, T> {
        let (mut folders, mut found) = (vec![self.0.clone()], BTreeMap::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                let (path, entry) = (entry.path(), entry.metadata().expect("there"));
                if entry.is_dir() {
                    folders.push(path.clone());
                }
                if !path.ends_with("fake.log") {
                    let name = path.strip_prefix(&self.0).expect("below").to_path_buf();
                    found.insert(name, look(&path, &entry));
                }
            }
        }
        found
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn good(out: &str) -> Said {
    Said { good: true, out: out.trim().into(), err: String::new() }
}

pub(crate) fn bad(out: &str) -> Said {
    Said { good: false, ..good(out) }
}

/// The programs of such a machine.
pub(crate) fn run(root: &Path, program: &str, arguments: &[&str]) -> Option<Said> {
    let said = match program {
        "systemctl" => systemctl(root, arguments),
        "apt-get" => apt(root, arguments),
        "dpkg-query" => {
            let names = fs::read_dir(root.join("fake/packages")).expect("a folder").flatten();
            let line = |name: fs::DirEntry| format!("ii  {}\n", name.file_name().to_string_lossy());
            return Some(good(&names.map(line).collect::<String>()));
        }
        "timedatectl" => good("yes"),
        "chronyc" if arguments.contains(&"sources") => good("^,*,192.0.2.1,2,6"),
        "chronyc" if arguments.contains(&"tracking") => good("C0,192.0.2.1,2,1.0,0.000012,0,0"),
        "chronyc" => good(""),
        "modprobe" => {
            let device = root.join("sys/class/watchdog/watchdog0");
            fs::create_dir_all(&device).expect("made");
            fs::write(device.join("identity"), "Software Watchdog\n").expect("written");
            good("")
        }
        "virsh" => good(""),
        "corosync-cfgtool" => good(""),
        _ => return None,
    };
    let reads = ["is-enabled", "is-active", "show"];
    if !arguments.is_empty() && !reads.contains(&arguments[0]) && program == "systemctl" {
        use std::io::Write;
        let log = fs::OpenOptions::new().create(true).append(true).open(root.join("fake.log"));
        writeln!(log.expect("a log"), "{program} {}", arguments.join(" ")).expect("written");
    }
    Some(said)
}

fn systemctl(root: &Path, arguments: &[&str]) -> Said {
    let [verb, name, ..] = arguments else { return good("") };
    let mark = |what: &str| root.join("fake").join(what).join(name);
    let set = |what: &str| {
        let path = mark(what);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, "").expect("written");
        good("")
    };
    let unset = |what: &str| {
        let _ = fs::remove_file(mark(what));
        good("")
    };
    match *verb {
        "is-enabled" if mark("enabled").exists() => good("enabled"),
        "is-enabled" => bad("disabled"),
        "is-active" if mark("active").exists() => good("active"),
        "is-active" => bad("inactive"),
        "show" => good("0"),
        "enable" => set("enabled"),
        "disable" => unset("enabled"),
        "start" | "restart" => set("active"),
        "stop" => unset("active"),
        _ => good(""),
    }
}

/// Corosync's package brings a library and its example, and is started.
fn apt(root: &Path, arguments: &[&str]) -> Said {
    let mut names = arguments.iter().filter(|word| !word.starts_with('-'));
    let package = |name: &str| root.join("fake/packages").join(name);
    let units = ["corosync.service", "libvirtd.service"];
    match names.next() {
        Some(&"install") => {
            for name in names {
                fs::write(package(name), "").expect("written");
                if *name == "corosync" {
                    fs::write(package("libcpg4"), "").expect("written");
                    fs::create_dir_all(root.join("etc/corosync")).expect("made");
                    let example = "nodelist {\n node {\n  ring0_addr: 127.0.0.1\n }\n}\n";
                    fs::write(root.join("etc/corosync/corosync.conf"), example).expect("written");
                    for unit in units {
                        systemctl(root, &["enable", unit]);
                        systemctl(root, &["start", unit]);
                    }
                }
            }
        }
        Some(&"purge") => {
            for name in names {
                let _ = fs::remove_file(package(name));
                if *name == "corosync" {
                    fs::remove_dir_all(root.join("etc/corosync")).expect("removed");
                }
            }
        }
        _ => {}
    }
    good("")
}
