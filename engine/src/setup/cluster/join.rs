//! `steadfast cluster join`: a prepared machine becomes a member.

use super::super::JOINED;
use super::super::host::Host;
use super::super::journal::hex;
use super::super::step::{self, State};
use super::super::tell::Tell;
use super::membership::Membership;
use super::ticket::{Ticket, now_s};
use super::wire::{self, Answers, Says};
use super::{corosync, facts};
use crate::doctor::Level;
use crate::pages::{self, Place};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::path::PathBuf;

/// Joins; what the inviter said last.
///
/// # Errors
/// The machine is refused, or something failed: invite and join once more.
pub fn join(host: &Host, ticket: &Ticket, tell: &mut Tell) -> Result<String> {
    ensure!(
        ticket.until_s > now_s(),
        "the ticket is no longer good: run `steadfast cluster invite` once more (and compare the clocks)"
    );
    let conf = host.text(corosync::PATH).unwrap_or_default();
    ensure!(
        !corosync::is_foreign(&conf),
        "{} belongs to a cluster that others made: stop corosync and move the file away",
        corosync::PATH
    );
    let mut line = wire::connect(ticket.address, ticket.fingerprint)?;
    let hello =
        Says::Hello { secret: hex(&ticket.secret), machine: Box::new(facts::machine(host)) };
    wire::send(&mut line, &hello)
        .context("the inviter is not who gave the ticket, or went away")?;
    converse(host, &mut line, tell)
}

fn converse(host: &Host, line: &mut (impl Read + Write), tell: &mut Tell) -> Result<String> {
    loop {
        match wire::receive(line)? {
            Answers::Refused { checks } => {
                let red = checks.iter().filter(|check| check.level == Level::Red);
                let words = red.map(|it| format!("{}: {}; {}", it.name, it.text, it.remedy));
                bail!("refused\n  {}", words.collect::<Vec<_>>().join("\n  "));
            }
            Answers::Look { directory, device } => {
                wire::send(line, &Says::Store(look(directory, device)))?;
            }
            Answers::Welcome { name, membership } => {
                tell.line(&format!("welcome, {name}"));
                let done = become_member(host, &membership, tell);
                let told = done.as_ref().map(|_| ()).map_err(|error| format!("{error:#}"));
                let heard = wire::send(line, &Says::Joined(told));
                done?;
                heard.context(
                    "this node is set up, but the inviter is gone: invite and join once more",
                )?;
            }
            Answers::Done { text } => return Ok(text),
        }
    }
}

fn become_member(host: &Host, membership: &Membership, tell: &mut Tell) -> Result<()> {
    let conf = super::Conf::parse(&membership.corosync)?;
    if let Some(is) = host.text(corosync::PATH).filter(|text| text.starts_with(corosync::MARK)) {
        let (is, want) = (super::Conf::parse(&is)?.cluster, &conf.cluster);
        ensure!(
            is == *want,
            "this node belongs to cluster {is:?}, not {want:?}: steadfast cluster leave"
        );
    }
    let lines = step::perform(host, JOINED, &membership.plan(), tell)?;
    let changed = lines.iter().filter(|line| line.state == State::Changed).count();
    tell.line(&format!("{changed} of {} steps changed something", lines.len()));
    Ok(())
}

fn look(
    directory: Option<PathBuf>,
    device: Option<PathBuf>,
) -> std::result::Result<(String, Vec<String>), String> {
    let place = match (directory, device) {
        (Some(directory), _) => Place::Directory(directory),
        (None, Some(device)) => Place::Device(device),
        (None, None) => return Err("no place was named".into()),
    };
    let found = pages::look(&place).map_err(|error| format!("{error:#}"))?;
    Ok((found.cluster, found.nodes.into_iter().map(|node| node.name).collect()))
}
