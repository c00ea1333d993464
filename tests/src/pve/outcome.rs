//! What a story comes to: the same summary for their log and for our world.

use std::collections::{BTreeMap, BTreeSet};

/// How a story ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes that were cut off: fenced, or reset by their watchdog.
    pub fenced: BTreeSet<String>,
    /// Services still managed, by id.
    pub services: BTreeMap<String, Ended>,
}

/// How one service ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its node.
    pub node: String,
    /// Its state.
    pub state: State,
    /// Seconds from its first start to the end in which it did not run.
    pub down: u64,
    /// Seconds at which it last started, while it runs.
    running_since: Option<u64>,
    first_start: Option<u64>,
    ran: u64,
    last_start: u64,
}

/// States that both sides know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// It runs, or is to.
    #[default]
    Started,
    /// It is off, as wished.
    Stopped,
    /// It was given up.
    Failed,
    /// It waits for a place, or for its node.
    Waiting,
    /// It is not managed at present.
    Frozen,
}

impl Ended {
    /// It runs from `second` on.
    pub fn starts(&mut self, second: u64) {
        self.first_start.get_or_insert(second);
        if self.running_since.is_none() {
            self.last_start = second;
        }
        self.running_since.get_or_insert(second);
    }

    /// Second of its first start.
    #[must_use]
    pub fn first_started(&self) -> u64 {
        self.first_start.unwrap_or(0)
    }

    /// Second of its last start after which it ran to the end, or of none.
    #[must_use]
    pub fn last_started(&self) -> u64 {
        self.last_start
    }

    /// It runs no more.
    pub fn stops(&mut self, second: u64) {
        if let Some(since) = self.running_since.take() {
            self.ran += second.saturating_sub(since);
        }
    }

    /// The story is over.
    pub fn ends(&mut self, second: u64) {
        let running = self.running_since.is_some();
        self.stops(second);
        if running {
            self.running_since = Some(second);
        } else if self.state == State::Started {
            // Its manager would have it run, and nothing does.
            self.state = State::Waiting;
        }
        let whole = self.first_start.map_or(0, |first| second.saturating_sub(first));
        self.down = whole.saturating_sub(self.ran);
    }
}

impl Outcome {
    /// Reads `log.expect`. Lines that say nothing about the outcome are passed over.
    #[must_use]
    pub fn read(log: &str) -> Self {
        let mut outcome = Self::default();
        let mut last = 0;
        for line in log.lines() {
            let mut words = line.split_whitespace();
            let (Some(_), Some(time), Some(source)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let Ok(second) = time.parse() else { continue };
            last = second;
            let text: Vec<&str> = words.collect();
            let agent = source.trim_end_matches(':').split_once('/');
            match agent {
                Some((_, "crm")) => outcome.manager_says(&text),
                Some((node, "lrm")) => outcome.agent_says(node, &text, second),
                _ => outcome.world_says(&text),
            }
        }
        outcome.services.values_mut().for_each(|ended| ended.ends(last));
        outcome
    }

    fn service(&mut self, quoted: &str) -> &mut Ended {
        self.services.entry(unquote(quoted)).or_default()
    }

    fn manager_says(&mut self, text: &[&str]) {
        match text {
            ["adding", "new", "service", id, "on", "node", node] => {
                let node = unquote(node);
                *self.service(id) = Ended { node, ..Ended::default() };
            }
            ["removing", "stale", "service", id, ..] => {
                self.services.remove(&unquote(id));
            }
            ["FENCE:", "Try", "to", "fence", "node", node] => {
                self.fenced.insert(unquote(node));
            }
            ["service", id, "state", "changed", "from", _, "to", state, rest @ ..]
            | ["service", id, "state", "changed", "from", _, "=>", state, rest @ ..] => {
                self.changes(id, state, rest);
            }
            // Nothing is logged of them when HA is on again: they are as they were.
            ["disarm:", "suspending", ..] => {}
            ["disarm:", "freezing", "service", id, ..] => self.service(id).state = State::Frozen,
            _ => {}
        }
    }

    fn changes(&mut self, id: &str, state: &str, rest: &[&str]) {
        let id = id.trim_end_matches(':');
        let ended = self.service(id);
        ended.state = match unquote(state).as_str() {
            "stopped" | "request_stop" => State::Stopped,
            "error" => State::Failed,
            "fence" | "recovery" => State::Waiting,
            "freeze" => State::Frozen,
            _ => State::Started,
        };
        // "(node = node1)" or "(node = node1, target = node2)"
        if let ["(node", "=", node, ..] = rest {
            ended.node = node.trim_end_matches([')', ',']).into();
        }
    }

    fn agent_says(&mut self, node: &str, text: &[&str], second: u64) {
        match text {
            ["service", "status", id, "started"] => {
                let ended = self.service(id);
                ended.starts(second);
                ended.node = node.into();
            }
            ["service", "status", id, "stopped"] => self.service(id).stops(second),
            ["stopping", "service", id, ..] => self.service(id).stops(second),
            ["killed", "by", "poweroff"] => {
                for ended in self.services.values_mut().filter(|ended| ended.node == node) {
                    ended.stops(second);
                }
            }
            _ => {}
        }
    }

    fn world_says(&mut self, text: &[&str]) {
        match text {
            ["server", node, "stopped", "by", "poweroff", "(watchdog)"] => {
                self.fenced.insert(unquote(node));
            }
            ["execute", "service", id, "manual-migrate", node] => {
                self.service(id).node = unquote(node);
            }
            _ => {}
        }
    }
}

fn unquote(word: &str) -> String {
    word.trim_matches(['\'', ':', ',']).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_for_its_outcome() {
        let log = "info  20  a/crm: adding new service 'vm:1' on node 'b'\n\
                   info  30  b/lrm: service status vm:1 started\n\
                   emai  60  a/crm: FENCE: Try to fence node 'b'\n\
                   info  66  b/lrm: killed by poweroff\n\
                   info  90  a/crm: service 'vm:1': state changed from 'recovery' to 'started'  (node = a)\n\
                   info  96  a/lrm: service status vm:1 started\n\
                   info 130  hardware: exit simulation - done\n";
        let outcome = Outcome::read(log);
        assert_eq!(outcome.fenced, ["b".to_string()].into());
        let ended = &outcome.services["vm:1"];
        assert_eq!((ended.node.as_str(), ended.state, ended.down), ("a", State::Started, 30));
    }
}
