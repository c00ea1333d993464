//! What the host shows without an agent: its clock, its sleep, libvirt's hook; and what the agent's own process is allowed.

use super::{Check, chrony};
use crate::hook::install;
use std::fs;
use std::path::Path;

/// systemd's targets that stop a machine for a while.
const SLEEP: [&str; 4] =
    ["sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"];
/// The thread that keeps the lease.
const LEASE_THREAD: &str = "lease";

pub(super) fn checks() -> Vec<Check> {
    let root = Path::new("/");
    vec![chrony::check(root), sleep(root)]
}

/// A machine that sleeps wakes up with guests that may run elsewhere by then.
fn sleep(root: &Path) -> Check {
    if !root.join("run/systemd/system").is_dir() {
        return Check::green("sleep", "no systemd here: nothing asks for sleep");
    }
    let is_masked = |target: &&str| {
        ["etc/systemd/system", "run/systemd/system"].iter().any(|folder| {
            let link = fs::read_link(root.join(folder).join(target));
            link.is_ok_and(|to| to == Path::new("/dev/null"))
        })
    };
    let open: Vec<&str> = SLEEP.into_iter().filter(|target| !is_masked(target)).collect();
    if open.is_empty() {
        return Check::green("sleep", "this machine cannot be put to sleep");
    }
    let text =
        format!("{} may put this machine to sleep; its guests wake up late", open.join(", "));
    Check::red("sleep", text, format!("systemctl mask {}", SLEEP.join(" ")))
}

/// libvirt asks the agent before it starts anything, if its hook is there. The agent tests that it does; this only looks.
pub(super) fn hook(hooks: &Path) -> Check {
    if install::is_installed(hooks) {
        return Check::green("libvirt hook", format!("installed in {}", hooks.display()));
    }
    let text = "none: `virsh start` can start an HA VM where it does not belong";
    Check::red("libvirt hook", text, install::remedy())
}

/// The agent's own process: paged out or kept waiting by others, it loses its lease.
pub(super) fn own_process() -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    vec![memory(&status), real_time(lease_thread_policy())]
}

fn memory(status: &str) -> Check {
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kib = locked.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    match kib {
        Some(kib) if kib > 0 => {
            Check::green("memory", format!("the agent's memory is locked ({} MiB)", kib / 1_024))
        }
        _ => {
            let text = "the agent's memory is not locked: a node that swaps may lose its lease";
            Check::yellow("memory", text, "LimitMEMLOCK=infinity in the agent's unit; see its log")
        }
    }
}

/// The scheduling policy of the lease thread (source: `stat`, field 41).
fn lease_thread_policy() -> Option<u32> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.filter_map(Result::ok);
    let is_lease = |folder: &std::path::PathBuf| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == LEASE_THREAD)
    };
    let folder = tasks.map(|entry| entry.path()).find(is_lease)?;
    policy_of(&fs::read_to_string(folder.join("stat")).ok()?)
}

fn policy_of(stat: &str) -> Option<u32> {
    // The name before it may hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(41 - 3)?.parse().ok()
}

fn real_time(policy: Option<u32>) -> Check {
    match policy {
        Some(1 | 2) => Check::green("real time", "the lease thread has real-time priority"),
        _ => {
            let text = "the lease thread has no real-time priority: a busy node may lose its lease";
            Check::yellow("real time", text, "LimitRTPRIO=99 in the agent's unit; see its log")
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Level;
    use super::*;
    use std::path::PathBuf;

    /// A host's files, below a folder of their own.
    pub(in super::super) struct Root(pub(in super::super) PathBuf);

    impl Root {
        pub(in super::super) fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("steadfast-doctor-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(&root).unwrap();
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
    fn each_sleep_target_must_be_masked() {
        let root =
            Root::new("sleep", &[("run/systemd/system/a", ""), ("etc/systemd/system/a", "")]);
        let link = |target: &str| {
            let place = root.0.join("etc/systemd/system").join(target);
            std::os::unix::fs::symlink("/dev/null", place).unwrap();
        };
        SLEEP[1..].iter().for_each(|target| link(target));
        let found = sleep(&root.0);
        assert_eq!(found.level, Level::Red);
        assert!(found.text.starts_with("sleep.target may"), "{}", found.text);
        link(SLEEP[0]);
        assert_eq!(sleep(&root.0).level, Level::Green);
    }

    #[test]
    fn only_a_hook_of_ours_counts() {
        let theirs = ("hooks/qemu.d/steadfast", "#!/bin/sh\nexit 0\n");
        let root = Root::new("hook", &[theirs]);
        assert_eq!(hook(&root.0.join("hooks")).level, Level::Red);
    }

    #[test]
    fn locked_memory_and_real_time_are_read_from_the_kernel() {
        assert_eq!(memory("VmPeak: 1 kB\nVmLck:\t   40960 kB\n").level, Level::Green);
        assert_eq!(memory("VmLck:\t       0 kB\n").level, Level::Yellow);
        let before = vec!["0"; 38].join(" ");
        assert_eq!(policy_of(&format!("7 (a (b) c) {before} 2 1 1")), Some(2));
        assert_eq!(policy_of("7 (a) S 1"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(policy_of(&own).is_some_and(|policy| policy <= 6), "{own}");
        assert_eq!(real_time(Some(1)).level, Level::Green);
        assert_eq!(real_time(Some(0)).level, Level::Yellow);
    }
}
