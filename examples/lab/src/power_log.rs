//! Every power cut, by whatever means, with its time: `power.log`, one JSON object a line.

use std::fs::{self, File};
use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::lab::{Lab, Node};
use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// `lab kill`.
    Kill,
    /// The watchdog was not fed in time.
    Watchdog,
    /// The fence agent asked for it.
    Fence,
    /// The node reset itself.
    Sysrq,
    /// `lab down`.
    Down,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PowerCut {
    pub wall_ms: u64,
    /// `CLOCK_MONOTONIC`, which all processes of the machine share.
    pub mono_ms: u64,
    pub node: Node,
    pub cause: Cause,
    pub pid: i32,
}

pub fn append(lab: &Lab, node: Node, cause: Cause, pid: i32) {
    let cut = PowerCut { wall_ms: sys::wall_ms(), mono_ms: sys::monotonic_ms(), node, cause, pid };
    let Ok(mut line) = serde_json::to_vec(&cut) else { return };
    line.push(b'\n');
    // One write of one line: several processes append. A full disk must not stop a power cut.
    let log = File::options().create(true).append(true).open(lab.run.join("power.log"));
    let _ = log.and_then(|mut log| log.write_all(&line));
}

impl Lab {
    /// All power cuts since the lab came up, oldest first.
    pub fn power_cuts(&self) -> Result<Vec<PowerCut>> {
        let text = fs::read_to_string(self.run.join("power.log")).unwrap_or_default();
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}
