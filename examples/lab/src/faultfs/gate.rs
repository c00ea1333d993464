//! The fault switch in front of a node's view of the shared storage.

use std::fmt;
use std::str::FromStr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::Errno;

/// What the storage does with requests of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Ok,
    /// Every request waits until the mode changes; callers sit in D state, like on a hard NFS mount.
    Hang,
    /// Writes to guests' disks wait, nothing else does: a guest that cannot be stopped on a node that is otherwise well.
    HangDisks,
    Eio,
    /// Writes fail as on a file system that went read-only.
    Ro,
    Enospc,
    Delay(Duration),
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["ok"] => Ok(Mode::Ok),
            ["hang"] => Ok(Mode::Hang),
            ["hang-disks"] => Ok(Mode::HangDisks),
            ["eio"] => Ok(Mode::Eio),
            ["ro"] => Ok(Mode::Ro),
            ["enospc"] => Ok(Mode::Enospc),
            ["delay", ms] => match ms.parse() {
                Ok(ms) => Ok(Mode::Delay(Duration::from_millis(ms))),
                Err(_) => Err(format!("delay wants a number of milliseconds, got {ms:?}")),
            },
            _ => Err(format!(
                "unknown storage mode {text:?}: use ok, hang, hang-disks, eio, ro, enospc or `delay MS`"
            )),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Ok => out.write_str("ok"),
            Mode::Hang => out.write_str("hang"),
            Mode::HangDisks => out.write_str("hang-disks"),
            Mode::Eio => out.write_str("eio"),
            Mode::Ro => out.write_str("ro"),
            Mode::Enospc => out.write_str("enospc"),
            Mode::Delay(time) => write!(out, "delay {}", time.as_millis()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    waiting: usize,
}

#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Gate {
    fn default() -> Self {
        let state = Mutex::new(State { mode: Mode::Ok, waiting: 0 });
        Gate { state, changed: Condvar::new() }
    }
}

impl Gate {
    /// Every request passes here before it touches the backing directory.
    pub fn pass(&self, access: Access) -> Result<(), Errno> {
        match self.wait_while(|mode| mode == Mode::Hang) {
            Mode::Ok | Mode::Hang | Mode::HangDisks => Ok(()),
            Mode::Eio => Err(Errno::EIO),
            Mode::Ro if access == Access::Write => Err(Errno::EROFS),
            Mode::Enospc if access == Access::Write => Err(Errno::ENOSPC),
            Mode::Ro | Mode::Enospc => Ok(()),
            Mode::Delay(time) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }

    /// A write passes here too; `is_disk` tells whether it is one to a guest's disk.
    pub fn pass_write(&self, is_disk: impl Fn() -> bool) {
        self.wait_while(|mode| mode == Mode::HangDisks && is_disk());
    }

    /// The mode that ended the wait.
    fn wait_while(&self, waits: impl Fn(Mode) -> bool) -> Mode {
        let mut state = self.lock();
        while waits(state.mode) {
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.mode
    }

    pub fn set(&self, mode: Mode) {
        self.lock().mode = mode;
        self.changed.notify_all();
    }

    /// The answer of the control socket.
    pub fn describe(&self) -> String {
        let state = self.lock();
        format!("{} waiting={}", state.mode, state.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive_a_round_trip() {
        for text in ["ok", "hang", "hang-disks", "eio", "ro", "enospc", "delay 250"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        assert!("delay".parse::<Mode>().is_err());
        assert!("delay soon".parse::<Mode>().unwrap_err().contains("soon"));
        assert!("slow".parse::<Mode>().unwrap_err().contains("enospc"));
    }

    #[test]
    fn read_only_storage_refuses_writes_alone() {
        let gate = Gate::default();
        gate.set(Mode::Ro);
        assert!(gate.pass(Access::Read).is_ok());
        assert!(gate.pass(Access::Write).is_err());
    }

    #[test]
    fn a_hang_ends_when_the_mode_changes() {
        let gate = std::sync::Arc::new(Gate::default());
        gate.set(Mode::Hang);
        let waiter = std::thread::spawn({
            let gate = gate.clone();
            move || gate.pass(Access::Read).is_ok()
        });
        while !gate.describe().ends_with("waiting=1") {
            std::thread::yield_now();
        }
        gate.set(Mode::Ok);
        assert!(waiter.join().unwrap());
    }
}
