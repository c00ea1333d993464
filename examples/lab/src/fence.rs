//! The lab's fence agent, by the convention of the fence-agents project: options as `key=value`
//! lines on standard input, the outcome as exit status.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::MAX_NODES;

/// `steadfast-lab` started by this name is the fence agent.
pub const NAME: &str = "fence_lab";

/// By convention, `status` of a node that is off.
const STATUS_OFF: u8 = 2;

const METADATA: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Power switches of the Steadfast lab">
<longdesc>Cuts the power of a lab node: its processes are gone when the action returns.</longdesc>
<parameters>
<parameter name="action" unique="0" required="1">
<getopt mixed="-o, --action=[action]"/><content type="string" default="off"/>
<shortdesc lang="en">Fencing action</shortdesc></parameter>
<parameter name="plug" unique="0" required="1" obsoletes="port">
<getopt mixed="-n, --plug=[name]"/><content type="string"/>
<shortdesc lang="en">Name of the node</shortdesc></parameter>
<parameter name="port" unique="0" required="0" deprecated="1">
<getopt mixed="-n, --plug=[name]"/><content type="string"/>
<shortdesc lang="en">Name of the node</shortdesc></parameter>
<parameter name="sock" unique="0" required="0">
<getopt mixed="-s, --sock=[path]"/><content type="string" default="/run/lab/power.sock"/>
<shortdesc lang="en">Socket of the power switches</shortdesc></parameter>
</parameters>
<actions>
<action name="on" automatic="0"/><action name="off"/><action name="reboot"/>
<action name="status"/><action name="monitor"/><action name="list"/><action name="metadata"/>
</actions>
</resource-agent>"#;

/// The whole program.
pub fn main(arguments: &[String]) -> ExitCode {
    let outcome = options(arguments).and_then(|options| act(&options));
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("{NAME}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Options = BTreeMap<String, String>;

/// From the command line if there is one (`-o metadata`), else from standard input.
fn options(arguments: &[String]) -> Result<Options> {
    if !arguments.is_empty() {
        return from_arguments(arguments);
    }
    let mut options = Options::new();
    for line in std::io::stdin().lines() {
        let line = line.context("cannot read the options")?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            bail!("{line:?} is not key=value");
        };
        options.insert(key.trim().into(), value.trim().into());
    }
    Ok(options)
}

fn from_arguments(arguments: &[String]) -> Result<Options> {
    let mut options = Options::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => {
                let value = words.next().with_context(|| format!("{word} wants a value"))?;
                (word.as_str(), value.clone())
            }
        };
        let key = match flag {
            "-o" | "--action" => "action",
            "-n" | "--plug" => "plug",
            "-s" | "--sock" => "sock",
            _ => bail!("unknown option {flag}: use -o ACTION, -n NODE, -s SOCKET"),
        };
        options.insert(key.into(), value);
    }
    Ok(options)
}

fn act(options: &Options) -> Result<u8> {
    let action = options.get("action").map_or("off", String::as_str);
    let plug = || {
        let names = ["plug", "port", "nodename"];
        let found = names.iter().find_map(|name| options.get(*name));
        found.with_context(|| format!("action {action} needs plug=NODE"))
    };
    match action {
        "metadata" | "meta-data" => println!("{METADATA}"),
        "list" => (1..=MAX_NODES).for_each(|number| println!("n{number},")),
        "monitor" => drop(ask(options, "status n1")?),
        "status" => {
            return Ok(if ask(options, &format!("status {}", plug()?))? == "on" {
                0
            } else {
                STATUS_OFF
            });
        }
        "off" | "on" => drop(ask(options, &format!("{action} {}", plug()?))?),
        "reboot" => {
            ask(options, &format!("off {}", plug()?))?;
            ask(options, &format!("on {}", plug()?))?;
        }
        _ => bail!("unknown action {action:?}"),
    }
    Ok(0)
}

fn ask(options: &Options, request: &str) -> Result<String> {
    let path = options.get("sock").map_or("/run/lab/power.sock", String::as_str);
    let mut stream = UnixStream::connect(path)
        .with_context(|| format!("cannot reach the switches at {path}"))?;
    // `on` answers when the node's services run.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    writeln!(stream, "{request}")?;
    let mut reply = String::new();
    BufReader::new(stream)
        .read_line(&mut reply)
        .with_context(|| format!("the switches did not answer {request:?}"))?;
    let reply = reply.trim();
    if reply.is_empty() || reply.starts_with("error") {
        bail!("{request}: {}", if reply.is_empty() { "no answer" } else { reply });
    }
    Ok(reply.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_long_and_short_forms() {
        let words = ["-o", "off", "--plug=n2", "-s", "/tmp/x"].map(String::from);
        let options = from_arguments(&words).unwrap();
        assert_eq!(options["action"], "off");
        assert_eq!(options["plug"], "n2");
        assert_eq!(options["sock"], "/tmp/x");
        assert!(from_arguments(&["-o".into()]).is_err());
    }

    #[test]
    fn an_action_without_a_node_is_refused() {
        let options = Options::from([("action".into(), "off".into())]);
        assert!(act(&options).unwrap_err().to_string().contains("plug"));
    }
}
