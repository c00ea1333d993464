//! One lab: its folder, its nodes and its options.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::sys;

/// Where every node sees the shared storage.
pub const SHARED: &str = "/mnt/shared";
pub const MAX_NODES: u8 = 9;

/// A node's number; its name is `n1`, `n2`, ….
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node(pub u8);

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad`, so that tables can align it.
        out.pad(&format!("n{}", self.0))
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('n').and_then(|rest| rest.parse().ok());
        match number {
            Some(number) if (1..=MAX_NODES).contains(&number) => Ok(Node(number)),
            _ => Err(format!("{text:?} is not a node: nodes are n1 to n{MAX_NODES}")),
        }
    }
}

impl Node {
    pub fn rack(self) -> &'static str {
        if self.0 % 2 == 1 { "r1" } else { "r2" }
    }

    pub fn address(self, link: u8) -> String {
        format!("10.77.{link}.{}", self.0)
    }
}

/// Corosync's `token_coefficient`: milliseconds added to the token for each node above two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coefficient {
    /// What corosync does when nothing is configured (650 ms).
    Default,
    Ms(u32),
}

impl FromStr for Coefficient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Coefficient::Default),
            _ => text.parse().map(Coefficient::Ms).map_err(|_| {
                format!("token coefficient {text:?} is neither `default` nor a number of ms")
            }),
        }
    }
}

/// What the agents keep pages and ledger on. The guests' disks are files on the shared directory either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Storage {
    /// A directory on the shared file system.
    #[default]
    Directory,
    /// A raw block device that all nodes see.
    Block,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    pub nodes: u8,
    pub token_ms: u32,
    pub token_coefficient: Coefficient,
    /// Whether the agents know a fence agent at all.
    pub fence_agent: bool,
    pub preset: String,
    /// No guests.
    pub bare: bool,
    /// No steadfastd: corosync, libvirt and guests alone.
    pub no_agent: bool,
    /// Pages and ledger.
    pub storage: Storage,
    /// Folder of the `.wasm` files that every node starts with.
    pub policies: Option<PathBuf>,
    /// The cluster begins at this feature level, and its agents speak no more.
    #[serde(default)]
    pub feature_level: Option<u16>,
    /// More of the agents' configuration.
    #[serde(default)]
    pub configuration: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            nodes: 3,
            token_ms: 500,
            token_coefficient: Coefficient::Ms(0),
            fence_agent: true,
            preset: "standard".into(),
            bare: false,
            no_agent: false,
            storage: Storage::Directory,
            policies: None,
            feature_level: None,
            configuration: String::new(),
        }
    }
}

/// A lab on this machine. Everything it keeps is in `run`; only sockets lie elsewhere, because
/// their paths have a limit of 108 bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lab {
    pub run: PathBuf,
    pub options: Options,
    /// Where `steadfast-lab`, `steadfastd` and `steadfast` were built.
    pub programs: PathBuf,
}

impl Lab {
    /// A lab that does not run yet.
    pub fn new(run: &Path, programs: &Path, options: Options) -> Result<Self> {
        if !(1..=MAX_NODES).contains(&options.nodes) {
            bail!("a lab has 1 to {MAX_NODES} nodes, not {}", options.nodes);
        }
        let run = std::path::absolute(run)?;
        for hidden in ["/run", "/mnt", "/dev/shm", "/etc", "/var/log", "/proc", "/sys"] {
            for path in [run.as_path(), programs] {
                if path.starts_with(hidden) {
                    bail!(
                        "{} lies below {hidden}, which every node has for itself: \
                         use another folder (STEADFAST_LAB_RUN, CARGO_TARGET_DIR)",
                        path.display()
                    );
                }
            }
        }
        Ok(Lab { run, programs: programs.to_owned(), options })
    }

    /// The lab that runs in `run`.
    pub fn load(run: &Path) -> Result<Self> {
        let path = state_file(run);
        let text = fs::read_to_string(&path).with_context(|| {
            format!("no lab is up in {}: start one with `lab up`", run.display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    pub fn save(&self) -> Result<()> {
        sys::write(&state_file(&self.run), serde_json::to_vec_pretty(self)?)
    }

    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        (1..=self.options.nodes).map(Node)
    }

    /// A node of this lab, or the reason why not.
    pub fn check(&self, node: Node) -> Result<Node> {
        if node.0 > self.options.nodes {
            bail!("{node} is not in this lab: it has n1 to n{}", self.options.nodes);
        }
        Ok(node)
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Derived from the folder, so that labs of several clones do not meet and that what a
    /// crashed lab left behind is found again even when its folder was deleted.
    pub fn prefix(&self) -> String {
        let hash = fnv(self.run.as_os_str().as_encoded_bytes());
        format!("sf{:04x}", hash & 0xffff)
    }

    /// Folder of the sockets: `/run/lab` in the node.
    pub fn sockets(&self, node: Node) -> PathBuf {
        self.sockets_root().join(node.to_string())
    }

    pub fn sockets_root(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}", self.prefix()))
    }

    pub fn namespace(&self, node: Node) -> String {
        format!("{}{node}", self.prefix())
    }

    pub fn switch(&self) -> String {
        format!("{}sw", self.prefix())
    }

    /// Private files of a node: `etc`, `var/log`, ….
    pub fn home(&self, node: Node) -> PathBuf {
        self.run.join(node.to_string())
    }

    pub fn log(&self, node: Node, name: &str) -> PathBuf {
        self.home(node).join("var/log").join(name)
    }

    /// What all nodes see at [`SHARED`], each through its own fault switch.
    pub fn backing(&self) -> PathBuf {
        self.run.join("shared")
    }

    pub fn fault_control(&self, node: Node) -> PathBuf {
        self.sockets(node).join("fault.sock")
    }
}

fn state_file(run: &Path) -> PathBuf {
    run.join("lab.json")
}

/// FNV-1a: a stable number for a name.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_checked() {
        assert_eq!("n3".parse::<Node>(), Ok(Node(3)));
        for wrong in ["n0", "n10", "3", "web", "n"] {
            assert!(wrong.parse::<Node>().unwrap_err().contains("n1 to n9"), "{wrong}");
        }
    }

    #[test]
    fn a_lab_in_a_folder_that_nodes_hide_is_refused() {
        let options = Options::default();
        let error = Lab::new(Path::new("/run/lab"), Path::new("/tmp"), options).unwrap_err();
        assert!(error.to_string().contains("STEADFAST_LAB_RUN"), "{error}");
    }
}
