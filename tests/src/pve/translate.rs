//! A story of theirs as one of ours, in the words of `tests/scenarios`.
//!
//! Nodes keep their order and services their ids. Their network carries their configuration store too, so a node that loses it loses
//! our storage and its verification IPs as well. Between two groups of commands pass 100 s, as with them.

use super::story::{Command, Service, Shutdown, Story, Wish};
use std::fmt::Write as _;

/// Seconds between two groups of commands, and from the last one to the end.
const STEP: u64 = 100;
const REST: u64 = 400;

/// Writes our story.
///
/// # Errors
/// What of theirs has no counterpart here.
pub fn translate(story: &Story) -> Result<String, String> {
    let (text, deeds) = (String::new(), Vec::new());
    let mut script = Script { story, text, deeds };
    script.set_up();
    let mut second = 0;
    let (first, rest) = story.steps.split_first().ok_or("it has no commands")?;
    script.begin();
    let cold = begins_cold(first);
    for command in first.iter().filter(|command| !matches!(command, Command::Power(_, true))) {
        script.command(u64::from(!cold), command)?;
    }
    for step in rest {
        second += STEP;
        // What they are told in one round is weighed together; disarming comes first.
        let (first, later): (Vec<_>, Vec<_>) =
            step.iter().partition(|command| matches!(command, Command::Disarm { .. }));
        for command in first.into_iter().chain(later) {
            if let Command::Delay(more) = command {
                second += more;
            } else {
                script.command(second, command)?;
            }
        }
    }
    Ok(script.finish(second + REST))
}

/// With us all is well when a story begins, unless its nodes are switched on without a network.
fn begins_cold(first: &[Command]) -> bool {
    let is_on = |command: &Command| matches!(command, Command::Power(_, true));
    let is_cut = |command: &Command| matches!(command, Command::Network(_, false));
    first.iter().any(is_on) && first.iter().any(is_cut)
}

/// Our name of a service.
#[must_use]
pub fn vm_name(id: &str) -> String {
    id.replace(':', "-")
}

struct Script<'a> {
    story: &'a Story,
    text: String,
    /// What happens, and at which second.
    deeds: Vec<(u64, String)>,
}

impl Script<'_> {
    fn node(&self, name: &str) -> Result<String, String> {
        let at = self.story.nodes.iter().position(|node| node.name == name);
        at.map(|at| format!("n{}", at + 1)).ok_or_else(|| format!("unknown node {name}"))
    }

    fn line(&mut self, second: u64, deed: &str) {
        self.deeds.push((second, deed.into()));
    }

    /// Some deeds follow from an earlier one later than from a later one: time decides.
    fn finish(mut self, end: u64) -> String {
        self.deeds.sort_by_key(|(second, _)| *second);
        for (second, deed) in &self.deeds {
            let _ = writeln!(self.text, "at {second}s: {deed}");
        }
        let _ = writeln!(self.text, "end {end}s");
        self.text
    }

    fn set_up(&mut self) {
        let story = self.story;
        let _ = writeln!(self.text, "# {} of another manager is told to ours.", story.name);
        let _ = writeln!(self.text, "nodes {}", story.nodes.len());
        self.text
            .push_str("policies shipped\nverification IPs\nreboots take 20s\nafterwards nothing\n");
        if story.steps.first().is_some_and(|first| begins_cold(first)) {
            self.text.push_str("begin cold\n");
        }
        self.text.push_str(match story.shutdown {
            Shutdown::Conditional => "",
            Shutdown::Freeze => "hosts freeze\n",
            Shutdown::Failover => "hosts fail over\n",
            Shutdown::Migrate => "hosts migrate\n",
        });
        let on: Vec<&String> = story.steps.first().map_or(Vec::new(), |first| {
            let on = first.iter().filter_map(|command| match command {
                Command::Power(node, true) => Some(node),
                _ => None,
            });
            on.collect()
        });
        for (at, node) in story.nodes.iter().enumerate() {
            if !node.on && !on.contains(&&node.name) {
                let _ = writeln!(self.text, "n{} starts off", at + 1);
            }
        }
        for (id, service) in &story.services {
            self.vm(id, service, service.wish == Wish::Ignored);
        }
        for command in story.steps.iter().flatten() {
            if let Command::Add(id, node, _) = command
                && !story.services.contains_key(id)
            {
                self.vm(id, &Service { node: node.clone(), ..Service::default() }, true);
            }
        }
    }

    fn vm(&mut self, id: &str, service: &Service, without_ha: bool) {
        let home = self.node(&service.node).unwrap_or_else(|_| "n1".into());
        let mut words = format!("vm {} on {home}", vm_name(id));
        let failed = self.story.in_error.contains(id);
        // Theirs have one of each by default.
        let restarts = if failed { 0 } else { service.max_restart.unwrap_or(1) };
        let relocations = if failed { 0 } else { service.max_relocate.unwrap_or(1) };
        let _ = write!(words, " restarts={restarts} relocations={relocations}");
        if !service.nodes.is_empty() {
            let weight = |(name, weight): (&String, &u32)| {
                self.node(name).ok().map(|node| format!("{node}:{weight}"))
            };
            let nodes: Vec<String> = service.nodes.iter().filter_map(weight).collect();
            let _ = write!(words, " prefers={}", nodes.join(","));
        }
        for (word, holds) in
            [("strict", service.strict), ("stays", service.stays), ("without HA", without_ha)]
        {
            if holds {
                let _ = write!(words, " {word}");
            }
        }
        for (key, words_of) in [("together", &service.together), ("apart", &service.apart)] {
            if !words_of.is_empty() {
                let list: Vec<&str> = words_of.iter().map(String::as_str).collect();
                let _ = write!(words, " {key}={}", list.join(","));
            }
        }
        self.text.push_str(&words);
        self.text.push('\n');
    }

    /// What is so before the first command.
    fn begin(&mut self) {
        let story = self.story;
        for (id, service) in &story.services {
            let name = vm_name(id);
            if matches!(service.wish, Wish::Stopped | Wish::Disabled) {
                self.line(0, &format!("operator stops {name}"));
            }
            self.failures(id, service);
            if story.in_error.contains(id) {
                self.line(0, &format!("starts fail of {name}"));
                self.line(0, &format!("guest {name} dies"));
            }
        }
    }

    /// The second digit of `fa:` services: so many starts fail, and by the third so many migrations, on the node that the sixth
    /// names or on any.
    fn failures(&mut self, id: &str, service: &Service) {
        let Some(digits) = id.strip_prefix("fa:") else { return };
        let digit = |at: usize| digits.chars().nth(at).and_then(|c| c.to_digit(10)).unwrap_or(0);
        let (starts, migrations, limited) = (digit(1), digit(2), digit(5));
        let name = vm_name(id);
        if starts > 0 {
            let on = if limited > 0 { format!(" on n{limited}") } else { String::new() };
            self.line(0, &format!("starts of {name} fail {starts} times{on}"));
        }
        if migrations > 0 {
            self.line(0, &format!("migrations of {name} fail {migrations} times"));
        }
        // With them it never ran.
        if starts > 0 && limited == 0 && service.wish == Wish::Started {
            self.line(0, &format!("guest {name} dies"));
        }
    }

    fn command(&mut self, second: u64, command: &Command) -> Result<(), String> {
        match command {
            Command::Power(node, on) => {
                let name = self.node(node)?;
                self.line(second, &format!("power {name} {}", if *on { "on" } else { "off" }));
                if *on {
                    // With them a node that is switched on has its network again.
                    self.network(second, &name, true);
                }
            }
            Command::Network(node, up) => {
                let name = self.node(node)?;
                self.network(second, &name, *up);
            }
            Command::Shutdown(node) => self.shut_down(second, node, false)?,
            Command::Reboot(node) => self.shut_down(second, node, true)?,
            Command::RestartAgent(node) | Command::StopManager(node) => {
                let name = self.node(node)?;
                // systemd has it back after 2 s; away for longer than W it would cost the node.
                self.line(second, &format!("agent {name} crashes"));
            }
            Command::Store(node, works) => {
                let works = if *works { "works" } else { "fails" };
                let name = self.node(node)?;
                self.line(second, &format!("storage {name} {works}"));
            }
            Command::Maintenance(node, begins) => {
                let name = self.node(node)?;
                let words = if *begins { "begins maintenance of" } else { "ends maintenance of" };
                let how = if *begins { " restarting" } else { "" };
                self.line(second, &format!("operator {words} {name}{how}"));
            }
            Command::Disarm { .. } => self.line(second, "operator disarms"),
            Command::Arm => self.line(second, "operator arms"),
            Command::MoveByHand(id, node) => {
                let (vm, node) = (vm_name(id), self.node(node)?);
                self.line(second, &format!("guest {vm} is moved by hand to {node}"));
            }
            Command::Lock(id, kind) => {
                // A backup's lock goes after a failure, as with us there is none; any other is an error at the next start.
                if kind.is_some() {
                    self.line(second, &format!("starts fail of {}", vm_name(id)));
                }
            }
            Command::Delay(_) | Command::Nothing(_) => {}
            other => self.service(second, other)?,
        }
        Ok(())
    }

    fn network(&mut self, second: u64, name: &str, up: bool) {
        let (network, works) = if up { ("up", "works") } else { ("down", "fails") };
        self.line(second, &format!("network {name} {network}"));
        self.line(second, &format!("verification {name} {works}"));
        self.line(second, &format!("storage {name} {works}"));
    }

    fn service(&mut self, second: u64, command: &Command) -> Result<(), String> {
        let (id, deeds) = match command {
            Command::Wish(id, Wish::Started) => (id, ["enables", "starts"].as_slice()),
            Command::Wish(id, Wish::Ignored) | Command::Delete(id) => (id, ["disables"].as_slice()),
            Command::Wish(id, _) | Command::Stop(id) => (id, ["stops"].as_slice()),
            Command::Add(id, node, wish) => {
                let (vm, node) = (vm_name(id), self.node(node)?);
                self.line(second, &format!("operator enables {vm} on {node}"));
                if *wish != Wish::Started {
                    self.line(second + 5, &format!("operator stops {vm}"));
                }
                return Ok(());
            }
            Command::Migrate(id, node) => {
                let (vm, node) = (vm_name(id), self.node(node)?);
                self.line(second, &format!("operator migrates {vm} to {node}"));
                return Ok(());
            }
            Command::Relocate(id, node) => {
                let (vm, node) = (vm_name(id), self.node(node)?);
                self.line(second, &format!("operator relocates {vm} to {node}"));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let ignored = self.is_ignored_before(id, second);
        let home = self.home_of(id, second)?;
        for deed in deeds.iter().filter(|deed| ignored || **deed != "enables") {
            let at = if *deed == "enables" { format!(" on {home}") } else { String::new() };
            self.line(second, &format!("operator {deed} {}{at}", vm_name(id)));
        }
        Ok(())
    }

    /// Where it was configured, or moved by hand.
    fn home_of(&self, id: &str, second: u64) -> Result<String, String> {
        let steps = usize::try_from(second / STEP).unwrap_or(usize::MAX);
        let mut moved = self.story.steps.iter().take(steps).flatten().filter_map(|c| match c {
            Command::MoveByHand(other, node) if other == id => Some(node),
            _ => None,
        });
        let home =
            moved.next_back().or_else(|| self.story.services.get(id).map(|service| &service.node));
        home.map_or(Ok("n1".into()), |home| self.node(home))
    }

    /// The service is not under HA when this second comes.
    fn is_ignored_before(&self, id: &str, second: u64) -> bool {
        let mut ignored = self.story.services.get(id).is_none_or(|s| s.wish == Wish::Ignored);
        let steps = usize::try_from(second / STEP).unwrap_or(usize::MAX);
        for command in self.story.steps.iter().take(steps).flatten() {
            match command {
                Command::Wish(other, wish) if other == id => ignored = *wish == Wish::Ignored,
                Command::Add(other, ..) if other == id => ignored = false,
                Command::Delete(other) if other == id => ignored = true,
                _ => {}
            }
        }
        ignored
    }

    fn shut_down(&mut self, second: u64, node: &str, reboot: bool) -> Result<(), String> {
        let name = self.node(node)?;
        let how = if reboot { "reboots" } else { "shuts down" };
        self.line(second, &format!("host {name} {how}"));
        Ok(())
    }
}
