//! libvirt's hook: before a VM starts or arrives on this node, by whatever tool, libvirt runs a small script, the
//! script asks the agent, and a VM under HA passes only with the agent's leave (PROTOCOL section 7). While
//! the agent is down the script knows HA VMs by a list on disk, and lets none of them pass.
//!
//! Everybody else's VMs pass, always.

pub mod ask;
pub mod check;
pub mod gate;
pub mod install;
pub mod list;

use crate::config::Config;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use steadfast_core::ids::VmId;
use steadfast_core::time::Instant;

/// How long libvirt may be kept waiting for an answer: it holds a lock of the VM meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Where the script and the agent meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The agent's socket for the hook.
    pub socket: PathBuf,
    /// HA VMs, for the time when the agent is down.
    pub list: PathBuf,
    /// Records of starts in flight.
    pub starts: PathBuf,
}

impl Places {
    /// As `config` has them.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            socket: config.run.join("hook.sock"),
            list: config.state.join("ha-vms"),
            starts: config.run.join("starts"),
        }
    }
}

/// What libvirt is about to do, or has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Start it, restore it, or let it arrive: a QEMU process comes next.
    Prepare,
    /// Let it arrive; `Prepare` follows.
    Migrate,
    /// It has ended, and nothing of it is left.
    Release,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Migrate => "migrate",
            Self::Release => "release",
        })
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "prepare" => Ok(Self::Prepare),
            "migrate" => Ok(Self::Migrate),
            "release" => Ok(Self::Release),
            _ => Err(format!("{text:?} is not an operation that steadfast's hook is asked about")),
        }
    }
}

/// A question of the script's, one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What libvirt is about to do.
    pub operation: Operation,
    /// The VM.
    pub vm: VmId,
    /// Own time at which it was asked: after [`PATIENCE`] nobody waits for the answer any more.
    pub asked: Instant,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.operation, self.vm, self.asked.0)
    }
}

impl FromStr for Question {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (operation, vm, asked) = (words.next(), words.next(), words.next());
        let (Some(operation), Some(vm), Some(asked)) = (operation, vm, asked) else {
            return Err(format!("expected OPERATION UUID TIME, got {line:?}"));
        };
        let asked = asked.parse().map_err(|_| format!("{asked:?} is no time"))?;
        let vm = VmId(vm.to_ascii_lowercase());
        Ok(Self { operation: operation.parse()?, vm, asked: Instant(asked) })
    }
}

/// The agent's answer, one line: it may pass, or why not.
pub type Answer = Result<(), String>;

fn encode(answer: &Answer) -> String {
    match answer {
        Ok(()) => "allow\n".into(),
        Err(why) => format!("refuse {}\n", why.replace('\n', " ")),
    }
}

/// `None` if it is no answer.
fn decode(line: &str) -> Option<Answer> {
    match line.trim_end().split_once(' ') {
        None if line.trim_end() == "allow" => Some(Ok(())),
        Some(("refuse", why)) => Some(Err(why.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_the_socket() {
        let question = Question {
            operation: Operation::Prepare,
            vm: VmId("4f8b0c1e-0000-4000-8000-000000000001".into()),
            asked: Instant(77),
        };
        assert_eq!(question.to_string().parse(), Ok(question));
        assert!("prepare x".parse::<Question>().is_err());
        for answer in [Ok(()), Err("it belongs to n2".to_owned())] {
            assert_eq!(decode(&encode(&answer)), Some(answer));
        }
        assert_eq!(decode(&encode(&Err("a\nb".into()))), Some(Err("a b".into())));
        assert_eq!(decode(""), None);
        assert_eq!(decode("allowed"), None);
    }
}
