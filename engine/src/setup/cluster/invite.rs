//! `steadfast cluster invite`: a member lets a machine in.

use super::super::host::Host;
use super::super::tell::Tell;
use super::facts::{self, Machine};
use super::membership::{Membership, secret};
use super::ticket::{GOOD_FOR, Ticket, now_s};
use super::wire::{self, Answers, Says};
use super::{Conf, activation, agents, config_file, corosync, members, pki};
use crate::config::Config;
use crate::doctor::{Check, Level};
use crate::pages::{self, StoredNode};
use anyhow::{Context, Result, bail, ensure};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use steadfast_core::ids::NodeId;

/// Port of a join, unless another is given.
pub const PORT: u16 = 7444;
/// Whoever does not know the secret may try so often.
const WRONG: u32 = 5;

/// What the operator says.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The newcomer's name.
    pub name: String,
    /// Its address on each link.
    pub addresses: Vec<IpAddr>,
    /// Port to wait at; 0: a free one.
    pub port: u16,
    /// How long to wait.
    pub limit: Duration,
}

/// A member that waits.
pub struct Inviter<'a> {
    host: &'a Host,
    invite: Invite,
    config: Config,
    conf: Conf,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    ticket: Ticket,
}

impl std::fmt::Debug for Inviter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inviter").field("invite", &self.invite).finish_non_exhaustive()
    }
}

type Line = StreamOwned<ServerConnection, TcpStream>;

impl<'a> Inviter<'a> {
    /// Makes the ticket and begins to listen.
    ///
    /// # Errors
    /// This node is no member, the newcomer does not fit, or the port is taken.
    pub fn begin(host: &'a Host, invite: Invite) -> Result<Self> {
        let conf = agents::conf(host)?;
        let next = conf.with(&invite.name, &invite.addresses)?;
        let config = read_config(host)?;
        let read =
            |path| host.text(path).with_context(|| format!("{path} cannot be read: try as root"));
        let (certificate, key) = (read(pki::NODE)?, read(pki::NODE_KEY)?);
        let own = agents::own(host, &conf)?.addresses[0];
        let listener = TcpListener::bind((own, invite.port));
        let listener =
            listener.with_context(|| format!("cannot listen on {own}:{}", invite.port))?;
        listener.set_nonblocking(true)?;
        let limit = invite.limit.min(GOOD_FOR);
        let ticket = Ticket {
            address: SocketAddr::new(own, listener.local_addr()?.port()),
            fingerprint: wire::fingerprint(&wire::certificates(&certificate)?[0]),
            secret: random()?,
            until_s: now_s() + limit.as_secs(),
        };
        let tls = wire::server(&certificate, &key)?;
        Ok(Self { host, invite, config, conf: next, listener, tls, ticket })
    }

    /// For the newcomer.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Waits until it has joined.
    ///
    /// # Errors
    /// It did not in time, or somebody guesses.
    pub fn wait(self, tell: &mut Tell) -> Result<()> {
        let end = Instant::now() + self.invite.limit.min(GOOD_FOR);
        let mut wrong = 0;
        while Instant::now() < end {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    sleep(Duration::from_millis(50));
                    continue;
                }
                Err(error) => return Err(error).context("nobody can be waited for"),
            };
            match self.serve(stream, tell, &mut wrong) {
                Ok(()) => return Ok(()),
                Err(error) => tell.line(&format!("  {error:#}")),
            }
            ensure!(wrong < WRONG, "{wrong} tries without the secret: the ticket is void");
        }
        bail!(
            "{} did not join within {} s",
            self.invite.name,
            self.invite.limit.min(GOOD_FOR).as_secs()
        )
    }

    fn serve(&self, stream: TcpStream, tell: &mut Tell, wrong: &mut u32) -> Result<()> {
        stream.set_nonblocking(false)?;
        wire::patient(&stream)?;
        let mut line = StreamOwned::new(ServerConnection::new(Arc::clone(&self.tls))?, stream);
        let machine = self.greet(&mut line, wrong)?;
        match self.admit(&mut line, &machine, tell) {
            Ok(()) => Ok(()),
            Err(error) => {
                // It may have gone away; then nobody hears this.
                let refusal =
                    Answers::refused("join", format!("{error:#}"), "then repeat invite and join");
                let _ = wire::send(&mut line, &refusal);
                line.conn.send_close_notify();
                let _ = line.flush();
                Err(error)
            }
        }
    }

    fn greet(&self, line: &mut Line, wrong: &mut u32) -> Result<Machine> {
        let Says::Hello { secret, machine } = wire::receive(line)? else { bail!("no greeting") };
        // Only digests are compared: how long that takes says nothing of the secret.
        let known = Sha256::digest(super::super::journal::hex(&self.ticket.secret));
        if Sha256::digest(secret) != known {
            *wrong += 1;
            bail!("somebody came with a wrong secret");
        }
        Ok(*machine)
    }

    fn admit(&self, line: &mut Line, machine: &Machine, tell: &mut Tell) -> Result<()> {
        let name = &self.invite.name;
        tell.begin("join", "the newcomer is checked, then everybody learns of it");
        tell.doing(&format!("{name} is here: {}", machine.system));
        let checks = facts::requirements(machine, &facts::machine(self.host));
        tell_checks(tell, &checks);
        if facts::level(&checks) == Level::Red {
            let red = checks.iter().filter(|check| check.level == Level::Red);
            let words: Vec<String> = red.map(|it| format!("{}: {}", it.text, it.remedy)).collect();
            wire::send(line, &Answers::Refused { checks })?;
            let _: Result<Says> = wire::receive(line);
            bail!("{name} is not fit: {}", words.join("; "));
        }
        tell.doing("does it see the same storage?");
        self.prove_storage(line)?;
        tell.doing("all members learn of it");
        members::spread(self.host, &self.conf, Some(name))?;
        tell.doing("it receives its keys and configuration");
        let membership = Box::new(self.membership()?);
        wire::send(line, &Answers::Welcome { name: name.clone(), membership })?;
        let Says::Joined(joined) = wire::receive(line)? else {
            bail!("{name} does not say how it went")
        };
        joined.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        tell.doing("the ledger learns of it");
        let text = self.enter(tell)?;
        wire::send(line, &Answers::Done { text })?;
        // Wait for its farewell, so that nothing is lost.
        let _ = line.read(&mut [0]);
        Ok(())
    }

    /// It names the store's nodes, then its own slot, which was made after that: whoever sees that sees this very storage.
    fn prove_storage(&self, line: &mut Line) -> Result<()> {
        let place = &self.config.storage;
        let own = pages::look(place)?;
        let names = |found: &pages::ClusterFile| -> Vec<String> {
            found.nodes.iter().map(|node| node.name.clone()).collect()
        };
        let seen = ask_store(line, place)?;
        let known = (own.cluster.clone(), names(&own));
        ensure!(
            seen == known,
            "it sees another store in {place}: {seen:?}, not {known:?}; compare the mounts"
        );
        let id = NodeId(self.conf.member(&self.invite.name).map_or(0, |member| member.id));
        pages::add_node(place, &StoredNode { id, name: self.invite.name.clone() })?;
        let seen = ask_store(line, place)?;
        let known = (own.cluster, names(&pages::look(place)?));
        ensure!(
            seen == known,
            "it does not see in {place} what is written here: {seen:?}, not {known:?}; is it a copy, or cached?"
        );
        Ok(())
    }

    fn membership(&self) -> Result<Membership> {
        let read = |path: &str| {
            self.host.text(path).with_context(|| format!("{path} cannot be read: try as root"))
        };
        let authkey = self.host.bytes(corosync::KEY)?.context("corosync has no key here")?;
        let (authority_key, key) = (read(pki::AUTHORITY_KEY)?, pki::new_key()?);
        let who = (self.invite.name.as_str(), &self.invite.addresses[..]);
        Ok(Membership {
            name: self.invite.name.clone(),
            authkey: super::super::journal::hex(&authkey),
            corosync: self.conf.render(),
            config: read(config_file::PATH)?,
            authority: read(pki::AUTHORITY)?,
            certificate: pki::member_certificate(&self.conf.cluster, &authority_key, &key, who)?,
            authority_key,
            key,
            active: activation::is_active(self.host),
        })
    }

    /// A cluster that runs takes it into its ledger; one that does not begins with it.
    fn enter(&self, tell: &mut Tell) -> Result<String> {
        let name = &self.invite.name;
        if !activation::is_active(self.host) {
            return Ok(format!("{name} has joined; when all have: steadfast cluster activate"));
        }
        let member = self.conf.member(name).context("it is no member")?;
        let own = agents::own(self.host, &self.conf)?;
        let body = crate::api::wire::AddNode { id: member.id, name: name.clone() };
        let agents = agents::Agents::new(self.host)?;
        let mut tries = 6;
        loop {
            let done: Result<crate::api::wire::Done> = agents.post(own, "/v1/nodes", &body);
            match done {
                Ok(done) => {
                    return Ok(format!("{name} belongs to the cluster (ledger {})", done.stamp));
                }
                Err(error) if tries == 0 => return Err(error),
                Err(error) => tell.doing(&format!("not yet: {error:#}")),
            }
            tries -= 1;
            sleep(Duration::from_secs(2));
        }
    }
}

fn ask_store(line: &mut Line, place: &pages::Place) -> Result<(String, Vec<String>)> {
    wire::send(line, &Answers::look(place))?;
    match wire::receive(line)? {
        Says::Store(Ok(seen)) => Ok(seen),
        Says::Store(Err(error)) => bail!("it does not see the storage: {error}"),
        _ => bail!("it does not say what it sees"),
    }
}

fn tell_checks(tell: &Tell, checks: &[Check]) {
    for check in checks.iter().filter(|check| check.level > Level::Green) {
        tell.line(&format!(
            "    {}: {}: {}; {}",
            check.level.word(),
            check.name,
            check.text,
            check.remedy
        ));
    }
}

fn random() -> Result<[u8; 16]> {
    let bytes = super::super::journal::unhex(&secret(16)?).unwrap_or_default();
    bytes.try_into().map_err(|_| anyhow::anyhow!("no secret"))
}

/// This node's configuration.
///
/// # Errors
/// There is none, or it is not good.
pub(super) fn read_config(host: &Host) -> Result<Config> {
    let text = host.text(config_file::PATH);
    let text = text.with_context(|| format!("{} cannot be read", config_file::PATH))?;
    Config::parse(&text).map_err(|problems| anyhow::anyhow!("{}:\n{problems}", config_file::PATH))
}
