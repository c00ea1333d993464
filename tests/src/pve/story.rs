//! Input of one test folder: `cmdlist`, `hardware_status`, `service_config`, `rules_config` or `groups`, `manager_status`,
//! `datacenter.cfg`, `static_service_stats`. Everything but the first three is optional.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One folder, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Story {
    /// Name of the folder.
    pub name: String,
    /// Nodes, in order.
    pub nodes: Vec<Hardware>,
    /// Services by their id, e.g. `vm:101`.
    pub services: BTreeMap<String, Service>,
    /// One group of commands each 100 s of their time.
    pub steps: Vec<Vec<Command>>,
    /// What happens to services when a node is shut down.
    pub shutdown: Shutdown,
    /// Services that their manager had given up before the story, by `manager_status`.
    pub in_error: BTreeSet<String>,
    /// It asks their scheduler for balance: placement, which is policy.
    pub schedules: bool,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hardware {
    /// Its name.
    pub name: String,
    /// Switched on before the first command.
    pub on: bool,
    /// CPUs; 0 where the story does not say.
    pub cpus: u64,
    /// Memory in bytes; 0 where the story does not say.
    pub memory: u64,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Where it is configured.
    pub node: String,
    /// What its operator wants.
    pub wish: Wish,
    /// Restarts on its node.
    pub max_restart: Option<u32>,
    /// Relocations.
    pub max_relocate: Option<u32>,
    /// Preferred nodes with weights.
    pub nodes: BTreeMap<String, u32>,
    /// Only those.
    pub strict: bool,
    /// It does not return to a better node.
    pub stays: bool,
    /// Words shared by those that must be together.
    pub together: BTreeSet<String>,
    /// Words shared by those that must be apart.
    pub apart: BTreeSet<String>,
    /// Memory in bytes, by the static statistics.
    pub memory: u64,
    /// CPUs, by the static statistics.
    pub cpus: u64,
}

/// What an operator wants of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// It runs.
    Started,
    /// It is kept, stopped.
    #[default]
    Stopped,
    /// It is kept, stopped, and not moved.
    Disabled,
    /// It is left alone.
    Ignored,
}

/// What becomes of services when their node is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shutdown {
    /// Frozen at a reboot, failed over at a shutdown.
    #[default]
    Conditional,
    /// Moved away first.
    Migrate,
    /// Failed over.
    Failover,
    /// Frozen.
    Freeze,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `power NODE on|off`
    Power(String, bool),
    /// `network NODE on|off`
    Network(String, bool),
    /// `shutdown NODE`
    Shutdown(String),
    /// `reboot NODE`
    Reboot(String),
    /// `restart-lrm NODE`: the node's agent.
    RestartAgent(String),
    /// `cfs NODE rw|update fail|work`: the node's configuration store fails.
    Store(String, bool),
    /// `crm NODE stop`
    StopManager(String),
    /// `crm NODE enable-node-maintenance` and its opposite.
    Maintenance(String, bool),
    /// `crm NODE disarm-ha freeze|ignore`
    Disarm {
        /// Services are as if they were not there.
        ignore: bool,
    },
    /// `crm NODE arm-ha`
    Arm,
    /// `service SID started|stopped|...`
    Wish(String, Wish),
    /// `service SID add NODE STATE`
    Add(String, String, Wish),
    /// `service SID delete`
    Delete(String),
    /// `service SID migrate NODE`
    Migrate(String, String),
    /// `service SID relocate NODE`
    Relocate(String, String),
    /// `service SID manual-migrate NODE`: behind the manager's back.
    MoveByHand(String, String),
    /// `service SID stop SECONDS`
    Stop(String),
    /// `service SID lock [KIND]`
    Lock(String, Option<String>),
    /// Extra time in seconds.
    Delay(u64),
    /// Says nothing about our engine: versions of their packages, statistics of their scheduler, skipped rounds.
    Nothing(String),
}

impl Story {
    /// Reads a folder.
    ///
    /// # Errors
    /// What is missing or cannot be understood, with the file's name.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut story = Self { name, ..Self::default() };
        story.read_hardware(&json(folder, "hardware_status")?)?;
        story.read_services(&json(folder, "service_config")?)?;
        story.read_steps(&json(folder, "cmdlist")?)?;
        if let Ok(text) = fs::read_to_string(folder.join("rules_config")) {
            story.read_rules(&text);
        }
        if let Ok(text) = fs::read_to_string(folder.join("groups")) {
            story.read_groups(folder, &text)?;
        }
        if let Ok(value) = json(folder, "datacenter.cfg") {
            story.read_datacenter(&value);
        }
        if let Ok(value) = json(folder, "static_service_stats") {
            story.read_statistics(&value);
        }
        if let Ok(value) = json(folder, "manager_status") {
            story.read_status(&value);
        }
        Ok(story)
    }

    fn read_hardware(&mut self, value: &Value) -> Result<(), String> {
        let nodes = value.as_object().ok_or("hardware_status: expected an object of nodes")?;
        for (name, facts) in nodes {
            let number = |key: &str| facts[key].as_u64().unwrap_or(0);
            self.nodes.push(Hardware {
                name: name.clone(),
                on: facts["power"] == "on",
                cpus: number("maxcpu"),
                memory: number("maxmem"),
            });
        }
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    fn read_services(&mut self, value: &Value) -> Result<(), String> {
        let services = value.as_object().ok_or("service_config: expected an object of services")?;
        for (id, facts) in services {
            let count = |key: &str| number(&facts[key]);
            let service = Service {
                node: facts["node"].as_str().unwrap_or_default().into(),
                wish: wish(facts["state"].as_str().unwrap_or("stopped")),
                max_restart: count("max_restart"),
                max_relocate: count("max_relocate"),
                stays: facts["failback"] == 0 || facts["failback"] == "0",
                ..Service::default()
            };
            self.services.insert(id.clone(), service);
        }
        Ok(())
    }

    fn read_steps(&mut self, value: &Value) -> Result<(), String> {
        let steps = value.as_array().ok_or("cmdlist: expected an array of arrays")?;
        for step in steps {
            let lines = step.as_array().ok_or("cmdlist: expected an array of arrays")?;
            let texts = lines.iter().filter_map(Value::as_str);
            self.steps.push(texts.map(command).collect::<Result<_, _>>()?);
        }
        Ok(())
    }

    /// `KIND: NAME` and indented `KEY VALUE` lines.
    fn read_rules(&mut self, text: &str) {
        for (kind, name, keys) in sections(text) {
            let listed = keys.get("resources").map(String::as_str).unwrap_or_default();
            let ids: Vec<String> = listed.split(',').map(|id| id.trim().to_string()).collect();
            let positive = keys.get("affinity").is_some_and(|word| word == "positive");
            let disabled = keys.get("disable").is_some_and(|word| word == "1");
            for (_, service) in self.services.iter_mut().filter(|(id, _)| ids.contains(id)) {
                match kind.as_str() {
                    _ if disabled => {}
                    "node-affinity" => {
                        service.nodes = weights(keys.get("nodes"));
                        service.strict = keys.get("strict").is_some_and(|word| word == "1");
                    }
                    _ if positive => drop(service.together.insert(name.clone())),
                    _ => drop(service.apart.insert(name.clone())),
                }
            }
        }
    }

    fn read_groups(&mut self, folder: &Path, text: &str) -> Result<(), String> {
        let config = json(folder, "service_config")?;
        for (_, name, keys) in sections(text) {
            let is_set = |key: &str| keys.get(key).is_some_and(|word| word == "1");
            for (id, service) in &mut self.services {
                if config[id]["group"] == name.as_str() {
                    service.nodes = weights(keys.get("nodes"));
                    service.strict = is_set("restricted");
                    service.stays = is_set("nofailback");
                }
            }
        }
        Ok(())
    }

    fn read_datacenter(&mut self, value: &Value) {
        self.schedules = value["crs"].is_object();
        self.shutdown = match value["ha"]["shutdown_policy"].as_str() {
            Some("migrate") => Shutdown::Migrate,
            Some("failover") => Shutdown::Failover,
            Some("freeze") => Shutdown::Freeze,
            _ => Shutdown::Conditional,
        };
    }

    fn read_statistics(&mut self, value: &Value) {
        for (id, service) in &mut self.services {
            service.cpus = value[id]["maxcpu"].as_u64().unwrap_or(0);
            service.memory = value[id]["maxmem"].as_u64().unwrap_or(0);
        }
    }

    fn read_status(&mut self, value: &Value) {
        let Some(services) = value["service_status"].as_object() else { return };
        let in_error = services.iter().filter(|(_, facts)| facts["state"] == "error");
        self.in_error = in_error.map(|(id, _)| id.clone()).collect();
    }
}

fn json(folder: &Path, file: &str) -> Result<Value, String> {
    let text = fs::read_to_string(folder.join(file)).map_err(|error| format!("{file}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))
}

/// They write numbers with and without quotes.
fn number(value: &Value) -> Option<u32> {
    let plain = value.as_u64().and_then(|number| u32::try_from(number).ok());
    plain.or_else(|| value.as_str()?.parse().ok())
}

fn wish(word: &str) -> Wish {
    match word {
        "started" | "enabled" => Wish::Started,
        "disabled" => Wish::Disabled,
        "ignored" => Wish::Ignored,
        _ => Wish::Stopped,
    }
}

type Section = (String, String, BTreeMap<String, String>);

fn sections(text: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words = line.trim();
        if line.starts_with(char::is_whitespace) {
            let (key, value) = words.split_once(char::is_whitespace).unwrap_or((words, "1"));
            if let Some((_, _, keys)) = found.last_mut() {
                keys.insert(key.into(), value.trim().into());
            }
        } else if let Some((kind, name)) = words.split_once(':') {
            found.push((kind.into(), name.trim().into(), BTreeMap::new()));
        }
    }
    found
}

/// `node2:2,node3`
fn weights(list: Option<&String>) -> BTreeMap<String, u32> {
    let entries = list.map(String::as_str).unwrap_or_default().split(',');
    let entry = |text: &str| {
        let (name, weight) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
        (name.to_string(), weight.parse().unwrap_or(0))
    };
    entries.filter(|text| !text.trim().is_empty()).map(entry).collect()
}

fn command(text: &str) -> Result<Command, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let own = |word: &str| word.to_string();
    Ok(match words[..] {
        ["power", node, word] => Command::Power(own(node), word == "on"),
        ["network", node, word] => Command::Network(own(node), word == "on"),
        ["shutdown", node] => Command::Shutdown(own(node)),
        ["reboot", node] => Command::Reboot(own(node)),
        ["restart-lrm", node] => Command::RestartAgent(own(node)),
        ["cfs", node, _, word] => Command::Store(own(node), word == "work"),
        ["crm", node, "stop"] => Command::StopManager(own(node)),
        ["crm", node, "enable-node-maintenance"] => Command::Maintenance(own(node), true),
        ["crm", node, "disable-node-maintenance"] => Command::Maintenance(own(node), false),
        ["crm", _, "disarm-ha", word] => Command::Disarm { ignore: word == "ignore" },
        ["crm", _, "arm-ha"] => Command::Arm,
        ["service", id, "add", node, state] => Command::Add(own(id), own(node), wish(state)),
        ["service", id, "add", node] => Command::Add(own(id), own(node), Wish::Started),
        ["service", id, "add", node, state, ..] => Command::Add(own(id), own(node), wish(state)),
        ["service", id, "delete"] => Command::Delete(own(id)),
        ["service", id, "migrate", node] => Command::Migrate(own(id), own(node)),
        ["service", id, "relocate", node] => Command::Relocate(own(id), own(node)),
        ["service", id, "manual-migrate", node] => Command::MoveByHand(own(id), own(node)),
        ["service", id, "stop", _] => Command::Stop(own(id)),
        ["service", id, "lock"] => Command::Lock(own(id), None),
        ["service", id, "lock", kind] => Command::Lock(own(id), Some(own(kind))),
        ["service", id, "started" | "enabled"] => Command::Wish(own(id), Wish::Started),
        ["service", id, word @ ("stopped" | "disabled" | "ignored")] => {
            Command::Wish(own(id), wish(word))
        }
        ["delay", seconds] => Command::Delay(seconds.parse().unwrap_or(0)),
        ["service", _, "set-static-stats" | "set-dynamic-stats", ..]
        | ["pve-manager-version" | "skip-round", ..] => Command::Nothing(text.into()),
        _ => return Err(format!("cmdlist: unknown command {text:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_and_strange_ones_are_named() {
        assert_eq!(command("power a on"), Ok(Command::Power("a".into(), true)));
        assert_eq!(command("crm a disarm-ha ignore"), Ok(Command::Disarm { ignore: true }));
        assert_eq!(command("service vm:1 stop 30"), Ok(Command::Stop("vm:1".into())));
        assert_eq!(command("jump"), Err("cmdlist: unknown command \"jump\"".into()));
    }

    #[test]
    fn numbers_may_be_quoted() {
        assert_eq!(number(&Value::from(2)), Some(2));
        assert_eq!(number(&Value::from("0")), Some(0));
        assert_eq!(number(&Value::Null), None);
    }

    #[test]
    fn sections_hold_their_indented_keys() {
        let found = sections("node-affinity: here\n\tnodes a:2,b\n\tresources vm:1\n\tstrict 1\n");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("node-affinity", "here"));
        assert_eq!(weights(found[0].2.get("nodes")), [("a".into(), 2), ("b".into(), 0)].into());
        assert_eq!(found[0].2["strict"], "1");
    }
}
