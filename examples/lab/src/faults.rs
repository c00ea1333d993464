//! What can go wrong, on demand.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::faultfs::{self, Mode};
use crate::lab::{Lab, Node};
use crate::net;
use crate::power_log::Cause;
use crate::sys::{self, Process};
use crate::wait;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cut {
    /// All three cables: control links and the guests' network.
    Network,
    /// The two control links; the verification address still answers.
    Control,
    /// Every request to the shared storage hangs (or fails, with --mode).
    Storage,
    /// Network and storage.
    Both,
}

impl Lab {
    /// A power cut.
    pub fn kill(&self, node: Node) -> Result<()> {
        self.check(node)?;
        if self.power(node).is_none() {
            bail!("{node} is off already");
        }
        self.power_off(node, Cause::Kill)
    }

    pub fn cut(&self, node: Node, what: Cut, storage: Mode) -> Result<()> {
        self.check(node)?;
        match what {
            Cut::Network => net::set_links(self, node, net::ALL, false)?,
            Cut::Control => net::set_links(self, node, net::CONTROL, false)?,
            Cut::Storage => self.set_storage(node, storage)?,
            Cut::Both => {
                net::set_links(self, node, net::ALL, false)?;
                self.set_storage(node, storage)?;
            }
        }
        Ok(())
    }

    pub fn set_storage(&self, node: Node, mode: Mode) -> Result<()> {
        faultfs::set_mode(&self.fault_control(node), mode).map(drop)
    }

    /// Ends every fault of the node: cables, storage, a stall that was left.
    pub fn heal(&self, node: Node) -> Result<()> {
        self.check(node)?;
        net::set_links(self, node, net::ALL, true)?;
        if self.power(node).is_none() {
            return Ok(());
        }
        self.thaw(&self.members(node));
        self.set_storage(node, Mode::Ok)
    }

    /// Stops every process of the node for some time, QEMU and storage included. If the watchdog
    /// cuts the node's power meanwhile, it stays off.
    pub fn stall(&self, node: Node, time: Duration) -> Result<()> {
        self.check(node)?;
        let Some(boot) = self.power(node) else { bail!("{node} is powered off") };
        let stopped = self.freeze(node);
        let what = format!("{} processes of {node} stopped", stopped.len());
        let result = wait::hold(&what, time);
        self.thaw(&stopped);
        if result.is_ok() && !boot.is_alive() {
            eprintln!("{node} lost its power while it was stalled");
        }
        result
    }

    /// Stops processes until no running one is left: a running one may have started others.
    pub fn freeze(&self, node: Node) -> Vec<Process> {
        let mut stopped: Vec<Process> = Vec::new();
        loop {
            let fresh: Vec<Process> =
                self.members(node).into_iter().filter(|it| !stopped.contains(it)).collect();
            if fresh.is_empty() {
                return stopped;
            }
            fresh.iter().for_each(|process| process.signal(Signal::SIGSTOP));
            stopped.extend(fresh);
        }
    }

    pub fn thaw(&self, stopped: &[Process]) {
        stopped.iter().for_each(|process| process.signal(Signal::SIGCONT));
    }

    /// Like `processes`, without the names: this must be quick.
    fn members(&self, node: Node) -> Vec<Process> {
        let Some(namespace) = self.power(node).and_then(|first| first.namespace("pid")) else {
            return Vec::new();
        };
        let pids = sys::pids().into_iter();
        pids.filter(|pid| sys::namespace(*pid, "pid").as_ref() == Some(&namespace))
            .filter_map(Process::new)
            .filter(|process| process.is_alive())
            .collect()
    }
}
