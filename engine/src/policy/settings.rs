//! What the configuration says of policies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::rehearsal::Largest;
use super::signature::Key;
use super::{Kind, Limits};

/// How policies are chosen, checked and limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Kinds that one policy is to decide, by its name or its file's; for the others the folder alone says.
    pub bind: BTreeMap<Kind, String>,
    /// Which policies that do not decide are asked all the same.
    pub shadow: Shadow,
    /// If there are any, one of them must have signed every file.
    pub keys: Vec<Key>,
    /// What every policy must be able to serve.
    pub largest: Largest,
    /// What a policy may be and use.
    pub limits: Limits,
    /// Where rollbacks are remembered over restarts; `None`: nowhere.
    pub state: Option<PathBuf>,
    /// The folder is read so often without any event: network file systems and symlinks' targets have none.
    pub rescan: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bind: BTreeMap::new(),
            shadow: Shadow::None,
            keys: Vec::new(),
            largest: Largest::default(),
            limits: Limits::default(),
            state: None,
            rescan: Duration::from_secs(30),
        }
    }
}

/// Which policies are asked without deciding. What they say is compared and counted, never obeyed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Shadow {
    /// None.
    #[default]
    None,
    /// Every valid one in the folder.
    All,
    /// Those of these names or files.
    Named(Vec<String>),
}

impl Shadow {
    /// Whether the policy is one of them.
    pub(super) fn wants(&self, name: &str, file: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.iter().any(|wanted| is_called(wanted, name, file)),
        }
    }
}

/// Whether people call a policy so: by its name, its file, or its file without the ending.
pub(super) fn is_called(called: &str, name: &str, file: &str) -> bool {
    called == name || called == file || Some(called) == file.strip_suffix(".wasm")
}

impl From<Limits> for Settings {
    fn from(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }
}
