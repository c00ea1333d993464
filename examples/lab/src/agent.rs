//! The agent in a node: its configuration, its start, its end.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::fence;
use crate::lab::{Lab, Node, SHARED, Storage};
use crate::net;
use crate::san;
use crate::sys;
use crate::wait;

pub const DAEMON: &str = "steadfastd";
const CONFIG: &str = "/etc/steadfast/steadfast.toml";
/// What every node starts with. The build also makes the examples, which are for tests to drop.
const SHIPPED_POLICIES: [&str; 3] = ["node-priority.wasm", "placement.wasm", "risk.wasm"];
/// The agents' store, if it is a directory.
const DIRECTORY: &str = "/mnt/shared/steadfast";
/// Present when the shared storage was given its empty pages and ledger.
const INITIALISED: &str = "storage.initialised";

pub fn configure(lab: &Lab, node: Node) -> Result<()> {
    let folder = lab.home(node).join("etc/steadfast");
    sys::make_dir(&folder.join("policies"))?;
    sys::write(&folder.join("steadfast.toml"), configuration(lab, node))?;
    let Some(policies) = &lab.options.policies else { return Ok(()) };
    for name in SHIPPED_POLICIES {
        let file = policies.join(name);
        fs::copy(&file, folder.join("policies").join(name)).with_context(|| {
            format!("cannot copy {}: build the policies with policies/build", file.display())
        })?;
    }
    Ok(())
}

fn configuration(lab: &Lab, node: Node) -> String {
    let mut text = format!(
        r#"# Written by the lab for {node}.
[cluster]
name = "lab"
preset = "{preset}"
{level}
[node]
labels = {{ rack = "{rack}" }}

[storage]
{store}
shared_paths = ["{SHARED}"]

[libvirt]
uri = "qemu:///system"
migrate_uri = "qemu+tcp://{{node}}/system"

[watchdog]
device = "unix:/run/lab/watchdog.sock"

[reset]
sysrq = "/run/lab/sysrq"

[verification]
addresses = ["{verification}"]

[policies]
directory = "/etc/steadfast/policies"

[api]
socket = "/run/steadfast/api.sock"

[run]
directory = "/run/steadfast"
never_paused = true
"#,
        preset = lab.options.preset,
        level = feature_level(lab),
        store = store(lab),
        rack = node.rack(),
        verification = net::VERIFICATION,
    );
    if lab.options.fence_agent {
        let agent = lab.run.join("bin").join(fence::NAME);
        for other in lab.nodes() {
            text += &format!(
                "\n[[fence]]\nnode = \"{other}\"\nagent = \"{}\"\ntimeout_ms = 10000\n\
                 [fence.options]\nplug = \"{other}\"\nsock = \"/run/lab/power.sock\"\n",
                agent.display()
            );
        }
    }
    text + &lab.options.configuration
}

fn feature_level(lab: &Lab) -> String {
    let level = lab.options.feature_level;
    level.map(|level| format!("feature_level = {level}\n")).unwrap_or_default()
}

/// libvirt's folder of hooks is the node's own: each libvirtd asks the agent of its node.
pub fn install_hook(lab: &Lab, node: Node) -> Result<()> {
    let etc = lab.home(node).join("etc");
    let steadfast = lab.program("steadfast");
    let mut install = Command::new(&steadfast);
    install.args(["node", "install-hook", "--config"]).arg(etc.join("steadfast/steadfast.toml"));
    install.arg("--hooks").arg(etc.join("libvirt/hooks")).arg("--program").arg(&steadfast);
    sys::run(&mut install).map(drop)
}

/// Where the agents keep pages and ledger, as their configuration says it.
fn store(lab: &Lab) -> String {
    match lab.options.storage {
        Storage::Directory => format!("directory = \"{DIRECTORY}\""),
        Storage::Block => format!("device = \"{}\"", san::DEVICE),
    }
}

/// The fence agent is this program under another name.
pub fn install_fence_agent(lab: &Lab) -> Result<()> {
    let folder = lab.run.join("bin");
    sys::make_dir(&folder)?;
    let link = folder.join(fence::NAME);
    let _ = fs::remove_file(&link);
    symlink(lab.program("steadfast-lab"), &link)
        .with_context(|| format!("cannot make {}", link.display()))
}

impl Lab {
    /// The engine's command line, in a node.
    pub fn steadfast(&self, node: Node, args: &[&str]) -> Result<String> {
        self.exec(node, self.program("steadfast"), args)
    }

    /// Once in a lab's life, before the first agent starts.
    pub fn init_storage(&self) -> Result<()> {
        let mut args = vec!["storage", "init", "--cluster", "lab"];
        match self.options.storage {
            Storage::Directory => args.extend(["--directory", DIRECTORY]),
            Storage::Block => args.push(san::DEVICE),
        }
        let names: Vec<String> = self.nodes().map(|node| format!("{}={node}", node.0)).collect();
        for name in &names {
            args.extend(["--node", name]);
        }
        let level = self.options.feature_level.map(|level| level.to_string());
        if let Some(level) = &level {
            args.extend(["--feature-level", level]);
        }
        self.steadfast(Node(1), &args)?;
        sys::write(&self.run.join(INITIALISED), "")
    }

    /// Whether agents belong to this lab's nodes by now.
    pub fn runs_agents(&self) -> bool {
        !self.options.no_agent && self.run.join(INITIALISED).exists()
    }

    pub fn start_agent(&self, node: Node) -> Result<()> {
        if !self.named(node, DAEMON).is_empty() {
            bail!("the agent of {node} runs already");
        }
        self.start(node, DAEMON, self.program(DAEMON), &["--config", CONFIG])
    }

    /// As `systemctl stop` does it.
    pub fn stop_agent(&self, node: Node) -> Result<()> {
        self.end_agent(node, Signal::SIGTERM)
    }

    /// Writes the configuration anew, after its options changed.
    pub fn configure_agent(&self, node: Node) -> Result<()> {
        let file = self.home(node).join("etc/steadfast/steadfast.toml");
        sys::write(&file, configuration(self, node))
    }

    /// SIGKILL, and nothing else of the node. Its watchdog goes on counting.
    pub fn kill_agent(&self, node: Node) -> Result<()> {
        self.end_agent(node, Signal::SIGKILL)
    }

    /// SIGSTOP: everything else of the node goes on.
    pub fn hang_agent(&self, node: Node) -> Result<()> {
        let agents = self.named(node, DAEMON);
        let agent = agents.first().with_context(|| format!("no agent runs on {node}"))?;
        agent.signal(Signal::SIGSTOP);
        Ok(())
    }

    fn end_agent(&self, node: Node, signal: Signal) -> Result<()> {
        let agents = self.named(node, DAEMON);
        if agents.is_empty() {
            bail!("no agent runs on {node}: start it with `lab agent {node} start`");
        }
        for agent in &agents {
            agent.signal(signal);
        }
        wait::until(&format!("end of the agent of {node}"), Duration::from_secs(10), || {
            Ok(agents.iter().all(|agent| !agent.is_alive()).then_some(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Options;

    fn text(options: Options) -> String {
        let here = std::path::Path::new("/srv/lab");
        configuration(&Lab::new(here, here, options).unwrap(), Node(2))
    }

    #[test]
    fn every_node_has_a_fence_agent_or_none_has() {
        let with = text(Options::default());
        assert_eq!(with.matches("[[fence]]").count(), 3);
        assert!(with.contains("rack = \"r2\""));
        assert!(!text(Options { fence_agent: false, ..Options::default() }).contains("fence"));
    }

    #[test]
    fn the_store_is_a_directory_or_a_device() {
        assert!(text(Options::default()).contains("directory = \"/mnt/shared/steadfast\""));
        let block = text(Options { storage: Storage::Block, ..Options::default() });
        assert!(block.contains("device = \"/run/lab/san\"") && !block.contains("/steadfast\"\nsh"));
    }
}
