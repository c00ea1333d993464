//! A lab's life: up, boot, down.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::lab::{Lab, Node, SHARED};
use crate::power_log::Cause;
use crate::sys::{self, Process};
use crate::{agent, corosync, init, libvirt, net, san, wait};

/// A machine that also compiles may take this long to start a daemon.
const START_LIMIT: Duration = Duration::from_secs(60);
/// So many lines of a log are shown when its daemon did not start.
const LOG_LINES: usize = 8;
/// What a lab makes in its folder, besides the nodes' homes and `last-logs`.
const OWN_FILES: [&str; 10] = [
    "bin",
    "guest",
    "guests.json",
    "lab.json",
    "power.dead",
    "power.log",
    "power.out",
    "power.pid",
    "shared",
    "storage.initialised",
];

impl Lab {
    /// Nodes with corosync, libvirt and (if the lab has them) agents; no guests yet. What a
    /// crashed lab left behind is removed first; so is this one, if it does not come up.
    pub fn up(&self) -> Result<()> {
        if !Uid::effective().is_root() {
            bail!("the lab makes namespaces and mounts, so it must run as root");
        }
        self.check_programs()?;
        self.remove();
        let result = self.assemble();
        if result.is_err() {
            sys::forget_interrupt();
            self.keep_logs();
            self.remove();
        }
        result
    }

    fn check_programs(&self) -> Result<()> {
        let engine: &[&str] =
            if self.options.no_agent { &[] } else { &[agent::DAEMON, "steadfast"] };
        for name in ["steadfast-lab"].iter().chain(engine) {
            if !self.program(name).exists() {
                bail!(
                    "{} is missing: build it with `cargo build --release`, or use --no-agent",
                    self.program(name).display()
                );
            }
        }
        Ok(())
    }

    fn assemble(&self) -> Result<()> {
        sys::make_dir(&self.run)?;
        // Copies of /etc lie here.
        fs::set_permissions(&self.run, fs::Permissions::from_mode(0o700))?;
        self.save()?;
        net::create(self)?;
        sys::make_dir(&self.backing())?;
        san::create(self)?;
        libvirt::build_guest(self)?;
        agent::install_fence_agent(self)?;
        self.nodes().try_for_each(|node| self.furnish(node))?;
        corosync::configure(self)?;
        self.start_power()?;
        self.for_all_nodes(|node| self.boot(node))?;
        self.wait_for_membership()?;
        if !self.options.no_agent {
            self.init_storage()?;
            self.for_all_nodes(|node| self.start_agent(node))?;
        }
        Ok(())
    }

    /// The node's private files: a copy of `/etc` with its own names in it, empty state folders.
    fn furnish(&self, node: Node) -> Result<()> {
        let home = self.home(node);
        sys::make_dir(&home)?;
        for folder in init::PRIVATE {
            sys::make_dir(&home.join(&folder[1..]))?;
            // The mount point: a package may have left it to its daemon to make.
            sys::make_dir(Path::new(folder))?;
        }
        for folder in ["corosync", "libvirt/qemu"] {
            sys::make_dir(&self.log(node, folder))?;
        }
        sys::run(Command::new("cp").args(["-a", "/etc"]).arg(&home))?;
        let etc = home.join("etc");
        for name in ["corosync", "libvirt", "steadfast"] {
            let _ = fs::remove_dir_all(etc.join(name));
        }
        libvirt::ensure_user(&etc)?;
        sys::write(&etc.join("hostname"), format!("{node}\n"))?;
        self.write_hosts(node)?;
        let _ = fs::remove_file(etc.join("machine-id"));
        sys::write(&etc.join("machine-id"), format!("{:032x}\n", 0x1ab_0000 + u32::from(node.0)))?;
        libvirt::configure(self, node)?;
        agent::configure(self, node)?;
        if self.options.no_agent { Ok(()) } else { agent::install_hook(self, node) }
    }

    fn write_hosts(&self, node: Node) -> Result<()> {
        let hosts: String =
            self.nodes().map(|node| format!("{} {node}\n", node.address(0))).collect();
        let file = self.home(node).join("etc/hosts");
        sys::write(&file, format!("127.0.0.1 localhost\n{hosts}"))
    }

    /// One more node: known to corosync, powered on, its agent started; the cluster does not know it yet.
    pub fn add_node(&mut self) -> Result<Node> {
        let node = Node(self.options.nodes + 1);
        if node.0 > crate::lab::MAX_NODES {
            bail!("a lab has at most {} nodes", crate::lab::MAX_NODES);
        }
        self.options.nodes = node.0;
        self.save()?;
        net::connect(self, node)?;
        self.furnish(node)?;
        self.nodes().try_for_each(|node| self.write_hosts(node))?;
        corosync::reconfigure(self)?;
        self.boot(node)?;
        self.wait_for_membership()?;
        Ok(node)
    }

    /// Powers the last node off for good, and takes it out of corosync's node list.
    pub fn remove_node(&mut self) -> Result<()> {
        let node = Node(self.options.nodes);
        self.power_off(node, Cause::Down)?;
        // A reload in the middle of a membership change has left corosync 3.1 in its synchronisation for good.
        self.wait_for_membership()?;
        self.options.nodes -= 1;
        self.save()?;
        corosync::reconfigure(self)?;
        self.wait_for_membership()
    }

    /// Powers a node on and starts everything in it, as its boot would.
    pub fn boot(&self, node: Node) -> Result<()> {
        self.check(node)?;
        if self.power(node).is_some() {
            bail!("{node} is on already");
        }
        let control = self.fault_control(node);
        let _ = fs::remove_file(&control);
        corosync::rotate_log(self, node)?;
        self.power_on(node)?;
        let backing = self.backing();
        let faultfs = ["faultfs", &backing.to_string_lossy(), SHARED, "/run/lab/fault.sock"];
        self.start(node, "faultfs", self.program("steadfast-lab"), &faultfs)?;
        self.start(node, "corosync", "corosync", &["-f"])?;
        self.start(node, "libvirtd", "libvirtd", &["--listen"])?;
        wait::until(&format!("start of {node}"), START_LIMIT, || {
            if self.power(node).is_none() {
                bail!("{node} lost its power while it was starting");
            }
            let ready =
                control.exists() && corosync::is_ready(self, node) && libvirt::is_ready(self, node);
            Ok(ready.then_some(()))
        })
        .with_context(|| self.what_did_not_start(node))?;
        san::attach(self, node)?;
        if self.runs_agents() { self.start_agent(node) } else { Ok(()) }
    }

    /// The parts of a node that are not ready, each with the end of its log.
    fn what_did_not_start(&self, node: Node) -> String {
        let parts = [
            ("faultfs", self.fault_control(node).exists(), "faultfs.log"),
            ("corosync", corosync::is_ready(self, node), corosync::LOG),
            ("libvirtd", libvirt::is_ready(self, node), libvirt::LOG),
        ];
        let mut text = String::new();
        for (name, _, log) in parts.into_iter().filter(|(_, ready, _)| !ready) {
            let log = self.log(node, log);
            let all = fs::read_to_string(&log).unwrap_or_default();
            let skipped = all.lines().count().saturating_sub(LOG_LINES);
            text += &format!("{name} did not start on {node}; the end of {}:\n", log.display());
            all.lines().skip(skipped).for_each(|line| text += &format!("  {line}\n"));
        }
        text
    }

    /// Until every powered node's corosync sees every powered node.
    pub fn wait_for_membership(&self) -> Result<()> {
        wait::until("membership of all nodes", START_LIMIT, || {
            let on: Vec<Node> = self.nodes().filter(|node| self.power(*node).is_some()).collect();
            Ok(on.iter().all(|node| corosync::members(self, *node) == on).then_some(()))
        })
    }

    pub fn for_all_nodes(&self, body: impl Fn(Node) -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let body = &body;
            let threads: Vec<_> =
                self.nodes().map(|node| scope.spawn(move || body(node))).collect();
            let results: Vec<Result<()>> = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
                .collect();
            results.into_iter().collect()
        })
    }

    /// Cuts the power of everything and removes the lab. Logs stay in `last-logs`.
    pub fn down(&self) {
        self.keep_logs();
        self.remove();
    }

    fn keep_logs(&self) {
        // Nothing to keep any more: a lab that failed on its way up kept its logs then.
        if !self.nodes().any(|node| self.home(node).exists()) {
            return;
        }
        let kept = self.run.join("last-logs");
        let _ = fs::remove_dir_all(&kept);
        let _ = fs::create_dir_all(&kept);
        for node in self.nodes() {
            let _ = fs::rename(self.home(node).join("var/log"), kept.join(node.to_string()));
        }
        for name in ["power.log", "power.out"] {
            let _ = fs::rename(self.run.join(name), kept.join(name));
        }
    }

    /// Removes whatever is there of a lab in this folder, whole or not.
    fn remove(&self) {
        self.stop_power();
        for number in 1..=crate::lab::MAX_NODES {
            if let Err(error) = self.power_off(Node(number), Cause::Down) {
                eprintln!("{error:#}");
            }
        }
        self.kill_leftovers();
        net::remove(self);
        let _ = fs::remove_dir_all(self.sockets_root());
        // By name: the folder is the user's, and may hold other things.
        let nodes = (1..=crate::lab::MAX_NODES).map(|number| Node(number).to_string());
        for name in nodes.chain(OWN_FILES.map(String::from)) {
            let path = self.run.join(name);
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    eprintln!("cannot remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    /// Processes that still live in the lab's networks: a lab that crashed half-way up, or whose
    /// folder was deleted under it.
    fn kill_leftovers(&self) {
        let inodes: Vec<String> = net::namespaces(self)
            .iter()
            .filter_map(|name| fs::metadata(format!("/run/netns/{name}")).ok())
            .map(|metadata| format!("net:[{}]", metadata.ino()))
            .collect();
        let in_lab = |pid: &i32| {
            let network = sys::namespace(*pid, "net");
            network.is_some_and(|network| {
                inodes.iter().any(|inode| network.as_os_str() == inode.as_str())
            })
        };
        let left: Vec<Process> =
            sys::pids().into_iter().filter(in_lab).filter_map(Process::new).collect();
        left.iter().for_each(|process| process.signal(Signal::SIGKILL));
        let gone = || left.iter().all(|process| !process.is_alive());
        for _ in 0..500 {
            if gone() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("some processes of an earlier lab do not end: {left:?}");
    }

    /// A node with a live agent, if any.
    pub fn live_node(&self) -> Result<Node> {
        let live = self.nodes().find(|node| !self.named(*node, agent::DAEMON).is_empty());
        live.context("no agent runs: start one with `lab agent NODE start`")
    }
}
