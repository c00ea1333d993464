//! The script's side: asks the agent, and goes by the list if no agent answers.

use super::list::{self, HaVms};
use super::{Answer, Operation, PATIENCE, Places, Question, decode};
use crate::clock::Clock;
use roxmltree::Document;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use steadfast_core::ids::VmId;

/// May libvirt go on with the VM of this name, whose definition is `xml`?
///
/// # Errors
/// Why not, for whoever asked libvirt.
pub fn ask(places: &Places, operation: Operation, name: &str, xml: &str) -> Answer {
    let Some(vm) = uuid(xml).or_else(|| named(places, name)) else { return Ok(()) };
    // Before the agent is asked: what is refused now can no longer pass, what it permits later can.
    let records = records(places, &vm);
    let question = Question { operation, vm, asked: Clock.now() };
    let answer = match exchange(places, &question) {
        Some(answer) => answer,
        None if operation == Operation::Release => Ok(()),
        None => without_agent(list::read(&places.list), &question.vm),
    };
    if answer.is_err() {
        // Only a record: should it stay, the agent waits longer than it must.
        records.iter().for_each(|record| drop(fs::remove_file(record)));
    }
    answer
}

fn uuid(xml: &str) -> Option<VmId> {
    let document = Document::parse(xml).ok()?;
    let mut elements = document.root_element().children();
    let text = elements.find(|element| element.has_tag_name("uuid"))?.text()?;
    Some(VmId(text.trim().to_ascii_lowercase()))
}

/// libvirt gives the definition; should it not, the name has to do.
fn named(places: &Places, name: &str) -> Option<VmId> {
    let known = list::read(&places.list).ok()?;
    known.vms.into_iter().find(|(_, known)| known == name).map(|(vm, _)| vm)
}

fn records(places: &Places, vm: &VmId) -> Vec<PathBuf> {
    let entries = fs::read_dir(&places.starts).into_iter().flatten().flatten();
    let prefix = format!("{vm}.");
    let is_its = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".json"))
    };
    entries.map(|entry| entry.path()).filter(is_its).collect()
}

/// The agent's answer; `None` if it does not answer in time.
fn exchange(places: &Places, question: &Question) -> Option<Answer> {
    let mut socket = UnixStream::connect(&places.socket).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    writeln!(socket, "{question}").ok()?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).ok()?;
    decode(&line)
}

fn without_agent(known: anyhow::Result<HaVms>, vm: &VmId) -> Answer {
    let known = known.map_err(|error| format!("steadfastd does not answer, and {error:#}"))?;
    match known.vms.get(vm).filter(|_| !known.disarmed) {
        Some(name) => Err(format!(
            "{name} is under high availability and steadfastd does not answer: without it nobody \
             knows whether {name} runs elsewhere; start it: systemctl start steadfastd"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "4f8b0c1e-0000-4000-8000-00000000000a";

    fn xml(uuid: &str) -> String {
        format!("<domain type='kvm'><name>web</name><uuid>{uuid}</uuid></domain>")
    }

    fn places(name: &str) -> Places {
        let folder =
            std::env::temp_dir().join(format!("steadfast-ask-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("starts")).expect("folder");
        let place = |name: &str| folder.join(name);
        Places { socket: place("hook.sock"), list: place("ha-vms"), starts: place("starts") }
    }

    fn prepare(places: &Places, name: &str, xml: &str) -> Answer {
        ask(places, Operation::Prepare, name, xml)
    }

    #[test]
    fn without_an_agent_only_ha_vms_are_refused_and_their_starts_are_over() {
        let places = places("down");
        assert_eq!(prepare(&places, "web", &xml(WEB)), Ok(()), "no agent was ever here");
        fs::write(&places.list, format!("armed\n{WEB} web\n")).expect("list");
        let records = ["7", "8"].map(|n| places.starts.join(format!("{WEB}.{n}.json")));
        let other = places.starts.join("other.7.json");
        records.iter().chain([&other]).for_each(|path| fs::write(path, "{}").expect("record"));
        let other_uuid = "4f8b0c1e-0000-4000-8000-00000000000b";
        assert_eq!(prepare(&places, "scratch", &xml(other_uuid)), Ok(()));
        let refusal = prepare(&places, "web", &xml(&WEB.to_uppercase())).expect_err("refused");
        assert!(refusal.contains("systemctl start steadfastd"), "{refusal}");
        assert!(other.exists() && !records.iter().any(|record| record.exists()));
        assert!(prepare(&places, "web", "").is_err(), "by its name");
        assert_eq!(ask(&places, Operation::Release, "web", &xml(WEB)), Ok(()));
        fs::write(&places.list, format!("disarmed\n{WEB} web\n")).expect("list");
        assert_eq!(prepare(&places, "web", &xml(WEB)), Ok(()));
        fs::write(&places.list, "rubbish").expect("list");
        assert!(prepare(&places, "web", &xml(WEB)).is_err());
    }
}
