//! `steadfast cluster`: thin around `crate::setup::cluster`.

use super::args::PresetArg;
use super::client::{Client, Failure};
use super::format::table;
use super::live::{Live, News};
use super::setup::plan;
use super::setup_args::{ClusterCommand, InitArgs, InviteArgs};
use super::{cluster, say, say_json};
use crate::api::wire::Disarmed;
use crate::config::Preset;
use crate::doctor::{Check, Level};
use crate::pages::Place;
use crate::setup::cluster::config_file::Choices;
use crate::setup::cluster::init::{self, Init};
use crate::setup::cluster::invite::{Invite, Inviter};
use crate::setup::cluster::ticket::Ticket;
use crate::setup::cluster::{activation, facts, join, members};
use crate::setup::host::Host;
use crate::setup::prepare;
use crate::setup::step::State;
use crate::setup::tell::Tell;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long the first election is watched.
const ELECTION: Duration = Duration::from_secs(120);

pub(super) async fn run(
    client: &Client,
    command: &ClusterCommand,
    json: bool,
) -> Result<(), Failure> {
    match command {
        ClusterCommand::Init(args) => make(args, json),
        ClusterCommand::Invite(args) => invite(args),
        ClusterCommand::Join { ticket, root } => enter(ticket, &Host::new(&root.root)),
        ClusterCommand::Activate { check, root } => {
            activate(client, &Host::new(&root.root), *check, json).await
        }
        ClusterCommand::Deactivate { reason, yes } => {
            confirm(
                *yes,
                "HA VMs keep running, but nothing restarts them, and nobody resets a node that hangs",
            )?;
            cluster::disarm(client, None, reason, json).await
        }
        ClusterCommand::RemoveNode { node, limit, root } => {
            let mut tell = Tell::people();
            let done = members::remove_node(&Host::new(&root.root), node, *limit, &mut tell);
            tell.finish();
            done.map_err(Failure::Other)?;
            say(&format!(
                "{node} belongs to the cluster no more; on {node} itself: steadfast cluster leave --yes\n"
            ))
        }
        ClusterCommand::Leave { yes, root } => {
            confirm(*yes, "this node's keys and configuration are removed")?;
            let left = members::leave(&Host::new(&root.root), |text| eprintln!("  {text}"));
            let left = left.map_err(Failure::Other)?;
            say(if left {
                "this node belongs to no cluster now\n"
            } else {
                "it belonged to none\n"
            })
        }
    }
}

fn make(args: &InitArgs, json: bool) -> Result<(), Failure> {
    let host = Host::new(&args.root.root);
    let (name, addresses) = args.node.clone();
    let (token_ms, force) = (args.token, args.force.clone());
    let init = Init { name, addresses, token_ms, force, choices: choices(args, &host)? };
    let lines = init::preview(&host, &init).map_err(Failure::Other)?;
    if args.dry_run {
        return if json { say_json(&lines) } else { say(&plan(&lines)) };
    }
    let mut tell = if json { Tell::nobody() } else { Tell::people() };
    let done = init::init(&host, &init, &mut tell);
    tell.finish();
    let done = done.map_err(Failure::Other)?;
    if json {
        return say_json(&done);
    }
    let changed = done.iter().filter(|line| line.state == State::Changed).count();
    let cluster = &args.name;
    say(&format!(
        "{}cluster {cluster} has its first node; for each other one, here: steadfast cluster invite NAME=ADDRESS\n",
        if changed == 0 { "nothing to do: " } else { "" }
    ))
}

fn choices(args: &InitArgs, host: &Host) -> Result<Choices, Failure> {
    let place = match (&args.storage, &args.device) {
        (Some(directory), _) => Place::Directory(directory.clone()),
        (None, Some(device)) => Place::Device(device.clone()),
        (None, None) => return Err(Failure::Usage("give --storage or --device".into())),
    };
    let preset = match args.preset {
        PresetArg::Fast => Preset::Fast,
        PresetArg::Standard => Preset::Standard,
        PresetArg::Calm => Preset::Calm,
    };
    Ok(Choices {
        cluster: args.name.clone(),
        preset,
        timing: args.timing.iter().cloned().collect(),
        place,
        shared_paths: args.images.clone(),
        verification: args.verify.clone(),
        fence: args.fence.clone(),
        never_paused: args.never_paused,
        watchdog: args.watchdog.clone().unwrap_or_else(|| prepare::best_watchdog(host)),
    })
}

fn invite(args: &InviteArgs) -> Result<(), Failure> {
    let host = Host::new(&args.root.root);
    let (name, addresses) = args.node.clone();
    let wanted = Invite { name: name.clone(), addresses, port: args.port, limit: args.limit };
    let inviter = Inviter::begin(&host, wanted).map_err(Failure::Other)?;
    let word = inviter.ticket().word();
    if let Some(file) = &args.ticket_file {
        write_secret(file, &word).map_err(|error| Failure::Other(error.into()))?;
    }
    say(&format!("on {name}:\n\n  steadfast cluster join {word}\n\n"))?;
    let mut tell = Tell::people();
    tell.line(&format!(
        "waiting for {name}, up to {} min",
        args.limit.as_secs().div_ceil(60).min(30)
    ));
    let done = inviter.wait(&mut tell);
    tell.finish();
    done.map_err(Failure::Other)?;
    say(&format!("{name} has joined\n"))
}

fn write_secret(file: &PathBuf, word: &str) -> std::io::Result<()> {
    let _ = std::fs::remove_file(file);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{word}")
}

fn enter(ticket: &str, host: &Host) -> Result<(), Failure> {
    let ticket = Ticket::parse(ticket).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut tell = Tell::people();
    let done = join::join(host, &ticket, &mut tell);
    tell.finish();
    say(&format!("{}\n", done.map_err(Failure::Other)?))
}

async fn activate(
    client: &Client,
    host: &Host,
    only_check: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut tell = if json { Tell::nobody() } else { Tell::people() };
    tell.begin("check", "every requirement on every node");
    let checks = members::requirements(host);
    tell.finish();
    let checks = checks.map_err(Failure::Other)?;
    let level = facts::level(&checks);
    if json {
        say_json(&checks)?;
    } else {
        say(&told(&checks))?;
    }
    if only_check {
        return if level == Level::Green { Ok(()) } else { Err(Failure::Found(level)) };
    }
    if level == Level::Red {
        let why = "something is red: nothing was activated";
        return Err(Failure::Other(anyhow::anyhow!(why)));
    }
    let was_active = activation::is_active(host);
    members::activate(host, &mut tell).map_err(Failure::Other)?;
    let led = tokio::time::timeout(ELECTION, watch_election(client, json)).await;
    let leader = led.unwrap_or_else(|_| {
        let text = format!("no leader within {} s: see `steadfast doctor`", ELECTION.as_secs());
        Err(Failure::Other(anyhow::anyhow!(text)))
    })?;
    if was_active && is_off(client).await? {
        cluster::arm(client, json).await?;
    }
    if json { Ok(()) } else { say(&format!("high availability is active; {leader} leads\n")) }
}

async fn is_off(client: &Client) -> Result<bool, Failure> {
    Ok(client.get::<Disarmed>("/v1/disarm").await?.disarm.is_some())
}

fn told(checks: &[Check]) -> String {
    let mut rows = table(&["CHECK", "STATE", "WHAT WAS FOUND", "WHAT TO DO"]);
    for check in checks {
        rows.add_row([&check.name, check.level.word(), &check.text, &check.remedy]);
    }
    format!("{}\n\n", rows.trim_fmt())
}

/// Follows this node's agent until somebody leads; its name.
async fn watch_election(client: &Client, json: bool) -> Result<String, Failure> {
    let mut shown = String::new();
    loop {
        // The agent begins within a second; until then its stream has no state.
        let Ok(mut live) = Live::open(client).await else {
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        };
        while let Ok(news) = live.next().await {
            let News::State(state) = news else { continue };
            let election = &state.election;
            let ballots: Vec<String> =
                election.ballots.iter().map(|ballot| format!("node {}", ballot.node)).collect();
            let line = format!(
                "election {}: {} ({}){}",
                election.round,
                election.phase,
                election.reason,
                if ballots.is_empty() {
                    String::new()
                } else {
                    format!(", ballots of {}", ballots.join(", "))
                }
            );
            if line != shown && !json {
                eprintln!("  {line}");
                shown = line;
            }
            if let Some(leader) = &state.leader {
                return Ok(leader.name.clone());
            }
        }
    }
}

/// Asks, unless the answer was given already.
fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Usage(format!("{what}: say --yes if that is wanted")));
    }
    eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|error| Failure::Other(error.into()))?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err(Failure::Told) }
}
