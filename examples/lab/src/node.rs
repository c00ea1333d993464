//! A node's power and processes, from outside.
//!
//! A node is a set of namespaces; its first process does nothing but hold them (see `init`).
//! SIGKILL of that process is the power cut: the kernel takes everything else with it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;

use crate::init;
use crate::lab::{Lab, Node};
use crate::power_log::{self, Cause};
use crate::san;
use crate::sys::{self, Process};
use crate::wait;

impl Lab {
    /// The first process of the node, if it is powered on.
    pub fn power(&self, node: Node) -> Option<Process> {
        let text = fs::read_to_string(pid_file(self, node)).ok()?;
        let process: Process = serde_json::from_str(&text).ok()?;
        process.is_alive().then_some(process)
    }

    fn powered(&self, node: Node) -> Result<Process> {
        self.check(node)?;
        self.power(node)
            .with_context(|| format!("{node} is powered off: power it on with `lab boot {node}`"))
    }

    /// Powers the node on; nothing but its first process runs then.
    pub fn power_on(&self, node: Node) -> Result<Process> {
        if let Some(process) = self.power(node) {
            return Ok(process);
        }
        let home = self.home(node);
        let _ = fs::remove_file(home.join(init::READY));
        let log = File::create(home.join("boot.log"))?;
        let status = Command::new(self.program("steadfast-lab"))
            .args(["node-boot", &node.to_string(), "--run"])
            .arg(&self.run)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .context("cannot start the node's first process")?;
        let complaint = || fs::read_to_string(home.join("boot.log")).unwrap_or_default();
        if !status.success() {
            bail!("{node} did not power on: {}", complaint().trim());
        }
        wait::until(&format!("power-on of {node}"), Duration::from_secs(10), || {
            let process = self.power(node);
            if process.is_none() {
                bail!("{node} ended while it was powering on: {}", complaint().trim());
            }
            Ok(process.filter(|_| home.join(init::READY).exists()))
        })
    }

    /// Cuts the node's power and returns when nothing of it runs any more.
    pub fn power_off(&self, node: Node, cause: Cause) -> Result<()> {
        let Some(process) = self.power(node) else {
            san::detach(self, node);
            return Ok(());
        };
        power_log::append(self, node, cause, process.pid);
        process.signal(Signal::SIGKILL);
        let start = std::time::Instant::now();
        // Not `wait::until`: an interrupt must not leave this half done.
        while process.is_alive() {
            if start.elapsed() > Duration::from_secs(20) {
                bail!("{node} is still there 20 s after its power was cut (pid {})", process.pid);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        san::detach(self, node);
        Ok(())
    }

    /// A command in the node, ready to be run.
    pub fn command(&self, node: Node, program: impl AsRef<Path>) -> Result<Command> {
        let process = self.powered(node)?;
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &process.pid.to_string(), "-m", "-n", "-p", "-u", "-i", "--wd=/", "--"])
            .arg(program.as_ref())
            .env_clear()
            .env("PATH", format!("{}:{}", self.programs.display(), sys::NODE_PATH))
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8");
        if let Some(terminal) = std::env::var_os("TERM") {
            command.env("TERM", terminal);
        }
        Ok(command)
    }

    /// Runs a command in the node to its end and gives its output.
    pub fn exec(&self, node: Node, program: impl AsRef<Path>, args: &[&str]) -> Result<String> {
        sys::run(self.command(node, program)?.args(args)).with_context(|| format!("on {node}"))
    }

    /// Starts a daemon in the node, its output in the node's `/var/log/NAME.log`.
    pub fn start(
        &self,
        node: Node,
        name: &str,
        program: impl AsRef<Path>,
        args: &[&str],
    ) -> Result<()> {
        let path = self.log(node, &format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path)?;
        let status = self
            .command(node, "setsid")?
            .arg("--fork")
            .arg(program.as_ref())
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .with_context(|| format!("cannot start {name} on {node}"))?;
        if !status.success() {
            bail!("{name} did not start on {node}: see {}", path.display());
        }
        Ok(())
    }

    /// All processes of the node, with their names; the first one comes first.
    pub fn processes(&self, node: Node) -> Vec<(Process, String)> {
        let Some(first) = self.power(node) else { return Vec::new() };
        let Some(namespace) = first.namespace("pid") else { return Vec::new() };
        let members = sys::pids()
            .into_iter()
            .filter(|pid| sys::namespace(*pid, "pid").as_ref() == Some(&namespace));
        let mut found: Vec<_> = members
            .filter_map(|pid| Some((Process::new(pid)?, sys::command_name(pid)?)))
            .filter(|(process, _)| process.is_alive())
            .collect();
        found.sort_by_key(|(process, _)| (process.pid != first.pid, process.pid));
        found
    }

    /// Processes of the node with this command name (cut to 15 bytes by the kernel).
    pub fn named(&self, node: Node, name: &str) -> Vec<Process> {
        let name = &name[..name.len().min(15)];
        let all = self.processes(node).into_iter();
        all.filter(|(_, found)| found == name).map(|(process, _)| process).collect()
    }
}

fn pid_file(lab: &Lab, node: Node) -> std::path::PathBuf {
    lab.home(node).join("pid")
}

/// The short-lived parent of a node's first process: makes the namespaces and steps aside.
pub fn boot(lab: &Lab, node: Node) -> Result<()> {
    let network = format!("/run/netns/{}", lab.namespace(node));
    let network = File::open(&network).with_context(|| format!("cannot open {network}"))?;
    setns(network, CloneFlags::CLONE_NEWNET).context("cannot enter the node's network")?;
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context("cannot make the node's namespaces: the lab needs root")?;
    nix::unistd::setsid().context("cannot leave the caller's session")?;
    // The PID namespace holds for children only: the first one is its process 1. It makes the
    // mount namespace itself, for its /proc would hide it from us in a common one.
    let child = Command::new(std::env::current_exe()?)
        .args(["node-init", &node.to_string(), "--run"])
        .arg(&lab.run)
        .current_dir("/")
        .env_clear()
        .env("PATH", sys::NODE_PATH)
        .spawn()
        .context("cannot start the node's first process")?;
    let pid = i32::try_from(child.id())?;
    let process = Process::new(pid).context("the node's first process ended at once")?;
    sys::write(&pid_file(lab, node), serde_json::to_vec(&process)?)
}
